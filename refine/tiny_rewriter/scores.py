"""How good rewriting is: the share of replies that the gates accept, and how much the accepted ones differ.

from refine.tiny_rewriter.scores import score
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from refine.gates import check, passed
from schemas.records import Platform, Reply

Case = tuple[Platform, str]


@dataclass(frozen=True)
class Score:
    """Of one way of rewriting: share of accepted replies and mean share of words changed in these, both 0..1."""

    accepted: float
    changed: float


def as_json(reply: Reply) -> str:
    """The reply as the compact JSON object that the schema of the request asks for."""
    answer = {"caption": reply.caption, "queries": list(reply.queries)}
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def changed(source: str, text: str) -> float:
    """Word edit distance (insertions, deletions, substitutions) over the words of the longer text.

    0 for a copy, 1 where no word stays in its order.
    """
    old, new = source.split(), text.split()
    row = list(range(len(new) + 1))
    for i, word in enumerate(old, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(new, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1] / max(len(old), len(new), 1)


def score(cases: Sequence[Case], replies: Sequence[str]) -> Score:
    """Score the replies, JSON texts, to as many captions (platform, source)."""
    good = [
        (source, json.loads(reply)["caption"])
        for (platform, source), reply in zip(cases, replies, strict=True)
        if passed(check(platform, source, reply))
    ]
    return Score(len(good) / max(len(cases), 1), sum(changed(*pair) for pair in good) / max(len(good), 1))
