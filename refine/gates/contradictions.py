"""The contradiction gate: denials, opposites and measures against the source, and relations turned round."""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from refine.gates.bindings import owner
from refine.gates.case import Case, comma_list
from refine.gates.numbers import EXCEPTING, SIDES
from refine.gates.things import heads_meet, name, on_axis, people
from refine.registers import english
from refine.registers.instances import reversals
from refine.registers.reading import PREPOSITIONS, Mention, Reading, plain, related, stems, words_of
from refine.thesaurus import bases, opposites, same_meaning, uses

NEGATING, AFFIRMING = ("un", "in", "non", "dis"), ("y", "ed", "ful")
# Before a hyphen these take a participle halfway, or back: half-finished is not finished.
HALVED = words_of("half semi part partly un non not almost nearly")
IN_SUN = re.compile(r"\bin (?:\w+ )?(?:sun|sunlight|sunshine)\b")
LIT = words_of("sun sunny sunlit sunlight sunshine light lit bright glow gleam")
_MEASURE = r"(levels?|heights?|sizes?|colou?rs?|shapes?|lengths?|widths?|forms?|styles?|kinds?|tones?|ages?|depths?)"
MEASURED_ALIKE = re.compile(rf" (?:(?:the|one) same|same|one|equal|identical|uniform|equally) {_MEASURE}(?= )")
MEASURED_APART = re.compile(
    rf" (?:different|differing|various|varying|varied|unequal|several|many|unlike|two|three|mixed) {_MEASURE}(?= )"
)
UNLIKE = re.compile(r" (?:no two|not|never|none|neither|nor|hardly) ")
SHARING = words_of("both all each every")
NOTHING_BETWEEN = re.compile(r" (?:nothing|no gap) (?:\w+ )?between ")
PARTED = words_of("separate divide between screen partition")
# What is "separated by a street" from a thing is not "built against" it.
TOUCHING = words_of("adjoin abut touch attach")
AGAINST = re.compile(r" (?:directly|right|straight|flush|hard|up) against ")
IN_LEAF = re.compile(r" in (?:full |fresh )?leaf ")
BARE = words_of("bare leafless")
SIDES_OF = {measure: re.compile(rf" {measure}(?:er|est)? (?:side|edge|flank|end)s? ") for measure in ("long", "short")}
THAN = re.compile(r" (\w+er) than (?:the |its |a |an )?(?:\w+ ){0,2}?(\w+)(?= )")
# How much of something there is: a sliver of sky is no wide stretch of it.
_OF = r" of (?:the )?(?:\w+ )?(\w+)(?= )"
SCANT = re.compile(rf" (?:sliver|scrap|shred|hint|glimpse|fragment|trace){_OF}")
AMPLE = re.compile(rf" (?:(?:wide|broad|large|big|great|huge) (?:stretch|part|piece|area)|expanse|sweep|sea){_OF}")
DENYING = words_of("no not none never neither hardly without few")
CROWDED = re.compile(r"\b(full of|crowded with|packed with|filled with|crammed with|busy with) (?:\w+ )??(\w+s)\b")
# How far something is so; one word of each kind excludes the other where the text has no further one.
PARTLY = re.compile(r"\b(?:half|partly|partially|in part|somewhat|barely|hardly)\b(?! of\b)")
WHOLLY = re.compile(
    r"\b(?:completely|fully|entirely|wholly|totally|altogether|unobstructed|unobscured|in full view|in plain view)\b"
)
ALL_OF_IT = words_of(
    "completely fully entirely wholly totally whole all every full entire everything both just throughout"
)
OCCUPIED = re.compile(
    r"\b(?:hardly an?|not an?|scarcely an?|no) (?:free|unoccupied) \w+\b"
    r"|\b(?:is|are) (?:\w+ )?taken\b(?! (?:up|by|from|in|of)\b)"
    r"|\b(?:occupied|filled|packed|crowded|crammed|full)\b(?! by\b)|\b(?:fill|crowd|pack|throng)s?\b"
)
EMPTY = re.compile(r"\b(?:(?:almost|nearly|half|mostly) )?(?:empty|vacant|deserted|unoccupied)\b(?! of)")
DESERTED = re.compile(r"\b(?:deserted|empty of people|nobody|no one)\b")
PLACED = re.compile(r"\b(inside|outside) (?:of )?(?:the |its |their )?(?:\w+ ed )?(\w+)")
WET = re.compile(
    r"\b(?:(?:full of|filled with|flooded with|brims? with|brimming with) water"
    r"|(?:full|filled) to (?:the|its) (?:brim|rim)"
    r"|water (?:\w+ )?(?:plays|flows|runs|spurts|gushes|jets|splashes|leaps|cascades|rises|stands|fills))\b"
)
DRY = re.compile(r"\b(?:dry|waterless|drained)\b")
MIDDLE = re.compile(r" in the (middle|centre|center|heart) of the (\w+)(?= )")
AT_END = re.compile(
    r" (?:at|near|on|by) (?:the|one|an|either|each) (?:\w+ )?(?:end|edge|rim|margin|tip) of the (\w+)(?= )"
)
NOT_ONE = re.compile(r" (?:none|not one|no) (?:of )?(?:\w+ ){1,18}(?:occupied|filled|taken)(?= )")
FULL = re.compile(r"\b(?:full of|crowded|packed|crammed|busy|filled with)\b")
CLEARED = words_of("clear cleared shovelled shoveled swept ploughed plowed")
# Axes on which "-er" compares with another thing of the scene.
RELATIVE = words_of("size height width length tone")


