"""The eight symmetries of the square (the dihedral group D4), as they act on an image, its directions and its boxes.

The names are albumentations', which the `d4` key of an augmented tile's transform records. `augment` moves pixels by
them, `refine.remap` moves words: both must mean the same.
"""

from enum import StrEnum
from functools import cache
from typing import Literal, TypeVar

from schemas.records import Box

Direction = Literal["left", "top", "right", "bottom"]
Number = TypeVar("Number", int, float)

_POINTS: dict[Direction, tuple[int, int]] = {"left": (-1, 0), "top": (0, -1), "right": (1, 0), "bottom": (0, 1)}
_NAMES = {point: name for name, point in _POINTS.items()}
_MATRICES = {  # (a, b, c, d): x' = a x + b y, y' = c x + d y; origin at the middle of the image, x right, y down
    "e": (1, 0, 0, 1), "r90": (0, 1, -1, 0), "r180": (-1, 0, 0, -1), "r270": (0, -1, 1, 0),
    "h": (-1, 0, 0, 1), "v": (1, 0, 0, -1), "t": (0, 1, 1, 0), "hvt": (0, -1, -1, 0),
}  # fmt: skip


class Symmetry(StrEnum):
    """A turn or mirror image of a picture. Turns are counter-clockwise: R90 brings the top to the left."""

    E = "e"
    """Nothing is moved."""
    R90 = "r90"
    R180 = "r180"
    R270 = "r270"
    H = "h"
    """Left and right exchanged."""
    V = "v"
    """Top and bottom exchanged."""
    T = "t"
    """Mirrored along the main diagonal: left and top exchanged."""
    HVT = "hvt"
    """Mirrored along the other diagonal: left and bottom exchanged."""

    @property
    def mirrors(self) -> bool:
        """Whether clockwise becomes counter-clockwise."""
        a, b, c, d = _MATRICES[self]
        return a * d - b * c < 0

    @property
    def swaps_axes(self) -> bool:
        """Whether horizontal becomes vertical."""
        return _MATRICES[self][0] == 0

    def then(self, other: "Symmetry") -> "Symmetry":
        """The symmetry that does this one first, the other one after it."""
        return _product(self, other)

    def inverse(self) -> "Symmetry":
        """The symmetry that undoes this one."""
        return next(other for other in Symmetry if self.then(other) is Symmetry.E)

    def direction(self, name: Direction) -> Direction:
        """Where the side `name` of the image is afterwards."""
        return _NAMES[self._point(*_POINTS[name])]

    def box(self, box: Box) -> Box:
        """A box (cx, cy, w, h), 0..1 of the image, moved with the pixels."""
        cx, cy, w, h = box
        x, y = self._point(cx - 0.5, cy - 0.5)
        return (0.5 + x, 0.5 + y, h, w) if self.swaps_axes else (0.5 + x, 0.5 + y, w, h)

    def _point(self, x: Number, y: Number) -> tuple[Number, Number]:
        a, b, c, d = _MATRICES[self]
        return a * x + b * y, c * x + d * y


@cache
def _product(first: Symmetry, second: Symmetry) -> Symmetry:
    a, b, c, d = _MATRICES[first]
    p, q, r, s = _MATRICES[second]
    wanted = (p * a + q * c, p * b + q * d, r * a + s * c, r * b + s * d)
    return next(name for name in Symmetry if _MATRICES[name] == wanted)
