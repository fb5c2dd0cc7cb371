"""Reading a caption: its words, the scene facts they state, and what each colour, number and quality is said of.

This is word-level English, on purpose: it runs in tens of microseconds, and never depends on a model. A fact is a
`Mention` of a concept of the lexicon; a colour, material, number or quality carries the things it is said of, its
heads.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import accumulate, pairwise

from refine.registers import Phrases, english, lexicon
from refine.thesaurus import (
    above,
    akin,
    bases,
    is_kind_of,
    is_person,
    is_seen,
    is_trade,
    is_word,
    mostly,
    names_thing,
    opens_compound,
    senses,
    uses,
)

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
    "single": 1, "lone": 1, "solitary": 1,
    "two": 2, "pair": 2, "couple": 2, "twin": 2, "double": 2, "both": 2, "three": 3, "triple": 3,
    "duo": 2, "trio": 3, "four": 4, "quartet": 4, "five": 5, "quintet": 5, "six": 6, "sextet": 6,
    "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "dozen": 12, "thirteen": 13,
    "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
    "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90, "hundred": 100, "thousand": 1000,
}  # fmt: skip
ALONE = frozenset({"single", "lone", "solitary"})
# How many there are goes without saying, or a thing has two of its kind in it: a double door is one.
UNCOUNTED = ALONE | {"both", "double", "twin"}
_COUNTING = NUMBERS.keys() | {"one", "a", "quadrant", "quadrants"}
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
_PLURALS = words_of("men women people children")
PREPOSITIONS = words_of(
    "of in on at by to from with without within into onto upon over under above below beneath between among amid "
    "beside beyond across along around near behind through towards toward past against inside outside off for like"
)
PARTICLES = words_of("back out up down away forward back together apart over round off about")
_RELATIVE = words_of("that which who")
_CLAUSE_ENDS = _RELATIVE | words_of("and or but while whereas where")
LONGEST_CLAUSE = 60  # tokens to either side; what has no end costs no more
_BREAKS_CLAUSE = BREAKS | {","}
_JOINS_CLAUSES = words_of("and while but whereas")
_COPULAS = words_of(
    "is are was were looks appears seems being stands stand lies lie sits sit remains remain stays stay"
)
_LINKS = words_of("and or but which that who")
_OPENS_PHRASE = PREPOSITIONS | DETERMINERS | words_of("is are was were and or but while")
BE = words_of("is are was were be being been has have looks look appears appear and or but which that who")


@dataclass(frozen=True, slots=True)
class Mention:
    """One fact word: its first token, its kind, its concept, and (for attributes) the concepts it is said of.

    An attribute is `firm` when it stands before its noun ("a white roof"); else ("the roof of the hall is white") its
    `heads` are the likeliest, and `loose` are all nouns of the clause, any of which it may be said of. It is `sure`
    when no other reading is left: its one noun follows at once, or is the only noun of a clause with "is".
    """

    at: int
    kind: str
    concept: str
    heads: frozenset[str] = frozenset()
    sentence: int = 0
    end: int = 0
    firm: bool = True
    loose: frozenset[str] = frozenset()
    sure: bool = False


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
    things: tuple[tuple[str, str], ...]
    denied: frozenset[str]
    objects: frozenset[str]
    words: str
    parsed: "_Words"

    @cached_property
    def content(self) -> tuple[str, ...]:
        """The words that carry meaning, once each, in order."""
        function = english().function
        found = (t for t in self.tokens if t[0].isalpha() and t not in function)
        return tuple(dict.fromkeys(re.sub(r"'s?$", "", t) if "'" in t else t for t in found))

    @cached_property
    def content_stems(self) -> frozenset[str]:
        """The stems of the words that carry meaning."""
        return frozenset(stem for word in self.content for stem in stems(word))

    @cached_property
    def concepts_at(self) -> dict[int, tuple[str, ...]]:
        """Token -> the concepts of the words that start there."""
        found: dict[int, tuple[str, ...]] = {at: tuple(concepts) for at, concepts in self.parsed.nouns.items()}
        for mention in self.mentions:
            if mention.concept not in found.get(mention.at, ()):
                found[mention.at] = (*found.get(mention.at, ()), mention.concept)
        return found

    @cached_property
    def joined(self) -> frozenset[str]:
        """Words side by side written as one, and the words themselves: rollercoaster of "roller coaster"."""
        plain_ones = [token for token in self.tokens if token[0].isalpha()]
        return frozenset(one + base for one, two in pairwise(plain_ones) for base in stems(two)).union(plain_ones)

    @cached_property
    def nominal(self) -> tuple[str, ...]:
        """The words of the content that may name something: not "light" where it only stands before nouns."""
        return tuple(word for word in self.content if not _qualities(word) or self._stands_alone(word))

    def _stands_alone(self, word: str) -> bool:
        w = self.parsed
        behind = [at + 1 for at, token in enumerate(self.tokens) if token == word]
        return any(at not in w.nouns and w.token(at) != "-" and not w.modifier(at) for at in behind)

    @cached_property
    def pairs(self) -> tuple[str, ...]:
        """Two words side by side that name one thing: hard hat."""
        open_ones = ((one, two) for one, two in pairwise(self.tokens) if one in opens_compound())
        found = (f"{one} {next(iter(bases(two, 'n')), two)}" for one, two in open_ones)
        return tuple(dict.fromkeys(pair for pair in found if senses(pair, "n")))

    @cached_property
    def named(self) -> tuple[tuple[int, str], ...]:
        """The things of the text, those outside the lexicon among them, as (token, concept) in order."""
        w = self.parsed
        return tuple((at, concept) for at in sorted(w.nouns) if w.is_object(at) for concept in w.nouns[at])

    @cached_property
    def plurals(self) -> frozenset[str]:
        """The nouns in the singular of which the text has the plural."""
        return frozenset(base for token in self.tokens for base in bases(token, "n") if base != token)

    @cached_property
    def openers(self) -> frozenset[str]:
        """The words, and every two side by side; of one with an apostrophe the letters alone too, and those before it.

        Of "it can't" it, can't, cant and can, and with each of them "it can't", "it cant" and "it can".
        """
        forms = [
            (token, token.replace("'", ""), token.partition("'")[0]) if "'" in token else (token,)
            for token in self.tokens
            if token != "-"
        ]
        pairs = {f"{a} {b}" for one, two in pairwise(forms) for a in one for b in two}
        return frozenset(pairs.union(*forms))

    def find(self, phrases: Phrases) -> Iterator[re.Match[str]]:
        """The phrases in the text, from left to right."""
        if self.words.isascii() and phrases.openers.isdisjoint(self.openers):  # "ſ" is an s where case is ignored
            return iter(())
        return phrases.pattern.finditer(self.text)

    def has(self, phrases: Phrases) -> bool:
        """Whether the text has any of the phrases."""
        return any(self.find(phrases))

    @cached_property
    def landmarks(self) -> tuple[frozenset[str], ...]:
        """Of every token what its neighbours may be told by: its stem if it carries meaning, and its concepts."""
        function = english().function
        marks = [_mark(token) if token not in function else frozenset() for token in self.tokens]
        for at, concepts in self.concepts_at.items():
            marks[at] = marks[at].union(concepts)
        return tuple(marks)

    def said_of(self, at: int) -> frozenset[str]:
        """The concepts that the adjective or participle at that token is most likely said of."""
        return _said_of(self.parsed, at, at + 1, "quality")[0]

    def sentence_of(self, at: int) -> tuple[str, ...]:
        """The tokens of the sentence that the token stands in."""
        same = self.sentences[at]
        return tuple(token for token, sentence in zip(self.tokens, self.sentences, strict=True) if sentence == same)

    def words_at(self, mention: Mention) -> str:
        """The words of a mention, one blank apart."""
        return " ".join(t for t in self.tokens[mention.at : max(mention.end, mention.at + 1)] if t != "-")

    @cached_property
    def _by_kind(self) -> dict[str, list[Mention]]:
        found: dict[str, list[Mention]] = {}
        for mention in self.mentions:
            found.setdefault(mention.kind, []).append(mention)
        return found

    def of(self, kind: str) -> list[Mention]:
        """The mentions of a kind, in their order."""
        return self._by_kind.get(kind, []).copy()


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
        found += [word[:-1], word[:-2]] if word[:-2].endswith(("s", "x", "z", "ch", "sh", "o")) else [word[:-1]]
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
def _mark(word: str) -> frozenset[str]:
    """The likeliest stem of a word, alone; nothing of a figure or a punctuation mark."""
    return frozenset(stems(word)[-1:] if word[0].isalpha() else ())


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
    # Who angles or swims is somebody, though to angle and to swim say little.
    forms = (word, *bases(word, "n")) if word.rstrip("s").endswith("er") and is_person(word) else stems(word)
    return any(
        form in known.function or form in known.plain or form in lexicon().relations or form in lexicon().generic
        for form in forms
    )


@lru_cache(maxsize=20_000)
def known(word: str) -> bool:
    """True for a word of our English: plain, or anything of the lexicon."""
    return plain(word) or bool(_senses(word)) or is_word(word) or word in NUMBERS or word.isdigit()


def number(word: str) -> int | None:
    """The count a word or a figure names, or None; 'one' is an article more often than a count, and gives None."""
    if word.isascii() and word.isdigit():
        return int(word[:9]) if word != "1" else None
    return NUMBERS.get(word)


def _is_noun(tokens: tuple[str, ...], at: int, end: int) -> bool:
    """Whether a word that is a noun or a verb stands as a noun: judged by its neighbours."""
    before = tokens[at - 1] if at else ""
    after = tokens[end] if end < len(tokens) else "."
    if before in {"-", "", ".", ";", ":"} or after == "of":
        return True
    if before == "," and is_plural(tokens[at]) and mostly(after, "v") and after in bases(after, "v"):
        return True  # "tanks stand in rows, pipes run to"
    opener = next((word for word in reversed(tokens[max(0, at - 4) : at]) if word not in DETERMINERS), "")
    if before in DETERMINERS and opener in PREPOSITIONS:
        return True  # "on the other bank a station"
    if not before[0].isalnum() or after in ARTICLES or (tokens[at].endswith("ed") and after in PREPOSITIONS):
        return False
    if before in {"that", "which", "who"} and at > 1 and tokens[at - 2] not in PREPOSITIONS and tokens[at][-1] == "s":
        return after not in PARTICLES  # a complex that steps back
    if (
        before in DETERMINERS
        or before == "whose"
        or before in BE - _LINKS
        or number(before) is not None
        or before.endswith("'s")
    ):
        return True
    if before in PREPOSITIONS:
        return after not in DETERMINERS
    finite = after[-1] == "s" and uses(after, "v") and DETERMINERS.issuperset(tokens[end + 1 : end + 2] or ".")
    if finite and "s" not in (before[-1], tokens[at][-1]) and uses(before, "n"):
        return True  # a pedestrian bridge links two
    if any(kind in ("colour", "material") for kind, _ in _senses(before)) or _qualities(before):
        return True
    if at > 1 and tokens[at - 2] in ARTICLES and before[-1] != "s" and uses(before, "n") and tokens[at][-1] != "s":
        return True  # a dirt track
    if before == "and" and at > 1:  # white and red shops, a lawn and steps
        one = tokens[at - 2]
        listed = one not in lexicon().ambiguous and one not in english().verbs
        return any(kind == "colour" or (kind == "object" and listed) for kind, _ in _senses(one))
    if before[-1] != "s" and any(kind == "object" for kind, _ in _senses(before)) and _mainly_noun(tokens[at]):
        return True
    return (
        before.endswith("ed")
        or before in _MADE
        or (before.endswith(("ing", "al", "ous", "ar")) and not _senses(before))
        or (mostly(before, "a") and not mostly(before, "r"))
    )


def _mainly_noun(word: str) -> bool:
    return uses(word, "n") > 3 * (0 if word.endswith("ing") else uses(word, "v"))


def _stands_up(tokens: tuple[str, ...], at: int) -> bool:
    """Whether a noun is the verb of the noun before it: "a front with silver panels towers over", "boats dock at"."""
    word, before = tokens[at], tokens[at - 1] if at else ""
    after = tokens[at + 1] if at + 1 < len(tokens) else "."
    if _names_colour(tokens, at):
        return False
    if _only_verb(tokens, at):
        return True
    if after == "out" and word in bases(word, "v") and at and is_plural(before):
        return True  # piles stick out
    if before == "," and uses(word, "v") and after in PREPOSITIONS and word[-1] != "s":
        return True  # "buildings, still shells, tower beside"
    if after in ARTICLES and set(tokens[at + 3 : at + 5]) & _COPULAS and mostly(word, "n"):
        return False  # "the stadiums roof the stadium is": a stop is missing
    seldom = uses(word, "v") < (1 if after in ARTICLES else 2)
    if after == "of" or seldom or after not in PREPOSITIONS | ARTICLES | PARTICLES or not before.isalpha():
        return False
    noun_before = uses(before, "n") or not is_word(before)
    if after in ARTICLES and word[-1] == "s" and uses(word, "v") and noun_before and before not in DETERMINERS:
        return True  # "at its back towers a hall", "sedum clothes the roof"
    own = _senses(before)
    if _qualities(before) and not own:
        return False  # flat roofs
    of_matter = at > 1 and tokens[at - 2] == "of"  # "a parapet of brick slopes down"
    kinds = {"object", "material"} if of_matter or is_plural(before) else {"object"}  # tiles roof a square
    named = any(kind in kinds for kind, _ in own) if own else names_thing(before)
    return named and (word[-1] == "s" or is_plural(before))


def _agrees(tokens: tuple[str, ...], at: int) -> bool:
    """Whether a word may be the finite verb of what stands before it: "a marquee shelters", "that overhang"."""
    word, before = tokens[at], tokens[at - 1] if at else ""
    if not uses(word, "v") or word.endswith(("ed", "ing")) or not before.isalpha() or _names_colour(tokens, at):
        return False
    if before in _RELATIVE:
        return at < 2 or tokens[at - 2] not in PREPOSITIONS
    if word[-1] == "s" and word in bases(word, "v"):
        return False  # a bus
    if before == "and":
        return word[-1] == "s" and _verbal(word) > 2  # "is half open and shows hay bales"
    if (before.endswith("ed") and not uses(before, "n")) or (
        uses(before, "a") > uses(before, "n") and not _senses(before)
    ):
        return False  # red-tiled slopes, short wings
    if any(kind == "colour" for kind, _ in _senses(before)):
        return False  # white tanks
    if before in DETERMINERS or before in PREPOSITIONS or not (uses(before, "n") or _senses(before)):
        return False
    if at > 2 and tokens[at - 2] in PREPOSITIONS and is_plural(tokens[at - 3]) and word[-1] != "s":
        return True  # nets for fishing drape
    of = next((n for n in range(at - 2, max(at - 5, 0), -1) if tokens[n] == "of"), 0)
    if of and word[-1] == "s" and not is_plural(tokens[of - 1]):
        return True  # a line of school buses waits
    return (word[-1] == "s") != is_plural(before)


def is_plural(word: str) -> bool:
    """Whether a noun is a plural by its form."""
    return word in _PLURALS or (word[-1] == "s" and word not in bases(word, "n")[:1])


def _only_verb(tokens: tuple[str, ...], at: int) -> bool:
    """Whether a noun is the likeliest verb of a clause without a sure one: "a marquee shelters part of the terrace"."""
    word, after = tokens[at], tokens[at + 1] if at + 1 < len(tokens) else "."
    low, high = at, at + 1
    while low and tokens[low - 1] not in _CLAUSE_ENDS and tokens[low - 1][0].isalnum():
        low -= 1
    done = low and tokens[low - 1] in _RELATIVE and tokens[low] in ARTICLES  # which the edge of the image crops
    if after == "of" or (not done and (not after[0].isalnum() or after in _CLAUSE_ENDS)) or not _agrees(tokens, at):
        return False
    if tokens[low] == "with":
        return False  # "…, with white milk tanks in a row"
    while high < len(tokens) and tokens[high] not in _CLAUSE_ENDS and tokens[high][0].isalnum():
        high += 1
    others = [n for n in range(low, high) if n != at and tokens[n] not in PARTICLES]
    sure = any(
        tokens[n] in BE or (uses(tokens[n], "v") and not uses(tokens[n], "n") and not tokens[n].endswith(("ed", "ing")))
        for n in others
    )
    if tokens[low] in PREPOSITIONS:  # "on the far bank rise warehouses"
        sure = sure or any(mostly(tokens[n], "v") and tokens[n] in bases(tokens[n], "v") for n in others)
    return not sure and not any(_agrees(tokens, n) and _verbal(tokens[n]) >= _verbal(word) for n in others)


def _verbal(word: str) -> float:
    """How much oftener a word is a verb than a noun."""
    return uses(word, "v") / (1 + uses(word, "n"))


def _scan(tokens: tuple[str, ...]) -> list[tuple[int, int, str, str]]:
    """Object, colour and material words as (start, end, kind, concept); the longest phrase wins."""
    lex = lexicon()
    surfaces = {"roof", "roofs", "surface", "surfaces", "tilted", "folded"}
    compounds = opens_compound()
    found: list[tuple[int, int, str, str]] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if not token[0].isalnum():
            at += 1
            continue
        longest = lex.phrases.get(token, 1)
        phrase = _named_pair(token, tokens[at + 1]) if token in compounds and at + 1 < len(tokens) else ""
        if longest == 1 and not phrase and not _senses(token):
            at += 1
            continue
        words = [token]
        ends = [look := at + 1]
        while look < len(tokens) and len(words) < longest:
            if tokens[look] == "-":
                look += 1
                continue
            if not tokens[look][0].isalnum():
                break
            words.append(tokens[look])
            look += 1
            ends.append(look)
        if phrase:
            found.append((at, at + 2, "thing", f"thing:{phrase}"))
            at += 2
            continue
        for size in range(len(words), 0, -1):
            places = _senses(" ".join(words[:size]))
            if not places:
                continue
            if words[0] in {"lot", "lots"} and tokens[at + 1 : at + 2] == ("of",):
                continue  # many
            if at and (_word_before(tokens, at), words[0]) in {("next", "door"), ("in", "front")}:
                continue
            if words[0] == "plastered" and tokens[at + 1 : at + 2] == ("with",):
                continue  # with posters
            if words[0] in {"plane", "planes"} and not surfaces.isdisjoint(tokens):
                continue  # of a roof
            if words[0] in {"foot", "feet"} and at and number(_word_before(tokens, at)):
                continue  # a five-foot way
            if words[1:size] == ["light"] and _coloured(tokens, ends[1]):
                continue  # "its roof light grey"
            if size == 1 and words[0] in {"case", "cases"} and "in" in tokens[max(0, at - 2) : at]:
                continue  # in some cases
            shown = words[0] == "tile" and (
                {"the", "this", "whole"} & set(tokens[max(0, at - 1) : at]) or "this" in tokens[max(0, at - 2) : at]
            )
            if size == 1 and shown:
                continue  # the satellite image, this dark tile
            if size == 1 and words[0] in {"shade", "shades"} and _of_colour(tokens, at):
                continue  # a shade of a colour, no shadow
            if size == 1 and words[0] in lex.ambiguous and not _is_noun(tokens, at, ends[0]):
                continue
            if size == 1 and _stands_up(tokens, at):
                continue
            if size == 1 and tokens[ends[0] : ends[0] + 1] == ("-",) and _coloured(tokens, ends[0] + 1):
                places = tuple(place for place in places if place[0] == "colour")  # leaf-green is no leaf
                if not places:
                    continue
            alone = {"a", "an"} & set(tokens[max(0, at - 2) : at])
            if size > 1 and alone and words[size - 1] in lex.ambiguous and _stands_up(tokens, ends[size - 1] - 1):
                continue  # "a stadium stands in the background"
            behind = [word for word in tokens[ends[size - 1] : ends[size - 1] + 2] if word != "-"][:1]
            named = at > 1 and tokens[at - 1] == "of" and tokens[at - 2] in COLOURED  # the colour of brick
            if size == 1 and places[0][0] == "material" and (named or (behind and behind[0] in _TINTED)):
                likened = lex.senses.get(f"{words[0]} coloured", (("colour", f"colour:{words[0]}"),))
                found += [(at, ends[0], *place) for place in likened]  # brick-coloured is no brick
                at = ends[0]
                break
            plural = size == 1 and words[0] not in lex.senses  # roses are flowers
            found += [
                (at, ends[size - 1], kind, concept) for kind, concept in places if not (plural and kind == "colour")
            ]
            at = ends[size - 1]
            break
        else:
            at += 1
    return found


def _word_before(tokens: tuple[str, ...], at: int) -> str:
    """The word before the token, or before the hyphen before it: next of "next-door"."""
    return tokens[at - 2] if at > 1 and tokens[at - 1] == "-" else tokens[at - 1]


def _coloured(tokens: tuple[str, ...], at: int) -> bool:
    """Whether the token is the name of a colour."""
    return at < len(tokens) and any(kind == "colour" for kind, _ in _senses(tokens[at]))


def _names_colour(tokens: tuple[str, ...], at: int) -> bool:
    """Whether the token is a colour's name before it is a verb: cream, but not rose."""
    return _coloured(tokens, at) and not mostly(tokens[at], "v")


