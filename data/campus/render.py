"""Draws a building of the sample world as its three platforms see it, with the true boxes of the visible parts.

One scene in metres, in the building's own frame (x along the front, y away from the street, z up), is projected by one
pinhole camera: from high above, obliquely on a flight, or from across the street. What a viewer cannot see is hidden by
the same projection, nothing else: faces are painted from far to near, and every face also paints its part's number into
a label image, from which the boxes are read. Light, haze, noise, trees, cars and minor buildings are drawn anew for
every image.
"""

import io
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.campus.world import NONE, Building
from schemas.records import Box, Platform

SIDE = 128
_DRAWN = 2 * SIDE  # drawn at twice the size, then averaged
_QUALITY = 90

Colour = tuple[int, int, int]
Point = tuple[float, float, float]
Rect = tuple[float, float, float, float]  # x0, y0, x1, y1

PARTS = (
    "background",
    "surface",
    "road",
    "neighbour",
    "wall",
    "gable",
    "roof",
    "equipment",
    "wing",
    "windows",
    "awning",
    "entrance",
    "street_object",
)
_LABEL = {name: number for number, name in enumerate(PARTS)}
_FIRST_TREE = 32

_ROOF: dict[str, Colour] = {
    "red": (188, 44, 40),
    "orange": (238, 136, 44),
    "yellow": (240, 214, 72),
    "green": (44, 128, 62),
    "turquoise": (64, 196, 188),
    "blue": (48, 84, 196),
    "white": (240, 240, 236),
    "black": (44, 44, 50),
    "brown": (116, 74, 44),
}
_FACADE: dict[str, Colour] = {
    "red brick": (164, 70, 54),
    "white plaster": (236, 232, 222),
    "grey concrete": (142, 142, 144),
    "blue glass": (92, 150, 206),
    "yellow sandstone": (226, 192, 112),
    "dark timber": (88, 60, 42),
    "pink stucco": (238, 156, 168),
}
_SURFACE: dict[str, Colour] = {
    "lawn": (104, 160, 66),
    "paving": (196, 194, 188),
    "gravel": (188, 168, 130),
    "brick paving": (180, 104, 84),
    "bare earth": (132, 98, 66),
}
_ROAD: dict[str, Colour] = {
    "asphalt road": (74, 76, 82),
    "dirt track": (158, 120, 76),
    "tram line": (146, 138, 132),
    "canal": (46, 104, 142),
    "cycle path": (196, 70, 60),
}
_LEAVES: dict[str, Colour] = {
    "broadleaf": (62, 122, 48),
    "conifer": (24, 70, 50),
    "palm": (122, 170, 60),
    "autumn": (222, 122, 32),
    "blossom": (240, 168, 198),
}
_AWNING: dict[str, Colour] = {
    "red": (204, 40, 44),
    "green": (40, 140, 74),
    "blue": (44, 92, 204),
    "yellow": (244, 206, 60),
}

_MAIN_PARTS: dict[str, tuple[Rect, ...]] = {
    "square": ((-10.5, -10.5, 10.5, 10.5),),
    "long": ((-15, -5.5, 15, 5.5),),
    "L": ((-14, -11, 14, -2), (-14, -2, -5, 13)),
    "U": ((-14, -11, 14, -2), (-14, -2, -6.5, 12), (6.5, -2, 14, 12)),
    "T": ((-14, -11, 14, -2), (-4.5, -2, 4.5, 13)),
    "H": ((-6.5, -4.5, 6.5, 4.5), (-14, -13, -6.5, 13), (6.5, -13, 14, 13)),
    "cross": ((-14, -4.5, 14, 4.5), (-4.5, -13, 4.5, -4.5), (-4.5, 4.5, 4.5, 13)),
    "courtyard": ((-14, -13, 14, -6), (-14, 6, 14, 13), (-14, -6, -7, 6), (7, -6, 14, 6)),
}
_LOT: Rect = (-21, -20, 21, 20)
_ROAD_NEAR, _ROAD_FAR = -29.0, -21.5


@dataclass(frozen=True, slots=True)
class Part:
    """A visible part: its box, its share of the image's area, and whether box and pixels are centred in one cell."""

    box: Box
    share: float
    compact: bool


@dataclass(frozen=True, slots=True)
class View:
    """An image and what is visible in it.

    Attributes:
        jpeg: RGB, SIDE x SIDE pixels, no metadata.
        parts: per part of PARTS (and "building", "tree") what is visible of it; absent when hidden.
        labels: uint8[SIDE, SIDE], number of the part in PARTS seen at each pixel; 32 and more are trees.
    """

    jpeg: bytes
    parts: dict[str, Part]
    labels: "np.ndarray[tuple[int, int], np.dtype[np.uint8]]"


@dataclass(frozen=True, slots=True)
class _Solid:
    """Something that stands on the ground, with the rectangle it occupies; solids are painted from far to near."""

    rect: Rect
    draw: Callable[[], None]


@dataclass(slots=True)
class _Canvas:
    """The camera, the sun, and the two images that are painted."""

    eye: Point
    right: Point
    up: Point
    forward: Point
    focal: float
    centre: tuple[float, float]
    sun: Point
    picture: Image.Image
    labels: Image.Image
    pen: ImageDraw.ImageDraw = field(init=False)
    label_pen: ImageDraw.ImageDraw = field(init=False)

    def __post_init__(self) -> None:
        self.pen = ImageDraw.Draw(self.picture)
        self.label_pen = ImageDraw.Draw(self.labels)

    def project(self, point: Point) -> tuple[float, float, float]:
        """Pixel x, y (of the drawn size) and depth in metres."""
        dx, dy, dz = point[0] - self.eye[0], point[1] - self.eye[1], point[2] - self.eye[2]
        f, r, u = self.forward, self.right, self.up
        depth = f[0] * dx + f[1] * dy + f[2] * dz
        scale = self.focal / max(depth, 0.1)
        x = self.centre[0] + scale * (r[0] * dx + r[1] * dy + r[2] * dz)
        y = self.centre[1] - scale * (u[0] * dx + u[1] * dy + u[2] * dz)
        return x, y, depth

    def face(self, points: Sequence[Point], colour: Colour, label: int | None) -> None:
        """Paint a polygon; label None leaves the label image as it is (texture on a face already painted)."""
        projected = [self.project(point) for point in points]
        if min(p[2] for p in projected) < 0.5:
            return
        self.flat([(x, y) for x, y, _ in projected], colour, label)

    def flat(self, pixels: Sequence[tuple[float, float]], colour: Colour, label: int | None) -> None:
        self.pen.polygon(pixels, fill=colour)
        if label is not None:
            self.label_pen.polygon([(x / 2, y / 2) for x, y in pixels], fill=label)

    def line(self, points: Sequence[Point], colour: Colour, metres: float) -> None:
        projected = [self.project(point) for point in points]
        near = min(p[2] for p in projected)
        if near >= 0.5:
            width = max(1, round(self.focal / near * metres))
            self.pen.line([(x, y) for x, y, _ in projected], fill=colour, width=width)

    def disc(self, centre: Point, metres: float, colour: Colour, label: int | None) -> None:
        """A ball of the given radius: always a circle in the image."""
        x, y, depth = self.project(centre)
        if depth < 0.5:
            return
        r = self.focal / depth * metres
        self.pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        if label is not None:
            self.label_pen.ellipse(((x - r) / 2, (y - r) / 2, (x + r) / 2, (y + r) / 2), fill=label)

    def lit(self, colour: Colour, normal: Point) -> Colour:
        towards = max(0.0, normal[0] * self.sun[0] + normal[1] * self.sun[1] + normal[2] * self.sun[2])
        return _scale(colour, 0.62 + 0.44 * towards)

    def ring(self, centre: Point, radius: float, colour: Colour, label: int | None, sides: int = 16) -> None:
        """A horizontal circle on the ground or a roof."""
        x, y, z = centre
        steps = [math.tau * k / sides for k in range(sides)]
        self.face([(x + radius * math.cos(a), y + radius * math.sin(a), z) for a in steps], colour, label)

    def rectangle(self, rect: Rect, z: float, colour: Colour, label: int | None) -> None:
        """A horizontal rectangle that is seen from above only."""
        if self.eye[2] <= z:
            return
        x0, y0, x1, y1 = rect
        self.face([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], colour, label)


