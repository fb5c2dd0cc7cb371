"""Rewrite a caption to what is true after its image was turned or mirrored (doc to come)."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from refine.orientation_spans import Tokens, find, tokenise
from schemas.records import Edit, Stripped, apply_edits
from schemas.symmetry import Direction, Symmetry

Sides = tuple[str, str, str, str]
"""How one family of words or phrases says left, top, right and bottom."""
SIDES: tuple[Direction, ...] = ("left", "top", "right", "bottom")

Piece = tuple[int, int, str]


# ---- families: left | top | right | bottom ---------------------------------------------------------------------------

Test = Callable[[Tokens, int, int], bool]
"""Whether a phrase of a family may stand at tokens first .. last-1; asks only what no symmetry changes."""


@dataclass(frozen=True, slots=True)
class Family:
    """Phrases that stand for one another when an image is turned, and where they do."""

    fits: Test
    rows: tuple[Sides, ...]


def _family(fits: Test, table: str) -> Family:
    lines = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    return Family(fits, tuple((left, top, right, bottom) for left, top, right, bottom in lines))


def _anywhere(t: Tokens, first: int, last: int) -> bool:
    return True


def _to_middle(t: Tokens, first: int, last: int) -> bool:
    return t.code(last + (t.code(last) == "t")) == "M"


def _alone(t: Tokens, first: int, last: int) -> bool:
    """Whether a relation names nothing that it is to: the houses above, in front is a lawn."""
    after = t.code(last)
    if after == "&":
        return t.code(last + 1) not in "RP2vhnerA"
    return after in "$,.;BVpyzP2" and t.word(last) not in ("which", "that")


def _bare(t: Tokens, first: int, last: int) -> bool:
    return t.code(last) not in "LSNwx#H-"


def _of(t: Tokens, first: int, last: int) -> bool:
    return t.code(last) == "f"


def _before_noun(t: Tokens, first: int, last: int) -> bool:
    """Whether up or along stands before what is followed: down the left side."""
    return t.code(first) in "uW" and t.code(last) in "tai"


def _adverb(t: Tokens, first: int, last: int) -> bool:
    """Whether left or up says where something goes or points: leads left, further up."""
    if t.code(first) in "uW":
        return True
    before = t.code(first - 1)
    if before == "&" and t.code(first - 2) in "hu":
        return _adverb(t, first - 2, first - 1)
    if t.code(last) == "&" and t.code(last + 1) in "2P":
        return before in "^.;,"
    return before in "pgA" and t.code(last) not in "LSNHwx#hvM-"


def _of_thing(t: Tokens, first: int, last: int) -> bool:
    """Whether a direction picks a thing, not a part of the picture: the left wing, its upper roof."""
    return t.code(first - 1) in "ti" and t.code(last) in "wx"


_DEPTH = _family(
    _anywhere,
    """
    left hand part            | background                | right hand part        | foreground
    left hand end             | back                      | right hand end         | front
    """,
)
NATURAL = (
    _family(
        _anywhere,
        """
        to its left           | above it                  | to its right           | below it
        to their left         | above them                | to their right         | below them
        to the left of it     | to the top of it          | to the right of it     | to the bottom of it
        to the left of them   | to the top of them        | to the right of them   | to the bottom of them
        left of it            | to the upper side of it   | right of it            | to the lower side of it
        left of them          | to the upper side of them | right of them          | to the lower side of them
        """,
    ),
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
    _family(
        _adverb,
        """
        leftwards             | up                        | rightwards             | down
        leftward              | upwards                   | rightward              | downwards
        left                  | upward                    | right                  | downward
        """,
    ),
    _DEPTH,
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
    _family(
        _of,
        """
        left hand             | topmost-side              | right hand             | bottommost-side
        lefthand              | uppermost-side            | righthand              | bottom
        """,
    ),
    _family(
        _anywhere,
        """
        to the left of           | to the top-side of     | to the right of           | to the bottom-side of
        left of                  | by the top-side of     | right of                  | by the bottom-side of
        to the left-hand side of | to the upper-side of   | to the right-hand side of | in front of
        to the left-hand of      | above                  | to the right-hand of      | below
        left side                | topside                | right side                | bottomside
        left                     | top-side               | right                     | bottom-side
        left-hand side           | upperside              | right-hand side           | lowerside
        left-hand                | upper-side             | right-hand                | lower-side
        left hand                | top                    | right hand                | bottom
        lefthand                 | upper                  | righthand                 | lower
        """,
    ),
    *NATURAL,
)
"""For a sentence whose natural words would be taken for a part of a thing: the top of the tower, the upper windows."""
_PLAIN_MARK = re.compile(r"\b(?:upper|lower|top|bottom)(?:most)?-?side\b", re.IGNORECASE)
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
AXES = {"horizontal": "vertical", "horizontally": "vertically"}
AXES |= {other: word for word, other in AXES.items()}
TURNS = {
    "clockwise": "counterclockwise",
    "clock-wise": "counter-clockwise",
    "clockways": "anticlockwise",
    "clock-ways": "anti-clockwise",
}
TURNS |= {other: word for word, other in TURNS.items()}
HOURS = ("twelve", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")

# ---- units: the smallest phrases that are rewritten as one -----------------------------------------------------------

Place = frozenset[Direction]


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
def _by_first_word(style: tuple[Family, ...]) -> dict[str, list[_Cell]]:
    found: dict[str, list[_Cell]] = {}
    for cell in _cells(style):
        found.setdefault(re.split("[ -]", cell.phrase)[0], []).append(cell)
    return found


@cache
def _words() -> dict[str, _Cell]:
    """The single words for a side, by which corners (upper left, left background) are rewritten."""
    return {cell.phrase: cell for cell in _cells([NATURAL[-1], _DEPTH]) if cell.phrase.isalpha()}


_AXIS = re.compile("h-h|v-v|n-n|e-e")
_CORNER = re.compile("[vh](?:-?[vh])*-?G|v-?h|h-?v|n-?e")
_MIDDLE = re.compile("M-?[vh](?:-?H)?|[vh](?:-?H)?-?M")
_ON_SIDE = re.compile("P[bti]*+[hv](?:(?:,|,?&)[ti]?[hv])*+(?![-HLSNMhvGwx])")
_COMPASS = re.compile("(north|south)(east|west)(.*)")
_TURN = re.compile(r"(?<![\w-])(?:clock-wise|clock-?ways|(?:counter-?|anti-?)?clockwise)(?![\w-])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A sentence's tokens; `shown` are their letters, "_" where a token belongs to no orientation expression."""

    t: Tokens
    shown: str
    style: tuple[Family, ...]

    def at(self, index: int) -> str:
        return self.shown[index] if 0 <= index < len(self.shown) else "_"

    def text(self, first: int, last: int) -> str:
        return self.t.raw[self.t.start[first] : self.t.end[last - 1]]

    def piece(self, first: int, last: int, new: str) -> Piece:
        return self.t.start[first], self.t.end[last - 1], _in_case(self.text(first, last), new)

    def end_of(self, first: int, phrase: str) -> int:
        """The index after a phrase that stands at token `first` as it is spelled, or 0."""
        begin = self.t.start[first]
        end = begin + len(phrase)
        if self.t.raw[begin:end].lower() != phrase:
            return 0
        at = bisect_left(self.t.end, end)
        return at + 1 if at < len(self.t.end) and self.t.end[at] == end else 0


