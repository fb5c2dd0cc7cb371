"""Images for a sentence: `python -m experts search RUN DATASET "TEXT" [--top 10] [--json]`.

The fused score is one inner product (model.py), so a gallery is one matrix of fused features. It is made once and kept
as RUN/gallery/*.arrow, named after the checkpoint and the shards it was made from: whatever changes, it is made again.
FAISS scores where it is installed, torch elsewhere; both find the same, for close candidates are scored again in double
precision. Beside three searches and a merge: `python benchmarks/search.py`.
"""

import hashlib
import importlib.util
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from data.shards import READ_ERRORS, Version, open_version, sha256_file, write_in_one_step
from experts.checkpoint import CHECKPOINT, Checkpoint, load_checkpoint
from experts.device import memory_errors, open_device
from experts.embed import fused_images, fused_texts, gallery_features, text_bags, text_features
from experts.encoders import words
from experts.examples import load_gallery
from schemas.errors import DatasetError, TrainingError, UsageError
from schemas.records import PLATFORMS, Platform, Split

GALLERIES = "gallery"
GALLERY_FORMAT = 1
QUERIES_AT_ONCE = 256
SCORES_AT_ONCE = 16_000_000
SPARE = 32  # candidates beyond those asked for, to see past the last place
SLACK = 1e-5  # single precision errs by less on scores of -1..1


@dataclass(frozen=True)
class Gallery:
    """Images sorted by id and what they are found by. features: float32 [G, E], fused, on the CPU."""

    ids: tuple[str, ...]
    buildings: tuple[str, ...]
    platforms: tuple[Platform, ...]
    features: Tensor

    def __len__(self) -> int:
        return len(self.ids)


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


def open_gallery(
    run: Path, checkpoint: Checkpoint, version: Version, split: Split | None, device: torch.device
) -> Gallery:
    """The original images of a split (None: of all splits) as `checkpoint`, which is RUN's, sees them.

    Read from RUN/gallery/ where it was made before; else made, and stored there if RUN can be written to.

    Raises:
        DatasetError: the data set cannot be read. TrainingError: out of memory, or a feature is no number.
    """
    of_checkpoint = sha256_file(Path(run) / CHECKPOINT)
    made_from = {
        "format": GALLERY_FORMAT,
        "checkpoint": of_checkpoint,
        "split": split,
        "shards": [[shard.path, shard.sha256] for shard in version.shards("images", split=split)],
        "device": device.type,  # bfloat16 there, float32 here
    }
    key = json.dumps(made_from, sort_keys=True).encode()
    path = Path(run) / GALLERIES / f"{of_checkpoint[:16]}-{hashlib.sha256(key).hexdigest()[:16]}.arrow"
    stored = _read_gallery(path, key)
    if stored is not None:
        return stored
    gallery = _encode(checkpoint, version, split, device)
    with suppress(DatasetError, OSError):  # a run that is only to be read is searched all the same
        _write_gallery(path, key, gallery)
        for other in path.parent.glob("*.arrow"):
            if not other.name.startswith(of_checkpoint[:16]):  # of weights that are no more
                other.unlink()
    return gallery


def _encode(checkpoint: Checkpoint, version: Version, split: Split | None, device: torch.device) -> Gallery:
    model, config = checkpoint.model, checkpoint.config
    images = load_gallery(version, split, config)
    with memory_errors("encoding the gallery"):
        features = fused_images(model, gallery_features(model, images, config.image_size, device)).cpu()
    check_finite(features)
    return Gallery(images.ids, images.buildings, images.platforms, features)


def check_finite(features: Tensor) -> None:
    """Raise TrainingError where a feature is NaN or infinite."""
    if not bool(features.isfinite().all()):
        raise TrainingError("Some features are NaN: the model is damaged; train it again with a lower learning rate.")


def _write_gallery(path: Path, key: bytes, gallery: Gallery) -> None:
    values = pa.array(gallery.features.flatten().numpy())
    columns = {
        "image_id": pa.array(gallery.ids, pa.string()),
        "building_id": pa.array(gallery.buildings, pa.string()),
        "platform": pa.array(gallery.platforms, pa.string()),
        "feature": pa.FixedSizeListArray.from_arrays(values, gallery.features.shape[1]),
    }
    table = pa.table(columns).replace_schema_metadata({"made_from": key, "sha256": _digest(gallery.features)})

    def write(file: BinaryIO) -> None:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    write_in_one_step(path, write)


