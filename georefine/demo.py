"""The demo: the whole of georefine once through on the sample world. `georefine demo`."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from data.campus import VERSION, write_world
from data.verify import verify
from experts.baseline import evaluate_baseline
from flows.progress import report
from flows.rebuild import rebuild
from flows.train import train
from schemas.config import Config, config_dict
from schemas.errors import DatasetError, UsageError


def _sample(folder: Path, buildings: int, seed: int) -> dict[str, Any]:
    """Write the sample world, or take the one that is there if it is the same; returns its campus.json."""
    truth = folder / "campus.json"
    if not truth.exists():
        write_world(
            folder, buildings=buildings, seed=seed, progress=lambda done, total: report("sample", done, total, "")
        )
    world: dict[str, Any] = json.loads(truth.read_text(encoding="utf-8"))
    found = (world["version"], world["seed"], len(world["buildings"]))
    if found != (VERSION, seed, buildings):
        raise UsageError(
            f"{folder} holds another sample world (version {found[0]}, seed {found[1]}, {found[2]} buildings): "
            "remove it or choose another --out."
        )
    return world


def tiny_model() -> str:
    """Folder of the tiny rewriting model that comes with georefine; it knows the sample world and nothing else."""
    from refine.tiny_rewriter import MODEL

    return str(MODEL)


def _command() -> str:
    """How this command is called from here: by its name where that is on the PATH, else by its place."""
    if shutil.which("georefine"):
        return "georefine"
    beside = Path(sys.executable).with_name("georefine")
    return os.path.relpath(beside) if beside.exists() else "python -m georefine"


def run_demo(out: Path, config: Config, *, buildings: int, seed: int) -> dict[str, Any]:
    """Sample, rebuild, verify, train and score; what is there already is not made again.

    Returns:
        rebuild (its result), scores (evaluation on test), beside (ceiling and baseline), paths, next (commands to try).
    """
    source, dataset, run = out / "source", out / "dataset", out / "run"
    world = _sample(source, buildings, seed)
    result = rebuild(str(source), str(dataset), config_dict(config))
    report("verify", 0, 1, "")
    if findings := verify(dataset):
        first = findings[0]
        raise DatasetError(
            f"{dataset} is not sound: {first.check}: {first.where}: {first.problem} ({len(findings)} in all)"
        )
    report("verify", 1, 1, "every check passed")
    if result["new"] and run.exists():
        shutil.rmtree(run)  # of a version before
    scores = train(str(dataset), str(run), config_dict(config), resume=run.exists())
    version, command = dataset / result["version"], _command()
    return {
        "rebuild": result,
        "scores": scores,
        "beside": {
            "ceiling (ambiguity of the queries)": world["ceiling"]["all"],
            "colour histograms": evaluate_baseline(dataset)["t2i"],
        },
        "paths": {
            "sample world": source,
            "shards": version,
            "manifest": version / "manifest.json",
            "refused rows": version / "rejects",
            "checkpoint, model card": run,
            "curves": run / "curves.png",
        },
        "next": [
            f'{command} search {run} {dataset} "a white building with a dome beside a pond"',
            f"{command} verify {dataset}",
            f"{command} rebuild YOUR-UNIVERSITY-1652 --out YOUR-DATASET",
        ],
    }