def contradiction(case: Case) -> str:
    wrong = [words for dimension, words in case.swaps if dimension not in ("number", "colour", "material")]
    wrong += reversals(case.source.text, case.caption.text)
    source = case.source
    asserted = {m.concept for m in source.of("object")} - source.denied
    told = _told(source)
    for reading in case.texts:
        for concept in sorted(reading.denied):
            against = any(related(concept, a) for a in asserted) and not any(
                related(concept, d) for d in source.denied | _none_of(source) | _not_there(source)
            )
            invented = not source.denied and concept not in asserted and not _emptied(source, concept)
            there = concept in source.objects and "other" not in source.tokens  # "the other is empty"
            if (against and (there or not _emptied(source, concept))) or invented:
                wrong.append(f"denies {name(concept)}")
        claimed = {m.concept for m in reading.of("object")} | {concept for _, concept in reading.things}
        claimed -= reading.denied | _none_of(reading)
        named = [concept for _, concept in source.named]
        wrong += [
            f"affirms {name(c)}"
            for c in sorted(claimed & source.denied)
            if c not in asserted
            and not (f" missing {name(c)} " in source.words and named.count(c) > 1)  # two blades, and the missing one
        ]
        for mention in reading.of("quality"):
            axis, _, side = mention.concept.partition(":")
            heads = mention.heads - {"generic"}
            if reading.tokens[mention.at].endswith("ly") or axis == "course":
                heads |= mention.loose
            if axis == "course" and not heads:
                heads = _in_sentence(reading, mention)
            if not heads or "one" in heads:
                continue
            if reading.tokens[mention.at].endswith("er") and not mention.firm and not _compared(source, axis, heads):
                continue
            met = [
                s
                for s in source.of("quality")
                if _meets(s, heads) or (axis == "course" and _in_sentence(source, s) & heads)
            ]
            if _negated(reading, mention) and EXCEPTING.search(reading.words) and EXCEPTING.search(source.words):
                continue  # only one is not
            turned = [s for s in met if _negated(source, s) != _negated(reading, mention)]
            met = _of_that_word(source, met, reading, mention)
            turned = [s for s in turned if s in met]
            if any(s.concept == mention.concept and "one" in s.heads for s in source.of("quality")):
                continue  # "two round windows and two square ones": which kind has it is open
            if any(s.concept == mention.concept for s in met if s not in turned) or any(
                _opposed(s.concept, axis, side) for s in turned
            ):
                continue
            met = [s for s in met if _may_be_same(source, s, reading, mention)]
            if (
                axis == "motion"
                and len({m.at for m in source.of("object") if any(related(m.concept, h) for h in heads)}) > 1
            ):
                continue  # one boat passes, another is moored
            if axis in RELATIVE and _comparative(reading.tokens[mention.at]) and _beside_its_opposite(reading, mention):
                continue  # a larger roof and a smaller one
            if axis in RELATIVE and not _comparative(reading.tokens[mention.at]):
                met = [s for s in met if not _comparative(source.tokens[s.at])]  # bigger than a small one
            elif axis in RELATIVE and any(_comparative(source.tokens[s.at]) for s in met):
                met = [s for s in met if _comparative(source.tokens[s.at])]
            if any(_opposed(s.concept, axis, side) for s in met) or any(s.concept == mention.concept for s in turned):
                wrong.append(f"{reading.tokens[mention.at]} {comma_list(sorted(map(name, heads)))}")
        wrong += _antonyms(source, told, reading)
        wrong += _reshaped(source, reading)
        wrong += _levelled(source, reading)
        wrong += _shared(source, reading)
    wrong += _worded(case, asserted)
    return f"against the source: {comma_list(wrong)}" if wrong else ""


