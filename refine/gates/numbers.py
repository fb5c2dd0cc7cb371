"""The number gate: counts, fractions, quantifiers (all, most, one of them), storeys, sides, singular and plural."""

import re
from collections.abc import Iterator
from itertools import combinations, pairwise

from refine.gates.bindings import one_too_many, replaced, said_alike
from refine.gates.case import Case, comma_list
from refine.gates.clauses import CLAUSE, SENTENCE, TWO_SIDES
from refine.gates.things import is_stretch, name, same_thing, things_of
from refine.registers import lexicon
from refine.registers.instances import instances
from refine.registers.reading import (
    ALONE,
    ARTICLES,
    BE,
    FRACTIONS,
    UNCOUNTED,
    Mention,
    Reading,
    broader,
    is_generic,
    is_plural,
    number,
    plain_words,
    read,
    related,
    stems,
    words_of,
)
from refine.thesaurus import bases, mostly, uses

ONE_ANOTHER = words_of("another second other both opposite former latter")
# What "another" or "other" may be said of without a second thing being there.
ELSEWHERE = words_of("side sides part end edge margin corner half direction way")
ONE_MORE = words_of("one another third fourth fifth")
EXCEPTING = re.compile(
    r"\b(?:except|excepted|excepting|apart from|other than|save|with one exception"
    r"|(?:but|only) (?:one|a single|two|three|the))\b"
)
EVERY_NTH = re.compile(r" every (other|second|third|fourth|fifth|sixth) ")
ALL_BUT = re.compile(r" all (?:but|except) (one|two|three|four|five|six) ")
# Shares, right angles and halves in words.
SHARES = {
    "25": words_of("quarter"), "33": words_of("third"), "50": words_of("half"), "66": words_of("thirds"),
    "75": words_of("quarters"), "100": words_of("all every whole entire"),
}  # fmt: skip
RIGHT_ANGLED, IN_TWO = words_of("angle angles perpendicular square"), words_of("half halves split splits divides parts")
WHOLE, PART = words_of("all every each entire whole"), words_of("most some half few several one part partly")
NEARLY = words_of("nearly almost virtually practically")
# What makes "all" an adverb, and what the pronoun "one" does.
ALL_AROUND = words_of(
    "around round about over along through across together throughout beside near at in on by under above behind beyond"
    " alike told"
)
SEEING = words_of("see sees look looks find finds discern discerns notice notices spot spots make makes view views")
COULD = words_of("can could may might would also then")
CUT_INTO = re.compile(
    r" (?:cut|split|cleft|broken|divid\w+|part(?:ed|s)|slic\w+) (?:\w+ )?(?:in|into) "
    r"(two|three|four|five|six|half|halves|thirds|quarters)(?= )"
)
PARTS_OF = {"half": "2", "halves": "2", "thirds": "3", "quarters": "4"}
FEW = words_of("two three four five six")
BOTH_SIDES = re.compile(r" (?:both|either|each|two) sides? of the (\w+) ")
MANY = re.compile(r" (?:many|several|numerous|countless|two|three|four) (?:\w+ )?(\w+s)(?= )")
SEVERAL = FEW | words_of("several many numerous countless pair couple multi")
EACH = words_of("each every either per")
MANY_WITH = words_of("many most several all both some few")
# What stands before a bare plural that a list brings in.
LISTING = words_of(", and are")
WIDENED = words_of("most some half few")
EXCEPTIONS = words_of("but except mostly majority exception bulk")
SIDED = words_of("sided cornered pointed way armed lobed winged")
REST = words_of("others rest remaining")
POLYGONS = {
    "triangle": "3", "triangular": "3", "pentagon": "5", "pentagonal": "5", "hexagon": "6", "hexagonal": "6",
    "octagon": "8", "octagonal": "8",
}  # fmt: skip
FORK = re.compile(
    r"\b(?:roads|streets|paths|footpaths|lanes) (?:form|forming|meet|make|cross|join)\w*\b[^.;]*\b[TXVY]\b",
    re.IGNORECASE,
)
CROSSROADS = words_of("crossroad crossroads intersection junction fork")
SCORE = re.compile(r" (?:a|two|three|four|half a) scores? of ")
HALF_OF = re.compile(r" half (?:of )?(?:the |its |their )?(\w+s)(?= )")
NTH = {"2": "second", "3": "third", "4": "fourth", "5": "fifth", "6": "sixth"}
ONE_MORE_IS = re.compile(
    r" (?:one more|one other|(?<!one )another|another one) (?:is|stands|lies|sits|waits|on|in|at|beside|near) "
)
SIDES = words_of("side sides end ends edge edges flank flanks margin margins hand")
EVERY = ("both", "either", "every", "each", "all")
THEM = words_of("them these those which")
SOME_OF_THEM = re.compile(r" (?:one|two|three|four|some|several|many|most|half|few|any) of (?:them|these|those|which) ")
ALL_OF_THEM = re.compile(r" (?:all|each|every|none) of (?:them|these|those|which) ")
# Words of a source that let a reply say "on both sides" or "on all sides".
ALL_ROUND = words_of("both either each every all surround enclose ring encircle flank frame opposite around")
ONE_SIDE = re.compile(r"\bone (?:of (?:its|the|their) )?(?:\w+ )?(?:side|end|edge|flank|margin)s?\b")
NAMED_SIDE = re.compile(r"\b(?:one|another|the other|a second|a third|an?) (?:side|end|edge|flank|margin)\b")
OPEN_SIDE = re.compile(r" (?:open|opens|unbuilt) (?:on|at|to|towards?|along) (?:one|a single|another) ")
HALF = re.compile(r"\b(?:one|a) half\b|\bhalf of\b", re.IGNORECASE)
STOREYS = words_of("storey story floor storeys stories floors level levels")
SHADES = words_of("shades tones colours colors hues tints")
# Words of a source that count without a number: what bends twice makes two bends.
COUNTED_BY = {"2": words_of("twice"), "3": words_of("thrice"), "4": words_of("quartered")}
TOP = 9
ORDINALS = {
    "ground": 0, "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6,
    "top": TOP, "upper": TOP, "uppermost": TOP, "topmost": TOP, "highest": TOP, "lower": 0, "lowest": 0, "bottom": 0,
}  # fmt: skip


