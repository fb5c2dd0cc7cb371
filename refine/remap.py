"""Rewrite a caption to what is true after its image was turned or mirrored: strip's alternative for augmented tiles.

    from refine.remap import remap
    remap("A pool lies on the left.", Symmetry.R90).text        # "A pool lies at the bottom."

North is up in the image. `orientation_spans.find` says what is orientation; here the smallest phrases that name a
direction (units: "to the left of", "upper left", "north-south") are exchanged for what their family says of the new
direction, and all other words, blanks and hyphens stay. The eight symmetries act on the words as they act on pixels:
turning back restores the caption, and turning twice gives what turning at once gives. So every phrase needs a partner
of its own in each direction, and English does not always have one. Where naturalness lost to that:

- left has one plain word and top has two: left <-> top, and left-hand <-> upper, so that "the upper part" becomes "the
  left-hand part"; before things other than sides it is left <-> upper ("the left wing", "the upper wing").
- "to the left of" <-> above, hence "left of" <-> "to the top of" (but "left of the centre" <-> "above the centre").
- behind and in front of (above and below in an aerial view) <-> "to the left-hand side of"; beneath <-> "over the left
  of", underneath <-> "past the left of"; foreground, background <-> "right hand part", "left hand part".
- there is one clockwise but there are many words for its opposite: anticlockwise <-> clockways.
- far and near sides <-> lefthand and righthand; GeoText's down side <-> up side and right hand side.
- the top of a tower, upper windows, trees below trees are taken for parts of things or for what is physically there: a
  sentence in which a natural word would be taken so is turned in plain words ("on the topside of the tower").

Left as they are, because they stay true or nobody can say what they become: roads that climb or descend (the land
does), diagonal, slanted and rotated things, the back and rear of a thing, "further back".
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from refine.orientation_spans import HOURS, HYPHENS, find, hour, read
from schemas.records import Edit, Stripped, apply_edits
from schemas.symmetry import Direction, Symmetry

Style = Literal["natural", "plain"]
Sides = tuple[str, str, str, str]
"""How one family of words or phrases says left, top, right and bottom."""
SIDES: tuple[Direction, ...] = ("left", "top", "right", "bottom")

Piece = tuple[int, int, str]
"""First and end offset in the sentence, and what to write there."""
Place = frozenset[Direction]
LEVEL: Place = frozenset({"left", "right"})
UPRIGHT: Place = frozenset({"top", "bottom"})


@dataclass(frozen=True, slots=True)
class _Reading:
    """A sentence in tokens; `shown` are their letters, "_" where a token belongs to no orientation expression.

    `codes` has one letter per token (orientation_spans.LETTERS); `start` and `end` are code point offsets into `raw`.
    """

    raw: str
    low: list[str]
    start: list[int]
    end: list[int]
    codes: str
    shown: str
    style: Style
    """The words that it is turned in."""

    def code(self, index: int) -> str:
        """The letter of a token; "^" before the first, "$" after the last."""
        if index < 0:
            return "^"
        return self.codes[index] if index < len(self.codes) else "$"

    def word(self, index: int) -> str:
        return self.low[index] if 0 <= index < len(self.low) else ""

    def text(self, first: int, last: int) -> str:
        return self.raw[self.start[first] : self.end[last - 1]]

    def piece(self, first: int, last: int, new: str) -> Piece:
        return self.start[first], self.end[last - 1], _in_case(self.text(first, last), new)

    def end_of(self, first: int, phrase: str) -> int:
        """The index after a phrase that stands at token `first` exactly as it is spelled, or 0."""
        begin = self.start[first]
        end = begin + len(phrase)
        if self.raw[begin:end].lower().translate(HYPHENS) != phrase:
            return 0
        at = bisect_left(self.end, end)
        return at + 1 if at < len(self.end) and self.end[at] == end else 0


def _in_case(old: str, new: str) -> str:
    if old.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


# ---- families: left | top | right | bottom ---------------------------------------------------------------------------

Test = Callable[[_Reading, int, int], bool]
"""Whether a phrase of a family may stand at tokens first .. last-1; asks only what no symmetry changes."""


@dataclass(frozen=True, slots=True)
class Family:
    """Phrases that stand for one another when an image is turned, and where they do."""

    fits: Test
    rows: tuple[Sides, ...]


def _family(fits: Test, table: str) -> Family:
    lines = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    return Family(fits, tuple((left, top, right, bottom) for left, top, right, bottom in lines))


def _anywhere(r: _Reading, first: int, last: int) -> bool:
    return True


def _to_middle(r: _Reading, first: int, last: int) -> bool:
    return r.code(last + (r.code(last) == "t")) == "M"


def _alone(r: _Reading, first: int, last: int) -> bool:
    """Whether a relation names nothing that it is to: the houses above, in front is a lawn."""
    after = r.code(last)
    if after == "&":
        return r.code(last + 1) not in "RP2vhnerA"
    return after in "$,.;BVpyzP2" and r.word(last) not in ("which", "that")


def _bare(r: _Reading, first: int, last: int) -> bool:
    return r.code(last) not in "LSNwx#H-vhM"


def _of(r: _Reading, first: int, last: int) -> bool:
    return r.code(last) == "f"


def _before_noun(r: _Reading, first: int, last: int) -> bool:
    """Whether up or along stands before what is followed: down the left side."""
    return r.code(first) in "uW" and r.code(last) in "tai"


def _adverb(r: _Reading, first: int, last: int) -> bool:
    """Whether left or up says where something goes or points: leads left, further up."""
    while r.code(first) not in "uW" and r.code(first - 1) == "&" and r.code(first - 2) in "hu":
        first, last = first - 2, first - 1  # further left and up: the first of a list decides
    if r.code(first) in "uW":
        return True
    before = r.code(first - 1)
    if r.code(last) == "&" and r.code(last + 1) in "2P":
        return before in "^.;,"
    return before in "pgA" and r.code(last) not in "LSNHwx#hvM-"


def _of_some_thing(r: _Reading, first: int, last: int) -> bool:
    """An upper wing; a lower wing is one that is not so high."""
    return r.code(first - 1) == "a" and r.code(last) in "wx#"


def _of_thing(r: _Reading, first: int, last: int) -> bool:
    """Whether a direction picks a thing, not a part of the picture: the left wing, its upper roof."""
    return r.code(first - 1) in "ti" and r.code(last) in "wx"


_DEPTH = _family(
    _anywhere,
    """
    left hand part            | background                | right hand part        | foreground
    left hand end             | back                      | right hand end         | front
    """,
)
_TO_PRONOUN = _family(
    _bare,
    """
    to its left           | above it                  | to its right           | below it
    to their left         | above them                | to their right         | below them
    to the left of it     | to its top                | to the right of it     | to its bottom
    to the left of them   | to their top              | to the right of them   | to their bottom
    left of it            | to the top of it          | right of it            | to the bottom of it
    left of them          | to the top of them        | right of them          | to the bottom of them
    """,
)
NATURAL = (
    _TO_PRONOUN,
    _family(
        _to_middle,
        """
        left of               | above                     | right of               | below
        to the left of        | to the top of             | to the right of        | to the bottom of
        """,
    ),
    _family(
        _alone,
        """
        at left               | above                     | at right               | below
        to the left-hand side | behind                    | to the right-hand side | in front
        to the left hand side | to the upper side         | to the right hand side | to the lower side
        over the left         | over the top              | over the right         | beneath
        past the left         | past the top              | past the right         | underneath
        """,
    ),
    _family(
        _anywhere,
        """
        to the left of           | above               | to the right of           | below
        left of                  | to the top of       | right of                  | to the bottom of
        to the left-hand side of | behind              | to the right-hand side of | in front of
        to the left hand side of | to the upper side of | to the right hand side of | to the lower side of
        over the left of         | over the top of     | over the right of         | beneath
        past the left of         | past the top of     | past the right of         | underneath
        """,
    ),
    _family(
        _before_noun,
        """
        leftwards along       | up                        | rightwards along       | down
        leftward along        | upwards along             | rightward along        | downwards along
        left along            | upward along              | right along            | downward along
        """,
    ),
    _family(_bare, "farther to the left | higher up | farther to the right | lower down"),
    _family(
        _adverb,
        """
        leftwards             | up                        | rightwards             | down
        leftward              | upwards                   | rightward              | downwards
        left                  | upward                    | right                  | downward
        """,
    ),
    _DEPTH,
    _family(_of_some_thing, "left-hand | upper | right-hand | bottom"),
    _family(_of_some_thing, "left hand | top | right hand | lowermost"),
    _family(_bare, "left hand | topmost side | right hand | bottommost side"),
    _family(
        _of_thing,
        """
        left                  | upper                     | right                  | lower
        left-hand             | top                       | right-hand             | bottom
        """,
    ),
    _family(
        _anywhere,
        """
        left                  | top                       | right                  | bottom
        left-hand             | upper                     | right-hand             | lower
        left hand             | up                        | right hand             | down
        leftmost              | topmost                   | rightmost              | bottommost
        left-most             | uppermost                 | right-most             | lowermost
        lefthand              | far                       | righthand              | near
        leftward              | upward                    | rightward              | downward
        w                     | n                         | e                      | s
        west                  | north                     | east                   | south
        western               | northern                  | eastern                | southern
        westernmost           | northernmost              | easternmost            | southernmost
        westward              | northward                 | eastward               | southward
        westwards             | northwards                | eastwards              | southwards
        """,
    ),
)
"""Tried in this order, longest phrase first."""
PLAIN = (
    _DEPTH,
    _TO_PRONOUN,
    _family(
        _of,
        """
        left hand             | topmost-side              | right hand             | bottommost-side
        lefthand              | uppermost-side            | righthand              | bottom
        left-hand             | top                       | right-hand             | lowermost-side
        """,
    ),
    _family(_of_some_thing, "left-hand | upper | right-hand | bottom"),
    _family(
        _adverb,
        """
        leftwards             | up-wards                  | rightwards             | down-wards
        left-wards            | up                        | right-wards            | down
        """,
    ),
    _family(
        _anywhere,
        """
        to the left of           | to the top-side of       | to the right of           | to the bottom-side of
        left of                  | by the top-side of       | right of                  | by the bottom-side of
        to the lefthand of       | to the uppermost-side of | to the righthand of       | to the bottom of
        to the leftmost of       | to the top of            | to the rightmost of       | to the lowermost-side of
        to the left-hand of      | above                    | to the right-hand of      | to the bottommost-side of
        to the left hand of      | to the topmost-side of   | to the right hand of      | below
        to the left hand side of | behind                   | to the right hand side of | to the lower-side of
        to the left-hand side of | to the upper-side of     | to the right-hand side of | in front of
        over the left of         | over the top-side of     | over the right of         | beneath
        past the left of         | past the top-side of     | past the right of         | underneath
        left side                | topside                  | right side                | bottomside
        left                     | top-side                 | right                     | bottom-side
        left-hand side           | upperside                | right-hand side           | lowerside
        left-hand                | upper-side               | right-hand                | lower-side
        left hand                | top                      | right hand                | bottom
        lefthand                 | upper                    | righthand                 | lower
        """,
    ),
    *NATURAL,
)
"""For a sentence whose natural words would be taken for a part of a thing: the top of the tower, the upper windows."""
_PLAIN_MARK = re.compile(
    r"\b(?:(?:upper|lower|top|bottom)(?:most)?-?side|(?:up|down|left|right)-wards)\b", re.IGNORECASE
)
"""Words of PLAIN that no caption has: they tell the way back."""
MIDDLE = _family(
    _anywhere,
    """
    M left                | upper M                   | M right                | lower M
    left M                | top M                     | right M                | bottom M
    left-hand M           | M upper                   | right-hand M           | M lower
    M left-hand           | M top                     | M right-hand           | M bottom
    """,
)
"""With a word for the middle (M): middle left, upper middle."""
FAMILIES: dict[Style, tuple[Family, ...]] = {"natural": NATURAL, "plain": PLAIN}
AXES = {"horizontal": "vertical", "horizontally": "vertically"}
AXES |= {other: word for word, other in AXES.items()}
TURNS = {
    "clockwise": "counterclockwise",
    "clock-wise": "counter-clockwise",
    "clockways": "anticlockwise",
    "clock-ways": "anti-clockwise",
    "clock wise": "counter clockwise",
    "clock ways": "anti clockwise",
}
TURNS |= {other: word for word, other in TURNS.items()}

# ---- units: the smallest phrases that are rewritten as one -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Unit:
    """Tokens first .. last-1, the directions they name, and what to write in their place."""

    first: int
    last: int
    places: tuple[Place, ...]
    write: Callable[[Symmetry], Iterable[Piece]]


@dataclass(frozen=True, slots=True)
class _Cell:
    """A phrase, the row of its family that it stands in, and its side."""

    phrase: str
    family: Family
    row: Sides
    side: Direction

    def after(self, symmetry: Symmetry) -> str:
        return self.at(symmetry.direction(self.side))

    def at(self, side: Direction) -> str:
        return self.row[SIDES.index(side)]


def _cells(families: Iterable[Family]) -> Iterator[_Cell]:
    for family in families:
        found = [
            _Cell(phrase, family, row, side) for row in family.rows for phrase, side in zip(row, SIDES, strict=True)
        ]
        yield from sorted(found, key=lambda cell: -len(cell.phrase))


@cache
def _by_first_word(style: Style) -> dict[str, list[_Cell]]:
    found: dict[str, list[_Cell]] = {}
    for cell in _cells(FAMILIES[style]):
        found.setdefault(re.split("[ -]", cell.phrase)[0], []).append(cell)
    return found


@cache
def _words() -> dict[str, _Cell]:
    """The single words for a side, by which corners (upper left, left background) are rewritten."""
    return {cell.phrase: cell for cell in _cells([NATURAL[-1], _DEPTH]) if cell.phrase.isalpha()}


@cache
def _middles() -> dict[str, _Cell]:
    return {cell.phrase: cell for cell in _cells([MIDDLE])}


_AXIS = re.compile("h-h|v-v|n-n|e-e")
_CORNER = re.compile("[vh](?:-?[vh])*-?G|v-?h|h-?v|n-?e")
_TWO_CORNERS = re.compile("(?:v-?&-?v-?h|h-?&-?h-?v|v-?h-?&-?h|h-?v-?&-?v)(?!-?[vh])")
_MIDDLE = re.compile("(?P<m1>M)-?(?P<s1>[vh](?:-?H)?)|(?P<s2>[vh](?:-?H)?)-?(?P<m2>M)")
_ON_SIDE = re.compile("P[bti]*+[hv](?:(?:,|,?&)[ti]?[hv])*+(?![-HLSNMhvGwx])")
_COMPASS = re.compile("(north|south|[ns](?=.$))(east|west|[ew]$)(.*)")
_TURN = re.compile(
    r"(?<![\w-])(?:(?P<article>an?) +)?"
    r"(?P<turn>clock[ -]wise|clock[ -]?ways|(?:(?:counter|anti)[ -]?)?clockwise)(?![\w-])",
    re.IGNORECASE,
)


_STAND_INS = re.compile(
    r"\b(?:(?:left|right) (up)|(up) (?:left|right|side)|way (up) the"
    r"|(?:at|on|to) (?:the|its|their) (?:top|bottom) (stands?)"
    r"|(leftward|rightward)|(higher) up"
    rf"|({_PLAIN_MARK.pattern}))\b",
    re.IGNORECASE,
)
_STAND_IN = {
    "higher": "further",
    "up": "down",
    "stand": "lies",
    "stands": "lies",
    "leftward": "leftwards",
    "rightward": "rightwards",
}
"""What `find` understands only in other words: up side as GeoText's down side, "at the top stands" as a place."""


