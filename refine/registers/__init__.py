"""The vocabulary that refinement works with: scene lexicon, plain English, and one register per platform, as YAML data.

The files beside this module are read once, when first needed. `version()` names their contents: it changes whenever a
word does, and goes into every reply's key, so that no stored result outlives the vocabulary that made it.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from schemas.records import PLATFORMS, Platform

HERE = Path(__file__).parent

Words = tuple[str, ...]


@dataclass(frozen=True)
class Phrases:
    """A pattern of words, and what its matches may open with: most texts have nothing of it, and need no search.

    An opener is a word, or two with a blank between them, in lower case; of a word with an apostrophe it has the
    letters alone ("cant"), or those before it. `Reading.find` searches.
    """

    pattern: re.Pattern[str]
    openers: frozenset[str]


@dataclass(frozen=True)
class Register:
    """What a platform's captions speak of: words it cannot see, exceptions that it can, points of view of others."""

    unseen: re.Pattern[str]
    seen: re.Pattern[str] | None
    foreign_views: Phrases


@dataclass(frozen=True)
class Lexicon:
    """Scene vocabulary.

    Attributes:
        senses: word or phrase (words of a phrase joined by a space) -> its (kind, concept) pairs, kind being object,
            colour or material. A word has several where English has.
        broader: concept -> itself and every broader concept, of all kinds.
        implied: concept -> concepts that cannot but be there as well.
        body: parts of a building whose colour and material are the building's own -> the building.
        parts: parts of a building that may lend it their material.
        generic: nouns that name a stretch or a shape, and no object.
        ambiguous: words that are nouns only after a determiner, number or adjective.
        qualities: word -> the (axis, side) pairs it asserts; two sides of one axis exclude each other.
        relations: word -> the classes of spatial relation it may express.
        denied: word that denies -> the concept it holds.
        phrases: first word of a phrase -> number of words of the longest that starts with it.
        hedges, meta, refusals: phrases of guessing, of talk about the rewriting, of refusing.
    """

    senses: dict[str, tuple[tuple[str, str], ...]]
    broader: dict[str, frozenset[str]]
    implied: dict[str, frozenset[str]]
    body: dict[str, str]
    parts: frozenset[str]
    generic: frozenset[str]
    ambiguous: frozenset[str]
    qualities: dict[str, tuple[tuple[str, int], ...]]
    relations: dict[str, frozenset[str]]
    denied: dict[str, str]
    hedges: Phrases
    meta: Phrases
    refusals: Phrases
    phrases: dict[str, int]


@dataclass(frozen=True)
class English:
    """Plain words: `function` words, and `plain` verbs, adjectives and relational nouns that state no scene fact.

    `verbs` are those that are plain as verbs only: "a guard" is somebody.
    """

    function: frozenset[str]
    plain: frozenset[str]
    verbs: frozenset[str]


def _raw(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))
    if not isinstance(loaded, dict):
        raise TypeError(f"refine/registers/{name}.yaml is no mapping: reinstall georefine.")
    return loaded


def _split(text: str) -> Words:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def phrases(words: Words) -> Phrases:
    """What finds any of the phrases as whole words, spaces matching hyphens too; nothing if there are none."""
    openers = (re.split(r"[\s-]+", word.lower().replace("'", ""))[:2] for word in words)
    return Phrases(_pattern(words), frozenset(map(" ".join, openers)))


def _pattern(words: Words, *, plural: bool = False) -> re.Pattern[str]:
    if not words:
        return re.compile(r"(?!)")
    ordered = sorted(words, key=lambda w: (-len(w), w))
    body = "|".join(re.escape(w).replace(r"\ ", r"[\s-]+").replace("'", "['’]?") for w in ordered)
    starts = re.escape("".join(sorted({word[0] for word in words})))  # tried first: a cheap look spares the long list
    return re.compile(rf"\b(?=[{starts}])(?<!['’])(?:{body}){'(?:e?s)?' if plural else ''}(?!\w)", re.IGNORECASE)


def _broader(direct: dict[str, set[str]]) -> dict[str, frozenset[str]]:
    closed: dict[str, frozenset[str]] = {}
    for concept in direct:
        seen, todo = {concept}, [concept]
        while todo:
            for up in direct.get(todo.pop(), ()):
                if up not in seen:
                    seen.add(up)
                    todo.append(up)
        closed[concept] = frozenset(seen)
    return closed


