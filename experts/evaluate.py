"""Recall by building, both ways, over the pooled gallery: `python -m experts evaluate RUN DATASET [--json]`.

A query counts if any of its top k images is of its building; ties count against it; a query whose building has no
gallery image is a miss, and counted. Nothing is chosen here: this is the only reader of the test split.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.shards import Version, open_version
from experts.checkpoint import Checkpoint, load_checkpoint
from experts.device import memory_errors, open_device
from experts.embed import fused_images, fused_texts, gallery_features, text_bags, text_features
from experts.examples import Captions, Gallery, Images, building_codes, load_captions, load_gallery, load_images
from experts.mining import building_pairs
from schemas.errors import TrainingError
from schemas.records import PLATFORMS, Split

KS = (1, 5, 10)
SCORES_AT_ONCE = 16_000_000
COUNTED_AT_ONCE = 32_000  # stays in the cache, and is too little for torch to split among threads
Labels = Sequence[Any] | np.ndarray[Any, Any] | Tensor
Progress = Callable[[str, int, int, str], None]  # stage, done, total, message


def silent(stage: str, done: int, total: int, message: str) -> None:
    """The default progress: none."""


def best_ranks(scores: Tensor, query_buildings: Tensor, gallery_buildings: Tensor) -> Tensor:
    """How many wrong items stand before the first right one; ties stand before it. Sorts nothing, so that it is quick.

    Args:
        scores: float [Q, G]; query_buildings: int64 [Q]; gallery_buildings: int64 [G].

    Returns:
        int64 [Q]; G where the gallery holds nothing of the building.

    Raises:
        TrainingError: a score is NaN.
    """
    ranks = torch.full((len(scores),), scores.shape[1], dtype=torch.int64, device=scores.device)
    if scores.numel() == 0:
        return ranks
    chunk = max(1, SCORES_AT_ONCE // scores.shape[1])
    for start in range(0, len(scores), chunk):
        part = slice(start, start + chunk)
        some = scores[part].contiguous()
        rows, columns = building_pairs(query_buildings[part], gallery_buildings)
        right = some[rows, columns]
        best = torch.full((len(some),), float("-inf"), dtype=some.dtype, device=some.device)
        best.scatter_reduce_(0, rows, right, "amax")
        before = _not_below(some, best)
        before.index_add_(0, rows, (right >= best[rows]).long(), alpha=-1)
        ranks[part][rows] = before[rows]
    return ranks


def _not_below(scores: Tensor, least: Tensor) -> Tensor:
    """How many scores of each row are at least `least`: float [Q, G], float [Q] -> int64 [Q].

    Raises:
        TrainingError: a score is NaN.
    """
    at_once = COUNTED_AT_ONCE if scores.device.type == "cpu" else scores.numel()
    size = max(1, at_once // scores.shape[1])
    counts, highest = [], []
    flags = torch.empty(size, scores.shape[1], device=scores.device)  # as floats, for sums of bools are slow
    for some, bound in zip(torch.split(scores, size), torch.split(least.unsqueeze(1), size), strict=True):
        counts.append(torch.ge(some, bound, out=flags[: len(some)]).sum(dim=1))
        highest.append(some.amax())
    if bool(torch.stack(highest).isnan().any()):  # NaN wins a maximum
        raise TrainingError("Some scores are NaN: the model is damaged; train it again with a lower learning rate.")
    return torch.cat(counts).long()


def recall_of_ranks(ranks: Tensor, present: Tensor, ks: Sequence[int] = KS) -> dict[str, float]:
    """Percent of queries whose first right item stands among the first k. ranks: int64 [Q]; present: bool [Q]."""
    if len(ranks) == 0:
        raise TrainingError("There are no queries to evaluate: the split has no captions.")
    return {f"r{k}": 100.0 * int(((ranks < k) & present).sum()) / len(ranks) for k in ks}


def recall(scores: Any, query_buildings: Labels, gallery_buildings: Labels, ks: Sequence[int] = KS) -> dict[str, float]:
    """Recall@k by building, in percent.

    Args:
        scores: float [Q, G], higher is better (array or tensor).
        query_buildings: Q labels; gallery_buildings: G labels.

    Returns:
        {"r1": percent, ...}, one entry per k.

    Raises:
        TrainingError: a score is NaN, the shapes do not fit the labels, or there are no queries.
    """
    table = scores if isinstance(scores, Tensor) else torch.from_numpy(_native(np.asarray(scores)))
    queries, gallery = _labels(query_buildings), _labels(gallery_buildings)
    if table.ndim != 2 or table.shape != (len(queries), len(gallery)):
        raise TrainingError(
            f"Scores of shape {tuple(table.shape)} do not fit {len(queries)} queries and {len(gallery)} gallery items."
        )
    if not table.is_floating_point():
        table = table.double()
    query_codes, gallery_codes = (codes.to(table.device) for codes in building_codes(queries, gallery))
    return recall_of_ranks(best_ranks(table, query_codes, gallery_codes), torch.isin(query_codes, gallery_codes), ks)


def _native(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array that torch takes: in this machine's order of bytes, no wider than double, in one piece, writable."""
    kind = np.dtype(np.float64) if values.dtype.kind == "f" and values.itemsize > 8 else values.dtype.newbyteorder("=")
    return np.require(values, kind, ["C_CONTIGUOUS", "WRITEABLE"])


def _labels(labels: Labels) -> list[Any]:
    """Labels as plain hashable values, whether they came as a list (of values or of scalars), an array or a tensor."""
    if isinstance(labels, (Tensor, np.ndarray)):
        return list(labels.tolist())
    return [label.item() if isinstance(label, (Tensor, np.generic)) else label for label in labels]


