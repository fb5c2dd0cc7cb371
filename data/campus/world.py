"""What stands in the sample world: every building's attributes, drawn independently, and who can see which of them.

Nothing here knows pixels or words. `render` draws a building from these records, `language` speaks about what was
drawn, and `ceiling` says from the attributes alone how well the test queries can be answered at best.
"""

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from schemas.records import PLATFORMS, Platform

VERSION = 2
NONE = "none"

Side = Literal["left", "right", "rear"]
WorldSplit = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Attributes:
    """What can be said of a building and its surroundings; every value is one of CHOICES[field]."""

    roof_colour: str
    roof_shape: str
    footprint: str
    equipment: str
    wing: str
    surface: str
    neighbour: str
    road: str
    trees: str
    facade: str
    storeys: str
    windows: str
    entrance: str
    awning: str
    street_object: str


CHOICES: dict[str, tuple[str, ...]] = {
    "roof_colour": ("red", "orange", "yellow", "green", "turquoise", "blue", "white", "black", "brown"),
    "roof_shape": ("flat", "gabled", "hipped", "sawtooth", "domed", "stepped"),
    "footprint": ("square", "long", "L", "U", "T", "H", "cross", "courtyard"),
    "equipment": (NONE, "solar panels", "skylights", "vents", "helipad", "roof garden"),
    "wing": (NONE, "tower", "annex", "glass hall"),
    "surface": ("lawn", "paving", "gravel", "brick paving", "bare earth"),
    "neighbour": (
        "pond",
        "swimming pool",
        "tennis court",
        "football pitch",
        "car park",
        "grove",
        "fountain",
        "playground",
    ),
    "road": ("asphalt road", "dirt track", "tram line", "canal", "cycle path"),
    "trees": ("broadleaf", "conifer", "palm", "autumn", "blossom"),
    "facade": (
        "red brick",
        "white plaster",
        "grey concrete",
        "blue glass",
        "yellow sandstone",
        "dark timber",
        "pink stucco",
    ),
    "storeys": ("1", "2", "3", "4", "6"),
    "windows": ("ribbon", "square", "tall", "arched"),
    "entrance": ("portico", "arch", "canopy", "stairs", "blue doors"),
    "awning": (NONE, "red", "green", "blue", "yellow"),
    "street_object": ("bus shelter", "flags", "statue", "kiosk", "phone box", "bicycles"),
}

_SEEN: dict[Platform, tuple[str, ...]] = {
    "satellite": (
        "roof_colour",
        "roof_shape",
        "footprint",
        "equipment",
        "wing",
        "surface",
        "neighbour",
        "road",
        "trees",
    ),
    "drone": (
        "roof_colour",
        "roof_shape",
        "footprint",
        "equipment",
        "wing",
        "surface",
        "neighbour",
        "road",
        "trees",
        "facade",
        "storeys",
    ),
    "ground": (
        "roof_colour",
        "roof_shape",
        "wing",
        "road",
        "trees",
        "facade",
        "storeys",
        "windows",
        "entrance",
        "awning",
        "street_object",
    ),
}
# From the street a roof shows only where it rises well above the eaves.
_RISING_ROOFS = ("gabled", "hipped", "sawtooth", "domed", "stepped")


@dataclass(frozen=True, slots=True)
class Building:
    """One building. Side and mirror say where things stand around it; no sentence ever names them.

    Attributes:
        heading: direction of the front, radians, anticlockwise from the image's downward axis on a north-up tile.
        neighbour_side: where the neighbouring feature lies, seen by a person who faces the front.
        mirrored: the footprint is mirrored left to right; the wing, where there is one, stands on the other end.
    """

    id: str
    split: WorldSplit
    attributes: Attributes
    heading: float
    neighbour_side: Side
    mirrored: bool


@dataclass(frozen=True, slots=True)
class Query:
    """The facts that one short test query states: pairs (attribute, value)."""

    image_id: str
    ordinal: int
    building_id: str
    platform: Platform
    facts: tuple[tuple[str, str], ...]


def rng_for(seed: int, *names: str | int) -> random.Random:
    """A random stream that depends on the seed and the names alone, so that nothing depends on the order of work."""
    text = "\x1f".join(map(str, (VERSION, seed, *names)))
    return random.Random(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big"))


def draw_buildings(buildings: int, seed: int) -> list[Building]:
    """Draw the buildings of a world; one eighth of them, at least one, is the test split. Sorted by id."""
    ids = [f"{number:04d}" for number in rng_for(seed, "ids").sample(range(10_000), buildings)]
    tests = max(1, buildings // 8)
    drawn = [_draw(index, name, "test" if index < tests else "train", seed) for index, name in enumerate(ids)]
    return sorted(drawn, key=lambda building: building.id)


def _draw(index: int, building_id: str, split: WorldSplit, seed: int) -> Building:
    rng = rng_for(seed, "building", index)  # not the id: it must say nothing about what the building looks like
    attributes = Attributes(**{name: rng.choice(values) for name, values in CHOICES.items()})
    sides: tuple[Side, ...] = ("left", "right", "rear")
    return Building(building_id, split, attributes, rng.uniform(0, 6.283185), rng.choice(sides), rng.random() < 0.5)


def values(attributes: Attributes) -> dict[str, str]:
    """The attributes as {name: value}, in the order of CHOICES."""
    drawn = asdict(attributes)
    return {name: drawn[name] for name in CHOICES}


def shown(attributes: Attributes, platform: Platform) -> dict[str, str]:
    """What a platform can show of a building at best; a single image may hide some of it."""
    seen = {name: value for name, value in values(attributes).items() if name in _SEEN[platform] and value != NONE}
    if platform == "ground" and attributes.roof_shape not in _RISING_ROOFS:
        del seen["roof_colour"], seen["roof_shape"]
    return seen


def fitting(query: Query, buildings: Iterable[Building]) -> int:
    """How many of the buildings fit every fact of the query, as seen from the query's platform."""
    return sum(set(query.facts) <= shown(building.attributes, query.platform).items() for building in buildings)


def ceiling(fits: Sequence[tuple[Platform, int]]) -> dict[str, dict[str, float]]:
    """The best recall that the queries' ambiguity allows, in percent.

    A query that fits n buildings ranks its own among the first k with probability min(1, k / n) at best, because
    nothing in it tells the n apart.

    Args:
        fits: per query its platform and the number of test buildings that fit it, its own included (at least 1).
    """
    groups: Mapping[str, list[int]] = {
        "all": [count for _, count in fits],
        **{name: [count for platform, count in fits if platform == name] for name in PLATFORMS},
    }
    return {
        name: {f"r{k}": round(100 * sum(min(1.0, k / count) for count in counts) / len(counts), 2) for k in (1, 5, 10)}
        for name, counts in groups.items()
        if counts
    }
