"""The words of the sample world: long captions in GeoText style, region sentences with boxes, short test queries.

Words are chosen from what `render` says is visible in an image. Training captions also tell a few details of the
building that the platform cannot see, as GeoText's captions do; test queries never do. Train and test have templates of
their own and a few synonyms of their own; most nouns and all colours are shared.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from data.campus.render import Part, cell
from data.campus.world import NONE, Attributes, Building, WorldSplit, shown, values
from schemas.records import Box, Platform

_OWN_WORD = 0.1  # share of mentions that use a word which the other split never uses
_MIN_SHARE = 0.004  # of the image's area: less is not worth a word


@dataclass(frozen=True, slots=True)
class Words:
    """How a value is said: by both splits, and by only one of them."""

    shared: tuple[str, ...]
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def pick(self, split: WorldSplit, rng: random.Random) -> str:
        own = self.train if split == "train" else self.test
        return rng.choice(own if own and rng.random() < _OWN_WORD * 1.5 else self.shared)


@dataclass(frozen=True, slots=True)
class Region:
    """A sentence about one part of the image and the part's visible box (cx, cy, w, h in 0..1)."""

    sentence: str
    box: Box
    part: str


@dataclass(frozen=True, slots=True)
class Located:
    """A caption's sentence that says where in the image a part lies."""

    sentence: str
    part: str


@dataclass(frozen=True, slots=True)
class Caption:
    """A training caption; `located` are those of its sentences that hold an orientation phrase."""

    text: str
    located: tuple[Located, ...]


