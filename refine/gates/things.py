"""Which words name the same thing: what nouns of a reply may mean of a source, and which concepts may be one."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from refine.registers import lexicon
from refine.registers.reading import Mention, Reading, is_generic, related, stems, words_of
from refine.thesaurus import akin, bases, is_kind_of, is_person, linked, may_be_of_kind, mostly, same_head

GROWN = words_of("planted grass grassy grassed overgrown moss mossy ivy turf lawn")
SUMMITS = words_of("summit peak crest apex tip crown hilltop pinnacle")
# What a word may end in that names no more than the place of a thing: lakeside, ploughland.
PLACES = ("side", "land", "front", "ground", "work")


def name(concept: str) -> str:
    """The word of a concept: tower of object:tower."""
    return concept.partition(":")[2]


def is_stretch(word: str) -> bool:
    """Whether a word names a thing of a scene or a stretch or shape of it."""
    return is_generic(word) or any(
        kind == "object" for stem in stems(word) for kind, _ in lexicon().senses.get(stem, ())
    )


def at_same_word(reading: Reading, kind: str) -> Iterator[tuple[str, list[Mention]]]:
    """Mentions grouped by their word: a word of several senses is right when one of them is."""
    groups: dict[int, list[Mention]] = {}
    for mention in reading.of(kind):
        groups.setdefault(mention.at, []).append(mention)
    for at, mentions in groups.items():
        yield reading.tokens[at], mentions


def people(reading: Reading) -> set[str]:
    """The words that name people, in the singular."""
    return {base for word in reading.content for base in bases(word, "n")[:1] if is_person(base) and mostly(word, "n")}


def meant(source: Reading, word: str) -> bool:
    """Whether a noun speaks of the source's things: in the same, a broader, derived, or closely linked word."""
    if source.stems.intersection(stems(word)):
        return True
    if word in source.joined or any(one + two in source.joined for one, two in pairwise(word.split())):
        return True
    if any(word.endswith(end) and _has(source, word.removesuffix(end)) for end in PLACES):
        return True
    if " " in word and all(source.stems.intersection(stems(part)) for part in word.split()):
        return True  # the stadium stands of the stands of a stadium
    forms = bases(word, "n")
    if any(own.endswith(base) and bases(own[: -len(base)], "n") for base in forms for own in source.content):
        return True  # step of doorstep
    if any(word.endswith(own) and len(own) > 3 and bases(word[: -len(own)], "n") for own in source.content):
        return True  # yard of farmyard
    if any(
        own.startswith(base) and len(own) - len(base) > 3 and bases(own[len(base) :], "n")
        for base in forms
        if len(base) > 2
        for own in source.content
    ):
        return True  # vine of vineyard
    if word == "arched" and source.stems & {"curved", "vaulted", "rounded", "barrel"}:
        return True
    return next(sources_of(source, word), "") != ""


def _has(source: Reading, word: str) -> bool:
    """Whether the source has a word, or another word for what it names."""
    named = {concept for _, concept in lexicon().senses.get(word, ())}
    return len(word) > 2 and (word in source.stems or not named.isdisjoint(source.objects))


def sources_of(source: Reading, word: str) -> Iterator[str]:
    """The words of the source that the thesaurus links a noun to."""
    listed = in_lexicon(word)
    for own in (*source.nominal, *source.pairs):
        alike = same_head(own, word) and mostly(own, "n") and not (listed and _told_apart(source, own, word))
        if alike or _is_kin(own, word):
            yield own


@lru_cache(maxsize=100_000)
def _is_kin(own: str, word: str) -> bool:
    """Whether the thesaurus links two nouns; where the lexicon has both, it is not asked for kinds and parts."""
    if akin(own, word) or may_be_of_kind(own, word):
        return True
    return (is_kind_of(own, word) or linked(own, word)) and not (in_lexicon(own) and in_lexicon(word))


def _told_apart(source: Reading, own: str, word: str) -> bool:
    """Whether a compound is another kind of what the source has in compounds only: football for baseball field.

    So are two that the lexicon has as two things: motorcycle and bicycle.
    """
    if " " not in word and in_lexicon(own):
        return True
    head = word.rpartition(" ")[2]
    same = [m for m in source.of("object") if head in stems(source.tokens[m.end - 1])]
    return head != word and bool(same) and all(m.end - m.at > 1 for m in same)


def in_lexicon(word: str) -> bool:
    """Whether the lexicon has the word: then it says what it is a kind of, and the thesaurus does not."""
    return any(stem in lexicon().senses for stem in (word, *stems(word)))


def heads_meet(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two attributes may be said of the same thing; a stretch or an unknown head leaves it open."""
    if "one" in one or "one" in other or not one - {"generic"} or not other - {"generic"}:
        return True
    body = lexicon().body
    return any(related(body.get(a, a), body.get(b, b)) for a in one for b in other)


def things_of(reading: Reading) -> frozenset[str]:
    """The concepts of all things that a text names, in the lexicon or outside it."""
    return reading.objects | {concept for _, concept in reading.things}


def may_be_one(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two things may be one, or a whole and its part: a window and its shutters, an arch and an opening."""
    building = "object:building"
    parts = lexicon().parts | lexicon().body.keys()
    return any(
        a == b
        or (related(a, building) and b in parts)
        or (related(b, building) and a in parts)
        or (not {a, b} & parts and (linked(name(a), name(b)) or linked(name(b), name(a))))
        or same_head(name(a), name(b))
        for a in one
        for b in other
    )


def same_thing(one: str, other: str) -> bool:
    """Whether two concepts may name one thing; a wall is no building, though it tells of one."""
    return one == other or (related(one, other) and not {one, other} & (lexicon().parts | lexicon().body.keys()))


def on_axis(word: str) -> bool:
    """Whether the lexicon knows what excludes the word: colours and the qualities on axes."""
    lex = lexicon()
    return any(
        stem in lex.qualities or any(kind == "colour" for kind, _ in lex.senses.get(stem, ())) for stem in stems(word)
    )