def _digest(features: Tensor) -> bytes:
    return hashlib.sha256(features.numpy().data).hexdigest().encode()


def _read_gallery(path: Path, key: bytes) -> Gallery | None:
    """What _write_gallery wrote for `key`; None where there is none, or nothing that can be used."""
    try:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
            metadata = table.schema.metadata or {}
            if metadata.get(b"made_from") != key:
                return None
            width = table.schema.field("feature").type.list_size
            features = table["feature"].combine_chunks().flatten().to_numpy().reshape(-1, width)
            ids, buildings, platforms = (tuple(table[name].to_pylist()) for name in table.column_names[:3])
            gallery = Gallery(ids, buildings, platforms, torch.from_numpy(np.array(features)))  # no map to write to
            return gallery if metadata.get(b"sha256") == _digest(gallery.features) else None
    except (*READ_ERRORS, AttributeError):
        return None


def nearest(queries: Tensor, features: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The rows of `features` with the highest inner product, exactly, best first; equal scores in the order of rows.

    Args:
        queries: float32 [Q, E]; features: float32 [G, E], on the same device; lengths about 1.
        top: how many; at least 1.

    Returns:
        int64 [Q, K] rows and float32 [Q, K] scores, K = min(top, G), on the CPU.

    Raises:
        TrainingError: a score is NaN.
    """
    top = min(top, len(features))
    rows = torch.zeros(len(queries), top, dtype=torch.int64)
    scores = torch.zeros(len(queries), top)
    if top == 0:
        return rows, scores
    wider = min(top + SPARE, len(features))
    chunk = max(
        1, min(QUERIES_AT_ONCE, SCORES_AT_ONCE // len(features), SCORES_AT_ONCE // features[0].numel() // wider)
    )
    for start in range(0, len(queries), chunk):
        some = queries[start : start + chunk]
        candidates, rough = _best(some, features, wider)
        ordered, exact = _in_order(some, features, candidates)
        # Where the last candidate is as good as the last place, others may be too.
        unsure = (rough[:, top - 1] - rough[:, -1] <= SLACK) if wider < len(features) else torch.zeros(len(some))
        for i in unsure.nonzero().flatten().tolist():
            close = (features @ some[i] >= rough[i, top - 1] - SLACK).nonzero().flatten()
            again, of_them = _in_order(some[i : i + 1], features, close.unsqueeze(0))
            ordered[i, :top], exact[i, :top] = again[0, :top], of_them[0, :top]
        rows[start : start + chunk], scores[start : start + chunk] = ordered[:, :top].cpu(), exact[:, :top].cpu()
    if bool(scores.isnan().any()):
        raise TrainingError("Some scores are NaN: the model is damaged; train it again with a lower learning rate.")
    return rows, scores


def _best(queries: Tensor, features: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Rows and scores of the best in single precision, best first: int64 [Q, top], float32 [Q, top]."""
    if features.device.type == "cpu" and importlib.util.find_spec("faiss"):
        import faiss

        found, at = faiss.knn(queries.numpy(), features.numpy(), top, metric=faiss.METRIC_INNER_PRODUCT)
        return torch.from_numpy(at), torch.from_numpy(found)
    scores, rows = (queries @ features.T).topk(top, dim=1)
    return rows, scores


def _in_order(queries: Tensor, features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates int64 [Q, N] by their score in double precision, rounded to single; equal ones by row."""
    rows = rows.sort(dim=1).values
    exact = torch.cat(
        [
            (features[part].double() * queries.double().unsqueeze(1)).sum(dim=2).float()
            for part in torch.split(rows, 4096, dim=1)
        ],
        dim=1,
    )
    exact, order = exact.sort(dim=1, descending=True, stable=True)
    return rows.gather(1, order), exact


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
    gallery = open_gallery(run, checkpoint, open_version(dataset), split, where)
    if not gallery.ids:
        raise DatasetError(f"{dataset} has no image to find{f' in its {split} split' if split else ''}.")
    with memory_errors("searching"), torch.no_grad():
        feature = text_features(model, text_bags(checkpoint.vocabulary, [text]), where)
        rows, scores = nearest(fused_texts(model, feature), gallery.features.to(where), top)
        gate = model.gates(feature)[0].tolist()
    hits = tuple(
        Hit(rank, score, gallery.ids[row], gallery.buildings[row], gallery.platforms[row])
        for rank, (row, score) in enumerate(zip(rows[0].tolist(), scores[0].tolist(), strict=True), start=1)
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