def _of_colour(tokens: tuple[str, ...], at: int) -> bool:
    """Whether a colour stands before the noun at that token, or behind it and "of"; or a count of shades does."""
    if tokens[at][-1] == "s" and any(word in _VARIOUS or number(word) for word in tokens[max(0, at - 2) : at]):
        return True  # paved in two shades, six pastel shades
    beside = [*tokens[max(0, at - 1) : at], *(tokens[at + 2 : at + 3] if tokens[at + 1 : at + 2] == ("of",) else ())]
    return any(kind == "colour" for word in beside for kind, _ in _senses(word))


@lru_cache(maxsize=50_000)
def _named_pair(first: str, second: str) -> str:
    """Two words that name one thing which is no kind of what the second word names: a baby carriage is no train."""
    base = next(iter(bases(second, "n")), "")
    phrase = f"{first} {base}"
    if not base or not is_seen(phrase) or phrase in lexicon().senses:
        return ""
    last = {concept for _, concept in _senses(base)}
    if any(up in senses(base, "n") for sense in senses(phrase, "n") for up in above(sense)):
        return ""
    return phrase if last and not last & broader(f"thing:{phrase}") else ""


@cache
def _named() -> dict[str, frozenset[str]]:
    """Thesaurus sense -> the object concepts whose words have that sense first."""
    found: dict[str, set[str]] = {}
    for words, places in lexicon().senses.items():
        meant = senses(words, "n")[:1]
        for kind, concept in places:
            if kind == "object" and meant and (is_seen(words) or is_kind_of(words, "person")):
                found.setdefault(meant[0], set()).add(concept)
    return {sense: frozenset(concepts) for sense, concepts in found.items()}