# What `_quantified` has something to say of.
QUANTITIES = WHOLE | PART | {"none", *EVERY, *ORDINALS}


def numbers(case: Case) -> str:
    wrong = [words for dimension, words in case.swaps if dimension == "number"]
    sources = case.source.of("number")
    fractions = {m.concept for m in case.source.of("fraction")}
    for reading in case.texts:
        wrong += [
            m.concept
            for m in reading.of("fraction")
            if m.concept not in fractions
            and not ("quarter" in reading.tokens[m.at : m.at + 2] and "quarter" in case.source.stems)
        ]
        if fractions and "half" not in case.source.tokens and HALF.search(reading.text):
            wrong.append("half")
        for mention in reading.of("number"):
            word = reading.tokens[mention.at]
            alone = (
                word in ALONE
                and reading.tokens[mention.end : mention.end + 1] != ("-",)
                and not _one_of_them(case.source)
                and not mention.heads & reading.denied
            )
            if alone and _plural_only(case.source, reading, mention):
                wrong.append(" ".join(reading.tokens[mention.at : mention.end + 1]))
            if word in UNCOUNTED or reading.tokens[mention.at - 1 : mention.at] == ("no",):
                continue  # no two of a size
            if _measures(case.source, reading, mention):
                continue
            same = [s for s in sources if s.concept == mention.concept]
            alike = same and said_alike(case, reading, mention, same) and not replaced(case, reading, mention)
            alike = alike and not _doubled(case, mention, same)
            if alike and reading is case.caption and one_too_many(case, mention, same) and not _follows(case, mention):
                alike = False
            if alike or _enumerates(reading, mention) or _follows(case, mention):
                continue
            heads = sorted(name(h) for h in mention.heads if h != "generic")
            wrong.append(" ".join([word, *heads[:1]]))
        wrong += _quantified(case.source, reading)
        wrong += [f"{words} twice" for words in _listed_twice(case.source, reading)]
    wrong += [f"{count}-sided" for reading in case.texts for count in _other_shapes(case.source, reading)]
    wrong += [f"in {word}" for reading in case.texts for word in _parted(case.source, reading)]
    wrong += _only_one(case.source, case.caption)
    wrong += [f"{word} for one" for reading in case.texts for word in _multiplied(case.source, reading)]
    return f"number not in the source: {comma_list(wrong)}" if wrong else ""


