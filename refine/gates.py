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
from functools import cached_property, lru_cache
from itertools import combinations, groupby, pairwise

from refine.orientation import contains_orientation
from refine.places import misplaced
from refine.registers import Register, english, lexicon, register
from refine.registers.instances import fits, holds, instances, reversals, swapped, unrested
from refine.registers.reading import (
    ARTICLES,
    BE,
    COLOURED,
    DETERMINERS,
    PREPOSITIONS,
    Mention,
    Reading,
    broader,
    is_generic,
    known,
    mend_stops,
    number,
    plain,
    plain_words,
    read,
    related,
    stems,
    words_of,
)
from refine.thesaurus import (
    akin,
    bases,
    is_animal,
    is_kind_of,
    is_person,
    is_said,
    linked,
    may_be_of_kind,
    mostly,
    near,
    opposites,
    same_head,
    uses,
)
from schemas.records import PLATFORMS, GateResult, Platform

MAX_QUERIES = 4
MAX_QUERY_WORDS = 30
MAX_QUERY_CHARS = 400
MAX_REPLY_CHARS = 20_000
# A rewrite may be a little longer than its source, the more so the shorter the source is.
LENGTH_FACTOR, LENGTH_SLACK = 1.3, 8
# Shares of the source's visible facts (objects, colours, materials) that a caption keeps: of the first sentence, which
# has the main object, and of all sentences.
MAIN_COVERAGE, COVERAGE = 0.3, 0.4
FEW_FACTS = 2
CLOSE = 6  # tokens to either side that tell a fact from its likes
STANDPOINT = re.compile(r"\W*(?:I am|I'm|I stand|We are|We're|You are|Standing)\b", re.IGNORECASE)
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
# A sentence that opens with what a writer is told to do.
ORDER = re.compile(
    r"(?:^|[.!?]\s+)((?:please|do not|don't|never|remember|make sure|ensure|avoid|use (?:only|no|the|short)|write"
    r"|return|answer|respond|describe|mention|list|give|provide|follow|keep (?:all|the|to|it)|include|omit|split"
    r"|shorten|stick to)\s+(?!by\b|along\b|past\b|after\b|an?\b))",
    re.IGNORECASE,
)
# Adverbs that may stand before the verb of an order, and verbs whose base form is a participle as well.
BEFORE_ORDERS = words_of("only always just simply also then now first")
SAME_PARTICIPLE = words_of(
    "set cut put split shut spread hit let cast cost read burst bet rid run come become overrun thrust"
)
# Whoever says these speaks to somebody.
TALKING = re.compile(r"\b(?:you|your|yours|yourself|me|my|mine|we|our|ours|let's|let us|let me)\b", re.IGNORECASE)
# Nouns of speech that tell of looks as well: the main subject, a colour theme, a signature colour.
LOOKS = words_of("subject subjects theme themes signature motif motifs")
WRITER = re.compile(r"(?<!letter )(?<!\ban )\bI\b(?!-)")
MARKUP = re.compile(
    r"</?[a-zA-Z!/ ][^<>]*>|&(?:[a-zA-Z]{2,8}|#\d{1,6});|^\s*(?:[-+•]|\(?[a-z0-9]{1,2}[.)])\s|\]\(|__|(?<!\w)_\w|\\\w"
    r"|--+|https?:|www\.|[<>`*#|{}\[\]\\^~=$@•\n\r\t]|(?<!\w)&\w"
    r"|[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]",  # half a character cannot be stored
    re.MULTILINE,
)
ONE_ANOTHER = words_of("another second other both opposite former latter")
# What "another" or "other" may be said of without a second thing being there.
ELSEWHERE = words_of("side sides part end edge margin corner half direction way")
ONE_MORE = words_of("one another third fourth fifth")
ALONE = frozenset({"single"})
EXCEPTING = re.compile(
    r"\b(?:except|excepted|excepting|apart from|other than|save|with one exception"
    r"|(?:but|only) (?:one|a single|two|three|the))\b"
)
WHOLE, PART = words_of("all every each entire whole"), words_of("most some half few several one part partly")
NEARLY = words_of("nearly almost virtually practically")
# What makes "all" an adverb, and what the pronoun "one" does.
ALL_AROUND = words_of(
    "around round about over along through across together throughout beside near at in on by under above behind beyond"
    " alike told"
)
SEEING = words_of("see sees look looks find finds discern discerns notice notices spot spots make makes view views")
COULD = words_of("can could may might would also then")
BACK_WORDS = words_of("it them this these those which")
EXTENT = words_of("whole entire full complete")
FEW = words_of("two three four five six")
BOTH_SIDES = re.compile(r" (?:both|either|each|two) sides? of the (\w+) ")
MANY = re.compile(r" (?:many|several|numerous|countless|two|three|four) (?:\w+ )?(\w+s)(?= )")
SEVERAL = FEW | words_of("several many numerous countless pair couple")
EACH = words_of("each every either per")
WIDENED = words_of("most some half few")
# Parts that everything has: "at its foot" names no thing.
ENDS = words_of("foot base head top bottom heart core corner corners edge end")
# Before a hyphen these take a participle halfway, or back: half-finished is not finished.
HALVED = words_of("half semi part partly un non not almost nearly")
EXCEPTIONS = words_of("but except mostly majority exception bulk")
GROWN = words_of("planted grass grassy grassed overgrown moss mossy ivy turf lawn")
# Open ground by any name, and the words of a source that tell of some.
GROUND = frozenset({"object:bare ground", "object:paving", "object:square", "object:field"})
SURFACES = words_of(
    "gravel asphalt tarmac cobble cobbles paved paving bare ground earth soil dirt dust dusty mud muddy sand courtyard "
    "yard plaza square clearing plot lot site concrete"
)
STATES = words_of("bloom blossom flower leaf shade sunlight action motion")
SIDED = words_of("sided cornered pointed way armed lobed winged")
FORK = re.compile(
    r"\b(?:roads|streets|paths|footpaths|lanes) (?:form|forming|meet|make|cross|join)\w*\b[^.;]*\b[TXVY]\b",
    re.IGNORECASE,
)
NTH = {"third": "3", "fourth": "4", "fifth": "5", "sixth": "6"}
ONE_MORE_IS = re.compile(
    r" (?:one more|one other|another|another one) (?:is|stands|lies|sits|waits|on|in|at|beside|near) "
)
# Concepts of the lexicon that hold things of several kinds.
MIXED = frozenset({"object:animal"})
SEX_AND_AGE = words_of("man woman boy girl child baby lady gentleman men women children")
SIDES = words_of("side sides end ends edge edges flank flanks margin margins hand")
EVERY = ("both", "either", "every", "each", "all")
# What a word may end in that names no more than the place of a thing: lakeside, ploughland.
PLACES = ("side", "land", "front", "ground", "work")
HALVES = words_of("half side quarter part area margin edge end")
THEM = words_of("them these those which")
SOME_OF_THEM = re.compile(r" (?:one|two|three|four|some|several|many|most|half|few|any) of (?:them|these|those|which) ")
ALL_OF_THEM = re.compile(r" (?:all|each|every|none) of (?:them|these|those|which) ")
# Words of a source that let a reply say "on both sides" or "on all sides".
ALL_ROUND = words_of("both either each every all surround enclose ring encircle flank frame opposite around")
ONE_SIDE = re.compile(r"\bone (?:of (?:its|the|their) )?(?:\w+ )?(?:side|end|edge|flank|margin)s?\b")
TWO_SIDES = re.compile(
    r"\btwo (?:of (?:its|the|their) )?(?:\w+ )?(?:sides|ends|edges|flanks)\b|\bother (?:side|end|edge)\b"
)
NAMED_SIDE = re.compile(r"\b(?:one|another|the other|a second|a third|an?) (?:side|end|edge|flank|margin)\b")
# Corners and margins that no thing follows are those of the picture.
IN_A_CORNER = re.compile(
    r"\b(?<!its )(?<!their )(?<!whose )(top|bottom|upper|lower|uppermost|lowest) "
    r"(?:corner|margin|border|quadrant|edge)s?\b(?! of (?!the (?:image|picture|view|photo|frame|scene)))"
)
HEIGHTS = words_of("above below over under beneath upper lower top base foot roof crown overhead atop")
HALF = re.compile(r"\b(?:one|a) half\b|\bhalf of\b", re.IGNORECASE)
IN_SUN = re.compile(r"\bin (?:\w+ )?(?:sun|sunlight|sunshine)\b")
LIT = words_of("sun sunny sunlit sunlight sunshine light lit bright glow gleam")
DARK, PALE = words_of("dark deep darker"), words_of("pale light lighter paler soft")
DARK_SHADES = frozenset(
    f"colour:{shade}"
    for shade in ("charcoal", "navy", "maroon", "chocolate", "forest green", "plum", "indigo", "olive")
)
PALE_SHADES = frozenset(
    f"colour:{shade}"
    for shade in ("sky blue", "mint", "lilac", "pink", "beige", "tan", "cream", "silver", "salmon", "straw")
)
SUMMITS = words_of("summit peak crest apex tip crown hilltop")
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
_MEASURE = r"(levels?|heights?|sizes?|colou?rs?|shapes?|lengths?|widths?|forms?|styles?|kinds?|tones?|ages?|depths?)"
MEASURED_ALIKE = re.compile(rf" (?:(?:the|one) same|same|one|equal|identical|uniform|equally) {_MEASURE}(?= )")
MEASURED_APART = re.compile(
    rf" (?:different|differing|various|varying|varied|unequal|several|many|unlike|two|three|mixed) {_MEASURE}(?= )"
)
UNLIKE = re.compile(r" (?:no two|not|never|none|neither|nor|hardly) ")
SHARING = words_of("both all each every")
CLOSELY = words_of("just right immediately directly shortly straight close closely")
# Ways to say the same depth; they place a thing in the image in some sentences only.
DEPTH = (
    words_of("front before foreground"),
    words_of("behind background back beyond past further farther distance distant rear"),
    words_of("climb climbs climbing rise rises rising ascend ascends ascending uphill"),
    words_of("descend descends descending drop drops dropping fall falls falling downhill"),
)
ACCORDING = re.compile(r"according to (?:the |a |its |their )?(\w*)")
CROWDED = re.compile(r"\b(full of|crowded with|packed with|filled with|crammed with|busy with) (?:\w+ )??(\w+s)\b")
# How far something is so; one word of each kind excludes the other where the text has no further one.
PARTLY = re.compile(r"\b(?:half|partly|partially|in part|somewhat|barely|hardly)\b(?! of\b)")
WHOLLY = re.compile(
    r"\b(?:completely|fully|entirely|wholly|totally|altogether|unobstructed|unobscured|in full view|in plain view)\b"
)
ALL_OF_IT = words_of(
    "completely fully entirely wholly totally whole all every full entire everything both just throughout"
)
OCCUPIED = re.compile(r"\b(?:occupied|filled|packed|crowded|crammed|full)\b(?! by\b)")
# A standpoint is one where something is seen from it.
FROM_PLACE = re.compile(
    r"from (?:the|a|an) (?:street|ground|pavement|sidewalk|kerb|curb|car|window|balcony|crossing)\b", re.IGNORECASE
)
VIEWING = re.compile(
    r"\b(?:view\w*|seen|sees?|looks?|looking|shot|shown|photo\w*|picture\w*|captured|taken|images?|watched|visible"
    r"|observed|glimpsed|scene|perspective|angle)\b",
    re.IGNORECASE,
)
EMPTY = re.compile(r"\b(?:(?:almost|nearly|half|mostly) )?(?:empty|vacant|deserted|unoccupied)\b(?! of)")
DESERTED = re.compile(r"\b(?:deserted|empty of people|nobody|no one)\b")
PLACED = re.compile(r"\b(inside|outside) (?:of )?(?:the |its |their )?(?:\w+ ed )?(\w+)")
WET = re.compile(r"\b(?:full of|filled with|flooded with) water\b")
DRY = re.compile(r"\b(?:dry|waterless|drained)\b")
FULL = re.compile(r"\b(?:full of|crowded|packed|crammed|busy|filled with)\b")
WRITTEN = frozenset({"object:sign", "object:lettering", "object:banner", "object:clock", "object:logo"})
LONGEST_LABEL = 8
PICTURES = words_of("image images picture pictures photo photograph view views scene scenes tile tiles visible seen")
CLAUSE = re.compile(
    r"[.;:!?]+(?:\s|$)|,\s+(?:and|but|while|whereas|where|with)\s+|,\s+(?=(?:a|an|the|one|two|three|another|more)\s)"
)
PARTS = re.compile(r"[.;:!?]+(?:\s|$)|,?\s+(?:and|but|while|whereas|where)\s+|,\s+")
# Prepositions that say where a thing rests; a thing has one such place.
RESTING = frozenset({"on", "onto", "against", "upon"})
FASTENED = RESTING | {"to"}
PRONOUN = re.compile(
    r"\b(?:it|its|them|they|their|which|that|whose|these|those|both|each|"
    r"one(?! (?:side|end|edge|part|corner|half|margin)))\b",
    re.IGNORECASE,
)
# Words that put two things in one scene and say no more, and words that only list things.
LOOSE = words_of("near beside by beyond behind past with of")
LISTED = words_of(", and or while near beside next close opposite nearby adjacent")
# What ties a sentence to the one before it: no relative pronoun, which stays in its sentence.
BACK = re.compile(
    r"\b(?:it|its|them|they|their|these|those|one another|one(?! (?:side|end|edge|part|corner|half|margin)))\b"
    r"|^\W*(?:that|which|both|each|this|such|all)\b"
    r"|\b(?:in front|in between|around|behind|beyond|alongside|beside|below|above|opposite|inside|within),",
    re.IGNORECASE,
)
# Relation words that claim something definite when a query uses them, and the class of relation they claim.
CLAIMS = {
    "around": "around", "surround": "around", "encircle": "around", "circle": "around", "enclose": "around",
    "ring": "around", "under": "under", "underneath": "under", "beneath": "under", "above": "vertical",
    "atop": "vertical", "over": "vertical", "crown": "vertical", "between": "between", "separate": "between",
    "cross": "crossing", "through": "piercing", "bisect": "crossing", "connect": "joining", "link": "joining",
    "inside": "holding", "within": "holding",
}  # fmt: skip
# Axes on which "-er" compares with another thing of the scene.
RELATIVE = words_of("size height width length tone")
MOVERS = ("object:vehicle", "object:person", "object:bicycle", "object:boat", "object:train", "object:animal")
AMID = re.compile(
    r"\b(?:middle|midst|heart|cent(?:re|er)) of (?!(?:the|this) (?:image|picture|scene|photo|view|tile|frame)\b)"
    r"|\b(?:at|in) (?:its|their) (?:heart|middle|cent(?:re|er)|core|midst)\b"
)
AMID_TWO = re.compile(r"\b(?:middle|midst|heart|cent(?:re|er)) of (?:the |these |its )?two\b")
# What everything below it may be said to be under.
OVER_ALL = frozenset(
    {"object:roof", "object:arch", "object:sky", "object:cloud", "object:dome", "object:gable", "object:snow"}
)
# Classes of relation in the source that let a query claim another class.
ALLOWS = {
    "around": frozenset({"around", "enclosing"}),
    "holding": frozenset({"holding", "enclosing"}),
    "between": frozenset({"between", "enclosing"}),
    "vertical": frozenset({"vertical", "upon"}),
    "under": frozenset({"vertical"}),
    "crossing": frozenset({"crossing"}),
    "piercing": frozenset({"crossing", "between"}),
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

    @cached_property
    def swaps(self) -> tuple[tuple[str, str], ...]:
        """Attributes said of the wrong one of two things of a kind, as (dimension, words)."""
        return tuple(
            dict.fromkeys(
                pair for text in self.texts for pair in swapped(self.source.text, text.text, self.caption.text)
            )
        )

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
                for w in words - DETERMINERS - PREPOSITIONS - EXTENT - CLOSELY - frozenset().union(*DEPTH)
            )
            allowed = places <= before and (places or grounded)
            if found.lower() not in source and not allowed and not _of_object(case, sentence, found):
                added.append(found)
    if added:
        return f"orientation added: {_list(added)}"
    elsewhere = dict.fromkeys(said for reading in case.texts for said in misplaced(case.source.text, reading.text))
    return f"put elsewhere: {'; '.join(elsewhere)}" if elsewhere else ""