def _scale(colour: Colour, factor: float) -> Colour:
    r, g, b = colour
    return min(255, int(r * factor)), min(255, int(g * factor)), min(255, int(b * factor))


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    return (
        int(a[0] + (b[0] - a[0]) * share),
        int(a[1] + (b[1] - a[1]) * share),
        int(a[2] + (b[2] - a[2]) * share),
    )


def _unit(vector: Point) -> Point:
    length = math.sqrt(sum(v * v for v in vector))
    return vector[0] / length, vector[1] / length, vector[2] / length


def _cross(a: Point, b: Point) -> Point:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


# --- the building ---------------------------------------------------------------------------------------------------


def height_of(building: Building) -> float:
    """Height of the eaves, metres."""
    return 5.0 + 3.4 * (int(building.attributes.storeys) - 1)


def _rects(building: Building) -> tuple[Rect, ...]:
    rects = _MAIN_PARTS[building.attributes.footprint]
    return tuple((-x1, y0, -x0, y1) for x0, y0, x1, y1 in rects) if building.mirrored else rects


def _front(building: Building) -> float:
    """y of the wall that holds the entrance."""
    return min(y0 for x0, y0, x1, y1 in _rects(building) if x0 < 0 < x1)


def _wing_rect(building: Building) -> Rect | None:
    kind = building.attributes.wing
    if kind == NONE:
        return None
    width, length = {"tower": (6.0, 6.0), "annex": (6.5, 9.0), "glass hall": (6.5, 10.0)}[kind]
    rects = _rects(building)
    if building.mirrored:
        edge = min(r[0] for r in rects)
        y = min(r[1] for r in rects if r[0] == edge)
        return edge - width, y, edge, y + length
    edge = max(r[2] for r in rects)
    y = min(r[1] for r in rects if r[2] == edge)
    return edge, y, edge + width, y + length


def _neighbour_rect(building: Building) -> Rect:
    return {"left": (-38.0, -11.0, -22.5, 11.0), "right": (22.5, -11.0, 38.0, 11.0), "rear": (-11.0, 21.5, 11.0, 37.0)}[
        building.neighbour_side
    ]


def _walls(
    canvas: _Canvas,
    rect: Rect,
    z0: float,
    z1: float,
    colour: Colour,
    label: int,
    ornament: Callable[[Point, Point, Point], None] | None = None,
) -> None:
    """Paint the walls that face the camera; `ornament` gets each wall's lower corners and its normal."""
    x0, y0, x1, y1 = rect
    corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    normals: tuple[Point, ...] = ((0, -1, 0), (1, 0, 0), (0, 1, 0), (-1, 0, 0))
    for k, normal in enumerate(normals):
        (ax, ay), (bx, by) = corners[k], corners[(k + 1) % 4]
        if normal[0] * (canvas.eye[0] - ax) + normal[1] * (canvas.eye[1] - ay) <= 0:
            continue
        lit = canvas.lit(colour, normal)
        canvas.face([(ax, ay, z0), (bx, by, z0), (bx, by, z1), (ax, ay, z1)], lit, label)
        if ornament:
            ornament((ax, ay, z0), (bx, by, z0), normal)


def _windows(canvas: _Canvas, building: Building, fine: bool, glass: Colour) -> Callable[[Point, Point, Point], None]:
    """The window pattern of one main wall; coarse walls (drone) leave out the courses of the material."""
    style, material = building.attributes.windows, building.attributes.facade
    storeys = int(building.attributes.storeys)
    top = height_of(building)
    label = _LABEL["windows"]
    trim = _scale(_FACADE[material], 0.82)

    def paint(a: Point, b: Point, normal: Point) -> None:
        length = abs(b[0] - a[0]) + abs(b[1] - a[1])
        along = ((b[0] - a[0]) / length, (b[1] - a[1]) / length)

        def quad(s0: float, s1: float, z0: float, z1: float, arch: float = 0.0) -> list[Point]:
            p, q = (a[0] + along[0] * s0, a[1] + along[1] * s0), (a[0] + along[0] * s1, a[1] + along[1] * s1)
            points: list[Point] = [(*p, z0), (*q, z0), (*q, z1)]
            if arch:
                m, third = ((p[0] + q[0]) / 2, (p[1] + q[1]) / 2), arch * 0.75
                points += [
                    (q[0] * 0.75 + p[0] * 0.25, q[1] * 0.75 + p[1] * 0.25, z1 + third),
                    (*m, z1 + arch),
                    (p[0] * 0.75 + q[0] * 0.25, p[1] * 0.75 + q[1] * 0.25, z1 + third),
                ]
            return [*points, (*p, z1)]

        if fine and material in ("dark timber", "blue glass"):
            step = 1.2 if material == "dark timber" else 2.4
            shade = canvas.lit(trim, normal)
            for k in range(1, int(length / step)):
                canvas.line(quad(k * step, k * step, 0, top)[1:3], shade, 0.15)
        if fine and material in ("red brick", "grey concrete", "yellow sandstone"):
            shade = canvas.lit(trim, normal)
            for k in range(1, int(top / 1.7)):
                canvas.line(quad(0, length, k * 1.7, k * 1.7)[:2], shade, 0.12)
        dark = canvas.lit(glass, normal)
        pale = _mix(dark, (255, 255, 250), 0.75)
        wide, tall, spacing = {
            "ribbon": (length - 1.6, 1.4, length),
            "square": (1.7, 1.7, 3.6),
            "tall": (1.0, 2.5, 2.3),
            "arched": (1.9, 1.5, 3.6),
        }[style]
        count = 1 if style == "ribbon" else max(1, int((length - 0.6) / spacing))
        for storey in range(storeys):
            base = 1.5 if storey == 0 else 5.0 + 3.4 * (storey - 1)
            z = base + (0.9 if style != "tall" else 0.4)
            for k in range(count):
                middle = length * (k + 0.5) / count
                arch = 0.95 if style == "arched" else 0.0
                if fine:
                    canvas.face(
                        quad(middle - wide / 2 - 0.25, middle + wide / 2 + 0.25, z - 0.25, z + tall + 0.2, arch),
                        pale,
                        label,
                    )
                canvas.face(quad(middle - wide / 2, middle + wide / 2, z, z + tall, arch), dark, label)

    return paint


def _roof(canvas: _Canvas, shape: str, rect: Rect, z: float, colour: Colour, gable: Colour, main: bool) -> None:
    """The roof of one part. Only the main part carries a dome; the others are flat then."""
    x0, y0, x1, y1 = rect
    label = _LABEL["roof"]
    if shape in ("flat", "stepped", "domed"):
        canvas.rectangle(rect, z, canvas.lit(colour, (0, 0, 1)), label)
        inner = (x0 + 0.7, y0 + 0.7, x1 - 0.7, y1 - 0.7)
        canvas.rectangle(inner, z, canvas.lit(_scale(colour, 0.9), (0, 0, 1)), None)
        if shape == "stepped":
            inset = _tier(rect)
            _walls(canvas, inset, z, z + 3.2, _scale(colour, 0.75), label)
            canvas.rectangle(inset, z + 3.2, canvas.lit(_mix(colour, (255, 255, 255), 0.12), (0, 0, 1)), label)
        if shape == "domed" and main:
            _dome(canvas, ((x0 + x1) / 2, (y0 + y1) / 2, z), _dome_radius(rect), colour)
        return
    if shape == "sawtooth":
        _sawtooth(canvas, rect, z, colour, gable)
        return
    lengthwise = x1 - x0 >= y1 - y0
    half = (y1 - y0 if lengthwise else x1 - x0) / 2
    inset_end = half * 0.95 if shape == "hipped" else 0.0
    top = z + _rise(rect)
    if lengthwise:
        m = (y0 + y1) / 2
        a, b = (x0 + inset_end, m, top), (x1 - inset_end, m, top)
        slopes: list[list[Point]] = [
            [(x0, y0, z), (x1, y0, z), b, a],
            [(x1, y1, z), (x0, y1, z), a, b],
            [(x0, y1, z), (x0, y0, z), a],
            [(x1, y0, z), (x1, y1, z), b],
        ]
    else:
        m = (x0 + x1) / 2
        a, b = (m, y0 + inset_end, top), (m, y1 - inset_end, top)
        slopes = [
            [(x0, y1, z), (x0, y0, z), a, b],
            [(x1, y0, z), (x1, y1, z), b, a],
            [(x0, y0, z), (x1, y0, z), a],
            [(x1, y1, z), (x0, y1, z), b],
        ]
    for k, points in enumerate(slopes):
        is_gable = k >= 2 and shape == "gabled"
        _facing(canvas, points, gable if is_gable else colour, _LABEL["gable"] if is_gable else label)
    if canvas.eye[2] > top:
        canvas.line([a, b], _scale(colour, 1.25), 0.35)


