"""Draws what surrounds the building: sky, ground, road, neighbouring feature, trees, cars, street objects, shadows."""

import math
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw

from data.campus.canvas import DRAWN, LABEL, Canvas, Colour, Point, Rect, draw_facing, draw_walls, mix, scale
from data.campus.plan import LOT, ROAD_FAR, ROAD_NEAR, front_of, height_of, neighbour_rect, rects_of, wing_rect
from data.campus.world import Building

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


def draw_grounds(canvas: Canvas, building: Building, rng: random.Random) -> None:
    """Road, lot and neighbouring feature: everything that lies flat."""
    attributes = building.attributes
    _road(canvas, attributes.road, rng)
    colour = canvas.lit(_SURFACE[attributes.surface], (0, 0, 1))
    canvas.rectangle(LOT, 0, colour, LABEL["surface"])
    x0, y0, x1, y1 = LOT
    if attributes.surface in ("paving", "brick paving"):
        joint = scale(colour, 0.8)
        for k in range(1, 12):
            x, y = x0 + (x1 - x0) * k / 12, y0 + (y1 - y0) * k / 12
            canvas.line([(x, y0, 0), (x, y1, 0)], joint, 0.22)
            canvas.line([(x0, y, 0), (x1, y, 0)], joint, 0.22)
    else:
        spread = 0.22 if attributes.surface == "gravel" else 0.12
        size = 0.5 if attributes.surface == "gravel" else 1.8
        for _ in range(46):
            at = (rng.uniform(x0 + 2, x1 - 2), rng.uniform(y0 + 2, y1 - 2), 0.0)
            canvas.ring(at, rng.uniform(0.5, 1) * size, scale(colour, 1 + rng.uniform(-spread, spread)), None, 6)
    path = front_of(building)
    canvas.rectangle((-1.8, y0, 1.8, path), 0, mix(colour, (214, 208, 198), 0.6), None)
    _neighbour(canvas, attributes.neighbour, neighbour_rect(building), rng)


def _road(canvas: Canvas, kind: str, rng: random.Random) -> None:
    label = LABEL["road"]
    colour = canvas.lit(_ROAD[kind], (0, 0, 1))
    near, far, middle = ROAD_NEAR, ROAD_FAR, (ROAD_NEAR + ROAD_FAR) / 2
    canvas.rectangle((-75, near, 75, far), 0, colour, label)
    if kind in ("asphalt road", "cycle path"):
        for edge in (near + 0.4, far - 0.4):
            _stripe(canvas, -75, 75, edge, 0.3, (226, 224, 216))
        for k in range(-12, 12):
            _stripe(canvas, k * 6, k * 6 + 3, middle, 0.45, (246, 244, 236))
    elif kind == "dirt track":
        for rut in (middle - 1.5, middle + 1.5):
            _stripe(canvas, -75, 75, rut, 1.0, scale(colour, 0.7))
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


def _stripe(canvas: Canvas, x0: float, x1: float, y: float, width: float, colour: Colour) -> None:
    """A stripe on the road, its middle at y."""
    canvas.rectangle((x0, y - width / 2, x1, y + width / 2), 0, colour, None)


def _car(canvas: Canvas, x: float, y: float, along_x: bool, rng: random.Random) -> None:
    paint = rng.choice(((236, 236, 236), (30, 32, 38), (190, 36, 40), (50, 84, 170), (168, 172, 176), (216, 186, 60)))
    dx, dy = (2.1, 0.95) if along_x else (0.95, 2.1)
    rect = (x - dx, y - dy, x + dx, y + dy)
    draw_walls(canvas, rect, 0.2, 1.0, scale(paint, 0.8), 0)
    canvas.rectangle(rect, 1.0, paint, 0)
    cabin = (x - dx * 0.55, y - dy * 0.7, x + dx * 0.45, y + dy * 0.7)
    draw_walls(canvas, cabin, 1.0, 1.6, (44, 54, 64), 0)
    canvas.rectangle(cabin, 1.6, scale(paint, 1.06), 0)


def _neighbour(canvas: Canvas, kind: str, rect: Rect, rng: random.Random) -> None:
    x0, y0, x1, y1 = rect
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    label = LABEL["neighbour"]
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