@lru_cache(maxsize=20_000)
def broader(concept: str) -> frozenset[str]:
    """The concept and every broader one; for a thing outside the lexicon by what the thesaurus calls a kind of what."""
    if not concept.startswith("thing:"):
        return lexicon().broader.get(concept, frozenset({concept}))
    named, meant = _named(), senses(concept.partition(":")[2], "n")[:2]
    wider = {up for sense in meant for kind in above(sense) for up in named.get(kind, ())}
    return frozenset({concept}).union(*(broader(up) for up in wider))


@lru_cache(maxsize=50_000)
def related(one: str, other: str) -> bool:
    """True when the concepts are the same, or one is a broader word for the other."""
    if one == other or other in broader(one) or one in broader(other):
        return True
    if one.startswith("thing:") and other.startswith("thing:"):
        mine, yours = one.partition(":")[2], other.partition(":")[2]
        return akin(mine, yours) or is_kind_of(mine, yours) or is_kind_of(yours, mine)
    return False


@lru_cache(maxsize=50_000)
def is_generic(word: str) -> bool:
    """A noun that names a stretch or a shape, in either number."""
    listed = lexicon().generic
    return word in listed or any(base in listed for base in bases(word, "n"))


def plain_words(text: str) -> str:
    """The words of a text in lower case, one blank apart and around: what `Reading.words` holds."""
    pieces = (piece.lower().replace("’", "'") for piece in WORD.findall(text))
    return f" {' '.join(piece for piece in pieces if piece[0].isalnum())} "