def _worded(case: Case, asserted: set[str]) -> Iterator[str]:
    """Turns of phrase that exclude one another; what the source has of each pair is looked for once, and first."""
    source = case.source
    empty, full = EMPTY.search(source.words), FULL.search(source.words)
    in_part, degrees = {"few", "no"} & set(source.tokens), PARTLY.search(source.words) or WHOLLY.search(source.words)
    apart = "same" not in source.tokens and source.stems & {"opposite", "across", "other"}
    middles = [
        (where, noun) for where, noun in MIDDLE.findall(source.words) if noun not in AT_END.findall(source.words)
    ]
    scant, ample = SCANT.findall(source.words), AMPLE.findall(source.words)
    touching = not TOUCHING.isdisjoint(source.stems) or AGAINST.search(source.words)
    bare = not BARE.isdisjoint(source.tokens) and not IN_LEAF.search(source.words)
    parted = not PARTED.isdisjoint(source.stems) and not NOTHING_BETWEEN.search(source.words)
    placed, dry = PLACED.findall(source.words), DRY.search(source.words)
    peopled = not source.denied and not empty and people(source)
    shadowed = "object:shadow" in asserted and not source.stems & LIT
    clouded = "object:cloud" in asserted and not source.stems & {"clear", "cloudless", "sunny"}
    for reading in case.texts:
        if degrees:
            yield from _degree(source, reading)
        if apart and re.search(r"\bsame (?:side|bank|one|edge|end)\b", reading.text):
            yield "on the same side"
        for word, noun in CROWDED.findall(reading.words) if in_part else ():
            if re.search(rf"\b(?:few|no) (?:\w+ )?{re.escape(noun)}\b", source.words):
                yield f"{word} {noun}"
        if peopled and DESERTED.search(reading.words):
            yield "deserted for people"
        for place, noun in PLACED.findall(reading.words) if placed else ():
            theirs = {p for p, n in placed if n == noun}
            if theirs and place not in theirs:
                yield f"{place} {noun}"
        for where, noun in middles:
            if noun in AT_END.findall(reading.words):
                yield f"the end of the {noun} for its {where}"
        if shadowed and IN_SUN.search(reading.words):
            yield "sun for shadow"
        if parted and NOTHING_BETWEEN.search(reading.words):
            yield "nothing between what is parted"
        if parted and not touching and AGAINST.search(reading.words):
            yield "against what it is parted from"
        if bare and IN_LEAF.search(reading.words):
            yield "in leaf for bare"
        for measure, other in (("long", "short"), ("short", "long")):
            sides, others = SIDES_OF[measure].search(reading.words), SIDES_OF[other].search(source.words)
            if sides and others and measure not in source.stems:
                yield f"{sides[0].strip()} for {others[0].strip()}"
        yield from _turned_measures(source, reading)
        for noun in AMPLE.findall(reading.words) if scant else ():
            if noun in scant and noun not in ample:
                yield f"much {noun} for little"
        if dry and WET.search(reading.words) and not DRY.search(reading.words) and not WET.search(source.words):
            yield "water for dry"
        if full and not empty and EMPTY.search(reading.words):
            yield "empty for full"
        if empty and not (EMPTY.search(reading.words) or NOT_ONE.search(reading.words)) and _unfilled(source, reading):
            yield "full for empty"
        if clouded and any(m.concept == "weather:0" and "object:sky" in m.heads for m in reading.of("quality")):
            yield "clear sky"


def _turned_measures(source: Reading, reading: Reading) -> Iterator[str]:
    """Comparisons that the source makes the other way round: larger than the hall, which is "a much larger hall"."""
    for word, noun in THAN.findall(reading.words):
        firm = [m for m in source.of("quality") if source.tokens[m.at] == word and m.firm]
        if firm and f" {word} than " not in source.words and all(owner(source, m) in bases(noun, "n") for m in firm):
            yield f"{word} than the {noun}"


