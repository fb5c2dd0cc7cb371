"""Find things that a rewrite puts elsewhere in the image than its source does.

    from refine.places import misplaced
    misplaced("On the lower left there is a canal.", "A canal runs at the upper right.")
    # ("canal: upper right, the source says lower left",)

The orientation gate asks whether the places of a rewrite occur in the source at all; here each is bound to the thing of
its clause. Only certain evidence counts: a clause with one place and one thing, a thing that the source names once, and
two places that cannot both be true (left and right, top and middle). All else is left to the reader.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from refine.orientation_spans import Mention, Tokens
from refine.orientation_spans import read as find_orientation
from refine.registers.reading import Reading, read

_CLAUSE = re.compile(
    r"[.;:!?]|,?\s+(?:while|whereas|and|but)\s+(?=(?:there|the|an?|at|on|in|to|several|some|two)\b)|,\s+(?:and|with|while)\s"
    r"|(?<=[a-z]{2})(?=(?:The|On|In|At|To|There|It|A)\b)"  # a lost full stop: the buildingThe
)
# With one of these the thing of a clause, or its place, is not the one that its words name.
_UNCERTAIN = re.compile(
    r"\b(?:no|not|without|another|others?|ones?|second|both|each|every|either|same|than|opposite|which|that|whose)\b"
)
_TAIL = re.compile(r"\b(?:with|containing|full|lined|filled|covered|flanked|surrounded)\b")
_FINITE = re.compile(r"\b(?:is|are|can|stands?|lies?|sits?|runs?|occup\w+|fills?|appears?)\b")
_BESIDE_BUILDING = re.compile(
    r"\b(?:next to|near|beside|close to|adjacent to|alongside) the (?:main |central )?(?:building|structure)\b"
    r"|\bbuilding stands close to\b"
)
_SCENERY = frozenset({"object:building", "object:corner", "object:image", "object:side"})
_CENTRED = re.compile(
    r"\b(?:cent(?:er|re)|middle) of (?:the|this) (?:image|picture|scene|photo)|\bin the (?:cent(?:er|re)|middle)(?! of)"
)
_MIDDLES = r"(?:middle|cent(?:er|re)|central)"
_ENDS = r"(?:upper|lower|top|bottom|left|right)"
_MIDDLE = re.compile(rf"\b(?:{_MIDDLES}[ -]{_ENDS}|{_ENDS}[ -]{_MIDDLES})\b")
_SIDES = {"left": "left", "west": "left", "right": "right", "east": "right"}
_HEIGHTS = {"top": "top", "north": "top", "bottom": "bottom", "south": "bottom"}


@dataclass(frozen=True, slots=True)
class Place:
    """A cell of a three by three grid over the image: left, middle, right and top, middle, bottom; "" where unsaid."""

    across: str
    down: str

    def contradicts(self, other: "Place") -> bool:
        """Whether nothing can be at both: lower left and left agree, lower left and middle left do not."""
        pairs = ((self.across, other.across), (self.down, other.down))
        return any(one and two and one != two for one, two in pairs)

    def __str__(self) -> str:
        if not self.across:
            return self.down
        return " ".join(filter(None, ({"top": "upper", "bottom": "lower"}.get(self.down, self.down), self.across)))


@dataclass(frozen=True, slots=True)
class _Clause:
    """A clause: what of it names things, its place if it gives exactly one, whether it speaks of any place."""

    text: str
    about: str
    place: Place | None
    directed: bool

    @property
    def things(self) -> Mapping[str, str]:
        """The clause's things, concept -> noun."""
        return _things(self.about)

    @property
    def bound(self) -> str:
        """The concept of the one thing that has the place; "" when that is not certain."""
        sure = self.place is not None and len(self.things) == 1 and not _UNCERTAIN.search(self.text)
        return next(iter(self.things)) if sure else ""

    @property
    def beside_building(self) -> bool:
        """Whether it says of one thing that it is next to the building, and no more."""
        return not self.directed and len(self.things) == 1 and _BESIDE_BUILDING.search(self.text) is not None

    def may_put_at(self, place: Place) -> bool:
        """Whether something that nobody can name may be there."""
        return not self.bound and (self.place is None or not self.place.contradicts(place))