def _read(raw: str, style: Style) -> _Reading | None:
    """Read a sentence with its stand-ins; None where it names no direction. Offsets refer to the sentence as it is.

    Only satellite tiles are turned: in front, behind and below are places in the image, whatever else is spoken of.
    """
    text, ends, shifts = "", [0], [0]
    for match in _STAND_INS.finditer(raw):
        first, last = match.span(match.lastindex or 0)
        old = raw[first:last].lower()
        word = _STAND_IN.get(old, "leftwards" if old.endswith("wards") else "leftmost")
        text += raw[ends[-1] + shifts[-1] : first] + word
        ends.append(len(text))
        shifts.append(last - len(text))
    t, _ = read(text + raw[ends[-1] + shifts[-1] :], ground=False)
    if not t.low:
        return None
    shown = ["_"] * len(t.codes)
    for mention in find(t):
        shown[mention.first : mention.last] = t.codes[mention.first : mention.last]

    def moved(at: int) -> int:
        return at + shifts[bisect_right(ends, at) - 1]

    start, end = [moved(at) for at in t.start], [moved(at) for at in t.end]
    low = t.low if len(ends) == 1 else [raw[a:b].lower() for a, b in zip(start, end, strict=True)]
    return _Reading(raw, low, start, end, t.codes, "".join(shown), style)


