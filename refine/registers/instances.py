"""Which thing of a text has which attributes, and which thing has another around, above or below it.

    from refine.registers.instances import instances, relations

`reading` says of an attribute what kind of thing it belongs to; here two things of one kind are kept apart: "a tall
block with a white roof and a broader one with a blue roof" gives two instances. Only what the grammar fixes is taken
down, so that a text may give none at all.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from refine.registers import lexicon
from refine.registers.reading import (
    BE,
    BREAKS,
    DEFINITE,
    DETERMINERS,
    PREPOSITIONS,
    UNCOUNTED,
    Reading,
    is_generic,
    is_plural,
    read,
    related,
    stems,
    words_of,
)
from refine.thesaurus import bases, is_person, may_be_of_kind, mostly

Traits = dict[str, frozenset[str]]

_ONE = words_of("one ones")
_HAS = words_of("with has have having carries carry bears bear under")
_UNDER = words_of("under underneath beneath below")
_KINDS = {
    word: kind
    for kind, words in (
        ("around", "surround encircle enclose ring circle frame encompass envelop embrace around round"),
        ("above", "over above atop under underneath beneath below top crown cap surmount overlook overhang"),
        ("between", "between"),
        ("with", "with whose has have contain hold"),
    )
    for word in words.split()
}  # fmt: skip
# Which of two things of a kind is meant; "the other" is the one that is not near.
_WHICH = {"near": "near", "nearer": "near", "far": "far", "farther": "far", "further": "far", "other": "far"}
_COVERS = words_of("covers cover tops top crowns crown caps cap")
_ON = words_of("on onto upon against atop")
_AMID = ("middle", "centre", "center", "midst", "heart")
_BESIDE = words_of("beside near by around round past behind opposite across between among next nearby to towards")
_THROWN = words_of("shadow shadows throw throws cast casts spread spreads stretch stretches")
_PRONOUNS = words_of("it its them they their which that whose these those both")
_CLAUSE = re.compile(r"[.;:!?]+(?:\s|$)|,\s+(?:and|but|while|whereas)\s+")
_RINGS = words_of("ring circle belt collar")
# Stretches that lie on one thing: of these a reply may say on which.
_MARKS = words_of("spot dot speck patch stripe band strip mark marking fleck splash smudge blotch")
_LONGEST = 20  # tokens of a noun phrase
# Stretches of an image: two words for them may mean one.
_STRETCHES = words_of(
    "scene view picture image tile side edge margin end part half quarter middle centre center corner"
)
_VAGUE = words_of("it them they this that these those which each both all one others rest whose")
_REACH = 9  # tokens from "with" to the noun of its phrase


@dataclass(frozen=True)
class Instance:
    """One thing: its noun's first token, its concepts, what is certainly said of it (dimension -> values), and the
    first token of its phrase.

    A dimension is "colour", "material", "number", "which" or an axis of the lexicon, behind "object:roof/" when a part
    has it.
    """

    at: int
    concepts: tuple[str, ...]
    traits: Traits
    first: int


def _attributes_at(reading: Reading) -> dict[int, list[tuple[str, str]]]:
    """Token -> the (dimension, value) pairs that stand there."""
    found: dict[int, list[tuple[str, str]]] = {}
    for mention in reading.mentions:
        if mention.kind in ("colour", "material"):
            found.setdefault(mention.at, []).append((mention.kind, mention.concept))
        elif mention.kind == "quality":
            axis, _, side = mention.concept.partition(":")
            found.setdefault(mention.at, []).append((axis, side))
        elif mention.kind == "number" and reading.tokens[mention.at] not in UNCOUNTED:
            found.setdefault(mention.at, []).append(("number", mention.concept))
    return found


class _Phrases:
    """A text's noun phrases; made for one call of `instances`."""

    def __init__(self, reading: Reading) -> None:
        self.tokens, self.w = reading.tokens, reading.parsed
        self.said = _attributes_at(reading)

    def head(self, at: int) -> bool:
        """Whether a thing's name starts at that token and no further noun follows it in its phrase."""
        if at not in self.w.nouns or not self.w.is_object(at):
            return False
        end = self.w.ends[at]
        return end not in self.w.nouns and self.w.token(end) != "-" and not self.tokens[at].endswith("ed")

    def before(self, at: int) -> tuple[Traits, int]:
        """The attributes that stand before a noun, and the first token of its phrase."""
        traits: Traits = {}
        look, part = at - 1, ""
        while look >= max(0, at - _LONGEST):
            word = self.tokens[look]
            if word in _WHICH and self.w.token(look - 1) in DEFINITE:
                _add(traits, "which", _WHICH[word])
                look -= 1
                break
            if word[0].isalnum() and (word in PREPOSITIONS or word in BE - {"and"}):
                break
            if word in {",", "and"}:
                if not (look - 1 in self.said and (look + 1 in self.said or self.tokens[look + 1] == "-")):
                    break
            elif look in self.w.nouns and self.tokens[look].endswith("ed") and self.w.token(look - 1) == "-":
                part = self.w.nouns[look][0]  # white-roofed
            elif word == "-":
                part = part if self.w.token(look + 1).endswith("ed") or self.w.token(look + 2) == "-" else ""
            elif look in self.said:
                hyphened = self.w.token(look + 1) == "-"
                for dimension, value in self.said[look]:
                    _add(traits, f"{part}/{dimension}" if part and hyphened else dimension, value)
                part = part if hyphened and self.w.token(look - 1) == "-" else ""
            elif not (self.w.modifier(look) or word in {"very", "rather", "quite"}):
                break
            look -= 1
        return traits, look + 1

    def parts(self, end: int) -> Traits:
        """The attributes that "with a white roof", "whose roof is white" or "of brick" give to the thing before."""
        traits: Traits = {}
        word = self.w.token(end)
        if word in {"of", "in"} and end + 1 in self.said and not self.head(end + 2):
            look = end + 1
            while look in self.said or self.w.token(look) in {"-", "and"}:
                for dimension, value in self.said.get(look, ()):
                    if dimension in ("colour", "material"):
                        _add(traits, dimension, value)
                look += 1
            return traits if look not in self.w.nouns or look - 1 in self.said else {}
        if word in BE and end + 1 in self.said and self.w.token(end + 2) in {".", ",", ";", "and"}:
            for dimension, value in self.said[end + 1]:
                _add(traits, dimension, value)
            return traits
        if word == "whose":
            noun = next((at for at in range(end + 1, end + 4) if self.head(at)), None)
            if noun is not None and self.w.token(self.w.ends[noun]) in BE:
                look = self.w.ends[noun] + 1
                while look in self.said:
                    for dimension, value in self.said[look]:
                        _add(traits, f"{self.w.nouns[noun][0]}/{dimension}", value)
                    look += 1
            return traits
        if word not in _HAS:
            return traits
        noun = next((at for at in range(end + 1, end + _REACH) if self.head(at)), None)
        if noun is None:
            return traits
        inner, first = self.before(noun)
        if first <= end + 2:
            for dimension, values in inner.items():
                if "/" not in dimension:
                    traits[f"{self.w.nouns[noun][0]}/{dimension}"] = values
        return traits