def _facing(canvas: _Canvas, points: list[Point], colour: Colour, label: int | None) -> None:
    """Paint a face if it is turned towards the camera. Points anticlockwise seen from outside."""
    a, b, c = points[:3]
    normal = _unit(_cross((b[0] - a[0], b[1] - a[1], b[2] - a[2]), (c[0] - a[0], c[1] - a[1], c[2] - a[2])))
    eye = canvas.eye
    if normal[0] * (eye[0] - a[0]) + normal[1] * (eye[1] - a[1]) + normal[2] * (eye[2] - a[2]) > 0:
        canvas.face(points, canvas.lit(colour, normal), label)


def _rise(rect: Rect) -> float:
    """Height of the ridge over the eaves."""
    return max(3.6, 0.3 * min(rect[2] - rect[0], rect[3] - rect[1]))


def _tier(rect: Rect) -> Rect:
    """The upper tier of a stepped roof."""
    x0, y0, x1, y1 = rect
    inset = 0.2 * min(x1 - x0, y1 - y0)
    return x0 + inset, y0 + inset, x1 - inset, y1 - inset


def _dome_radius(rect: Rect) -> float:
    return min(0.44 * min(rect[2] - rect[0], rect[3] - rect[1]), 6.5)


def _dome(canvas: _Canvas, base: Point, radius: float, colour: Colour) -> None:
    x, y, z = base
    drum = 1.2
    canvas.ring((x, y, z), radius * 1.08, _scale(colour, 0.5), _LABEL["roof"], 20)
    steps = 9
    for k in range(steps + 1):
        angle = k / steps * 1.5
        r, height = radius * math.cos(angle), drum + radius * math.sin(angle)
        shade = 0.72 + 0.5 * k / steps
        light = (x + canvas.sun[0] * radius * 0.12 * k / steps, y + canvas.sun[1] * radius * 0.12 * k / steps)
        canvas.ring((*light, z + height), r, _scale(colour, shade), _LABEL["roof"], 20)
    tip = z + drum + radius
    canvas.line([(x, y, tip), (x, y, tip + 1.6)], (250, 240, 200), 0.35)


def _teeth(rect: Rect) -> tuple[bool, list[float]]:
    """Whether the teeth follow one another along x, and the positions where they begin and end."""
    x0, y0, x1, y1 = rect
    lengthwise = x1 - x0 >= y1 - y0
    start, end = (x0, x1) if lengthwise else (y0, y1)
    count = max(2, round((end - start) / 5.0))
    return lengthwise, [start + (end - start) * k / count for k in range(count + 1)]


def _sawtooth(canvas: _Canvas, rect: Rect, z: float, colour: Colour, gable: Colour) -> None:
    x0, y0, x1, y1 = rect
    lengthwise, edges = _teeth(rect)
    label = _LABEL["roof"]
    top = z + 2.6
    glass: Colour = (206, 224, 234)
    teeth = list(pairwise(edges))
    eye = canvas.eye[0] if lengthwise else canvas.eye[1]
    teeth.sort(key=lambda tooth: -abs((tooth[0] + tooth[1]) / 2 - eye))
    for s, e in teeth:
        if lengthwise:
            _facing(canvas, [(s, y0, z), (e, y0, top), (e, y1, top), (s, y1, z)], colour, label)
            _facing(canvas, [(e, y0, z), (e, y1, z), (e, y1, top), (e, y0, top)], glass, label)
            _facing(canvas, [(s, y0, z), (e, y0, z), (e, y0, top)], gable, _LABEL["gable"])
            _facing(canvas, [(e, y1, z), (s, y1, z), (e, y1, top)], gable, _LABEL["gable"])
        else:
            _facing(canvas, [(x0, s, z), (x1, s, z), (x1, e, top), (x0, e, top)], colour, label)
            _facing(canvas, [(x1, e, z), (x0, e, z), (x0, e, top), (x1, e, top)], glass, label)
            _facing(canvas, [(x1, s, z), (x1, e, z), (x1, e, top)], gable, _LABEL["gable"])
            _facing(canvas, [(x0, e, z), (x0, s, z), (x0, e, top)], gable, _LABEL["gable"])


def _roof_z(shape: str, rect: Rect, z: float, x: float, y: float) -> float:
    """Height of the roof's surface at a point of the part."""
    x0, y0, x1, y1 = rect
    lengthwise = x1 - x0 >= y1 - y0
    if shape == "stepped":
        return z + 3.2
    if shape == "sawtooth":
        _, edges = _teeth(rect)
        at = x if lengthwise else y
        step = edges[1] - edges[0]
        return z + 2.6 * (((at - edges[0]) / step) % 1.0)
    if shape in ("flat", "domed"):
        return z
    across = min(y - y0, y1 - y) if lengthwise else min(x - x0, x1 - x)
    half = (y1 - y0 if lengthwise else x1 - x0) / 2
    if shape == "hipped":
        ends = min(x - x0, x1 - x) if lengthwise else min(y - y0, y1 - y)
        across = min(across, ends / 0.95)
    return z + _rise(rect) * max(0.0, across) / half


def _slots(shape: str, rect: Rect, main: bool) -> list[Rect]:
    """Places on a roof for equipment: each within one slope, clear of the dome."""
    x0, y0, x1, y1 = _tier(rect) if shape == "stepped" else rect
    lengthwise = x1 - x0 >= y1 - y0
    start, end, low, high = (x0, x1, y0, y1) if lengthwise else (y0, y1, x0, x1)
    width = high - low
    if shape == "sawtooth":
        edges = _teeth(rect)[1]
        spans = [(a + 0.5, b - 0.7) for a, b in pairwise(edges)]
    else:
        inset = width / 2 * 0.7 if shape == "hipped" else 0.8
        count = max(2, round((end - start - 2 * inset) / 4.6))
        step = (end - start - 2 * inset) / count
        spans = [(start + inset + k * step + 0.45, start + inset + (k + 1) * step - 0.45) for k in range(count)]
    rows = [(low + width * 0.12, low + width * 0.43), (low + width * 0.57, low + width * 0.88)]
    slots = [(a, c, b, d) if lengthwise else (c, a, d, b) for a, b in spans for c, d in rows]
    if shape == "domed" and main:
        cx, cy, radius = (rect[0] + rect[2]) / 2, (rect[1] + rect[3]) / 2, _dome_radius(rect)
        slots = [s for s in slots if math.hypot((s[0] + s[2]) / 2 - cx, (s[1] + s[3]) / 2 - cy) > radius + 1.0]
    return slots