def mend_stops(text: str) -> str:
    """The text with the stop or the space that is missing between two sentences."""
    return _UNSPACED.sub(" ", _GLUED.sub(". ", text))


def spell_out(text: str) -> str:
    """The text with the noun that is left out of "a blue and an orange crane": "a blue crane and an orange crane"."""

    def both(found: re.Match[str]) -> str:
        one, two, noun, more = found.groups()
        phrase = f"{noun} {more}" if more else noun
        whole = phrase if _senses(phrase.lower()) else more if _attributive(noun.lower()) else noun
        tells = all(_attributive(words.lower().rpartition("-")[2].split()[-1]) for words in (one, two))
        if not tells or not whole or not (_senses(whole.lower()) or mostly(whole.lower(), "n")):
            return found.group()
        return f"{one} {whole} and {two} {phrase}"

    return _TWO_KINDS.sub(both, text)


def _attributive(word: str) -> bool:
    """Whether a word is a colour, a material or a quality of the lexicon."""
    return bool(_qualities(word)) or any(kind != "object" for kind, _ in _senses(word))


@lru_cache(maxsize=50_000)
def _modifies(word: str) -> bool:
    """Whether a word may stand between an adjective and its noun, whatever is beside it."""
    if not word[0].isalpha():
        return word.isdigit()
    if word in PREPOSITIONS or word in BE or word in DETERMINERS - NUMBERS.keys() or word in lexicon().generic:
        return False
    if _qualities(word) or word in NUMBERS or word.endswith(("ly", "ed", "ish", "ing", "like", "shaped")):
        return True
    verb = mostly(word, "v") and word in bases(word, "v")
    return uses(word, "a") > 0 and not (mostly(word, "n") or verb)


