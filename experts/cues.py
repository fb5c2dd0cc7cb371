"""Two ways to a steadier vector, both off unless asked for: `georefine evaluate RUN DATASET --cues`.

    buildings, vectors = pool_flight(vectors, buildings, order)     # one vector per building from its drone views
    vectors = multi_scale(pixels, embed)                            # one vector per image from ten crops of it

The paper names both as future work. docs/encoders.md says what they cost and what is known of their worth.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from data.shards import open_version
from experts.checkpoint import load_checkpoint
from experts.device import memory_errors, open_device
from experts.embed import IMAGE_BATCH, PRETRAINED_BATCH, batches, fused_images, image_features
from experts.evaluate import Progress, query_vectors, refuse_empty, silent, text_to_image
from experts.examples import Pictures, building_codes, load_captions, load_pictures
from experts.model import MixtureOfExperts
from schemas.records import Split

CROP_SCALES = (0.875, 0.625)  # side of a crop, as a share of the image's side


def pool_flight(vectors: Tensor, buildings: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Mean along the flight: views count by the way they stand for, not by how many were taken.

    A view weighs half the distance to the view before plus half the distance to the next (the trapezoidal rule over the
    path of the vectors). Hovering, or a frame that comes twice, changes nothing; if nothing moves, all count alike.

    Args:
        vectors: float [N, D], of drone views.
        buildings: int64 [N], the building of every view.
        order: int64 or float [N], when a view was taken; equal ones stay in the order of rows.

    Returns:
        The buildings, int64 [B], ascending, and their unit vectors, float [B, D].
    """
    rows = torch.argsort(order, stable=True)
    rows = rows[torch.argsort(buildings[rows], stable=True)]
    path, owner = vectors[rows], buildings[rows]
    found, group = torch.unique(owner, return_inverse=True)
    step = (path[1:] - path[:-1]).norm(dim=1) * (group[1:] == group[:-1])
    weight = (F.pad(step, (1, 0)) + F.pad(step, (0, 1)))[: len(path)] / 2
    length = weight.new_zeros(len(found)).index_add(0, group, weight)
    weight = torch.where(length[group] > 0, weight, 1.0)
    pooled = path.new_zeros(len(found), path.shape[1]).index_add(0, group, weight[:, None] * path)
    return found, F.normalize(pooled, dim=1)


def five_crops(pixels: Tensor, scale: float) -> Tensor:
    """Four corners and the centre, each scaled back to the image's size.

    Args:
        pixels: uint8 or float [B, 3, S, S] in 0..255.
        scale: side of a crop as a share of S, in 0..1.

    Returns:
        float32 [B, 5, 3, S, S] in 0..255.
    """
    size = pixels.shape[-1]
    side = max(1, round(scale * size))
    far, middle = size - side, (size - side) // 2
    corners = ((0, 0), (0, far), (far, 0), (far, far), (middle, middle))
    crops = [pixels[..., y : y + side, x : x + side].float() for y, x in corners]
    scaled = [F.interpolate(crop, size=(size, size), mode="bilinear", align_corners=False) for crop in crops]
    return torch.stack(scaled, dim=1)


