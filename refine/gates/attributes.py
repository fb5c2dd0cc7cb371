"""The colour and material gates: no new value, and none said of a thing that the source gives another."""

from collections.abc import Iterator
from itertools import combinations

from refine.gates.bindings import of_other_noun, one_too_many, replaced, said_alike
from refine.gates.case import Case, comma_list, uncoloured
from refine.gates.things import GROWN, at_same_word, name
from refine.registers.reading import Mention, Reading, broader, related, stems, words_of
from refine.thesaurus import bases

WITHERED = words_of(
    "yellow yellowing yellowed yellowish brown browning brownish dry dried parched withered scorched burnt"
)
DARK, PALE = words_of("dark deep darker"), words_of("pale light lighter paler soft")
DARK_SHADES = frozenset(
    f"colour:{shade}"
    for shade in ("charcoal", "navy", "maroon", "chocolate", "forest green", "plum", "indigo", "olive")
)
PALE_SHADES = frozenset(
    f"colour:{shade}"
    for shade in ("sky blue", "mint", "lilac", "pink", "beige", "tan", "cream", "silver", "salmon", "straw")
)

# Shades that lie between two colours, though they are no kind of both: maroon is no brown, but brownish red is maroon.
BETWEEN = {
    f"colour:{shade}": tuple(frozenset(f"colour:{end}" for end in pair.split("-")) for pair in pairs.split())
    for shade, pairs in {
        "maroon": "red-brown red-purple",
        "crimson": "red-purple red-pink",
        "magenta": "red-purple pink-purple",
        "plum": "red-purple brown-purple",
        "salmon": "red-orange pink-orange",
        "terracotta": "red-brown orange-brown",
        "rust": "red-orange orange-brown",
        "ochre": "yellow-brown orange-brown",
        "tan": "yellow-brown",
        "honey": "yellow-brown yellow-orange",
        "gold": "yellow-brown yellow-orange",
        "khaki": "green-brown green-beige yellow-brown",
        "olive": "green-brown yellow-green green-grey",
        "beige": "white-brown grey-brown yellow-grey",
        "cream": "white-yellow white-beige",
        "navy": "blue-black",
        "silver": "white-grey",
        "mint": "white-green blue-green",
        "lilac": "blue-purple pink-purple",
    }.items()
}


def _attributes(case: Case, kind: str) -> str:
    wrong = [words for dimension, words in case.swaps if dimension == kind]
    sources = case.source.of(kind)
    for reading in case.texts:
        for word, mentions in at_same_word(reading, kind):
            matching = [s for m in mentions for s in sources if related(m.concept, s.concept)]
            exact = mentions[0].concept
            if word[-1] == "y" and {f"{word[:-1]}ed", word[:-1]} & set(case.source.tokens):
                continue  # rusty for rusted, or for rust brown
            if kind == "material" and {f"{word}y", f"{word[:-1]}y"} & set(case.source.tokens):
                continue  # pebble for pebbly
            if kind == "colour" and any(s.concept == exact for s in matching):
                # Green is no turquoise where the source has a green.
                matching = [s for s in matching if s.concept == exact or not _in_between(s.concept)]
            if not matching and _grown_green(case.source, mentions[0]) and not replaced(case, reading, mentions[0]):
                continue
            if not matching and _lies_between(case.source, mentions[0].concept):
                continue
            if mentions[0].concept == "colour:multicoloured" and case.source.stems & {
                "colour",
                "color",
                "coloured",
                "colored",
            }:
                continue
            if matching and kind == "colour" and _shades_twice(reading, mentions, sources):
                wrong.append(f"{word} is new")
            elif not matching:
                said = reading.words_at(mentions[0])
                implied = uncoloured(case.source, word) and f" {said} " in case.source.words
                implied = implied or any(m.concept in case.supported for m in mentions)
                if not implied or replaced(case, reading, mentions[0]):
                    wrong.append(f"{word} is new")
            elif (
                (not case.source.stems.intersection(stems(word)) and _narrowed(case.source, mentions, matching))
                or (kind == "colour" and _other_shade(case.source, reading, mentions[0]))
                or (kind == "colour" and _revived(case.source, reading, mentions[0]))
            ):
                wrong.append(f"{word} is new")
            elif kind == "colour" and of_other_noun(case.source, reading, mentions[0]):
                wrong.append(f"{word} said of {reading.tokens[mentions[0].end]}")
            elif (
                not said_alike(case, reading, mentions[0], matching)
                or replaced(case, reading, mentions[0])
                or (kind == "colour" and reading is case.caption and one_too_many(case, mentions[0], matching))
            ):
                of = comma_list(sorted(name(h) for h in mentions[0].heads if h != "generic"))
                wrong.append(f"{word} said of {of}")
    return "; ".join(dict.fromkeys(wrong))


