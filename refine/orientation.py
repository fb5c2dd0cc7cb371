"""Take orientation out of captions and leave every other fact in a grammatical sentence.

`orientation_spans.find` says what is orientation; this module does what a careful editor then does: drop the phrase
where the sentence stands without it, and put "one side", "next to", "nearby" where it does not.

    georefine strip < captions.txt > stripped.txt        one caption per line
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from refine.orientation_spans import Mention, Tokens, lexicon, read, split
from schemas.records import Edit, Platform, Stripped, apply_edits

OPPOSITE = {
    "left": "right", "right": "left", "top": "bottom", "bottom": "top",
    "north": "south", "south": "north", "east": "west", "west": "east",
}  # fmt: skip
Directions = frozenset[str]
CLAUSE = "^.;"
"""Letters before the first word of a clause."""
_THE_MIDDLE = re.compile("tM(?=[w,&]|$)")
_COUNTED = re.compile("&#[P2AF]")
_VERB_THEN_NOUN = re.compile(r"[By][^.;,&z]*[wM]$")


@cache
def _opposite(directions: Directions) -> Directions:
    return frozenset(OPPOSITE.get(name, name) for name in directions)


@dataclass(slots=True)
class _Draft:
    """The edits of one caption while it is being rewritten."""

    tokens: Tokens
    mentions: list[Mention]
    pieces: list[tuple[int, int, str]] = field(default_factory=list)
    chosen: dict[str, dict[Directions, str]] = field(default_factory=dict)
    current: Mention | None = None
    done: set[int] = field(default_factory=set)
    pairs: dict[tuple[int, tuple[str, ...]], bool] = field(default_factory=dict)

    def put(self, first: int, last: int, text: str) -> None:
        """Replace tokens first .. last-1."""
        self.pieces.append((self.tokens.start[first], self.tokens.end[last - 1], text))

    def cut(self, first: int, last: int) -> None:
        """Remove tokens first .. last-1 with the blanks and commas that belong to them."""
        t = self.tokens
        before, after = t.code(first - 1), t.code(last)
        bare = (before == "p" and t.low[first - 1].endswith("ing")) or (
            t.word(first - 1) in lexicon().words["participle"]
        )
        if bare and after in ",.;$" and t.code(first - 2) in "^.;,":
            first -= 1  # Going clockwise from the top, one sees
            before = t.code(first - 1)
        if after == "B" and before in CLAUSE:
            self.put(first, last, "there")
            return
        if t.word(first - 1) in ("(", "[") and t.word(last) in (")", "]"):
            begin, end = (t.end[first - 2] if first > 1 else 0), t.end[last]
            if not begin and last + 1 < len(t.low) and t.code(last + 1) not in ",.;":
                end = t.start[last + 1]  # (Left) a hut: no blank opens the caption
            self.pieces.append((begin, end, ""))
        elif before in CLAUSE or t.glued(first):
            if after in ",-" or t.word(last) == ":":
                last += 1
                if after == "," and t.code(last) == "&":
                    last += 1
            if t.code(last) in ".$":
                self._cut_clause(first, last)
                return
            self.pieces.append((t.start[first], t.start[last], ""))
        elif before == ",":
            if after == "," and not _introduces(t, first - 1):
                self.pieces.append((t.end[first - 2], t.end[last], ""))
            elif after in ",.;$":
                self.pieces.append((t.end[first - 2], t.end[last - 1], ""))
            else:
                self.pieces.append((t.start[first], t.start[last], ""))
        elif before in "&z":
            if after == ",":
                last += 1
            if t.code(last) in ".;$,":
                begin = first - 2 if t.code(first - 2) == "," else first - 1
                self.pieces.append((t.end[begin - 1] if begin else 0, t.end[last - 1], ""))
            else:
                self.pieces.append((t.start[first], t.start[last], ""))
        else:
            self.pieces.append((t.end[first - 1], t.end[last - 1], ""))

    def _cut_clause(self, first: int, last: int) -> None:
        t = self.tokens
        stop = min(last + 1, len(t.low)) if t.code(last) == "." else last
        begin = t.end[first - 1] if first else 0
        until = t.start[stop] if stop < len(t.low) and not first else t.end[stop - 1]
        self.pieces.append((begin, until, ""))

    def which(self, noun: str, directions: Directions) -> str:
        """One, the other or another: how the editor keeps two sides apart without naming them."""
        seen = self.chosen.setdefault(noun, {})
        if directions not in seen:
            only = (
                len(seen) == 1
                and _opposite(directions) in seen
                and not (noun == "corner" and len(directions) > 1)
                and not self.third(directions)
            )
            plain = noun == "side" and len(directions) == 1 and self.third(directions)
            more = {2: "a third", 3: "a fourth"}.get(len(seen), "another") if plain else "another"
            seen[directions] = "one" if not seen else "the other" if only else more
        return seen[directions]

    def third(self, directions: Directions) -> bool:
        """Whether a third place is told apart in the sentence: to the east, to the west and to the north."""
        here = self.current
        if here is None:
            return False
        pair = (directions, _opposite(directions))
        begin = self.tokens.codes.rfind(".", 0, here.first) + 1
        end = self.sentence_end(here)
        if _THE_MIDDLE.search(self.tokens.codes[begin:end]) and "one" in self.tokens.low[begin:end]:
            return True
        return any(
            other.kind == here.kind and len(other.directions) == 1 and other.directions[0] not in pair
            for other in self.mentions
            if begin <= other.first <= end
        )

    def sentence_end(self, mention: Mention) -> int:
        stop = self.tokens.codes.find(".", mention.last)
        return len(self.tokens.codes) if stop < 0 else stop

    def one_of(self, possessive: str, noun: str, directions: Directions) -> str:
        """One of its sides, another of its sides, the other side."""
        word = self.which(noun, directions)
        word = "another" if word.startswith("a ") else word
        return f"the other {noun}" if word == "the other" else f"{word} of {possessive} {_plural(noun)}"

    def same_noun(self, mention: Mention) -> bool:
        """Whether the opposite place is said of the same noun: the hall on the left ... the hall on the right."""
        noun = self.tokens.word(mention.first - 1)
        wanted = _opposite(mention.directions[0])
        return any(
            other.directions[:1] == (wanted,) and self.tokens.word(other.first - 1) in (noun, "one")
            for other in self.mentions
        )

    def told_apart(self, mention: Mention) -> bool:
        """Whether an earlier place of the same sentence was kept as "on one side"."""
        end = self.tokens.start[mention.first]
        begin = max((self.tokens.start[i] for i in range(mention.first) if self.tokens.codes[i] == "."), default=0)
        return any(
            begin <= piece[0] < end and piece[2].startswith("on ") and "side" in piece[2] for piece in self.pieces
        )

    def after_predicate(self, mention: Mention) -> bool:
        """Whether an earlier place of the sentence completed its verb: X is north of A and Y (is) to the south."""
        return any(
            other.last <= mention.first
            and other.kind in ("beside", "place")
            and self.tokens.code(other.first - 1) in "BV"
            and self.same_sentence(other, mention)
            for other in self.mentions
        )

    def same_sentence(self, one: Mention, two: Mention) -> bool:
        return "." not in self.tokens.codes[min(one.first, two.first) : max(one.first, two.first)]

    def object_of(self, mention: Mention) -> str:
        """The thing a relation is to; "it" for a pronoun, and for its left."""
        t = self.tokens
        if mention.kind == "place":
            return "it"
        at = mention.last + (t.code(mention.last) in "ti")
        return "it" if t.word(at) in ("it", "them") else t.word(at)

    def flanked(self, mention: Mention) -> bool:
        """Whether the opposite relation to the same thing is told: above the hall ... and below it."""
        names = mention.directions[0] if mention.directions else frozenset()
        if len(names) != 1 or "behind" in self.tokens.low[mention.first : mention.last]:
            return False
        thing, wanted = self.object_of(mention), _opposite(names)
        return any(
            other.directions == (wanted,)
            and (other.kind in ("beside", "relation") or (other.kind == "place" and other.frame == "object"))
            and self.object_of(other) in (thing, "it", thing if thing != "it" else self.object_of(other))
            and "behind" not in self.tokens.low[other.first : other.last]
            and self.same_sentence(mention, other)
            for other in self.mentions
        )

    def contrasted(self, mention: Mention, noun: str) -> bool:
        """Whether the opposite adjective is said of the same noun: its left wing ... its right wing, the right one."""
        wanted = _opposite(mention.directions[0])
        return any(
            other.directions[:1] == (wanted,) and (noun == "one" or self.tokens.word(other.last) in (noun, "one"))
            for other in self.mentions
            if other.kind == "noun"
        )

    def swallow(self, mention: Mention) -> int:
        """The end of the mention that follows this one at once, which is then dealt with; else of this one."""
        after = self.mentions[self.mentions.index(mention) + 1 :]
        if after and after[0].first == mention.last and after[0].kind in ("place", "axis", "noun"):
            self.done.add(after[0].first)
            return after[0].last
        return mention.last

    def paired(self, mention: Mention, kinds: tuple[str, ...] = ("place", "beside")) -> bool:
        """Whether another place of the caption is just opposite: on the left ... on the right."""
        if not mention.directions or not mention.directions[0]:
            return False
        if (mention.first, kinds) not in self.pairs:
            self.pairs[mention.first, kinds] = self._is_paired(mention, kinds)
        return self.pairs[mention.first, kinds]

    def _is_paired(self, mention: Mention, kinds: tuple[str, ...]) -> bool:
        wanted = _opposite(mention.directions[0])
        return any(
            other.directions[:1] == (wanted,)
            and other.kind in kinds
            and (len(wanted) == 1 or self.same_sentence(mention, other))
            and (other.kind == "beside" or other.frame != "object")
            and other.first != mention.first
            for other in self.mentions
        )


def _introduces(t: Tokens, comma: int) -> bool:
    """Whether the comma closes an opening phrase (In the middle, ...) that the main clause follows."""
    at = comma - 1
    while at >= 0 and t.code(at) not in ".;,":
        at -= 1
    return t.code(at + 1) in "PF2"


def _singular(landmark: str) -> str:
    return (
        "half"
        if landmark == "halves"
        else landmark.removesuffix("ies") + "y"
        if landmark.endswith("ies")
        else landmark.rstrip("s")
    )


def _plural(landmark: str) -> str:
    return {"half": "halves", "boundary": "boundaries"}.get(landmark, landmark + "s")


# ---- one rule per kind of mention -----------------------------------------------------------------------------------

PLAIN = frozenset({"side", "part", "hand", "portion", "section", "position", "direction"})
"""Landmarks that say nothing once their direction is gone; a corner or an edge is still a fact."""


class _Phrase(NamedTuple):
    """A prepositional phrase in its parts; indices of tokens, -1 where the part is absent."""

    preposition: int
    determiner: int
    landmark: int
    adverb: int
    possessive: bool
    several: bool
    centre: bool


def _phrase(t: Tokens, first: int, last: int) -> _Phrase:
    preposition = determiner = landmark = adverb = -1
    possessive = several = centre = False
    for i in range(first, last):
        code = t.codes[i]
        if code in "P2F":
            if preposition < 0:
                preposition = i
        elif code in "tia":
            if determiner < 0:
                determiner, possessive = i, code == "i"
        elif code in "LS":
            landmark = i
        elif code == "A" and adverb < 0 and preposition < 0:
            adverb = i
        elif code == "&":
            several = True
        elif code == "M":
            centre = True
        elif code == "f":
            break
    return _Phrase(preposition, determiner, landmark, adverb, possessive, several, centre)


def _clause_start(t: Tokens, first: int) -> bool:
    """Whether a phrase opens its clause: after a stop, or after a comma or while/and that a stop precedes."""
    before = t.code(first - 1)
    if (
        before in CLAUSE
        or t.glued(first)
        or (before == "z" and t.word(first - 1) in ("while", "whereas", "but", "where"))
    ):
        return True
    return before == "&" and t.code(first - 2) in ",;"


def _centre_follows(t: Tokens, index: int) -> bool:
    return t.code(index) == "M" or (t.code(index) in "tia" and t.code(index + 1) == "M")


def _is_distance(t: Tokens, at: int) -> bool:
    """Whether a length in numbers ends at a token: 200 metres (north of), three kilometres (to the south)."""
    if t.word(at) not in lexicon().words["distance"]:
        return False
    return t.code(at - 1) == "#" or t.word(at - 1).isdigit() or t.word(at - 1) in lexicon().words["many"]


def _beside(d: _Draft, m: Mention) -> None:
    """To the left of X, north of X, on the left side of X."""
    t = d.tokens
    p = _phrase(t, m.first, m.last)
    last = m.last - 1
    while t.codes[last] != "f":
        last -= 1
    directions = m.directions[0] if m.directions else frozenset()
    word = t.word(p.preposition) if p.preposition >= 0 else ""
    if _is_distance(t, m.first - 1):
        d.put(m.first, last + 1, "from")
        return
    if t.code(m.first - 1) == "#" and t.code(m.first - 2) == "&" and d.told_apart(m):
        d.put(m.first, last + 1, f"on {d.which('side', directions)} side of")
        return
    if (p.landmark >= 0 and _singular(t.low[p.landmark]) in ("side", "part", "hand", "end")) or (
        p.landmark < 0 and any(t.codes[i] == "H" for i in range(m.first, m.last)) and p.preposition >= 0
    ):
        noun = _singular(t.low[p.landmark]) if p.landmark >= 0 else "side"
        if p.several:
            text = f"{_how_many(t, m)} sides"
        elif p.centre and word in ("in", "on", "at"):
            text = f"in the middle of {d.which(noun, directions)} {noun}"
            d.put(p.preposition, last, text)
            return
        else:
            text = f"{d.which(noun, directions)} {noun}"
        if word in ("in", "at") and noun in ("side", "hand"):
            d.put(p.preposition, last, f"on {text}")
        else:
            d.put(p.preposition + 1, last, text)
        return
    if p.several and p.landmark < 0:
        d.put(p.preposition if p.preposition >= 0 else m.first, last, f"on {_how_many(t, m)} sides")
        return
    if p.landmark >= 0:
        noun = t.low[p.landmark]
        if p.several:
            d.put(p.preposition + 1, last, f"{_how_many(t, m)} {_plural(_singular(noun))}")
            return
        d.put(p.preposition + 1 if p.preposition >= 0 else m.first, last, f"{d.which(noun, directions)} {noun}")
        return
    if _centre_follows(t, last + 1):
        the = " the" if t.code(last + 1) == "M" else ""
        if p.centre:
            d.put(p.preposition if p.preposition >= 0 else m.first, last + 1, "near" + the)
        elif t.word(m.first) in ("at",) and t.word(last - 1) in ("top", "bottom"):
            d.put(m.first, last + 1, "in" + the)
        else:
            lead_in = any(t.codes[i] == "A" for i in range(m.first, last))
            d.put(last - 1 if p.preposition < 0 else p.preposition, last + 1, ("off" if lead_in else "near") + the)
        if p.adverb < 0 and p.preposition < 0 and m.first < last - 1:
            d.pieces[-1] = (t.start[m.first], d.pieces[-1][1], d.pieces[-1][2])
        return
    if word == "at" and t.word(last - 1) not in ("top", "bottom"):
        d.put(p.preposition + 1, last, f"{d.which('side', directions)} side")
        return
    if word in ("in", "at", "within", "on", "across", "along") and (
        word in ("in", "within", "across", "along") or t.word(last - 1) in ("top", "bottom")
    ):
        if word == "at" and t.word(last - 1) in ("top", "bottom"):
            d.put(p.preposition + 1, last, f"{d.which('end', directions)} end")
            return
        noun = "side" if word in ("along", "across") else "part"
        preposition = word if word in ("along", "across") else "in"
        d.put(p.preposition, last, f"{preposition} {d.which(noun, directions)} {noun}")
        return
    first = p.preposition if p.preposition >= 0 else next(i for i in range(m.first, last) if t.codes[i] in "vhneqM")
    if word in ("from", "toward", "towards"):
        d.put(first + 1, last + 1, "beside" if word == "from" else "the side of")
        return
    if t.word(m.first) in ("slightly", "further", "farther", "somewhat", "partly", "mostly"):
        first = m.first
    if d.flanked(m):
        d.put(first, last + 1, f"on {d.which('side', directions)} side of")
        return
    opposite = (_opposite(directions),)
    if any(
        other.directions[:1] == opposite and other.kind == "place" and d.same_sentence(m, other) for other in d.mentions
    ):
        d.which("side", directions)  # to the left of the tower is X, and to the right Y: next to it, on the other side
    d.put(first, last + 1, "next to")


def _how_many(t: Tokens, m: Mention) -> str:
    """How many sides a list of directions names: both for opposites."""
    number = len(re.split(r",?&[tia]?|,", t.codes[m.first : m.last]))
    if _opposed(m) and number <= 2:
        return "both"
    return {2: "two", 3: "three"}.get(max(number, len(m.directions)), "several")


def _opposed(m: Mention) -> bool:
    return len(m.directions) == 2 and m.directions[1] == _opposite(m.directions[0])


def _needs_place(t: Tokens, before: int) -> bool:
    """Whether the word before a place would be left without a complement: is, lies, stands, located."""
    code = t.code(before)
    if t.word(before) == "visible":
        return False
    if code == "A":
        return _needs_place(t, before - 1)
    if code == "w" and t.word(before) in ("out", "off", "away", "up") and t.code(before - 1) in "VB":
        return True
    return code in "BV"


def _place(d: _Draft, m: Mention) -> None:
    """On the left, in the upper right corner of the image, on its left, to the north and to the west."""
    t = d.tokens
    codes = t.codes[m.first : m.last]
    p = _phrase(t, m.first, m.last)
    directions = m.directions[0] if m.directions else frozenset()
    preposition = t.word(p.preposition)
    after = t.code(m.last)
    opens = _clause_start(t, m.first) or (t.code(m.first - 1) in ",&" and after in "By" and len(m.directions) == 1)
    opens = opens or (after == "y" and d.paired(m) and not _introduces(t, m.first))
    opens = opens or (
        after == "B" and _VERB_THEN_NOUN.search(t.codes, t.codes.rfind(".", 0, m.first) + 1, m.first) is not None
    )  # no stop between
    several = len(m.directions) > 1 or "G" in codes
    if several and any(t.codes[i] in "LS" and t.low[i] not in PLAIN for i in range(m.first, m.last)):
        parts = split(t, m)
        if len(parts) > 1:
            for part in parts:
                _place(d, part)
            return
    if _is_distance(t, m.first - 1) and p.landmark < 0:
        d.put(m.first, m.last, "away")
        return
    if not several and after == "&" and len(directions) == 1 and _COUNTED.match(t.codes, m.last):
        d.put(m.first, m.last, f"on {d.which('side', directions)} side")  # four on the left and two on the right
        return
    if p.centre and p.landmark < 0 and not several:
        if preposition == "from":
            d.cut(m.first, m.last)
            return
        if preposition in ("to", "toward", "towards") and t.code(m.first - 1) in "pg":
            d.put(m.first, m.last, f"in {d.which('direction', directions)} direction")
            return
        if "u" in t.codes[m.first : p.preposition]:
            d.pieces.append((t.start[m.first], t.start[p.preposition], ""))
        first = next(i for i in range(m.first, m.last) if t.codes[i] in "vhneq")
        drop = first + 1
        while t.code(drop) in "vhneqH-":
            drop += 1
        if t.code(first - 1) == "-":
            first -= 1
        if t.code(first - 1) == "M":
            d.cut(first, drop)
        else:
            d.pieces.append((t.start[first], t.start[drop], ""))
        return
    noun = t.low[p.landmark] if p.landmark >= 0 else ""
    if several:
        _places(d, m, p)
        return
    kept = noun and noun not in PLAIN
    if kept and "u" in t.codes[m.first : p.preposition]:
        d.pieces.append((t.start[m.first], t.start[p.preposition], ""))
    image = "I" in codes
    tail = m.first + codes.index("f") if "f" in codes else m.last
    if (
        after in "w#xK"
        and t.code(m.last - 1) in "vhneqH"
        and p.determiner >= 0
        and not opens
        and not _looks_finite(t, m.last)
    ):
        _attribute(d, p.determiner, m.last, directions)
        return
    if after in "wS#" and t.code(m.last - 1) in "vhneqH" and opens and t.code(m.last + 1) in ",y.":
        _attribute(d, p.determiner if p.determiner >= 0 else p.preposition + 1, m.last, directions)
        return
    if kept:
        of = p.possessive and noun in ("side", "edge", "corner", "end", "flank", "margin")
        text = d.one_of(t.low[p.determiner], noun, directions) if of else f"{d.which(noun, directions)} {noun}"
        if p.possessive and noun == "half":
            text = f"{d.which(noun, directions)} half of {_object_pronoun(t.low[p.determiner])}"
        d.put(p.preposition + 1, p.landmark + 1, text)
        return
    if p.possessive and t.low[p.determiner] in ("its", "their"):
        pronoun = _object_pronoun(t.low[p.determiner])
        if not noun and preposition in ("along", "across", "around"):
            d.put(p.preposition + 1, tail, d.one_of(t.low[p.determiner], "side", directions))
        elif not noun:
            side = f"on {d.which('side', directions)} side of " if d.flanked(m) else "next to "
            d.put(p.preposition, tail, side + pronoun)
        elif noun == "side":
            d.put(p.preposition + 1, p.landmark + 1, d.one_of(t.low[p.determiner], noun, directions))
        else:
            d.put(p.preposition + 1, p.landmark + 1, f"one {noun} of {pronoun}")
        return
    if preposition in (
        "along",
        "across",
        "around",
        "over",
        "through",
        "near",
        "by",
        "throughout",
        "past",
        "beside",
        "into",
        "onto",
    ):
        default = {
            "around": "edge",
            "near": "edge",
            "by": "edge",
            "into": "part",
            "onto": "part",
            "over": "part",
            "through": "part",
        }
        name = noun or default.get(preposition, "side")
        d.put(p.preposition + 1, tail, f"{d.which(name, directions)} {name}")
        return
    if preposition in ("to", "toward", "towards") and _points(d, m, p, tail):
        return
    if preposition == "from":
        if noun:
            d.put(p.preposition + 1, tail, f"{d.which(noun, directions)} {noun}")
        elif t.word(m.first - 1) == "in" or t.code(m.first - 1) in "V":
            d.put(p.preposition + 1, tail, f"{d.which('side', directions)} {noun or 'side'}")
        else:
            d.cut(m.first, m.last)
        return
    if d.chosen and ((t.code(m.first - 1) in ",&" and after in "ta#") or _gapped(t, m)) and d.told_apart(m):
        d.put(p.preposition, tail, f"on {d.which('side', directions)} side")
        return
    if opens:
        _opening_place(d, m, p, image, tail)
        return
    if _gapped(t, m) and d.after_predicate(m):
        d.put(m.first, tail, "nearby")
        return
    if image and preposition in ("on", "in", "at"):
        name = noun or "part"
        d.put(p.preposition, tail, f"{'on' if name == 'side' else 'in'} {d.which(name, directions)} {name}")
        return
    if _needs_place(t, m.first - 1) and noun == "side":
        d.put(p.preposition, tail, f"on {d.which('side', directions)} side")
    elif t.word(m.first - 1) == "one" and t.code(m.first - 2) == "t" and (after in ",.;$" or d.paired(m)):
        d.put(m.first - 2, tail, d.which("one", directions) if d.paired(m) else "the other")
    elif d.paired(m) and (_compared(t, m) or (t.word(m.first - 1) == "other" and after in ",.;$")):
        d.put(m.first, tail, f"on {d.which('side', directions)} side")
    elif _needs_place(t, m.first - 1):
        d.put(
            p.preposition if t.code(m.first) == "A" and t.low[m.first] in ("immediately", "directly") else m.first,
            tail,
            _somewhere(d, m),
        )
    elif t.code(m.first - 1) == "p" and after in ",.;&$" and preposition in ("on", "in", "at"):
        d.put(m.first, tail, "by" if t.word(m.first - 1).startswith("pass") else _somewhere(d, m))
    elif (
        (t.word(m.first - 1).endswith("ing") and t.code(m.first - 2) in CLAUSE and after == ",")
        or (t.word(m.first - 1) == "one" and t.code(m.first - 2) in ",&^.;" and after in ",.;&$" and d.paired(m))
        or (noun == "side" and d.paired(m))
        or _by_agent(t, m.first)
    ):
        d.put(m.first, tail, "on " + d.which("side", directions) + " side")
    elif d.paired(m) and d.same_noun(m) and (the := _definite(t, m.first)) >= 0:
        word = d.which("one", directions)
        d.put(the, the + 1, word)
        d.cut(m.first, m.last)
    else:
        d.cut(m.first, m.last)


def _gapped(t: Tokens, m: Mention) -> bool:
    """Whether a place stands for a whole predicate: the hall is on the left, the chapel on the right."""
    if t.code(m.last) not in ",.;&$":
        return False
    at = m.first - 1
    while at >= 0 and t.code(at) in "tawx#i" and m.first - at < 6:
        at -= 1
    return at < m.first - 1 and t.code(at) in ",&;" and not t.word(m.first - 1).endswith(("ing", "est"))


def _compared(t: Tokens, m: Mention) -> bool:
    """Whether two places are told apart by a comparison: more trees on the left than on the right."""
    return "than" in (t.word(m.first - 1), t.word(m.last)) or "those" in t.low or "ones" in t.low


def _definite(t: Tokens, first: int) -> int:
    """The index of "the" in "the (pale) building on the left", or -1."""
    for i in range(first - 1, max(first - 4, -1), -1):
        if t.code(i) == "t" and i < first - 1:
            return i
        if t.code(i) not in "w":
            return -1
    return -1


def _by_agent(t: Tokens, first: int) -> bool:
    """Whether the clause says what flanks or closes something (flanked by X on the left)."""
    for i in range(first - 1, max(first - 10, -1), -1):
        if t.codes[i] in ".;,":
            return False
        if t.low[i] == "by" and t.low[i - 1].endswith("ed"):
            return True
    return t.word(first - 1) in ("it", "them") and t.word(first - 3) in ("attached", "joined", "connected", "fixed")


def _somewhere(d: _Draft, m: Mention) -> str:
    if d.paired(m):
        return "on " + d.which("side", m.directions[0]) + " side"
    if d.tokens.code(m.first) == "A" and d.tokens.low[m.first] in ("immediately", "directly"):
        return "alongside"
    return "nearby"


def _object_pronoun(possessive: str) -> str:
    return {"its": "it", "their": "them", "his": "him", "my": "me", "our": "us", "your": "you"}.get(possessive, "it")


def _points(d: _Draft, m: Mention, p: _Phrase, tail: int) -> bool:
    """Pointing to the top: one way; curving to the right: dropped; to the left of a clause: left to the others."""
    t = d.tokens
    before = t.code(m.first - 1)
    if before == "g" or (
        before == "p"
        and t.low[m.first - 1].startswith(("extend", "lead", "stretch", "head", "reach", "continue", "connect"))
    ):
        if t.code(m.first - 2) in CLAUSE and t.low[m.first - 1].endswith("ing") and t.code(m.last) == ",":
            d.cut(m.first - 1, m.last)
        else:
            word = d.which("direction", m.directions[0])
            d.put(m.first, m.last, f"{word} way" if before == "g" else f"in {word} direction")
        return True
    if before == "p":
        d.cut(m.first - 1 if _dangling(t, m) else p.preposition, m.last)
        return True
    if t.word(p.preposition) == "to" and t.word(m.first - 1) == "another":
        d.put(m.first, tail, "in a different direction")
        return True
    if t.word(p.preposition) == "to" and t.word(m.first - 1) == "other":
        if d.chosen.get("side"):
            d.put(m.first, tail, f"on {d.which('side', m.directions[0])} side")
            return True
        d.put(m.first, tail, f"{d.which('direction', m.directions[0])} way")
        return True
    if t.word(p.preposition) != "to" and before in "w#" and not _clause_start(t, m.first):
        if t.word(m.first - 1) in ("one", "other"):
            d.put(m.first, tail, f"on {d.which('side', m.directions[0])} side")
        else:
            d.cut(m.first, m.last)
        return True
    return False


def _dangling(t: Tokens, m: Mention) -> bool:
    """Whether a participle would be left with nothing to say: a road running towards the top."""
    before = t.word(m.first - 1)
    return (
        t.code(m.first - 1) == "p"
        and before.endswith("ing")
        and t.code(m.last) in ",.;$"
        and t.code(m.first - 2) in "wx"
    )


def _opening_place(d: _Draft, m: Mention, p: _Phrase, image: bool, tail: int) -> None:
    """On the left, there is X / On the left is X / At the bottom a brown block forms."""
    t = d.tokens
    after = t.code(m.last)
    if t.word(m.first - 1) == ";" and after == "," and t.code(m.last + 1) in "a#wt" and not d.paired(m):
        d.put(m.first, m.last, "elsewhere")
    elif d.paired(m) or _opposite(m.directions[0]) in d.chosen.get("side", {}):
        first = m.first if t.word(m.first) in ("further", "farther") else p.preposition
        d.put(first, tail, f"on {d.which('side', m.directions[0])} side")
    elif after in "Bpg" or (
        (after in "VT" or t.word(m.last) in lexicon().words["travel"] or (after == "w" and _looks_finite(t, m.last)))
        and not t.low[m.last].endswith(("ed", "ing"))
    ):
        if image:
            noun = "side" if p.landmark >= 0 and t.low[p.landmark] == "side" else "part"
            d.put(p.preposition, tail, f"{'on' if noun == 'side' else 'in'} {d.which(noun, m.directions[0])} {noun}")
        elif t.code(m.first) == "A":
            d.put(p.preposition, m.last, "alongside")
        else:
            d.put(m.first, m.last, "nearby")
    elif after == "," and t.code(m.last + 1) in "BVp" and t.code(m.first - 1) in CLAUSE:
        d.put(m.first, m.last + 1, "nearby")
    else:
        d.cut(m.first, m.last)


def _places(d: _Draft, m: Mention, p: _Phrase) -> None:
    """On the left and right, to the west and to the south, below, to the south-east."""
    t = d.tokens
    level = len(m.directions) == 2 and len(m.directions[0]) == 2 == len(m.directions[0] ^ m.directions[1])
    both = "both" if level else "two" if "G" in t.codes[m.first : m.last] else _how_many(t, m)
    if "," in t.codes[m.first : m.last] and "&" not in t.codes[m.first : m.last]:
        if _needs_place(t, m.first - 1) and not _clause_start(t, m.first):
            d.put(m.first, m.last, "nearby")
        else:
            d.cut(m.first, m.last)
        return
    noun = t.low[p.landmark] if p.landmark >= 0 else "side"
    noun = _plural(_singular(noun))
    preposition = t.word(p.preposition)
    if "u" in t.codes[m.first : m.last]:
        d.cut(m.first, m.last)
    elif p.possessive and p.landmark < 0 and _opposed(m):
        d.put(p.preposition, m.last, f"on both sides of {_object_pronoun(t.low[p.determiner])}")
    elif p.possessive and t.low[p.determiner] in ("its", "their"):
        kept = "on" if preposition in ("in", "at", "to", "toward", "towards") else preposition
        d.put(p.preposition, m.last, f"{kept} two of {t.low[p.determiner]} {noun}")
    elif preposition in ("in", "on", "at", "to", "toward", "towards", "from"):
        d.put(
            p.preposition,
            m.last,
            f"{'on' if noun == 'sides' else preposition if preposition in ('in', 'on', 'at') else 'on'} {both} {noun}",
        )
    else:
        d.put(p.preposition + 1, m.last, f"{both} {noun}")


def _attribute(d: _Draft, first: int, last: int, directions: Directions) -> None:
    """A direction word before another noun: the lower roof, a northern wing, the upper right two thirds."""
    t = d.tokens
    noun = t.word(last)
    if t.code(first) == "t" and t.code(last) in "wIOpxK" and noun:
        plural = noun.endswith("s") and not noun.endswith("ss")
        if noun == "ones" and t.code(first - 1) == "," and t.code(last + 1) == ",":
            d.cut(first, last + 1)  # two of the towers, the upper ones, are linked
        elif noun == "ones":
            word = d.which("one", directions)
            d.put(first, last + 1, {"one": "some", "the other": "the others"}.get(word, "others"))
        elif plural:
            d.pieces.append((t.start[first + 1], t.start[last], ""))
        elif noun in ("one", "ones"):
            d.put(first, last + 1, d.which("one", directions))
        else:
            d.put(first, last, d.which("one", directions))
    elif t.code(first) == "t" and t.code(last) == "#":
        d.pieces.append((t.start[first], t.start[last], ""))
    elif last == len(t.low) and t.code(first) in "tiab":
        d.put(first, last, f"{d.which('direction', directions)} direction")  # along the horizontal
    elif t.code(first) in "tiab":
        begin = first + 1
        if t.code(first) == "a" and noun == "one":
            d.put(first, last + 1, d.which("one", directions))
            return
        d.pieces.append((t.start[begin], t.start[last], ""))
        if t.code(first) == "a":
            article = "an" if noun[:1] in "aeio" else "a"
            if article != t.low[first]:
                d.pieces[-1] = (t.start[first], t.start[last], article + " ")
        elif t.code(first) == "b":
            d.pieces[-1] = (t.start[first], t.start[last], "two ")
    elif last < len(t.low):
        d.pieces.append((t.start[first], t.start[last], ""))


def _names_thing(word: str) -> bool:
    words = lexicon().words
    return any(word in words[key] for key in ("sided", "road", "strip", "tall", "deep"))


def _coordinated(d: _Draft, m: Mention) -> None:
    """The left and right wings, an east and a west wing: the wings, two wings."""
    t = d.tokens
    head = next((i for i in range(m.last, m.last + 3) if re.search("[^s]s$", t.word(i)) and t.code(i) == "w"), -1)
    first = m.first + (t.code(m.first) in "tiab") + (t.code(m.first) == "b" and t.code(m.first + 1) == "t")
    if head >= 0 or (t.code(m.last + 1) == "w" and not _names_thing(t.word(m.last))):
        lead = {"a": "two ", "b": "both "}.get(t.code(m.first), "")
        d.pieces.append((t.start[m.first if lead else first], t.start[m.last], lead))
        return
    lead = {"b": "both", "a": "two", "t": "the two", "i": f"{t.low[m.first]} two"}.get(t.code(m.first), "two")
    d.put(m.first, m.last + 1, f"{lead} {_plural(t.word(m.last))}")


def _noun(d: _Draft, m: Mention) -> None:
    """The left edge, its upper part, both lower corners, the top, the lower roof."""
    t = d.tokens
    p = _phrase(t, m.first, m.last)
    directions = m.directions[0] if m.directions else frozenset()
    determiner = t.code(m.first)
    after = t.code(m.last)
    end = t.codes[m.last - 1]
    if end == "S" or (p.several and p.landmark >= 0):
        noun = _plural(_singular(t.low[p.landmark]))
        if determiner == "i":
            d.put(m.first, m.last, f"two of {t.low[m.first]} {noun}")
        else:
            d.put(m.first, m.last, f"{_how_many(t, m) if p.several else 'two'} {noun}")
        return
    if p.several and p.landmark < 0 and after == "w" and not _looks_finite(t, m.last):
        _coordinated(d, m)
        return
    if p.centre and p.landmark < 0:
        drop = [i for i in range(m.first, m.last) if t.codes[i] in "vhneqH-"]
        if (drop[0] and t.codes[drop[-1] + 1 : drop[-1] + 2] == "M") or (
            drop[-1] + 1 < len(t.low) and t.code(drop[-1] + 1) == "M"
        ):
            d.pieces.append((t.start[drop[0]], t.start[drop[-1] + 1], ""))
        else:
            d.pieces.append((t.end[drop[0] - 1], t.end[drop[-1]], ""))
        return
    if end == "L" and t.word(m.first - 1) in ("'s", "’s") and (owner := _owner(t, m.first - 1)) >= 0:
        whose = t.raw[t.start[owner] : t.end[m.first - 1]]
        whose = whose[:1].lower() + whose[1:] if t.code(owner) in "ta" else whose
        d.put(owner, m.last, d.one_of(whose, t.low[m.last - 1], directions))
        return
    if after == "w" and len(directions) == 1 and d.contrasted(m, t.word(m.last)):
        owner = _owner(t, m.first - 1) if t.word(m.first - 1) in ("'s", "’s") else m.first if determiner == "i" else -1
        if owner >= 0:
            noun, whose = t.word(m.last), t.raw[t.start[owner] : t.end[m.first - (determiner != "i")]]
            whose = whose[:1].lower() + whose[1:] if t.code(owner) in "tai" else whose
            word = d.which("one", directions)
            other = word if noun == "one" else f"{word} {noun}"
            d.put(owner, m.last + 1, other if word != "one" else f"one of {whose} {_plural(noun)}")
            return
    of_two = after == "f" and t.code(m.last + 1) == "t" and t.code(m.last + 2) == "#"
    second = after in ",.;$" and _opposite(directions) in d.chosen.get("one", {})
    if determiner == "t" and end not in "LS" and not p.several and (of_two or second):
        d.put(m.first, m.last, d.which("one", directions))
        return
    if (
        determiner == "t"
        and end not in "LS"
        and after == ","
        and t.code(m.last + 1) == "w"
        and t.code(m.last + 2) == "w"
        and not t.low[m.last + 1].endswith(("ed", "ing"))
    ):  # the upper, longer wing
        d.pieces.append((t.start[m.first + 1], t.start[m.last + 1], ""))
        return
    if end == "L":
        noun = t.low[m.last - 1]
        pronoun = t.low[m.first] if determiner == "i" else ""
        if pronoun and after != "f" and noun in ("half", "third", "quarter", "part", "portion", "section"):
            d.put(m.first, m.last, f"{d.which(noun, directions)} {noun} of {_object_pronoun(pronoun)}")
        elif pronoun:
            d.put(m.first, m.last, d.one_of(pronoun, noun, directions))
        elif determiner == "a":
            d.put(m.first, m.last, f"one {noun}")
        elif t.word(m.first + 1) in ("whole", "entire") and determiner == "t":
            word = d.which(noun, directions)
            whole = t.low[m.first + 1]
            d.put(m.first, m.last, f"one {whole} {noun}" if word == "one" else f"the {whole} other {noun}")
        else:
            word = d.which(noun, directions)
            d.put(m.first, m.last, f"{'a different' if t.word(m.first - 1) == 'another' else word} {noun}")
        return
    bare = determiner not in "tiab"
    if t.word(m.last - 1).endswith("most") and after in "BpOVftai":
        d.put(m.first, m.last, d.which("one", directions))
        return
    if bare and t.word(m.first - 1) in ("'s", "’s") and after not in "w#LSx" and (owner := _owner(t, m.first - 1)) >= 0:
        whose = t.raw[t.start[owner] : t.end[m.first - 2]]
        if t.code(owner - 1) in "P2":
            d.put(owner - 1, m.last, f"next to {whose}")
        else:
            whose = whose[:1].lower() + whose[1:]
            d.put(owner, m.last, f"{d.which('part', directions)} part of {whose}")
        return
    if t.codes[m.last - 1] == "H" and after not in "w#x":
        of_something = t.word(m.first - 1) in ("'s", "’s")
        d.put(m.first, m.last, "other side" if of_something else f"{d.which('side', directions)} side")
        return
    if (after in "w" and not _looks_finite(t, m.last)) or (after in "#" and not bare):
        _attribute(d, m.first, m.last, directions)
    elif bare and after in "wLSIM":
        d.pieces.append((t.start[m.first], t.start[m.last], ""))
    elif bare:
        opens = t.code(m.first - 1) in CLAUSE or (t.code(m.first - 1) in ",&" and d.told_apart(m))
        if t.code(m.first - 1) == "A" and t.code(m.first - 2) in CLAUSE and after in "BV":
            d.put(m.first - 1, m.last, "nearby")  # Directly south lies
            return
        if (after in "BV" and opens) or (after in ",.;&$" and d.told_apart(m) and _gapped(t, m)):
            d.put(m.first, m.last, f"on {d.which('side', directions)} side")
        elif _needs_place(t, m.first - 1):
            side = d.paired(m, ("noun",)) and t.code(m.first - 1) in "BV"
            d.put(m.first, m.last, f"on {d.which('side', directions)} side" if side else "nearby")
        elif t.code(m.first - 1) == "g" or t.word(m.first - 1) in ("go", "goes", "going", "one", "other", "another"):
            way = d.which("direction", directions)
            d.put(
                m.first,
                m.last,
                ("another" if way == "one" and t.word(m.first - 1) in ("one", "other") else way) + " way",
            )
        elif t.word(m.first - 1) in ("lead", "leads", "leading", "head", "heads", "heading"):
            d.put(m.first, m.last, "away")
        elif t.code(m.first - 1) == "A":
            _after_adverb(d, m)
        elif t.code(m.first - 1) in "fP2F" and m.first > 1:
            d.cut(m.first - 1, m.last)
        else:
            d.cut(m.first, m.last)
    elif after == "p" and determiner in "tia" and not _looks_finite(t, m.last):
        _attribute(d, m.first, m.last, directions)
    elif t.word(m.first - 1) in lexicon().words["facing"]:
        d.put(m.first, m.last, f"{d.which('direction', directions)} way")
    elif t.word(m.first + 1) in ("whole", "entire"):
        d.put(m.first, m.last, f"{d.which('side', directions)} {t.low[m.first + 1]} side")
    else:
        preposition = t.word(m.first - 1)
        noun = {"along": "side", "across": "side", "around": "edge"}.get(preposition, "part")
        if _opposite(directions) in d.chosen.get("side", {}):
            noun = "side"
        if p.several:
            d.put(m.first, m.last, f"{_how_many(t, m)} {noun}s")
        else:
            d.put(m.first, m.last, f"{d.which(noun, directions)} {noun}")


def _owner(t: Tokens, possessive: int) -> int:
    """Where the possessor begins whose 's stands at a token: the (red) building's; -1 if that is not plain."""
    for i in range(possessive - 1, max(possessive - 4, -1), -1):
        if t.codes[i] in "ta":
            return i
        if t.codes[i] not in "wI":
            return -1
    return -1


def _after_adverb(d: _Draft, m: Mention) -> None:
    t = d.tokens
    at = m.first - 1
    if t.word(at) in ("further", "farther"):
        d.put(m.first, m.last, "out")
    else:
        d.cut(at, m.last)


def _looks_finite(t: Tokens, index: int) -> bool:
    """Whether the word after "the lower left" is its verb rather than its noun."""
    word = t.word(index)
    if word.endswith("ing") and word not in lexicon().words["ing_noun"]:
        return True
    if not word.endswith("s") or word.endswith("ss"):
        return False
    return t.code(index + 1) in "tai#" or t.word(index + 1) in ("it", "them")


def _relation(d: _Draft, m: Mention) -> None:
    """Above the hall, below it, behind, both above and below, in front of."""
    t = d.tokens
    after = t.code(m.last)
    if after == "&" and any(
        other.first == m.last + 1 and other.kind in ("beside", "relation", "place") for other in d.mentions
    ):
        following = next(other for other in d.mentions if other.first == m.last + 1)
        if following.kind == "place" and t.code(m.first - 1) in CLAUSE and t.code(following.last) in "BVpg":
            d.done.add(following.first)  # above and to the right lies a school
            d.put(m.first, following.last, "nearby")
            return
        d.pieces.append((t.start[m.first], t.start[m.last + 1], ""))
        return
    first = bare = next((i for i in range(m.first, m.last) if t.codes[i] in "RbPr2hvneq"), m.first)
    while first > m.first and t.low[first - 1] in lexicon().words["faint"]:
        first -= 1
    if _is_distance(t, m.first - 1) and t.code(m.last) in "tiawx":
        d.put(first, m.last, "from")
        return
    if len(re.findall("R", t.codes[m.first : m.last])) > 1:
        if after in "tiaw#" and t.low[m.last - 1] != "":
            d.put(first, m.last, "next to")
        else:
            d.put(first, m.last, "on both sides" if t.code(first - 1) != "P" else "both sides")
        return
    if t.code(m.first - 1) == "&" and t.word(m.first - 2) in ("between", "around", "beside", "along"):
        d.cut(m.first - 1, m.last)
        return
    has_object = after in "tia#wxbhvneqSIM" or t.word(m.last) in (
        "it",
        "them",
        "which",
        "that",
        "this",
        "these",
        "each",
        "both",
    )
    if t.code(m.last - 1) == "f":
        d.put(first, m.last, "beside")
    elif has_object and _centre_follows(t, m.last):
        d.put(bare, m.last, "off" if bare > m.first else "near")
    elif has_object and d.flanked(m) and t.word(m.last) != "which":
        d.put(m.first, m.last, f"on {d.which('side', m.directions[0])} side of")
    elif has_object:
        d.put(first, m.last, "near" if t.word(m.last) == "which" else "next to")
    elif t.code(m.first - 1) in CLAUSE and after == ",":
        d.cut(m.first, m.last)
    elif t.word(m.first - 1) in ("pass", "passes", "passing"):
        d.put(m.first, m.last, "by")
    elif t.word(m.first - 1) in ("it", "them") or (t.code(m.first) == "A" and t.code(m.first - 1) == ","):
        d.cut(m.first, m.last)
    else:
        d.put(first, m.last, "nearby")


PATH_MAIN = {
    "run": "run through",
    "runs": "runs through",
    "ran": "ran through",
    "stretches": "stretches out",
    "stretch": "stretch out",
}


def _range_adjective(d: _Draft, m: Mention) -> None:
    """A north-south avenue; the east-west runway ... the north-south one; with an east to west orientation."""
    t = d.tokens
    first, noun = m.first - (t.code(m.first) != "a" and t.code(m.first - 1) in "ta"), t.word(m.last)
    if noun in lexicon().words["range_noun"] and t.code(first) == "a" and t.code(m.last + 1) in ",.;$":
        if t.word(first - 1) in ("with", "in", "along", "on"):
            d.cut(first - 1, m.last + 1)
        else:
            d.put(first, m.last, "a clear")
        return
    ranges = [other for other in d.mentions if other.kind == "axis" and t.code(other.last) in "wxL"]
    alike = [other for other in ranges if noun == "one" or t.word(other.last) in (noun, "one")]
    if t.code(first) == "t" and len(alike) > 1 and not noun.endswith("s"):
        upright = t.code(m.first) in "nv"  # the two axes are told apart as two ends are
        _attribute(d, first, m.last, frozenset({"top" if upright else "bottom"}))
    elif t.code(first) == "a":
        _attribute(d, first, m.last, frozenset())
    else:
        d.pieces.append((t.start[m.first], t.start[m.last], ""))


def _axis(d: _Draft, m: Mention) -> None:
    """Running north-south, that runs from north to south, tilts from the lower left to the upper right."""
    t = d.tokens
    if t.code(m.first) in "neqvha" and t.code(m.last) in "wxLSNIM" and t.code(m.first - 1) not in "pVTZ":
        _range_adjective(d, m)
        return
    before = t.word(m.first - 1)
    code = t.code(m.first - 1)
    ends = t.code(m.last) in ",.;$&z"
    if before in ("oriented", "aligned") and t.code(m.first - 2) == "B":
        d.put(m.first - 1, m.last, "visible")
        return
    if "I" in t.codes[m.first : m.last] and code in "pVT":
        d.put(m.first, m.last, "across the image")
        return
    if before in ("oriented", "aligned"):
        d.cut(m.first - 1, m.last)
        return
    if not ends or code not in "pVBT":
        if before.endswith("ing") and code == "p" and t.code(m.first - 2) in "wx" and t.code(m.last) in "wxVBOp":
            d.cut(m.first - 1, m.last)
        elif before in lexicon().words["travel"] or (code == "B" and not ends):
            d.put(m.first - 1, m.last, "stretching" if before.endswith("ing") else "stretches")
        elif _clause_start(t, m.first) and t.code(m.last) in "pV":
            d.put(m.first, m.last, "nearby")
        else:
            d.cut(m.first, m.last)
        return
    that = t.word(m.first - 2) in ("that", "which")
    if before.endswith("ing") or before in ("oriented", "aligned") or that:
        first = m.first - (2 if that else 1)
        while t.code(first - 1) in "BA" and t.code(first - 1) != "^":
            first -= 1
        last = m.last
        if t.code(last) == "&" and t.word(last + 1).endswith("ing"):
            d.pieces.append((t.start[first], t.start[last + 1], ""))
        elif t.code(last) == "," and t.code(first - 1) != ",":
            alone = first or last + 1 == len(t.low)  # no word follows the comma that could open the sentence
            d.pieces.append((t.end[first - 1] if first else 0, t.end[last] if alone else t.start[last + 1], ""))
        else:
            d.cut(first, last)
        return
    d.put(m.first - 1, m.last, PATH_MAIN.get(before, before + (" nearby" if code in "VB" else "")))
    if code == "p" and before not in PATH_MAIN:
        d.pieces[-1] = (t.end[m.first - 1], t.end[m.last - 1], "")


def _origin(d: _Draft, m: Mention) -> None:
    """From the upper left down | to the centre."""
    t = d.tokens
    if t.code(m.last - 1) == "L" or "L" in t.codes[m.first : m.last]:
        landmark = next(i for i in range(m.first, m.last) if t.codes[i] == "L")
        d.put(m.first + 1, m.last, f"one {t.low[landmark]}")
    elif t.word(m.last - 1) == "up":
        d.put(m.first + 1, m.last, "one edge")
    else:
        d.cut(m.first, m.last)


def _travel(d: _Draft, m: Mention) -> None:
    """A road descends: it runs. What follows a comma (rising towards the right) is a participle of its own and goes."""
    t = d.tokens
    word = t.low[m.first]
    if word.endswith("ing") and t.code(m.first - 1) == ",":
        d.cut(m.first, d.swallow(m))
        return
    following = next((other for other in d.mentions if other.first == m.last), None)
    last = d.swallow(m) if following is not None and following.kind == "axis" else m.last
    d.put(m.first, last, "running" if word.endswith("ing") else "runs" if word.endswith("s") else "run")


def _vertical(d: _Draft, m: Mention) -> None:
    """Down the left side, further up, up to the corner, further back."""
    t = d.tokens
    word = t.low[m.last - 1]
    if t.code(m.first - 1) == "g":
        d.put(m.first, m.last, "one way")
    elif t.code(m.last) in "ti":
        d.put(m.first, m.last, "along")
    elif t.word(m.first) in ("further", "farther"):
        if t.code(m.last) == "P" and word != "back":
            d.cut(m.first, m.last)
        else:
            d.put(m.last - 1, m.last, "away" if word == "back" else "along")
    else:
        d.cut(m.first, m.last)


def _facing(d: _Draft, m: Mention) -> None:
    t = d.tokens
    word = t.low[m.first]
    pair = [other for other in d.mentions if other.kind == "facing" and t.code(other.first - 1) == "t"]
    if t.codes[m.last - 1] == "K" and t.code(m.first - 1) == "t" and len(pair) > 1:
        _attribute(d, m.first - 1, m.last, m.directions[0])
    elif t.codes[m.last - 1] == "K" and m.last - m.first > 1:  # north-facing
        _attribute(d, m.first - (t.code(m.first - 1) == "a"), m.last, frozenset())
    elif word in ("facing", "pointing"):
        d.cut(m.first, m.last)
    else:
        d.put(m.first, m.last, f"{word} {d.which('direction', m.directions[0])} way")


def _adverb(d: _Draft, m: Mention) -> None:
    """Leftwards, diagonally, clockwise; "Set diagonally," goes as a whole."""
    set_so = d.tokens.word(m.first - 1) in ("set", "placed", "laid") and d.tokens.code(m.first - 2) in "^.;,"
    opens = d.tokens.code(m.first - 1) in "^.;"
    if d.tokens.word(m.first - 1) in ("one", "other"):  # one vertically and one horizontally
        way = d.which("direction", frozenset({d.tokens.low[m.first]}))
        d.put(m.first, m.last, f"in {way} direction")
        return
    if _dangling(d.tokens, m):
        d.cut(m.first - 1, m.last)
        return
    if d.tokens.word(m.first - 1) == "an" and d.tokens.code(m.last) not in ",.;$":  # an anticlockwise loop
        _attribute(d, m.first - 1, m.last, frozenset())
        return
    going = d.tokens.code(m.first - 1) == "p" and d.tokens.code(m.first - 2) in CLAUSE  # Going clockwise from the top,
    d.cut(m.first - set_so, d.swallow(m) if opens or going else m.last)


def _turned(d: _Draft, m: Mention) -> None:
    t = d.tokens
    first = m.first - (t.codes[m.last - 1] == "@")
    if t.code(first - 1) == "b" and t.code(first - 2) == ",":
        first -= 1
    if "z" in t.codes[first : m.last]:
        if t.code(first) == "B":
            d.put(first, m.last, f"{t.low[first]} visible")
        else:
            d.cut(first, m.last)
        return
    if t.code(first) == "T":
        if t.code(m.last - 1) == "&" and m.last < len(t.low):
            d.pieces.append((t.start[first], t.start[m.last], ""))
        else:
            d.put(first, m.last, "lies there" if t.low[first].endswith("s") else "lying there")
        return
    if t.code(first - 1) == "B" and t.code(m.last) in ",.;$":
        d.put(first, m.last, "visible")
    else:
        d.cut(first, m.last)


def _axis_adjective(d: _Draft, m: Mention) -> None:
    _attribute(d, m.first - 1 if d.tokens.code(m.first - 1) in "tia" else m.first, m.last, frozenset())


def _depth(d: _Draft, m: Mention) -> None:
    """In the foreground, the background."""
    t = d.tokens
    if t.code(m.first) in "P2" and t.low[m.first] in ("in", "at", "on", "into", "across", "to", "toward", "towards"):
        if _clause_start(t, m.first):
            if t.code(m.last) in "BVpg" or t.word(m.last) in lexicon().words["travel"] or _looks_finite(t, m.last):
                d.put(m.first, m.last, "nearby")
            elif t.word(m.first - 1) == ";" and t.code(m.last) == "," and t.code(m.last + 1) in "at#w":
                d.put(m.first, m.last, "elsewhere")
            else:
                d.cut(m.first, m.last)
        elif t.word(m.first - 1) in ("it", "them") or t.low[m.first] in ("toward", "towards"):
            d.cut(m.first, m.last)
        else:
            d.put(m.first, m.last, "nearby")
    else:
        first = m.first + (t.code(m.first) == "P")
        if t.code(m.last) == "w" and t.code(first) == "t" and not _looks_finite(t, m.last):
            _attribute(d, first, m.last, frozenset())
        else:
            whole = f"{t.low[m.last - 2]} " if t.code(m.last - 2) == "J" else ""
            d.put(first, m.last, f"{d.which('part', frozenset())} {whole}part")


def _clock(d: _Draft, m: Mention) -> None:
    """At two o'clock (from the hall), in the 10 o'clock direction."""
    t = d.tokens
    if t.code(m.last) in "Ff" and t.code(m.last + 1) in "tia":
        d.put(m.first, m.last + 1, "near")
    elif t.code(m.last - 1) == "L":
        d.put(m.first + 1, m.last, f"{d.which(t.low[m.last - 1], frozenset())} {t.low[m.last - 1]}")
    elif _needs_place(t, m.first - 1) or (_clause_start(t, m.first) and t.code(m.last) in "pV"):
        d.put(m.first, m.last, "nearby")
    else:
        d.cut(m.first, m.last)


RULES: dict[str, Callable[[_Draft, Mention], None]] = {
    "axis": _axis, "origin": _origin, "beside": _beside, "place": _place, "relation": _relation, "facing": _facing,
    "clock": _clock, "travel": _travel, "vertical": _vertical, "adverb": _adverb, "turned": _turned,
    "axis_adjective": _axis_adjective, "depth": _depth, "noun": _noun,
}  # fmt: skip


# ---- seams: capitals, blanks, what is left of an emptied caption ----------------------------------------------------


def _merged(raw: str, pieces: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Sorted pieces, overlapping ones joined."""
    done: list[tuple[int, int, str]] = []
    for begin, end, text in sorted(pieces, key=lambda piece: piece[:2]):
        if done and begin < done[-1][1]:
            first, last, before = done.pop()
            done.append((first, max(last, end), before + text if not (before and text) else f"{before} {text}"))
        elif done and begin == done[-1][1] and done[-1][0] < done[-1][1]:
            first, _, before = done.pop()
            done.append((first, end, before + text))
        else:
            done.append((begin, end, text))
    return [piece for piece in done if raw[piece[0] : piece[1]] != piece[2]]