@dataclass(frozen=True)
class _Words:
    """A text's tokens with its nouns found: start of a noun -> its concepts, every token of a noun -> its start."""

    tokens: tuple[str, ...]
    sentences: tuple[int, ...]
    kinds: dict[int, set[str]]
    nouns: dict[int, list[str]]
    ends: dict[int, int]
    noun_at: dict[int, int]

    @cached_property
    def breaks(self) -> list[int]:
        """The tokens that part two clauses: stops, commas, and a conjunction that opens one."""
        return [
            at
            for at, word in enumerate(self.tokens)
            if word in _BREAKS_CLAUSE or (word in _JOINS_CLAUSES and self.token(at + 1) in DETERMINERS)
        ]

    def token(self, at: int) -> str:
        return self.tokens[at] if 0 <= at < len(self.tokens) else "."

    def is_object(self, start: int) -> bool:
        return bool(self.kinds[start] & {"object", "thing"})

    def modifier(self, at: int) -> bool:
        """Whether the token may stand between an adjective and its noun."""
        word = self.token(at)
        if word == "-" or self.token(at - 1) == "-" or self.token(at + 1) == "-" or "colour" in self.kinds.get(at, ()):
            return word.isalnum() or word == "-"
        return _modifies(word)

    def leads(self, at: int, low: int = 0) -> bool:
        """Whether no preposition, from the token `low` on, opens the phrase of the noun at that token."""
        opener = at - 1
        while opener >= low and self.tokens[opener][0].isalnum() and self.tokens[opener] not in _OPENS_PHRASE:
            opener -= 1
        while opener >= low and self.tokens[opener] in DETERMINERS:
            opener -= 1
        return self.token(opener) not in PREPOSITIONS

    def names(self, at: int) -> bool:
        """Whether an unlisted word stands as a noun that goes with the noun behind it: "mission style gable"."""
        word = self.token(at)
        return mostly(word, "n") and not plain(word)


def _ahead(w: _Words, start: int, end: int, kind: str) -> list[str]:
    """The nouns of the phrase that the attribute at [start, end) opens: "white" of "a white, flat-roofed car park"."""
    out: list[str] = []
    at = end
    material = kind == "material"
    if w.token(at) == "of" and kind in ("number", "quality"):  # a pair of, three of the, an oval of
        at += 1
        while w.token(at) in DETERMINERS:
            at += 1
        if w.token(at) in {"them", "these", "those", "which"}:
            return ["one"]
    for _ in range(14):
        word, beside = w.token(at), w.token(at + 1)
        if at in w.nouns and at != start:
            out += w.nouns[at]
            after = w.token(w.ends[at])
            compound = (
                after == "-"
                or (w.ends[at] in w.nouns and not after.endswith("ed"))
                or (word.endswith("ed") and w.modifier(w.ends[at]))
            )
            joined = (
                w.token(at - 1) == "-" and (w.modifier(w.ends[at]) or is_generic(after)) and after not in {"-", ","}
            )
            if not compound and not joined:
                return out
            at = w.ends[at]
        elif word in {"one", "ones"}:
            return [*out, "one", *_antecedent(w, start)]
        elif word == "and" and beside == "-" and w.token(at - 1) == "-":  # glass-and-stone
            at += 2
        elif word in {",", "and", "or", "but"}:
            kinds = w.kinds.get(at + (2 if beside == "-" else 1), set())
            more = ("colour" in kinds and not material) or (
                "material" in kinds and not material and "object" not in kinds
            )
            stacked = (
                w.modifier(at + 1)
                and (at + 1 not in w.nouns or beside.endswith("ed") or w.token(at + 2) == "-")
                and beside not in DETERMINERS - NUMBERS.keys()
            )
            if not more and (material or not stacked):
                return out
            at += 1
        elif is_generic(word) and not (
            word in _QUALITY_NOUNS
            and (at + 1 in w.nouns or beside == "-" or w.modifier(at + 1) or (is_generic(beside) and beside[-1] != "s"))
        ):
            out.append("generic")
            if word in _TONES and beside != "of":  # "in green tones", "of round shape"
                return out[:-1]
            if kind == "quality" or (kind == "number" and word == "sides"):
                out.append(f"word:{next(iter(bases(word, 'n')), word)}")
            if beside == "of":
                at += 2
                while w.token(at) in DETERMINERS:
                    at += 1
            elif at + 1 in w.nouns and w.token(at + 1) not in BE and w.token(at + 1)[-1:] != "s":
                at += 1
            else:
                return out
        elif w.modifier(at) or is_generic(word) or (w.names(at) and (at + 1 in w.nouns or beside == "-")):
            at += 1  # a generic noun that comes so far is a quality: a pale square roof
        else:
            if w.names(at) or (word[-1:] == "s" and uses(word, "n") and (_closes(beside) or mostly(beside, "r"))):
                out.append("generic")  # eight dark hatches
            return out
    return out


def _antecedent(w: _Words, start: int) -> list[str]:
    """The object that 'one' stands for: the last one before it."""
    for at in range(start - 1, -1, -1):
        if w.sentences[start] - w.sentences[at] > 1:
            break
        if at in w.nouns and w.is_object(at):
            return w.nouns[at]
    return []


def _clause(w: _Words, start: int) -> tuple[int, int]:
    """First and last token of the stretch that the token is in: between stops, commas, and conjoined clauses."""
    breaks = w.breaks
    low, high = bisect_left(breaks, start), bisect_right(breaks, start)
    first = breaks[low - 1] + 1 if low else 0
    last = breaks[high] - 1 if high < len(breaks) else len(w.tokens) - 1
    return max(first, start - LONGEST_CLAUSE), min(last, start + LONGEST_CLAUSE - 1)


def _behind(w: _Words, start: int, kind: str) -> list[str]:
    """The noun an attribute after its noun is said of: the subject when a verb links them, else the nearest before."""
    low, _ = _clause(w, start)
    if kind == "quality" and w.token(start - 1) == "and" and w.token(start)[-1] == "s" and uses(w.token(start), "v"):
        return _subject(w, low, start)
    for at in range(start - 1, max(low, start - 14) - 1, -1):
        if w.tokens[at] in _COPULAS:
            subject = at
            for look in range(at - 1, max(low, at - 12) - 1, -1):
                if w.tokens[look] in {",", "and", "but", "while", "which", "that", "whose", "where"}:
                    break
                if w.noun_at.get(look) is not None or is_generic(w.tokens[look]):
                    subject = w.noun_at.get(look, look)
                    if w.leads(subject, low):
                        break  # "the crane on the quay is red": on past what a preposition opens
            if subject in w.noun_at and w.is_object(w.noun_at[subject]):
                return w.nouns[w.noun_at[subject]]
        found = w.noun_at.get(at)
        if found is not None and w.is_object(found):
            return w.nouns[found]
        verb = at - 1 in w.noun_at and is_plural(w.token(at - 1)) and uses(w.token(at), "v")  # boats rest upright
        if is_generic(w.tokens[at]) and not verb:
            word = next(iter(bases(w.tokens[at], "n")), w.tokens[at])
            return ["generic", f"word:{word}"] if kind == "quality" else ["generic"]
    if (
        low > 1 and w.tokens[low - 1] == "," and start - low <= 1 and low - 2 in w.noun_at
    ):  # "a wall, much darker, fills"
        return w.nouns[w.noun_at[low - 2]]
    if low > 1 and w.tokens[low] in {"which", "that", "who"}:  # "a door, which is closed"
        return next((w.nouns[w.noun_at[at]] for at in range(low - 1, max(low - 4, -1), -1) if at in w.noun_at), [])
    return []


