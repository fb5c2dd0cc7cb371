"""Find orientation in a caption: which words would become false if the image were turned or mirrored.

A caption is tokenised by spaCy (`spacy.blank("en")`); every token gets one letter for the part it plays
(`lexicons/orientation.yaml`: direction words, prepositions, landmarks, ...), so that a caption becomes a short string
and the grammar of orientation phrases a handful of regular expressions over it. Words that look like directions but are
none (left as a verb, right angle, top floor, South Hall) lose their letter before the grammar is applied. How a
sentence is repaired afterwards is none of this module's business: see `orientation.py`.
"""

import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import spacy
import yaml
from spacy.attrs import ORTH
from spacy.language import Language
from spacy.util import compile_infix_regex

Kind = Literal[
    "axis",  # running north-south, from the lower left to the upper right
    "origin",  # from the upper left (down) to the centre: the part before "to"
    "beside",  # to the left of, north of, on the left side of: a relation to what follows
    "place",  # on the left, in the upper right corner (of the image), on its left
    "relation",  # above, below, behind, in front of
    "facing",  # facing south
    "clock",  # at 3 o'clock
    "travel",  # a road descends
    "vertical",  # further up, down the left side: up and down as directions of the image
    "adverb",  # leftwards, diagonally, clockwise
    "axis_adjective",  # a horizontal band
    "noun",  # the left edge, its upper part, the lower roof, the top: a direction word in a noun phrase
    "depth",  # the foreground
    "turned",  # set at an angle, slightly rotated
]
Frame = Literal["image", "object", "viewer"]
"""To whom the direction belongs: the image, another object of it (to its left), or the one who speaks (to my left)."""

LETTERS: dict[str, str] = {
    "horizontal": "h", "vertical": "v", "north_south": "n", "east_west": "e", "between_compass": "q",
    "relation": "R", "depth": "G", "front": "r", "adverb": "W", "clockwise": "C", "axis_adjective": "X", "up_down": "u",
    "back": "k",
    "clock": "o", "angle": "@", "travel": "T", "turned": "Z", "facing": "K",
    "landmark": "L", "landmarks": "S", "direction_noun": "N", "hand": "H", "centre": "M", "image": "I", "the": "t",
    "a": "a", "possessive": "i", "both": "b", "of": "f", "to": "2", "from": "F", "preposition": "P", "and": "&",
    "comma": ",", "stop": ".", "semicolon": ";", "hyphen": "-", "there": "y", "subordinate": "z", "be": "B",
    "adverb_of_degree": "A", "far": "J", "near_far": "Y", "most": "d", "number": "#", "place_verb": "V",
    "path_verb": "p",
    "point_verb": "g", "verb": "O", "compass_abbreviation": "D", "compass_initial": "D",
}  # fmt: skip
"""One letter per class of the lexicon; every other word is "w", a direction word that is no orientation here is "x"."""