def _opens_sentence(raw: str, at: int) -> bool:
    last = at
    while last and raw[last - 1] in " \t\"'“‘(\ufeff\u200b":
        last -= 1
    return (
        not last
        or raw[last - 1] in ".!?\n"
        or (last == at and raw[at - 1].islower() and not raw[at : at + 1].isspace())
    )


def _seam(raw: str, begin: int, end: int, text: str, upto: int) -> tuple[int, int, str]:
    """Carry a sentence's capital over to the word that now opens it; keep words apart."""
    left, right = raw[begin - 1 : begin], raw[end : end + 1]
    if left.isspace() and right.isspace() and not text and end < upto:
        end += 1
    glued = begin > 0 and left.isalpha() and raw[begin : begin + 1].isalpha()
    if raw[begin:end].lstrip(" ")[:1].isupper() and _opens_sentence(raw, begin):
        if text.strip():
            lead = len(text) - len(text.lstrip())
            text = text[:lead] + text[lead : lead + 1].upper() + text[lead + 1 :]
        elif end < upto and not raw[end:upto].isspace():
            gap = 0
            while raw[end + gap : end + gap + 1] in (" ", "\t"):
                gap += 1
            text += raw[end : end + gap] + raw[end + gap : end + gap + 1].upper()
            end += gap + 1
            if glued:
                text = ". " + text.lstrip()
    return begin, end, text