def _of_object(case: Case, sentence: str, found: str) -> bool:
    """Whether a place is one on a thing: 'near its top', 'the top of the front' of a view that shows heights.

    "The far side of the street" is no more than "across the street".
    """
    if any(m.group(1) in WORDS.findall(found.lower()) for m in IN_A_CORNER.finditer(sentence.lower())):
        return False
    if re.search(r"\bfar (?:side|end)\b", found):
        return bool(ACROSS & set(case.source.tokens))
    if re.search(r"\bin front\b", found) and case.platform != "satellite":
        return bool(re.search(r"\b(?:farther|further) back\b|\bbehind\b", case.source.text, re.IGNORECASE))
    if found == "up" and re.search(r"\bup to\b", sentence):
        return True
    if re.search(r"\btop\b", found) and case.source.stems & SUMMITS:
        return True
    if re.search(r"\bup\b", found) and case.platform != "satellite" and case.source.stems & {"up", "high", "upper"}:
        return True
    if case.platform == "ground" and re.search(r"\b(?:above|below)\b", found, re.IGNORECASE):
        return bool(case.source.stems & (HEIGHTS | STOREYS))
    if case.platform == "satellite" or not re.search(
        r"\b(?:top|bottom|base|foot|upper|uppermost|topmost|lower|lowest|above)\b", found
    ):
        return False
    if re.search(r"\b(?:its|their|whose)\b", found) or STOREYS & set(case.source.tokens):
        return True
    behind = read(sentence[sentence.find(found) + len(found) :])
    parts = lexicon().parts | {"object:building", "object:tower", "object:stair"}
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


def _by_lettering(case: Case) -> bool:
    """Whether "according to" cites only what stands written in the scene: a sign, a board."""
    cited = [words for reading in case.fresh for words in ACCORDING.findall(reading.text.lower())]
    return all(any(c in WRITTEN for stem in stems(word) for _, c in lexicon().senses.get(stem, ())) for word in cited)