def _in_case(old: str, new: str) -> str:
    if old.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


def _read(raw: str, style: tuple[Family, ...] = NATURAL) -> _Reading | None:
    t = _tokens(raw)
    if t is None:
        return None
    codes = t.codes
    shown = ["_"] * len(codes)
    for mention in find(t):
        shown[mention.first : mention.last] = codes[mention.first : mention.last]
    return _Reading(t, "".join(shown), style)


_STAND_INS = (
    (re.compile(r"\b(?:(?:left|right) (up)|(up) (?:left|right|side)|way (up) the)\b", re.IGNORECASE), "down"),
    (re.compile(r"\b(?:at|on|to) (?:the|its|their) (?:top|bottom) (stands?)\b", re.IGNORECASE), "lies"),
    (_PLAIN_MARK, "leftmost"),
)
"""What `find` understands only in other words: up side as GeoText's down side, "at the top stands" as a place."""


def _tokens(raw: str) -> Tokens | None:
    """Tokens of a sentence that was read with its stand-ins; offsets are those of the sentence as it is."""
    text, shifts = raw, []
    for pattern, word in _STAND_INS:
        while match := pattern.search(text):
            first, last = match.span(match.lastindex or 0)
            text = text[:first] + word + text[last:]
            shifts.append((first, len(word), last - first))
    t = tokenise(text)
    if t is None or not shifts:
        return t
    start, end = list(t.start), list(t.end)
    for begin, new, old in reversed(shifts):
        start = [at + old - new if at > begin else at for at in start]
        end = [at + old - new if at > begin else at for at in end]
    low = [raw[a:b].lower() for a, b in zip(start, end, strict=True)]
    return replace(t, raw=raw, low=low, start=start, end=end)


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
    one, two = (_words().get(r.t.low[i]) for i in (at, at + 2))
    if one is None or two is None or one.row != two.row or SIDES.index(one.side) - SIDES.index(two.side) not in (2, -2):
        return None
    # customary order: north-south and east-west, top-bottom and left-right
    turned = Symmetry.HVT if one.row[0].startswith("west") else Symmetry.T

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
    cells = [(i, _words()[r.t.low[i]]) for i in range(*match.span()) if r.t.low[i] in _words()]
    place: Place = frozenset(cell.side for _, cell in cells)
    if len(place) != 2 or len(place & {"left", "right"}) != 1:
        return None

    def write(g: Symmetry) -> Iterable[Piece]:
        new = {g.direction(side) for side in place}
        for i, cell in cells:
            axis = {"left", "right"} if cell.side in ("left", "right") else {"top", "bottom"}
            yield r.piece(i, i + 1, cell.at((new & axis).pop()))

    return _Unit(at, match.end(), (place,), write)