def _edits(raw: str, pieces: list[tuple[int, int, str]]) -> tuple[Edit, ...]:
    merged = _merged(raw, pieces)
    shouted = raw.isupper()
    edits = []
    for i, piece in enumerate(merged):
        upto = merged[i + 1][0] if i + 1 < len(merged) else len(raw)
        begin, end, text = _seam(raw, *piece, upto)
        if shouted:
            text = text.upper()
        if raw[begin:end] != text:
            edits.append(Edit(begin, end, raw[begin:end], text))
    return tuple(edits)


# What may be left of a caption that was only orientation: "In one corner.", "On both sides.", "Next to it."
_NOTHING = re.compile(
    r"[\W_]*(?:(?:the|an?|of|in|on|at|to|and|next|nearby|one|another|other|both|it|them|image|picture|photo|there|is|are|"
    r"sides?|corners?|edges?|parts?|hal(?:f|ves)|quarters?|margins?|ends?)\b[\W_]*)*",
    re.I,
)
_ONLY_DIRECTIONS = re.compile(
    r"[\W_]*(?:(?:and|left|right|upper|lower|top|bottom|middle|cent(?:er|re)|north|south|east|west|(?:north|south)(?:east|west))\b[\W_]*)+",
    re.I,
)


def _drop_hollow(draft: _Draft) -> None:
    """Remove the sentences that said nothing but a direction: It is set diagonally."""
    t = draft.tokens
    stop = -1
    for mention in draft.mentions:
        if mention.first <= stop:
            continue
        first = t.codes.rfind(".", 0, mention.first) + 1
        stop = t.codes.find(".", mention.first)
        stop = len(t.low) - 1 if stop < 0 else stop
        if stop - first < 24 and _may_be_hollow(draft, first, stop):
            begin, end = t.start[first], t.end[stop]
            inside = [piece for piece in draft.pieces if begin <= piece[0] and piece[1] <= end]
            if inside and _is_hollow(t, first, stop, inside):
                draft.pieces = [piece for piece in draft.pieces if piece not in inside]
                draft.pieces.append((t.end[first - 1], end, "") if first else (0, [*t.start, end][stop + 1], ""))


