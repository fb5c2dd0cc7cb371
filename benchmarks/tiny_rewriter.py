"""What the gates say of the tiny rewriting model, served by a real vLLM, beside verbatim copies and the rules.

Run: python benchmarks/tiny_rewriter.py [--url http://127.0.0.1:8000] [--captions 400]

Captions of the sample world with seed 11, which the model was not trained on, so many per platform; first attempts, at
temperature 0, with the prompts of refine/prompts. Changed is the word edit distance over the words of the longer text,
mean of the accepted replies. A second run allows a second attempt. What the accepted replies leave out or say twice is
counted against the facts of the sources. Prints a table, twenty answers, then one JSON line.
"""

import argparse
import contextlib
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).parents[1]))

from data.campus import write_world
from refine.gates import check
from refine.orientation import strip
from refine.rules import rewrite
from refine.server import Model, model_of, serving
from refine.tiny_rewriter import MODEL
from refine.tiny_rewriter.paraphrase import read_facts
from refine.tiny_rewriter.scores import as_json, score
from refine.vllm import Ask, refine_all
from schemas.config import PartitionConfig, RefineConfig, ServerConfig
from schemas.errors import GeorefineError
from schemas.records import PLATFORMS, Platform, Refined, Reply, Stripped

FOLDERS = cast(dict[str, Platform], PartitionConfig().folders)
UNSEEN_SEED = 11
SHOWN = 20


def captions(per_platform: int) -> list[tuple[Platform, str]]:
    """So many train captions of every platform of the unseen world, as refinement sees them."""
    with tempfile.TemporaryDirectory() as folder:
        write_world(Path(folder) / "world", seed=UNSEEN_SEED)
        records = json.loads((Path(folder) / "world" / "train.json").read_text(encoding="utf-8"))
    found: dict[Platform, list[str]] = {platform: [] for platform in PLATFORMS}
    for record in records:
        platform, raw = FOLDERS[record["image"].split("/")[1]], record["caption"]
        found[platform].append(strip(raw).text if platform == "satellite" else raw)
    draw = random.Random(UNSEEN_SEED).sample
    return [(platform, text) for platform in PLATFORMS for text in draw(sorted(set(found[platform])), per_platform)]


def asked(cases: Sequence[tuple[Platform, str]], attempts: int, url: str, model: Model, store: Path) -> list[Refined]:
    """What comes of the captions, in their order."""
    asks = (Ask(Stripped(text), platform, None, n) for n, (platform, text) in enumerate(cases))
    config, server = RefineConfig(refiner="vllm", attempts=attempts), ServerConfig(urls=(url,))
    rows = refine_all(
        asks,
        model=model,
        config=config,
        server=server,
        urls=[url],
        store=store,
        report=lambda *_: None,
        total=len(cases),
    )
    found = {ask.tag: row for ask, row in rows}
    return [found[n] for n in range(len(cases))]


def against_facts(source: str, caption: str) -> tuple[bool, bool]:
    """Whether a caption leaves out a neighbour of the building that its source names, and whether it says one twice."""
    facts, text = read_facts(source), caption.lower()
    told = []
    for noun in sorted(facts.things, key=len, reverse=True) if facts else ():
        text, times = re.subn(rf"\b{re.escape(noun.lower())}\b", " ", text)
        told.append(times)
    return 0 in told, any(times > 1 for times in told)


def measure(count: int, url: str, model: Model, folder: Path) -> None:
    """Print everything."""
    cases = captions(count)
    first = asked(cases, 1, url, model, folder / "replies.sqlite")
    again = asked(cases, 2, url, model, folder / "replies.sqlite")
    ways = {
        "tiny model": [row.reply for row in first],
        "copied word for word": [as_json(Reply(text, (text.partition(". ")[0] + ".",))) for _, text in cases],
        "rules": [as_json(rewrite(text, platform)) for platform, text in cases],
    }
    table = {}
    print(f"| {count} captions each | all | {' | '.join(PLATFORMS)} | changed |\n|---|---|---|---|---|---|")
    for name, replies in ways.items():
        parts = [score(cases, replies)] + [
            score(cases[n * count : (n + 1) * count], replies[n * count : (n + 1) * count])
            for n in range(len(PLATFORMS))
        ]
        table[name] = [round(part.accepted, 4) for part in parts]
        print(f"| {name} | {' | '.join(f'{part.accepted:.1%}' for part in parts)} | {parts[0].changed:.2f} |")
    refused = Counter(next(g.gate for g in row.gates if not g.passed) for row in first if row.status == "fallback")
    two = sum(row.status == "refined" for row in again) / len(cases)
    print(f"\naccepted in two attempts: {two:.1%}; refused at first by: {dict(refused.most_common())}")
    taken = [(text, row.refined) for (_, text), row in zip(cases, first, strict=True) if row.status == "refined"]
    left_out, twice = map(sum, zip(*(against_facts(text, said) for text, said in taken), strict=True))
    print(f"of {len(taken)} accepted at first, {left_out} leave a neighbour out and {twice} say one twice")
    for n in range(0, len(cases), max(1, len(cases) // SHOWN)):
        (platform, text), reply = cases[n], first[n].reply
        failed = [f"{gate.gate}: {gate.detail}" for gate in check(platform, text, reply) if not gate.passed]
        print(f"\n[{platform}] {text}\n  -> {reply}\n  {'; '.join(failed) or 'accepted'}")
    found = {"accepted": table, "two_attempts": round(two, 4), "refused": dict(refused)}
    print(json.dumps({**found, "left_out": left_out, "twice": twice}))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", help="a vLLM server that serves the tiny model; without it one is started")
    parser.add_argument("--captions", type=int, default=400, help="per platform")
    options = parser.parse_args(arguments)
    server = ServerConfig(urls=(options.url,) if options.url else ())
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            model = model_of(RefineConfig(refiner="vllm", model=str(MODEL)), server.urls)
            [url, *_] = stack.enter_context(serving(model, server, folder / "vllm.log", lambda *_: None))
        except GeorefineError as error:
            print(f"not measured: {error}")
            return
        measure(options.captions, url, model, folder)


if __name__ == "__main__":
    main()