HOURS = ("twelve", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
TRIGGERS = frozenset("hvneqRGrWCXukoTZK@YD")
_VIEW_DEPENDENT = frozenset("RGrkuTXY")
"""Letters that are no image positions in a street or ground photograph, where in front and above are facts."""
_VIEWER = frozenset({"i", "my"})


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The word lists of `lexicons/orientation.yaml`."""

    letter: dict[str, str]
    words: dict[str, frozenset[str]]
    view: frozenset[str]
    """The words that tell a street photograph from an aerial view."""


@cache
def lexicon() -> Lexicon:
    """Read the word lists once."""
    path = Path(__file__).parent / "lexicons" / "orientation.yaml"
    lists = {key: frozenset(text.split()) for key, text in yaml.safe_load(path.read_text(encoding="utf-8")).items()}
    letter = {word: LETTERS[key] for key, words in lists.items() if key in LETTERS for word in sorted(words)}
    return Lexicon(letter, lists, lists["ground_view"] | lists["aerial_view"] | _VIEWER)


@cache
def language() -> Language:
    """A blank English tokenizer that also parts `buildingThe`, the usual scar of a lost full stop.

    `counter-clockwise` stays in one piece, and `upper-` (upper- and lower-left) is two.
    """
    nlp = spacy.blank("en")
    nlp.max_length = 10**9  # the limit is for parsers; a tokenizer takes a text of any length
    glued = (
        r"(?<=[a-z]{3})(?=(?:The|On|In|At|To|There|It|Along|Above|Below|Behind|North|South|East|West|Left|Right|A)\b)"
    )
    stopped = r"(?<=[a-z]{2})[.,;](?=[A-Za-z]{2})"
    tokenizer: Any = nlp.tokenizer
    tokenizer.infix_finditer = compile_infix_regex([*(nlp.Defaults.infixes or ()), glued, stopped]).finditer
    words = lexicon().words
    for word in words["clockwise"]:
        for spelled in (word, word.capitalize(), word.upper()):
            tokenizer.add_special_case(spelled, [{ORTH: spelled}])
    for word in words["horizontal"] | words["vertical"] | words["north_south"] | words["east_west"]:
        for spelled in (word, word.capitalize(), word.upper()):
            tokenizer.add_special_case(f"{spelled}-", [{ORTH: spelled}, {ORTH: "-"}])
    return nlp


class Tokens(NamedTuple):
    """A caption in tokens. `codes` has one letter per token; `start` and `end` are code point offsets into `raw`."""

    raw: str
    low: list[str]
    start: list[int]
    end: list[int]
    codes: str

    def code(self, index: int) -> str:
        """The letter of a token; "^" before the first, "$" after the last."""
        if index < 0:
            return "^"
        return self.codes[index] if index < len(self.codes) else "$"

    def glued(self, index: int) -> bool:
        """Whether a sentence begins at a token without blank or full stop before it (buildingThe)."""
        if not 0 < index < len(self.low) or self.start[index] != self.end[index - 1]:
            return False
        return self.raw[self.start[index]].isupper() and self.raw[self.end[index - 1] - 1].islower()

    def word(self, index: int) -> str:
        return self.low[index] if 0 <= index < len(self.low) else ""


class Mention(NamedTuple):
    """One orientation expression: tokens first .. last-1. `directions` holds a set per direction named, in order."""

    kind: Kind
    first: int
    last: int
    directions: tuple[frozenset[str], ...]
    frame: Frame


# ---- letters: what each word is, and what it is not ----------------------------------------------------------------


def _tall_after_of(low: list[str], codes: list[str], of: int, deep: bool = True) -> bool:
    """Whether "of the ..." at `of` names what has a height of its own (the red brick tower) or, if `deep`, a depth."""
    tall = lexicon().words["tall"]
    deeper = lexicon().words["deep"] if deep else frozenset()
    for index in range(of + 1, min(of + 7, len(low))):
        if codes[index] not in "wta#ixhvneqi&TZSLM":
            return False
        if low[index] in tall or low[index] in deeper:
            return True
    return False


def _clause_has(
    low: list[str], codes: list[str], index: int, words: frozenset[str], reach: int = 9, gap: int = 0
) -> bool:
    """Whether one of `words` stands shortly before `index` in the same clause."""
    for at in range(index - 1 - gap, max(index - 1 - gap - reach, -1), -1):
        if codes[at] in ".;":
            return False
        if low[at] in words:
            return True
    return False


_LISTED_AFTER = re.compile(r",?&[PA2tia]{0,3}[hvneqR]|,[hvneqR],?&")
_LISTED_BEFORE = re.compile(r"[hvneqRM],?&[tia]?$")


def _listed(codes: list[str], i: int) -> bool:
    """Whether a word stands in a list of directions: left and right; left, right and behind."""
    last = codes[i - 1] if i else "^"
    i += codes[i + 1 : i + 3] == ["-", "&"]  # left- and right-hand
    following = codes[i + 1] if i + 1 < len(codes) else "$"
    if not (following in ",&" or last in "&," or (last in "tia" and i > 1 and codes[i - 2] == "&")):
        return False
    before, after = "".join(codes[max(i - 4, 0) : i]), "".join(codes[i + 1 : i + 6])
    if _LISTED_AFTER.match(after) or _LISTED_BEFORE.search(before):
        return True
    return before[-2:-1] in tuple("hvneqR") and before[-1:] == "," and after[:1] in tuple(",&")


def _is_left(low: list[str], codes: list[str], i: int) -> bool:
    before = codes[i - 1] if i else "^"
    after = codes[i + 1] if i + 1 < len(codes) else "$"
    word = low[i + 1] if i + 1 < len(low) else ""
    if (before not in "BwO" and _listed(codes, i)) or (before in "w#," and word in lexicon().words["sided"]):
        return True
    if after in ",.;$" and low[max(i - 1, 0)] in ("other", "then"):
        return _clause_has(low, codes, i, frozenset({"left", "right"}))
    if after == "f" and before in "B":
        return not _clause_has(low, codes, i, lexicon().words["remainder"])
    if after in "fLSHN" or (after in "-" and i + 2 < len(low) and low[i + 2] in ("hand", "side", "right", "most")):
        return not (before in "B" and after != "f")
    if after in "hvM" or (after == "-" and i + 2 < len(codes) and codes[i + 2] in "hvM") or before in "v":
        return True
    if (
        low[max(i - 1, 0)] in ("'s", "’s", "facing", "faces", "face")
        or before == "g"
        or (before in "^.;" and after in ";")
    ):
        return True
    if before in "P2F" or (before in "it" and after not in "-"):
        return True
    if before == "-":
        return i >= 2 and codes[i - 2] in "hvM"
    if before in "AJMp":
        return word not in ("open", "over", "behind", "alone", "empty") and not (before == "A" and after == "a")
    return before in "&," and i >= 2 and codes[i - 2] in "vh" and after in "&,.;$Pf"


def _is_right(low: list[str], codes: list[str], i: int) -> bool:
    before = codes[i - 1] if i else "^"
    word = low[i + 1] if i + 1 < len(low) else ""
    after = codes[i + 1] if i + 1 < len(codes) else "$"
    second = low[i + 2] if i + 2 < len(low) else ""
    if before == "p" and low[i - 1].startswith(("turn", "veer", "bend", "curve", "swing")) and after != "a":
        return True
    if word in lexicon().words["angle_word"] or (after == "-" and second in lexicon().words["angle_word"]):
        return after in "P,&y" and before in "tivhP2F" and word not in ("next", "beside", "behind")
    if after == "f":
        return second != "way"
    if word in lexicon().words["right_idiom"] or low[i + 1 : i + 3] == ["and", "proper"]:
        return False
    return _is_left(low, codes, i)


def _is_vertical_place(low: list[str], codes: list[str], i: int) -> bool:
    """Upper, lower, top, bottom: as a place in the image, not as a part of an object, nor lower than something."""
    words = lexicon().words
    word = low[i]
    before = codes[i - 1] if i else "^"
    j = i + 1
    while j < len(codes) and codes[j] in "&-v":
        j += 1
    after = codes[j] if j < len(codes) else "$"
    following = low[j] if j < len(low) else ""
    if following in words["object_part"] or (j + 1 < len(low) and after in "w#" and low[j + 1] in words["object_part"]):
        return False
    if word in ("top", "bottom") and following in words["bottom_idiom"]:
        return False
    if word in ("top", "bottom") and (after == "-" or following in ("view", "views", "most")):
        return codes[i + 1] == "-" and j < len(codes) and codes[j] in "hvMLn"
    if word == "top" and i and (low[i - 1] == "on" or low[i - 1] in ("flat", "-", "roof", "hill", "mountain", "tree")):
        return False
    if word == "top" and after == "f" and words["house"].intersection(low[j + 1 : j + 4]):
        return False
    if after == "f" and _tall_after_of(low, codes, j):
        return word in ("top", "bottom") and before == "w"
    if after in "LS" and j + 1 < len(codes) and codes[j + 1] == "f" and _tall_after_of(low, codes, j + 1, deep=False):
        return words["roof_like"].intersection(low[j + 2 : j + 6]) != frozenset()
    if after == "L" and any(
        codes[k] == "x" and low[k] in words["vertical"] and low[k + 1] == following for k in range(max(i - 20, 0), i)
    ):
        return False  # the upper half of the facade is yellow and the lower half grey
    if word == "lower" and before in "#" and after == "w" and codes[max(i - 2, 0)] != "t":
        return _clause_has(low, codes, i, frozenset({"upper", "top"}))  # four lower blocks around a tower
    if word == "lower" and before in "aAB&,wfP" and after not in "hLSM":
        if before == "a" and following in ("one", "ones"):
            return _clause_has(low, codes, i, frozenset({"upper", "top"}))
        if before == "a" and i >= 3 and codes[i - 2] == "&" and codes[i - 3] == "v":
            return True
        return before == "&" and i >= 2 and codes[i - 2] in "vh"
    if word == "upper" and before in "w" and after in "w":
        return False
    if (
        word in ("top", "bottom")
        and low[max(i - 2, 0) : i] == ["at", "the"]
        and after in ",.;$"
        and _clause_has(low, codes, i, frozenset({"with"}))
    ):
        return not _clause_has(low, codes, i, words["topped"]) or after in "hL"
    if (
        low[max(i - 2, 0) : i] == ["at", "the"]
        and re.match("[B&]w$", "".join(codes[max(i - 4, 0) : i - 2]))
        and "".join(codes[i + 1 : i + 2]) in ",.;$&"
        and not low[i - 3].endswith("s")
        and _clause_has(low, codes, i, words["topped"], 16)
    ):
        return False  # the chimney is white at the bottom and red at the top
    if word in ("top", "bottom") and before not in "tiP2FaAJMvhb-&^.;,":
        return after in "LhM"
    return True


def _is_relation(low: list[str], codes: list[str], i: int) -> bool:
    """Above, below, beneath, behind: as positions in the image, not what is physically under, over or hidden."""
    words = lexicon().words
    if i and low[i - 1] in (
        "from",
        "raised",
        "high",
        "elevated",
        "rises",
        "rise",
        "rising",
        "towering",
        "towers",
        "hovering",
    ):
        return False
    if low[i] != "behind" and (
        (low[i + 1 : i + 2] and low[i + 1] in words["level_idiom"]) or "level" in low[i + 2 : i + 3]
    ):
        return False
    head = ""
    for j in range(i + 1, min(i + 7, len(low))):
        if codes[j] not in "wta#ixhvneqfMZ":
            break
        if low[j] in words["covering"] or low[j] in words["roof_like"]:
            head = low[j]
            break
        head = ""
    if low[i] == "behind":
        return head not in words["screen"]
    if head in words["covering"] and (low[i] != "above" or head in words["opening"]):
        return False
    part = _clause_has(low, codes, i, words["wall_part"])
    return not (part and head)


def _is_up_down(low: list[str], codes: list[str], i: int) -> bool:
    before = codes[i - 1] if i else "^"
    after = codes[i + 1] if i + 1 < len(codes) else "$"
    second = codes[i + 2] if i + 2 < len(codes) else "$"
    if _clause_has(low, codes, i, lexicon().words["stairs"], 4, 1):
        return False
    if before == "g" and low[i] in ("up", "down"):
        return True
    if before in "A" and low[i - 1] in ("further", "farther", "lower", "higher", "far") and low[i] in ("up", "down"):
        return True
    if (
        low[i] in ("up", "down")
        and low[i + 1 : i + 2] != ["near"]
        and re.match(r"P[tia]?[hvneq]", "".join(codes[i + 1 : i + 4]))
    ):
        return True
    if after == "&" and second in "2PA":
        return True
    if before in "hvneqWL" and i and low[i] in ("up", "down"):
        return before != "L" or after == "2"
    if i and low[i - 1] == "way" and after == "t" and low[i] == "down":
        return True
    if before in "p" and after == "F" and second in "ti":
        return True
    if before in "p" and (after in "t2i" or (after == "P" and second in "th")):
        return low[i - 1] not in ("go", "goes", "going", "pass") and low[i] in ("up", "down", "upwards", "downwards")
    return low[i] in ("upward", "upwards", "downward", "downwards")


def _is_travel(low: list[str], codes: list[str], i: int) -> bool:
    j = i + 1
    while j < len(codes) and codes[j] == "A":
        j += 1
    if j < len(low) and low[j].endswith("clockwise"):
        return True
    if lexicon().words["hilly"].intersection(low[i + 1 : i + 4]):
        return False
    return _clause_has(low, codes, i, lexicon().words["road"], 6) and not _clause_has(
        low, codes, i, lexicon().words["stairs"] | lexicon().words["hilly"]
    )


def _is_adverb(low: list[str], codes: list[str], i: int) -> bool:
    if low[i] == "diagonally":
        return not (i and low[i - 1] in ("off", "across", "opposite"))
    return True


def _is_axis_adjective(low: list[str], codes: list[str], i: int) -> bool:
    j = i + 1
    while j < len(codes) and codes[j] == "w" and low[j] not in lexicon().words["strip"] and j < i + 3:
        j += 1
    noun = low[j] if j < len(low) else ""
    if low[i] == "diagonal":
        return noun in lexicon().words["road"] - {"path", "paths", "footpath", "footpaths"}
    if low[i + 1 : i + 2] in (["one"], ["ones"]) or ("&" in codes[i + 1 : i + 2] and "X" in codes[i + 2 : i + 4]):
        return True
    return noun in lexicon().words["strip"] or low[i - 1 : i] == ["the"]


def _is_front(low: list[str], codes: list[str], i: int) -> bool:
    return i > 0 and low[i - 1] == "in"


def _is_back(low: list[str], codes: list[str], i: int) -> bool:
    return low[i] == "back" and i > 0 and low[i - 1] in ("further", "farther")


def _is_facing(low: list[str], codes: list[str], i: int) -> bool:
    if i > 1 and codes[i - 1] == "-" and codes[i - 2] in "neq":
        return True
    return i + 1 < len(codes) and (codes[i + 1] in "neqh" or (codes[i + 1] == "A" and codes[i + 2 : i + 3] == ["n"]))


def _is_turned(low: list[str], codes: list[str], i: int) -> bool:
    after = codes[i + 1] if i + 1 < len(codes) else "$"
    if low[i + 1 : i + 3] == ["so", "that"] or "C" in codes[i + 1 : i + 5]:
        return True
    if re.match(r"A*2t?[hneqv]", "".join(codes[i + 1 : i + 6])):
        return True
    if low[i] in ("turned", "oriented"):
        return False
    before = i - 1
    while before >= 0 and codes[before] == "A":
        before -= 1
    if before >= 0 and codes[before] == "B":
        return False
    return after in ",.;$&WC" or (after == "A" and codes[i + 2 : i + 3] in (["W"], ["C"]))


def _is_clock(low: list[str], codes: list[str], i: int) -> bool:
    """At 3 o'clock as a direction, not as the time of day."""
    if codes[max(i - 3, 0) : max(i - 1, 0)] == ["o", "&"]:
        return True  # at 3 o'clock and 9 o'clock
    if not any(codes[j] in "P2F" or low[j] in ("the", "between") for j in range(max(i - 4, 0), i)):
        return codes[i + 1 : i + 2] in (["N"], ["L"])
    return lexicon().words["clock_word"].isdisjoint(low)


def _two_hours(low: list[str], codes: list[str], i: int) -> None:
    """Give the first of two hours its letter: between 3 and 4 o'clock, at ten or two o'clock."""
    if i < 3 or low[i - 2] not in ("and", "or", "to") or hour(low[i - 1]) is None or hour(low[i - 3]) is None:
        return
    codes[i - 3] = "#"
    if i > 3 and low[i - 4] == "between":
        codes[i - 4] = "P"


def hour(word: str) -> int | None:
    """The hour that a word is on a clock face, 0 to 11 (twelve is 0); None for another word."""
    if word in HOURS:
        return HOURS.index(word)
    return int(word) % 12 if re.fullmatch("[1-9]|1[0-2]", word) else None


def _is_angle(low: list[str], codes: list[str], i: int) -> bool:
    after = codes[i + 1] if i + 1 < len(codes) else "$"
    return low[max(i - 3, 0) : i] == ["set", "at", "an"] and after != "2"


CHECKS: dict[str, Callable[[list[str], list[str], int], bool]] = {
    "v": _is_vertical_place, "R": _is_relation, "u": _is_up_down, "T": _is_travel, "W": _is_adverb,
    "o": _is_clock, "X": _is_axis_adjective, "r": _is_front, "k": _is_back, "K": _is_facing, "Z": _is_turned,
    "@": _is_angle,
}  # fmt: skip


def _is_name(raw: str, low: list[str], steps: list[int], capitals: str, codes: list[str], i: int) -> bool:
    """Whether a direction word belongs to a name: capitalised, with another such word beside it."""

    def capital(j: int) -> bool:
        return 0 <= j < len(low) and capitals[j] == "A"

    def bears_name(j: int) -> bool:
        return capital(j) and (codes[j] in "wxOMIgVp" or (codes[j] in "LSNH" and not _shouting(raw)))

    if not capital(i):
        # "Schoellkopf field west stands": lower case inside a name that a capital opened just before
        return (
            codes[i] in "neq"
            and i >= 2
            and codes[i - 1] == "w"
            and bears_name(i - 2)
            and i + 1 < len(low)
            and low[i + 1] in ("stands", "stand", "wing", "tower", "gate", "campus", "building", "hall")
        )
    first = i == 0 or codes[i - 1] in ".;" or (not steps[2 * i] and codes[i - 1] == "w")
    j = i + 1
    while j < len(low) and capital(j) and codes[j] in "hvneqX":
        j += 1
    if j < len(low) and codes[j] == "&" and capital(j + 1) and codes[j + 1] in "neqhv":
        j += 2
    if bears_name(j):
        return True
    if first:
        return False
    k = i - 1
    while k >= 0 and (codes[k] in "&-" or (codes[k] in "neqhvx" and capital(k))):
        k -= 1
    return bears_name(k)


def _quoted(raw: str) -> list[tuple[int, int]]:
    """Spans of short quotations with a capital letter: names and signs, which are facts as they stand."""
    return [m.span() for m in re.finditer(r"(?<!\w)(['\"‘“])(?=[^'\"’”]*[A-Z])[^'\"’”.;]{1,40}[.,]?['\"’”](?!\w)", raw)]


def _shouting(raw: str) -> bool:
    """Whether capitals carry no information: most words begin with one."""
    words = re.findall(r"[A-Za-z]{2,}", raw)
    return len(words) > 3 and sum(word[0].isupper() for word in words) > 0.7 * len(words)


class _Chunk(NamedTuple):
    """What stands between two blanks, tokenised: the words, a letter for each, and how far apart their edges lie."""

    codes: str
    low: tuple[str, ...]
    steps: tuple[int, ...]
    """For each word the characters that part it from the word before, the blank among them, and its length."""
    capitals: str
    """For each word "A" if it begins with a capital, else "a"."""
    view: tuple[str, ...]
    """Its words that tell a street photograph from an aerial view."""


_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\ufeff]")
"""Characters that nobody sees; they part words, and spoil no phrase."""
HYPHENS = str.maketrans("\u2010\u2011", "--")
"""Hyphens that models and word processors write between left and hand."""
_SIGNS = re.compile(r"(?<=(?:[^\w\s]|_){32})(?:[^\w\s]|_)+")
"""What a line of signs goes on with: spaCy takes them off one by one, and looks at all that are left for each."""