def multi_scale(pixels: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of the unit vectors of five crops at each of two scales, as unit vectors float [B, D].

    Args:
        pixels: uint8 or float [B, 3, S, S] in 0..255.
        embed: float pixels [B, 3, S, S] -> vectors [B, D]; called once for each of the ten crops.
    """
    crops = (crop for scale in CROP_SCALES for crop in five_crops(pixels, scale).unbind(1))
    vectors = [F.normalize(embed(crop), dim=1) for crop in crops]
    return F.normalize(torch.stack(vectors).mean(0), dim=1)


def cues(
    run: Path, dataset: Path, split: Split = "test", *, device: str = "cpu", progress: Progress = silent
) -> dict[str, Any]:
    """Text-to-image recall of a split over four galleries: as it is, of crops, pooled along the flights, and both.

    Returns:
        {"plain": {"r1", "r5", "r10", "score", "vectors"}, "crops": ..., "flight": ..., "crops+flight": ...}, recalls in
        percent; vectors is the size of the gallery. plain is what evaluate calls t2i.

    Raises:
        TrainingError: the run holds no checkpoint, the split is empty, or a score is NaN.
        DatasetError: the data set cannot be read.
    """
    where = open_device(device)
    checkpoint = load_checkpoint(run, where)
    version = open_version(dataset)
    captions, gallery = load_captions(version, split), load_pictures(version, split, augmented=False)
    refuse_empty(captions, gallery)
    with memory_errors("evaluating"):
        texts = query_vectors(checkpoint, captions, where)
        plain, crops = encode(checkpoint.model, gallery, checkpoint.config.image_size, where, progress)
        galleries = {
            "plain": (gallery.buildings, plain),
            "crops": (gallery.buildings, crops),
            "flight": along_flights(gallery, plain),
            "crops+flight": along_flights(gallery, crops),
        }
        return {
            name: {**text_to_image(texts, vectors, captions.buildings, buildings), "vectors": len(vectors)}
            for name, (buildings, vectors) in galleries.items()
        }


def encode(
    model: MixtureOfExperts, gallery: Pictures, size: int, device: torch.device, progress: Progress
) -> tuple[Tensor, Tensor]:
    """Fused features float32 [G, E] of the images as they are, and of their crops; few pixels at a time."""

    def fused(pixels: Tensor) -> Tensor:
        return fused_images(model, image_features(model, pixels, device))

    whole, crops = [], []
    done = 0
    for rows in batches(torch.arange(len(gallery)), IMAGE_BATCH):
        pixels = gallery.pixels(rows.tolist(), size).to(device)
        whole.append(image_features(model, pixels, device))
        crops += [multi_scale(some, fused) for some in torch.split(pixels, PRETRAINED_BATCH)]
        done += len(rows)
        progress("cues", done, len(gallery), "")
    return fused_images(model, torch.cat(whole)), torch.cat(crops)


def along_flights(gallery: Pictures, vectors: Tensor) -> tuple[tuple[str, ...], Tensor]:
    """The gallery with one vector for all drone views of a building; the other images stay.

    Args:
        gallery: G images; a building's drone views were taken in the natural order of their ids.
        vectors: float [G, E], all of one length, as fused features are: a pooled vector must not count more or less.

    Returns:
        The buildings, and their unit vectors float [G', E].
    """
    rows = range(len(gallery))
    views = sorted(
        (row for row in rows if gallery.platforms[row] == "drone"), key=lambda row: natural(gallery.ids[row])
    )
    others = [row for row in rows if gallery.platforms[row] != "drone"]
    owners = [gallery.buildings[row] for row in views]
    [codes] = building_codes(owners)  # ascending in the order in which the owners come
    vectors = F.normalize(vectors, dim=1)
    order = torch.arange(len(views), device=vectors.device)
    _, pooled = pool_flight(vectors[views], codes.to(vectors.device), order)
    return (*(gallery.buildings[row] for row in others), *dict.fromkeys(owners)), torch.cat([vectors[others], pooled])


def natural(image_id: str) -> str:
    """A key that sorts by the numbers in an id: image-2 before image-10."""
    return re.sub(r"\d+", lambda digits: digits[0].zfill(20), image_id)


def as_lines(found: dict[str, Any]) -> list[str]:
    """The result for a person, in percent."""
    lines = [f"{'text to image':<20}{'R@1':>8}{'R@5':>8}{'R@10':>8}{'Score':>8}{'vectors':>9}"]
    for name, row in found.items():
        recalls = "".join(f"{row[key]:>8.2f}" for key in ("r1", "r5", "r10", "score"))
        lines.append(f"{name:<20}{recalls}{row['vectors']:>9}")
    return lines