def draw_tree(canvas: Canvas, kind: str, at: tuple[float, float], size: float, label: int, rng: random.Random) -> None:
    """A tree whose crown has the given radius in metres."""
    x, y = at
    leaves = scale(_LEAVES[kind], rng.uniform(0.88, 1.12))
    trunk: Colour = (92, 66, 44)
    if kind == "conifer":
        canvas.line([(x, y, 0), (x, y, 1.5)], trunk, 0.6)
        for k in range(6):
            r = size * (1 - k / 6.5)
            canvas.ring((x, y, 1.2 + size * 0.5 * k), r, scale(leaves, 0.8 + 0.12 * k), label, 9)
            canvas.disc((x, y, 1.2 + size * 0.5 * k), r * 0.55, scale(leaves, 0.8 + 0.12 * k), label)
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
            canvas.face(blade, scale(leaves, rng.uniform(0.8, 1.15)), label)
        return
    canvas.line([(x, y, 0), (x, y, size * 1.3)], trunk, 0.6)
    middle = size * 1.5
    canvas.disc((x, y, middle), size, scale(leaves, 0.78), label)
    for _ in range(7):
        a, r = rng.uniform(0, math.tau), rng.uniform(0.2, 0.6) * size
        blob = (x + r * math.cos(a), y + r * math.sin(a), middle + rng.uniform(-0.2, 0.6) * size)
        canvas.disc(blob, size * rng.uniform(0.28, 0.42), scale(leaves, rng.uniform(0.85, 1.2)), label)


def draw_minor_building(canvas: Canvas, rect: Rect, rng: random.Random) -> None:
    wall = rng.choice(((176, 168, 158), (150, 142, 134), (190, 180, 164), (160, 148, 140)))
    cover = rng.choice(((120, 112, 108), (142, 132, 124), (104, 100, 100), (150, 124, 112)))
    z = rng.uniform(3, 6)
    draw_walls(canvas, rect, 0, z, wall, 0)
    x0, y0, x1, y1 = rect
    if rng.random() < 0.5:
        canvas.rectangle(rect, z, canvas.lit(cover, (0, 0, 1)), 0)
        return
    m, top = (x0 + x1) / 2, z + 2
    draw_facing(canvas, [(x0, y1, z), (x0, y0, z), (m, y0, top), (m, y1, top)], cover, 0)
    draw_facing(canvas, [(x1, y0, z), (x1, y1, z), (m, y1, top), (m, y0, top)], cover, 0)
    draw_facing(canvas, [(x0, y0, z), (x1, y0, z), (m, y0, top)], wall, 0)
    draw_facing(canvas, [(x1, y1, z), (x0, y1, z), (m, y1, top)], wall, 0)


def draw_street_object(canvas: Canvas, kind: str, x: float, y: float) -> None:
    label = LABEL["street_object"]

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


def draw_shadows(canvas: Canvas, building: Building, others: Sequence[tuple[Rect, float]]) -> None:
    """Cast shadows on the ground, as one darkened mask so that overlapping shadows do not add up."""
    mask = Image.new("L", canvas.picture.size, 0)
    pen = ImageDraw.Draw(mask)
    sx, sy, sz = canvas.sun
    casters = [(rect, height_of(building) + 1.0) for rect in rects_of(building)]
    wing = wing_rect(building)
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


def draw_sky(canvas: Canvas, rng: random.Random) -> None:
    horizon = int(canvas.centre[1])
    high: Colour = rng.choice(((88, 146, 214), (120, 164, 210), (150, 166, 184), (176, 182, 190)))
    low = mix(high, (236, 238, 236), 0.45)
    for row in range(0, horizon, 4):
        canvas.pen.rectangle((0, row, DRAWN, row + 4), fill=mix(high, low, row / horizon))
    for _ in range(rng.randint(0, 4)):
        x, y, w = rng.uniform(0, DRAWN), rng.uniform(0, horizon * 0.6), rng.uniform(20, 60)
        for k in range(4):
            dx = (k - 1.5) * w * 0.35
            canvas.pen.ellipse(
                (x + dx - w * 0.3, y - w * 0.13, x + dx + w * 0.3, y + w * 0.13), fill=mix(high, (255, 255, 255), 0.7)
            )
    ground: Colour = rng.choice(((142, 146, 112), (150, 148, 128), (134, 134, 120)))
    canvas.pen.rectangle((0, horizon, DRAWN, DRAWN), fill=ground)
    ridge = [(0.0, float(horizon))]
    for k in range(17):
        ridge.append((k * DRAWN / 16, horizon - rng.uniform(6, 26)))
    ridge.append((float(DRAWN), float(horizon)))
    canvas.pen.polygon(ridge, fill=mix((110, 124, 112), low, rng.uniform(0.2, 0.5)))


def draw_terrain(canvas: Canvas, rng: random.Random) -> None:
    colour = rng.choice(((142, 146, 112), (128, 136, 104), (152, 148, 124), (134, 130, 112)))
    canvas.picture.paste(colour, (0, 0, DRAWN, DRAWN))
    for _ in range(26):
        at = (rng.uniform(-60, 60), rng.uniform(-60, 60), 0.0)
        canvas.ring(at, rng.uniform(3, 9), scale(colour, rng.uniform(0.9, 1.1)), None, 9)