def _units(r: _Reading) -> Iterator[_Unit]:
    at = 0
    while at < len(r.shown):
        unit = None
        if r.shown[at] != "_":
            unit = next((found for rule in _RULES if (found := rule(r, at)) is not None), None)
        if unit is None:
            at += 1
        else:
            yield unit
            at = unit.last


def _axis(r: _Reading, at: int) -> _Unit | None:
    """North-south, left-right: a line that knows no direction, so that a half turn leaves it as it is."""
    match = _AXIS.match(r.shown, at)
    if not match:
        return None
    one, two = (_words().get(r.low[i]) for i in (at, at + 2))
    if one is None or two is None or one.row != two.row or SIDES.index(one.side) - SIDES.index(two.side) not in (2, -2):
        return None
    # customary order: north-south and east-west, top-bottom and left-right
    turned = Symmetry.HVT if one.row[1].startswith("n") else Symmetry.T

    def write(g: Symmetry) -> Iterable[Piece]:
        if g.swaps_axes:
            yield r.piece(at, at + 1, one.after(turned))
            yield r.piece(at + 2, at + 3, two.after(turned))

    return _Unit(at, at + 3, (frozenset({one.side, two.side}),), write)


def _corner(r: _Reading, at: int) -> _Unit | None:
    """Upper left, left lower, north-east, right background: each word keeps its axis."""
    match = _CORNER.match(r.shown, at)
    if not match:
        return None
    cells = [(i, _words()[r.low[i]]) for i in range(*match.span()) if r.low[i] in _words()]
    place: Place = frozenset(cell.side for _, cell in cells)
    if len(place) != 2 or len(place & LEVEL) != 1:
        return None

    def write(g: Symmetry) -> Iterable[Piece]:
        new = {g.direction(side) for side in place}
        for i, cell in cells:
            yield r.piece(i, i + 1, cell.at((new & (LEVEL if cell.side in LEVEL else UPRIGHT)).pop()))

    return _Unit(at, match.end(), (place,), write)


