"""Where everything of a scene stands, in metres in the building's own frame: its parts, lot, trees and neighbours."""

import math
import random
from collections.abc import Sequence

from data.campus.canvas import Rect
from data.campus.world import NONE, Building

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
LOT: Rect = (-21, -20, 21, 20)
ROAD_NEAR, ROAD_FAR = -29.0, -21.5


def height_of(building: Building) -> float:
    """Height of the eaves, metres."""
    return 5.0 + 3.4 * (int(building.attributes.storeys) - 1)


def rects_of(building: Building) -> tuple[Rect, ...]:
    rects = _MAIN_PARTS[building.attributes.footprint]
    return tuple((-x1, y0, -x0, y1) for x0, y0, x1, y1 in rects) if building.mirrored else rects


def front_of(building: Building) -> float:
    """y of the wall that holds the entrance."""
    return min(y0 for x0, y0, x1, y1 in rects_of(building) if x0 < 0 < x1)


def wing_rect(building: Building) -> Rect | None:
    kind = building.attributes.wing
    if kind == NONE:
        return None
    width, length = {"tower": (6.0, 6.0), "annex": (6.5, 9.0), "glass hall": (6.5, 10.0)}[kind]
    rects = rects_of(building)
    if building.mirrored:
        edge = min(r[0] for r in rects)
        y = min(r[1] for r in rects if r[0] == edge)
        return edge - width, y, edge, y + length
    edge = max(r[2] for r in rects)
    y = min(r[1] for r in rects if r[2] == edge)
    return edge, y, edge + width, y + length


def neighbour_rect(building: Building) -> Rect:
    return {"left": (-38.0, -11.0, -22.5, 11.0), "right": (22.5, -11.0, 38.0, 11.0), "rear": (-11.0, 21.5, 11.0, 37.0)}[
        building.neighbour_side
    ]


def around(at: tuple[float, float], reach: float) -> Rect:
    return at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach


def _outside(at: tuple[float, float], rects: Sequence[Rect], margin: float) -> bool:
    x, y = at
    return all(x < r[0] - margin or x > r[2] + margin or y < r[1] - margin or y > r[3] + margin for r in rects)


def place_trees(building: Building, ground: bool, rng: random.Random) -> list[tuple[tuple[float, float], float]]:
    """Positions and crown radii: along the street and around the lot, a few in front of the façade."""
    wing = wing_rect(building)
    rects = [*rects_of(building), neighbour_rect(building), *([wing] if wing else [])]
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


def grove(rect: Rect, rng: random.Random) -> list[tuple[float, float]]:
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


def minor_rects(building: Building, rng: random.Random) -> list[Rect]:
    spots = {"left": (-34.0, 0.0), "right": (34.0, 0.0), "rear": (0.0, 33.0)}
    free = [at for side, at in spots.items() if side != building.neighbour_side] + [(-34.0, 31.0), (34.0, 31.0)]
    chosen = rng.sample(free, rng.randint(1, 3))
    rects = []
    for x, y in chosen:
        w, d = rng.uniform(4, 6.5), rng.uniform(4, 7)
        dx, dy = rng.uniform(-2, 2), rng.uniform(-2, 2)
        rects.append((x + dx - w, y + dy - d, x + dx + w, y + dy + d))
    return rects