def _addressed(source: Reading, reading: Reading) -> Iterator[re.Match[str]]:
    """Words for the writer and the reader that the source does not use."""
    for pattern in (TALKING, WRITER):
        if not pattern.search(source.text):
            yield from pattern.finditer(reading.text)


def _of_texts(source: Reading, reading: Reading) -> Iterator[str]:
    """Nouns of speech and writing, where nothing written stands in the scene: caption, sentence, wording."""
    if source.objects & WRITTEN:
        return
    named = {reading.tokens[at] for at in reading.parsed.noun_at}
    for word in reading.content:
        if not is_said(word) or plain(word) or word in named or _listed(word) or not mostly(word, "n"):
            continue
        if not _meant(source, word) and not _of_looks(reading, word):
            yield word


def _of_looks(reading: Reading, word: str) -> bool:
    """Whether a word of texts tells of looks: an adjective before a noun ("minuscule stairs"), "the main subject"."""
    spots = [at for at, token in enumerate(reading.tokens) if token == word]
    if word in LOOKS:
        return all(not reading.tokens[at + 1 : at + 2] or reading.tokens[at + 1] not in {":", "line"} for at in spots)
    ahead = ([t for t in reading.tokens[at + 1 : at + 4] if t not in {"-", ","}] for at in spots)
    return uses(word, "a") > 0 and all(any(_is_stretch(t) for t in words) for words in ahead)


def _is_stretch(word: str) -> bool:
    """Whether a word names a thing of a scene or a stretch or shape of it."""
    return is_generic(word) or any(
        kind == "object" for stem in stems(word) for kind, _ in lexicon().senses.get(stem, ())
    )


def _painted(source: Reading, reading: Reading, at: int) -> bool:
    """Whether the word is lettering that the source has, in the same capitals: "KEEP is painted on the road"."""
    word = reading.originals[at] if at < len(reading.originals) else ""
    return len(word) > 1 and word.isupper() and word in source.originals


def _ordered(source: Reading, reading: Reading) -> Iterator[str]:
    """The first words of a sentence that starts with the base form of a verb: "Speak of roofs only"."""
    for first, _ in _sentences(reading):
        at = first
        while at + 1 < len(reading.tokens) and reading.tokens[at] in BEFORE_ORDERS:
            at += 1
        word, after = reading.tokens[at], reading.tokens[at + 1 : at + 2]
        other = at in reading.parsed.noun_at or word in SAME_PARTICIPLE or word in english().function
        if (
            other
            or _painted(source, reading, at)
            or uses(word, "a")
            or not after
            or not after[0].isalpha()
            or after[0] in BE | {"of"}
        ):
            continue
        if word in bases(word, "v") and mostly(word, "v"):
            yield f"{word} {after[0]}"


def _sentences(reading: Reading) -> Iterator[tuple[int, int]]:
    """First token and end of every sentence."""
    at = 0
    for _, tokens in groupby(reading.sentences):
        end = at + len(list(tokens))
        yield at, end
        at = end


def _saying_nothing(case: Case, reading: Reading) -> Iterator[str]:
    """Sentences without a thing, a colour, a material or any other word of the source; labels before a colon too."""
    own = case.source.content_stems
    facts = set(reading.parsed.nouns).union(m.at for m in reading.mentions if m.kind != "quality")
    facts.update(m.at for m in reading.of("quality") if m.heads - {"generic"})
    colon = next((at for at, token in enumerate(reading.tokens[:LONGEST_LABEL]) if token == ":"), 0)
    for at, end in ((0, colon), *_sentences(reading)):
        words = [token for token in reading.tokens[at:end] if token[0].isalnum()]
        if not words or facts.intersection(range(at, end)):
            continue
        said = (w for w in words if w not in PICTURES and w not in english().function)
        if any(own.intersection(stems(word)) for word in said):
            continue
        if sum(map(known, words)) >= ENGLISH_SHARE * len(words):
            yield " ".join(words[:6])


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
    found = [words for words in found if words.lower() != "according to" or not _by_lettering(case)]
    found += [m.group() for reading in case.fresh if (m := LABEL.match(reading.text))]
    found += [
        m.group(1)
        for reading in case.fresh
        for m in ORDER.finditer(reading.text)
        if not (m.group(1).split()[0].isupper() and m.group(1).split()[0] in case.source.originals)
    ]
    found += [m.group() for reading in case.fresh for m in _addressed(case.source, reading)]
    found += [word for reading in case.fresh for word in _of_texts(case.source, reading)]
    found += [
        words for reading in case.fresh for words in (*_ordered(case.source, reading), *_saying_nothing(case, reading))
    ]
    if found:
        return f"talks about itself: {_list(found)}"
    if _shouts(" ".join(r.text for r in case.texts)) and not _shouts(case.source.text):
        return "written in capital letters"
    return ""


def _markup(case: Case) -> str:
    own = set("$@#=~").intersection(case.source.text)  # a price on a board
    found = [repr(m.group()) for reading in case.texts for m in MARKUP.finditer(reading.text) if m.group() not in own]
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
    reworded = _reworded(case)
    for reading in case.texts:
        found = [word for word in _new_things(case, reading) if word not in reworded]
        new += [] if found and _foreign(case, reading) else found
    return f"not in the source: {_list(new)}" if new else ""


def _reworded(case: Case) -> frozenset[str]:
    """The caption's unknown nouns that may be other words for things of the source which the caption does not name.

    Each such thing of the source stands for one noun, of nearly the same kind; an addition has nothing it stands for.
    """
    new = _new_things(case, case.caption)
    if not new:
        return frozenset()
    stated = [m.concept for m in case.caption.of("object")] + [concept for _, concept in case.caption.things]
    own = {case.source.tokens[m.end - 1]: m.concept for m in case.source.of("object")} | dict(case.source.things)
    left = [word for word, concept in own.items() if not any(related(concept, other) for other in stated)]
    found = set()
    for word in dict.fromkeys(new):
        match = next((other for other in left if near(word.split()[-1], other)), None)
        if match is not None and (is_person(word) or _in_place_of(case, word, match)):
            continue
        if match is not None:
            left.remove(match)
            found.add(word)
    return frozenset(found)


def _in_place_of(case: Case, word: str, other: str) -> bool:
    """Whether the caption says the noun between the same two words as the source the other: a replacement."""
    frames = []
    for tokens, phrase in ((case.caption.tokens, word.split()), (case.source.tokens, other.split())):
        at = tokens.index(phrase[-1])
        frames.append((tokens[at - len(phrase)] if at >= len(phrase) else "", tokens[at + 1 : at + 2]))
    (before, after), (own_before, own_after) = frames
    return after == own_after and (before == own_before or len(word.split()) > 1)


def _new_things(case: Case, reading: Reading) -> list[str]:
    """The nouns of one text that name a thing the source neither has, nor implies, nor denies."""
    new: list[str] = []
    for _, mentions in _at_same_word(reading, "object"):
        words = reading.words_at(mentions[0])
        if f" {words} " in case.source.words or any(
            m.concept in case.supported and (m.concept not in MIXED or _of_one_kind(case.source, words))
            for m in mentions
        ):
            continue
        if any(_denied_fairly(case, m) for m in mentions) or _stands_for(reading, mentions[0].at, mentions[0].end):
            continue
        if words in GROWN and "green" in case.source.stems:
            continue
        if words in {"slope", "slopes"} and any(m.concept == "roof:1" for m in case.source.of("quality")):
            continue
        if words == "overcast" and any(
            m.heads & {"object:sky"} for m in case.source.of("colour") if m.concept != "colour:blue"
        ):
            continue
        if mentions[0].concept in GROUND and case.source.stems & SURFACES:
            continue  # gravel before a house is a forecourt
        if _written_apart(case.source, reading, mentions[0]):
            continue
        if not _meant(case.source, words) and not _same_people(case.source, reading, words):
            new.append(words)
    for word, concept in reading.things:
        at = reading.tokens.index(word)
        if _stands_for(reading, at, at + 1):
            continue
        if (concept in case.supported or _meant(case.source, word)) and not _listed_beside(
            case.source, reading, at, word
        ):
            continue
        if not _same_people(case.source, reading, word):
            new.append(word)
    new += _other_kinds(case.source, reading)
    strange = (word for word in reading.strangers if word.islower() and word not in case.source.joined)
    return new + [word for word in strange if not _meant(case.source, word)]


def _written_apart(source: Reading, reading: Reading, mention: Mention) -> bool:
    """Whether a noun is half of what the source writes as one word: "chair lift" for chairlift."""
    before = "".join(reading.tokens[max(0, mention.at - 1) : mention.end])
    behind = "".join(reading.tokens[mention.at : mention.end + 1])
    return bool({before, behind} & set(source.tokens))