_WORDS: dict[str, dict[str, Words]] = {
    # adjectives
    "roof_colour": {
        "red": Words(("red",)),
        "orange": Words(("orange",)),
        "yellow": Words(("yellow",)),
        "green": Words(("green",)),
        "turquoise": Words(("turquoise",)),
        "blue": Words(("blue",)),
        "white": Words(("white",)),
        "black": Words(("black",)),
        "brown": Words(("brown",)),
    },
    "roof_shape": {
        "flat": Words(("flat",)),
        "gabled": Words(("gabled",), train=("ridged",), test=("saddleback",)),
        "hipped": Words(("hipped",), train=("hip-style",), test=("hip",)),
        "sawtooth": Words(("sawtooth",), train=("zigzag",), test=("saw-toothed",)),
        "domed": Words(("domed",), train=("cupola-crowned",), test=("dome-shaped",)),
        "stepped": Words(("stepped",), train=("two-tiered",), test=("terraced",)),
    },
    "footprint": {
        "square": Words(("square",), train=("box-shaped",), test=("cube-like",)),
        "long": Words(("long rectangular", "long"), train=("elongated",), test=("slender",)),
        "L": Words(("L-shaped",)),
        "U": Words(("U-shaped",), test=("horseshoe-shaped",)),
        "T": Words(("T-shaped",)),
        "H": Words(("H-shaped",)),
        "cross": Words(("cross-shaped",), train=("plus-shaped",), test=("cruciform",)),
        "courtyard": Words(("courtyard",), train=("ring-shaped",), test=("quadrangle",)),
    },
    "facade": {
        "red brick": Words(("red brick",), test=("red-bricked",)),
        "white plaster": Words(("white plaster", "white plastered"), train=("white stuccoed",), test=("whitewashed",)),
        "grey concrete": Words(("grey concrete",), test=("grey cement",)),
        "blue glass": Words(("blue glass",), train=("blue glazed",), test=("blue glass-clad",)),
        "yellow sandstone": Words(("yellow sandstone", "yellow stone"), test=("yellow ashlar",)),
        "dark timber": Words(("dark timber", "dark wood"), train=("dark wooden",), test=("dark boarded",)),
        "pink stucco": Words(("pink stucco", "pink"), test=("pink rendered",)),
    },
    "storeys": {
        "1": Words(("single-storey", "one-storey"), test=("one-floor",)),
        "2": Words(("two-storey",), train=("double-storey",), test=("two-floor",)),
        "3": Words(("three-storey",), test=("three-floor",)),
        "4": Words(("four-storey",), test=("four-floor",)),
        "6": Words(("six-storey",), test=("six-floor",)),
    },
    # noun phrases that follow "with"
    "equipment": {
        "solar panels": Words(("solar panels",), train=("photovoltaic panels",), test=("solar modules",)),
        "skylights": Words(("skylights",), train=("roof windows",), test=("rooflights",)),
        "vents": Words(("ventilation units", "vents"), train=("air-conditioning boxes",), test=("rooftop fans",)),
        "helipad": Words(("a helipad",), test=("a helicopter deck",)),
        "roof garden": Words(("a roof garden",), train=("a planted roof terrace",), test=("rooftop greenery",)),
    },
    "wing": {
        "tower": Words(("a tower", "a tower with a pointed cap"), train=("a spired tower",), test=("a turret",)),
        "annex": Words(("a low annex",), train=("a low extension",), test=("a low outbuilding",)),
        "glass hall": Words(("a glass hall",), train=("a glazed hall",), test=("a conservatory",)),
    },
    "windows": {
        "ribbon": Words(("ribbon windows",), train=("continuous bands of windows",), test=("strip windows",)),
        "square": Words(("square windows",), test=("box-like windows",)),
        "tall": Words(("tall narrow windows",), train=("high slim windows",), test=("slit windows",)),
        "arched": Words(("arched windows",), train=("round-headed windows",), test=("vaulted windows",)),
    },
    "awning": {
        "red": Words(("red awnings",), test=("red sunshades",)),
        "green": Words(("green awnings",), test=("green sunshades",)),
        "blue": Words(("blue awnings",), test=("blue sunshades",)),
        "yellow": Words(("yellow awnings",), test=("yellow sunshades",)),
    },
    "entrance": {
        "portico": Words(("a columned portico",), train=("a porch with columns",), test=("a colonnaded porch",)),
        "arch": Words(("an arched doorway",), train=("an arched gateway",), test=("a vaulted doorway",)),
        "canopy": Words(("a glass canopy",), train=("a glass entrance roof",), test=("a glazed marquee",)),
        "stairs": Words(("a wide staircase",), train=("broad entrance steps",), test=("a grand flight of steps",)),
        "blue doors": Words(("blue double doors", "blue doors"), test=("a blue portal",)),
    },
    # noun phrases that follow "beside"
    "neighbour": {
        "pond": Words(("a pond",), train=("a small lake",), test=("a water basin",)),
        "swimming pool": Words(("a swimming pool",), train=("an outdoor bathing pool",), test=("a lap pool",)),
        "tennis court": Words(("a tennis court",), train=("a clay court",)),
        "football pitch": Words(("a football pitch", "a football field"), test=("a soccer field",)),
        "car park": Words(("a car park", "a parking lot"), train=("a parking area",), test=("a lot of parked cars",)),
        "grove": Words(("a grove",), train=("a small wood",), test=("a copse",)),
        "fountain": Words(("a round fountain", "a fountain"), test=("a circular water feature",)),
        "playground": Words(("a playground",), train=("a play area",), test=("a children's sandpit",)),
    },
    "road": {
        "asphalt road": Words(
            ("an asphalt road", "a paved road"), train=("a tarmac road",), test=("a blacktop street",)
        ),
        "dirt track": Words(("a dirt track", "a dirt road"), train=("an unpaved road",), test=("a rutted lane",)),
        "tram line": Words(("a tram line", "tram tracks"), train=("a railway track",), test=("streetcar rails",)),
        "canal": Words(("a canal",), train=("a straight waterway",), test=("a water channel",)),
        "cycle path": Words(("a red cycle path",), train=("a red bicycle lane",), test=("a red bikeway",)),
    },
    "street_object": {
        "bus shelter": Words(("a bus shelter", "a bus stop"), test=("a transit shelter",)),
        "flags": Words(("a row of flags", "flagpoles"), test=("flying banners",)),
        "statue": Words(("a statue",), train=("a bronze monument",), test=("a sculpture",)),
        "kiosk": Words(("a kiosk",), train=("a newsstand",), test=("a vendor's booth",)),
        "phone box": Words(("a red phone box",), train=("a red telephone box",), test=("a red call box",)),
        "bicycles": Words(("parked bicycles", "a bicycle rack"), train=("a row of bikes",), test=("parked cycles",)),
    },
    "trees": {
        "broadleaf": Words(("leafy green trees",), train=("deciduous trees",), test=("shady trees",)),
        "conifer": Words(("conifers", "dark conifers"), train=("fir trees",), test=("evergreens",)),
        "palm": Words(("palm trees", "palms")),
        "autumn": Words(("orange autumn trees", "autumn trees"), train=("orange-leaved trees",)),
        "blossom": Words(
            ("pink blossoming trees", "blossom trees"), train=("cherry trees",), test=("flowering trees",)
        ),
    },
    "surface": {
        "lawn": Words(("a lawn", "a green lawn"), train=("mown grass",), test=("turf",)),
        "paving": Words(("pale paving", "a paved plaza"), train=("stone slabs",), test=("flagstones",)),
        "gravel": Words(("gravel",), train=("a gravel yard",), test=("loose stones",)),
        "brick paving": Words(("red brick paving", "brick paving"), test=("red pavers",)),
        "bare earth": Words(("bare earth", "bare soil"), train=("brown dirt",), test=("naked ground",)),
    },
}