def _two_corners(r: _Reading, at: int) -> _Unit | None:
    """Upper and lower left, upper- and lower-left, lower left and right: in place, true however the words are taken."""
    match = _TWO_CORNERS.match(r.shown, at)
    if not match:
        return None
    cells = [(i, _words()[r.low[i]]) for i in range(*match.span()) if r.low[i] in _words()]
    if len(cells) != 3:
        return None
    sides = [cell.side for _, cell in cells]
    pair, shared = (sides[:2], sides[2]) if {*sides[:2]} in (LEVEL, UPRIGHT) else (sides[1:], sides[0])
    rows = {cell.side in LEVEL: cell for _, cell in cells}
    if (
        {*pair} not in (LEVEL, UPRIGHT)
        or shared in pair
        or any(cell.row != rows[cell.side in LEVEL].row for _, cell in cells)
    ):
        return None

    def write(g: Symmetry) -> Iterable[Piece]:
        for i, cell in cells:
            side = g.direction(cell.side)
            yield r.piece(i, i + 1, rows[side in LEVEL].at(side))

    return _Unit(at, match.end(), tuple(frozenset({side, shared}) for side in pair), write)


def _compass(r: _Reading, at: int) -> _Unit | None:
    """Northeast, southwestern."""
    match = _COMPASS.fullmatch(r.low[at]) if r.shown[at] in "qW" else None
    if not match:
        return None
    vertical, horizontal = (_words()[match[i]] for i in (1, 2))

    def write(g: Symmetry) -> Iterable[Piece]:
        new = {g.direction(vertical.side), g.direction(horizontal.side)}
        one, two = (cell.at((new & axis).pop()) for cell, axis in ((vertical, UPRIGHT), (horizontal, LEVEL)))
        yield r.piece(at, at + 1, f"{one}{two}{match[3]}")

    return _Unit(at, at + 1, (frozenset({vertical.side, horizontal.side}),), write)