def _unfilled(source: Reading, reading: Reading) -> bool:
    """Whether the source says of what a reply calls full that it is empty, and calls nothing full."""
    own, said = EMPTY.search(source.words), OCCUPIED.search(reading.words)
    if own is None or said is None or OCCUPIED.search(source.words) or source.stems & {"fill", "crowd", "busy"}:
        return False
    return bool(_round(source, own) & _round(reading, said))


def _degree(source: Reading, reading: Reading) -> Iterator[str]:
    """Words that say of a thing that it is wholly so where the source says in part, or in part where it says wholly."""
    for more, less in ((WHOLLY, PARTLY), (PARTLY, WHOLLY)):
        said = more.search(reading.words)
        own = less.search(source.words)
        if not said or not own or more.search(source.words) or less.search(reading.words):
            continue
        if more is WHOLLY and ALL_OF_IT & set(source.tokens):
            continue
        if _round(source, own) & _round(reading, said):
            yield f"{said.group()} for {own.group()}"


def _round(reading: Reading, match: re.Match[str]) -> set[str]:
    """The words with a meaning of their own in the neighbourhood of a match in the plain words of a text."""
    before, after = reading.words[: match.start()].split()[-8:], reading.words[match.end() :].split()[:6]
    return {stems(word)[-1] for word in (*before, *after) if not plain(word)}


def _reshaped(source: Reading, reading: Reading) -> Iterator[str]:
    """Roofs that are flat in one text and curved in the other; a building may be both."""
    for flat, curved in ((source, reading), (reading, source)):
        bent = any(m.concept == "line:1" and m.heads == {"object:roof"} for m in curved.of("quality"))
        level = any(m.concept == "roof:0" and m.heads == {"object:roof"} for m in flat.of("quality"))
        also = any(m.concept in ("line:1", "roof:1") for m in flat.of("quality") if m.heads & {"object:roof"})
        also = also or any(m.concept == "roof:0" for m in curved.of("quality"))
        if bent and level and not also:
            yield "another form of roof"


def _of_that_word(source: Reading, met: list[Mention], reading: Reading, mention: Mention) -> list[Mention]:
    """The source's qualities of the thing that goes by the reply's very word, where others go by another word.

    "The block is rectangular" and "a horseshoe-shaped building": of the block only the first counts.
    """
    word = owner(reading, mention)
    if mention.concept.partition(":")[0] in RELATIVE:
        return met  # a big one beside a bigger one
    own = [s for s in met if word and owner(source, s) == word]
    named = {owner(source, s) for s in met}
    return own if own and all(named) and len({s.concept for s in met}) > 1 else met


def _levelled(source: Reading, reading: Reading) -> Iterator[str]:
    """Measures that are the same in one text and differ in the other: "at one level" for "at different levels"."""
    for alike, apart in ((source, reading), (reading, source)):
        if UNLIKE.search(alike.words):
            continue
        same = {base for word in MEASURED_ALIKE.findall(alike.words) for base in bases(word, "n")}
        other = {base for word in MEASURED_APART.findall(apart.words) for base in bases(word, "n")}
        also = {base for word in MEASURED_APART.findall(alike.words) for base in bases(word, "n")}
        also |= {base for word in MEASURED_ALIKE.findall(apart.words) for base in bases(word, "n")}
        yield from (f"the same {base}" for base in sorted((same & other) - also))
    same = {base for word in MEASURED_ALIKE.findall(reading.words) for base in bases(word, "n")}
    if same and not MEASURED_ALIKE.search(source.words):
        yield from (f"the same {base}" for base in sorted(same) if _in_shares(source, base))


def _in_shares(source: Reading, measure: str) -> bool:
    """Whether the source gives a measure of one thing as a share of another's: "the length is two thirds of …"."""
    found = re.search(r" (?:thirds?|half|quarters?|fifths?|twice|times) (?:of |as |the )", source.words)
    return found is not None and measure in source.tokens and not {"both", "same", "equal"} & set(source.tokens)