def _chunk(text: str) -> _Chunk:
    # spaCy refuses lone surrogates, which broken annotation files contain; the stand-in keeps every offset
    readable = text if text.isascii() else re.sub(r"[\ud800-\udfff]", "\ufffd", text)
    readable = _CONTROL.sub(" ", readable).translate(HYPHENS)
    if len(readable) > 32:
        readable = _SIGNS.sub(lambda signs: " " * len(signs[0]), readable)
    nlp = language()
    with nlp.memory_zone():  # else spaCy keeps every word that it ever saw
        tokens = [(token.lower_, token.idx, token.idx + len(token)) for token in nlp.make_doc(readable)]
    # a line break parts like a semicolon, other blanks are no tokens
    kept = [token for token in tokens if not token[0].isspace() or "\n" in token[0]]
    letter = lexicon().letter
    # upper left and -right: the hyphen stands for what the words share
    kept = [(w[1:], a + 1, b) if w[0] == "-" and letter.get(w[1:], "w") in "hv" else (w, a, b) for w, a, b in kept]
    low = tuple(token[0] for token in kept)
    codes = "".join(";" if word.isspace() else letter.get(word, "w") for word in low)
    steps: list[int] = []
    at = -1
    for _, start, end in kept:
        steps += (start - at, end - start)
        at = end
    capitals = "".join("A" if text[token[1]].isupper() else "a" for token in kept)
    return _Chunk(codes, low, tuple(steps), capitals, tuple(lexicon().view.intersection(low)))