def _other_kinds(source: Reading, reading: Reading) -> Iterator[str]:
    """Compounds of a noun that the source has with another noun before it only: police station for petrol station."""
    for at, _ in reading.named:
        head, kind = reading.tokens[at], reading.tokens[at - 1] if at else ""
        last = head
        if not kind.isalpha():
            head, kind = reading.tokens[reading.parsed.ends[at] - 1], head  # a phrase of two words
        if head == kind or not _is_kind(kind) or source.stems.intersection(stems(kind)):
            continue
        own = [
            source.tokens[n - 1]
            for n, token in enumerate(source.tokens)
            if n and set(stems(token)) & set(bases(head, "n"))
        ]
        if (
            own
            and all(map(_is_kind, own))
            and not any(near(one, kind) or linked(one, kind) or akin(one, kind) for one in own)
        ):
            yield f"{kind} {last}"


def _is_kind(word: str) -> bool:
    """Whether a word before a noun is a noun itself that tells its kind: petrol, but no colour and no material."""
    return (
        word.isalpha()
        and mostly(word, "n")
        and not uses(word, "a")
        and not plain(word)
        and not _on_axis(word)
        and not any(kind != "object" for stem in stems(word) for kind, _ in lexicon().senses.get(stem, ()))
    )


def _of_one_kind(source: Reading, word: str) -> bool:
    """Whether a word of a mixed concept may name what the source names: birds for pigeons, but no horse for sheep."""
    last = word.rsplit(maxsplit=1)[-1]
    return _meant(source, last) or any(
        is_kind_of(own, last)
        or may_be_of_kind(own, last)
        or linked(own, last)
        or (linked(last, own) and not is_animal(last))
        for own in source.content
    )


def _stands_for(reading: Reading, at: int, end: int) -> bool:
    """Whether a noun names a use, a likeness or an owner: "as its seat", "for walkers", "-shaped"."""
    after = [word for word in reading.tokens[end : end + 2] if word != "-"][:1]
    if reading.tokens[at:end] == ("home",) and after == ["to"]:
        return True
    if after and after[0] in {"shaped", "like", "style", "fashion", "coloured", "colored", "sized", "free"}:
        return True
    if reading.tokens[end : end + 1] in {("'",), ("’",)}:
        return True
    if (
        after
        and (
            (len(after[0]) == 1 and after[0] not in {"a", "i", ",", ".", ";", ":"})  # the letter H
            or (after[0] == "by" and reading.tokens[at].endswith("ed"))  # shaded by
            or ("in" in reading.tokens[max(0, at - 2) : at] and reading.tokens[at] in STATES)
        )
    ):
        return True
    before = at - 1
    while before > 0 and reading.tokens[before] in DETERMINERS:
        before -= 1
    if reading.tokens[at] in ENDS and before >= 0 and reading.tokens[before] in {"at", "near", "from", "towards"}:
        return True
    return before >= 0 and reading.tokens[before] in {"as", "like", "for"}


def _people(reading: Reading) -> set[str]:
    """The words that name people, in the singular."""
    return {base for word in reading.content for base in bases(word, "n")[:1] if is_person(base) and mostly(word, "n")}


def _same_people(source: Reading, reading: Reading, word: str) -> bool:
    """Whether a word for a person may be another word for the source's: there are no more people in the reply.

    Sex and age are no words of this kind: a woman is not a man.
    """
    if not is_person(word) or set(stems(word)) & SEX_AND_AGE:
        return False
    if word.endswith(("'s", "s'")):
        return False  # a butcher's shop is no baker's
    at = next((n for n, token in enumerate(reading.tokens) if token in word.split()), 0)
    joined = "and" in reading.tokens[max(0, at - 3) : at + 3]
    if joined and _people(reading) & _people(source):
        return False  # "a rider and a jogger"
    return 0 < len(_people(reading)) <= len(_people(source))


def _meant(source: Reading, word: str) -> bool:
    """Whether a noun speaks of the source's things: in the same, a broader, derived, or closely linked word."""
    if source.stems.intersection(stems(word)):
        return True
    if word in source.joined or any(one + two in source.joined for one, two in pairwise(word.split())):
        return True
    if any(word == own + end for own in source.stems if len(own) > 3 for end in PLACES):
        return True
    if any(own.endswith(base) and bases(own[: -len(base)], "n") for own in source.content for base in bases(word, "n")):
        return True  # step of doorstep
    if any(word.endswith(own) and len(own) > 3 and bases(word[: -len(own)], "n") for own in source.content):
        return True  # yard of farmyard
    if any(
        own.startswith(base) and len(own) - len(base) > 3 and bases(own[len(base) :], "n")
        for own in source.content
        for base in bases(word, "n")
        if len(base) > 2
    ):
        return True  # vine of vineyard
    if word == "arched" and source.stems & {"curved", "vaulted", "rounded", "barrel"}:
        return True
    return next(_sources_of(source, word), "") != ""


def _sources_of(source: Reading, word: str) -> Iterator[str]:
    """The words of the source that the thesaurus links a noun to."""
    listed = _listed(word)
    for own in (*source.nominal, *source.pairs):
        if (
            akin(own, word)
            or (same_head(own, word) and mostly(own, "n") and not (listed and _told_apart(source, word)))
            or ((is_kind_of(own, word) or linked(own, word)) and not (listed and _listed(own)))
            or may_be_of_kind(own, word)
        ):
            yield own


def _listed_beside(source: Reading, reading: Reading, at: int, word: str) -> bool:
    """Whether a noun is an addition beside the very word that it might stand for: "a lighthouse and a beacon"."""
    if source.stems.intersection(stems(word)):
        return False
    near = range(max(0, at - 5), min(len(reading.tokens), at + 6))
    joined = [n for n in near if "and" in reading.tokens[min(n, at) : max(n, at)]]
    beside = {stem for n in joined if reading.tokens[n] in source.stems for stem in stems(reading.tokens[n])}
    own = list(_sources_of(source, word))
    return bool(own) and all(beside.intersection(stems(one)) for one in own)


def _told_apart(source: Reading, word: str) -> bool:
    """Whether a compound is another kind of what the source has in compounds only: football for baseball field."""
    head = word.rpartition(" ")[2]
    same = [m for m in source.of("object") if head in stems(source.tokens[m.end - 1])]
    return head != word and bool(same) and all(m.end - m.at > 1 for m in same)


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


def _said_alike(case: Case, reading: Reading, mention: Mention, matching: list[Mention]) -> bool:
    """Whether the reply may say an attribute, which the source has too, of the thing it says it of.

    Only certain bindings speak against it: the reply's thing has another such attribute in the source and never this
    one; or the source's thing has another one in the reply; or the source's thing is in the reply without it while
    another of the source's things has it now.
    """
    source = case.source
    if not mention.sure or any(
        _heads_meet(mention.heads, said.heads | said.loose) and not _far(source, mention, said) for said in matching
    ):
        return True
    if any(_may_be_one(mention.heads, said.heads) for said in matching):
        return not _otherwise(source, mention, exact=True)
    if _otherwise(source, mention) or (mention.kind == "colour" and all(_far(source, mention, m) for m in matching)):
        return False
    if not all(said.sure for said in matching):
        return True
    owners = frozenset().union(*(said.heads for said in matching))
    theirs = [m for m in reading.of(mention.kind) if _heads_meet(m.heads | m.loose, owners)]
    mine = any(_same_thing(head, own) for head in mention.heads for own in _things_of(source))
    lost = any(_same_thing(owner, own) for owner in owners for own in _things_of(reading))
    growing = mention.concept == "colour:green" and any(related(h, "object:vegetation") for h in mention.heads)
    if mine and mention.kind == "colour" and not growing and _named_alike(source, reading, mention):
        return False
    return not (mine and lost and not any(related(m.concept, mention.concept) for m in theirs))


def _named_alike(source: Reading, reading: Reading, mention: Mention) -> bool:
    """Whether the source has the very noun that an attribute stands before."""
    word = _owner(reading, mention)
    return bool(word) and any(
        word in bases(source.tokens[source.parsed.ends[at] - 1], "n") for at in source.parsed.nouns
    )


def _far(source: Reading, mention: Mention, said: Mention) -> bool:
    """Whether the source says an attribute of a stretch only, and its sentence does not have the reply's thing."""
    if said.heads - {"generic"} or not said.heads or said.loose or mention.kind == "number":
        return False
    units = _units(source.text, SENTENCE)
    own = [n for n, unit in enumerate(units) if any(_same_thing(h, c) for h in mention.heads for c in unit[0])]
    return bool(own) and said.sentence not in own and len(units) == source.sentences[-1] + 1


def _things_of(reading: Reading) -> frozenset[str]:
    return reading.objects | {concept for _, concept in reading.things}


def _replaced(case: Case, reading: Reading, mention: Mention) -> bool:
    """Whether the reply repeats a phrase of the source with another value: "four arched openings" for three.

    The phrase is the two words behind the value. Values in a list ("red and white buses") may change places.
    """
    phrase = reading.tokens[
        mention.end : mention.end + (3 if reading.tokens[mention.end : mention.end + 1] == ("-",) else 2)
    ]
    if len(phrase) < 2 or phrase[0] in PREPOSITIONS | {"and", "or", ",", "."} or phrase[0] == phrase[-1]:
        return False
    if _listed_value(reading, mention):
        return False
    slots = [s for s in case.source.of(mention.kind) if case.source.tokens[s.end : s.end + 1] == phrase[:1]]
    same = [s for s in slots if case.source.tokens[s.end : s.end + len(phrase)] == phrase]
    fits = slots if phrase[0] != "-" else same
    return bool(same) and not any(related(s.concept, mention.concept) or _listed_value(case.source, s) for s in fits)