def _compass(r: _Reading, at: int) -> _Unit | None:
    """Northeast, southwestern."""
    match = _COMPASS.fullmatch(r.t.low[at]) if r.shown[at] in "qW" else None
    if not match:
        return None
    sides = [_words()[match[i]].side for i in (1, 2)]

    def write(g: Symmetry) -> Iterable[Piece]:
        new = {g.direction(side) for side in sides}
        vertical = "north" if "top" in new else "south"
        yield r.piece(at, at + 1, f"{vertical}{'west' if 'left' in new else 'east'}{match[3]}")

    return _Unit(at, at + 1, (frozenset(sides),), write)


def _middle(r: _Reading, at: int) -> _Unit | None:
    match = _MIDDLE.match(r.shown, at)
    if not match:
        return None
    first, last = match.span()
    centre = at if r.shown[at] == "M" else last - 1
    cut = at + 1 if centre == at else last - 1  # between the middle and the side
    if r.shown[cut if centre == at else cut - 1] == "-":
        halves = (first, cut, cut + 1, last) if centre == at else (first, cut - 1, cut, last)
    else:
        halves = (first, cut, cut, last)
    between = r.t.raw[r.t.end[halves[1] - 1] : r.t.start[halves[2]]]
    one, two = r.text(*halves[:2]), r.text(*halves[2:])
    word = r.text(centre, centre + 1)
    text = f"M {two}" if centre == at else f"{one} M"
    cell = next(
        (
            cell
            for cell in _cells([MIDDLE])
            if cell.phrase == text.replace(word, "M").lower().replace("m ", "M ", 1).replace(" m", " M")
        ),
        None,
    )
    if cell is None:
        return None

    def write(g: Symmetry) -> Iterable[Piece]:
        yield r.piece(first, last, cell.after(g).replace(" ", between).replace("M", word))

    return _Unit(first, last, (frozenset({cell.side}),), write)


def _replaced(r: _Reading, first: int, last: int, cell: _Cell) -> _Unit:
    return _Unit(first, last, (frozenset({cell.side}),), lambda g: [r.piece(first, last, cell.after(g))])


def _phrase(r: _Reading, at: int) -> _Unit | None:
    """A phrase of the families."""
    for cell in _by_first_word(r.style).get(re.split("[ -]", r.t.low[at])[0], ()):
        last = r.end_of(at, cell.phrase)
        if not last or not cell.family.fits(r.t, at, last):
            continue
        named = [i for i in range(at, last) if r.t.codes[i] in "hvneRrGuW"]
        if not named or any(r.shown[i] == "_" for i in named):
            continue
        if " of" in cell.phrase and named[0] == at and r.t.code(at - 1) in "tiaJvhM-":
            continue
        if cell.phrase in ("back", "front") and r.shown[at] != "G":
            continue
        return _replaced(r, at, last, cell)
    return None


