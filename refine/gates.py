"""Faithfulness gates: what a rewritten caption must satisfy before training reads it.

Every gate is a plain function from a `Case` (the source caption, the reply, both read) to the reason it fails, or "".
Gates compare facts, not wording: "car park" for "parking lot" passes, a fountain that nobody mentioned does not. The
words they know are data (`refine/registers/*.yaml`). The reply is hostile input: no reply raises.

    georefine check-replies < replies.jsonl          or          python -m refine.gates < replies.jsonl
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import combinations, groupby, pairwise

from refine.orientation import contains_orientation
from refine.registers import Register, english, lexicon, register
from refine.registers.reading import (
    DETERMINERS,
    PREPOSITIONS,
    Mention,
    Reading,
    broader,
    known,
    mend_stops,
    plain,
    plain_words,
    read,
    related,
    stems,
    words_of,
)
from refine.thesaurus import akin, bases, is_kind_of, opposites, uses
from schemas.records import PLATFORMS, GateResult, Platform

MAX_QUERIES = 4
MAX_QUERY_WORDS = 30
MAX_QUERY_CHARS = 400
MAX_REPLY_CHARS = 20_000
# A rewrite may be a little longer than its source, the more so the shorter the source is.
LENGTH_FACTOR, LENGTH_SLACK = 1.3, 8
# Shares of the source's visible facts (objects, colours, materials) that a caption keeps: of the first sentence, which
# has the main object, and of all sentences.
MAIN_COVERAGE, COVERAGE = 0.4, 0.5
FACTS = ("object", "colour", "material")
ENGLISH_SHARE = 0.6

DANGLING = words_of(
    "a an the and or but nor with without of at from for as into onto its their his her which that whose where while "
    "because than is are was were has have to very"
)
LABEL = re.compile(
    r"^\W*(?:\w+ )?(?:caption|description|answer|reply|output|quer(?:y|ies)|note|result|rewrite)s?\s*\d*\s*:",
    re.IGNORECASE,
)
MARKUP = re.compile(
    r"</?[a-zA-Z][^<>]*>|<!--|&(?:[a-zA-Z]{2,8}|#\d{1,6});|`|\*|\]\(|^\s*(?:[-+•#>]|\d{1,2}[.)])\s"
    r"|\n|\r|\\n|__|(?<!\w)_\w|~~|\||https?:|www\.|\{|\}",
    re.MULTILINE,
)
ONE_ANOTHER = words_of("another second other both opposite former latter")
# What "another" or "other" may be said of without a second thing being there.
ELSEWHERE = words_of("side sides part end edge margin corner half direction way")
ONE_MORE = words_of("one another third fourth fifth")
ALONE = frozenset({"single"})
WHOLE, PART = words_of("all every each entire whole"), words_of("most some half few several one part partly")
SIDES = words_of("side sides end ends edge edges flank flanks margin margins hand")
EVERY = ("both", "either", "every", "each", "all")
# What a word may end in that names no more than the place of a thing: lakeside, ploughland.
PLACES = ("side", "land", "front", "ground", "work")
# Words of a source that let a reply say "on both sides" or "on all sides".
ALL_ROUND = words_of("both either each every all surround enclose ring encircle flank frame opposite around")
ONE_SIDE = re.compile(r"\bone (?:of (?:its|the|their) )?(?:\w+ )?(?:side|end|edge|flank|margin)s?\b")
TWO_SIDES = re.compile(
    r"\btwo (?:of (?:its|the|their) )?(?:\w+ )?(?:sides|ends|edges|flanks)\b|\bother (?:side|end|edge)\b"
)
HEIGHTS = words_of("above below over under beneath upper lower top base foot roof crown overhead atop")
ACROSS = words_of("across beyond opposite past behind other over")
STOREYS = words_of("storey story floor storeys stories floors level levels")
ORDINALS = {
    "ground": 0, "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6,
    "top": 9, "upper": 9, "uppermost": 9, "topmost": 9, "highest": 9, "lower": 0, "lowest": 0, "bottom": 0,
}  # fmt: skip
WORDS = re.compile(r"[a-z]+")
SENTENCE = re.compile(r"(?<=[.!?])\s+")
# Words that name a place or direction by themselves; others, like "behind", do so in some sentences only.
PLACE = re.compile(
    r"left|right|leftmost|rightmost|upper|lower|top|bottom|uppermost|topmost|lefthand|righthand|"
    r"(?:north|south)?(?:east|west)?(?:ern|ward|wards|erly|ernmost)?|(?:anti|counter)?clockwise|above|below"
)
# Ways to say the same depth; they place a thing in the image in some sentences only.
DEPTH = (frozenset({"front", "before", "foreground"}), frozenset({"behind", "background", "back", "beyond", "past"}))
CLAUSE = re.compile(
    r"[.;:!?]+(?:\s|$)|,\s+(?:and|but|while|whereas|where|with)\s+|,\s+(?=(?:a|an|the|one|two|three|another|more)\s)"
)
PRONOUN = re.compile(
    r"\b(?:it|its|them|they|their|which|that|whose|these|those|both|each|"
    r"one(?! (?:side|end|edge|part|corner|half|margin)))\b",
    re.IGNORECASE,
)
# Relation words that claim something definite when a query uses them, and the class of relation they claim.
CLAIMS = {
    "around": "around", "surround": "around", "encircle": "around", "circle": "around", "enclose": "around",
    "ring": "around", "under": "vertical",
    "underneath": "vertical", "beneath": "vertical", "above": "vertical",
    "atop": "vertical", "over": "vertical", "crown": "vertical", "between": "between", "separate": "between",
    "cross": "crossing", "through": "crossing", "bisect": "crossing", "connect": "joining", "link": "joining",
    "inside": "enclosing", "within": "enclosing",
}  # fmt: skip
# Words of the class "enclosing" that do not say that one thing goes around another.
LOOSELY = words_of("has have fitted interspersed")
# Classes of relation in the source that let a query claim another class.
ALLOWS = {
    "between": frozenset({"between", "enclosing"}),
    "crossing": frozenset({"crossing", "vertical"}),
    "joining": frozenset({"joining", "between", "crossing"}),
}


@dataclass(frozen=True)
class Case:
    """A reply beside its source. `texts` are the caption and the queries, read."""

    platform: Platform
    source: Reading
    caption: Reading
    queries: tuple[Reading, ...]
    supported: frozenset[str]

    @property
    def texts(self) -> tuple[Reading, ...]:
        return (self.caption, *self.queries)

    @property
    def fresh(self) -> tuple[Reading, ...]:
        """The caption, and the queries that are not word for word in it."""
        return (self.caption, *(query for query in self.queries if query.words not in self.caption.words))


def _list(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def _name(concept: str) -> str:
    return concept.partition(":")[2]


def _visible(register_: Register, clause: str) -> bool:
    bare = register_.seen.sub(" ", clause) if register_.seen else clause
    return not register_.unseen.search(bare)


def unseen_words(platform: Platform, text: str) -> list[str]:
    """The words of the text that speak of what the platform cannot see."""
    where = register(platform)
    bare = where.seen.sub(" ", text) if where.seen else text
    return [match.group() for match in where.unseen.finditer(bare)]


# --- the reply as a text --------------------------------------------------------------------------


def _finished(case: Case) -> str:
    caption = case.caption.text.strip()
    if not re.search(r"(?<![.…])[.!?][\"'”’)]?$", caption):
        return f"the caption does not end as a sentence: … {caption[-30:]}"
    for reading in case.texts:
        words = [token for token in reading.tokens if token[0].isalnum()]
        if words and (words[-1] in DANGLING or reading.text.rstrip().endswith((",", ";", ":", "…", "...", "-"))):
            return f"cut off after '{words[-1]}'"
    return ""


def _orientation(case: Case) -> str:
    source = case.source.text.lower()
    source_words = set(case.source.tokens)
    added: list[str] = []
    before: set[str] | None = None
    sentences = dict.fromkeys(part for reading in case.texts for part in SENTENCE.split(reading.text))
    for sentence in sentences:
        if plain_words(sentence) in case.source.words:
            continue
        for found in contains_orientation(sentence):
            if before is None:
                before = {word for place in contains_orientation(source) for word in WORDS.findall(place.lower())}
            words = set(WORDS.findall(found.lower()))
            places = {word for word in words if PLACE.fullmatch(word)}
            depths = [same for same in DEPTH if words & same]
            grounded = all(same & source_words for same in depths) and all(
                case.source.stems.intersection(stems(w))
                for w in words - DETERMINERS - PREPOSITIONS - frozenset().union(*DEPTH)
            )
            allowed = places <= before and (places or grounded)
            if found.lower() not in source and not allowed and not _of_object(case, sentence, found):
                added.append(found)
    return f"orientation added: {_list(added)}" if added else ""


def _of_object(case: Case, sentence: str, found: str) -> bool:
    """Whether a place is one on a thing: 'near its top', 'the top of the front' of a view that shows heights.

    "The far side of the street" is no more than "across the street".
    """
    if re.search(r"\bfar (?:side|end)\b", found):
        return bool(ACROSS & set(case.source.tokens))
    if case.platform == "ground" and re.search(r"\b(?:above|below)\b", found):
        return bool(case.source.stems & HEIGHTS)
    if case.platform == "satellite" or not re.search(
        r"\b(?:top|bottom|base|foot|upper|uppermost|topmost|lower|lowest)\b", found
    ):
        return False
    if re.search(r"\b(?:its|their|whose)\b", found) or STOREYS & set(case.source.tokens):
        return True
    behind = read(sentence[sentence.find(found) + len(found) :])
    parts = lexicon().parts | {"object:building", "object:tower"}
    return any(m.concept in parts and m.at <= 3 for m in behind.of("object"))


def _length(case: Case) -> str:
    words = sum(token[0].isalnum() for token in case.caption.tokens)
    most = int(LENGTH_FACTOR * sum(token[0].isalnum() for token in case.source.tokens)) + LENGTH_SLACK
    if words > most:
        return f"{words} words, at most {most} for this source"
    long = [len(q.tokens) for q in case.queries if sum(t[0].isalnum() for t in q.tokens) > MAX_QUERY_WORDS]
    return f"a query has more than {MAX_QUERY_WORDS} words" if long else ""


def _hedging(case: Case) -> str:
    if lexicon().hedges.search(case.source.text):
        return ""
    found = [match.group() for reading in case.fresh for match in lexicon().hedges.finditer(reading.text)]
    return f"hedging: {_list(found)}" if found else ""


def _shouts(text: str) -> bool:
    letters = sum(map(str.isalpha, text))
    return letters > 20 and sum(map(str.isupper, text)) > letters / 2


def _meta(case: Case) -> str:
    patterns = (lexicon().meta, lexicon().refusals)
    source = {match.group().lower() for pattern in patterns for match in pattern.finditer(case.source.text)}
    found = [
        match.group()
        for reading in case.fresh
        for pattern in patterns
        for match in pattern.finditer(reading.text)
        if match.group().lower() not in source
    ]
    found += [m.group() for reading in case.fresh if (m := LABEL.match(reading.text))]
    if re.search(r"\bI\b", case.caption.text) and not re.search(r"\bI\b", case.source.text):
        found.append("I")
    if found:
        return f"talks about itself: {_list(found)}"
    if _shouts(" ".join(r.text for r in case.texts)) and not _shouts(case.source.text):
        return "written in capital letters"
    return ""


def _markup(case: Case) -> str:
    found = [repr(m.group()) for reading in case.texts for m in MARKUP.finditer(reading.text)]
    return f"markup: {_list(found)}" if found else ""


def _foreign(case: Case, reading: Reading) -> str:
    """The start of a sentence of another language; "" when all are English."""
    pairs = zip(reading.tokens, reading.sentences, strict=True)
    for _, sentence in groupby(pairs, key=lambda pair: pair[1]):
        words = [token for token, _ in sentence if token[0].isalpha()]
        share = sum(known(w) or bool(case.source.stems.intersection(stems(w))) for w in words) / max(len(words), 1)
        if words and (share < ENGLISH_SHARE or any(ord(c) > 0x24F for w in words for c in w)):
            return " ".join(words[:6])
    return ""


def _english(case: Case) -> str:
    found = [words for reading in case.texts if (words := _foreign(case, reading))]
    return f"not English: {_list(found)}" if found else ""


# --- the facts ------------------------------------------------------------------------------------


def _at_same_word(reading: Reading, kind: str) -> Iterator[tuple[str, list[Mention]]]:
    """Mentions grouped by their word: a word of several senses is right when one of them is."""
    groups: dict[int, list[Mention]] = {}
    for mention in reading.of(kind):
        groups.setdefault(mention.at, []).append(mention)
    for at, mentions in groups.items():
        yield reading.tokens[at], mentions


def _objects(case: Case) -> str:
    new: list[str] = []
    for reading in case.texts:
        found = _new_things(case, reading)
        new += [] if found and _foreign(case, reading) else found
    return f"not in the source: {_list(new)}" if new else ""


def _new_things(case: Case, reading: Reading) -> list[str]:
    """The nouns of one text that name a thing the source neither has, nor implies, nor denies."""
    new: list[str] = []
    for _, mentions in _at_same_word(reading, "object"):
        words = reading.words_at(mentions[0])
        if f" {words} " in case.source.words or any(m.concept in case.supported for m in mentions):
            continue
        if not any(_denied_fairly(case, m) for m in mentions) and not _meant(case.source, words):
            new.append(words)
    for word, concept in reading.things:
        if concept not in case.supported and not _meant(case.source, word):
            new.append(word)
    strange = (word for word in reading.strangers if word.islower())
    return new + [word for word in strange if not case.source.stems.intersection(stems(word))]


def _meant(source: Reading, word: str) -> bool:
    """Whether a noun is the source's own, in the same or a broader or a derived word."""
    if source.stems.intersection(stems(word)):
        return True
    if any(word == own + end for own in source.stems if len(own) > 3 for end in PLACES):
        return True
    listed = _listed(word)
    return any(akin(own, word) or (is_kind_of(own, word) and not (listed and _listed(own))) for own in source.content)