def _measures(source: Reading, reading: Reading, mention: Mention) -> bool:
    """Whether a number is a share or an angle that the source tells in words: fifty per cent, 90 degrees; "in two".

    Exceptions ("all but two") are for `_all_but`.
    """
    before, after = reading.tokens[mention.at - 1 : mention.at], reading.tokens[mention.end : mention.end + 2]
    if before == ("but",) and reading.tokens[mention.at - 2] == "all":
        return True
    if after[:1] == ("degrees",):
        return mention.concept == "90" and not RIGHT_ANGLED.isdisjoint(source.tokens)
    if after[:1] == ("percent",) or after == ("per", "cent"):
        return not SHARES.get(mention.concept, frozenset()).isdisjoint(source.tokens)
    halved = before in {("in",), ("into",)} and mention.end not in reading.parsed.noun_at and not mention.firm
    return halved and mention.concept == "2" and not IN_TWO.isdisjoint(source.tokens)


def _nth(text: str) -> set[str]:
    """The N of every "every Nth" of a text: every other is every second."""
    return {nth.replace("other", "second") for nth in EVERY_NTH.findall(text)}


def _all_but(source: Reading, reading: Reading) -> Iterator[str]:
    """Exceptions from a count that the source does not make: "all but two" of five are three."""
    counts = {int(m.concept) for m in source.of("number")}
    for word in ALL_BUT.findall(reading.words):
        left = number(word) or 1
        totals = counts | {int(count) for count, nth in NTH.items() if nth in source.tokens}
        if not EXCEPTING.search(source.words) and not any(total - left in counts | {1} for total in totals):
            yield f"all but {word}"


def _no_half(source: Reading, reading: Reading) -> Iterator[str]:
    """Halves of what the source counts otherwise: two of eight tracks are no half of them."""
    for noun in HALF_OF.findall(reading.words):
        counted = [m for m in source.of("number") if noun in source.tokens[m.end : m.end + 4]]
        counts = {int(m.concept) for m in counted}
        if len(counts) > 1 and not any(2 * count in counts for count in counts) and "half" not in source.tokens:
            yield f"half of the {noun}"


