"""Refinement of captions: strip (or keep) orientation, rewrite for the platform, judge by the gates, record everything.

georefine refine-text --platform satellite < captions.txt
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Literal

from refine.gates import check, passed
from refine.orientation import strip, strip_many
from refine.registers import version
from refine.rules import rewrite, unchanged
from schemas.records import GateResult, Platform, Refined, Reply, Stripped

Mode = Literal["strip", "keep"]
# Refines captions of one platform, in order; it may read a bounded number of them ahead (refine.vllm.in_order).
Stream = Callable[[Iterable[Stripped]], Iterator[Refined]]


def reply_key(prompt_version: str, platform: Platform, stripped: str) -> str:
    """The key under which a reply is known: sha256 of everything that determines it, hexadecimal."""
    request = json.dumps([prompt_version, platform, stripped], ensure_ascii=False)
    return hashlib.sha256(request.encode("utf-8", "surrogatepass")).hexdigest()


def _judged(answer: Reply, platform: Platform, source: str) -> tuple[str, tuple[GateResult, ...]]:
    """The answer as the JSON text of a reply, and what the gates say of it."""
    reply = json.dumps({"caption": answer.caption, "queries": list(answer.queries)}, ensure_ascii=False)
    return reply, check(platform, source, reply)


def refine_stripped(stripped: Stripped, platform: Platform) -> Refined:
    """Refine one caption whose orientation is dealt with already, by the rules."""
    prompt_version = version()
    if not stripped.text.strip():
        return Refined(stripped, "", (), "", "empty", (), "rules", prompt_version, "", "")
    answer = rewrite(stripped.text, platform)
    reply, gates = _judged(answer, platform, stripped.text)
    if not passed(gates):
        answer = unchanged(stripped.text)
        reply, gates = _judged(answer, platform, stripped.text)
    return Refined(
        stripped=stripped,
        refined=answer.caption,
        queries=answer.queries,
        final=answer.caption,
        status="refined",
        gates=gates,
        refiner="rules",
        prompt_version=prompt_version,
        reply_key=reply_key(prompt_version, platform, stripped.text),
        reply=reply,
    )


def refine_captions(raws: Sequence[str], platform: Platform, *, mode: Mode) -> list[Refined]:
    """Refine captions of the train split by the rules, one record per caption in the given order.

    Status `refined`: the rules' rewrite, or, where that fails a gate, the stripped caption itself with its first
    sentence as the only query. `empty`: stripping left nothing; not trained on.

    Args:
        mode: strip removes orientation expressions, keep leaves the captions as they are.
    """
    stripped = strip_many(raws, platform) if mode == "strip" else [Stripped(raw) for raw in raws]
    return [refine_stripped(one, platform) for one in stripped]


def keep_captions(raws: Sequence[str]) -> list[Refined]:
    """Captions of val and test, untouched: they are evidence, and no score is bought by editing them."""
    return [Refined(Stripped(raw), "", (), raw, "kept", (), "", "", "", "") for raw in raws]


def refine_lines(
    lines: Iterable[str], platform: Platform, *, mode: Mode = "strip", refiner: Stream | Literal["rules"] = "rules"
) -> Iterator[str]:
    """One JSON line {raw, stripped, refined, queries, status, gates} per line, as it comes; a blank line is empty.

    Args:
        refiner: the rules, which answer line by line, or a refiner that may read ahead and answers in order.
    """
    raws: deque[str] = deque()

    def stripped() -> Iterator[Stripped]:
        for line in lines:
            raws.append(line.rstrip("\r\n"))
            yield strip(raws[-1], platform) if mode == "strip" else Stripped(raws[-1])

    rows = (refine_stripped(one, platform) for one in stripped()) if refiner == "rules" else refiner(stripped())
    for row in rows:
        yield json.dumps(
            {
                "raw": raws.popleft(),
                "stripped": row.stripped.text,
                "refined": row.refined,
                "queries": list(row.queries),
                "status": row.status,
                "gates": [asdict(gate) for gate in row.gates],
            },
            ensure_ascii=False,
        )
