"""What each part of the system is worth, on the sample world: the paper's ablation, and what it did not ablate.

Run: python benchmarks/ablation.py --out DIR [--seeds 3] [--buildings 912] [--rows NAME ...]

Every row is a data set (source and rebuild configuration), trunks (stage 0, which rows share) and a configuration for
stages 1 and 2 over them; every training is a process of its own, with one seed for weights, batches and jitter. The
world is the same for all: `--world` is its seed. What is finished in DIR is not done again, so a stopped run goes on.
Scores are those of `evaluate` on the test split, percent; "paired" is the difference to the row named, seed by seed.
Prints a Markdown table, then one JSON line.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from data.campus import VERSION

PAPER = {"unified": 31.67, "text-alignment": 40.55, "static-experts": 46.33, "full": 49.82}  # Score, Phase II

# The paper drops whole sentences with directional phrases, by keyword match; its list is not published.
DIRECTIONAL = re.compile(
    r"\b(?:left|right|upper|lower|top|bottom|above|below|north\w*|south\w*|east\w*|west\w*|clockwise|vertical\w*"
    r"|horizontal\w*|foreground|background|behind|in front of)\b",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[.!?])(?=[A-Z])")


@dataclass(frozen=True)
class Data:
    """A data set of the ablation: its rebuild configuration, and whether satellite sentences are dropped before it."""

    config: dict[str, Any] = field(default_factory=dict)
    drop_sentences: bool = False


@dataclass(frozen=True)
class Trunks:
    """A stage 0: its data set, and what it changes of the default configuration."""

    data: str
    train: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        trunks: in TRUNKS.
        train: of stages 1 and 2.
        against: the row that it is compared with, seed by seed; empty: none.
    """

    title: str
    data: str
    trunks: str
    train: dict[str, Any]
    against: str


PLAIN = {"orientation": {"satellite": "keep"}, "augment": {"variants": 0}}
DATA = {
    "plain": Data(PLAIN),
    "full": Data(),
    "no-augmentation": Data({"augment": {"variants": 0}}),
    "drop": Data({"orientation": {"satellite": "keep"}}, drop_sentences=True),
    "remap": Data({"orientation": {"satellite": "remap"}}),
    "keep": Data({"orientation": {"satellite": "keep"}}),
    "other": Data(),
}
RAW = {"texts": {"final": 0.0, "raw": 1.0}}
ONE = {"experts": "unified"}
STAGE_0 = {"stage1_epochs": 0, "stage2_epochs": 0}
OTHER = 4  # the other world's seed is so much further
TRUNKS = {
    "unified-plain": Trunks("plain", {**ONE, **RAW}),
    "unified": Trunks("full", ONE),
    "full": Trunks("full"),
    "no-augmentation": Trunks("no-augmentation"),
    "drop": Trunks("drop"),
    "remap": Trunks("remap"),
    "keep": Trunks("keep"),
    "other": Trunks("other"),
}
ROWS = {
    "unified": Row("unified, no preprocessing", "plain", "unified-plain", {**ONE, **RAW}, ""),
    "text-alignment": Row("+ text alignment", "full", "unified", ONE, "unified"),
    "within-platforms": Row("+ trunks contrasted within platforms", "full", "full", ONE, "text-alignment"),
    "static-experts": Row("+ static experts", "full", "full", {"router": "uniform"}, "within-platforms"),
    "full": Row("+ dynamic gate (the full system)", "full", "full", {}, "static-experts"),
    "no-hard-negatives": Row(
        "full, without hard negatives", "full", "full", {"stage1_epochs": 7, "stage2_epochs": 0}, "full"
    ),
    "no-augmentation": Row("full, without satellite augmentation", "no-augmentation", "no-augmentation", {}, "full"),
    "drop": Row("full, sentences dropped instead of stripped", "drop", "drop", {}, "full"),
    "remap": Row("full, orientation remapped instead of stripped", "remap", "remap", {}, "full"),
    "keep": Row("full, augmented tiles stripped, original tiles kept", "keep", "keep", {}, "full"),
    "other-unified": Row("trunks of another world: unified", "full", "other", ONE, "within-platforms"),
    "other-static": Row("trunks of another world: static", "full", "other", {"router": "uniform"}, "other-unified"),
    "other-full": Row("trunks of another world: dynamic", "full", "other", {}, "other-static"),
}