def _subject(w: _Words, low: int, high: int) -> list[str]:
    """The first noun between two tokens that no preposition opens: the road, of "a road leaves a hill and bends"."""
    found = (at for at in range(low, high) if at in w.nouns and w.is_object(at) and w.ends[at] not in w.nouns)
    return next((w.nouns[at] for at in found if w.leads(at, low)), [])


def _said_of(w: _Words, start: int, end: int, kind: str) -> tuple[frozenset[str], bool, frozenset[str]]:
    """What the attribute at tokens [start, end) is said of: (likeliest concepts, firm, all it may be said of)."""
    out = _ahead(w, start, end, kind)
    before = start - 1
    while before >= max(0, start - 10) and (w.modifier(before) or _lists_colours(w, before)):
        before -= 1
    opener = w.token(before)
    if kind == "material":
        out = [head for head in out if not head.startswith("material")]
    elif out and all(head.startswith("material") for head in out):  # tiles of a colour: on what the tiles are
        owners = _ahead(w, start + 1, end + 1, "material") + _behind(w, start, kind)
        out += [head for head in owners if not head.startswith("material")]
        return frozenset(out), False, _nouns_in(w, start)
    attached = opener in {"of", "in", "with"} and before > 0
    specific = bool(out) and out != ["generic"]
    if out and not (attached and opener != "with" and out[:1] == ["generic"] and kind != "quality"):
        if opener in {"a", "an"} and w.token(before - 1) in {"is", "was"}:
            out += _behind(w, before, kind)  # the centre is a beige box
        return frozenset(out), True, frozenset()
    if attached and w.token(before - 1).endswith(("ed", "ing")) and before - 1 not in w.noun_at:
        return frozenset({"generic"}), False, _nouns_in(w, start)  # edged in red: the edge, or the thing
    behind = _behind(w, before + 1 if attached else start, kind)
    if opener in {"of", "in"} and not specific and w.noun_at.get(before - 1) is not None:  # a roof of white
        return frozenset(behind), True, frozenset()
    return frozenset(out + behind), False, _nouns_in(w, start)


def _sure(w: _Words, start: int, end: int, said: tuple[frozenset[str], bool, frozenset[str]]) -> bool:
    """Whether an attribute can be said of nothing else than its heads."""
    heads, firm, loose = said
    if not heads or heads & {"generic", "one"}:
        return False
    if not firm:
        before = start - (3 if w.token(start - 1) == "-" else 1)  # are leaf-green
        before -= w.token(before) in _PAINTED
        return w.token(before) in _COPULAS and len(_starts_in(w, start)) == 1 and bool(heads & loose)
    if w.token(end) == "-" and w.token(end + 1).endswith("ed") and w.token(end + 2) != "-":
        return w.token(start - 1) != "-" and bool(heads & set(w.nouns.get(end + 1, ())))  # green-framed
    toned = any(axis == "tone" for axis, _ in _qualities(w.token(start - 2)))  # pale-blue
    hyphened = w.token(start - 1) == "-" and not toned and "colour" not in w.kinds.get(start - 2, ())  # pinkish-red
    if hyphened or w.token(end) == "-":
        return False
    before = start - 1
    while w.modifier(before):
        before -= 1
    owner = w.noun_at.get(before - 1)
    if w.token(before) in {"of", "in"} and owner is not None and end not in w.nouns:
        return heads <= set(w.nouns[owner]) and not w.modifier(end)  # a roof of pale green
    at = end
    while at not in w.nouns and at < end + 4:
        word = w.token(at)
        if not w.modifier(at) or word == "-" or w.token(at + 1) == "-" or word in {",", "and"}:
            return False
        at += 1
    if at not in w.nouns or not heads & set(w.nouns[at]):
        return False
    after = w.ends[at]
    return w.token(after) != "-" and after not in w.nouns and not is_generic(w.token(after)) and not w.names(after)


def _starts_in(w: _Words, start: int) -> set[int]:
    """The places of the nouns in the clause of the token."""
    low, high = _clause(w, start)
    return {at for at in range(low, high + 1) if at in w.nouns or is_generic(w.tokens[at])}


def _lists_colours(w: _Words, at: int) -> bool:
    return w.token(at) in {",", "and"} and "colour" in w.kinds.get(at - 1, ()) and "colour" in w.kinds.get(at + 1, ())


def _nouns_in(w: _Words, start: int) -> frozenset[str]:
    low, high = _clause(w, start)
    return frozenset(c for at in range(low, high + 1) for c in w.nouns.get(at, ()) if not c.startswith("material"))


def _numbers_of(w: _Words) -> Iterable[Mention]:
    at = 0
    while at < len(w.tokens):
        word = w.tokens[at]
        if word not in _COUNTING and not word[0].isdigit():
            at += 1
            continue
        value, following = number(word), w.token(at + 1)
        if word in {"quadrant", "quadrants"}:
            yield Mention(at, "fraction", "1/4", frozenset(), w.sentences[at])
        if following in {"entire", "whole", "full"} or (following == "-" and w.token(at + 2) in FRACTIONS):
            following = w.token(at + 2)
        if (value or word in {"one", "a"}) and following in FRACTIONS and following != "half":
            yield Mention(at, "fraction", f"{value or 1}/{FRACTIONS[following]}", frozenset(), w.sentences[at])
            at += 2
            continue
        if value is None:
            at += 1
            continue
        if (
            (following == "-" and w.token(at + 2) in {"sided", "way", "cornered"})
            or following == "sided"
            or (following == "sides" and w.token(at - 1) == "of")
        ):
            at += 1
            continue  # a shape
        if (following == "by" and number(w.token(at + 2))) or (w.token(at - 1) == "by" and number(w.token(at - 2))):
            at += 1
            continue  # three by three: how they are laid out
        if w.token(at - 1) in DEFINITE | {"all"} and not _ahead(w, at, at + 1, "number"):
            at += 1
            continue  # "the two" are things named before
        end = at + 1
        if value in TENS and w.token(end) == "-" and (ones := number(w.token(end + 1))):
            value, end = value + ones, end + 2
        elif following == "dozen":
            value, end = value * 12, end + 1
        elif word == "dozen" and "half" in w.tokens[max(0, at - 2) : at]:
            value = 6
        elif following in {"hundred", "thousand"}:
            value, end = value * NUMBERS[following], end + 1
        said = _said_of(w, at, end, "number")
        yield Mention(at, "number", str(value), said[0], w.sentences[at], end, *said[1:], _sure(w, at, end, said))
        at = end