def _shared(source: Reading, reading: Reading) -> Iterator[str]:
    """What a text says of both or all that the source says of one of them: "both ponds are blue"."""
    for mention in reading.mentions:
        if mention.kind not in ("colour", "material", "quality") or not mention.heads - {"generic"}:
            continue
        if mention.concept.startswith("sameness:"):
            continue
        before = reading.tokens[max(0, mention.at - 6) : mention.at]
        if not SHARING & set(before) or {",", ";", ".", "but"} & set(before[-3:]):
            continue
        own = [m for m in source.of(mention.kind) if related(m.concept, mention.concept)]
        own = [m for m in own if _of_one(source, m) or heads_meet(mention.heads, m.heads | m.loose)]
        shared = any(word in SHARING and after not in SIDES for word, after in pairwise(source.tokens))
        if own and all(_of_one(source, m) for m in own) and not shared:
            yield f"{reading.tokens[mention.at]} of all, and not of one"


def _of_one(source: Reading, mention: Mention) -> bool:
    """Whether an attribute is said of "one" or "the other" of several things."""
    before = source.tokens[max(0, mention.at - 3) : mention.at]
    clause = before[max((n for n, w in enumerate(before) if w in {",", ".", ";", "and", "but"}), default=-1) + 1 :]
    return bool({"one", "other", "latter", "former", "second", "first", "another"} & set(clause))


def _may_be_same(source: Reading, own: Mention, reading: Reading, said: Mention) -> bool:
    """Whether two qualities may be said of one thing: not when words differ, and the source has several of them.

    "A massive block" is not the "small building" beside it; the same word, or the only building, is.
    """
    words = [_noun_behind(source, own), _noun_behind(reading, said)]
    if not all(words) or set(bases(words[0], "n")) & set(bases(words[1], "n")):
        return True
    likes = {m.at for m in source.of("object") if any(related(m.concept, head) for head in said.heads)}
    other = any(set(bases(source.tokens[at], "n")) & set(bases(words[1], "n")) for at in likes)
    return len(likes) < 2 or not other


def _noun_behind(reading: Reading, mention: Mention) -> str:
    """The noun that an attribute stands before; "" when it stands elsewhere."""
    w = reading.parsed
    at = next(
        (n for n in range(mention.end, mention.end + 6) if n in w.nouns and set(w.nouns[n]) & mention.heads), None
    )
    return w.tokens[w.ends[at] - 1] if at is not None and mention.firm else ""


def _beside_its_opposite(reading: Reading, mention: Mention) -> bool:
    """Whether a comparative stands beside its opposite in a sentence: each is so of one of two things."""
    axis, _, side = mention.concept.partition(":")
    return any(
        _opposed(m.concept, axis, side) and m.sentence == mention.sentence and _comparative(reading.tokens[m.at])
        for m in reading.of("quality")
    )


def _compared(source: Reading, axis: str, heads: frozenset[str]) -> bool:
    """Whether the source, too, says of the very things that they are more so than others."""
    found = (m for m in source.of("quality") if m.concept.startswith(f"{axis}:") and m.heads & heads)
    return any(_comparative(source.tokens[m.at]) for m in found)


def _in_sentence(reading: Reading, mention: Mention) -> frozenset[str]:
    """The things of a mention's sentence."""
    return frozenset(m.concept for m in reading.of("object") if m.sentence == mention.sentence)


def _none_of(reading: Reading) -> frozenset[str]:
    """The concepts of which a text says that none of them is so and so."""
    named = sorted(reading.of("object"), key=lambda m: m.at)
    starts = [at for at, pair in enumerate(pairwise(reading.tokens)) if pair == ("none", "of")]
    return frozenset(m.concept for at in starts for m in [m for m in named if at < m.at <= at + 5][:1])


def _not_there(reading: Reading) -> frozenset[str]:
    """The things that a sentence says to be there and elsewhere not: "snow lies on the grass but not on the path".

    Of what is missing in part that is said too, and where streets are cleared, it is of snow.
    """
    ends = (
        at
        for at, (word, after) in enumerate(pairwise(reading.tokens))
        if (word == "not" and after in PREPOSITIONS) or word == "missing"
    )
    sentences = {reading.sentences[at] for at in ends}
    found = frozenset(m.concept for m in reading.of("object") if m.sentence in sentences)
    return found | {"object:snow"} if not CLEARED.isdisjoint(reading.tokens) else found


