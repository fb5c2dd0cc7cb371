"""Draws the building itself: walls with their windows, roofs with what stands on them, the wing, the entrance."""

import math
import random
from collections.abc import Callable
from itertools import pairwise

from data.campus.canvas import (
    LABEL,
    Canvas,
    Colour,
    Point,
    Rect,
    between,
    centroid,
    draw_facing,
    draw_walls,
    mix,
    scale,
    turned_to,
)
from data.campus.plan import front_of, height_of, rects_of, wing_rect
from data.campus.world import NONE, Building

ROOF: dict[str, Colour] = {
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
FACADE: dict[str, Colour] = {
    "red brick": (164, 70, 54),
    "white plaster": (236, 232, 222),
    "grey concrete": (142, 142, 144),
    "blue glass": (92, 150, 206),
    "yellow sandstone": (226, 192, 112),
    "dark timber": (88, 60, 42),
    "pink stucco": (238, 156, 168),
}
_AWNING: dict[str, Colour] = {
    "red": (204, 40, 44),
    "green": (40, 140, 74),
    "blue": (44, 92, 204),
    "yellow": (244, 206, 60),
}


def windows_painter(
    canvas: Canvas, building: Building, fine: bool, glass: Colour
) -> Callable[[Point, Point, Point], None]:
    """The window pattern of one main wall; coarse walls (drone) leave out the courses of the material."""
    style, material = building.attributes.windows, building.attributes.facade
    storeys = int(building.attributes.storeys)
    top = height_of(building)
    label = LABEL["windows"]
    trim = scale(FACADE[material], 0.82)

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
        pale = mix(dark, (255, 255, 250), 0.75)
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


def draw_roof(canvas: Canvas, shape: str, rect: Rect, z: float, colour: Colour, gable: Colour, main: bool) -> None:
    """The roof of one part. Only the main part carries a dome; the others are flat then."""
    x0, y0, x1, y1 = rect
    label = LABEL["roof"]
    if shape in ("flat", "stepped", "domed"):
        canvas.rectangle(rect, z, canvas.lit(colour, (0, 0, 1)), label)
        inner = (x0 + 0.7, y0 + 0.7, x1 - 0.7, y1 - 0.7)
        canvas.rectangle(inner, z, canvas.lit(scale(colour, 0.9), (0, 0, 1)), None)
        if shape == "stepped":
            inset = _tier(rect)
            draw_walls(canvas, inset, z, z + 3.2, scale(colour, 0.6), label)
            canvas.rectangle(inset, z + 3.2, canvas.lit(mix(colour, (255, 255, 255), 0.25), (0, 0, 1)), label)
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
        draw_facing(canvas, points, gable if is_gable else colour, LABEL["gable"] if is_gable else label)
    if canvas.eye[2] > top:
        edge = mix(colour, (255, 255, 255), 0.4)
        canvas.line([a, b], edge, 0.45)
        if shape == "hipped":
            for corner, end in zip(((x0, y0), (x1, y1)), (a, b), strict=True):
                canvas.line([(*corner, z), end], edge, 0.35)
            for corner, end in zip(((x0, y1), (x1, y0)), (a, b) if lengthwise else (b, a), strict=True):
                canvas.line([(*corner, z), end], edge, 0.35)


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


def _dome(canvas: Canvas, base: Point, radius: float, colour: Colour) -> None:
    x, y, z = base
    drum = 1.2
    canvas.ring((x, y, z), radius * 1.08, scale(colour, 0.5), LABEL["roof"], 20)
    steps = 9
    for k in range(steps + 1):
        angle = k / steps * 1.5
        r, height = radius * math.cos(angle), drum + radius * math.sin(angle)
        shade = 0.6 + 0.7 * k / steps
        light = (x + canvas.sun[0] * radius * 0.12 * k / steps, y + canvas.sun[1] * radius * 0.12 * k / steps)
        canvas.ring((*light, z + height), r, scale(colour, shade), LABEL["roof"], 20)
    tip = z + drum + radius
    canvas.line([(x, y, tip), (x, y, tip + 1.6)], (250, 240, 200), 0.35)


def _teeth(rect: Rect) -> tuple[bool, list[float]]:
    """Whether the teeth follow one another along x, and the positions where they begin and end."""
    x0, y0, x1, y1 = rect
    lengthwise = x1 - x0 >= y1 - y0
    start, end = (x0, x1) if lengthwise else (y0, y1)
    count = max(2, round((end - start) / 5.0))
    return lengthwise, [start + (end - start) * k / count for k in range(count + 1)]


def _sawtooth(canvas: Canvas, rect: Rect, z: float, colour: Colour, gable: Colour) -> None:
    x0, y0, x1, y1 = rect
    lengthwise, edges = _teeth(rect)
    label = LABEL["roof"]
    top = z + 2.6
    glass: Colour = (206, 224, 234)
    teeth = list(pairwise(edges))
    eye = canvas.eye[0] if lengthwise else canvas.eye[1]
    teeth.sort(key=lambda tooth: -abs((tooth[0] + tooth[1]) / 2 - eye))
    for s, e in teeth:
        if lengthwise:
            draw_facing(canvas, [(s, y0, z), (e, y0, top), (e, y1, top), (s, y1, z)], colour, label)
            draw_facing(canvas, [(e, y0, z), (e, y1, z), (e, y1, top), (e, y0, top)], glass, label)
            draw_facing(canvas, [(s, y0, z), (e, y0, z), (e, y0, top)], gable, LABEL["gable"])
            draw_facing(canvas, [(e, y1, z), (s, y1, z), (e, y1, top)], gable, LABEL["gable"])
        else:
            draw_facing(canvas, [(x0, s, z), (x1, s, z), (x1, e, top), (x0, e, top)], colour, label)
            draw_facing(canvas, [(x1, e, z), (x0, e, z), (x0, e, top), (x1, e, top)], glass, label)
            draw_facing(canvas, [(x1, s, z), (x1, e, z), (x1, e, top)], gable, LABEL["gable"])
            draw_facing(canvas, [(x0, e, z), (x0, s, z), (x0, e, top)], gable, LABEL["gable"])


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


def draw_equipment(canvas: Canvas, building: Building, rect: Rect, z: float, main: bool, rng: random.Random) -> None:
    kind, shape = building.attributes.equipment, building.attributes.roof_shape
    label = LABEL["equipment"]
    if kind == "helipad":
        if main:
            _helipad(canvas, rect, z, shape)
        return
    if kind == NONE:
        return
    for slot in _slots(shape, rect, main):
        x0, y0, x1, y1 = slot
        points = [(x, y, _roof_z(shape, rect, z, x, y) + 0.1) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
        if not turned_to(canvas, points):
            continue
        if kind == "solar panels":
            canvas.face(points, (22, 30, 74), label)
            for s in (0.33, 0.67):
                p, q = between(points[0], points[1], s), between(points[3], points[2], s)
                canvas.line([p, q], (150, 170, 214), 0.2)
        elif kind == "skylights":
            small = [between(centroid(points), p, 0.62) for p in points]
            canvas.face(small, (226, 246, 255), label)
            canvas.line([*small, small[0]], (70, 80, 90), 0.25)
        elif kind == "vents":
            x, y, height = centroid(points)
            box = (x - 1.2, y - 1.2, x + 1.2, y + 1.2)
            draw_walls(canvas, box, height - 0.6, height + 1.3, (150, 156, 162), label)
            canvas.rectangle(box, height + 1.3, (196, 202, 206), label)
            canvas.ring((x, y, height + 1.31), 0.9, (34, 36, 40), label, 10)
        elif kind == "roof garden":
            canvas.face(points, (126, 196, 70), label)
            for _ in range(3):
                at = between(
                    between(points[0], points[1], rng.uniform(0.2, 0.8)),
                    between(points[3], points[2], rng.uniform(0.2, 0.8)),
                    rng.uniform(0.2, 0.8),
                )
                canvas.disc((at[0], at[1], at[2] + 0.4), rng.uniform(0.5, 0.8), (52, 108, 34), label)


def _helipad(canvas: Canvas, rect: Rect, z: float, shape: str) -> None:
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
    label = LABEL["equipment"]
    draw_walls(canvas, deck, top - 0.5, top, (90, 92, 96), label)
    canvas.rectangle(deck, top, (104, 108, 114), label)
    canvas.ring((x, y, top), half * 0.86, (250, 214, 40), label)
    canvas.ring((x, y, top), half * 0.66, (104, 108, 114), label)
    r = half * 0.34
    for dx in (-r, r):
        canvas.line([(x + dx, y - r * 1.2, top), (x + dx, y + r * 1.2, top)], (255, 255, 255), half * 0.16)
    canvas.line([(x - r, y, top), (x + r, y, top)], (255, 255, 255), half * 0.16)


def draw_wing(canvas: Canvas, building: Building) -> None:
    rect = wing_rect(building)
    if rect is None:
        return
    label = LABEL["wing"]
    x0, y0, x1, y1 = rect
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    kind = building.attributes.wing
    if kind == "tower":
        top = height_of(building) + 9
        material = FACADE[building.attributes.facade]
        draw_walls(canvas, rect, 0, top, material, label)
        for side in ((x0, y0, x1, y0), (x0, y0, x0, y1), (x1, y0, x1, y1)):
            ends = [(side[0], side[1], top - 1.5), (side[2], side[3], top - 1.5)]
            canvas.line(ends, (60, 60, 64), 0.5)
        tip = (x, y, top + 5.5)
        corners: list[Point] = [(x0, y0, top), (x1, y0, top), (x1, y1, top), (x0, y1, top)]
        for k in range(4):
            draw_facing(canvas, [corners[k], corners[(k + 1) % 4], tip], (196, 204, 206), label)
    elif kind == "annex":
        draw_walls(canvas, rect, 0, 4.2, (178, 172, 162), label)
        canvas.rectangle(rect, 4.2, canvas.lit((150, 146, 142), (0, 0, 1)), label)
        canvas.rectangle((x0 + 0.6, y0 + 0.6, x1 - 0.6, y1 - 0.6), 4.2, (120, 118, 118), None)
        if canvas.eye[1] < y0:
            door: list[Point] = [(x - 2, y0, 0), (x + 2, y0, 0), (x + 2, y0, 3), (x - 2, y0, 3)]
            canvas.face(door, (84, 84, 88), label)
    else:
        glass: Colour = (182, 226, 238)
        draw_walls(canvas, rect, 0, 4.4, glass, label)
        top = 7.0
        a, b = (x, y0, top), (x, y1, top)
        draw_facing(canvas, [(x0, y1, 4.4), (x0, y0, 4.4), a, b], glass, label)
        draw_facing(canvas, [(x1, y0, 4.4), (x1, y1, 4.4), b, a], glass, label)
        draw_facing(canvas, [(x0, y0, 4.4), (x1, y0, 4.4), a], glass, label)
        draw_facing(canvas, [(x1, y1, 4.4), (x0, y1, 4.4), b], glass, label)
        frame: Colour = (250, 252, 252)
        for k in range(5):
            t = y0 + (y1 - y0) * k / 4
            canvas.line([(x0, t, 4.4), (x, t, top), (x1, t, 4.4)], frame, 0.25)
        if canvas.eye[1] < y0:
            for k in range(5):
                s = x0 + (x1 - x0) * k / 4
                canvas.line([(s, y0, 0), (s, y0, 4.4)], frame, 0.2)
        canvas.line([a, b], frame, 0.3)


def draw_entrance(canvas: Canvas, building: Building) -> None:
    y = front_of(building)
    label = LABEL["entrance"]
    kind = building.attributes.entrance
    lit = canvas.lit((244, 238, 226), (0, -1, 0))
    dark: Colour = (50, 40, 36)

    def panel(x0: float, x1: float, z0: float, z1: float, colour: Colour, off: float = 0.0) -> None:
        canvas.face([(x0, y - off, z0), (x1, y - off, z0), (x1, y - off, z1), (x0, y - off, z1)], colour, label)

    if kind == "portico":
        panel(-4.4, 4.4, 0, 0.7, lit, 2)
        panel(-4.0, 4.0, 0.7, 4.2, scale(dark, 1.3), 1)
        for x in (-3.6, -1.3, 1.3, 3.6):
            panel(x - 0.42, x + 0.42, 0.6, 4.3, lit, 2)
        panel(-4.6, 4.6, 4.2, 5.0, lit, 2)
        canvas.face([(-4.8, y - 2, 5.0), (4.8, y - 2, 5.0), (0, y - 2, 7.0)], scale(lit, 0.94), label)
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
            panel(-w, w, 0.45 * k, 0.45 * (k + 1), scale(lit, 0.8 + 0.06 * (k % 2) + 0.03 * k), 4 - 0.8 * k)
    else:
        panel(-3.1, 3.1, 0, 4.7, lit)
        panel(-2.6, -0.15, 0, 4.2, (30, 78, 214))
        panel(0.15, 2.6, 0, 4.2, (30, 78, 214))


def draw_awnings(canvas: Canvas, building: Building) -> None:
    kind = building.attributes.awning
    if kind == NONE:
        return
    colour = _AWNING[kind]
    label = LABEL["awning"]
    front = front_of(building)
    for x0, y0, x1, _ in rects_of(building):
        if y0 > front + 8.6:
            continue
        spans = [(x0 + 0.5, x1 - 0.5)] if not (x0 < 0 < x1 and y0 == front) else [(x0 + 0.5, -5.6), (5.6, x1 - 0.5)]
        for a, b in spans:
            if b - a < 1.5:
                continue
            canvas.face([(a, y0, 4.3), (b, y0, 4.3), (b, y0 - 1.8, 3.2), (a, y0 - 1.8, 3.2)], colour, label)
            canvas.face(
                [(a, y0 - 1.8, 3.2), (b, y0 - 1.8, 3.2), (b, y0 - 1.8, 2.6), (a, y0 - 1.8, 2.6)],
                scale(colour, 0.85),
                label,
            )
            stripes = max(1, int((b - a) / 1.8))
            for k in range(stripes):
                s = a + (b - a) * (k + 0.25) / stripes
                canvas.line([(s, y0, 4.3), (s, y0 - 1.8, 3.2)], (250, 248, 240), 0.3)