def _middle(r: _Reading, at: int) -> _Unit | None:
    """Upper middle, centre left: a word for a side follows the middle, one for top or bottom precedes it."""
    match = _MIDDLE.match(r.shown, at)
    if not match:
        return None
    one, two = (match.span(name) for name in (("m1", "s1") if match["m1"] else ("s2", "m2")))
    between = r.raw[r.end[one[1] - 1] : r.start[two[0]]]
    middle = r.text(*(one if match["m1"] else two)).lower()
    side = r.text(*(two if match["m1"] else one)).lower()
    cell = _middles().get(f"M {side}" if match["m1"] else f"{side} M")
    if cell is None:
        return None

    def write(g: Symmetry) -> Iterable[Piece]:
        yield r.piece(at, match.end(), cell.after(g).replace(" ", between).replace("M", middle))

    return _Unit(at, match.end(), (frozenset({cell.side}),), write)


def _replaced(r: _Reading, first: int, last: int, cell: _Cell) -> _Unit:
    return _Unit(first, last, (frozenset({cell.side}),), lambda g: [r.piece(first, last, cell.after(g))])


def _phrase(r: _Reading, at: int) -> _Unit | None:
    """A phrase of the families."""
    for cell in _by_first_word(r.style).get(re.split("[ -]", r.low[at])[0], ()):
        last = r.end_of(at, cell.phrase)
        if not last or not cell.family.fits(r, at, last):
            continue
        named = [i for i in range(at, last) if r.codes[i] in "hvneRrGuW"]
        if not named or any(r.shown[i] == "_" for i in named):
            continue
        if " of" in cell.phrase and named[0] == at and r.code(at - 1) in "tiaJvhM-":
            continue
        if cell.phrase in ("back", "front") and r.shown[at] != "G":
            continue
        return _replaced(r, at, last, cell)
    return None