def _quantified(source: Reading, reading: Reading) -> Iterator[str]:
    """Quantifiers, ordinals of storeys, sides and letters that are not the source's."""
    for at, word in enumerate(reading.tokens):
        if word not in QUANTITIES:
            continue
        rest = reading.tokens[at + 1 : at + 4]
        if (word == "one" and reading.tokens[at - 1 : at] == ("not",)) or (word == "each" and rest[:1] == ("other",)):
            continue
        shared = (word == "one" and WHOLE & set(rest)) or rest[:1] == ("but",)
        shared = shared or (word in {"one", "each"} and "other" in rest)
        whole = word in {"whole", "entire"} and at + 1 not in reading.parsed.noun_at
        if (whole and not reading.parsed.modifier(at + 1)) or _no_quantity(reading, at):
            continue
        of_them = word in WHOLE | {"none"} and rest[:1] == ("of",) and bool(THEM & set(rest[1:2]))
        if of_them and SOME_OF_THEM.search(source.words) and not ALL_OF_THEM.search(source.words):
            yield f"{word} of {rest[1]}"
        if word in WHOLE | PART and not SIDES & set(rest) and rest[:1] != ("there",) and not shared:
            noun = next((m for m in reading.of("object") if at < m.at <= at + 5), None)
            mine = WHOLE if word in WHOLE and not NEARLY & set(reading.tokens[max(0, at - 1) : at]) else PART
            if (
                noun
                and not re.search(rf"\b{word} of (?:those|these|them)\b", source.words)
                and not _counts(source, noun.concept, mine)
                and (
                    _counts(source, noun.concept, (WHOLE | PART) - mine)
                    or (mine is WHOLE and _some_of(source, noun.concept))
                )
            ):
                yield f"{word} {name(noun.concept)}"
        if word in EVERY and SIDES & set(rest) and not _all_round(source, reading, at):
            yield f"{word} {next(t for t in rest if t in SIDES)}"
        if STOREYS & set(rest[:1]) and word in ORDINALS:
            own = {w for w, n in zip(source.tokens, source.tokens[1:], strict=False) if n in STOREYS}
            higher = ORDINALS[word] == TOP and {"over", "above"} & set(source.tokens)  # the storeys over it
            if (
                own & ORDINALS.keys()
                and not higher
                and not {ORDINALS[w] for w in own if w in ORDINALS} & {ORDINALS[word]}
            ):
                yield f"{word} {rest[0]}"
    yield from _widened(source, reading)
    yield from _all_but(source, reading)
    yield from _no_half(source, reading)
    if SCORE.search(reading.words) and not (SCORE.search(source.words) or "twenty" in source.tokens):
        yield "a score"
    yield from (f"every {nth}" for nth in sorted(_nth(reading.words) - _nth(source.words)))
    yield from _without_exception(source, reading)
    for noun in set(BOTH_SIDES.findall(source.words)) - set(BOTH_SIDES.findall(reading.words)):
        if f" one side of the {noun} " in reading.words:
            yield f"one side of the {noun}"
    many = (noun for noun in MANY.findall(reading.words) for base in bases(noun, "n")[:1] if _lone(source, base))
    yield from (f"many {noun}" for noun in many)
    for one, other in (("single", "multi"), ("multi", "single")):
        if one not in reading.openers:
            continue
        compounds = re.findall(rf"\b{one}[- ](\w+)", reading.text.lower())
        yield from (f"{one}-{base}" for base in compounds if re.search(rf"\b{other}[- ]?{base}", source.text.lower()))
    letters = {w for w in reading.originals if len(w) == 1 and "B" <= w <= "Z" and w != "I"}
    yield from sorted(letters - {w.upper() for w in source.originals if len(w) == 1})


def _no_quantity(reading: Reading, at: int) -> bool:
    """Whether a word that may tell how many is an adverb, a pronoun or half of another word.

    All around, all white, one sees, the most prominent, half hidden, in all.
    """
    word, after = reading.tokens[at], reading.tokens[at + 1] if at + 1 < len(reading.tokens) else "."
    before = reading.tokens[at - 1] if at else ""
    if word == "all":
        around = after in ALL_AROUND or after == "-" or (before == "in" and not is_stretch(after))
        around = around or before in BE - {"and", "or", "but", "which", "that", "who", "has", "have"}  # is all woods
        return around or any(kind == "colour" for kind, _ in lexicon().senses.get(after, ()))
    if word == "one":
        return after in SEEING or (after in COULD and bool(SEEING & set(reading.tokens[at + 2 : at + 4])))
    if word == "most":
        return before in {"the", "its", "their"} | BE or (
            uses(after, "a") > 0 and before == "" and not is_stretch(after)
        )
    if word == "half" and "dozen" in reading.tokens[at + 1 : at + 3]:
        return True
    return word in {"half", "partly"} and (after == "-" or (after.endswith("ed") and before not in ARTICLES))


def _only_one(source: Reading, caption: Reading) -> Iterator[str]:
    """Things of which a caption has one, where the source counts several of that word and never names one."""
    told = instances(caption.text)
    for thing in told:
        if any(
            other is not thing and any(related(a, b) for a in other.concepts for b in thing.concepts) for other in told
        ):
            continue  # "a block and a building" are two
        base = caption.tokens[caption.parsed.ends.get(thing.at, thing.at + 1) - 1]
        said = caption.tokens[max(0, thing.first - 1) : thing.at + 1]
        if (
            said[0] not in {"a", "an"}
            or "-" in said[-2:]
            or "multi" in said
            or "number" in thing.traits
            or base in caption.plurals
        ):
            continue
        at = [m.end - 1 for m in source.of("object") if base in bases(source.tokens[m.end - 1], "n")]
        if not at or any(source.tokens[n] == base for n in at) or EACH & set(caption.sentence_of(thing.at)):
            continue
        if all(SEVERAL & set(source.tokens[max(0, n - 4) : n]) for n in at):
            yield f"one {base} for several"


