"""The thesaurus: what English words have to do with each other, from a trimmed WordNet 3.0 table.

    lexicons/make_thesaurus.py makes the table lexicons/thesaurus.tsv.gz; its licence lies beside it.

The table is read once, when first asked (about 0.1 s); its lines are parsed when a word needs them. Parts of speech are
the letters n, v, a (adjective) and r (adverb). Words are lower-case; an unknown word has no senses, and nothing raises.
"""

import gc
import gzip
from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

TABLE = Path(__file__).parent / "lexicons" / "thesaurus.tsv.gz"
PARTS = "nvar"
# WordNet's rules of detachment: ending, what stands for it.
ENDINGS = {
    "n": (("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
          ("ies", "y")),
    "v": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}  # fmt: skip
# Lexicographer files of things that an image shows: animals, artefacts, bodies of things, people, plants, substances.
# Substances, food and phenomena are seen only as part of something; a word of another file names no thing.
_SEEN = frozenset({5, 6, 13, 17, 18, 20})
# Files with some words for what an image shows: fires, weather, substances.
_SHOWN = _SEEN | {11, 19, 27}
_SHAPE = 25
_STEPS = 14  # no chain of hypernyms is longer
_PART, _GLOSS = 5, 6  # columns
_LIVING = frozenset({5, 20})
_ANIMAL, _PERSON, _PLANT, _SUBSTANCE = 5, 18, 20, 27
_SPEECH = 10
_EVENT, _MOTION = 11, 38
_PEOPLE = frozenset({_ANIMAL, _PERSON})
# A kind with no more kinds below it is narrow: its kinds are words for nearly the same thing.
_NARROW = 8


@dataclass(frozen=True)
class _Table:
    synsets: dict[str, str]
    words: dict[str, str]
    forms: dict[str, tuple[tuple[str, str], ...]]


@cache
def _table() -> _Table:
    synsets: dict[str, str] = {}
    words: dict[str, str] = {}
    forms: dict[str, tuple[tuple[str, str], ...]] = {}
    for line in gzip.decompress(TABLE.read_bytes()).decode().splitlines():
        key, _, rest = line.partition("\t")
        if key[0] == "=":
            synsets[key[1:]] = rest
        elif key[0] == "+":
            words[key[1:]] = rest
        else:
            lemma, _, part = rest.partition("\t")
            forms[key[1:]] = (*forms.get(key[1:], ()), (lemma, part))
    gc.freeze()  # half a million objects that stay: the collector would look at them again and again
    return _Table(synsets, words, forms)


@lru_cache(maxsize=50_000)
def _entry(lemma: str) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Part of speech -> (uses counted, senses) of a base form."""
    fields = _table().words.get(lemma)
    if fields is None:
        return {}
    found: dict[str, tuple[int, tuple[str, ...]]] = {}
    for field in fields.split("\t"):
        head, _, senses = field.partition(":")
        found[head[0]] = (int(head[1:]), tuple(senses.split()))
    return found


@lru_cache(maxsize=50_000)
def bases(word: str, part: str) -> tuple[str, ...]:
    """The base forms a word may have as that part of speech: 'roofs' as n -> roof; () when there is none."""
    irregular = tuple(lemma for lemma, pos in _table().forms.get(word, ()) if pos == part)
    if irregular:
        return irregular
    found = [word] if part in _entry(word) else []
    for ending, stem in ENDINGS[part]:
        base = word[: len(word) - len(ending)] + stem
        if word.endswith(ending) and len(base) > 1 and not (ending == "s" and word.endswith("ss")):
            found += [base] if part in _entry(base) else []
            undoubled = base[:-1]
            if ending in ("ed", "ing", "er", "est") and base[-1] == undoubled[-1:] and part in _entry(undoubled):
                found.append(undoubled)
    if part == "n" and len(found) > 1 and _entry(found[-1])[part][0] > _entry(word).get(part, (0, ()))[0]:
        found.append(found.pop(0))  # barrels are more of a barrel than "barrels" of something
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=50_000)
def uses(word: str, part: str) -> int:
    """How often the word was counted as that part of speech, plus one; 0 when it never is one."""
    return max((_entry(base)[part][0] + 1 for base in bases(word, part) if part in _entry(base)), default=0)


@lru_cache(maxsize=50_000)
def senses(word: str, part: str) -> tuple[str, ...]:
    """The senses of a word as that part of speech, the commonest first."""
    return tuple(dict.fromkeys(s for base in bases(word, part) for s in _entry(base).get(part, (0, ()))[1]))


@lru_cache(maxsize=100_000)
def _column(sense: str, column: int) -> tuple[str, ...]:
    fields = _table().synsets[sense].split("\t")
    return tuple(fields[column].split()) if len(fields) > column else ()


def _file(sense: str) -> int:
    return int(_table().synsets[sense].partition("\t")[0])


@lru_cache(maxsize=50_000)
def above(sense: str) -> frozenset[str]:
    """The sense and every sense it is a kind of."""
    found, todo = {sense}, [sense]
    for _ in range(_STEPS):
        todo = [up for s in todo for up in _column(s, 1) if up not in found]
        found.update(todo)
    return frozenset(found)


@cache
def opens_compound() -> frozenset[str]:
    """The words that a compound of the thesaurus begins with: a pair of words that begins with no such word is none."""
    table = _table()
    return frozenset(words.partition(" ")[0] for words in (*table.words, *table.forms) if " " in words)


@lru_cache(maxsize=50_000)
def is_word(word: str) -> bool:
    """Whether the thesaurus has the word, in any form, as any part of speech."""
    return any(bases(word, part) for part in PARTS)


@lru_cache(maxsize=50_000)
def is_seen(word: str) -> bool:
    """Whether the commonest meaning of a noun is something that an image shows: bench and slit, but not hue."""
    found = senses(word, "n")
    likely = found[:1] if uses(word, "n") > 1 else found[:2]  # without counts their order says nothing
    return any(_file(sense) in _SEEN for sense in likely)


@lru_cache(maxsize=50_000)
def names_thing(word: str) -> bool:
    """Whether a noun names a thing of its own that an image shows: a bench or a swan, but no mere slit or hue."""
    found = senses(word, "n")
    shown = is_seen(word) or any(_file(sense) in _SHOWN and not _is_motion(sense) for sense in found[:1])
    shape = any(_file(sense) == _SHAPE for sense in found[:1])  # a bowl is a thing, for all that things are bowls
    return shown and not shape and not any(above(sense) & _parts() for sense in found[:2])


def _is_motion(sense: str) -> bool:
    """Whether an event is no more than somebody's or something's moving: descent."""
    return _file(sense) == _EVENT and any(_file(verb) == _MOTION for verb in _column(sense, 4))


@cache
def _parts() -> frozenset[str]:
    """What says how a thing is built rather than what else is there: joints, openings, surfaces, layers."""
    return frozenset(senses(word, "n")[0] for word in ("connector", "opening", "surface", "layer"))


@lru_cache(maxsize=50_000)
def mostly(word: str, part: str) -> bool:
    """Whether the word is that part of speech at least as often as all others together."""
    return uses(word, part) * 2 >= sum(uses(word, other) for other in PARTS) > 0


def _verb(word: str) -> bool:
    """Whether the word is a noun so seldom that its noun meanings are not meant: "runs" is no stream."""
    return uses(word, "v") > 4 * uses(word, "n")


@lru_cache(maxsize=50_000)
def akin(one: str, other: str) -> bool:
    """Whether two nouns share a common meaning, or one word is derived from the other: curb and kerb, glass and glazed.

    Only the two commonest meanings count, and only words of one root: "viewed" shall not name spectators.
    """
    if set(senses(one, "n")[:2]) & set(senses(other, "n")[:2]) and not _verb(one):
        return True
    if one[:3] != other[:3]:
        return False
    mine, yours = ({s for part in PARTS for s in senses(word, part)[:3]} for word in (one, other))
    if mine & yours:
        return True
    return any(yours & set(_column(s, 4)) for s in mine) or any(mine & set(_column(s, 4)) for s in yours)


@lru_cache(maxsize=50_000)
def is_kind_of(narrow: str, broad: str) -> bool:
    """Whether the first noun is a kind of the second in their commonest meanings: car of vehicle."""
    if _verb(narrow):
        return False
    return any(kind in above(s) for s in senses(narrow, "n")[:1] for kind in senses(broad, "n")[:2])


@lru_cache(maxsize=50_000)
def opposites(one: str, other: str) -> bool:
    """Whether two words exclude each other: antonyms, or words close to antonyms (tiny and huge)."""
    mine, yours = _around(one), _around(other)
    return not (mine & yours) and any(yours & set(_column(s, 2)) for s in mine)


@lru_cache(maxsize=50_000)
def same_meaning(one: str, other: str) -> bool:
    """Whether two verbs or adjectives share one of their commonest meanings: hide and conceal."""
    return any(set(senses(one, part)[:3]) & set(senses(other, part)[:3]) for part in "av")


@lru_cache(maxsize=50_000)
def _around(word: str) -> frozenset[str]:
    """The commonest adjective, verb and adverb meanings of a word, and the adjectives they are similar to."""
    own = [s for part in "avr" for s in senses(word, part)[:3]]
    return frozenset(own).union(*(_column(s, 3) for s in own if s))


@cache
def _counts() -> Counter[str]:
    """How many kinds stand directly under a sense."""
    return Counter(up for row in _table().synsets.values() for ups in row.split("\t")[1:2] for up in ups.split())


@lru_cache(maxsize=100_000)
def linked(own: str, word: str) -> bool:
    """Whether the second noun may speak of what the first names, though it is no synonym and no broader word.

    True of a part or whole, of a kind one step below (not of plants and animals: an oak is more than a tree), of kinds
    under one narrow kind, and of what the first noun's gloss names ("florist: a shop where flowers are sold").
    Commonest meanings only.
    """
    mine, yours = senses(own, "n")[:2], senses(word, "n")[:2]
    if not mine or not yours or _verb(own) or own.partition(" ")[2] == word.partition(" ")[2] != "":
        return False
    for a in mine:
        if set(_column(a, _PART)) & set(yours):
            return True
        if any(base in _column(a, _GLOSS) for base in bases(word, "n")) and _file(yours[0]) not in _PEOPLE:
            return True
        if any(a in _column(b, 1) and _file(b) not in _LIVING for b in yours):
            return True
    return siblings(own, word)


@lru_cache(maxsize=50_000)
def siblings(one: str, other: str) -> bool:
    """Whether two nouns are kinds of one narrow kind in their commonest meanings: barrel and bowl, of vessel."""
    pairs = ((a, b) for a in senses(one, "n")[:2] for b in senses(other, "n")[:2] if _file(b) not in _PEOPLE)
    return any(_counts()[up] <= _NARROW for a, b in pairs for up in set(_column(a, 1)) & set(_column(b, 1)))


@lru_cache(maxsize=50_000)
def near(one: str, other: str) -> bool:
    """Whether two nouns are of nearly the same kind: they share one that is neither an artefact as such nor broader."""
    mine, yours = (frozenset(up for s in senses(word, "n")[:3] for up in above(s)) for word in (one, other))
    return bool(mine & yours - _broad())


@cache
def _broad() -> frozenset[str]:
    """Kinds that hold too much for two of theirs to be one thing."""
    words = "artifact instrumentality organism person animal plant matter substance abstraction region location device"
    return frozenset(up for word in words.split() for up in above(senses(word, "n")[0]))


@lru_cache(maxsize=50_000)
def is_person(word: str) -> bool:
    """Whether the commonest meaning of a noun is a person."""
    return any(_file(sense) == _PERSON for sense in senses(word, "n")[:1])


@lru_cache(maxsize=50_000)
def is_said(word: str) -> bool:
    """Whether the commonest meaning of a noun belongs to speech and writing: sentence, caption, request."""
    return any(_file(sense) == _SPEECH for sense in senses(word, "n")[:1])


@lru_cache(maxsize=50_000)
def is_trade(word: str) -> bool:
    """Whether a noun may be a person in one of its meanings: the baker of a baker's shop."""
    return any(_file(sense) == _PERSON for sense in senses(word, "n"))


@lru_cache(maxsize=50_000)
def is_animal(word: str) -> bool:
    """Whether the commonest meaning of a noun is an animal."""
    return any(_file(sense) == _ANIMAL for sense in senses(word, "n")[:1])


@lru_cache(maxsize=50_000)
def is_plant(word: str) -> bool:
    """Whether the commonest meaning of a noun is a plant."""
    return any(_file(sense) == _PLANT for sense in senses(word, "n")[:1])


@lru_cache(maxsize=50_000)
def is_substance(word: str) -> bool:
    """Whether the commonest meaning of a noun is a substance: polystyrene."""
    return any(_file(sense) == _SUBSTANCE for sense in senses(word, "n")[:1])


@lru_cache(maxsize=50_000)
def may_be_of_kind(narrow: str, broad: str) -> bool:
    """Whether the first noun may name an animal or plant of the second's kind: swallows are birds, limes are trees."""
    kinds = [s for s in senses(broad, "n")[:1] if _file(s) in _LIVING]
    return any(kind in above(s) for s in senses(narrow, "n") for kind in kinds)


@lru_cache(maxsize=50_000)
def same_head(one: str, other: str) -> bool:
    """Whether two compounds end in one word of five letters or more: headstone and gravestone, stand and grandstand.

    Warehouse and lighthouse do, and are of no common kind.
    """
    a, b = (next(iter(bases(word, "n")), word) for word in (one, other))
    size = next((n for n in range(min(len(a), len(b)), 0, -1) if a[-n:] == b[-n:]), 0)
    told = all(len(word) == size or is_word(word[:-size].rstrip("- ")) for word in (a, b))
    apart = size < min(len(a), len(b)) and is_word(a) and is_word(b) and not near(a, b)
    return size >= 5 and told and uses(a[-size:], "n") > 0 and len(a) != len(b) and not apart