def ranks_in_chunks(queries: Tensor, gallery: Tensor, query_codes: Tensor, gallery_codes: Tensor) -> Tensor:
    """best_ranks of queries @ gallery.T without ever holding all scores. float [Q, D], float [G, D] -> int64 [Q].

    Scores are products in double precision, rounded to single: what a product in single precision gives for one and the
    same vector depends on where it stands in the matrix, and equal images would not tie.
    """
    chunk = max(1, SCORES_AT_ONCE // max(1, len(gallery)))
    columns = gallery.double().T
    parts = [
        best_ranks((some.double() @ columns).float(), codes, gallery_codes)
        for some, codes in zip(torch.split(queries, chunk), torch.split(query_codes, chunk), strict=True)
        if len(some)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=queries.device)


def chance(query_codes: Tensor, gallery_codes: Tensor, k: int) -> float:
    """Expected recall@k of a random order, in percent: the mean over queries of 1 - C(G - m, k) / C(G, k).

    m is the number of gallery items of the query's building (hypergeometric).
    """
    total = len(gallery_codes)
    of_building = Counter(gallery_codes.tolist())
    k = min(k, total)
    hit = {m: 1.0 - math.comb(total - m, k) / math.comb(total, k) for m in {0, *of_building.values()}}
    return 100.0 * sum(hit[of_building[code]] for code in query_codes.tolist()) / max(1, len(query_codes))


def with_score(recalls: dict[str, float]) -> dict[str, float]:
    """Adds Track 4's Score, the mean of recall@1 and recall@10."""
    return {**recalls, "score": (recalls["r1"] + recalls["r10"]) / 2}


def text_to_image(texts: Tensor, images: Tensor, asked: Sequence[str], shown: Sequence[str]) -> dict[str, float]:
    """Recall of queries over a gallery, in percent: {"r1", "r5", "r10", "score"}.

    Args:
        texts: float [Q, D], of the buildings `asked`; images: float [G, D], of the buildings `shown`; score = product.

    Raises:
        TrainingError: there are no queries, or a score is NaN.
    """
    query_codes, gallery_codes = (codes.to(texts.device) for codes in building_codes(asked, shown))
    ranks = ranks_in_chunks(texts, images, query_codes, gallery_codes)
    return with_score(recall_of_ranks(ranks, torch.isin(query_codes, gallery_codes)))


def refuse_empty(captions: Captions, gallery: Gallery) -> None:
    """Let nothing be scored that is not there.

    Raises:
        TrainingError: there are no queries or no gallery images.
    """
    if len(captions) == 0 or len(gallery) == 0:
        raise TrainingError(
            f"There is nothing to evaluate: the split has {len(captions)} captions and {len(gallery)} gallery images."
        )


def report(texts: Tensor, images: Tensor, captions: Captions, gallery: Gallery) -> dict[str, Any]:
    """The scores of a split: both directions, by the query's platform, and chance.

    Args:
        texts: float [Q, D], one row per caption; images: float [G, D], one row per gallery image; score = product.

    Returns:
        {"t2i": {"r1", "r5", "r10", "score"}, "i2t": {...}, "per_platform": {platform: {"t2i": {...}}},
        "chance": {"r1", "r10"}, "queries": Q, "gallery": G}, in percent; chance is that of t2i.

    Raises:
        TrainingError: there are no queries or no gallery images, or a score is NaN.
    """
    refuse_empty(captions, gallery)
    query_codes, gallery_codes = (c.to(texts.device) for c in building_codes(captions.buildings, gallery.buildings))
    t2i = ranks_in_chunks(texts, images, query_codes, gallery_codes)
    i2t = ranks_in_chunks(images, texts, gallery_codes, query_codes)
    found = torch.isin(query_codes, gallery_codes)
    per_platform = {}
    for platform in PLATFORMS:
        rows = torch.tensor([p == platform for p in captions.platforms], device=texts.device)
        if bool(rows.any()):
            per_platform[platform] = {"t2i": with_score(recall_of_ranks(t2i[rows], found[rows]))}
    return {
        "t2i": with_score(recall_of_ranks(t2i, found)),
        "i2t": with_score(recall_of_ranks(i2t, torch.isin(gallery_codes, query_codes))),
        "per_platform": per_platform,
        "chance": {"r1": chance(query_codes, gallery_codes, 1), "r10": chance(query_codes, gallery_codes, 10)},
        "queries": len(captions),
        "gallery": len(gallery),
    }


def load_split(version: Version, split: Split, size: int) -> tuple[Captions, Images]:
    """Queries and gallery of a split: every caption; every original image whose role is not query."""
    return load_captions(version, split), load_images(version, split, size, augmented=False)


def query_vectors(checkpoint: Checkpoint, captions: Captions, device: torch.device) -> Tensor:
    """What a split is searched with: fused features of its final texts, float32 [Q, E]."""
    bags = text_bags(checkpoint.vocabulary, captions.finals)
    return fused_texts(checkpoint.model, text_features(checkpoint.model, bags, device))


def evaluate(run: Path, dataset: Path, split: Split = "test", *, device: str = "cpu") -> dict[str, Any]:
    """Score a trained run on a split of a data set; the form of the result is that of `report`.

    Raises:
        TrainingError: the run holds no checkpoint, the split is empty, or a score is NaN.
        DatasetError: the data set cannot be read.
    """
    where = open_device(device)
    checkpoint = load_checkpoint(run, where)
    version, config = open_version(dataset), checkpoint.config
    captions, gallery = load_captions(version, split), load_gallery(version, split, config)
    with memory_errors("evaluating"):
        texts = query_vectors(checkpoint, captions, where)
        features = gallery_features(checkpoint.model, gallery, config.image_size, where)
        images = fused_images(checkpoint.model, features)
        return report(texts, images, captions, gallery)