@lru_cache(maxsize=4_096)
def read(text: str) -> Reading:
    """Read a text of any language and any shape; unknown words are kept, never an error."""
    originals = tuple(WORD.findall(text))
    tokens = tuple(piece.lower().replace("’", "'") for piece in originals)
    stops = [token in {".", "!", "?"} for token in tokens]
    sentences = list(accumulate([False, *stops[:-1]], initial=0))[1:] if tokens else []
    found = _scan(tokens)
    covered = {at for start, end, _, _ in found for at in range(start, end)}
    things, strangers = _things(tokens, originals, covered)
    found += [(at, at + 1, "thing", f"thing:{base}") for at, base in things]
    kinds: dict[int, set[str]] = {}
    nouns: dict[int, list[str]] = {}
    for start, _, kind, concept in found:
        kinds.setdefault(start, set()).add(kind)
        if kind != "colour":
            nouns.setdefault(start, []).append(concept)
    ends = {start: end for start, end, _, _ in found}
    noun_at = {at: start for start in nouns for at in range(start, ends[start])}
    w = _Words(tokens, tuple(sentences), kinds, nouns, ends, noun_at)
    mentions = [Mention(s, k, c, sentence=sentences[s], end=e) for s, e, k, c in found if k == "object"]
    for start, end, kind, concept in found:
        if kind in ("colour", "material"):
            said = _said_of(w, start, end, kind)
            sure = _sure(w, start, end, said)
            mentions.append(Mention(start, kind, concept, said[0], sentences[start], end, *said[1:], sure))
    mentions += _numbers_of(w)
    ambiguous = lexicon().ambiguous
    for at, word in enumerate(tokens):
        places = _qualities(word) if word not in NUMBERS else ()
        if not places and word not in _MADE and word not in {"right", "set"}:
            continue
        if word == "round" and tokens[at + 1 : at + 2] and tokens[at + 1] in DETERMINERS:
            continue  # bends round a court
        if word in ambiguous and at in noun_at:
            continue  # a drive, which does not drive
        if is_generic(word) and not _qualified(tokens, at, noun_at) and _is_stretch_itself(w, at):
            continue  # laid out in a square, behind a gravel ring
        if word in _MADE and tokens[max(0, at - 2) : at] in {("half", "-"), ("semi", "-"), ("part", "-")}:
            places = _qualities("unfinished")
        if word == "set" and tokens[at + 1 : at + 2] == ("back",) and tokens[at + 2 : at + 3] != ("from",):
            places = _qualities("recessed")
        if word == "right" and tokens[at + 1 : at + 2] in {("angle",), ("angles",)}:
            places = _qualities("perpendicular")
        if places:
            said = _said_of(w, at, at + 1, "quality")
            if word == "dark" and said[0] & _LIGHTS:
                places = (*places, ("lighting", 1))
            mentions += [
                Mention(at, "quality", f"{a}:{s}", said[0], sentences[at], at + 1, *said[1:]) for a, s in places
            ]
    words = " ".join(token for token in tokens if token[0].isalnum())
    objects = frozenset(m.concept for m in mentions if m.kind == "object")
    stemmed = frozenset().union(*(stems(token) for token in tokens if token[0].isalnum()))
    return Reading(
        text, tokens, originals, tuple(sentences), tuple(mentions), stemmed, tuple(strangers),
        tuple((tokens[at], f"thing:{base}") for at, base in things), _denied(tokens, nouns), objects, f" {words} ", w,
    )  # fmt: skip


_VARIOUS = words_of("several various many different differing contrasting alternating varying")
_PAINTED = words_of("painted coloured colored rendered tinted stained limewashed")
_TWO_KINDS = re.compile(r"\b(an? [\w-]+) and (an? [\w-]+) (\w+)(?: (\w+))?", re.IGNORECASE)
_MADE = words_of("built finished completed constructed erected")
# What is lit, or dark.
_LIGHTS = frozenset({"object:window", "object:lamp", "object:lantern"})
_LIKENESS = frozenset({"like", "shape", "form", "resembling", "as", "outline"})
COLOURED = words_of("coloured colored colour color hued toned")
_TINTED = COLOURED | words_of("tone tones hue hues")
_TONES = words_of(
    "tone tones hue hues shade shades tint tints colour color colours colors shape form outline plan size height width "
    "length style design"
)
_QUALITY_NOUNS = frozenset({"square", "oval", "light", "main", "top", "round"})
_ATTRIBUTES = frozenset({"colour", "material"})
_DENIERS = frozenset({"no", "without", "never", "none", "lacks", "lacking", "lack", "neither", "nor", "not", "hardly"})

_PARTLY = frozenset({"partly", "partially"})
_PART_OF = re.compile(r"\b(?:section|part|piece|portion|segment|corner|side|end) of ")
_NO_DENIALS = {("no", "more"), ("no", "less"), ("no", "fewer"), ("no", "other"), ("no", "further")}
_NEGATING = _DENIERS | {"missing", "absent"}
_MAY_DENY = _NEGATING | words_of("bare devoid free empty absence lost")
_HAVING = words_of("has have having with bears bear shows show carries carry contains contain")
_NONE_OF = {("hardly", "any", "of"), ("not", "one", "of")}
_FALLING = {"raining": "object:rain", "snowing": "object:snow"}
_LEAVES = words_of("foliage leafage leaves")
_ANYBODY = words_of("soul anyone anybody")


def _denied(tokens: tuple[str, ...], nouns: dict[int, list[str]]) -> frozenset[str]:
    """Concepts a text says are not there: 'no cars', 'bare of trees', 'without any windows', 'doorless'.

    Two denials in a clause affirm: "no garden is without a hedge".
    """
    out: set[str] = set()
    affirmed: set[int] = set()
    denied = lexicon().denied
    for at, token in enumerate(tokens):
        if at in affirmed or not (token in _MAY_DENY or token in denied or token.endswith("less")):
            continue
        if token in denied:
            out.add(denied[token])
        elif token in {"less", "free"} and tokens[at - 1] == "-" and at - 2 in nouns:
            out.update(nouns[at - 2])  # wall-less, car-free
        elif token.endswith("less"):
            lacking = token[:-4]
            out.update(concept for kind, concept in _senses(lacking) if kind == "object")
            out.update([f"thing:{lacking}"] if not _senses(lacking) and names_thing(lacking) else ())
        after = tokens[at + 1] if at + 1 < len(tokens) else "."
        bare = (token in {"bare", "devoid", "free", "empty", "absence"} and after == "of") or (
            token in {"lost", "missing"} and after in ARTICLES
        )
        if token in {"absent", "missing"} and not bare:
            before = next((look for look in range(at - 1, max(at - 6, -1), -1) if look in nouns), None)
            clause_before = tokens[max(0, at - 8) : at]
            if (FRACTIONS.keys() | _PARTLY) & set(clause_before) or _PART_OF.search(" ".join(clause_before)):
                continue  # half of it, or a section of the canopy is missing
            lacked = at + 1 if at + 1 in nouns and tokens[at - 1] not in BE else before  # "missing letters"
            out.update(nouns[lacked] if lacked is not None else ())
        if token not in _DENIERS and not bare:
            continue
        if token == "free" and tokens[at + 2 : at + 3] in {("the",), ("it",), ("them",)}:
            continue  # a tower rises free of the fog
        if token == "not" and after in _FALLING:
            out.add(_FALLING[after])
        if (token == "not" and after not in {"a", "an", "any", "one", "even"}) or (token, after) in _NO_DENIALS:
            continue
        if token == "no" and number(after) is not None:
            continue  # no two are alike
        clause = range(at + 1, _clause_end(tokens, at))
        if token in {"no", "none", "hardly"} and "than" in tokens[clause.start : clause.stop]:
            continue  # "no house is higher than", which there are
        again = next((look for look in clause if tokens[look] in _NEGATING), None)
        if again is not None and tokens[again] != "nor" and token in {"no", "none", "not", "hardly", "neither"}:
            affirmed.add(again)
            continue
        start = at + 1
        if (token, after) == ("none", "of") or tokens[at : at + 3] in _NONE_OF:
            start = next((look for look in clause if tokens[look] in _HAVING), len(tokens))  # "none of them has a sail"
        for look in range(start, min(start + 6, len(tokens))):
            if tokens[look] in BREAKS or tokens[look] in {",", "but"}:
                break
            if tokens[look] in _ANYBODY or (token == "no" and look == at + 1 and tokens[look] == "one"):
                out.add("object:person")  # not a soul
                break
            if tokens[look] in _LEAVES:
                out.add("object:leaf")
                break  # trees without foliage
            if look in nouns:
                head = next(n for n in range(look, len(tokens) + 1) if n + 1 not in nouns)  # no tin roof: no roof
                out.update(nouns[head])
                if tokens[head + 1 : head + 2] == ("or",):
                    continue  # not one door or window
                break
            if tokens[look] in DETERMINERS:
                continue
            finite = tokens[look][-1] == "s" and tokens[look] not in BE
            if (token == "hardly" or finite) and mostly(tokens[look], "v") and look not in nouns:
                break  # "hardly any use the road", "a wheel without blades hangs on the wall"
            if mostly(tokens[look], "n") and look + 1 not in nouns and tokens[look + 1 : look + 2] != ("-",):
                break  # "with no back": a noun that names no thing
    return frozenset(out)