class _Chunks(dict[str, _Chunk]):
    """Chunks by their text, filled as they are met: text repeats its words, and spaCy sees each of them once."""

    def __init__(self) -> None:
        self.plain: set[str] = set()
        """Those without a direction word."""
        self.viewing: set[str] = set()
        """Those that tell a street photograph from an aerial view."""
        self.characters = 0

    def __missing__(self, text: str) -> _Chunk:
        chunk = self[text] = _chunk(text)
        self.characters += len(text)
        if not _TRIGGER.search(chunk.codes):
            self.plain.add(text)
        if chunk.view:
            self.viewing.add(text)
        return chunk

    def view(self, raw: str) -> frozenset[str]:
        """The words of a caption that was read which tell a street photograph from an aerial view."""
        return frozenset(word for text in self.viewing.intersection(raw.split(" ")) for word in self[text].view)

    def forget(self) -> None:
        self.clear()
        self.plain.clear()
        self.viewing.clear()
        self.characters = 0


class _Sentence(NamedTuple):
    """A sentence in tokens, and what it says of orientation; one without a direction word is two tokens, its edges."""

    codes: str
    low: Sequence[str]
    steps: Sequence[int]
    mentions: list[Mention]
    directed: bool
    """Whether it holds a direction word, orientation or not."""
    depends: bool
    """Whether what it says is orientation only in an aerial view."""


