"""Two ways to a steadier vector, both off unless they are called: along the drone's flight, and crops at two scales.

    buildings, vectors = pool_flight(vectors, buildings, order)     # one vector per building from its drone views
    vectors = multi_scale(pixels, embed)                            # one vector per image from ten crops of it

The paper names both as future work. docs/encoders.md says what they cost, and that their worth is not known.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

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
    crops = torch.cat([five_crops(pixels, scale) for scale in CROP_SCALES], dim=1)
    vectors = [F.normalize(embed(crop), dim=1) for crop in crops.unbind(1)]
    return F.normalize(torch.stack(vectors).mean(0), dim=1)
