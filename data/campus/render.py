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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from data.campus.canvas import DRAWN, FIRST_TREE, LABEL, SIDE, Canvas, Colour, Point, Rect, camera, draw_walls
from data.campus.house import (
    FACADE,
    ROOF,
    draw_awnings,
    draw_entrance,
    draw_equipment,
    draw_roof,
    draw_wing,
    windows_painter,
)
from data.campus.outdoors import (
    draw_grounds,
    draw_minor_building,
    draw_shadows,
    draw_sky,
    draw_street_object,
    draw_terrain,
    draw_tree,
)
from data.campus.plan import (
    around,
    front_of,
    grove,
    height_of,
    minor_rects,
    neighbour_rect,
    place_trees,
    rects_of,
    wing_rect,
)
from data.campus.world import Building
from schemas.records import Box, Platform

_QUALITY = 90


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


def _sun(rng: random.Random) -> Point:
    azimuth, height = rng.uniform(0, math.tau), math.radians(rng.uniform(42, 68))
    return math.cos(azimuth) * math.cos(height), math.sin(azimuth) * math.cos(height), math.sin(height)


def _satellite_camera(building: Building, rng: random.Random) -> Canvas:
    span = rng.uniform(61, 69)
    altitude = 600.0
    lean_x, lean_y = rng.uniform(-45, 45), rng.uniform(-45, 45)
    target = (rng.uniform(-2.5, 2.5), rng.uniform(-3.5, 0.5), 0.0)
    upward = (math.sin(building.heading), math.cos(building.heading), 0.0)
    focal = DRAWN * altitude / span
    eye = (target[0] + lean_x, target[1] + lean_y, altitude)
    return camera(eye, target, upward, focal, (DRAWN / 2, DRAWN / 2), _sun(rng))


def _drone_camera(building: Building, index: int, rng: random.Random) -> Canvas:
    """The views of a flight follow one another around the building, each lower and nearer than the one before."""
    azimuth = building.heading + index * math.tau / 3 + rng.uniform(-0.45, 0.45)
    tilt = math.radians(rng.uniform(50, 60) - 7 * index)
    distance = rng.uniform(87, 97) - 6 * index
    height = height_of(building)
    target = (rng.uniform(-2.5, 2.5), rng.uniform(-4, 1), height * 0.4)
    eye = (
        target[0] + distance * math.cos(tilt) * math.sin(azimuth),
        target[1] - distance * math.cos(tilt) * math.cos(azimuth),
        target[2] + distance * math.sin(tilt),
    )
    return camera(eye, target, (0.0, 0.0, 1.0), DRAWN * 1.45, (DRAWN / 2, DRAWN / 2), _sun(rng))


def _ground_camera(building: Building, rng: random.Random) -> Canvas:
    """Across the street, as near as the whole front allows."""
    rects = [*rects_of(building)]
    wing = wing_rect(building)
    low = min(r[0] for r in rects + ([wing] if wing else []))
    high = max(r[2] for r in rects + ([wing] if wing else []))
    top = height_of(building) + 5.0
    if building.attributes.wing == "tower":
        top = height_of(building) + 13.0
    middle = (low + high) / 2
    eye = (middle + rng.uniform(-5, 5), -39.0 + rng.uniform(-1, 1), rng.uniform(2.8, 3.6))
    depth = min(r[1] for r in rects) - eye[1]
    horizon = DRAWN * rng.uniform(0.70, 0.74)
    focal = min((DRAWN / 2 - 10) * depth / ((high - low) / 2 + 1), (horizon - 12) * depth / (top - eye[2]))
    focal = min(focal, DRAWN * 1.1) * rng.uniform(0.92, 1.0)
    sun = _sun(rng)
    sun = (sun[0], -abs(sun[1]) if rng.random() < 0.75 else sun[1], sun[2])
    return camera(eye, (middle, 0.0, eye[2]), (0.0, 0.0, 1.0), focal, (DRAWN / 2, horizon), sun)


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