def _equipment(canvas: _Canvas, building: Building, rect: Rect, z: float, main: bool, rng: random.Random) -> None:
    kind, shape = building.attributes.equipment, building.attributes.roof_shape
    label = _LABEL["equipment"]
    if kind == "helipad":
        if main:
            _helipad(canvas, rect, z, shape)
        return
    if kind == NONE:
        return
    for slot in _slots(shape, rect, main):
        x0, y0, x1, y1 = slot
        points = [(x, y, _roof_z(shape, rect, z, x, y) + 0.1) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
        if not _turned_to(canvas, points):
            continue
        if kind == "solar panels":
            canvas.face(points, (22, 30, 74), label)
            for s in (0.33, 0.67):
                p, q = _between(points[0], points[1], s), _between(points[3], points[2], s)
                canvas.line([p, q], (150, 170, 214), 0.2)
        elif kind == "skylights":
            small = [_between(_centroid(points), p, 0.62) for p in points]
            canvas.face(small, (226, 246, 255), label)
            canvas.line([*small, small[0]], (70, 80, 90), 0.25)
        elif kind == "vents":
            x, y, height = _centroid(points)
            box = (x - 1.2, y - 1.2, x + 1.2, y + 1.2)
            _walls(canvas, box, height - 0.6, height + 1.3, (150, 156, 162), label)
            canvas.rectangle(box, height + 1.3, (196, 202, 206), label)
            canvas.ring((x, y, height + 1.31), 0.9, (34, 36, 40), label, 10)
        elif kind == "roof garden":
            canvas.face(points, (126, 196, 70), label)
            for _ in range(3):
                at = _between(
                    _between(points[0], points[1], rng.uniform(0.2, 0.8)),
                    _between(points[3], points[2], rng.uniform(0.2, 0.8)),
                    rng.uniform(0.2, 0.8),
                )
                canvas.disc((at[0], at[1], at[2] + 0.4), rng.uniform(0.5, 0.8), (52, 108, 34), label)


def _helipad(canvas: _Canvas, rect: Rect, z: float, shape: str) -> None:
    """A raised deck, so that it fits every roof; beside the dome where there is one."""
    x0, y0, x1, y1 = rect
    half = min(0.36 * min(x1 - x0, y1 - y0), 4.6)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    rise = {"flat": 0.8, "domed": 0.8, "stepped": 3.9, "sawtooth": 3.1}.get(shape, _rise(rect) + 0.6)
    if shape == "domed":
        if x1 - x0 >= y1 - y0 + 1:
            x = x1 - half - 0.4
        else:
            x, y, half = x1 - half, y1 - half, half * 0.75
    top = z + rise
    deck = (x - half, y - half, x + half, y + half)
    label = _LABEL["equipment"]
    _walls(canvas, deck, top - 0.5, top, (90, 92, 96), label)
    canvas.rectangle(deck, top, (104, 108, 114), label)
    canvas.ring((x, y, top), half * 0.86, (250, 214, 40), label)
    canvas.ring((x, y, top), half * 0.66, (104, 108, 114), label)
    r = half * 0.34
    for dx in (-r, r):
        canvas.line([(x + dx, y - r * 1.2, top), (x + dx, y + r * 1.2, top)], (255, 255, 255), half * 0.16)
    canvas.line([(x - r, y, top), (x + r, y, top)], (255, 255, 255), half * 0.16)


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share


def _centroid(points: Sequence[Point]) -> Point:
    n = len(points)
    return sum(p[0] for p in points) / n, sum(p[1] for p in points) / n, sum(p[2] for p in points) / n


def _turned_to(canvas: _Canvas, points: Sequence[Point]) -> bool:
    a, b, c = points[:3]
    normal = _cross((b[0] - a[0], b[1] - a[1], b[2] - a[2]), (c[0] - a[0], c[1] - a[1], c[2] - a[2]))
    eye = canvas.eye
    return normal[0] * (eye[0] - a[0]) + normal[1] * (eye[1] - a[1]) + normal[2] * (eye[2] - a[2]) > 0


def _wing(canvas: _Canvas, building: Building) -> None:
    rect = _wing_rect(building)
    if rect is None:
        return
    label = _LABEL["wing"]
    x0, y0, x1, y1 = rect
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    kind = building.attributes.wing
    if kind == "tower":
        top = height_of(building) + 9
        material = _FACADE[building.attributes.facade]
        _walls(canvas, rect, 0, top, material, label)
        for side in ((x0, y0, x1, y0), (x0, y0, x0, y1), (x1, y0, x1, y1)):
            ends = [(side[0], side[1], top - 1.5), (side[2], side[3], top - 1.5)]
            canvas.line(ends, (60, 60, 64), 0.5)
        tip = (x, y, top + 5.5)
        corners: list[Point] = [(x0, y0, top), (x1, y0, top), (x1, y1, top), (x0, y1, top)]
        for k in range(4):
            _facing(canvas, [corners[k], corners[(k + 1) % 4], tip], (196, 204, 206), label)
    elif kind == "annex":
        _walls(canvas, rect, 0, 4.2, (178, 172, 162), label)
        canvas.rectangle(rect, 4.2, canvas.lit((150, 146, 142), (0, 0, 1)), label)
        canvas.rectangle((x0 + 0.6, y0 + 0.6, x1 - 0.6, y1 - 0.6), 4.2, (120, 118, 118), None)
        if canvas.eye[1] < y0:
            door: list[Point] = [(x - 2, y0, 0), (x + 2, y0, 0), (x + 2, y0, 3), (x - 2, y0, 3)]
            canvas.face(door, (84, 84, 88), label)
    else:
        glass: Colour = (182, 226, 238)
        _walls(canvas, rect, 0, 4.4, glass, label)
        top = 7.0
        a, b = (x, y0, top), (x, y1, top)
        _facing(canvas, [(x0, y1, 4.4), (x0, y0, 4.4), a, b], glass, label)
        _facing(canvas, [(x1, y0, 4.4), (x1, y1, 4.4), b, a], glass, label)
        _facing(canvas, [(x0, y0, 4.4), (x1, y0, 4.4), a], glass, label)
        _facing(canvas, [(x1, y1, 4.4), (x0, y1, 4.4), b], glass, label)
        frame: Colour = (250, 252, 252)
        for k in range(5):
            t = y0 + (y1 - y0) * k / 4
            canvas.line([(x0, t, 4.4), (x, t, top), (x1, t, 4.4)], frame, 0.25)
        if canvas.eye[1] < y0:
            for k in range(5):
                s = x0 + (x1 - x0) * k / 4
                canvas.line([(s, y0, 0), (s, y0, 4.4)], frame, 0.2)
        canvas.line([a, b], frame, 0.3)


def _entrance(canvas: _Canvas, building: Building) -> None:
    y = _front(building)
    label = _LABEL["entrance"]
    kind = building.attributes.entrance
    lit = canvas.lit((244, 238, 226), (0, -1, 0))
    dark: Colour = (50, 40, 36)

    def panel(x0: float, x1: float, z0: float, z1: float, colour: Colour, off: float = 0.0) -> None:
        canvas.face([(x0, y - off, z0), (x1, y - off, z0), (x1, y - off, z1), (x0, y - off, z1)], colour, label)

    if kind == "portico":
        panel(-4.4, 4.4, 0, 0.7, lit, 2)
        panel(-4.0, 4.0, 0.7, 4.2, _scale(dark, 1.3), 1)
        for x in (-3.6, -1.3, 1.3, 3.6):
            panel(x - 0.42, x + 0.42, 0.6, 4.3, lit, 2)
        panel(-4.6, 4.6, 4.2, 5.0, lit, 2)
        canvas.face([(-4.8, y - 2, 5.0), (4.8, y - 2, 5.0), (0, y - 2, 7.0)], _scale(lit, 0.94), label)
    elif kind == "arch":
        for r, colour in ((3.0, lit), (2.3, dark)):
            steps = [math.pi * k / 8 for k in range(9)]
            arc: list[Point] = [(r * math.cos(a), y - 0.1, 2.2 + r * math.sin(a)) for a in steps]
            canvas.face([(r, y - 0.1, 0), *arc, (-r, y - 0.1, 0)], colour, label)
    elif kind == "canopy":
        panel(-3.0, 3.0, 0, 3.4, (120, 176, 190))
        for x in (-1.5, 0.0, 1.5):
            canvas.line([(x, y, 0), (x, y, 3.4)], (240, 246, 248), 0.25)
        canvas.face([(-5.5, y, 4.4), (5.5, y, 4.4), (5.5, y - 4, 3.7), (-5.5, y - 4, 3.7)], (104, 214, 220), label)
        panel(-5.5, 5.5, 3.4, 4.0, (58, 176, 190), 4)
        for x in (-5.2, 5.2):
            panel(x - 0.2, x + 0.2, 0, 3.5, (70, 76, 80), 4)
    elif kind == "stairs":
        panel(-2.2, 2.2, 2.2, 4.9, dark)
        for k in range(5):
            w = 6.2 - 0.75 * k
            panel(-w, w, 0.45 * k, 0.45 * (k + 1), _scale(lit, 0.8 + 0.06 * (k % 2) + 0.03 * k), 4 - 0.8 * k)
    else:
        panel(-3.1, 3.1, 0, 4.7, lit)
        panel(-2.6, -0.15, 0, 4.2, (30, 78, 214))
        panel(0.15, 2.6, 0, 4.2, (30, 78, 214))


def _awnings(canvas: _Canvas, building: Building) -> None:
    kind = building.attributes.awning
    if kind == NONE:
        return
    colour = _AWNING[kind]
    label = _LABEL["awning"]
    front = _front(building)
    for x0, y0, x1, _ in _rects(building):
        if y0 > front + 8.6:
            continue
        spans = [(x0 + 0.5, x1 - 0.5)] if not (x0 < 0 < x1 and y0 == front) else [(x0 + 0.5, -5.6), (5.6, x1 - 0.5)]
        for a, b in spans:
            if b - a < 1.5:
                continue
            canvas.face([(a, y0, 4.3), (b, y0, 4.3), (b, y0 - 1.8, 3.2), (a, y0 - 1.8, 3.2)], colour, label)
            canvas.face(
                [(a, y0 - 1.8, 3.2), (b, y0 - 1.8, 3.2), (b, y0 - 1.8, 2.6), (a, y0 - 1.8, 2.6)],
                _scale(colour, 0.85),
                label,
            )
            stripes = max(1, int((b - a) / 1.8))
            for k in range(stripes):
                s = a + (b - a) * (k + 0.25) / stripes
                canvas.line([(s, y0, 4.3), (s, y0 - 1.8, 3.2)], (250, 248, 240), 0.3)


def _street_object(canvas: _Canvas, kind: str, x: float, y: float) -> None:
    label = _LABEL["street_object"]

    def panel(x0: float, x1: float, z0: float, z1: float, colour: Colour) -> None:
        canvas.face([(x + x0, y, z0), (x + x1, y, z0), (x + x1, y, z1), (x + x0, y, z1)], colour, label)

    if kind == "bus shelter":
        panel(-3.0, 3.0, 0.4, 2.7, (176, 206, 214))
        for edge in (-3.0, -1.0, 1.0, 2.8):
            panel(edge, edge + 0.2, 0, 2.8, (46, 50, 56))
        panel(-3.4, 3.4, 2.7, 3.2, (40, 44, 52))
        panel(-2.6, 1.0, 0.7, 1.0, (120, 84, 50))
        panel(3.6, 3.8, 0, 3.8, (60, 60, 66))
        panel(3.2, 4.2, 3.2, 4.2, (250, 220, 40))
    elif kind == "flags":
        for k, colour in enumerate(((214, 40, 50), (250, 250, 250), (40, 90, 200))):
            at = (k - 1) * 2.6
            panel(at - 0.12, at + 0.12, 0, 8.2, (226, 228, 230))
            panel(at + 0.12, at + 2.0, 6.4, 8.0, colour)
    elif kind == "statue":
        panel(-1.3, 1.3, 0, 2.0, (206, 202, 192))
        panel(-1.6, 1.6, 0, 0.5, (186, 182, 172))
        bronze: Colour = (66, 104, 88)
        panel(-0.6, 0.6, 2.0, 4.2, bronze)
        panel(0.4, 1.4, 3.5, 4.0, bronze)
        canvas.disc((x, y, 4.7), 0.6, bronze, label)
    elif kind == "kiosk":
        panel(-1.8, 1.8, 0, 3.0, (36, 112, 96))
        panel(-1.3, 1.3, 1.2, 2.4, (252, 240, 190))
        for k in range(6):
            panel(-2.2 + k * 0.73, -1.47 + k * 0.73, 3.0, 3.8, (250, 250, 246) if k % 2 else (220, 60, 50))
    elif kind == "phone box":
        panel(-0.9, 0.9, 0, 3.4, (208, 26, 34))
        panel(-0.6, 0.6, 0.9, 2.7, (170, 200, 206))
        panel(-0.08, 0.08, 0.9, 2.7, (208, 26, 34))
        panel(-1.05, 1.05, 3.1, 3.5, (170, 16, 24))
    else:
        for k in range(5):
            at = -4.0 + 2.0 * k
            colour = ((210, 60, 50), (40, 90, 190), (40, 40, 44), (240, 180, 40), (60, 150, 80))[k]
            for wheel in (-0.55, 0.55):
                canvas.disc((x + at + wheel, y, 0.5), 0.5, (26, 26, 30), label)
                canvas.disc((x + at + wheel, y, 0.5), 0.28, (190, 190, 188), label)
            panel(at - 0.5, at + 0.5, 0.9, 1.15, colour)
            panel(at - 0.6, at - 0.4, 0.6, 1.5, colour)
        panel(-5.2, 5.2, 0.0, 0.15, (120, 124, 128))


# --- the surroundings -----------------------------------------------------------------------------------------------


def _grounds(canvas: _Canvas, building: Building, rng: random.Random) -> None:
    """Road, lot and neighbouring feature: everything that lies flat."""
    attributes = building.attributes
    _road(canvas, attributes.road, rng)
    colour = canvas.lit(_SURFACE[attributes.surface], (0, 0, 1))
    canvas.rectangle(_LOT, 0, colour, _LABEL["surface"])
    x0, y0, x1, y1 = _LOT
    if attributes.surface in ("paving", "brick paving"):
        joint = _scale(colour, 0.8)
        for k in range(1, 12):
            x, y = x0 + (x1 - x0) * k / 12, y0 + (y1 - y0) * k / 12
            canvas.line([(x, y0, 0), (x, y1, 0)], joint, 0.22)
            canvas.line([(x0, y, 0), (x1, y, 0)], joint, 0.22)
    else:
        spread = 0.22 if attributes.surface == "gravel" else 0.12
        size = 0.5 if attributes.surface == "gravel" else 1.8
        for _ in range(46):
            at = (rng.uniform(x0 + 2, x1 - 2), rng.uniform(y0 + 2, y1 - 2), 0.0)
            canvas.ring(at, rng.uniform(0.5, 1) * size, _scale(colour, 1 + rng.uniform(-spread, spread)), None, 6)
    path = _front(building)
    canvas.rectangle((-1.8, y0, 1.8, path), 0, _mix(colour, (214, 208, 198), 0.6), None)
    _neighbour(canvas, attributes.neighbour, _neighbour_rect(building), rng)


def _road(canvas: _Canvas, kind: str, rng: random.Random) -> None:
    label = _LABEL["road"]
    colour = canvas.lit(_ROAD[kind], (0, 0, 1))
    near, far, middle = _ROAD_NEAR, _ROAD_FAR, (_ROAD_NEAR + _ROAD_FAR) / 2
    canvas.rectangle((-75, near, 75, far), 0, colour, label)
    if kind in ("asphalt road", "cycle path"):
        for edge in (near + 0.4, far - 0.4):
            _stripe(canvas, -75, 75, edge, 0.3, (226, 224, 216))
        for k in range(-12, 12):
            _stripe(canvas, k * 6, k * 6 + 3, middle, 0.45, (246, 244, 236))
    elif kind == "dirt track":
        for rut in (middle - 1.5, middle + 1.5):
            _stripe(canvas, -75, 75, rut, 1.0, _scale(colour, 0.7))
        for _ in range(14):
            at = (rng.uniform(-50, 50), rng.choice((near + 0.8, middle, far - 0.8)), 0.0)
            canvas.ring(at, rng.uniform(0.5, 1.0), (122, 138, 70), None, 7)
    elif kind == "tram line":
        for k in range(-35, 35):
            _stripe(canvas, k * 1.8, k * 1.8 + 0.7, middle, far - near - 1.4, (112, 86, 66))
        for rail in (-2.6, -1.0, 1.0, 2.6):
            _stripe(canvas, -75, 75, middle + rail, 0.4, (36, 36, 42))
    elif kind == "canal":
        for edge in (near + 0.4, far - 0.4):
            _stripe(canvas, -75, 75, edge, 0.8, (212, 204, 188))
        for _ in range(24):
            x, y = rng.uniform(-50, 50), rng.uniform(near + 1.4, far - 1.4)
            _stripe(canvas, x, x + 3, y, 0.25, (112, 168, 196))
    if kind == "asphalt road":
        for _ in range(rng.randint(1, 4)):
            lane = rng.choice((middle - 1.9, middle + 1.9))
            _car(canvas, rng.uniform(-36, 36), lane, True, rng)


def _stripe(canvas: _Canvas, x0: float, x1: float, y: float, width: float, colour: Colour) -> None:
    """A stripe on the road, its middle at y."""
    canvas.rectangle((x0, y - width / 2, x1, y + width / 2), 0, colour, None)


def _car(canvas: _Canvas, x: float, y: float, along_x: bool, rng: random.Random) -> None:
    paint = rng.choice(((236, 236, 236), (30, 32, 38), (190, 36, 40), (50, 84, 170), (168, 172, 176), (216, 186, 60)))
    dx, dy = (2.1, 0.95) if along_x else (0.95, 2.1)
    rect = (x - dx, y - dy, x + dx, y + dy)
    _walls(canvas, rect, 0.2, 1.0, _scale(paint, 0.8), 0)
    canvas.rectangle(rect, 1.0, paint, 0)
    cabin = (x - dx * 0.55, y - dy * 0.7, x + dx * 0.45, y + dy * 0.7)
    _walls(canvas, cabin, 1.0, 1.6, (44, 54, 64), 0)
    canvas.rectangle(cabin, 1.6, _scale(paint, 1.06), 0)


def _neighbour(canvas: _Canvas, kind: str, rect: Rect, rng: random.Random) -> None:
    x0, y0, x1, y1 = rect
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    label = _LABEL["neighbour"]
    grass = canvas.lit((120, 150, 84), (0, 0, 1))
    white: Colour = (246, 246, 240)

    def box(inset: float, width: float) -> None:
        a, b, c, d = x0 + inset, y0 + inset, x1 - inset, y1 - inset
        canvas.line([(a, b, 0), (c, b, 0), (c, d, 0), (a, d, 0), (a, b, 0)], white, width)

    if kind == "pond":
        wobble = [rng.uniform(0.82, 1.0) for _ in range(14)]
        for factor, colour in ((1.0, (190, 178, 134)), (0.9, (44, 96, 138)), (0.55, (60, 118, 158))):
            shore = [
                (
                    x + factor * w * (x1 - x0) / 2 * math.cos(math.tau * k / 14),
                    y + factor * w * (y1 - y0) / 2 * math.sin(math.tau * k / 14),
                    0.0,
                )
                for k, w in enumerate(wobble)
            ]
            canvas.face(shore, colour, label)
    elif kind == "swimming pool":
        canvas.rectangle(rect, 0, (228, 220, 200), label)
        pool = (x0 + 2, y0 + 2, x1 - 2, y1 - 2)
        canvas.rectangle(pool, 0, (52, 206, 232), label)
        lengthwise = x1 - x0 > y1 - y0
        for k in (0.25, 0.5, 0.75):
            if lengthwise:
                t = pool[1] + (pool[3] - pool[1]) * k
                canvas.line([(pool[0], t, 0), (pool[2], t, 0)], (20, 90, 160), 0.35)
            else:
                t = pool[0] + (pool[2] - pool[0]) * k
                canvas.line([(t, pool[1], 0), (t, pool[3], 0)], (20, 90, 160), 0.35)
    elif kind == "tennis court":
        canvas.rectangle(rect, 0, canvas.lit((56, 112, 84), (0, 0, 1)), label)
        canvas.rectangle((x0 + 2, y0 + 2, x1 - 2, y1 - 2), 0, canvas.lit((206, 96, 56), (0, 0, 1)), label)
        box(2.4, 0.45)
        box(4.4, 0.35)
        canvas.line([(x0 + 2, y, 0), (x1 - 2, y, 0)], white, 0.6)
    elif kind == "football pitch":
        for k in range(6):
            stripe = (x0 + (x1 - x0) * k / 6, y0, x0 + (x1 - x0) * (k + 1) / 6, y1)
            canvas.rectangle(stripe, 0, (64, 178, 58) if k % 2 else (40, 148, 46), label)
        box(1.0, 0.5)
        canvas.line([(x0 + 1, y, 0), (x1 - 1, y, 0)], white, 0.45)
        canvas.ring((x, y, 0), 3.0, white, None)
        canvas.ring((x, y, 0), 2.4, (48, 160, 50), None)
    elif kind == "car park":
        canvas.rectangle(rect, 0, canvas.lit((92, 94, 100), (0, 0, 1)), label)
        rows = max(2, int((y1 - y0) / 3.1))
        for k in range(rows):
            at = y0 + (y1 - y0) * (k + 0.5) / rows
            for column in (x0 + 2.8, x1 - 2.8):
                canvas.line([(column - 2.4, at - 1.5, 0), (column + 2.4, at - 1.5, 0)], white, 0.3)
                if rng.random() < 0.72:
                    _car(canvas, column, at, True, rng)
    elif kind == "grove":
        canvas.rectangle(rect, 0, canvas.lit((70, 96, 48), (0, 0, 1)), label)
    elif kind == "fountain":
        canvas.ring((x, y, 0), 7.6, canvas.lit((226, 214, 190), (0, 0, 1)), label, 20)
        canvas.ring((x, y, 0), 5.0, (160, 152, 140), label, 20)
        canvas.ring((x, y, 0), 4.4, (70, 176, 216), label, 20)
        canvas.ring((x, y, 0), 1.5, (244, 250, 255), label, 12)
    else:
        canvas.rectangle(rect, 0, grass, label)
        canvas.rectangle((x0 + 1.5, y0 + 1.5, x1 - 1.5, y1 - 1.5), 0, canvas.lit((238, 214, 150), (0, 0, 1)), label)
        toys: tuple[Colour, ...] = ((226, 48, 52), (40, 96, 220), (250, 214, 40), (150, 60, 190))
        for k, colour in enumerate(toys):
            dx, dy = (x1 - x0) * (0.2 - 0.4 * (k % 2)), (y1 - y0) * (0.22 - 0.44 * (k // 2))
            canvas.ring((x + dx, y + dy, 0.0), 2.2, colour, label, 10)


def _tree(canvas: _Canvas, kind: str, at: tuple[float, float], size: float, label: int, rng: random.Random) -> None:
    """A tree whose crown has the given radius in metres."""
    x, y = at
    leaves = _scale(_LEAVES[kind], rng.uniform(0.88, 1.12))
    trunk: Colour = (92, 66, 44)
    if kind == "conifer":
        canvas.line([(x, y, 0), (x, y, 1.5)], trunk, 0.6)
        for k in range(6):
            r = size * (1 - k / 6.5)
            canvas.ring((x, y, 1.2 + size * 0.5 * k), r, _scale(leaves, 0.8 + 0.12 * k), label, 9)
            canvas.disc((x, y, 1.2 + size * 0.5 * k), r * 0.55, _scale(leaves, 0.8 + 0.12 * k), label)
        return
    if kind == "palm":
        top = size * 2.6
        canvas.line([(x, y, 0), (x, y, top)], (136, 104, 70), 0.55)
        for k in range(9):
            a = math.tau * k / 9 + rng.uniform(-0.2, 0.2)
            c, s = math.cos(a) * size, math.sin(a) * size
            blade: list[Point] = [
                (x, y, top),
                (x + c * 0.55 - s * 0.2, y + s * 0.55 + c * 0.2, top + 0.6),
                (x + c * 1.15, y + s * 1.15, top - 0.9),
                (x + c * 0.55 + s * 0.2, y + s * 0.55 - c * 0.2, top + 0.2),
            ]
            canvas.face(blade, _scale(leaves, rng.uniform(0.8, 1.15)), label)
        return
    canvas.line([(x, y, 0), (x, y, size * 1.3)], trunk, 0.6)
    middle = size * 1.5
    canvas.disc((x, y, middle), size, _scale(leaves, 0.78), label)
    for _ in range(7):
        a, r = rng.uniform(0, math.tau), rng.uniform(0.2, 0.6) * size
        blob = (x + r * math.cos(a), y + r * math.sin(a), middle + rng.uniform(-0.2, 0.6) * size)
        canvas.disc(blob, size * rng.uniform(0.28, 0.42), _scale(leaves, rng.uniform(0.85, 1.2)), label)


def _minor_building(canvas: _Canvas, rect: Rect, rng: random.Random) -> None:
    wall = rng.choice(((176, 168, 158), (150, 142, 134), (190, 180, 164), (160, 148, 140)))
    cover = rng.choice(((120, 112, 108), (142, 132, 124), (104, 100, 100), (150, 124, 112)))
    z = rng.uniform(3, 6)
    _walls(canvas, rect, 0, z, wall, 0)
    x0, y0, x1, y1 = rect
    if rng.random() < 0.5:
        canvas.rectangle(rect, z, canvas.lit(cover, (0, 0, 1)), 0)
        return
    m, top = (x0 + x1) / 2, z + 2
    _facing(canvas, [(x0, y1, z), (x0, y0, z), (m, y0, top), (m, y1, top)], cover, 0)
    _facing(canvas, [(x1, y0, z), (x1, y1, z), (m, y1, top), (m, y0, top)], cover, 0)
    _facing(canvas, [(x0, y0, z), (x1, y0, z), (m, y0, top)], wall, 0)
    _facing(canvas, [(x1, y1, z), (x0, y1, z), (m, y1, top)], wall, 0)


def _shadows(canvas: _Canvas, building: Building, others: Sequence[tuple[Rect, float]]) -> None:
    """Cast shadows on the ground, as one darkened mask so that overlapping shadows do not add up."""
    mask = Image.new("L", canvas.picture.size, 0)
    pen = ImageDraw.Draw(mask)
    sx, sy, sz = canvas.sun
    casters = [(rect, height_of(building) + 1.0) for rect in _rects(building)]
    wing = _wing_rect(building)
    if wing is not None:
        casters.append((wing, height_of(building) + 10 if building.attributes.wing == "tower" else 5.0))
    for (x0, y0, x1, y1), z in [*casters, *others]:
        dx, dy = -sx / sz * z, -sy / sz * z
        base = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
        for k in range(4):
            a, b = base[k], base[(k + 1) % 4]
            corners = [(*a, 0.0), (*b, 0.0), (b[0] + dx, b[1] + dy, 0.0), (a[0] + dx, a[1] + dy, 0.0)]
            pixels = [canvas.project(p) for p in corners]
            if min(p[2] for p in pixels) > 0.5:
                pen.polygon([(px, py) for px, py, _ in pixels], fill=105)
        roof = [canvas.project((x + dx, y + dy, 0.0)) for x, y in base]
        if min(p[2] for p in roof) > 0.5:
            pen.polygon([(px, py) for px, py, _ in roof], fill=105)
    canvas.picture.paste((18, 22, 40), mask=mask)


# --- the views ------------------------------------------------------------------------------------------------------


def _camera(eye: Point, target: Point, upward: Point, focal: float, centre: tuple[float, float], sun: Point) -> _Canvas:
    forward = _unit((target[0] - eye[0], target[1] - eye[1], target[2] - eye[2]))
    right = _unit(_cross(forward, upward))
    up = _cross(right, forward)
    picture = Image.new("RGB", (_DRAWN, _DRAWN))
    return _Canvas(eye, right, up, forward, focal, centre, sun, picture, Image.new("L", (SIDE, SIDE)))


def _sun(rng: random.Random) -> Point:
    azimuth, height = rng.uniform(0, math.tau), math.radians(rng.uniform(42, 68))
    return math.cos(azimuth) * math.cos(height), math.sin(azimuth) * math.cos(height), math.sin(height)


def _terrain(canvas: _Canvas, rng: random.Random) -> None:
    colour = rng.choice(((142, 146, 112), (128, 136, 104), (152, 148, 124), (134, 130, 112)))
    canvas.picture.paste(colour, (0, 0, _DRAWN, _DRAWN))
    for _ in range(26):
        at = (rng.uniform(-60, 60), rng.uniform(-60, 60), 0.0)
        canvas.ring(at, rng.uniform(3, 9), _scale(colour, rng.uniform(0.9, 1.1)), None, 9)


def _satellite_camera(building: Building, rng: random.Random) -> _Canvas:
    span = rng.uniform(68, 77)
    altitude = 600.0
    lean_x, lean_y = rng.uniform(-45, 45), rng.uniform(-45, 45)
    target = (rng.uniform(-2.5, 2.5), rng.uniform(-3.5, 0.5), 0.0)
    upward = (math.sin(building.heading), math.cos(building.heading), 0.0)
    focal = _DRAWN * altitude / span
    eye = (target[0] + lean_x, target[1] + lean_y, altitude)
    return _camera(eye, target, upward, focal, (_DRAWN / 2, _DRAWN / 2), _sun(rng))


def _drone_camera(building: Building, index: int, rng: random.Random) -> _Canvas:
    """The views of a flight follow one another around the building, each lower and nearer than the one before."""
    azimuth = building.heading + index * math.tau / 3 + rng.uniform(-0.45, 0.45)
    tilt = math.radians(rng.uniform(50, 60) - 7 * index)
    distance = rng.uniform(95, 106) - 7 * index
    height = height_of(building)
    target = (rng.uniform(-2.5, 2.5), rng.uniform(-4, 1), height * 0.4)
    eye = (
        target[0] + distance * math.cos(tilt) * math.sin(azimuth),
        target[1] - distance * math.cos(tilt) * math.cos(azimuth),
        target[2] + distance * math.sin(tilt),
    )
    return _camera(eye, target, (0.0, 0.0, 1.0), _DRAWN * 1.45, (_DRAWN / 2, _DRAWN / 2), _sun(rng))


def _ground_camera(building: Building, rng: random.Random) -> _Canvas:
    """Across the street, as near as the whole front allows."""
    rects = [*_rects(building)]
    wing = _wing_rect(building)
    low = min(r[0] for r in rects + ([wing] if wing else []))
    high = max(r[2] for r in rects + ([wing] if wing else []))
    top = height_of(building) + 5.0
    if building.attributes.wing == "tower":
        top = height_of(building) + 13.0
    middle = (low + high) / 2
    eye = (middle + rng.uniform(-5, 5), -39.0 + rng.uniform(-1, 1), rng.uniform(2.8, 3.6))
    depth = min(r[1] for r in rects) - eye[1]
    horizon = _DRAWN * rng.uniform(0.70, 0.74)
    focal = min((_DRAWN / 2 - 10) * depth / ((high - low) / 2 + 1), (horizon - 12) * depth / (top - eye[2]))
    focal = min(focal, _DRAWN * 1.1) * rng.uniform(0.92, 1.0)
    sun = _sun(rng)
    sun = (sun[0], -abs(sun[1]) if rng.random() < 0.75 else sun[1], sun[2])
    return _camera(eye, (middle, 0.0, eye[2]), (0.0, 0.0, 1.0), focal, (_DRAWN / 2, horizon), sun)


def _sky(canvas: _Canvas, rng: random.Random) -> None:
    horizon = int(canvas.centre[1])
    high: Colour = rng.choice(((88, 146, 214), (120, 164, 210), (150, 166, 184), (176, 182, 190)))
    low = _mix(high, (236, 238, 236), 0.45)
    for row in range(0, horizon, 4):
        canvas.pen.rectangle((0, row, _DRAWN, row + 4), fill=_mix(high, low, row / horizon))
    for _ in range(rng.randint(0, 4)):
        x, y, w = rng.uniform(0, _DRAWN), rng.uniform(0, horizon * 0.6), rng.uniform(20, 60)
        for k in range(4):
            dx = (k - 1.5) * w * 0.35
            canvas.pen.ellipse(
                (x + dx - w * 0.3, y - w * 0.13, x + dx + w * 0.3, y + w * 0.13), fill=_mix(high, (255, 255, 255), 0.7)
            )
    ground: Colour = rng.choice(((142, 146, 112), (150, 148, 128), (134, 134, 120)))
    canvas.pen.rectangle((0, horizon, _DRAWN, _DRAWN), fill=ground)
    ridge = [(0.0, float(horizon))]
    for k in range(17):
        ridge.append((k * _DRAWN / 16, horizon - rng.uniform(6, 26)))
    ridge.append((float(_DRAWN), float(horizon)))
    canvas.pen.polygon(ridge, fill=_mix((110, 124, 112), low, rng.uniform(0.2, 0.5)))


def _outside(at: tuple[float, float], rects: Sequence[Rect], margin: float) -> bool:
    x, y = at
    return all(x < r[0] - margin or x > r[2] + margin or y < r[1] - margin or y > r[3] + margin for r in rects)


def _place_trees(building: Building, ground: bool, rng: random.Random) -> list[tuple[tuple[float, float], float]]:
    """Positions and crown radii: along the street and around the lot, a few in front of the façade."""
    wing = _wing_rect(building)
    rects = [*_rects(building), _neighbour_rect(building), *([wing] if wing else [])]
    placed: list[tuple[tuple[float, float], float]] = []
    wanted = rng.randint(7, 10)
    for _ in range(90):
        if len(placed) == wanted:
            break
        size = rng.uniform(2.1, 3.0)
        street = rng.random() < 0.45
        at = (rng.uniform(-33, 33), -19.2) if street else (rng.uniform(-34, 34), rng.uniform(-19, 34))
        before = ground and at[1] < -10 and abs(at[0]) < 17
        if before and sum(abs(p[0][0]) < 17 and p[0][1] < -10 for p in placed) >= 2:
            continue
        if before and abs(at[0]) < 6:
            continue
        clear = all(math.hypot(at[0] - p[0][0], at[1] - p[0][1]) > size + p[1] - 0.8 for p in placed)
        if clear and _outside(at, rects, size * 0.8):
            placed.append((at, size))
    return placed


def _around(at: tuple[float, float], reach: float) -> Rect:
    return at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach


def _grove(rect: Rect, rng: random.Random) -> list[tuple[float, float]]:
    """Where the twelve trees of a grove stand."""
    x0, y0, x1, y1 = rect
    columns, rows = (4, 3) if x1 - x0 > y1 - y0 else (3, 4)
    return [
        (
            x0 + (x1 - x0) * (i + 0.5) / columns + rng.uniform(-1, 1),
            y0 + (y1 - y0) * (j + 0.5) / rows + rng.uniform(-1, 1),
        )
        for i in range(columns)
        for j in range(rows)
    ]


def _minor_rects(building: Building, rng: random.Random) -> list[Rect]:
    spots = {"left": (-34.0, 0.0), "right": (34.0, 0.0), "rear": (0.0, 33.0)}
    free = [at for side, at in spots.items() if side != building.neighbour_side] + [(-34.0, 31.0), (34.0, 31.0)]
    chosen = rng.sample(free, rng.randint(1, 3))
    rects = []
    for x, y in chosen:
        w, d = rng.uniform(4, 6.5), rng.uniform(4, 7)
        dx, dy = rng.uniform(-2, 2), rng.uniform(-2, 2)
        rects.append((x + dx - w, y + dy - d, x + dx + w, y + dy + d))
    return rects


def _in_order(solids: list[_Solid], eye: Point) -> list[_Solid]:
    """Solids from far to near: of two rectangles, the one beyond a dividing line from the eye comes first."""

    def nearer(a: Rect, b: Rect) -> bool:
        """Whether b may hide part of a."""
        for low, high, at in ((0, 2, eye[0]), (1, 3, eye[1])):
            if a[high] <= b[low] + 1e-6:
                return at > (a[high] + b[low]) / 2
            if b[high] <= a[low] + 1e-6:
                return at < (b[high] + a[low]) / 2
        return False

    def distance(solid: _Solid) -> float:
        r = solid.rect
        return -math.hypot((r[0] + r[2]) / 2 - eye[0], (r[1] + r[3]) / 2 - eye[1])

    left = sorted(solids, key=distance)
    ordered: list[_Solid] = []
    while left:
        for k, solid in enumerate(left):
            if not any(
                other is not solid and nearer(other.rect, solid.rect) and not nearer(solid.rect, other.rect)
                for other in left
            ):
                ordered.append(left.pop(k))
                break
        else:
            ordered.append(left.pop(0))
    return ordered


def _scene(canvas: _Canvas, building: Building, platform: Platform, rng: random.Random) -> None:
    attributes = building.attributes
    _grounds(canvas, building, rng)
    minor = _minor_rects(building, rng)
    trees = _place_trees(building, platform == "ground", rng)
    shaded = [(_around(at, size * 0.7), size * 1.6) for at, size in trees]
    _shadows(canvas, building, [*((rect, 4.0) for rect in minor), *shaded])
    solids = [_Solid(rect, partial(_minor_building, canvas, rect, rng)) for rect in minor]
    for k, (at, size) in enumerate(trees):
        draw_tree = partial(_tree, canvas, attributes.trees, at, size, _FIRST_TREE + k, rng)
        solids.append(_Solid(_around(at, size * 0.7), draw_tree))
    if attributes.neighbour == "grove":
        for at in _grove(_neighbour_rect(building), rng):
            size = rng.uniform(2.3, 3.0)
            draw_tree = partial(_tree, canvas, attributes.trees, at, size, _LABEL["neighbour"], rng)
            solids.append(_Solid(_around(at, 1.0), draw_tree))
    glass: Colour = rng.choice(((54, 66, 84), (44, 50, 60), (70, 84, 100)))
    paint = _windows(canvas, building, platform == "ground", glass) if platform != "satellite" else None
    eaves = height_of(building)
    material = _FACADE[attributes.facade]
    front = _front(building)
    for k, rect in enumerate(_rects(building)):

        def draw(rect: Rect = rect, main: bool = k == 0) -> None:
            walls = partial(_walls, canvas, rect, 0, eaves, material, _LABEL["wall"], paint)
            roof = partial(
                _roof, canvas, attributes.roof_shape, rect, eaves, _ROOF[attributes.roof_colour], material, main
            )
            for step in (walls, roof) if canvas.eye[2] > eaves else (roof, walls):  # what hides comes last
                step()
            if platform != "ground":
                _equipment(canvas, building, rect, eaves, main, rng)
            if rect[0] < 0 < rect[2] and rect[1] == front and canvas.eye[1] < front and platform != "satellite":
                _awnings(canvas, building)
                _entrance(canvas, building)

        solids.append(_Solid(rect, draw))
    wing = _wing_rect(building)
    if wing is not None:
        solids.append(_Solid(wing, partial(_wing, canvas, building)))
    if platform == "ground":
        x, y = rng.choice((-1, 1)) * rng.uniform(7.5, 11), -20.3
        solids.append(
            _Solid((x - 1, y - 0.1, x + 1, y + 0.1), partial(_street_object, canvas, attributes.street_object, x, y))
        )
    for solid in _in_order(solids, canvas.eye):
        solid.draw()


def _develop(picture: Image.Image, rng: random.Random) -> bytes:
    """The photograph: exposure, colour cast, uneven light, haze, a little blur and noise; JPEG without metadata."""
    noise = np.random.Generator(np.random.PCG64(rng.getrandbits(64)))
    small = picture.reduce(2)
    if rng.random() < 0.35:
        small = small.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
    pixels = np.asarray(small, dtype=np.float32)
    uneven = Image.fromarray(noise.uniform(0.86, 1.12, (5, 5)).astype(np.float32))
    light = np.asarray(uneven.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    gain = np.array([rng.uniform(0.94, 1.06) for _ in range(3)], dtype=np.float32) * np.float32(rng.uniform(0.86, 1.18))
    haze = np.float32(rng.uniform(0.0, 0.16))
    pixels = pixels * light[:, :, None] * gain
    pixels = pixels * (1 - haze) + np.float32(208) * haze
    grain = noise.standard_normal((SIDE, SIDE, 3), dtype=np.float32) * np.float32(rng.uniform(1.5, 6.0))
    final = np.clip(pixels + grain, 0, 255).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(final).save(target, "JPEG", quality=_QUALITY)
    return target.getvalue()


def _part(mask: "np.ndarray[tuple[int, int], np.dtype[np.bool_]]") -> Part | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    x0, x1, y0, y1 = int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1
    count = int(mask.sum())
    x = float((mask.sum(axis=0) @ np.arange(SIDE)) / count + 0.5) / SIDE
    y = float((mask.sum(axis=1) @ np.arange(SIDE)) / count + 0.5) / SIDE
    box = ((x0 + x1) / 2 / SIDE, (y0 + y1) / 2 / SIDE, (x1 - x0) / SIDE, (y1 - y0) / SIDE)
    return Part(box, count / SIDE**2, cell(x, y) == cell(box[0], box[1]))


def cell(x: float, y: float) -> tuple[int, int]:
    """Column and row (0, 1 or 2) of the image's three by three cells in which a point lies."""
    return min(2, int(3 * x)), min(2, int(3 * y))


_BUILDING_PARTS = tuple(
    _LABEL[name] for name in ("wall", "gable", "roof", "equipment", "wing", "windows", "awning", "entrance")
)


def _parts(labels: "np.ndarray[tuple[int, int], np.dtype[np.uint8]]") -> dict[str, Part]:
    counts = np.bincount(labels.ravel(), minlength=256)
    masks = {name: labels == number for name, number in _LABEL.items() if number and counts[number]}
    masks["building"] = np.isin(labels, _BUILDING_PARTS)
    tree = int(counts[_FIRST_TREE:].argmax()) + _FIRST_TREE
    masks["tree"] = labels == tree
    return {name: part for name, mask in masks.items() if (part := _part(mask)) is not None}


def render(building: Building, platform: Platform, index: int, rng: random.Random) -> View:
    """Draw one image of a building.

    Args:
        index: the view's place in the drone flight, from 0; 0 for the other platforms.
        rng: the image's own random stream.
    """
    if platform == "satellite":
        canvas = _satellite_camera(building, rng)
        _terrain(canvas, rng)
    elif platform == "drone":
        canvas = _drone_camera(building, index, rng)
        _terrain(canvas, rng)
    else:
        canvas = _ground_camera(building, rng)
        _sky(canvas, rng)
    _scene(canvas, building, platform, rng)
    labels = np.asarray(canvas.labels).copy()
    return View(_develop(canvas.picture, rng), _parts(labels), labels)