def run(*command: str | Path) -> str:
    """Run a command of this environment; its output. Ends the benchmark with its last words if it fails."""
    done = subprocess.run([sys.executable, "-m", *map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise SystemExit(f"{' '.join(map(str, command))} failed: {words}")
    return done.stdout


def without_directional_sentences(caption: str) -> str:
    """The caption without the sentences that a keyword finds directional."""
    return " ".join(part for part in SENTENCE.split(caption) if not DIRECTIONAL.search(part))


def dropped_source(world: Path, folder: Path) -> tuple[int, int]:
    """A copy of the world whose satellite training captions lack directional sentences; captions left and removed."""
    shutil.copytree(world, folder)
    file = folder / "train.json"
    records, left, removed = [], 0, 0
    for record in json.loads(file.read_text(encoding="utf-8")):
        if record["image"].split("/")[1] == "satellite":
            record["caption"] = without_directional_sentences(record["caption"])
            left, removed = left + bool(record["caption"]), removed + (not record["caption"])
        if record["caption"]:
            records.append(record)
    file.write_text(json.dumps(records), encoding="utf-8")
    return left, removed


@dataclass(frozen=True)
class Place:
    """Folder of worlds, data sets and runs; buildings and seed of the world."""

    out: Path
    buildings: int
    world: int


def sample(place: Place, name: str) -> Path:
    """The sample world, or the other one, made if it is not there."""
    world = place.out / name
    if not (world / "campus.json").exists():
        place.out.mkdir(parents=True, exist_ok=True)
        seed = place.world + (OTHER if name == "world-other" else 0)
        run("georefine", "sample", world, "--buildings", str(place.buildings), "--seed", str(seed))
    return world


def build(name: str, place: Place) -> Path:
    """The data set of that name, made if it is not there."""
    data, dataset = DATA[name], place.out / "data" / name
    if (dataset / "latest").exists():
        return dataset
    source = world = sample(place, "world-other" if name == "other" else "world")
    if data.drop_sentences:
        source = place.out / f"world-{name}"
        shutil.rmtree(source, ignore_errors=True)
        left, removed = dropped_source(world, source)
        print(f"{name}: {left} satellite captions left, {removed} were only directional sentences", flush=True)
    config = place.out / f"{name}.json"
    config.write_text(json.dumps(data.config))
    run("georefine", "rebuild", source, "--out", dataset, "--config", config)
    return dataset


def train(name: str, seed: int, data: str, config: dict[str, Any], place: Place) -> Path:
    """The run of that name and seed, trained if it is not there."""
    folder = place.out / "runs" / f"{name}-{seed}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = place.out / f"train-{name}-{seed}.json"
    file.write_text(json.dumps({"train": config}))
    run("experts", "train", build(data, place), "--out", folder, "--config", file, "--seed", str(seed), "--resume")
    return folder


def score(name: str, seed: int, place: Place) -> dict[str, Any]:
    """Train a row with a seed, unless that was done; what `evaluate --json` says of it."""
    scores = place.out / "runs" / f"{name}-{seed}" / "scores.json"
    if not scores.exists():
        row, trunks = ROWS[name], TRUNKS[ROWS[name].trunks]
        start = train(f"trunks-{row.trunks}", seed, trunks.data, {**trunks.train, **STAGE_0}, place)
        folder = train(name, seed, row.data, {**row.train, "trunks": str(start.resolve())}, place)
        scores.write_text(run("experts", "evaluate", folder, build(row.data, place), "--json"))
    found: dict[str, Any] = json.loads(scores.read_text())
    return found


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of a sample."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}"


def table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = [
        "| system | R@1 | R@5 | R@10 | Score | Score, paired with the row named | satellite | drone | ground | paper |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, scores in found.items():
        row = ROWS[name]
        cells = [spread([one["t2i"][key] for one in scores]) for key in ("r1", "r5", "r10", "score")]
        if row.against in found:
            pairs = zip(scores, found[row.against], strict=True)
            cells.append(f"{spread([a['t2i']['score'] - b['t2i']['score'] for a, b in pairs])} ({row.against})")
        else:
            cells.append("")
        cells += [
            spread([one["per_platform"][platform]["t2i"]["score"] for one in scores])
            for platform in ("satellite", "drone", "ground")
        ]
        lines.append(f"| {row.title} | {' | '.join(cells)} | {PAPER.get(name, '')} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for worlds, data sets and runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--buildings", type=int, default=912)
    parser.add_argument("--world", type=int, default=7, help="seed of the sample world")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="NAME", help="rows to run")
    options = parser.parse_args()
    place = Place(options.out, options.buildings, options.world)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in options.rows}
    for seed in range(options.seeds):  # seed by seed: a stopped run has whole rows to compare
        for name in options.rows:
            found[name].append(score(name, seed, place))
            recall = found[name][-1]["t2i"]
            print(f"  seed {seed} {name:<20} R@1 {recall['r1']:5.2f}  Score {recall['score']:5.2f}", flush=True)
    print(
        f"\nsample world version {VERSION}, seed {options.world}, {options.buildings} buildings, {options.seeds} seeds"
    )
    print("\n".join(table(found)))
    t2i = {name: [one["t2i"] for one in scores] for name, scores in found.items()}
    print(json.dumps({"benchmark": "ablation", "world": VERSION, "t2i": t2i}))


if __name__ == "__main__":
    main()