def _shades(reading: Reading) -> set[frozenset[str]]:
    """The pairs of colours in one: "purple-blue", "reddish brown"."""
    at = {m.at: m.concept for m in reading.of("colour")}
    ends = ((n, n + 2 if reading.tokens[n + 1 : n + 2] == ("-",) else n + 1) for n in at)
    return {frozenset({at[one], at[two]}) for one, two in ends if two in at}


def _lies_between(source: Reading, shade: str) -> bool:
    """Whether the source has the two colours of a shade in one: lime for yellow-green, maroon for brownish red."""
    return any(pair <= broader(shade) or pair in BETWEEN.get(shade, ()) for pair in _shades(source))


def _other_shade(source: Reading, reading: Reading, mention: Mention) -> bool:
    """Whether the colour ends a pair that the source has with another end only: purple-red for purple-blue."""
    first = next((m for m in reading.of("colour") if m.at == mention.at - 2), None)
    if first is None or reading.tokens[mention.at - 1] != "-":
        return False
    named, own = [m for m in source.of("colour") if m.concept == first.concept], _shades(source)
    pairs = [pair for pair in own if first.concept in pair]
    return bool(pairs) and len(pairs) == len(named) and frozenset({first.concept, mention.concept}) not in own


def _in_between(colour: str) -> bool:
    """Whether a colour lies between two others: turquoise is blue as much as green."""
    wider = broader(colour) - {colour}
    return len(wider) > 1 and not any(related(a, b) for a, b in combinations(sorted(wider), 2))


def _grown_green(source: Reading, mention: Mention) -> bool:
    """Whether green is no more than what the source says of plants: a green roof for a planted one."""
    if mention.concept != "colour:green" or not source.stems & GROWN:
        return False
    return any(head == "object:roof" or related(head, "object:vegetation") for head in mention.heads)


def _revived(source: Reading, reading: Reading, mention: Mention) -> bool:
    """Whether a plant is called green that the source, wherever it names it, calls withered: yellowing grass."""
    if mention.concept != "colour:green" or not mention.firm:
        return False
    words = {reading.tokens[reading.parsed.ends[at] - 1] for at in _owned(reading, mention)}
    found = [at for at, token in enumerate(source.tokens) if words & {token, *bases(token, "n")}]
    before = [source.tokens[max(0, at - 3) : at] for at in found]
    greenish = any(word.startswith("green") for words in before for word in words)
    return bool(found) and not greenish and all(WITHERED & set(words) for words in before)


def _owned(reading: Reading, mention: Mention) -> list[int]:
    """Where the plants stand that an attribute before them is said of."""
    w = reading.parsed
    return [
        at
        for at in range(mention.end, mention.end + 4)
        if at in w.nouns and any(c in mention.heads and related(c, "object:vegetation") for c in w.nouns[at])
    ]


def _narrowed(source: Reading, mentions: list[Mention], matching: list[Mention]) -> bool:
    """Whether a value is more exact than any the source has: granite for stone, navy for blue.

    A colour may stand for the two that it lies between, and one that is the dark or pale kind of another for that one
    and its tone (charcoal for dark grey).
    """
    exact = {m.concept for m in mentions}
    if any(s.concept in exact or exact & broader(s.concept) for s in matching):
        return False
    if any(_lies_between(source, concept) for concept in exact):
        return False
    toned = {(word, m.concept) for m in matching for word in source.tokens[max(0, m.at - 2) : m.at]}
    return not any((word, wider) in toned for concept in exact for word, wider in _tones_of(concept))


def _tones_of(concept: str) -> Iterator[tuple[str, str]]:
    """What else a shade is called, as (tone, colour); yellow stone is called sandstone."""
    if concept == "material:sandstone":
        yield from (("yellow", "material:stone"), ("honey", "material:stone"), ("tan", "material:stone"))
    tones = DARK if concept in DARK_SHADES else PALE if concept in PALE_SHADES else ()
    yield from ((tone, wider) for tone in tones for wider in broader(concept))


def _shades_twice(reading: Reading, mentions: list[Mention], sources: list[Mention]) -> bool:
    """Whether a colour is only the broader name of the one beside it, which the reply repeats: 'turquoise blue'."""
    exact = {s.concept for s in sources}
    if any(m.concept in exact for m in mentions):
        return False
    beside = [m for m in reading.of("colour") if 0 < abs(m.at - mentions[0].at) <= 2]
    near = {s.concept for s in sources if any(related(s.concept, m.concept) for m in mentions)}
    return bool(near) and near <= {m.concept for m in beside}


def colours(case: Case) -> str:
    return _attributes(case, "colour")


def materials(case: Case) -> str:
    return _attributes(case, "material")