def _line(r: _Reading, at: int) -> _Unit | None:
    """Horizontal, vertically."""
    other = AXES.get(r.t.low[at])
    if other is None:
        return None
    return _Unit(at, at + 1, (), lambda g: [r.piece(at, at + 1, other)] if g.swaps_axes else [])


def _preposition(r: _Reading, at: int) -> _Unit | None:
    """On the left, at the top."""
    other = {"on": "at", "at": "on"}.get(r.t.low[at])
    if other is None or r.style is PLAIN or not _ON_SIDE.match(r.t.codes, at):
        return None
    return _Unit(at, at + 1, (), lambda g: [r.piece(at, at + 1, other)] if g.swaps_axes else [])


def _clock(r: _Reading, at: int) -> _Unit | None:
    """Three o'clock: 12 is at the top."""
    if r.shown[at] != "o" or at == 0:
        return None
    word = r.t.low[at - 1]
    hour = HOURS.index(word) if word in HOURS else int(word) % 12 if re.fullmatch("0?[1-9]|1[0-2]", word) else None
    if hour is None:
        return None

    def write(g: Symmetry) -> Iterable[Piece]:
        top = 3 * ("top", "right", "bottom", "left").index(g.direction("top"))
        new = (top - hour if g.mirrors else top + hour) % 12
        yield r.piece(
            at - 1, at, HOURS[new] if word in HOURS else str(new or 12).zfill(len(word) if word[0] == "0" else 1)
        )

    return _Unit(at, at + 1, (), write)


_RULES = (_axis, _corner, _compass, _middle, _phrase, _line, _preposition, _clock)


# ---- sentences and captions ------------------------------------------------------------------------------------------

_SENTENCE = re.compile(r".+?(?:[.!?]+(?=\s|$)\s*|$)", re.DOTALL)
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
            for match in _TURN.finditer(raw):
                pieces.append((*match.span(), _in_case(match[0], TURNS[match[0].lower()])))
        orbit.append(tuple(sorted(piece for piece in pieces if raw[piece[0] : piece[1]] != piece[2])))
    return tuple(orbit)


def _written(raw: str, pieces: Iterable[Piece]) -> str:
    return apply_edits(raw, [Edit(a, b, raw[a:b], new) for a, b, new in pieces])


@lru_cache(maxsize=4096)
def _turned(raw: str, style: tuple[Family, ...]) -> tuple[Orbit, tuple[str, ...]]:
    """What to replace in a sentence, and the sentence, under each symmetry."""
    orbit = _pieces(_read(raw, style), raw)
    return orbit, tuple(_written(raw, pieces) for pieces in orbit)


@lru_cache(maxsize=4096)
def _closed(raw: str, style: tuple[Family, ...]) -> bool:
    """Whether turning a sentence twice gives what turning it at once by both gives, whichever the symmetries are."""
    texts = _turned(raw, style)[1]
    if style is NATURAL and any(map(_PLAIN_MARK.search, texts)):
        return False
    if len(set(texts)) == 1:
        return True
    every = tuple(Symmetry)
    return all(
        _turned(text, style)[1][j] == texts[every.index(g.then(h))]
        for g, text in zip(every, texts, strict=True)
        for j, h in enumerate(every)
    )


def _style(raw: str) -> tuple[Family, ...]:
    """The style in which a sentence is turned: the same one for all that it can be turned into.

    Natural words where the laws hold for them, plain ones where they hold only for those; natural ones again where no
    way back exists, because what is said must be true before it is invertible.
    """
    if _closed(raw, NATURAL) or not _closed(raw, PLAIN):
        return NATURAL
    return NATURAL if any(_closed(text, NATURAL) for text in _turned(raw, PLAIN)[1]) else PLAIN


def _article(r: _Reading, piece: Piece) -> Iterator[Piece]:
    """A or an before a changed word; where the caption had it wrong, it stays wrong, so that the way back is known."""
    at = bisect_left(r.t.start, piece[0]) - 1
    if at < 0 or r.t.low[at] not in ("a", "an"):
        return
    changes = _vowel(r.t.raw[piece[0] : piece[1]]) != _vowel(piece[2])
    if changes:
        yield r.piece(at, at + 1, "a" if r.t.low[at] == "an" else "an")


def _vowel(text: str) -> bool:
    return text[:1].lower() in "aeiou" or text.startswith(("8", "11"))


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