def _listed(word: str) -> bool:
    """Whether the lexicon has the word: then it says what it is a kind of, and the thesaurus does not."""
    return any(stem in lexicon().senses for stem in (word, *stems(word)))


def _denied_fairly(case: Case, mention: Mention) -> bool:
    """A denial of a thing the source does not name is judged by the contradiction gate, not as an invented thing."""
    return any(mention.concept in reading.denied for reading in case.texts)


def _heads_meet(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two attributes may be said of the same thing; a stretch or an unknown head leaves it open."""
    if "one" in one or "one" in other or not one - {"generic"} or not other - {"generic"}:
        return True
    body = lexicon().body
    return any(related(body.get(a, a), body.get(b, b)) for a in one for b in other)


def _said_alike(case: Case, mention: Mention, said: Mention) -> bool:
    """Whether the reply says the attribute of the thing that the source says it of, as far as grammar tells."""
    if _heads_meet(mention.heads, said.heads):
        return mention.kind == "number" or _said_of_stretch(case, mention.heads, said)
    if mention.kind == "material" and not mention.firm:
        return True
    if mention.kind != "number" and _part_of(mention.heads, said.heads):
        return not any(_meets(own, mention.heads) for own in case.source.of(mention.kind))
    return any(
        not one.firm and bool(one.loose) and _heads_meet(one.loose, other.heads)
        for one, other in ((mention, said), (said, mention))
    )


def _part_of(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether one is a building and the other a part of a building: what the part is made of, the building is."""
    parts = lexicon().parts
    return any(
        (related(a, "object:building") and b in parts) or (related(b, "object:building") and a in parts)
        for a in one
        for b in other
    )


def _said_of_stretch(case: Case, heads: frozenset[str], said: Mention) -> bool:
    """For an attribute the source says of a mere shape: whether the thing may be that shape.

    "White rectangles make up the halls" makes the halls white; "a white roof with a grey square" makes no roof grey,
    because the roof has a colour of its own.
    """
    if said.heads - {"generic"} or "generic" in heads or not heads:
        return True
    own = {h for m in case.source.of(said.kind) if m.sentence == said.sentence for h in m.heads}
    near = {m.concept for m in case.source.of("object") if m.sentence == said.sentence} - own
    near |= {concept for _, concept in case.source.things} - own
    return any(related(h, n) for h in heads for n in near)


def _attributes(case: Case, kind: str) -> str:
    wrong: list[str] = []
    sources = case.source.of(kind)
    for reading in case.texts:
        for word, mentions in _at_same_word(reading, kind):
            matching = [s for m in mentions for s in sources if related(m.concept, s.concept)]
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
                if word not in case.source.tokens and not any(m.concept in case.supported for m in mentions):
                    wrong.append(f"{word} is new")
            elif not any(_said_alike(case, mentions[0], s) for s in matching):
                of = _list(sorted(_name(h) for h in mentions[0].heads if h != "generic"))
                wrong.append(f"{word} said of {of}")
    return "; ".join(dict.fromkeys(wrong))


def _shades_twice(reading: Reading, mentions: list[Mention], sources: list[Mention]) -> bool:
    """Whether a colour is only the broader name of the one beside it, which the reply repeats: 'turquoise blue'."""
    exact = {s.concept for s in sources}
    if any(m.concept in exact for m in mentions):
        return False
    beside = [m for m in reading.of("colour") if 0 < abs(m.at - mentions[0].at) <= 2]
    near = {s.concept for s in sources if any(related(s.concept, m.concept) for m in mentions)}
    return bool(near) and near <= {m.concept for m in beside}


def _colours(case: Case) -> str:
    return _attributes(case, "colour")


def _materials(case: Case) -> str:
    return _attributes(case, "material")


def _numbers(case: Case) -> str:
    wrong: list[str] = []
    sources = case.source.of("number")
    fractions = {m.concept for m in case.source.of("fraction")}
    for reading in case.texts:
        wrong += [m.concept for m in reading.of("fraction") if m.concept not in fractions]
        for mention in reading.of("number"):
            word = reading.tokens[mention.at]
            alone = word in ALONE and not mention.heads & reading.denied
            if alone and _plural_only(case.source, mention):
                wrong.append(f"{word} {_list(sorted(map(_name, mention.heads)))}")
            if word in {"both", "single", "double", "twin"}:
                continue
            same = [s for s in sources if s.concept == mention.concept]
            if any(_said_alike(case, mention, s) for s in same) or _enumerates(reading, mention):
                continue
            if _follows(case, mention):
                continue
            heads = sorted(_name(h) for h in mention.heads if h != "generic")
            wrong.append(" ".join([word, *heads[:1]]))
        wrong += _quantified(case.source, reading)
    return f"number not in the source: {_list(wrong)}" if wrong else ""


def _quantified(source: Reading, reading: Reading) -> Iterator[str]:
    """Quantifiers, ordinals of storeys, sides and letters that are not the source's."""
    for at, word in enumerate(reading.tokens):
        rest = reading.tokens[at + 1 : at + 4]
        if word in WHOLE | PART and not SIDES & set(rest):
            noun = next((m for m in reading.of("object") if at < m.at <= at + 5), None)
            mine = WHOLE if word in WHOLE else PART
            if (
                noun
                and not _counts(source, noun.concept, mine)
                and _counts(source, noun.concept, (WHOLE | PART) - mine)
            ):
                yield f"{word} {_name(noun.concept)}"
        if word in EVERY and SIDES & set(rest) and not _all_round(source, reading, at):
            yield f"{word} {next(t for t in rest if t in SIDES)}"
        if STOREYS & set(rest[:1]) and word in ORDINALS:
            own = {w for w, n in zip(source.tokens, source.tokens[1:], strict=False) if n in STOREYS}
            if own & ORDINALS.keys() and not {ORDINALS[w] for w in own if w in ORDINALS} & {ORDINALS[word]}:
                yield f"{word} {rest[0]}"
    letters = {w for w in reading.originals if len(w) == 1 and "B" <= w <= "Z" and w != "I"}
    yield from sorted(letters - {w.upper() for w in source.originals if len(w) == 1})


def _all_round(source: Reading, reading: Reading, at: int) -> bool:
    """Whether the source may have the last thing named before that token on more than one side."""
    named = max((m for m in reading.of("object") if m.at < at), key=lambda m: m.at, default=None)
    if named is None or any(f" {word} {side} " in source.words for word in EVERY for side in SIDES):
        return True
    near = {m.sentence for m in source.of("object") if related(m.concept, named.concept)}
    words = [w for w, sentence in zip(source.tokens, source.sentences, strict=True) if sentence in near]
    if not ONE_SIDE.search(" ".join(words)) or TWO_SIDES.search(" ".join(words)):
        return True
    return any(stem in ALL_ROUND for word in words for stem in stems(word))


def _counts(source: Reading, concept: str, words: frozenset[str]) -> bool:
    """Whether the source says one of the words of a thing of that concept, up to four tokens before it."""
    named = [m.at for m in source.of("object") if related(m.concept, concept)]
    return any(words & set(source.tokens[max(0, at - 4) : at]) for at in named)


def _plural_only(source: Reading, mention: Mention) -> bool:
    """Whether the source names the thing, and always in the plural."""
    named = [m for m in source.of("object") if any(related(m.concept, head) for head in mention.heads)]
    words = [source.tokens[m.end - 1] for m in named]
    return bool(words) and all(word.endswith("s") and word not in bases(word, "n") for word in words)


def _enumerates(reading: Reading, mention: Mention) -> bool:
    """Whether a count of mere stretches is told off one by one: 'two spaces, a courtyard and a garden'."""
    rest = reading.tokens[mention.end : mention.end + 4]
    stop = next((n for n, word in enumerate(rest) if word in {",", ":"}), None)
    told = reading.tokens[mention.end + stop + 1 : mention.end + stop + 2] if stop is not None else ()
    return not mention.firm and told in {("a",), ("an",), ("one",)}


def _follows(case: Case, mention: Mention) -> bool:
    """Whether a count follows from the source: 'two X' from 'one X … another', X named twice, or as a sum of counts."""
    heads = mention.heads - {"generic"}
    counted = [s for s in case.source.of("number") if s.heads & heads and case.source.tokens[s.at] != "single"]
    if counted:
        totals = {int(a.concept) + int(b.concept) for a, b in combinations(counted, 2)}
        ones = ONE_MORE - ({"one"} if "other" in case.source.stems else set())
        more = any(_one_more(case.source, at, heads) for at, word in enumerate(case.source.tokens) if word in ones)
        return int(mention.concept) in totals | ({int(s.concept) + 1 for s in counted} if more else set())
    named = {m.at for m in case.source.of("object") if any(related(m.concept, h) for h in heads)}
    if mention.concept != "2" or not named:
        return False
    return len(named) > 1 or any(_another(case.source, at) for at in named)


def _one_more(source: Reading, at: int, heads: frozenset[str]) -> bool:
    """Whether the word at that token counts one thing of those concepts: 'another barn', 'a third, white one'."""
    near = [m for m in source.of("object") if at < m.at <= at + 4]
    return any(related(m.concept, head) for m in near[:1] for head in heads)


def _another(source: Reading, at: int) -> bool:
    """Whether the source speaks of one more of the thing at that token: 'one …, the other', 'a second'."""
    low = at
    while low and source.tokens[low - 1] not in {".", ";"}:
        low -= 1
    high = at
    while high < len(source.tokens) and source.sentences[high] - source.sentences[at] <= 1:
        high += 1
    stretch = source.tokens[low:high]
    pairs = pairwise(stretch)
    return any(word in ONE_ANOTHER and (after not in ELSEWHERE or word == "second") for word, after in pairs)


def _names(case: Case) -> str:
    new: list[str] = []
    lower_cased = case.source.text == case.source.text.lower()
    for reading in case.texts:
        if _shouts(reading.text):
            continue
        for at, word in enumerate(reading.originals):
            if not word[0].isupper() or len(word) == 1 or word in case.source.originals:
                continue
            token = reading.tokens[at]
            starts = at == 0 or reading.tokens[at - 1] in {".", "!", "?", ":", '"', "'", "“", "‘"}
            if (starts and (known(token) or case.source.stems.intersection(stems(token)))) or (
                lower_cased and token in case.source.tokens
            ):
                continue
            if starts and not (at + 1 < len(reading.originals) and reading.originals[at + 1][0].isupper()):
                continue
            new.append(word)
    return f"name not in the source: {_list(new)}" if new else ""


def _contradiction(case: Case) -> str:
    wrong: list[str] = []
    source = case.source
    asserted = {m.concept for m in source.of("object")} - source.denied
    for reading in case.texts:
        for concept in sorted(reading.denied):
            against = any(related(concept, a) for a in asserted) and not any(related(concept, d) for d in source.denied)
            invented = not source.denied and concept not in asserted and not _emptied(source, concept)
            if (against and not _emptied(source, concept)) or invented:
                wrong.append(f"denies {_name(concept)}")
        claimed = {m.concept for m in reading.of("object")} - reading.denied
        wrong += [f"affirms {_name(c)}" for c in sorted(claimed & source.denied) if c not in asserted]
        for mention in reading.of("quality"):
            axis, _, side = mention.concept.partition(":")
            heads = mention.heads - {"generic"}
            if reading.tokens[mention.at].endswith("ly"):
                heads |= mention.loose
            if (
                not heads
                or "one" in heads
                or (reading.tokens[mention.at].endswith("er") and not mention.firm)
                or any(s.concept == mention.concept for s in source.of("quality") if _meets(s, heads))
            ):
                continue
            if any(_opposed(s.concept, axis, side) for s in source.of("quality") if _meets(s, heads)):
                wrong.append(f"{reading.tokens[mention.at]} {_list(sorted(map(_name, heads)))}")
        wrong += _antonyms(source, reading)
        if re.search(r"\bsame (?:side|bank|one|edge|end)\b", reading.text) and "same" not in source.tokens:
            wrong += ["on the same side"] if source.stems & {"opposite", "across", "other"} else []
        clear = [m for m in reading.of("quality") if m.concept == "weather:0" and "object:sky" in m.heads]
        if clear and "object:cloud" in asserted and not source.stems & {"clear", "cloudless", "sunny"}:
            wrong.append("clear sky")
    return f"against the source: {_list(wrong)}" if wrong else ""


def _antonyms(source: Reading, reading: Reading) -> Iterator[str]:
    """Adjectives and participles whose opposite the source says of the same thing: unpaved and paved."""
    own = {word: at for at, word in enumerate(source.tokens) if word[0].isalpha()}
    for at, word in enumerate(reading.tokens):
        if word in own or word in english().function or not word[0].isalpha() or _comparative(word):
            continue
        if not _describes(word):
            continue
        plainly = not _on_axis(word)
        against = [
            w
            for w in own
            if _negates(word, w)
            or _negates(w, word)
            or (plainly and _describes(w) and not _on_axis(w) and opposites(word, w))
        ]
        if not against:
            continue
        heads = reading.said_of(at) - {"generic"}
        for other in against:
            theirs = source.said_of(own[other]) - {"generic"}
            if any(related(a, b) for a in heads for b in theirs):
                yield f"{word} for {other}"


def _on_axis(word: str) -> bool:
    """Whether the lexicon knows what excludes the word: colours and the qualities on axes."""
    lex = lexicon()
    return any(
        stem in lex.qualities or any(kind == "colour" for kind, _ in lex.senses.get(stem, ())) for stem in stems(word)
    )


def _comparative(word: str) -> bool:
    return word.endswith(("er", "est"))


def _describes(word: str) -> bool:
    """Whether the word is an adjective or participle by its form or its use."""
    return word.endswith(("ed", "less")) or uses(word, "a") * 3 >= sum(uses(word, part) for part in "nvar") > 0


def _negates(word: str, other: str) -> bool:
    """Whether a word is another one with a negating prefix or ending: unpaved, windowless."""
    return word in {f"un{other}", f"in{other}", f"non{other}", f"dis{other}"} or (
        word.endswith("less") and other in {word[:-4] + "y", word[:-4] + "ed", word[:-4] + "ful"}
    )


def _opposed(concept: str, axis: str, side: str) -> bool:
    """Whether a quality of the source stands on the same axis as one of the reply, on another side."""
    its_axis, _, its_side = concept.partition(":")
    return its_axis == axis and its_side != side


def _emptied(source: Reading, concept: str) -> bool:
    """Whether the source denies the thing in other words: a clear sky has no clouds, an empty car park no cars."""
    if concept == "object:cloud":
        return bool(source.stems & {"clear", "sunny", "blue"})
    if concept == "object:water" and "dry" in source.stems:
        return True
    return bool(source.stems & {"empty", "vacant", "deserted", "bare"})


def _meets(mention: Mention, heads: frozenset[str]) -> bool:
    return bool((mention.heads - {"generic"}) & heads)


def _coverage_of(case: Case, facts: list[tuple[str, list[Mention]]]) -> float:
    """Share of the source's facts (grouped by word) that the caption states, in any wording; three roofs are three."""
    stated = [group for kind in FACTS for group in _at_same_word(case.caption, kind)]
    hit = 0
    for word, mentions in facts:
        found = next((s for s in stated if s[0] == word), None) or next(
            (s for s in stated if any(related(m.concept, t.concept) for m in mentions for t in s[1])), None
        )
        if found:
            hit += 1
            stated.remove(found)
    return hit / len(facts)


def _visible_facts(case: Case) -> list[tuple[str, list[Mention]]]:
    """The source's objects, colours and materials, without those in clauses that the platform cannot see."""
    where = register(case.platform)
    hidden: set[str] = set()
    for clause in CLAUSE.split(case.source.text):
        if clause and not _visible(where, clause):
            hidden |= read(clause).objects
    groups = [
        (word, mentions)
        for kind in FACTS
        for word, mentions in _at_same_word(case.source, kind)
        if mentions[0].concept not in case.source.denied and not (kind != "object" and mentions[0].heads & hidden)
    ]
    groups.sort(key=lambda group: group[1][0].at)
    return [(w, m) for w, m in groups if m[0].concept not in hidden] or groups


def _covered(case: Case) -> str:
    facts = _visible_facts(case)
    if not facts:
        return ""
    first = [(w, m) for w, m in facts if m[0].sentence == facts[0][1][0].sentence]
    main, whole = _coverage_of(case, first), _coverage_of(case, facts)
    if main < MAIN_COVERAGE:
        return f"the main object is missing: {_list(w for w, _ in first)}"
    return f"only {whole:.0%} of the source's facts are kept" if whole < COVERAGE else ""


# --- the queries ----------------------------------------------------------------------------------


def _content(reading: Reading) -> frozenset[str]:
    facts = {m.concept for m in reading.mentions if m.kind != "quality"}
    words = {stems(t)[-1] for t in reading.tokens if t[0].isalnum() and not plain(t)}
    return frozenset(facts or words)


@lru_cache(maxsize=256)
def _units(source: str, parts: re.Pattern[str]) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Parts of the source as (objects, relation classes); one with a pronoun is read together with the one before."""
    units: list[tuple[frozenset[str], frozenset[str]]] = []
    previous: frozenset[str] = frozenset()
    for part in parts.split(source):
        if not part.strip():
            continue
        reading = read(part)
        classes = frozenset(c for t in reading.tokens for s in stems(t) for c in lexicon().relations.get(s, ()))
        if any("enclosing" in lexicon().relations.get(s, ()) for s in reading.stems - LOOSELY):
            classes |= {"around"}
        units.append((reading.objects | (previous if PRONOUN.search(part) else frozenset()), classes))
        previous = units[-1][0]
    return units


def _verbatim(source: Reading, query: Reading) -> bool:
    """Whether the query's words stand in the source one after the other."""
    return query.words in source.words


def _false_relation(query: Reading, source: Reading) -> str:
    breaks = [i for i, t in enumerate(query.tokens) if t in {",", ";", ":", "."}]
    named = sorted(query.of("object"), key=lambda m: m.at)
    for at, token in enumerate(query.tokens):
        claim = next((CLAIMS[s] for s in stems(token) if s in CLAIMS), None)
        if claim is None or query.tokens[at - 1 if at else 0] in DETERMINERS or query.tokens[at + 1 : at + 2] == ("-",):
            continue
        low = max((i for i in breaks if i < at), default=-1)
        high = min((i for i in breaks if i > at), default=len(query.tokens))
        before = [m.concept for m in named if low < m.at < at][-2:]
        after = [m.concept for m in named if at < m.at < high][:2]
        if not before or not after:
            continue
        for stated, classes in _units(source.text, CLAUSE if claim in ("vertical", "around") else SENTENCE):
            ends = all(any(related(end, s) for end in side for s in stated) for side in (before, after))
            if ends and classes & ALLOWS.get(claim, frozenset({claim})):
                break
        else:
            return f"'{token}' between {_name(before[-1])} and {_name(after[0])} is not in the source"
    return ""


def _queries(case: Case) -> str:
    if not 1 <= len(case.queries) <= MAX_QUERIES:
        return f"{len(case.queries)} queries, 1 to {MAX_QUERIES} wanted"
    seen: list[frozenset[str]] = []
    texts: set[str] = set()
    for query in case.queries:
        plainly = " ".join(t for t in query.tokens if t[0].isalnum())
        content = _content(query)
        if plainly in texts or (len(content) > 1 and content in seen):
            return f"said twice: {query.text}"
        texts.add(plainly)
        seen.append(content)
    reworded = [query for query in case.queries if not _verbatim(case.source, query)]
    return next((why for query in reworded if (why := _false_relation(query, case.source))), "")


def _register(case: Case) -> str:
    where = register(case.platform)
    found: list[str] = []
    shown = " ".join(m.group().lower() for m in where.seen.finditer(case.source.text)) if where.seen else ""
    for reading in case.texts:
        found += [word for word in unseen_words(case.platform, reading.text) if word.lower() not in shown]
        found += [m.group() for m in where.foreign_views.finditer(reading.text)]
    return f"not seen from {case.platform}: {_list(found)}" if found else ""


GATES: tuple[tuple[str, Callable[[Case], str]], ...] = (
    ("finished", _finished),
    ("orientation", _orientation),
    ("colour", _colours),
    ("number", _numbers),
    ("material", _materials),
    ("object", _objects),
    ("name", _names),
    ("contradiction", _contradiction),
    ("coverage", _covered),
    ("length", _length),
    ("hedging", _hedging),
    ("meta", _meta),
    ("markup", _markup),
    ("english", _english),
    ("queries", _queries),
    ("register", _register),
)


def _parse(reply: object) -> tuple[str, list[str]] | str:
    """The reply's caption and queries, or the sentence that says why it is no reply."""
    if isinstance(reply, str):
        if len(reply) > MAX_REPLY_CHARS:
            return f"longer than {MAX_REPLY_CHARS} characters"
        try:
            reply = json.loads(reply)
        except (ValueError, RecursionError):
            return "no JSON object"
    if not isinstance(reply, Mapping):
        return "no JSON object"
    if set(map(str, reply)) != {"caption", "queries"}:
        return "wants exactly the keys caption and queries"
    caption, queries = reply["caption"], reply["queries"]
    if not isinstance(caption, str) or not isinstance(queries, (list, tuple)):
        return "wants caption as a text and queries as a list"
    if not all(isinstance(query, str) and query.strip() for query in queries):
        return "a query is no text, or empty"
    if any(len(query) > MAX_QUERY_CHARS for query in queries):
        return f"a query has more than {MAX_QUERY_CHARS} characters"
    if not caption.strip():
        return "the caption is empty"
    if len(caption) + sum(map(len, queries)) > MAX_REPLY_CHARS:
        return f"longer than {MAX_REPLY_CHARS} characters"
    return caption, list(queries)


def _supported(source: Reading) -> frozenset[str]:
    """Every concept the source may be said to name: its own, their broader ones, and its words read loosely."""
    lex = lexicon()
    concepts = {m.concept for m in source.mentions if m.kind in ("object", "material", "colour")}
    concepts |= {concept for stem in source.stems for _, concept in lex.senses.get(stem, ())}
    wider = {up for concept in concepts for up in lex.broader.get(concept, (concept,))}
    wider |= {up for _, concept in source.things for up in broader(concept)}
    return frozenset(wider.union(*(lex.implied.get(concept, frozenset()) for concept in wider)))


def check(platform: Platform, source: str, reply: str | Mapping[str, object]) -> tuple[GateResult, ...]:
    """Judge a reply to (platform, source) by every gate; a reply that is not well-formed is judged by that gate alone.

    Args:
        source: the stripped caption the reply was asked to rewrite.
        reply: a JSON object {"caption": text, "queries": [text, …]} as text, or already parsed; others fail.
    """
    parsed = _parse(reply)
    if not isinstance(parsed, str) and len(parsed[0]) > 2 * len(source) + 400:
        parsed = f"a caption of {len(parsed[0])} characters for a source of {len(source)}"
    if isinstance(parsed, str):
        return (GateResult("well-formed", False, parsed),)
    caption, queries = parsed
    source_reading = read(mend_stops(source))
    case = Case(platform, source_reading, read(caption), tuple(map(read, queries)), _supported(source_reading))
    results = [GateResult("well-formed", True)]
    for name, gate in GATES:
        detail = gate(case)
        results.append(GateResult(name, not detail, detail[:300]))
    return tuple(results)


def passed(results: Iterable[GateResult]) -> bool:
    """True when every gate passed (and there was one)."""
    verdicts = [result.passed for result in results]
    return bool(verdicts) and all(verdicts)


def check_lines(lines: Iterable[str]) -> Iterator[str]:
    """One JSON line {"passed", "gates"} for every line {"platform", "source", "reply"}; a line that is none fails."""
    for line in lines:
        results: tuple[GateResult, ...]
        try:
            row = json.loads(line)
            platform, source, reply = row["platform"], row["source"], row["reply"]
            if platform not in PLATFORMS or not isinstance(source, str):
                raise ValueError("platform or source")
        except (ValueError, KeyError, TypeError, RecursionError):
            results = (GateResult("well-formed", False, "the line is no object with platform, source and reply"),)
        else:
            results = check(platform, source, reply)
        gates = [asdict(result) for result in results]
        yield json.dumps({"passed": passed(results), "gates": gates})


if __name__ == "__main__":
    for answer in check_lines(sys.stdin):
        print(answer)