def _listed_value(reading: Reading, mention: Mention) -> bool:
    """Whether another value of that kind stands close by."""
    return any(m.at != mention.at and abs(m.at - mention.at) <= 3 for m in reading.of(mention.kind))


def _otherwise(source: Reading, mention: Mention, *, exact: bool = False) -> bool:
    """Whether the source certainly gives the thing another attribute of that kind: a red barn for a white one."""
    others = [m for m in source.of(mention.kind) if not related(m.concept, mention.concept) and m.sure]
    if exact:
        return any(mention.heads & other.heads for other in others)
    return any(related(a, b) for other in others for a in mention.heads for b in other.heads)


def _may_be_one(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two things may be one, or a whole and its part: a window and its shutters, an arch and an opening."""
    building = "object:building"
    parts = lexicon().parts | lexicon().body.keys()
    return any(
        a == b
        or (related(a, building) and b in parts)
        or (related(b, building) and a in parts)
        or (not {a, b} & parts and (linked(_name(a), _name(b)) or linked(_name(b), _name(a))))
        or same_head(_name(a), _name(b))
        for a in one
        for b in other
    )


def _attributes(case: Case, kind: str) -> str:
    wrong = [words for dimension, words in case.swaps if dimension == kind]
    sources = case.source.of(kind)
    for reading in case.texts:
        for word, mentions in _at_same_word(reading, kind):
            matching = [s for m in mentions for s in sources if related(m.concept, s.concept)]
            exact = [s for s in matching if s.concept == mentions[0].concept]
            if exact and kind == "colour":  # green is no turquoise where the source has a green
                matching = [s for s in matching if s in exact or not _in_between(s.concept)]
            if not matching and _grown_green(case.source, mentions[0]):
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
                implied = _uncoloured(case.source, word) and f" {said} " in case.source.words
                implied = implied or any(m.concept in case.supported for m in mentions)
                if not implied or _replaced(case, reading, mentions[0]):
                    wrong.append(f"{word} is new")
            elif (not case.source.stems.intersection(stems(word)) and _narrowed(case.source, mentions, matching)) or (
                kind == "colour" and _other_shade(case.source, reading, mentions[0])
            ):
                wrong.append(f"{word} is new")
            elif not _said_alike(case, reading, mentions[0], matching) or _replaced(case, reading, mentions[0]):
                of = _list(sorted(_name(h) for h in mentions[0].heads if h != "generic"))
                wrong.append(f"{word} said of {of}")
    return "; ".join(dict.fromkeys(wrong))


def _shades(reading: Reading) -> dict[frozenset[str], tuple[str, str]]:
    """The pairs of colours joined by a hyphen: "purple-blue"."""
    at = {m.at: m.concept for m in reading.of("colour")}
    return {
        frozenset({at[n], at[n + 2]}): (at[n], at[n + 2])
        for n in at
        if reading.tokens[n + 1 : n + 2] == ("-",) and n + 2 in at
    }


def _other_shade(source: Reading, reading: Reading, mention: Mention) -> bool:
    """Whether the colour ends a pair that the source has with another end only: purple-red for purple-blue."""
    first = next((m for m in reading.of("colour") if m.at == mention.at - 2), None)
    if first is None or reading.tokens[mention.at - 1] != "-":
        return False
    named, own = [m for m in source.of("colour") if m.concept == first.concept], _shades(source)
    pairs = [pair for pair in own if first.concept in pair]
    return bool(pairs) and len(pairs) == len(named) and frozenset({first.concept, mention.concept}) not in own


def _uncoloured(source: Reading, word: str) -> bool:
    """Whether the source has the word, and not as the name of a colour: brick of "brick colour"."""
    found = [at for at, token in enumerate(source.tokens) if token == word]
    behind = ([t for t in source.tokens[at + 1 : at + 3] if t != "-"][:1] for at in found)
    return any(not after or after[0] not in COLOURED for after in behind)


def _in_between(colour: str) -> bool:
    """Whether a colour lies between two others: turquoise is blue as much as green."""
    wider = broader(colour) - {colour}
    return len(wider) > 1 and not any(related(a, b) for a, b in combinations(sorted(wider), 2))


def _grown_green(source: Reading, mention: Mention) -> bool:
    """Whether green is no more than what the source says of plants: a green roof for a planted one."""
    if mention.concept != "colour:green" or not source.stems & GROWN:
        return False
    return any(head == "object:roof" or related(head, "object:vegetation") for head in mention.heads)


def _narrowed(source: Reading, mentions: list[Mention], matching: list[Mention]) -> bool:
    """Whether a value is more exact than any the source has: granite for stone, navy for blue.

    A colour that lies between two others may stand for both side by side (lime for yellow-green), and one that is the
    dark or pale kind of another for that one and its tone (charcoal for dark grey).
    """
    exact = {m.concept for m in mentions}
    if any(s.concept in exact or exact & broader(s.concept) for s in matching):
        return False
    if any({one, other} <= broader(concept) for one, other in _shades(source).values() for concept in exact):
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


def _colours(case: Case) -> str:
    return _attributes(case, "colour")


def _materials(case: Case) -> str:
    return _attributes(case, "material")


def _numbers(case: Case) -> str:
    wrong = [words for dimension, words in case.swaps if dimension == "number"]
    sources = case.source.of("number")
    fractions = {m.concept for m in case.source.of("fraction")}
    for reading in case.texts:
        wrong += [m.concept for m in reading.of("fraction") if m.concept not in fractions]
        if fractions and "half" not in case.source.tokens and HALF.search(reading.text):
            wrong.append("half")
        for mention in reading.of("number"):
            word = reading.tokens[mention.at]
            alone = word in ALONE and "one" not in case.source.tokens and not mention.heads & reading.denied
            if alone and _plural_only(case.source, mention):
                wrong.append(f"{word} {_list(sorted(map(_name, mention.heads)))}")
            if word in {"both", "single", "double", "twin"}:
                continue
            same = [s for s in sources if s.concept == mention.concept]
            alike = same and _said_alike(case, reading, mention, same) and not _replaced(case, reading, mention)
            if alike or _enumerates(reading, mention) or _follows(case, mention):
                continue
            heads = sorted(_name(h) for h in mention.heads if h != "generic")
            wrong.append(" ".join([word, *heads[:1]]))
        wrong += _quantified(case.source, reading)
    wrong += _only_one(case.source, case.caption)
    wrong += [f"{word} for one" for reading in case.texts for word in _multiplied(case.source, reading)]
    return f"number not in the source: {_list(wrong)}" if wrong else ""


def _quantified(source: Reading, reading: Reading) -> Iterator[str]:
    """Quantifiers, ordinals of storeys, sides and letters that are not the source's."""
    for at, word in enumerate(reading.tokens):
        rest = reading.tokens[at + 1 : at + 4]
        shared = (word == "one" and WHOLE & set(rest)) or (word == "each" and "other" in rest) or rest[:1] == ("but",)
        if (word in {"whole", "entire"} and HALVES & set(rest[:1])) or _no_quantity(reading, at):
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
                yield f"{word} {_name(noun.concept)}"
        if word in EVERY and SIDES & set(rest) and not _all_round(source, reading, at):
            yield f"{word} {next(t for t in rest if t in SIDES)}"
        if STOREYS & set(rest[:1]) and word in ORDINALS:
            own = {w for w, n in zip(source.tokens, source.tokens[1:], strict=False) if n in STOREYS}
            if own & ORDINALS.keys() and not {ORDINALS[w] for w in own if w in ORDINALS} & {ORDINALS[word]}:
                yield f"{word} {rest[0]}"
    yield from _widened(source, reading)
    yield from _without_exception(source, reading)
    for noun in set(BOTH_SIDES.findall(source.words)) - set(BOTH_SIDES.findall(reading.words)):
        if f" one side of the {noun} " in reading.words:
            yield f"one side of the {noun}"
    many = (noun for noun in MANY.findall(reading.words) for base in bases(noun, "n")[:1] if _lone(source, base))
    yield from (f"many {noun}" for noun in many)
    for one, other in (("single", "multi"), ("multi", "single")):
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
        around = after in ALL_AROUND or after == "-" or (before == "in" and not _is_stretch(after))
        return around or any(kind == "colour" for kind, _ in lexicon().senses.get(after, ()))
    if word == "one":
        return after in SEEING or (after in COULD and bool(SEEING & set(reading.tokens[at + 2 : at + 4])))
    if word == "most":
        return before in {"the", "its", "their"} | BE or (
            uses(after, "a") > 0 and before == "" and not _is_stretch(after)
        )
    return word in {"half", "partly"} and (after == "-" or (after.endswith("ed") and before not in ARTICLES))


def _only_one(source: Reading, caption: Reading) -> Iterator[str]:
    """Things of which a caption has one, where the source counts several of that word and never names one."""
    plurals = {base for token in caption.tokens for base in bases(token, "n") if base != token}
    told = instances(caption.text)
    for thing in told:
        if any(
            other is not thing and any(related(a, b) for a in other.concepts for b in thing.concepts) for other in told
        ):
            continue  # "a block and a building" are two
        base = caption.tokens[caption.parsed.ends.get(thing.at, thing.at + 1) - 1]
        said = caption.tokens[max(0, thing.first - 1) : thing.at + 1]
        if said[0] not in {"a", "an"} or "-" in said[-2:] or "number" in thing.traits or base in plurals:
            continue
        at = [m.end - 1 for m in source.of("object") if base in bases(source.tokens[m.end - 1], "n")]
        if not at or any(source.tokens[n] == base for n in at) or EACH & set(caption.sentence_of(thing.at)):
            continue
        if all(SEVERAL & set(source.tokens[max(0, n - 4) : n]) for n in at):
            yield f"one {base} for several"


def _multiplied(source: Reading, reading: Reading) -> Iterator[str]:
    """Plurals of a reply for a thing that the source has once: a row of houses for the house."""
    plurals = {base for token in source.tokens for base in bases(token, "n") if base != token}
    for mention in reading.of("object"):
        word = reading.tokens[mention.end - 1]
        base = next((b for b in bases(word, "n") if b != word), "")
        if not base or word in source.tokens or base in plurals or is_generic(word) or EACH & set(source.tokens):
            continue
        likes = {m.at for m in source.of("object") if mention.concept in broader(m.concept)}
        same = [at for at in likes if source.tokens[source.parsed.ends[at] - 1] == base]
        if len(likes) != 1 or not same or source.tokens[same[0] - 1] not in ARTICLES - {"another"}:
            continue
        if not _another(source, same[0]):
            yield word


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
                yield f"{clause.tokens[at]} {_name(named[0])}"


def _without_exception(source: Reading, reading: Reading) -> Iterator[str]:
    """Things of which a reply says something of all, where the source excepts one: "all windows but one"."""
    for at, word in enumerate(reading.tokens):
        noun = (
            next((m for m in reading.of("object") if at < m.at <= at + 4), None) if word in WHOLE - {"whole"} else None
        )
        if noun is None or EXCEPTING.search(reading.words):
            continue
        near = {m.sentence for m in source.of("object") if m.concept == noun.concept}
        for sentence in near:
            words = " ".join(w for w, s in zip(source.tokens, source.sentences, strict=True) if s == sentence)
            if EXCEPTING.search(words):
                yield f"{word} {_name(noun.concept)}"


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
    words += [word for word, concept in source.things if any(related(concept, head) for head in mention.heads)]
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
    if _named_sides(case, mention):
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
    if _sided(case.source, mention) or (
        mention.concept == "2" and {"object:road", "object:path"} & heads and FORK.search(case.source.text)
    ):
        return True
    ordinal = next((word for word, count in NTH.items() if count == mention.concept), "")
    if ordinal in case.source.tokens and any(_same_thing(h, own) for h in heads for own in _things_of(case.source)):
        return True  # "two of its courtyards …, and the third": three
    counted = [s for s in case.source.of("number") if s.heads & heads and case.source.tokens[s.at] != "single"]
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
    named = {m.at for m in case.source.of("object") if any(_is_one_of(m.concept, h) for h in heads)}
    if mention.concept != "2" or not named:
        return False
    return len(named) > 1 or any(_another(case.source, at) for at in named)


def _named_sides(case: Case, mention: Mention) -> bool:
    """Whether a count of sides is that of the sides which one sentence of the source names: one side, the other."""
    reading = next((r for r in case.texts if mention in r.mentions), case.caption)
    if not SIDES & set(reading.tokens[mention.end : mention.end + 2]):
        return False
    named = max((m for m in reading.of("object") if m.at < mention.at), key=lambda m: m.at, default=None)
    for sentence in SENTENCE.split(case.source.text):
        told = NAMED_SIDE.findall(sentence.lower())
        has = named is None or any(related(c, named.concept) for c in read(sentence).objects)
        if has and len(told) > 1 and mention.concept == str(len(told)):
            return True
    return False


def _on_each_side(source: Reading, mention: Mention) -> bool:
    """Whether the source has one of the thing on either side: "a wing on each side" makes two wings."""
    after = " ".join(source.tokens[mention.end : mention.end + 5])
    alone = {"a", "an", "one"} & set(source.tokens[max(0, mention.at - 3) : mention.at])
    return (
        bool(alone)
        and re.match(r"(?:\w+ )?(?:on|at|to) (?:either|each|both) (?:side|end|flank|edge)s?\b", after) is not None
    )


def _single(case: Case, mention: Mention) -> bool:
    """Whether the source has the counted stretch once, and speaks of no other one: a strip is not two strips."""
    bases_of = {
        base
        for reading in case.texts
        if mention in reading.mentions
        for word in reading.tokens[mention.end : mention.end + 4]
        for base in bases(word, "n")
        if base != word and is_generic(word)
    }
    tokens = case.source.tokens
    at = [n for n, token in enumerate(tokens) if token in bases_of]
    plurals = any(bases_of & set(bases(token, "n")) for token in tokens if token not in bases_of)
    return len(at) == 1 and not plurals and not (ONE_ANOTHER | {"one"}) & set(tokens[max(0, at[0] - 3) : at[0]])


def _sided(source: Reading, mention: Mention) -> bool:
    """Whether a count is that of a shape in the source: four sides, slopes or corners of a four-sided roof."""
    shapes = (pair for pair in zip(source.tokens, source.tokens[2:], strict=False) if pair[1] in SIDED)
    return any(str(number(count)) == mention.concept for count, _ in shapes)


def _same_thing(one: str, other: str) -> bool:
    """Whether two concepts may name one thing; a wall is no building, though it tells of one."""
    return one == other or (related(one, other) and not {one, other} & (lexicon().parts | lexicon().body.keys()))


def _is_one_of(concept: str, head: str) -> bool:
    """Whether a thing may be counted among those of a head: a house among buildings, no building among houses."""
    return _same_thing(concept, head) and (head in broader(concept) or concept.startswith("thing:"))


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


def _names(case: Case) -> str:
    new: list[str] = []
    for reading in case.texts:
        if _shouts(reading.text):
            continue
        for at, word in enumerate(reading.originals):
            if not word[0].isupper() or len(word) == 1 or word in case.source.originals:
                continue
            token = reading.tokens[at]
            starts = at == 0 or reading.tokens[at - 1] in {".", "!", "?", ":", '"', "'", "“", "‘"}
            if token in case.source.tokens or (
                starts and (known(token) or case.source.stems.intersection(stems(token)))
            ):
                continue
            if starts and not (at + 1 < len(reading.originals) and reading.originals[at + 1][0].isupper()):
                continue
            new.append(word)
    return f"name not in the source: {_list(new)}" if new else ""


def _contradiction(case: Case) -> str:
    wrong = [words for dimension, words in case.swaps if dimension not in ("number", "colour", "material")]
    wrong += reversals(case.source.text, case.caption.text)
    wrong += unrested(case.source.text, case.caption.text)
    source = case.source
    asserted = {m.concept for m in source.of("object")} - source.denied
    for reading in case.texts:
        for concept in sorted(reading.denied):
            against = any(related(concept, a) for a in asserted) and not any(
                related(concept, d) for d in source.denied | _none_of(source)
            )
            invented = not source.denied and concept not in asserted and not _emptied(source, concept)
            if (against and (concept in source.objects or not _emptied(source, concept))) or invented:
                wrong.append(f"denies {_name(concept)}")
        claimed = {m.concept for m in reading.of("object")} | {concept for _, concept in reading.things}
        claimed -= reading.denied | _none_of(reading)
        wrong += [f"affirms {_name(c)}" for c in sorted(claimed & source.denied) if c not in asserted]
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
            if axis in RELATIVE and not _comparative(reading.tokens[mention.at]):
                met = [s for s in met if not _comparative(source.tokens[s.at])]  # bigger than a small one
            elif axis in RELATIVE and any(_comparative(source.tokens[s.at]) for s in met):
                met = [s for s in met if _comparative(source.tokens[s.at])]
            if any(_opposed(s.concept, axis, side) for s in met) or any(s.concept == mention.concept for s in turned):
                wrong.append(f"{reading.tokens[mention.at]} {_list(sorted(map(_name, heads)))}")
        wrong += _antonyms(source, reading)
        wrong += _degree(source, reading)
        wrong += _reshaped(source, reading)
        wrong += _levelled(source, reading)
        wrong += _shared(source, reading)
        if re.search(r"\bsame (?:side|bank|one|edge|end)\b", reading.text) and "same" not in source.tokens:
            wrong += ["on the same side"] if source.stems & {"opposite", "across", "other"} else []
        for word, noun in CROWDED.findall(reading.words):
            if re.search(rf"\b(?:few|no) (?:\w+ )?{re.escape(noun)}\b", source.words):
                wrong.append(f"{word} {noun}")
        if DESERTED.search(reading.words) and not source.denied and not EMPTY.search(source.words) and _people(source):
            wrong.append("deserted for people")
        for place, noun in PLACED.findall(reading.words):
            theirs = {p for p, n in PLACED.findall(source.words) if n == noun}
            if theirs and place not in theirs:
                wrong.append(f"{place} {noun}")
        if IN_SUN.search(reading.words) and "object:shadow" in asserted and not source.stems & LIT:
            wrong.append("sun for shadow")
        if WET.search(reading.words) and DRY.search(source.words) and not DRY.search(reading.words):
            wrong.append("water for dry")
        if EMPTY.search(reading.words) and not EMPTY.search(source.words) and FULL.search(source.words):
            wrong.append("empty for full")
        if OCCUPIED.search(reading.words) and not EMPTY.search(reading.words) and _unfilled(source, reading):
            wrong.append("full for empty")
        clear = [m for m in reading.of("quality") if m.concept == "weather:0" and "object:sky" in m.heads]
        if clear and "object:cloud" in asserted and not source.stems & {"clear", "cloudless", "sunny"}:
            wrong.append("clear sky")
    return f"against the source: {_list(wrong)}" if wrong else ""


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
    word = _owner(reading, mention)
    if mention.concept.partition(":")[0] in RELATIVE:
        return met  # a big one beside a bigger one
    own = [s for s in met if word and _owner(source, s) == word]
    named = {_owner(source, s) for s in met}
    return own if own and all(named) and len({s.concept for s in met}) > 1 else met


def _owner(reading: Reading, mention: Mention) -> str:
    """The noun, in the singular, that a quality is said of; "" when that is not certain."""
    w = reading.parsed
    at = next(
        (n for n in range(mention.end, mention.end + 6) if n in w.nouns and set(w.nouns[n]) & mention.heads), None
    )
    if not mention.firm or at is None:
        at = next((n for n in range(mention.at - 1, -1, -1) if n in w.nouns and set(w.nouns[n]) & mention.heads), None)
        at = at if at is not None and reading.sentences[at] == reading.sentences[mention.at] else None
    if at is None:
        return ""
    word = w.tokens[w.ends[at] - 1]
    return next(iter(bases(word, "n")), word)


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
        own = [m for m in own if _of_one(source, m) or _heads_meet(mention.heads, m.heads | m.loose)]
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


def _compared(source: Reading, axis: str, heads: frozenset[str]) -> bool:
    """Whether the source, too, says of the very things, behind them, that they are more so than others."""
    found = (m for m in source.of("quality") if m.concept.startswith(f"{axis}:") and not m.firm and m.heads & heads)
    return any(_comparative(source.tokens[m.at]) for m in found)


def _in_sentence(reading: Reading, mention: Mention) -> frozenset[str]:
    """The things of a mention's sentence."""
    return frozenset(m.concept for m in reading.of("object") if m.sentence == mention.sentence)


def _none_of(reading: Reading) -> frozenset[str]:
    """The concepts of which a text says that none of them is so and so."""
    named = sorted(reading.of("object"), key=lambda m: m.at)
    starts = [at for at, pair in enumerate(pairwise(reading.tokens)) if pair == ("none", "of")]
    return frozenset(m.concept for at in starts for m in [m for m in named if at < m.at <= at + 5][:1])


def _negated(reading: Reading, mention: Mention) -> bool:
    """Whether a quality is denied: "no window is lit", "not lit"."""
    low = max((at for at in range(mention.at) if reading.tokens[at] in {",", ".", ";", ":", "but"}), default=-1)
    for at in range(mention.at - 1, low, -1):
        counted = reading.tokens[at + 1] in {"a", "one", "any", "even"}
        if reading.tokens[at] in {"not", "never", "hardly", "without"} and not counted:
            return mention.at - at <= 2
        if reading.tokens[at] in {"no", "none", "neither", "not"}:
            noun = next((m for m in reading.of("object") if at < m.at < mention.at), None)
            return noun is not None and bool({noun.concept} & mention.heads)
    return False


def _antonyms(source: Reading, reading: Reading) -> Iterator[str]:
    """Adjectives and participles whose opposite the source says of the same thing: unpaved and paved."""
    own = {w: at for at, w in enumerate(_halved(source)) if w[0].isalpha() and w not in english().function}
    for at, word in enumerate(_halved(reading)):
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
        against = [w for w in against if not _beside_denial(source, own[w]) and not _beside_denial(reading, at)]
        if not against:
            continue
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


def _kept(case: Case, facts: list[tuple[str, list[Mention]]]) -> set[int]:
    """Which of the source's facts (grouped by word) the caption states, in any wording; three roofs are three.

    Every word of the caption stands for one fact: the one that has the most neighbours in common with it, so that
    another thing's white roof does not stand for the main building's.
    """
    stated = [group for kind in FACTS for group in _at_same_word(case.caption, kind)]
    own = [_beside_in(case.source, mentions[0]) for _, mentions in facts]
    said = [_beside_in(case.caption, mentions[0]) for _, mentions in stated]
    roots = [frozenset(stems(word)) for word, _ in stated]
    pairs = []
    for i, (word, mentions) in enumerate(facts):
        mine = stems(word)
        for j, (_, theirs) in enumerate(stated):
            same = not roots[j].isdisjoint(mine)
            if same or any(related(a.concept, b.concept) for a in mentions for b in theirs if a.kind == b.kind):
                pairs.append((-len(own[i] & said[j]) - same, i, j))
    kept: set[int] = set()
    used: set[int] = set()
    for _, i, j in sorted(pairs):
        if i not in kept and j not in used:
            kept.add(i)
            used.add(j)
    for i, (word, mentions) in enumerate(facts):
        if i not in kept and mentions[0].kind == "object" and all(root.isdisjoint(stems(word)) for root in roots):
            kept |= {i} if _meant(case.caption, word) else set()
    return kept | {i for i in range(len(facts)) if any(_repeats(facts, own, i, j) for j in kept)}


def _repeats(facts: list[tuple[str, list[Mention]]], beside: list[frozenset[str]], i: int, j: int) -> bool:
    """Whether a source says one thing in two sentences: the same word among mostly the same words."""
    mine, yours = facts[i][1][0], facts[j][1][0]
    if mine.sentence == yours.sentence or mine.concept != yours.concept:
        return False
    return 2 * len(beside[i] & beside[j]) >= min(len(beside[i]), len(beside[j])) > 0


def _beside_in(reading: Reading, mention: Mention) -> frozenset[str]:
    """The stems and concepts that stand close to a mention in its sentence."""
    low, high = max(0, mention.at - CLOSE), min(len(reading.tokens), mention.end + CLOSE)
    near = [
        at
        for at in range(low, high)
        if not mention.at <= at < mention.end and reading.sentences[at] == reading.sentences[mention.at]
    ]
    words = (reading.tokens[at] for at in near)
    found = {stems(word)[-1] for word in words if word[0].isalpha() and word not in english().function}
    found.update(concept for at in near for concept in reading.concepts_at.get(at, ()))
    return frozenset(found)


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
    kept = _kept(case, facts)
    opening = _opening(case.source, facts)
    first = [i for i, (_, mentions) in enumerate(facts) if mentions[0].sentence == opening]
    if len(first) <= FEW_FACTS:  # too few to tell a thing from its likes
        kept.update(i for i in first if _is_named(case.caption, facts[i][1]))
    if sum(i in kept for i in first) < MAIN_COVERAGE * len(first):
        return f"the main object is missing: {_list(facts[i][0] for i in first)}"
    whole = len(kept) / len(facts)
    return f"only {whole:.0%} of the source's facts are kept" if whole < COVERAGE else ""


def _is_named(caption: Reading, mentions: list[Mention]) -> bool:
    """Whether the caption has a word for the fact, of whichever thing."""
    return any(related(m.concept, said.concept) for m in mentions for said in caption.of(m.kind))


def _opening(source: Reading, facts: list[tuple[str, list[Mention]]]) -> int:
    """The sentence with the main object: the first, or behind "I am at a crossing" the first with a building."""
    opening = facts[0][1][0].sentence
    if not STANDPOINT.match(source.text):
        return opening
    built = (m.sentence for _, mentions in facts for m in mentions if related(m.concept, "object:building"))
    return next(built, opening)


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
    back = BACK if parts is SENTENCE else PRONOUN
    for part in parts.split(source):
        if not part.strip():
            continue
        reading = read(part)
        nouns = {m.at for m in reading.of("object") if not reading.tokens[m.at].endswith("ed")}
        words = (
            token
            for at, token in enumerate(reading.tokens)
            if at not in nouns
            and not (token == "roofed" and at and reading.tokens[at - 1] == "-")
            and not (token == "across" and (at == 0 or reading.tokens[at - 1] == ","))
            and not (at and reading.tokens[at - 1] in ARTICLES and not token.endswith(("ing", "ed")))
        )
        classes = frozenset(c for t in words for s in stems(t) for c in lexicon().relations.get(s, ()))
        classes |= {"around"} if AMID.search(part) else set()
        classes |= {"between"} if TWO_SIDES.search(part) or AMID_TWO.search(part) else set()
        own = frozenset(concept for _, concept in reading.named)
        units.append((own | (previous if back.search(part) else frozenset()), classes))
        previous = own
    return units


def _share_words(one: Reading, other: Reading) -> bool:
    """Whether two short texts have nearly half of their words in common."""
    mine, yours = ({stems(word)[-1] for word in text.content} for text in (one, other))
    return len(mine & yours) >= 0.4 * len(mine | yours)


def _verbatim(source: Reading, query: Reading) -> bool:
    """Whether the query's words stand in the source one after the other."""
    return query.words in source.words


def _false_relation(query: Reading, source: Reading) -> str:
    breaks = [i for i, t in enumerate(query.tokens) if t in {",", ";", ":", "."}]
    named = query.named
    if query.denied:
        return ""
    for at, token in enumerate(query.tokens):
        claim = next((CLAIMS[s] for s in stems(token) if s in CLAIMS), None)
        if claim is None or query.tokens[at - 1 if at else 0] in DETERMINERS or query.tokens[at + 1 : at + 2] == ("-",):
            continue
        low = max((i for i in breaks if i < at), default=-1)
        high = min((i for i in breaks if i > at), default=len(query.tokens))
        before = [concept for start, concept in named if low < start < at][-3:]
        after = [concept for start, concept in named if at < start < high][:2]
        if not before or not after or (claim == "under" and OVER_ALL & set(after)):
            continue
        if token == "over" and at and query.tokens[at - 1].endswith(("ed", "spread", "strewn")):
            continue  # scattered over
        pair = ((before[-1],), (after[0],))
        if claim in ("around", "vertical", "under", "crossing") and (
            holds(source.text, *pair) or holds(source.text, *pair[::-1])
        ):
            continue
        moves = claim == "crossing" and (
            any(related(before[-1], mover) for mover in MOVERS) or is_person(_name(before[-1]))
        )
        for stated, classes in _units(source.text, CLAUSE if claim in ("vertical", "under", "around") else SENTENCE):
            ends = all(
                any(related(end, s) or end in lexicon().implied.get(s, ()) for end in side for s in stated)
                for side in (before, after)
            )
            if claim == "between":
                ends = all(any(_same_thing(end, s) for s in stated) for end in (*before[-1:], *after))
            # "The area is ringed by parking" names one end only: the other may be what the area holds.
            ends |= 0 < len(stated) == sum(any(related(end, s) for end in (*before, *after)) for s in stated)
            if ends and (moves or classes & ALLOWS.get(claim, frozenset({claim}))):
                break
        else:
            return f"'{token}' between {_name(before[-1])} and {_name(after[0])} is not in the source"
    return ""


def _moved(query: Reading, source: Reading) -> str:
    """Why a query that puts one of the source's things on or against another is false: the source puts it elsewhere.

    Both things are named in the source, never in one clause, and the source says on what the first one is.
    """
    named = sorted(query.of("object"), key=lambda m: m.at)
    for at, token in enumerate(query.tokens):
        if token not in RESTING and not (token == "to" and query.tokens[at - 1].endswith("ed")):
            continue
        before = [m.concept for m in named if m.at < at][-1:]
        after = [m.concept for m in named if at < m.at <= at + 4 and m.concept in source.objects]
        if not before or not after or before[0] not in source.objects:
            continue
        word = next(query.tokens[m.end - 1] for m in reversed(named) if m.at < at)
        spots = [part for part in PARTS.split(source.text) if f" {word} " in plain_words(part)]
        units = [unit for part in spots for unit in _units(part, PARTS)] or [
            unit for unit in _units(source.text, PARTS) if before[0] in unit[0]
        ]
        if any(related(end, own) for end in after for unit in units for own in unit[0]):
            continue
        if any(_rests(source, before[0], token)):
            return f"'{token}' between {_name(before[0])} and {_name(after[0])} is not in the source"
    return ""


def _apart(query: Reading, source: Reading) -> str:
    """Why a query that ties two of the source's things together is false: no sentence of the source has both."""
    named = sorted({at: concept for at, concept in query.named if concept not in OVER_ALL}.items())
    for (start, one), (at, other) in pairwise(named):
        between = query.tokens[query.parsed.ends[start] : at]
        if LISTED & set(between) or not any(_ties(word) for word in between) or related(one, other):
            continue
        homes = [_homes(query, source, place, end) for place, end in ((start, one), (at, other))]
        if all(homes) and not homes[0] & homes[1]:
            return f"'{' '.join(between)}' between {_name(one)} and {_name(other)} is not in the source"
    return ""


def _homes(query: Reading, source: Reading, at: int, end: str) -> set[int]:
    """The sentences of the source that have a query's thing: those of the very one, where its attributes tell which."""
    units = _units(source.text, SENTENCE)
    thing = next((t for t in instances(query.text) if t.at == at and t.traits), None)
    if thing is not None and len(units) == source.sentences[-1] + 1:
        same = [one for one in instances(source.text) if fits(thing, one) and {end} & set(one.concepts)]
        back = {n for n, part in enumerate(SENTENCE.split(source.text)) if BACK.search(part)}
        found = {source.sentences[one.at] for one in same}
        if found:
            found |= {
                source.sentences[one.at]
                for one in instances(source.text)
                if not one.traits and source.tokens[one.at - 1 : one.at + 1] == ("the", query.tokens[at])
            }
            return found | {n + 1 for n in found if n + 1 in back}
    return {n for n, unit in enumerate(units) if any(_meets_end(end, own) for own in unit[0])}


def _ties(word: str) -> bool:
    """Whether a word between two things says more of them than that both are there: a verb, or a place."""
    return (word in PREPOSITIONS and word not in LOOSE) or (mostly(word, "v") and word not in BE)


def _meets_end(end: str, own: str) -> bool:
    """Whether a thing of a query may be what the source names: the same, a part or whole, or another word for it."""
    building, parts = "object:building", lexicon().parts | lexicon().body.keys()
    return (
        related(end, own)
        or end in lexicon().implied.get(own, ())
        or own in lexicon().implied.get(end, ())
        or (end in parts and related(own, building))
        or (own in parts and related(end, building))
        or linked(_name(end), _name(own))
        or linked(_name(own), _name(end))
    )


def _rests(source: Reading, concept: str, token: str) -> Iterator[bool]:
    """For every mention of the thing, whether the same preposition and another thing follow in its clause."""
    named = sorted(source.of("object"), key=lambda m: m.at)
    for mention in (m for m in named if m.concept == concept):
        for at in range(mention.end, min(mention.end + 6, len(source.tokens))):
            if source.tokens[at] in {",", ".", ";", "and", "while", "but"}:
                break
            if set(source.tokens[at + 1 : at + 2]) & BACK_WORDS:
                break  # on it: whatever was named before
            follows = {t for t in source.tokens[at + 1 : at + 5] if t[0].isalpha()} - DETERMINERS
            if source.tokens[at] in FASTENED and follows and token in FASTENED:
                yield True


def _queries(case: Case) -> str:
    if not 1 <= len(case.queries) <= MAX_QUERIES:
        return f"{len(case.queries)} queries, 1 to {MAX_QUERIES} wanted"
    seen: list[tuple[frozenset[str], Reading]] = []
    texts: set[str] = set()
    for query in case.queries:
        plainly = " ".join(t for t in query.tokens if t[0].isalnum())
        content = _content(query)
        twice = any(content == other and _share_words(query, said) for other, said in seen)
        if plainly in texts or (len(content) > 1 and twice):
            return f"said twice: {query.text}"
        texts.add(plainly)
        seen.append((content, query))
    reworded = [query for query in case.queries if not _verbatim(case.source, query)]
    for query in reworded:
        why = _false_relation(query, case.source) or _moved(query, case.source) or _apart(query, case.source)
        why = why or next((f"not in the source: {w}" for w in unrested(case.source.text, query.text)), "")
        why = why or next((f"not so in the source: {w}" for w in reversals(case.source.text, query.text)), "")
        if why:
            return why
    return ""


def _said_from_above(case: Case, phrase: str) -> bool:
    """Whether a phrase is made of words that the source has too, none of which the platform cannot see there."""
    words = set(plain_words(phrase).split()) - english().function
    return len(words) > 1 and words <= case.source.stems and not unseen_words(case.platform, case.source.text)


def _is_view(text: str, found: re.Match[str]) -> bool:
    """Whether words for a place tell where one looks from: "seen from the street", but not "set back from it"."""
    if not FROM_PLACE.match(found.group()):
        return True
    before = SENTENCE.split(text[: found.start()])[-1]
    return not before.strip() or VIEWING.search(before[-60:]) is not None


def _register(case: Case) -> str:
    where = register(case.platform)
    found: list[str] = []
    shown = " ".join(m.group().lower() for m in where.seen.finditer(case.source.text)) if where.seen else ""
    for reading in case.texts:
        found += [
            word
            for word in unseen_words(case.platform, reading.text)
            if word.lower() not in shown and not _said_from_above(case, word)
        ]
        found += [m.group() for m in where.foreign_views.finditer(reading.text) if _is_view(reading.text, m)]
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
    coloured = not COLOURED.isdisjoint(source.tokens)
    tints = {token for token in source.tokens if not _uncoloured(source, token)} if coloured else set()
    stems_of = source.stems - tints
    concepts |= {concept for stem in stems_of for _, concept in lex.senses.get(stem, ())}
    if "object:building" in concepts and source.stems & {"tall", "high", "towering"}:
        concepts.add("object:tower")
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