_chunks = _Chunks()


class _Sentences(dict[str, _Sentence]):
    """Sentences by their text: captions of one world repeat them, and a region sentence often stands in a caption."""

    limit = 1 << 13
    """Sentences (and about eight times as many chunks) that are kept before all are forgotten: memory is bounded."""

    size = 1 << 21
    """Characters of sentences, or of chunks, that are kept at most: lines of any length need no more."""

    def __init__(self, ground: bool) -> None:
        self.ground = ground
        self.characters = 0

    def __missing__(self, text: str) -> _Sentence:
        sentence = self[text] = _sentence(text, self.ground)
        self.characters += len(text)
        return sentence

    def forget(self) -> None:
        self.clear()
        self.characters = 0


_aerial, _street = _Sentences(ground=False), _Sentences(ground=True)
_TRIGGER = re.compile(f"[{re.escape(''.join(sorted(TRIGGERS)))}]")
_DEPENDS = re.compile(f"[{''.join(sorted(_VIEW_DEPENDENT))}]")


def _joined(text: str, words: list[str], parts: Sequence[Sequence[int]]) -> list[int]:
    """The steps of a text from those of its words; one blank parts them."""
    steps = list(chain.from_iterable(parts))
    if sum(steps) == len(text) + 1:
        return steps
    # two blanks in a row, or characters that nobody sees at the end of a word: what follows lies further on
    steps = []
    gap = 0
    for word, part in zip(words, parts, strict=True):
        if part:
            steps += (part[0] + gap, *part[1:])
            gap = 0
        gap += len(word) + 1 - sum(part)
    return steps


