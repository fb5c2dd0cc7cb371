"""Region boxes under rotation and crop: the tightest upright box around what is left of an object.

albumentations clips the hull of the rotated box; under a free angle that hull is up to twice the object's area, so its
share of visible area counts corners where the object never was. Here the rotated rectangle itself is clipped to the
window: the visible share is the object's, and the box around the clipped shape is never larger than theirs.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.records import Box

Point = tuple[float, float]
Corners = tuple[float, float, float, float]


def corners(box: Box) -> Corners | None:
    """(cx, cy, w, h) as (x0, y0, x1, y1) cut to the tile, 0..1; None when not finite, or nothing is inside."""
    if not all(map(math.isfinite, box)):
        return None
    cx, cy, w, h = box
    x0, x1 = max(cx - w / 2, 0.0), min(cx + w / 2, 1.0)
    y0, y1 = max(cy - h / 2, 0.0), min(cy + h / 2, 1.0)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def move_box(box: Corners, matrix: NDArray[np.float64], min_share: float) -> Box | None:
    """Move a box by an affine map and cut it to the new tile.

    Args:
        box: (x0, y0, x1, y1), 0..1 of the tile's width and height, of positive area.
        matrix: float64[3, 3], maps (x, y, 1) of the old tile to the new one, both in 0..1.
        min_share: 0..1 of the object's area that must still be inside.

    Returns:
        (cx, cy, w, h) of the tightest upright box around the part inside, or None when that is less than `min_share`.
    """
    x0, y0, x1, y1 = box
    old = np.array([(x0, y0, 1.0), (x1, y0, 1.0), (x1, y1, 1.0), (x0, y1, 1.0)])
    shape: list[Point] = [(float(x), float(y)) for x, y, _ in old @ matrix.T]
    inside = _cut(shape)
    area = _area(shape)
    if not inside or area <= 0 or _area(inside) < min_share * area:
        return None
    xs, ys = zip(*inside, strict=True)
    return ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys))


def _cut(shape: list[Point]) -> list[Point]:
    """Clip a convex polygon to the unit square (Sutherland and Hodgman 1974)."""
    for axis, limit, sign in ((0, 0.0, 1.0), (0, 1.0, -1.0), (1, 0.0, 1.0), (1, 1.0, -1.0)):
        kept: list[Point] = []
        for before, point in zip([*shape[-1:], *shape[:-1]], shape, strict=True):
            was, now = sign * (before[axis] - limit), sign * (point[axis] - limit)
            if (was < 0) != (now < 0):
                t = was / (was - now)
                crossing = [before[i] + t * (point[i] - before[i]) for i in (0, 1)]
                crossing[axis] = limit
                kept.append((crossing[0], crossing[1]))
            if now >= 0:
                kept.append(point)
        shape = kept
    return shape


def _area(shape: Sequence[Point]) -> float:
    """Area of a simple polygon (shoelace formula)."""
    pairs = zip(shape, [*shape[1:], *shape[:1]], strict=True)
    return abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in pairs)) / 2