def _may_be_hollow(d: _Draft, first: int, stop: int) -> bool:
    """Whether every plain word of a sentence is hollow or part of a mention; most sentences fail at their noun."""
    low, codes, hollow = d.tokens.low, d.tokens.codes, lexicon().words["hollow"]
    at = codes.find("w", first, stop + 1)
    while at >= 0:
        if low[at] not in hollow and not any(m.first <= at < m.last for m in d.mentions):
            return False
        at = codes.find("w", at + 1, stop + 1)
    return True


def _is_hollow(t: Tokens, first: int, stop: int, pieces: list[tuple[int, int, str]]) -> bool:
    hollow = lexicon().words["hollow"]
    for i in range(first, stop + 1):
        if t.low[i] in hollow or not t.low[i][0].isalnum():
            continue
        if not any(piece[0] <= t.start[i] and t.end[i] <= piece[1] for piece in pieces):
            return False
    return all(hollow.issuperset(text.lower().split()) for _, _, text in pieces)


def strip(raw: str, platform: Platform | None = None) -> Stripped:
    """Take orientation out of one caption.

    Args:
        raw: the caption.
        platform: where its image was taken from, which decides whether in front, behind, foreground and the like are
            places in the image (satellite, drone) or facts (ground); without it the caption's words decide.

    Returns:
        The stripped text with the edits that make it; no edits and the same text where there is no orientation, empty
        text where there was nothing else.
    """
    tokens, mentions = read(raw, None if platform is None else platform == "ground")
    if not tokens.low:
        return Stripped(raw)
    if len(raw) < 60 and _ONLY_DIRECTIONS.fullmatch(raw):
        return Stripped("", (Edit(0, len(raw), raw, ""),))
    if not mentions:
        return Stripped(raw)
    draft = _Draft(tokens, mentions)
    for mention in mentions:
        if mention.first not in draft.done:
            draft.current = mention
            RULES[mention.kind](draft, mention)
    _drop_hollow(draft)
    edits = _edits(raw, draft.pieces)
    text = apply_edits(raw, edits)
    if len(text) < 60 and _NOTHING.fullmatch(text) and raw:
        return Stripped("", (Edit(0, len(raw), raw, ""),))
    return Stripped(text, edits)


def strip_many(raws: Iterable[str], platform: Platform | None = None) -> Iterator[Stripped]:
    """Strip a stream of captions, in order, in constant memory."""
    return (strip(raw, platform) for raw in raws)


def contains_orientation(text: str) -> list[str]:
    """The orientation expressions of a text in order; empty for a text that `strip` leaves alone."""
    tokens, mentions = read(text)
    return [text[tokens.start[m.first] : tokens.end[m.last - 1]] for m in mentions]


def strip_lines(lines: Iterable[str], write: Callable[[str], object]) -> None:
    """Filter: one caption per line in, one stripped caption per line out."""
    for line in lines:
        write(strip(line.rstrip("\r\n")).text + "\n")