def _edges(text: str, words: list[str]) -> _Sentence:
    """A sentence without a direction word: its first and its last token."""
    first, last = _chunks[words[0]], _chunks[words[-1]]
    if not first.low or not last.low:
        return _Sentence("", (), (), [], False, False)
    end = sum(last.steps) - last.steps[-1]
    if len(words) == 1:
        return _Sentence(last.codes[-1], last.low[-1:], (end, last.steps[-1]), [], False, False)
    lead, length = first.steps[:2]
    steps = (lead, length, len(text) - len(words[-1]) + end - lead - length, last.steps[-1])
    return _Sentence(first.codes[0] + last.codes[-1], (first.low[0], last.low[-1]), steps, [], False, False)


def _sentence(text: str, ground: bool) -> _Sentence:
    words = text.split(" ")
    if _chunks.plain.issuperset(words):
        return _edges(text, words)
    part_codes, part_low, part_steps, part_capitals, _ = zip(*map(_chunks.__getitem__, words), strict=True)
    letters = "".join(part_codes)
    found = [match.start() for match in _TRIGGER.finditer(letters)]
    if not found:
        return _edges(text, words)
    low = list(chain.from_iterable(part_low))
    steps = _joined(text, words, part_steps)
    judged = list(letters)
    _judge(text, low, judged, steps, "".join(part_capitals), found, ground)
    codes = "".join(judged)
    depends = _DEPENDS.search(letters) is not None
    return _Sentence(codes, low, steps, _mentions(low, codes), True, depends)


# spaCy's vocabulary and the sentences kept here are for one thread at a time.
_TURN = threading.RLock()
# A process that is forked in the middle of a thread's turn would wait for its own for ever.
os.register_at_fork(before=_TURN.acquire, after_in_parent=_TURN.release, after_in_child=_TURN.release)


def read(raw: str, ground: bool | None = None) -> tuple[Tokens, list[Mention]]:
    """A caption's tokens with its orientation expressions, as `tokenise` and `find` give them.

    Whether it describes a ground photograph is guessed from its words if `ground` does not say it. Threads take turns.
    """
    with _TURN:
        return _read(raw, ground)


def _read(raw: str, ground: bool | None) -> tuple[Tokens, list[Mention]]:
    parts = raw.split(". ")
    texts = [part + "." for part in parts[:-1]]
    texts.append(parts[-1])
    _trim()
    sentences = [_aerial[text] for text in texts]
    if not any(sentence.directed for sentence in sentences):
        return Tokens(raw, [], [], [], ""), []
    if not all(sentence.codes.endswith(".") for sentence in sentences[:-1]):  # St. Mary's
        texts, sentences = [raw], [_aerial[raw]]
    if ground is None:
        ground = any(sentence.depends for sentence in sentences) and _is_ground_view(_chunks.view(raw))
    if ground:
        sentences = [_street[text] if seen.depends else seen for text, seen in zip(texts, sentences, strict=True)]
    all_codes, all_low, all_steps, all_mentions, _, _ = zip(*sentences, strict=True)
    mentions: list[Mention] = []
    n = 0
    for codes, found in zip(all_codes, all_mentions, strict=True):
        if found:
            mentions += [
                Mention(kind, first + n, last + n, directions, frame) for kind, first, last, directions, frame in found
            ]
        n += len(codes)
    edges = list(accumulate(_joined(raw, texts, all_steps), initial=-1))
    low = list(chain.from_iterable(all_low))
    return Tokens(raw, low, edges[1::2], edges[2::2], "".join(all_codes)), mentions