def _is_stretch_itself(w: _Words, at: int) -> bool:
    """Whether a noun of shape behind an article is a thing of its own, and not what another one is or looks like."""
    opener = at - 1
    while opener >= 0 and (w.modifier(opener) or opener in w.noun_at):
        opener -= 1
    before = w.token(opener - 1)
    return w.token(opener) in ARTICLES and not (before in _COPULAS and before in BE) and before not in _LIKENESS


def _qualified(tokens: tuple[str, ...], at: int, noun_at: dict[int, int]) -> bool:
    """Whether a noun or another word of its phrase follows at once: in a square block, in a circle-shaped one."""
    after = tokens[at + 1 : at + 2]
    return bool(after) and (at + 1 in noun_at or after[0] == "-" or is_generic(after[0]) or _modifies(after[0]))


def _clause_end(tokens: tuple[str, ...], at: int) -> int:
    """Where the clause of a token ends: at the next comma, stop or conjunction."""
    return next((n for n in range(at, len(tokens)) if tokens[n] in BREAKS | {",", "but", "and"}), len(tokens))


def _things(
    tokens: tuple[str, ...], originals: tuple[str, ...], covered: set[int]
) -> tuple[list[tuple[int, str]], list[str]]:
    """Nouns of things that the lexicon does not have, as (token, base form), and words that nobody knows.

    A likeness ("roofs like a pyramid", "a horseshoe of brick") names no thing, and neither does a singular that no
    determiner or preposition makes a noun ("lies midstream").
    """
    things: list[tuple[int, str]] = []
    strangers: list[str] = []
    for at, token in enumerate(tokens):
        if (
            at in covered
            or not token[0].isalpha()
            or len(token) < 3
            or (plain(token) and not (token in english().verbs and _surely_noun(tokens, at)))
            or token in NUMBERS
            or token in lexicon().denied
            or (_senses(token) and not _coloured_plural(token))  # passed over on purpose: no noun here
            or _stands_up(tokens, at)
        ):
            continue
        after = tokens[at + 1] if at + 1 < len(tokens) else "."
        start = at - 1
        while start >= 0 and _inside(tokens[start]):
            start -= 1
        opener = tokens[start] if start >= 0 else "."
        alike = after == "-" or "-like" in token or opener in {"like", "as"}
        if alike or (opener in ARTICLES and _LIKENESS & set(tokens[max(0, start - 2) : start])):
            continue
        opens = opener in DETERMINERS or opener in PREPOSITIONS or opener in {"and", "or", ",", ";", ".", "-"}
        if token.endswith(("'s", "s'")) and is_trade(token.rstrip("s").rstrip("'")):
            things.append((at, token.rstrip("s").rstrip("'")))  # a baker's shop
            continue
        base = next(iter(bases(token, "n")), token)
        if is_word(token):
            noun = mostly(token, "n") or _surely_noun(tokens, at)
            if names_thing(token) and noun and (token != base or opens):
                things.append((at, base))
            continue
        if token.endswith(("ly", "ing", "ed", "ish", "like", "ous", "ful", "less", "est")):
            continue
        closes = _closes(after) or (after[-1] == "s" and plain(after))
        if token[-1] == "s" and at - 1 in covered and after in DETERMINERS | PREPOSITIONS:
            continue  # a verb behind its subject
        if opener not in DEFINITE and closes:
            strangers.append(token)
    return things, strangers


def _coloured_plural(word: str) -> bool:
    """Whether a word is the plural of what a colour is called by: lemons."""
    return word not in lexicon().senses and is_plural(word) and all(kind == "colour" for kind, _ in _senses(word))


def _closes(word: str) -> bool:
    """Whether a noun phrase has ended before that word."""
    return not word[0].isalnum() or word in PREPOSITIONS or word in BE or mostly(word, "r")


def _surely_noun(tokens: tuple[str, ...], at: int) -> bool:
    """Whether a word that is a verb as well can only be the noun of "a" or "an": "a guard at the door"."""
    after = tokens[at + 1] if at + 1 < len(tokens) else "."
    if after in _RELATIVE and tokens[at] in english().function:
        return False  # a clearing round which
    start = at - 1
    if start >= 0 and tokens[start] == "with" and tokens[at][-1] == "s" and _closes(after):
        return True  # with ducks
    while start > 0 and (_coloured(tokens, start) or _qualities(tokens[start])):
        start -= 1
    return (
        start >= 0
        and tokens[start] in {"a", "an"}
        and after not in {"of", "-"}
        and (_closes(after) or (after[-1] == "s" and mostly(after, "v")))
    )


def _inside(word: str) -> bool:
    """Whether the word may stand inside a noun phrase, before the noun and behind its determiner."""
    if not word[0].isalnum() or word in DETERMINERS or word in PREPOSITIONS or word in BE:
        return False
    return bool(_senses(word)) or not mostly(word, "v") or word.endswith(("ed", "ing"))