def _add(traits: Traits, dimension: str, value: str) -> None:
    traits[dimension] = traits.get(dimension, frozenset()) | {value}


@lru_cache(maxsize=2_048)
def instances(text: str) -> tuple[Instance, ...]:
    """The things of a text with the attributes that certainly are theirs, in order."""
    reading = read(text)
    phrases = _Phrases(reading)
    found: list[Instance] = []
    for at, word in enumerate(reading.tokens):
        concepts: tuple[str, ...] = ()
        if phrases.head(at):
            concepts, end = tuple(reading.parsed.nouns[at]), reading.parsed.ends[at]
        elif word in _ONE and found:
            before = [one for one in found if one.concepts[0] not in lexicon().parts] or found
            concepts, end = before[-1].concepts, at + 1
        if not concepts:
            continue
        traits, first = phrases.before(at)
        if word in _ONE and not traits:
            continue
        found.append(Instance(at, concepts, traits | phrases.parts(end), first))
    return tuple(_covered(reading, found))


def _covered(reading: Reading, found: list[Instance]) -> Iterator[Instance]:
    """The instances; what a roof covers has the attributes of that roof."""
    w = reading.parsed
    roofs = [
        one for one in found if one.concepts[0] == "object:roof" and w.token(w.ends.get(one.at, one.at)) in _COVERS
    ]
    for one in found:
        over = next((roof for roof in roofs if roof.at < one.at <= w.ends[roof.at] + _REACH), None)
        inner = {f"object:roof/{d}": values for d, values in over.traits.items() if "/" not in d} if over else {}
        yield replace(one, traits=one.traits | inner) if inner else one