def _multiplied(source: Reading, reading: Reading) -> Iterator[str]:
    """Plurals of a reply for a thing that the source has once: a row of houses for the house."""
    for mention in reading.of("object"):
        word = reading.tokens[mention.end - 1]
        base = next((b for b in bases(word, "n") if b != word), "")
        if (
            not base
            or mention.concept in reading.denied
            or word in source.tokens
            or base in source.plurals
            or is_generic(word)
            or EACH & set(source.tokens)
        ):
            continue
        likes = {m.at for m in source.of("object") if mention.concept in broader(m.concept)}
        same = [at for at in likes if source.tokens[source.parsed.ends[at] - 1] == base]
        if len(likes) != 1 or not same or source.tokens[same[0] - 1] not in ARTICLES - {"another"}:
            continue
        if MANY_WITH & set(source.tokens[max(0, same[0] - 4) : same[0]]):
            continue  # "many with a shed"
        if "multi" in source.tokens[same[0] : source.parsed.ends[same[0]]]:
            continue
        end = source.parsed.ends[same[0]]
        if source.tokens[end : end + 1] == ("-",):
            continue  # palm-lined
        if end in source.parsed.nouns or (
            end < len(source.tokens)
            and (
                mostly(source.tokens[end], "n")
                or is_generic(source.tokens[end])
                or (source.tokens[end][-1] != "s" and uses(source.tokens[end], "n"))
            )
        ):
            continue  # a pipe bridge may carry pipes, a bus loop is for buses
        if not _another(source, same[0]):
            yield word


def _listed_twice(source: Reading, reading: Reading) -> Iterator[str]:
    """Phrases that one sentence has twice, as of two things, where the source names one: "a canal and a canal"."""
    seen: set[tuple[int, tuple[str, ...]]] = set()
    for at, words in _brought_in(reading):
        phrase = (reading.sentences[at], words)
        if phrase not in seen:
            seen.add(phrase)
            continue
        own = [token for token in source.tokens if not set(stems(token)).isdisjoint(stems(words[-1]))]
        own = own or [source.tokens[m.end - 1] for m in source.of("object") if m.concept in reading.parsed.nouns[at]]
        if len(own) < 2 and not any(words[-1] != token and is_plural(token) for token in own):
            yield " ".join(words)