def _place(tokens: Tokens, mention: Mention, centred: bool) -> Place | None:
    """Where in the image a mention puts something, if that is what it says."""
    if mention.kind not in ("place", "noun", "beside") or len(mention.directions) != 1:
        return None
    words = tokens.low[mention.first : mention.last]
    wanted = "object" if mention.kind == "beside" else "image"
    if words[0] in ("from", "toward", "towards", "into") or mention.frame != wanted:
        return None
    if words[0] == "to" and mention.first and tokens.code(mention.first - 1) not in ".,;&VB":
        return None
    if mention.kind == "noun" and (tokens.codes[mention.last - 1] not in "LS" or tokens.code(mention.last) == "f"):
        return None
    # A side of the building in the centre is a side of the image.
    owner = tokens.low[mention.last : mention.last + 3]
    if mention.kind == "beside" and not (centred and {"building", "structure"}.intersection(owner)):
        return None
    named = mention.directions[0]
    across = {_SIDES[word] for word in named if word in _SIDES}
    down = {_HEIGHTS[word] for word in named if word in _HEIGHTS}
    if len(across) > 1 or len(down) > 1 or not (across or down):
        return None
    middle = "middle" if _MIDDLE.search(" ".join(words)) else ""
    return Place(next(iter(across), middle), next(iter(down), middle))


@lru_cache(maxsize=1_024)
def _things(text: str) -> Mapping[str, str]:
    """The things that a clause is about, concept -> noun: of "a paved road" the road, not what it is lined with."""
    reading: Reading = read(text)
    found = reading.of("object")
    heads = [m for i, m in enumerate(found) if i + 1 == len(found) or found[i + 1].at != m.at + 1]
    things = {m.concept: reading.words_at(m) for m in heads if m.concept not in _SCENERY}
    return things | {f"word:{word}": word for word in reading.strangers}


def _clauses(text: str) -> Iterator[_Clause]:
    tokens, mentions = find_orientation(text)
    centred = _CENTRED.search(text.lower()) is not None
    starts = [0, *(match.end() for match in _CLAUSE.finditer(text)), len(text)]
    for begin, end in pairwise(starts):
        own = [m for m in mentions if begin <= tokens.start[m.first] < end]
        parts, at = [], begin
        for m in own:
            parts.append(text[at : tokens.start[m.first]])
            at = min(end, tokens.end[m.last - 1])
        said = ", ".join([*parts, text[at:end]]).strip(" ,.")
        place = _place(tokens, own[0], centred) if len(own) == 1 else None
        tail = _TAIL.search(said) if own else None
        if tail and not _FINITE.search(said, tail.start()) and tail.start() < len(parts[0].strip(" ,.")):
            place = None  # a pond with a statue on the left: which of them is there?
        yield _Clause(said.lower(), said[: tail.start()] if tail else said, place, bool(own))


def misplaced(source: str, reply: str) -> tuple[str, ...]:
    """What a rewrite says of the place of things against its source, one phrase per thing; () for most texts.

    Named are things whose place contradicts the one that the source gives them, and things beside the building that are
    put where the source has another thing.
    """
    if not find_orientation(reply)[1] or not find_orientation(source)[1]:
        return ()
    placed = _placed(_clauses(reply))
    told = list(_clauses(source)) if placed else []
    found = []
    for concept, noun, place in placed:
        own = [clause for clause in told if concept in clause.things]
        rest = [clause for clause in told if clause.directed and concept not in clause.things]
        if len(own) != 1 or any(clause.may_put_at(place) for clause in rest):
            continue
        there = next((noun for clause in rest if clause.place == place for noun in clause.things.values()), "")
        if own[0].bound and own[0].place and own[0].place.contradicts(place):
            found.append(f"{noun}: {place}, the source says {own[0].place}")
        elif there and own[0].beside_building and not noun.endswith("s"):
            found.append(f"{noun}: {place}, where the source has {there}")
    return tuple(dict.fromkeys(found))


def _placed(clauses: Iterator[_Clause]) -> list[tuple[str, str, Place]]:
    """What a text surely puts where: concept, noun, place."""
    return [
        (clause.bound, clause.things[clause.bound], clause.place) for clause in clauses if clause.place and clause.bound
    ]