def _line(r: _Reading, at: int) -> _Unit | None:
    """Horizontal, vertically."""
    other = AXES.get(r.low[at])
    if other is None:
        return None
    return _Unit(at, at + 1, (), lambda g: [r.piece(at, at + 1, other)] if g.swaps_axes else [])


def _preposition(r: _Reading, at: int) -> _Unit | None:
    """On the left, at the top."""
    other = {"on": "at", "at": "on"}.get(r.low[at])
    if other is None or r.style == "plain" or not _ON_SIDE.match(r.codes, at):
        return None
    return _Unit(at, at + 1, (), lambda g: [r.piece(at, at + 1, other)] if g.swaps_axes else [])


def _clock(r: _Reading, at: int) -> _Unit | None:
    """Three o'clock, between 3 and 4 o'clock: 12 is at the top."""
    if r.shown[at] != "o" or at == 0:
        return None
    hours = [
        (i, before) for i in (at - 3, at - 1) if i >= 0 and r.shown[i] != "_" and (before := hour(r.low[i])) is not None
    ]

    def write(g: Symmetry) -> Iterable[Piece]:
        top = 3 * ("top", "right", "bottom", "left").index(g.direction("top"))
        for i, before in hours:
            after = (top - before if g.mirrors else top + before) % 12
            yield r.piece(i, i + 1, HOURS[after] if r.low[i] in HOURS else str(after or 12))

    return _Unit(at, at + 1, (), write)


_RULES = (_axis, _two_corners, _corner, _compass, _middle, _phrase, _line, _preposition, _clock)


# ---- sentences and captions ------------------------------------------------------------------------------------------

_SENTENCE = re.compile(r".+?(?:[.!?]+(?:\s+|\Z)|\Z)", re.DOTALL)
"""A sentence with the blanks after it; no rewriting ever moves its ends."""

Orbit = tuple[tuple[Piece, ...], ...]
"""The pieces to replace in a sentence, per symmetry in the order of Symmetry."""