def _brought_in(reading: Reading) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The nouns that bring in something new, "a dirt track" or "flagpoles", each with the words of its phrase."""
    w = reading.parsed
    for at in sorted(w.nouns):
        start, end = at, w.ends[at]
        if end in w.noun_at or w.names(end):
            continue  # the dirt of a dirt track
        while start and (start - 1 in w.noun_at or w.modifier(start - 1)):
            start -= 1
        if w.token(start - 1) == "of" and is_generic(w.token(start - 2)):
            start -= 2  # a row of flags
        if w.token(start - 1) in {"a", "an"} or (w.token(start - 1) in LISTING and is_plural(w.token(end - 1))):
            yield at, w.tokens[start:end]


def _some_of(source: Reading, concept: str) -> bool:
    """Whether the source counts some of the things: "two of its courtyards"."""
    counts = [m for m in source.of("number") if source.tokens[m.end : m.end + 1] == ("of",)]
    counts = [m for m in counts if source.tokens[m.end + 1 : m.end + 2] not in {("them",), ("these",), ("which",)}]
    return any(concept in m.heads and number(source.tokens[m.at]) and source.tokens[m.at] in FEW for m in counts)


def _widened(source: Reading, reading: Reading) -> Iterator[str]:
    """Clauses that say of all what the source says of most or some: "every house has a pool"."""
    if not WIDENED & set(source.tokens) or not WHOLE & set(reading.tokens):
        return
    parts = [read(part) for part in CLAUSE.split(source.text) if part.strip()]
    for clause in (read(part) for part in CLAUSE.split(reading.text) if WHOLE & set(plain_words(part).split())):
        at = next(n for n, word in enumerate(clause.tokens) if word in WHOLE)
        named = [m.concept for m in clause.of("object") if m.at > at]
        if not named or SIDES & set(clause.tokens[at : at + 4]) or (WIDENED | EXCEPTIONS | NEARLY) & set(clause.tokens):
            continue
        for concept in named[1:]:
            near = [part for part in parts if any(related(concept, own) for own in part.objects)]
            if near and all(WIDENED & set(part.tokens) and not WHOLE & set(part.tokens) for part in near):
                yield f"{clause.tokens[at]} {name(named[0])}"


def _without_exception(source: Reading, reading: Reading) -> Iterator[str]:
    """Things of which a reply says something of all, where the source excepts one: "all windows but one"."""
    for at, word in enumerate(reading.tokens):
        noun = (
            next((m for m in reading.of("object") if at < m.at <= at + 4), None) if word in WHOLE - {"whole"} else None
        )
        if noun is None or EXCEPTING.search(reading.words) or NEARLY & set(reading.tokens[max(0, at - 1) : at]):
            continue
        near = {m.sentence for m in source.of("object") if m.concept == noun.concept}
        for sentence in near:
            words = " ".join(w for w, s in zip(source.tokens, source.sentences, strict=True) if s == sentence)
            if EXCEPTING.search(words):
                yield f"{word} {name(noun.concept)}"


def _lone(source: Reading, base: str) -> bool:
    """Whether the source says that there is one such thing only."""
    return bool(
        re.search(rf" (?:only one|just one|a single|a lone|one lone|a sole) (?:\w+ )?{re.escape(base)} ", source.words)
    )


def _all_round(source: Reading, reading: Reading, at: int) -> bool:
    """Whether the source may have the last thing named before that token on more than one side."""
    named = max((m for m in reading.of("object") if m.at < at), key=lambda m: m.at, default=None)
    if named is None or any(f" {word} {side} " in source.words for word in EVERY for side in SIDES):
        return True
    if reading.tokens[at] in {"every", "all"} and OPEN_SIDE.search(source.words):
        return False
    near = {m.sentence for m in source.of("object") if related(m.concept, named.concept)}
    words = [w for w, sentence in zip(source.tokens, source.sentences, strict=True) if sentence in near]
    if not ONE_SIDE.search(" ".join(words)) or TWO_SIDES.search(" ".join(words)):
        return True
    return any(stem in ALL_ROUND for word in words for stem in stems(word))


def _counts(source: Reading, concept: str, words: frozenset[str]) -> bool:
    """Whether the source says one of the words of a thing of that concept, up to four tokens before it.

    "Nearly every" is no "every" but a "most".
    """
    named = [m.at for m in source.of("object") if related(m.concept, concept)]
    near = (n for at in named for n in range(max(0, at - 4), at))
    return any(("most" if n and source.tokens[n - 1] in NEARLY else source.tokens[n]) in words for n in near)


def _one_of_them(source: Reading) -> bool:
    """Whether the source speaks of one of its things, and not just of one side or one half."""
    return any(one == "one" and after not in ELSEWHERE | FRACTIONS.keys() for one, after in pairwise(source.tokens))


def _plural_only(source: Reading, reading: Reading, mention: Mention) -> bool:
    """Whether the source names the one thing of a reply, and always in the plural."""
    named = [m for m in source.of("object") if any(related(m.concept, head) for head in mention.heads)]
    words = [source.tokens[m.end - 1] for m in named]
    words += [word for word, concept in source.things if any(related(concept, head) for head in mention.heads)]
    noun = reading.parsed.token(mention.end)
    words += [word for word in source.tokens if noun.isalpha() and noun in bases(word, "n")]
    return bool(words) and all(is_plural(word) for word in words)


def _enumerates(reading: Reading, mention: Mention) -> bool:
    """Whether a count of mere stretches is told off one by one: 'two spaces, a courtyard and a garden'."""
    rest = reading.tokens[mention.end : mention.end + 4]
    stop = next((n for n, word in enumerate(rest) if word in {",", ":"}), None)
    told = reading.tokens[mention.end + stop + 1 : mention.end + stop + 2] if stop is not None else ()
    return not mention.firm and told in {("a",), ("an",), ("one",)}


def _follows(case: Case, mention: Mention) -> bool:
    """Whether a count follows from the source: 'two X' from 'one X … another', X named twice, or as a sum of counts."""
    heads = mention.heads - {"generic"}
    reading = _text_of(case, mention)
    ordinal = NTH.get(mention.concept, "")
    if f" of the {reading.tokens[mention.at]} " in case.source.words:
        return True  # three of the five doors
    if mention.at and ordinal and f" {ordinal} {reading.tokens[mention.at - 1]} " in case.source.words:
        return True  # pump two is the second pump
    if (
        _named_sides(case, mention)
        or _told_in_shades(case, mention)
        or not COUNTED_BY.get(mention.concept, frozenset()).isdisjoint(case.source.tokens)
    ):
        return True
    if not heads:
        return mention.concept == "2" and bool(ONE_ANOTHER & set(case.source.tokens)) and not _single(case, mention)
    if mention.concept == "2" and any(
        _on_each_side(case.source, m) for m in case.source.of("object") if m.concept in heads
    ):
        return True
    if {"each", "every", "per"} & set(case.source.tokens) and any(
        s.concept == mention.concept for s in case.source.of("number")
    ):
        return True
    if mention.concept == "2" and "object:road" in heads and not CROSSROADS.isdisjoint(case.source.tokens):
        return True
    if _sided(case.source, mention) or (
        mention.concept == "2" and {"object:road", "object:path"} & heads and FORK.search(case.source.text)
    ):
        return True
    if (
        mention.concept != "2"
        and ordinal in case.source.tokens
        and any(same_thing(h, own) for h in heads for own in things_of(case.source))
    ):
        return True  # "two of its courtyards …, and the third": three
    counted = [s for s in case.source.of("number") if s.heads & heads and case.source.tokens[s.at] not in ALONE]
    if counted:
        totals = {int(a.concept) + int(b.concept) for a, b in combinations(counted, 2)}
        told = {
            "other",
            "another",
            "third",
            "next",
            "last",
        } & case.source.stems  # one, another, the third: of those counted
        ones = ONE_MORE - ({"one"} if told else set())
        more = any(_one_more(case.source, at, heads) for at, word in enumerate(case.source.tokens) if word in ones)
        more = more or bool(ONE_MORE_IS.search(case.source.words))
        return int(mention.concept) in totals | ({int(s.concept) + 1 for s in counted} if more else set())
    rest = not REST.isdisjoint(case.source.tokens) and "one" in case.source.tokens
    if rest and any(int(s.concept) - 1 == int(mention.concept) for s in case.source.of("number")):
        return True  # "four platforms, one with a train, the others vacant": three
    named = {m.at for m in case.source.of("object") if any(_is_one_of(m.concept, h) for h in heads)}
    if mention.concept != "2" or not named:
        return False
    return len(named) > 1 or any(_another(case.source, at) for at in named)


def _text_of(case: Case, mention: Mention) -> Reading:
    """The text of the reply that a mention is in."""
    return next((reading for reading in case.texts if mention in reading.mentions), case.caption)


def _named_sides(case: Case, mention: Mention) -> bool:
    """Whether a count of sides is that of the sides which one sentence of the source names: one side, the other."""
    reading = _text_of(case, mention)
    if not SIDES & set(reading.tokens[mention.end : mention.end + 2]):
        return False
    named = max((m for m in reading.of("object") if m.at < mention.at), key=lambda m: m.at, default=None)
    for sentence in SENTENCE.split(case.source.text):
        told = NAMED_SIDE.findall(sentence.lower())
        has = named is None or any(related(c, named.concept) for c in read(sentence).objects)
        if has and len(told) > 1 and mention.concept == str(len(told)):
            return True
    return False


def _told_in_shades(case: Case, mention: Mention) -> bool:
    """Whether shades are counted that the source names: light and dark green are two shades of green."""
    reading = _text_of(case, mention)
    if not SHADES & set(reading.tokens[mention.end : mention.end + 2]):
        return False
    named = {m.concept for m in case.source.of("colour")}
    toned = {m.concept for m in case.source.of("quality") if m.concept.startswith("tone:")}
    return int(mention.concept) <= max(len(named), len(toned))


def _on_each_side(source: Reading, mention: Mention) -> bool:
    """Whether the source has one of the thing on either side: "a wing on each side" makes two wings."""
    after = " ".join(source.tokens[mention.end : mention.end + 5])
    alone = {"a", "an", "one"} & set(source.tokens[max(0, mention.at - 3) : mention.at])
    return (
        bool(alone)
        and re.match(r"(?:\w+ )?(?:on|at|to) (?:either|each|both) (?:side|end|flank|edge)s?\b", after) is not None
    )


def _stretch_of(case: Case, mention: Mention) -> set[str]:
    """The stretches, in the singular, that a number of a reply counts: strip of "two green strips"."""
    words = _text_of(case, mention).tokens[mention.end : mention.end + 4]
    counted = next((word for word in words if word.isalpha() and is_plural(word)), "")
    return {base for base in bases(counted, "n") if base != counted} if is_generic(counted) else set()


def _doubled(case: Case, mention: Mention, same: list[Mention]) -> bool:
    """Whether a reply counts a stretch that the source has once as it counts others: two squares for two rows."""
    own = _stretch_of(case, mention)
    return (
        "generic" in mention.heads
        and _single(case, mention)
        and not any(own & set(stems(word)) for s in same for word in case.source.tokens[s.end : s.end + 4])
    )


def _single(case: Case, mention: Mention) -> bool:
    """Whether the source has the counted stretch once, and speaks of no other one: a strip is not two strips."""
    bases_of = _stretch_of(case, mention)
    tokens = case.source.tokens
    at = [n for n, token in enumerate(tokens) if token in bases_of]
    plurals = any(bases_of & set(bases(token, "n")) for token in tokens if token not in bases_of)
    return len(at) == 1 and not plurals and not (ONE_ANOTHER | {"one"}) & set(tokens[max(0, at[0] - 3) : at[0]])


def _sided(source: Reading, mention: Mention) -> bool:
    """Whether a count is that of a shape in the source: four sides, slopes or corners of a four-sided roof."""
    if mention.concept in _counted_sides(source):
        return True
    return "word:side" in mention.heads and any(POLYGONS.get(word) == mention.concept for word in source.tokens)


def _parted(source: Reading, reading: Reading) -> list[str]:
    """Numbers of parts that something is cut into, where the source cuts all that it cuts into another number."""
    own, said = (
        {word: PARTS_OF.get(word) or str(number(word)) for word in CUT_INTO.findall(text.words)}
        for text in (source, reading)
    )
    return [word for word, count in said.items() if own and count not in own.values()]


def _counted_sides(reading: Reading) -> set[str]:
    """The numbers that stand before "-sided", "-cornered" and their likes."""
    counts = (number(count) for count, word in zip(reading.tokens, reading.tokens[2:], strict=False) if word in SIDED)
    return {str(count) for count in counts if count}


def _shapes(reading: Reading) -> set[str]:
    """The numbers of sides that a text gives to shapes, in figures or words; four are too common to tell of one."""
    return (_counted_sides(reading) | {POLYGONS[word] for word in reading.tokens if word in POLYGONS}) - {"4"}


def _other_shapes(source: Reading, reading: Reading) -> list[str]:
    """Numbers of sides that are not those of the source's shapes: six for an octagon's."""
    own = _shapes(source)
    return sorted(_shapes(reading) - own) if own else []


def _is_one_of(concept: str, head: str) -> bool:
    """Whether a thing may be counted among those of a head: a house among buildings, no building among houses."""
    return same_thing(concept, head) and (head in broader(concept) or concept.startswith("thing:"))


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
    sided = source.tokens[at] not in ELSEWHERE and bool(
        ELSEWHERE & {after for word, after in pairwise(stretch) if word == "one"}
    )  # one side … the other
    return any(
        word in ONE_ANOTHER
        and (after not in ELSEWHERE or word == "second")
        and not (sided and word in {"other", "another"} and not after[0].isalpha())
        for word, after in pairs
    )