def _scene(canvas: Canvas, building: Building, platform: Platform, rng: random.Random) -> None:
    attributes = building.attributes
    draw_grounds(canvas, building, rng)
    minor = minor_rects(building, rng)
    trees = place_trees(building, platform == "ground", rng)
    shaded = [(around(at, size * 0.7), size * 1.6) for at, size in trees]
    draw_shadows(canvas, building, [*((rect, 4.0) for rect in minor), *shaded])
    solids = [_Solid(rect, partial(draw_minor_building, canvas, rect, rng)) for rect in minor]
    for k, (at, size) in enumerate(trees):
        grown = partial(draw_tree, canvas, attributes.trees, at, size, FIRST_TREE + k, rng)
        solids.append(_Solid(around(at, size * 0.7), grown))
    if attributes.neighbour == "grove":
        for at in grove(neighbour_rect(building), rng):
            size = rng.uniform(2.3, 3.0)
            grown = partial(draw_tree, canvas, attributes.trees, at, size, LABEL["neighbour"], rng)
            solids.append(_Solid(around(at, 1.0), grown))
    glass: Colour = rng.choice(((54, 66, 84), (44, 50, 60), (70, 84, 100)))
    paint = windows_painter(canvas, building, platform == "ground", glass) if platform != "satellite" else None
    eaves = height_of(building)
    material = FACADE[attributes.facade]
    front = front_of(building)
    for k, rect in enumerate(rects_of(building)):

        def draw(rect: Rect = rect, main: bool = k == 0) -> None:
            walls = partial(draw_walls, canvas, rect, 0, eaves, material, LABEL["wall"], paint)
            roof = partial(
                draw_roof, canvas, attributes.roof_shape, rect, eaves, ROOF[attributes.roof_colour], material, main
            )
            for step in (walls, roof) if canvas.eye[2] > eaves else (roof, walls):  # what hides comes last
                step()
            if platform != "ground":
                draw_equipment(canvas, building, rect, eaves, main, rng)
            if rect[0] < 0 < rect[2] and rect[1] == front and canvas.eye[1] < front and platform != "satellite":
                draw_awnings(canvas, building)
                draw_entrance(canvas, building)

        solids.append(_Solid(rect, draw))
    wing = wing_rect(building)
    if wing is not None:
        solids.append(_Solid(wing, partial(draw_wing, canvas, building)))
    if platform == "ground":
        x, y = rng.choice((-1, 1)) * rng.uniform(7.5, 11), -20.3
        solids.append(
            _Solid(
                (x - 1, y - 0.1, x + 1, y + 0.1), partial(draw_street_object, canvas, attributes.street_object, x, y)
            )
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
    haze = np.float32(rng.uniform(0.0, 0.13))
    pixels = pixels * light[:, :, None] * gain
    pixels = pixels * (1 - haze) + np.float32(208) * haze
    grain = noise.standard_normal((SIDE, SIDE, 3), dtype=np.float32) * np.float32(rng.uniform(1.0, 4.5))
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
    LABEL[name] for name in ("wall", "gable", "roof", "equipment", "wing", "windows", "awning", "entrance")
)


def _parts(labels: "np.ndarray[tuple[int, int], np.dtype[np.uint8]]") -> dict[str, Part]:
    counts = np.bincount(labels.ravel(), minlength=256)
    masks = {name: labels == number for name, number in LABEL.items() if number and counts[number]}
    masks["building"] = np.isin(labels, _BUILDING_PARTS)
    tree = int(counts[FIRST_TREE:].argmax()) + FIRST_TREE
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
        draw_terrain(canvas, rng)
    elif platform == "drone":
        canvas = _drone_camera(building, index, rng)
        draw_terrain(canvas, rng)
    else:
        canvas = _ground_camera(building, rng)
        draw_sky(canvas, rng)
    _scene(canvas, building, platform, rng)
    labels = np.asarray(canvas.labels).copy()
    return View(_develop(canvas.picture, rng), _parts(labels), labels)