def agree(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two sets of values of one dimension may be said of one thing."""
    return any(related(a, b) for a in one for b in other)


def _alike(one: Instance, other: Instance) -> bool:
    return any(related(a, b) for a in one.concepts for b in other.concepts)


def swapped(source: str, reply: str, caption: str) -> Iterator[tuple[str, str]]:
    """What a text of a reply says of the wrong one of two things of a kind, as (dimension, words).

    Proof is an attribute that tells one thing of the source from its likes, beside another one which that thing has
    not, but one of its likes has. A colour or material tells nothing where the caption has the other thing
    as well: it may be a part's, told of the whole.
    """
    own, told = instances(source), instances(caption)
    for thing in instances(reply):
        if len(thing.traits) < 2:
            continue
        likes = [one for one in own if _alike(one, thing)]
        if len(likes) == 1:
            yield from _parts_of_another(thing, likes[0], own)
        if len(likes) < 2 or any(fits(thing, one) for one in likes):
            continue
        for one in likes:
            marks = [d for d, values in thing.traits.items() if d in one.traits and agree(values, one.traits[d])]
            if any(_alike(o, one) and fits(o, one) for o in told):
                marks = [d for d in marks if d not in ("colour", "material")]
            if not any(_only(thing, d, one, likes) for d in marks):
                continue
            for dimension, values in thing.traits.items():
                if dimension in one.traits:
                    differs = not agree(values, one.traits[dimension])
                else:  # of the near wing and the other one, each has what is said of it
                    differs = "which" in marks and "/" in dimension
                if differs and not _only(thing, dimension, one, likes):
                    name, what = thing.concepts[0].partition(":")[2], dimension.rpartition("/")[2]
                    yield what, f"{name} with another one's {what}"


def _parts_of_another(thing: Instance, one: Instance, own: tuple[Instance, ...]) -> Iterator[tuple[str, str]]:
    """Parts said of a thing, known by another attribute, that the source gives it otherwise, and has elsewhere."""
    if not any(d in one.traits and agree(values, one.traits[d]) for d, values in thing.traits.items()):
        return
    for dimension, values in thing.traits.items():
        part, _, inner = dimension.rpartition("/")
        if not part or dimension not in one.traits or agree(values, one.traits[dimension]):
            continue
        if any(part in o.concepts and agree(values, o.traits.get(inner, frozenset())) for o in own):
            yield inner, f"{thing.concepts[0].partition(':')[2]} with another one's {inner}"


def fits(thing: Instance, one: Instance) -> bool:
    """Whether the reply's thing is one of the source's, as far as all of its attributes are given there."""
    return all(d in one.traits and agree(values, one.traits[d]) for d, values in thing.traits.items())


def _only(thing: Instance, dimension: str, one: Instance, likes: list[Instance]) -> bool:
    """Whether none of the likes but one has that value of the dimension."""
    values = thing.traits[dimension]
    return not any(agree(values, o.traits.get(dimension, frozenset())) for o in likes if o is not one)


# --- what is around, above or below what ----------------------------------------------------------


@dataclass(frozen=True)
class Relation:
    """(kind, one end, the other): the first end is around or above the second; () where the text leaves an end open."""

    kind: str
    one: tuple[str, ...]
    other: tuple[str, ...]


@lru_cache(maxsize=4_096)
def relations(text: str) -> tuple[Relation, ...]:
    """The relations of a text that go one way, with the things at both ends."""
    reading = read(text)
    tokens, found = reading.tokens, []
    for at, word in enumerate(tokens):
        if (
            word in _RINGS
            and tokens[at + 1 : at + 2] == ("of",)
            and tokens[max(0, at - 2) : at - 1] in {("in",), ("within",)}
        ):
            found.append(Relation("around", _behind(reading, at + 2), _before(reading, at - 2)))
            continue
        kind = _KINDS.get(word) or next((_KINDS[root] for root in stems(word) if root in _KINDS), "")
        if not kind or (at and tokens[at - 1] in DETERMINERS) or tokens[at + 1 : at + 2] == ("-",):
            continue
        passive = tokens[at + 1 : at + 2] == ("by",) and word.endswith("ed")
        if word.endswith("ed") and not passive:
            continue
        left, right = _before(reading, at, nearest=kind == "with"), _behind(reading, at + 1 + passive)
        if word in PREPOSITIONS and left[:1] and left[0].startswith("word:"):
            left = ()  # they form a ring around it
        if not (left or right):
            continue
        turned = passive or word in _UNDER
        found.append(Relation(kind, right, left) if turned else Relation(kind, left, right))
    return tuple(found)


def reversals(source: str, reply: str) -> Iterator[str]:
    """Relations of a text that the source has the other way round: a pond around the path, for one inside it."""
    own = relations(source)
    for said in relations(reply):
        if not said.one or not said.other:
            continue
        same = [r for r in own if r.kind == said.kind]
        if said.kind == "with" or holds(source, said.one, said.other) or holds(source, said.other, said.one):
            continue
        if any(_meet(said.one, r.one) and _meet(said.other, r.other) for r in same):
            continue
        sure = [r for r in same if r.one and r.other]
        if any(_meet(said.one, r.other) and _meet(said.other, r.one) for r in sure):
            yield f"{said.one[0].partition(':')[2]} {said.kind} {said.other[0].partition(':')[2]}"


def holds(source: str, whole: tuple[str, ...], part: tuple[str, ...]) -> bool:
    """Whether the source says "whole with part": a track with an infield, which goes around it."""
    found = (r for r in relations(source) if r.kind == "with" and r.one and r.other)
    return any(_meet(whole, r.one) and _meet(part, r.other) for r in found)


def _meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two ends may be one thing, or a whole and its part; an open end may be anything."""
    if one and other and one[0].startswith("word:") and other[0].startswith("word:"):
        return True  # two words for a stretch: edging and border
    return not one or not other or any(related(a, b) or _part_of(a, b) or _part_of(b, a) for a in one for b in other)


def _part_of(part: str, whole: str) -> bool:
    return part in lexicon().parts | lexicon().body.keys() and related(whole, "object:building")


def _before(reading: Reading, at: int, *, nearest: bool = False) -> tuple[str, ...]:
    """The things whose phrase stands right before a verb or preposition; () when it may be another one.

    "With" goes with the nearest thing, whatever comes before that.
    """
    w = reading.parsed
    found: tuple[str, ...] = ()
    look = at - 1
    while look >= 0:
        while look >= 0 and _between_noun_and_verb(reading, look):
            look -= 1
        start = w.noun_at.get(look, look)
        named = _named(reading, start)
        if not named:
            return found
        found += named
        opener = start - 1
        while opener >= 0 and (
            w.modifier(opener) or reading.tokens[opener] in DETERMINERS or opener in w.nouns or w.names(opener)
        ):
            opener -= 1
        if reading.tokens[max(0, opener)] == "without":  # a block without windows leans
            found, look = (), opener - 1
            continue
        if nearest or opener < 0 or reading.tokens[opener] not in PREPOSITIONS | {"and", "or"}:
            return found
        if reading.tokens[opener] not in {"of", "and", "with"}:
            return ()
        look = opener - 1
    return found


def _between_noun_and_verb(reading: Reading, at: int) -> bool:
    """Whether the token may stand between a subject and its verb: "lots, which are full of cars, …"."""
    w, word = reading.parsed, reading.tokens[at]
    if word in BE - {"and", "or", "but"} | {","}:
        return True
    if is_generic(word):  # "a drive loops round"
        verb = _verb_form(word) or (bool(bases(word, "v")) and is_plural(w.token(at - 1)))
        return verb and at - 1 in w.noun_at
    return at not in w.noun_at and (_verb_form(word) or w.modifier(at))


def _verb_form(word: str) -> bool:
    return bool(bases(word, "v")) and (word.endswith(("s", "ing", "ed")) or mostly(word, "v"))


def _named(reading: Reading, at: int) -> tuple[str, ...]:
    """The concepts of the noun that starts at that token, the word itself of a mere stretch; () for no noun."""
    w = reading.parsed
    if at in w.nouns and w.is_object(at):
        return tuple(w.nouns[at])
    word = w.token(at)
    base = next(iter(bases(word, "n")), word)
    return (f"word:{base}",) if word[0].isalpha() and is_generic(word) and base not in _STRETCHES else ()


def _behind(reading: Reading, at: int) -> tuple[str, ...]:
    """The things that follow in the clause from that token on; () when a pronoun or a preposition comes first."""
    w = reading.parsed
    found: tuple[str, ...] = ()
    for look in range(at, len(reading.tokens)):
        word = reading.tokens[look]
        if word in BREAKS or (word in _VAGUE and not found) or word in PREPOSITIONS - {"of"}:
            break
        if (
            found
            and look not in w.noun_at
            and (_verb_form(word) or word in BE - {"and", "or"} or (word == "," and w.token(look + 1) in BE))
        ):
            break
        if (look in w.nouns and w.is_object(look)) or (is_generic(word) and look not in w.noun_at):
            found += _named(reading, look)
    return found


# --- what rests on what ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spot:
    """A thing in a clause, the preposition that its phrase opens with, "" for a subject or an object, and where."""

    concepts: tuple[str, ...]
    opener: str
    at: int = -1


@lru_cache(maxsize=2_048)
def _clauses(text: str) -> tuple[tuple[_Spot, ...], ...]:
    """The things of every clause of a text; what a pronoun may stand for is a thing of its clause too."""
    found: list[tuple[_Spot, ...]] = []
    for part in _CLAUSE.split(text):
        reading = read(part)
        w = reading.parsed
        spots = []
        for at, _ in enumerate(reading.tokens):
            named = _named(reading, at)
            if not named:
                continue
            opener = at - 1
            while opener >= 0 and (
                w.modifier(opener) or reading.tokens[opener] in DETERMINERS or opener in w.noun_at or w.names(opener)
            ):
                opener -= 1
            word = reading.tokens[opener] if opener >= 0 else ""
            if word in {"to", "by"} and reading.tokens[opener - 1].endswith("ed"):
                word = "on"  # chained to, carried by
            if word == "across" and _THROWN & set(reading.tokens):
                word = "on"  # shadows across a lawn
            spots.append(_Spot(named, word if word in PREPOSITIONS | _BESIDE else "", opener))
            if "where" in reading.tokens[at + 1 :]:
                spots[-1] = _Spot(named, "", opener)  # a siding where wagons stand
        if found and _PRONOUNS & set(reading.tokens):
            spots += [_Spot(spot.concepts, "") for spot in (*found[-1][:1], *found[-1][-1:])]
        found.append(tuple(spots))
    return tuple(found)


def unrested(source: str, reply: str) -> Iterator[str]:
    """What a text puts on, against or to a thing which the source never has together with it, or only beside it."""
    reading = read(reply)
    for at, word in enumerate(reading.tokens):
        amid = (
            word == "in" and reading.tokens[at + 1 : at + 4 : 2] in {("the", "of")} and reading.tokens[at + 2] in _AMID
        )
        strewn = word in {"to", "over"} and at and reading.tokens[at - 1].endswith("ed")  # scattered over
        risen = word == "from" and at and "rise" in bases(reading.tokens[at - 1], "v")
        if not (word in _ON or word == "in" or strewn or risen):
            continue
        one, other = _before(reading, at, nearest=True), _first(reading, at + (4 if amid else 1))
        if _throws(reading, at):
            continue  # a shadow of the hall falls on the lawn, and not the hall
        if not one or not other or other[0].startswith("word:"):
            continue
        mark = one[0].partition(":")[2] if one[0].startswith("word:") else ""
        if mark and (mark not in _MARKS or not any(mark in bases(token, "n") for token in read(source).tokens)):
            continue
        clauses = _clauses(source)
        known = [any(_meet(end, spot.concepts) for clause in clauses for spot in clause) for end in (one, other)]
        if word == "in" and not amid and not _lives(one):
            continue
        if (
            all(known)
            and (mark or not holds(source, other, one))
            and not any(_together(c, one, other) for c in clauses)
        ):
            yield f"{one[0].partition(':')[2]} {word} {other[0].partition(':')[2]}"


def _throws(reading: Reading, at: int) -> bool:
    """Whether the thing before the verb before that token is only whose the verb's subject is."""
    verb = reading.tokens[at - 1] if at else ""
    if not verb or verb.endswith(("ed", "ing")) or not _verb_form(verb) or at - 1 in reading.parsed.noun_at:
        return False
    look = at - 2
    while look >= 0 and (
        look in reading.parsed.noun_at or reading.parsed.modifier(look) or reading.tokens[look] in DETERMINERS
    ):
        look -= 1
    return look >= 0 and reading.tokens[look] in {"of", "from", "by", "with", "under"}


def _lives(concepts: tuple[str, ...]) -> bool:
    """Whether a thing is a person or an animal: those are in one place."""
    return any(
        related(concept, being)
        or may_be_of_kind(concept.partition(":")[2], "animal")
        or is_person(concept.partition(":")[2])
        for concept in concepts
        for being in ("object:person", "object:animal")
    )


def _first(reading: Reading, at: int) -> tuple[str, ...]:
    """The thing whose phrase opens at that token."""
    w = reading.parsed
    for look in range(at, min(at + _REACH, len(reading.tokens))):
        word = reading.tokens[look]
        if look in w.nouns and w.is_object(look) and w.ends[look] not in w.nouns:
            return tuple(w.nouns[look])
        if word in BREAKS | _VAGUE | PREPOSITIONS or word == "," or is_generic(word):
            return ()
    return ()


def _together(clause: tuple[_Spot, ...], one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether the first thing may rest on the second in a clause of the source: not when it is only beside it."""
    ends = [spot for spot in clause if _same(other, spot.concepts)]
    own = [spot for spot in clause if _same(one, spot.concepts)]
    phrases = {spot.at for spot in own if spot.opener}  # the first-floor balcony
    return bool(own) and any(spot.opener not in _BESIDE or spot.at in phrases for spot in ends)


def _same(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two names may be one thing, or the second the roof or a wall of the first."""
    outer = lexicon().body.keys() | {"object:roof"}
    return any(related(a, b) or (b in outer and related(a, "object:building")) for a in one for b in other)