def _negated(reading: Reading, mention: Mention) -> bool:
    """Whether a quality is denied: "no window is lit", "not lit"."""
    if DENYING.isdisjoint(reading.stems):
        return False
    low = max((at for at in range(mention.at) if reading.tokens[at] in {",", ".", ";", ":", "but"}), default=-1)
    for at in range(mention.at - 1, low, -1):
        none_of = reading.tokens[at : at + 3] == ("not", "one", "of")
        counted = reading.tokens[at + 1] in {"a", "one", "any", "even"} and not none_of
        if reading.tokens[at] in {"no", "not"} and reading.tokens[at + 1] in {"more", "less", "fewer"}:
            return False  # no more than two
        if reading.tokens[at] in {"not", "never", "hardly", "without"} and not counted:
            return mention.at - at <= 2 or none_of
        few = reading.tokens[at] == "few" and reading.tokens[at - 1 : at] != ("a",)
        if few or reading.tokens[at] in {"no", "none", "neither", "not"}:
            return any(concept in mention.heads for n, concept in reading.named if at < n < mention.at)
    return False


def _told(source: Reading) -> dict[str, int]:
    """The words with a meaning of their own, and where each stands last."""
    function = english().function
    return {w: at for at, w in enumerate(_halved(source)) if w[0].isalpha() and w not in function}


def _antonyms(source: Reading, own: dict[str, int], reading: Reading) -> Iterator[str]:
    """Adjectives and participles whose opposite the source (`own`: its words) says of the thing: unpaved and paved."""
    function = english().function
    plain_ones = {w for w in own if _describes(w) and not on_axis(w)}
    for at, word in enumerate(_halved(reading)):
        if word in own or word in function or not word[0].isalpha() or _comparative(word) or not _describes(word):
            continue
        against = [w for w in own if w in _negations(word)]
        if not on_axis(word):
            against += [w for w in own if w in plain_ones and opposites(word, w) and w not in against]
        against = [w for w in against if w not in reading.tokens]  # a whole half
        against = [w for w in against if not _beside_denial(source, own[w]) and not _beside_denial(reading, at)]
        if not against or any(same_meaning(word, w) for w in own):
            continue  # partly concealed by what partly hides it
        heads = reading.said_of(at) - {"generic"}
        for other in against:
            theirs = source.said_of(own[other]) - {"generic"}
            if any(related(a, b) for a in heads for b in theirs):
                yield f"{word} for {other}"


def _halved(reading: Reading) -> list[str]:
    """The tokens, with "finished" of "half-finished" as "unfinished"."""
    words = list(reading.tokens)
    for at in range(2, len(words)):
        if words[at - 1] == "-" and words[at - 2] in HALVED and words[at].endswith("ed"):
            words[at] = f"un{words[at]}"
    return words


def _beside_denial(reading: Reading, at: int) -> bool:
    """Whether the clause of the token holds a denial: then its opposite may be what is meant."""
    low = max((n for n in range(at) if reading.tokens[n] in {",", ".", ";", ":"}), default=-1)
    return bool({"no", "none", "not", "never", "neither", "without", "hardly"} & set(reading.tokens[low + 1 : at]))


def _comparative(word: str) -> bool:
    return word.endswith(("er", "est"))


@lru_cache(maxsize=20_000)
def _describes(word: str) -> bool:
    """Whether the word is an adjective or participle by its form or its use."""
    return word.endswith(("ed", "less")) or uses(word, "a") * 3 >= sum(uses(word, part) for part in "nvar") > 0


@lru_cache(maxsize=20_000)
def _negations(word: str) -> frozenset[str]:
    """The words that are that word with a negating prefix or ending, or without its own: paved and unpaved."""
    found = {prefix + word for prefix in NEGATING} | {word[len(p) :] for p in NEGATING if word.startswith(p)}
    if word.endswith("less"):
        found |= {word[:-4] + ending for ending in AFFIRMING}
    found |= {word[: -len(ending)] + "less" for ending in AFFIRMING if word.endswith(ending)}
    return frozenset(found)


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
    if concept == "object:snow" and not CLEARED.isdisjoint(source.tokens):
        return True
    return bool(source.stems & {"empty", "vacant", "deserted", "bare", "unoccupied"})


def _meets(mention: Mention, heads: frozenset[str]) -> bool:
    return bool((mention.heads - {"generic"}) & heads)