_ONE_TREE: dict[str, str] = {
    "broadleaf": "a leafy green tree",
    "conifer": "a dark conifer",
    "palm": "a palm tree",
    "autumn": "an orange autumn tree",
    "blossom": "a pink blossoming tree",
}

# The part of the picture that must be visible before a word is said about an attribute.
_SHOWS: dict[str, tuple[str, ...]] = {
    "roof_colour": ("roof",),
    "roof_shape": ("roof", "gable"),
    "footprint": ("roof",),
    "equipment": ("equipment",),
    "wing": ("wing",),
    "surface": ("surface",),
    "neighbour": ("neighbour",),
    "road": ("road",),
    "trees": ("tree",),
    "facade": ("wall",),
    "storeys": ("wall",),
    "windows": ("windows",),
    "entrance": ("entrance",),
    "awning": ("awning",),
    "street_object": ("street_object",),
}
_COLUMNS, _ROWS = ("left", "middle", "right"), ("upper", "middle", "lower")


def visible_facts(building: Building, platform: Platform, parts: Mapping[str, Part]) -> dict[str, str]:
    """What an image shows of its building: the platform's attributes, less those whose part is hidden or too small."""

    def share(name: str) -> float:
        return sum(parts[part].share for part in _SHOWS[name] if part in parts)

    return {name: value for name, value in shown(building.attributes, platform).items() if share(name) >= _MIN_SHARE}


def place(box: Box) -> str:
    """The words for the cell of the image, three by three, in which a box's centre lies: "upper left", "center", …"""
    column, row = cell(box[0], box[1])
    return "center" if (column, row) == (1, 1) else f"{_ROWS[row]} {_COLUMNS[column]}"


def _say(name: str, value: str, split: WorldSplit, rng: random.Random) -> str:
    return _WORDS[name][value].pick(split, rng)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _article(phrase: str) -> str:
    return ("an " if re.match(r"(?!one)[aeio]|L-|H-", phrase) else "a ") + phrase


def _be(phrase: str) -> str:
    return "are" if phrase.endswith("s") and not phrase.startswith(("a ", "an ")) else "is"