def _pieces(r: _Reading | None, raw: str) -> Orbit:
    """What to replace in a sentence under each symmetry."""
    units = list(_units(r)) if r is not None else []
    orbit = []
    for g in Symmetry:
        pieces = [piece for unit in units for piece in unit.write(g)]
        if r is not None:
            pieces += [piece for found in pieces for piece in _article(r, found)]
        if g.mirrors:
            pieces += _turns(raw)
        orbit.append(tuple(sorted(piece for piece in pieces if raw[piece[0] : piece[1]] != piece[2])))
    return tuple(orbit)


def _turns(raw: str) -> Iterator[Piece]:
    """Clockwise for its opposite, with the article before it."""
    for match in _TURN.finditer(raw):
        old = match["turn"]
        new = _in_case(old, TURNS[old.lower()])
        yield (*match.span("turn"), new)
        if match["article"] and _vowel(old) != _vowel(new):
            yield (*match.span("article"), _other_article(match["article"], old))


def _written(raw: str, pieces: Iterable[Piece]) -> str:
    return apply_edits(raw, [Edit(a, b, raw[a:b], new) for a, b, new in pieces])


@lru_cache(maxsize=256)
def _turned(raw: str, style: Style) -> tuple[Orbit, tuple[str, ...]]:
    """What to replace in a sentence, and the sentence, under each symmetry."""
    orbit = _pieces(_read(raw, style), raw)
    return orbit, tuple(_written(raw, pieces) for pieces in orbit)


@lru_cache(maxsize=256)
def _closed(raw: str, style: Style) -> bool:
    """Whether turning a sentence twice gives what turning it at once by both gives, whichever the symmetries are."""
    texts = _turned(raw, style)[1]
    if style == "natural" and any(map(_PLAIN_MARK.search, texts)):
        return False
    if len(set(texts)) == 1:
        return True
    every = tuple(Symmetry)
    return all(
        _turned(text, style)[1][j] == texts[every.index(g.then(h))]
        for g, text in zip(every, texts, strict=True)
        for j, h in enumerate(every)
    )


def _style(raw: str) -> Style:
    """The words in which a sentence is turned: the same for all that it can be turned into.

    Natural ones where the laws hold for them, plain ones where they hold only for those; natural ones again where no
    way back exists, because what is said must be true before it is invertible.
    """
    if _closed(raw, "natural") or not _closed(raw, "plain"):
        return "natural"
    return "natural" if any(_closed(text, "natural") for text in _turned(raw, "plain")[1]) else "plain"


def _article(r: _Reading, piece: Piece) -> Iterator[Piece]:
    """A or an before a changed word; where the caption had it wrong, it stays wrong, so that the way back is known."""
    at = bisect_left(r.start, piece[0]) - 1
    if at < 0 or r.low[at] not in ("a", "an"):
        return
    old = r.raw[piece[0] : piece[1]]
    if _vowel(old) == _vowel(piece[2]):
        return
    yield r.start[at], r.end[at], _other_article(r.text(at, at + 1), old)


def _other_article(article: str, word: str) -> str:
    """An for a, a for an; the capitals of N-S and NE say nothing of how the words before them are written."""
    other = "a" if article.lower() == "an" else "an"
    if not article[0].isupper():
        return other
    return other.upper() if word.isupper() and len(word) > 2 else other.capitalize()


def _vowel(text: str) -> bool:
    """Whether a word is spoken with a vowel first: eleven, not one."""
    return (text[:1].lower() in "aeiou" and text.lower() != "one") or text.startswith(("8", "11"))


def directions(text: str) -> tuple[Place, ...]:
    """The directions that a text names, in order: upper left -> {top, left}; north is top."""
    return tuple(
        place
        for sentence in _SENTENCE.findall(text)
        if (r := _read(sentence, _style(sentence))) is not None
        for unit in _units(r)
        for place in unit.places
    )


def remap(raw: str, symmetry: Symmetry) -> Stripped:
    """Rewrite a caption or region sentence to what is true after its image was moved by `symmetry`.

    Returns:
        The text, and the edits that make it from `raw`.
    """
    if symmetry is Symmetry.E:
        return Stripped(raw)
    edits = []
    for match in _SENTENCE.finditer(raw):
        pieces = _turned(match[0], _style(match[0]))[0][tuple(Symmetry).index(symmetry)]
        edits += [Edit(match.start() + a, match.start() + b, match[0][a:b], new) for a, b, new in pieces]
    return Stripped(apply_edits(raw, edits), tuple(edits))