def _concept(raw: dict[str, Any], kind: str, name: str) -> str:
    """The concept of that name: of the same kind if there is one, else an object, a material or a colour."""
    for candidate in (kind, "object", "material", "colour"):
        if name in raw[f"{candidate}s"]:
            return f"{candidate}:{name}"
    raise ValueError(f"refine/registers/lexicon.yaml: {name!r} is no concept.")


@cache
def lexicon() -> Lexicon:
    """The scene lexicon, read once."""
    raw = _raw("lexicon")
    senses: dict[str, list[tuple[str, str]]] = {}
    direct: dict[str, set[str]] = {}
    implied: dict[str, frozenset[str]] = {}
    for section, kind in (("objects", "object"), ("colours", "colour"), ("materials", "material")):
        for name, line in raw[section].items():
            concept = f"{kind}:{name}"
            entry, _, withs = line.partition(">>")
            words, _, ups = entry.partition(">")
            direct[concept] = {_concept(raw, kind, up) for up in _split(ups)}
            implied[concept] = frozenset(_concept(raw, kind, up) for up in _split(withs))
            for word in _split(words):
                places = senses.setdefault(word.replace("-", " "), [])
                if (kind, concept) not in places:
                    places.append((kind, concept))
    qualities: dict[str, list[tuple[str, int]]] = {}
    for axis, sides in raw["axes"].items():
        for side, words in enumerate(sides):
            for word in words.split("|"):
                qualities.setdefault(word.strip(), []).append((axis, side))
    relations: dict[str, set[str]] = {}
    for name, words in raw["relations"].items():
        for word in _split(words):
            relations.setdefault(word, set()).add(name)
    phrases_by_start: dict[str, int] = {}
    for word in senses:
        first = word.partition(" ")[0]
        phrases_by_start[first] = max(phrases_by_start.get(first, 1), word.count(" ") + 1)
    return Lexicon(
        senses={word: tuple(places) for word, places in senses.items()},
        broader=_broader(direct),
        implied=implied,
        body={f"object:{part}": "object:building" for part in _split(raw["body"])},
        parts=frozenset(f"object:{part}" for part in _split(raw["parts"])),
        generic=frozenset(_split(raw["generic"])),
        ambiguous=frozenset(_split(raw["ambiguous"])),
        qualities={word: tuple(places) for word, places in qualities.items()},
        relations={word: frozenset(names) for word, names in relations.items()},
        denied={word: f"object:{concept}" for word, concept in raw["denied_words"].items()},
        hedges=phrases(_split(raw["hedges"])),
        meta=phrases(_split(raw["meta"])),
        refusals=phrases(_split(raw["refusals"])),
        phrases=phrases_by_start,
    )


@cache
def english() -> English:
    """The plain English words, read once."""
    raw = _raw("english")
    verbs, others = (
        frozenset(text.replace("-", " ").split()) for text in (raw["verbs"], f"{raw['adjectives']} {raw['nouns']}")
    )
    return English(function=frozenset(raw["function"].split()), plain=verbs | others, verbs=verbs - others)


@cache
def register(platform: Platform) -> Register:
    """The register of a platform, read once."""
    raw = _raw(platform)

    def either(key: str) -> re.Pattern[str] | None:
        """What the words and the patterns of a key find; None where there are none."""
        words, patterns = _split(raw[key]), list(raw[f"{key}_patterns"])
        found = [*([_pattern(words, plural=True).pattern] if words else []), *patterns]
        return re.compile("|".join(f"(?:{pattern})" for pattern in found), re.IGNORECASE) if found else None

    unseen = either("unseen")
    assert unseen is not None
    return Register(
        unseen=unseen,
        seen=either("seen"),
        foreign_views=phrases(_split(raw["foreign_views"])),
    )


@cache
def version() -> str:
    """Version of the rules: a readable number and a hash of vocabulary and code, for example 'rules-1-3f2a90c1'."""
    digest = hashlib.sha256()
    room = HERE.parent
    code = (HERE / "reading.py", HERE / "instances.py", room / "rules.py", room / "thesaurus.py")
    gates = sorted((room / "gates").glob("*.py"))
    for path in (*(HERE / f"{name}.yaml" for name in ("lexicon", "english", *PLATFORMS)), *code, *gates):
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    digest.update((room / "lexicons" / "thesaurus.tsv.gz").read_bytes())
    return f"rules-{_raw('lexicon')['version']}-{digest.hexdigest()[:8]}"
