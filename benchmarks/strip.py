"""Captions stripped of orientation per second, beside spaCy that only tokenises and a bare regular-expression pass.

Run: python benchmarks/strip.py        Prints a table, then one JSON line.

The texts are 130 words long and all different: published GeoText-1652 texts and mini-set captions where they are at
hand, and captions of the sample world. Repetitions of all contestants take turns, so that other work on the machine
hits all alike. Words are warm for all (spaCy keeps them too), and so are short phrases; "new" forgets
sentences before every repetition.
"""

import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import spacy

sys.path.insert(0, str(Path(__file__).parents[1]))

from data.campus import write_world
from refine.orientation import strip
from refine.orientation_spans import find, forget_sentences, lexicon, tokenise

REAL = Path(__file__).parents[2] / "shared" / "real"
ROUNDS = 15
WORDS = 130
CAPTIONS, REGIONS = 316_335, 276_045  # of the whole of GeoText-1652
REGION_WORDS = 20


def captions_of(file: Path) -> list[str]:
    """The captions of a GeoText-1652 annotation file."""
    found: list[str] = []
    for row in json.loads(file.read_text(encoding="utf-8")):
        found += [row["caption"]] if isinstance(row["caption"], str) else row["caption"] or []
    return found


def of_length(texts: Iterable[str]) -> list[str]:
    """Texts joined to at least `WORDS` words each; every text is used once."""
    pool = sorted({text.strip() for text in texts if text.strip()})
    random.Random(0).shuffle(pool)
    made: list[str] = []
    parts: list[str] = []
    for text in pool:
        parts.append(text if text[-1] in ".!?" else text + ".")
        if sum(len(part.split()) for part in parts) >= WORDS:
            made.append(" ".join(parts))
            parts = []
    return made


def corpora() -> dict[str, list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        write_world(Path(folder), buildings=100, seed=1)
        found = {"sample world": of_length(captions_of(Path(folder) / "train.json"))}
    if not REAL.exists():
        print(f"no real captions: {REAL} is absent")
        return found
    mini = REAL / "university1652-mini"
    rows = (REAL / "geotext_captions.jsonl").read_text(encoding="utf-8").splitlines()
    found["GeoText-1652, published"] = of_length(json.loads(row)["text"] for row in rows)
    found["mini set"] = of_length(captions_of(mini / "train.json") + captions_of(mini / "test.json"))
    return found


def strip_all(texts: list[str]) -> None:
    for text in texts:
        strip(text)


def strip_new(texts: list[str]) -> None:
    forget_sentences()
    strip_all(texts)


def contestants() -> dict[str, Callable[[list[str]], object]]:
    words = lexicon().words
    plain = words["horizontal"] | words["vertical"] | words["north_south"] | words["east_west"] | words["relation"]
    bare = re.compile(rf"\b(?:on|in|at|to) the (?:{'|'.join(sorted(plain))})\b(?: side| corner)?", re.I)
    make_doc = spacy.blank("en").make_doc
    return {
        "bare regular expression": lambda texts: [bare.sub("", text) for text in texts],
        "spaCy, tokenising only": lambda texts: [make_doc(text) for text in texts],
        "strip, new sentences": strip_new,
        "strip, sentences seen before": strip_all,
    }


def seconds(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    run()
    return clock() - start


def measure(texts: list[str]) -> dict[str, list[float]]:
    """Processor seconds per text of every contestant, one per round."""
    runs = contestants()
    for run in runs.values():
        run(texts)
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            spent[name].append(seconds(partial(run, texts), time.process_time) / len(texts))
    return spent


def rounds_of_strip(texts: list[str]) -> None:
    for _ in range(ROUNDS):
        strip_new(texts)


def two_processes(texts: list[str]) -> list[float]:
    """How much faster two processes are than one, by the clock; all warm."""
    gains = []
    halves = texts[::2], texts[1::2]
    with ProcessPoolExecutor(2) as pool:

        def both() -> None:
            list(pool.map(rounds_of_strip, halves))

        both()
        for _ in range(5):
            one, two = seconds(partial(rounds_of_strip, texts)), seconds(both)
            gains.append(one / two)
    return gains


def main() -> None:
    results: dict[str, dict[str, float]] = {}
    everything = []
    for corpus, texts in corpora().items():
        everything += texts
        places = sum(len(find(tokens)) for text in texts if (tokens := tokenise(text))) / len(texts)
        spent = measure(texts)
        tokenising = spent["spaCy, tokenising only"]
        print(f"\n{corpus}: {len(texts)} texts, {places:.1f} orientation expressions in each")
        print(f"{'one process':<32}{'texts/s':>10}{'x tokenising':>14}{'spread':>14}")
        results[corpus] = {"expressions_per_text": round(places, 2)}
        for name, times in spent.items():
            ratios = [mine / peer for mine, peer in zip(times, tokenising, strict=True)]
            rate, ratio = 1 / statistics.median(times), statistics.median(ratios)
            print(f"{name:<32}{rate:>10.0f}{ratio:>14.2f}{min(ratios):>9.2f}-{max(ratios):.2f}")
            results[corpus] |= {f"{name}, texts/s": round(rate), f"{name}, x tokenising": round(ratio, 2)}
    gains = two_processes(everything)
    rate = min(row["strip, new sentences, texts/s"] for row in results.values())
    minutes = (CAPTIONS + REGIONS * REGION_WORDS / WORDS) / rate / 60
    print(f"\ntwo processes: {statistics.median(gains):.2f} times as fast ({min(gains):.2f}-{max(gains):.2f})")
    print(
        f"all of GeoText-1652 ({CAPTIONS:,} captions, {REGIONS:,} region sentences) at the slowest of these rates: "
        f"{minutes:.1f} minutes on one core"
    )
    totals = {"two_processes_gain": round(statistics.median(gains), 2), "geotext_minutes": round(minutes, 2)}
    print(json.dumps({"benchmark": "strip", **results, **totals}))


if __name__ == "__main__":
    main()
