"""Reading a caption: its words, the scene facts they state, and what each colour, number and quality is said of.

This is word-level English, on purpose: it runs in tens of microseconds, and never depends on a model. A fact is a
`Mention` of a concept of the lexicon; a colour, material, number or quality carries the things it is said of, its
heads.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from refine.registers import english, lexicon

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]", re.UNICODE)
BREAKS = frozenset(".;:!?")
# "buildingThe", "building.The": real captions lack a stop, or the space after one.
_GLUED = re.compile(
    r"(?<=[a-z])(?=(?:The|There|This|These|In|On|It|Its|An?|At|To|Near|Next|Several|Some|Two|Three|Many)\b[ ,])"
)
_UNSPACED = re.compile(r"(?<=[a-z]{2}[.!?])(?=[A-Z][a-z]* )")


def words_of(text: str) -> frozenset[str]:
    """The words of a blank-separated list."""
    return frozenset(text.split())


NUMBERS = {
    "single": 1, "two": 2, "pair": 2, "couple": 2, "twin": 2, "double": 2, "both": 2, "three": 3, "triple": 3,
    "trio": 3, "four": 4, "quartet": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12,
    "dozen": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
    "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90, "hundred": 100, "thousand": 1000,
}  # fmt: skip
TENS = frozenset({20, 30, 40, 50, 60, 70, 80, 90})
FRACTIONS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fifth": 5, "fifths": 5}
DETERMINERS = words_of(
    "a an the its their this that these those his her some any no each every either both another other several many "
    "few all one two three four five six seven eight nine ten more"
)
ARTICLES = frozenset({"a", "an", "the", "its", "their", "another"})
DEFINITE = frozenset({"the", "its", "their", "this", "that", "these", "those", "his", "her"})
IRREGULAR = {
    "leaves": "leaf", "roofs": "roof", "shelves": "shelf", "halves": "half", "buses": "bus", "people": "people",
    "axes": "axis", "lay": "lie", "lying": "lie", "lies": "lie", "lain": "lie", "ran": "run", "held": "hold",
    "built": "build",
    "seen": "see", "saw": "see", "stood": "stand", "rose": "rise", "risen": "rise", "grew": "grow", "grown": "grow",
    "hung": "hang", "led": "lead", "met": "meet", "shown": "show", "taken": "take", "took": "take", "drawn": "draw",
    "left": "leave", "made": "make", "laid": "lay", "overgrown": "overgrow", "glimpsed": "glimpse", "fallen": "fall",
    "worn": "wear", "bent": "bend", "wound": "wind", "hidden": "hide", "strewn": "strew", "overlain": "overlie",
    "woven": "weave", "men": "men", "women": "women", "children": "children", "stories": "story", "storeys": "storey",
}  # fmt: skip
PREPOSITIONS = words_of(
    "of in on at by to from with without within into onto upon over under above below beneath between among amid "
    "beside beyond across along around near behind through towards toward past against inside outside off for like"
)
BE = words_of("is are was were be being been has have looks look appears appear and or but which that who")


@dataclass(frozen=True, slots=True)
class Mention:
    """One fact word: the index of its token, its kind, its concept, and (for attributes) the concepts it is said of."""

    at: int
    kind: str
    concept: str
    heads: frozenset[str] = frozenset()
    sentence: int = 0


@dataclass(frozen=True)
class Reading:
    """A text read: lower-case tokens (words and punctuation), their originals, the mentions, the unknown nouns."""

    text: str
    tokens: tuple[str, ...]
    originals: tuple[str, ...]
    sentences: tuple[int, ...]
    mentions: tuple[Mention, ...]
    stems: frozenset[str]
    strangers: tuple[str, ...]
    denied: frozenset[str]
    objects: frozenset[str]
    words: str

    def of(self, kind: str) -> list[Mention]:
        return [mention for mention in self.mentions if mention.kind == kind]


@lru_cache(maxsize=20_000)
def stems(word: str) -> tuple[str, ...]:
    """The word and its possible base forms, the likeliest first: 'hedges' -> hedges, hedge, hedg."""
    found = [word]
    if word in IRREGULAR:
        found.append(IRREGULAR[word])
    word = re.sub(r"['’]s?$", "", word)
    found.append(word)
    if word.endswith("ies") and len(word) > 4:
        found.append(word[:-3] + "y")
    if word.endswith("es") and len(word) > 4:
        found += [word[:-1], word[:-2]]
    elif word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        found.append(word[:-1])
    for ending in ("ing", "ed", "er", "est", "ly", "ish", "en"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            base = word[: -len(ending)]
            found += [base, base + "e"]
            if len(base) > 2 and base[-1] == base[-2]:
                found.append(base[:-1])
            if base.endswith("i"):
                found.append(base[:-1] + "y")
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=20_000)
def _senses(phrase: str) -> tuple[tuple[str, str], ...]:
    """Senses of a word or phrase; only its last word may be inflected (one word: only -s, -ed and possessives)."""
    lexemes = lexicon().senses
    if phrase in lexemes:
        return lexemes[phrase]
    head, _, last = phrase.rpartition(" ")
    if last.endswith(("er", "est", "ly", "en", "ing", "ish", "ed")):
        return ()
    for stem in stems(last):
        senses = lexemes.get(f"{head} {stem}".strip())
        if senses and len(stem) > 2:
            return senses
    return ()


@lru_cache(maxsize=20_000)
def _qualities(word: str) -> tuple[tuple[str, int], ...]:
    table = lexicon().qualities
    return next((table[stem] for stem in stems(word) if stem in table), ())


@lru_cache(maxsize=20_000)
def plain(word: str) -> bool:
    """True for a word that states no scene fact: function words, general verbs, adjectives, relational nouns."""
    known = english()
    return any(
        stem in known.function or stem in known.plain or stem in lexicon().relations or stem in lexicon().generic
        for stem in stems(word)
    )


@lru_cache(maxsize=20_000)
def known(word: str) -> bool:
    """True for a word of our English: plain, or anything of the lexicon."""
    return plain(word) or bool(_senses(word)) or bool(_qualities(word)) or word in NUMBERS or word.isdigit()


def number(word: str) -> int | None:
    """The count a word or a figure names, or None; 'one' is an article more often than a count, and gives None."""
    if word.isascii() and word.isdigit():
        return int(word[:9]) if word != "1" else None
    return NUMBERS.get(word)


def _is_noun(tokens: tuple[str, ...], at: int, end: int) -> bool:
    """Whether an ambiguous word stands as a noun: a determiner, number, adjective, colour or preposition before it."""
    before = tokens[at - 1] if at else ""
    after = tokens[end] if end < len(tokens) else "."
    if before in {"-", "", ".", ";", ":"} or after == "of":
        return True
    if not before[0].isalnum() or after in ARTICLES or (tokens[at].endswith("ed") and after in PREPOSITIONS):
        return False
    if before in DETERMINERS or number(before) is not None:
        return True
    if before in PREPOSITIONS:
        return not after[:1].isalnum() or after in PREPOSITIONS or after in BE
    if any(kind in ("colour", "material") for kind, _ in _senses(before)) or _qualities(before):
        return True
    return before.endswith("ed") or (before.endswith(("ing", "al", "ous", "ar")) and not _senses(before))


def _scan(tokens: tuple[str, ...]) -> list[tuple[int, int, str, str]]:
    """Object, colour and material words as (start, end, kind, concept); the longest phrase wins."""
    lex = lexicon()
    found: list[tuple[int, int, str, str]] = []
    at = 0
    while at < len(tokens):
        if not tokens[at][0].isalnum():
            at += 1
            continue
        words: list[str] = []
        ends: list[int] = []
        look = at
        longest = lex.phrases.get(tokens[at], 1)
        while look < len(tokens) and len(words) < longest:
            if tokens[look] == "-":
                look += 1
                continue
            if not tokens[look][0].isalnum():
                break
            words.append(tokens[look])
            look += 1
            ends.append(look)
        for size in range(len(words), 0, -1):
            senses = _senses(" ".join(words[:size]))
            if not senses:
                continue
            if size == 1 and words[0] == "tile" and at and tokens[at - 1] in {"the", "this", "whole"}:
                continue  # the satellite image
            tone = words[0] in {"shade", "shades"} and at and any(k == "colour" for k, _ in _senses(tokens[at - 1]))
            if size == 1 and tone:
                continue  # a shade of a colour, no shadow
            if size == 1 and words[0] in lex.ambiguous and not _is_noun(tokens, at, ends[0]):
                continue
            found += [(at, ends[size - 1], kind, concept) for kind, concept in senses]
            at = ends[size - 1]
            break
        else:
            at += 1
    return found


def related(one: str, other: str) -> bool:
    """True when the concepts are the same, or one is a broader word for the other."""
    broader = lexicon().broader
    return one == other or other in broader.get(one, ()) or one in broader.get(other, ())


def _modifier(tokens: tuple[str, ...], at: int, kinds: dict[int, set[str]]) -> bool:
    """Words that may stand between an adjective and its noun."""
    word = tokens[at]
    if word in {"-", ",", "and", "or", "but"} or (at and tokens[at - 1] == "-") or kinds.get(at, set()) & {"colour"}:
        return True
    if word in PREPOSITIONS or word in BE or word in DETERMINERS - NUMBERS.keys():
        return False
    return bool(
        _qualities(word)
        or word in NUMBERS
        or (word in english().plain and word not in lexicon().generic)
        or word.endswith(("ly", "ed", "ish", "ing", "like", "shaped", "er"))
    )


def mend_stops(text: str) -> str:
    """The text with the stop or the space that is missing between two sentences."""
    return _UNSPACED.sub(" ", _GLUED.sub(". ", text))


@lru_cache(maxsize=4_096)
def read(text: str) -> Reading:
    """Read a text of any language and any shape; unknown words are kept, never an error."""
    pieces = WORD.findall(text)
    originals = tuple(pieces)
    tokens = tuple(piece.lower().replace("’", "'") for piece in pieces)
    sentences: list[int] = []
    sentence = 0
    for token in tokens:
        sentences.append(sentence)
        if token in {".", "!", "?"}:
            sentence += 1
    found = _scan(tokens)
    kinds: dict[int, set[str]] = {}
    nouns: dict[int, list[str]] = {}
    covered: set[int] = set()
    for start, end, kind, concept in found:
        kinds.setdefault(start, set()).add(kind)
        covered.update(range(start, end))
        if kind in ("object", "material"):
            nouns.setdefault(start, []).append(concept)
    ends = {start: end for start, end, _, _ in found}
    noun_at = {at: start for start in nouns for at in range(start, ends[start])}
    mentions = [Mention(s, k, c, sentence=sentences[s]) for s, _, k, c in found if k == "object"]
    last_object: list[tuple[int, list[str]]] = [(s, nouns[s]) for s in sorted(nouns) if "object" in kinds[s]]

    def one_means(at: int) -> list[str]:
        for start, concepts in reversed(last_object):
            if start < at and sentences[at] - sentences[start] <= 1:
                return concepts
        return []

    def heads(start: int, end: int, kind: str) -> frozenset[str]:
        """What the attribute at tokens [start, end) is said of: the noun it precedes, else the one it follows."""
        out: list[str] = []
        at, steps = end, 0
        material = kind == "material"
        if tokens[at : at + 1] == ("of",):  # a pair of …
            at += 1
        while at < len(tokens) and steps < 9:
            word = tokens[at]
            if at in nouns and at != start:
                out += nouns[at]
                if kind == "number" and tokens[at - 1] == "-":
                    break
                at = ends[at]
                following = tokens[at] if at < len(tokens) else "."
                if at in nouns or following == "-":
                    continue
                if kinds.get(at) or (tokens[at - 1].endswith("ed") and following.isalpha()):
                    steps += 1
                    if following not in PREPOSITIONS and following not in BE and following != "and":
                        continue
                break
            if word in {"one", "ones"}:
                out += ["one", *one_means(start)]
                break
            beside = tokens[at + 1] if at + 1 < len(tokens) else "."
            adjective = word in _QUALITY_NOUNS and (
                at + 1 in nouns or beside == "-" or bool(_qualities(beside)) or bool(kinds.get(at + 1))
            )
            if word in lexicon().generic and not adjective:
                out.append("generic")
                if at + 1 < len(tokens) and tokens[at + 1] == "of":
                    at += 2
                    steps += 1
                    while at < len(tokens) and tokens[at] in DETERMINERS:
                        at += 1
                    continue
                if at + 1 in nouns:
                    at += 1
                    continue
                break
            if not _modifier(tokens, at, kinds):
                break
            more = kinds.get(at + (2 if beside == "-" else 1), set()) & (
                _ATTRIBUTES - ({"colour"} if material else set())
            )
            if word in {",", "and", "or", "but"} and not more and (material or not _qualities(beside)):
                break
            at += 1
            steps += 1
        before = start - 1
        while (
            before >= max(0, start - 12)
            and _modifier(tokens, before, kinds)
            and tokens[before] not in {",", "and", "or", "but"}
        ):
            before -= 1
        of = before >= 0 and tokens[before] == "of"
        if material and not of:
            return frozenset(head for head in out if not head.startswith("material"))
        if material:
            out = []
        if before >= 0 and tokens[before] == "in" and not out:  # edged in red: the edge, or the thing
            out.append("generic")
            of = True
        if not out or (of and out == ["generic"]) or (of and all(head.startswith("material") for head in out)):
            look, hops = before, 0
            while look >= 0 and hops < 12 and tokens[look] not in BREAKS:
                match = noun_at.get(look)
                if match is not None and "object" in kinds[match]:
                    out += nouns[match]
                    break
                if tokens[look] in lexicon().generic:
                    out.append("generic")
                    break
                look -= 1
                hops += 1
        return frozenset(out)

    for start, end, kind, concept in found:
        if kind in ("colour", "material"):
            mentions.append(Mention(start, kind, concept, heads(start, end, kind), sentences[start]))
    at = 0
    while at < len(tokens):
        word = tokens[at]
        value = number(word)
        following = tokens[at + 1] if at + 1 < len(tokens) else ""
        if (value or word in {"one", "a"}) and following in FRACTIONS and following != "half":
            concept = f"{value or 1}/{FRACTIONS[following]}"
            mentions.append(Mention(at, "fraction", concept, frozenset(), sentences[at]))
            at += 2
            continue
        if value is not None and tokens[at + 1 : at + 3] == ("-", "sided"):
            at += 1
            continue  # a shape
        if value is not None:
            end = at + 1
            if value in TENS and end + 1 < len(tokens) and tokens[end] == "-" and (ones := number(tokens[end + 1])):
                value, end = value + ones, end + 2
            elif following == "dozen":
                value, end = value * 12, end + 1
            elif following in {"hundred", "thousand"}:
                value, end = value * NUMBERS[following], end + 1
            mentions.append(Mention(at, "number", str(value), heads(at, end, "number"), sentences[at]))
            at = end
            continue
        for axis, side in _qualities(word):
            mentions.append(Mention(at, "quality", f"{axis}:{side}", heads(at, at + 1, "quality"), sentences[at]))
        at += 1
    denied = _denied(tokens, nouns)
    words = " ".join(token for token in tokens if token[0].isalnum())
    objects = frozenset(m.concept for m in mentions if m.kind == "object")
    bases = frozenset(stem for token in tokens if token[0].isalnum() for stem in stems(token))
    return Reading(
        text, tokens, originals, tuple(sentences), tuple(mentions), bases,
        tuple(_strangers(tokens, originals, covered)), denied, objects, f" {words} ",
    )  # fmt: skip


_QUALITY_NOUNS = frozenset({"square", "oval", "light", "main", "top", "round"})
_ATTRIBUTES = frozenset({"colour", "material"})
_DENIERS = frozenset({"no", "without", "never", "none", "lacks", "lacking", "lack", "neither", "nor", "not", "hardly"})


def _denied(tokens: tuple[str, ...], nouns: dict[int, list[str]]) -> frozenset[str]:
    """Concepts a text says are not there: 'no cars', 'bare of trees', 'without any windows', 'doorless'."""
    out: set[str] = set()
    for at, token in enumerate(tokens):
        if token in lexicon().denied:
            out.add(lexicon().denied[token])
        bare = token in {"bare", "devoid", "free", "empty", "absence"} and tokens[at + 1 : at + 2] == ("of",)
        if token not in _DENIERS and not bare:
            continue
        if token == "not" and tokens[at + 1 : at + 2] == ("only",):
            continue
        for look in range(at + 1, min(at + 7, len(tokens))):
            if tokens[look] in BREAKS or tokens[look] in {",", "but"}:
                break
            if look in nouns:
                out.update(nouns[look])
                break
    return frozenset(out)


def _strangers(tokens: tuple[str, ...], originals: tuple[str, ...], covered: set[int]) -> Iterable[str]:
    """Words that no list knows, standing where a new noun stands: at a phrase's end, after no definite determiner."""
    for at, token in enumerate(tokens):
        if at in covered or not token[0].isalpha() or len(token) < 3 or known(token):
            continue
        if token.endswith(("ly", "ing", "ed", "ish", "like", "ous", "ful", "less", "est")):
            continue
        after = tokens[at + 1] if at + 1 < len(tokens) else "."
        closes = not after[0].isalnum() or after in PREPOSITIONS or after in BE or (after[-1] == "s" and plain(after))
        if token[-1] == "s" and at - 1 in covered and after in DETERMINERS | PREPOSITIONS:
            continue  # a verb behind its subject
        start = at - 1
        while (
            start >= 0
            and tokens[start] not in DETERMINERS | PREPOSITIONS | BE
            and (tokens[start] == "-" or _senses(tokens[start]) or plain(tokens[start]))
        ):
            start -= 1
        opens = start < 0 or tokens[start] not in DEFINITE
        if opens and closes and (after != "-" or not originals[at].islower()):
            yield token