def _join(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


# --- training captions ----------------------------------------------------------------------------------------------

_PLACED: tuple[str, ...] = (
    "On the {place} side of the image, there {be} {it}.",
    "On the {place} side of the building, there {be} {it}.",
    "On the {place} side of the image, {it} can be seen.",
    "There {be} {it} on the {place} side of the image.",
    "{It} can be seen on the {place} side of the picture.",
)
_CORNER: tuple[str, ...] = (
    "In the {place} corner of the image, there {be} {it}.",
    "{It} {be} visible in the {place} corner of the image.",
)
_UNPLACED: tuple[str, ...] = (
    "There {be} {it} next to the building.",
    "Near the building, there {be} {it}.",
    "The building stands close to {it}.",
)
_COMPASS: dict[str, str] = {
    "upper left": "north-west",
    "upper middle": "north",
    "upper right": "north-east",
    "middle left": "west",
    "middle right": "east",
    "lower left": "south-west",
    "lower middle": "south",
    "lower right": "south-east",
}
_NOISE: tuple[str, ...] = (
    "The image is taken on a clear day and the colors look natural.",
    "The overall scene gives the impression of a quiet campus.",
    "The area seems to be well maintained and easy to reach.",
    "It looks like a place where many people study or work.",
    "The picture appears to show part of a university or a business district.",
    "There are a few other buildings around, which are smaller in size.",
    "The surroundings look peaceful, with some open space between the buildings.",
    "The building seems to be the most important structure in the scene.",
    "Some details are hard to make out because of the light.",
    "The architecture of the building is simple but elegant.",
)
_OPENINGS: tuple[str, ...] = (
    "The main object in the center of the image is {it}.",
    "In the center of the image is {it}.",
    "The object in the center of the image is {it}.",
    "The image shows {it} in the center.",
    "This is an image of {it} in the middle of the scene.",
)


def _head(facts: Mapping[str, str], rng: random.Random) -> str:
    """The building as a noun phrase of a training caption, with what of its mass is in the facts."""
    adjectives = [rng.choice(("large", "large", "big", "modern", "impressive"))]
    adjectives += [
        _say(name, facts[name], "train", rng) for name in ("storeys", "footprint", "facade") if name in facts
    ]
    phrase = " ".join([*adjectives, "building"])
    roof = [_say(name, facts[name], "train", rng) for name in ("roof_colour", "roof_shape") if name in facts]
    return _article(phrase) + (f" with {_article(' '.join([*roof, 'roof']))}" if roof else "")


def _plain_sentence(name: str, value: str, rng: random.Random) -> str:
    """A sentence without orientation about one attribute, whether the image shows it or not."""
    it = _say(name, value, "train", rng)
    templates: dict[str, tuple[str, ...]] = {
        "roof_colour": ("The roof of the building is {it}.", "The building has {it} roof surfaces."),
        "roof_shape": ("The building has a {it} roof.", "The roof of the building is {it}."),
        "footprint": ("Its plan is {it}.", "The building is {it} in plan."),
        "equipment": ("There {be} {it} on the roof of the building.", "The roof of the building carries {it}."),
        "wing": ("The building is connected to {it}.", "{It} is attached to the building."),
        "surface": ("The building is surrounded by {it}.", "The open ground around the building is {it}."),
        "trees": ("There {be} {it} around the building.", "Several {it} grow around the building."),
        "facade": ("The building has a {it} facade.", "The walls of the building are {it}."),
        "storeys": ("It is a {it} building.", "It appears to be a {it} structure."),
        "windows": ("The facade has {it}.", "The building has {it} on every floor."),
        "entrance": ("The entrance of the building has {it}.", "The entrance is marked by {it}."),
        "awning": ("There are {it} along the facade.", "The ground floor has {it}."),
    }
    return rng.choice(templates.get(name, _UNPLACED)).format(it=it, It=_capital(it), be=_be(it))


def _placed_sentence(part: str, it: str, box: Box, platform: Platform, rng: random.Random) -> Located:
    where = place(box)
    if platform == "satellite" and rng.random() < 0.25:
        compass = rng.choice(("To the {c} of the building, there {be} {it}.", "{It} can be seen {c} of the building."))
        return Located(compass.format(c=_COMPASS[where], it=it, It=_capital(it), be=_be(it)), part)
    templates = _PLACED + (_CORNER if "middle" not in where else ())
    return Located(rng.choice(templates).format(place=where, it=it, It=_capital(it), be=_be(it)), part)


def _placeable(parts: Mapping[str, Part], part: str) -> bool:
    """Whether one orientation phrase says truly where the part is."""
    found = parts.get(part)
    return found is not None and found.compact and found.share >= _MIN_SHARE and place(found.box) != "center"


_NAMED_PARTS: dict[str, str] = {
    "neighbour": "neighbour",
    "road": "road",
    "street_object": "street_object",
    "wing": "wing",
}


def _noun(part: str, attributes: Attributes, split: WorldSplit, rng: random.Random) -> str:
    if part == "tree":
        return _ONE_TREE[attributes.trees]
    name = _NAMED_PARTS[part]
    return _say(name, values(attributes)[name], split, rng)


def caption(building: Building, platform: Platform, parts: Mapping[str, Part], rng: random.Random) -> Caption:
    """One training caption of 50 to 130 words: visible facts, details the platform cannot see, and padding."""
    facts = visible_facts(building, platform, parts)
    drawn = values(building.attributes)
    hidden = [
        name for name, value in drawn.items() if name not in shown(building.attributes, platform) and value != NONE
    ]
    massing = {name: facts[name] for name in facts if name in _MASSING and rng.random() < 0.75}
    sentences = [rng.choice(_OPENINGS).format(it=_head(massing, rng))]
    located: list[Located] = []
    middle: list[str] = []
    for name in facts:
        if name in massing or rng.random() < 0.25:
            continue
        part = next((p for p, n in _NAMED_PARTS.items() if n == name), None)
        if part and _placeable(parts, part) and rng.random() < 0.8:
            it = _noun(part, building.attributes, "train", rng)
            located.append(_placed_sentence(part, it, parts[part].box, platform, rng))
            middle.append(located[-1].sentence)
        else:
            middle.append(_plain_sentence(name, facts[name], rng))
    if _placeable(parts, "tree") and rng.random() < 0.35:
        located.append(_placed_sentence("tree", _ONE_TREE[drawn["trees"]], parts["tree"].box, platform, rng))
        middle.append(located[-1].sentence)
    if platform == "ground" and "road" in facts and rng.random() < 0.4:
        middle.append(_foreground(_say("road", facts["road"], "train", rng)))
    for name in rng.sample(hidden, min(len(hidden), rng.randint(1, 2))):
        middle.append(_plain_sentence(name, drawn[name], rng))
    rng.shuffle(middle)
    sentences += middle
    padding = rng.sample(_NOISE, len(_NOISE))
    sentences += [padding.pop() for _ in range(rng.randint(1, 2))]
    while sum(len(sentence.split()) for sentence in sentences) < 54:
        sentences.append(padding.pop())
    if rng.random() < 0.2:
        sentences.append(f"The object in the center of the image is {_head(massing, rng)}.")
    while sum(len(sentence.split()) for sentence in sentences) > 128:
        sentences.pop(len(sentences) // 2)
    kept = set(sentences)
    return Caption(_with_quirks(sentences, rng), tuple(item for item in located if item.sentence in kept))


def _foreground(road: str) -> str:
    return f"In the foreground, there {_be(road)} {road}."


_MASSING = ("storeys", "footprint", "facade", "roof_colour", "roof_shape")


def _with_quirks(sentences: Sequence[str], rng: random.Random) -> str:
    """Join sentences the way published captions are: now and then a space, a full stop or an article is missing."""
    text = sentences[0]
    for sentence in sentences[1:]:
        draw = rng.random()
        if draw < 0.03:
            text = text.removesuffix(".")
        elif draw >= 0.07:
            text += " "
        text += re.sub(r"(?<=[Tt]here is )an? ", "", sentence) if rng.random() < 0.05 else sentence
    return text


# --- region sentences -----------------------------------------------------------------------------------------------


def regions(
    building: Building, platform: Platform, parts: Mapping[str, Part], split: WorldSplit, rng: random.Random
) -> list[Region]:
    """Two or three sentences, each about one visible part, with its box."""
    facts = visible_facts(building, platform, parts)
    found: list[Region] = []
    whole = parts.get("building")
    if whole is not None and place(whole.box) == "center":
        massing = {name: facts[name] for name in facts if name in _MASSING and rng.random() < 0.7}
        start = (
            "The object in the center of the image is" if rng.random() < 0.6 else "In the center of the image, there is"
        )
        found.append(Region(f"{start} {_head(massing, rng)}", whole.box, "building"))
    candidates = [part for part in ("neighbour", "road", "street_object", "wing", "tree") if _placeable(parts, part)]
    rng.shuffle(candidates)
    for part in candidates[: rng.randint(2, 3) - len(found)]:
        side = "building" if rng.random() < 0.6 else "image"
        it = _noun(part, building.attributes, split, rng)
        box = parts[part].box
        found.append(Region(f"On the {place(box)} side of the {side}, there {_be(it)} {it}", box, part))
    return found


# --- test queries ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Said:
    """The phrases of a query's facts, by their place in the sentence."""

    before: tuple[str, ...]
    having: tuple[str, ...]
    near: tuple[str, ...]


_NEAR: dict[str, tuple[str, ...]] = {
    "neighbour": ("beside {it}", "next to {it}", "close to {it}"),
    "road": ("along {it}", "beside {it}", "by {it}"),
    "surface": ("surrounded by {it}", "on {it}"),
    "trees": ("among {it}", "near {it}"),
    "street_object": ("near {it}", "beside {it}"),
}


def _said(facts: Mapping[str, str], rng: random.Random) -> _Said:
    words = {name: _say(name, value, "test", rng) for name, value in facts.items()}
    before = tuple(words[name] for name in ("storeys", "facade", "footprint") if name in words)
    roof = [words[name] for name in ("roof_colour", "roof_shape") if name in words]
    having = [_article(" ".join([*roof, "roof"]))] if roof else []
    extras = [words[name] for name in ("equipment", "wing", "windows", "awning", "entrance") if name in words]
    rng.shuffle(extras)
    near = [rng.choice(_NEAR[name]).format(it=words[name]) for name in _NEAR if name in words]
    rng.shuffle(near)
    return _Said(before, tuple(having + extras), tuple(near))


def _one_sentence(said: _Said, rng: random.Random) -> str:
    noun = rng.choice(("building", "building", "house", "block"))
    thing = _article(" ".join([*said.before, noun]))
    having = f" {rng.choice(('with', 'that has'))} {_join(said.having)}" if said.having else ""
    near = ", " + ", ".join(said.near) if said.near else ""
    lead = rng.choice(("", "", "Find ", "We are looking for ", "The picture shows "))
    return _capital(f"{lead}{thing}{having}{near}.")


def _two_sentences(said: _Said, rng: random.Random) -> str:
    if not said.near:
        return _one_sentence(said, rng)
    thing = _article(" ".join([*said.before, "building"]))
    having = f" with {_join(said.having)}" if said.having else ""
    return f"{_capital(thing)}{having}. It {rng.choice(('is', 'stands'))} {_join(said.near)}."


def _near_first(said: _Said, rng: random.Random) -> str:
    if not said.near or said.near[0].startswith("surrounded"):
        return _one_sentence(said, rng)
    thing = _article(" ".join([*said.before, rng.choice(("building", "structure"))]))
    having = f" whose features are {_join(said.having)}" if len(said.having) > 1 else ""
    having = having or (f" with {said.having[0]}" if said.having else "")
    rest = ", " + ", ".join(said.near[1:]) if said.near[1:] else ""
    return f"{_capital(said.near[0])} stands {thing}{having}{rest}."


_FORMS: tuple[Callable[[_Said, random.Random], str], ...] = (_one_sentence, _one_sentence, _two_sentences, _near_first)


def query(facts: Mapping[str, str], rng: random.Random) -> tuple[str, dict[str, str]]:
    """A short test query that states four to six of the facts, and the facts it states.

    No fact is preferred to another; the sentence holds nothing else, and no orientation.
    """
    names = sorted(facts)
    chosen = rng.sample(names, min(len(names), rng.choice((4, 4, 5, 5, 6))))
    stated = {name: facts[name] for name in names if name in chosen}
    text = rng.choice(_FORMS)(_said(stated, rng), rng)
    if rng.random() < 0.1:  # published test captions exist in this form
        text = re.sub(r"[.,]", "", text).lower()
    return text, stated