def _trim() -> None:
    """Forget all at once: the view of a sentence that is kept is read from its chunks."""
    many = max(len(_aerial), len(_street), len(_chunks) // 8) > _Sentences.limit
    if many or max(_aerial.characters, _street.characters, _chunks.characters) > _Sentences.size:
        forget_sentences()
        _chunks.forget()


def forget_sentences() -> None:
    """Forget the sentences that were read; words and phrases stay. What is read never depends on it."""
    with _TURN:
        _aerial.forget()
        _street.forget()


def tokenise(raw: str) -> Tokens | None:
    """Tokens of a caption with their letters, or None where no direction word stands in it.

    Of a sentence without a direction word only the first and the last token are there: nothing happens in it.
    """
    tokens, _ = read(raw)
    return tokens if tokens.low else None


def _judge(
    raw: str, low: list[str], codes: list[str], steps: list[int], capitals: str, found: list[int], ground: bool
) -> None:
    """Take their letters from direction words, at `found`, that are no orientation where they stand."""
    if "A" in codes:
        if "due" in low and low[(due := low.index("due")) + 1 : due + 2] == ["to"]:
            codes[due] = "w"  # closed due to the northern tower's repair
        for word in ("little", "bit"):
            if word in low and (i := low.index(word)) and low[i - 1] == "a" and codes[i + 1 : i + 2] != ["f"]:
                codes[i - 1] = "A"  # a little to the left
    has_names = not raw.isupper()
    dashed = "-" in codes
    quoted = _quoted(raw) if "'" in raw or '"' in raw or "‘" in raw or "“" in raw else []
    for i in found:
        if codes[i] == "C" and i and low[i - 1] in ("counter", "anti"):
            codes[i - 1] = "A"  # counter clockwise
        if codes[i] == "D":
            codes[i] = _abbreviated(raw, low, codes, _start(steps, i), i)
        if codes[i] == "Y":
            qualifies = low[i] == "far" or (i > 0 and codes[i - 1] == "t")  # the near left corner
            codes[i] = "v" if _near_side(low, codes, i) and not ground else "J" if qualifies else "P"
            continue
        if low[i] == "down" and _down_side(codes, i):
            codes[i] = "v"
        if low[i] in ("up", "down") and i and low[i - 1] in ("lower", "higher", "far"):
            codes[i - 1] = "A"
            if i > 1 and low[i - 2] in ("much", "even"):
                codes[i - 2] = "A"
        if (
            (quoted and any(a <= _start(steps, i) < b for a, b in quoted))
            or (
                has_names
                and (capitals[i] == "A" or codes[i] in "neq")
                and _is_name(raw, low, steps, capitals, codes, i)
            )
            or (ground and codes[i] in _VIEW_DEPENDENT)
            or (dashed and _compounded(low, codes, steps, i))
        ):
            codes[i] = "x"
        elif codes[i] in "rk" and low[i - 1] == "the" and i > 1 and codes[i - 2] in "P2":
            codes[i] = _back_or_front(low, codes, i)
    if " - " in raw or "–" in raw or "—" in raw:
        for i in [i for i, code in enumerate(codes[:-1]) if i and code == "-"]:
            if steps[2 * i] and steps[2 * i + 2]:
                codes[i] = ","  # a spaced dash parts like a comma
    for i in found:
        code = codes[i]
        if code == "h":
            ok = (_is_left if low[i].startswith("left") else _is_right)(low, codes, i)
        else:
            check = CHECKS.get(code)
            ok = check is None or check(low, codes, i)
        if not ok:
            codes[i] = "g" if low[i] == "pointing" else "x"
        elif code == "o":
            _two_hours(low, codes, i)


def _start(steps: list[int], i: int) -> int:
    """Where a token begins."""
    return sum(steps[: 2 * i + 1]) - 1


def _abbreviated(raw: str, low: list[str], codes: list[str], start: int, i: int) -> str:
    """The letter of NE, SW, N: a compass direction in capitals, a single letter only in a pair such as N-S."""
    if not raw[start].isupper() or raw.isupper():
        return "w"
    if len(low[i]) == 2:
        return "q" if raw[start + 1].isupper() else "w"
    paired = any(
        codes[j : j + 1] == ["-"] and low[k : k + 1] and low[k] in lexicon().words["compass_initial"]
        for j, k in ((i - 1, max(i - 2, 0)), (i + 1, i + 2))
    )
    return ("n" if low[i] in "ns" else "e") if paired else "w"


def _compounded(low: list[str], codes: list[str], steps: list[int], i: int) -> bool:
    """Whether a hyphen makes another word of a direction word: top-down, upper-class, above-ground, Western-style."""
    for dash, other in ((i - 1, i - 2), (i + 1, i + 2)):
        if dash < 0 or other < 0 or other >= len(codes) or codes[dash] != "-" or low[dash] == "/":
            continue
        last = max(i, other)
        touching = not steps[2 * last] and not steps[2 * last - 2]
        if touching and codes[other] in "wuOV&#@I" and low[other] not in lexicon().words["central"]:
            return True
    return False


def _down_side(codes: list[str], i: int) -> bool:
    """Down as a place, as GeoText has it: down side, down left, right down side."""
    after = codes[i + 1] if i + 1 < len(codes) else "$"
    before = codes[i - 1] if i else "^"
    return after == "L" or (after == "h" and before in "tP^.;,") or (before == "h" and after in "L,.$")


def _back_or_front(low: list[str], codes: list[str], i: int) -> str:
    """The letter of back, rear or front in "at the back": an image position, unless it is that of a named thing."""
    after = codes[i + 1] if i + 1 < len(codes) else "$"
    if after == "f":
        return "x" if low[i] == "front" else "v"
    return "G" if after in ",.;$&zBVpP" else "x"


def _near_side(low: list[str], codes: list[str], i: int) -> bool:
    """The near side, the far end: as seen from where an oblique view was taken."""
    return i > 0 and codes[i - 1] == "t" and low[i + 1 : i + 2] in (["side"], ["end"], ["edge"])


def _is_ground_view(words: frozenset[str]) -> bool:
    """Whether a caption speaks of a street or ground photograph, where in front and behind are no image positions."""
    ground = words & lexicon().words["ground_view"]
    if words & _VIEWER:
        return True
    return len(ground) > 1 and len(ground) > 2 * len(words & lexicon().words["aerial_view"])


# ---- grammar: phrases over the letters ------------------------------------------------------------------------------

_X = (  # upper left, lower right-hand, north-east; upper- only before another: upper- and lower-left
    r"(?:[vh]-?[vh]|n-?q|e-?q|n-?e|q|[vhne])(?:-?H|-d)?(?!-[Kneqhv])(?!-,?&(?![tia]?[vhneq](?!-K)))"
)
_R = r"(?:[vh]-?[vh]|n-?q|e-?q|n-?e|q|[vhne])"  # one end of a range: north-south
_D = rf"(?:M-?{_X}|{_X}-w(?=L)|{_X}-?M|{_X})"  # middle right, upper centre
_LIST = rf"(?:,(?:{_D}|M)(?=,?[&,]))*,?&[tia]?{_D}"
_DD = rf"{_D}(?:-(?=,?&[tia]?{_D}))?(?:{_LIST})?"  # upper and right; left, right and bottom; upper- and lower-left
_T = r"(?:bt?|[tia])?J?"  # the, its, both the, the far
_PP = rf"[P2F]{_T}{_DD}(?:-?[LSN])?"
_OF_IMAGE = r"(?:ft?I)?"

GRAMMAR: dict[Kind, str] = {
    "axis": rf"F[ti]?{_D}[LS]?u?A*[2P]t?{_D}[LS]?{_OF_IMAGE}"
    rf"|P[tia]?{_R}(?:2|-){_R}N|P[tia]?{_X}N|a?{_X}2t?{_X}(?!f)|n-n|e-e|h-h|v-v|q-q"
    rf"|(?<=p)(?:n&n|e&e)",
    "origin": rf"u?F[ti]?{_D}[LS]?u?(?=[2P])",
    "beside": rf"A*[P2F]{_T}{_DD}(?:-?[LS])?f(?!t?I)|(?<![tia])A*{_DD}f(?!t?I)",
    "relation": rf"(?=[^.;BVwO]{{0,14}}R)b?(?:A*(?:[P2]{_T})?{_D}f?(?:,(?:[P2]{_T})?{_D})*,?&)?A*R"
    r"(?:,?&R|,R(?=,?&))*|A*Prf?",
    "depth": rf"[P2]?(?:tJ?)?(?:{_D})?G",
    "place": rf"(?:u&)?A*u?{_PP}{_OF_IMAGE}(?:(?:,?&|,)A*(?!F)(?:{_PP}{_OF_IMAGE}(?![LSNf])|PtG))*",
    "facing": rf"KA?(?:{_X})|(?:[neq]-,?&[tia]?)?[neq]-K",
    "clock": r"[PF][ta]?(?:#[&2]|w)?[#w]?o[NL]?(?:,?&P?[ta]?[#w]?o[NL]?(?!p|V))?|oN?",
    "turned": r"[B&]?Zwzi[wLSM]{1,3}[KTgBpVx][A2tP]*(?:"
    + _X
    + r")|A*Z(?:A*2t?"
    + _X
    + r"|[Aw#]{0,3}[WC](?:P[Aw#]{1,3}(?=[,.;&$]|$))?)|A*Z[AW]*|Pa@|TA*C(?:FtX)?&?",
    "travel": r"T",
    "vertical": r"A*u|A*k",
    "adverb": r"A*[WC]",
    "axis_adjective": r"X",
    "noun": rf"{_T}{_DD}(?:-?[LS])?",
}
_ONE_PLACE = re.compile(rf"A*u?{_PP}{_OF_IMAGE}")
_STARTS = "ABFP2tiabJM&uhvneqRGrWCXkoTZK@"
_TRIGGERING = "".join(sorted(TRIGGERS - {"Y"}))
# spares the grammar most positions; nothing is gained by giving letters back, hence the possessive repetitions
_AHEAD = rf"(?=[{_STARTS}])(?=[ABFPtiabJM2&-]{{0,6}}+(?:#[&2])?+[w#]{{0,2}}+[{_TRIGGERING}])"
_GRAMMAR = re.compile(_AHEAD + "(?:" + "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in GRAMMAR.items()) + ")")


@cache
def _named(word: str, code: str) -> frozenset[str]:
    """The directions that one word names: north-western -> {north, west}."""
    if len(word) < 3 and code in "neq":
        return frozenset({"n": "north", "s": "south", "e": "east", "w": "west"}[letter] for letter in word)
    if code in "vRu":
        high = word in ("above", "up", "far") or word.startswith(("upper", "top"))
        return frozenset({"top" if high else "bottom"})
    return frozenset(re.findall("left|right|north|south|east|west", word))


@lru_cache(maxsize=1 << 12)
def _meaning(codes: str, low: tuple[str, ...]) -> tuple[tuple[frozenset[str], ...], Frame]:
    """The directions that a phrase names, adjoining words joined (upper left -> {top, left}), and whose they are."""
    found: list[frozenset[str]] = []
    joined = False
    for code, word in zip(codes, low, strict=True):
        if code in "hvneqRW" or (code == "u" and len(codes) == 1):
            named = _named(word, code)
            if joined:
                found[-1] |= named
            else:
                found.append(named)
            joined = True
        elif code != "-":
            joined = False
    owner = codes.find("i")
    if owner >= 0:
        return tuple(found), "viewer" if low[owner] in ("my", "our", "your") else "object"
    return tuple(found), "object" if codes[-1] in "fR" else "image"


def split(tokens: Tokens, mention: Mention) -> list[Mention]:
    """The single places of a list of places: over the upper left quadrant | along the top edge."""
    spans = [match.span() for match in _ONE_PLACE.finditer(tokens.codes, mention.first, mention.last)]
    return [Mention("place", a, b, *_meaning(tokens.codes[a:b], tuple(tokens.low[a:b]))) for a, b in spans]


def find(tokens: Tokens) -> list[Mention]:
    """The orientation expressions of a caption, in order, not overlapping."""
    return _mentions(tokens.low, tokens.codes)


def _mentions(low: list[str], codes: str) -> list[Mention]:
    mentions = []
    for match in _GRAMMAR.finditer(codes):
        first, last = match.span()
        kind: Kind = match.lastgroup  # type: ignore[assignment]
        mentions.append(Mention(kind, first, last, *_meaning(codes[first:last], tuple(low[first:last]))))
    return mentions
