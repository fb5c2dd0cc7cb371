"""Training as a Prefect flow: the trainer of experts/ and its scores on test. `georefine train DATASET --out RUN`."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from data.remote import local_dataset, note_checkpoint
from data.shards import open_version
from data.versions import name_checkpoint
from experts.evaluate import evaluate
from experts.trainer import train as run_training
from flows.progress import report
from schemas.config import Config, build
from schemas.records import PLATFORMS


def summary(scores: dict[str, Any]) -> str:
    """Scores of a run as a Markdown table, percent, chance beside them."""
    lines = ["| text to image | R@1 | R@5 | R@10 |", "|---|--:|--:|--:|"]
    rows = {"all, fused": scores["t2i"]} | {
        f"{platform} queries": scores["per_platform"][platform]["t2i"]
        for platform in PLATFORMS
        if platform in scores["per_platform"]
    }
    lines += [f"| {name} | {s['r1']:.1f} | {s['r5']:.1f} | {s['r10']:.1f} |" for name, s in rows.items()]
    lines += [f"| chance | {scores['chance']['r1']:.1f} | | {scores['chance']['r10']:.1f} |"]
    return "\n".join(lines)


@flow(name="train", flow_run_name="train {run}", validate_parameters=False)
def train(
    dataset: str, run: str, config: dict[str, Any] | None = None, device: str = "cpu", resume: bool = False
) -> dict[str, Any]:
    """Train the experts on a data set version, a path or a URL, and score them on its test split.

    Returns:
        What experts.evaluate.evaluate returns: t2i, i2t, per_platform, chance, queries, gallery.
    """
    settings = build(Config, config or {}).train
    place = local_dataset(dataset, report)
    run_training(place, Path(run), settings, device, resume=resume, progress=report)
    version = open_version(place)
    name_checkpoint(version.path.parent, version.name, Path(run))
    note_checkpoint(dataset, version.name, Path(run))
    scores = evaluate(Path(run), place)
    create_markdown_artifact(summary(scores), key="train-summary", description=f"{run}: scores on test")
    return scores
