"""Images for a sentence: `python -m experts search RUN DATASET "TEXT" [--top 10] [--json]`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data.shards import open_version
from experts.checkpoint import load_checkpoint
from experts.device import memory_errors, open_device
from experts.embed import fused_images, fused_texts, image_features, text_bags, text_features
from experts.encoders import words
from experts.examples import load_images
from schemas.errors import UsageError
from schemas.records import PLATFORMS, Platform, Split


@dataclass(frozen=True)
class Hit:
    """An image that was found. score: in -1..1, comparable within one search."""

    rank: int
    score: float
    image_id: str
    building_id: str
    platform: Platform


@dataclass(frozen=True)
class Found:
    """The answer to a text: gate weight of every platform's expert (they sum to one), and hits, best first."""

    text: str
    gate: dict[str, float]
    hits: tuple[Hit, ...]


def search(
    run: Path, dataset: Path, text: str, top: int = 10, *, split: Split | None = "test", device: str = "cpu"
) -> Found:
    """Rank the gallery images of a split (None: of all splits) by their fused score; equal scores by image id.

    Raises:
        UsageError: the text has no words, or `top` is not positive.
        TrainingError: the run holds no checkpoint. DatasetError: the data set cannot be read.
    """
    if not words(text):
        raise UsageError("The text to search for holds no words: describe what the image shows.")
    if top < 1:
        raise UsageError(f"--top is {top}; it must be at least 1.")
    where = open_device(device)
    checkpoint = load_checkpoint(run, where)
    model = checkpoint.model
    images = load_images(open_version(dataset), split, checkpoint.config.image_size, augmented=False)
    with memory_errors("searching"), torch.no_grad():
        feature = text_features(model, text_bags(checkpoint.vocabulary, [text]), where)
        gallery = fused_images(model, image_features(model, images.pixels, where))
        scores = (gallery @ fused_texts(model, feature)[0]).cpu()
        gate = model.gates(feature)[0].tolist()
    order = scores.argsort(descending=True, stable=True)[:top].tolist()
    hits = tuple(
        Hit(rank, float(scores[row]), images.ids[row], images.buildings[row], images.platforms[row])
        for rank, row in enumerate(order, start=1)
    )
    return Found(text, dict(zip(PLATFORMS, gate, strict=True)), hits)


def as_lines(found: Found) -> list[str]:
    """An answer for a person: the gate, then one line per image."""
    gate = ", ".join(f"{platform} {weight:.2f}" for platform, weight in found.gate.items())
    rows = [f"{h.rank:>3}  {h.score:+.4f}  {h.platform:<9}  {h.building_id:<10}  {h.image_id}" for h in found.hits]
    return [f"gate: {gate}", *rows]


def as_json(found: Found) -> dict[str, Any]:
    """The same as plain values: {"text", "gate": {platform: weight}, "results": [{"rank", "score", ...}]}."""
    results = [
        {"rank": h.rank, "score": h.score, "image_id": h.image_id, "building_id": h.building_id, "platform": h.platform}
        for h in found.hits
    ]
    return {"text": found.text, "gate": found.gate, "results": results}
