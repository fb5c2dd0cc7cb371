"""The orientation gate: no left, right, compass point or place in the image that the source does not have."""

import re

from refine.gates.case import Case, comma_list
from refine.gates.clauses import SENTENCE
from refine.gates.numbers import STOREYS
from refine.gates.things import SUMMITS
from refine.orientation import contains_orientation
from refine.places import misplaced
from refine.registers import lexicon
from refine.registers.reading import DETERMINERS, PREPOSITIONS, plain_words, read, stems, words_of

EXTENT = words_of("whole entire full complete")
# Corners and margins that no thing follows are those of the picture.
IN_A_CORNER = re.compile(
    r"\b(?<!its )(?<!their )(?<!whose )(top|bottom|upper|lower|uppermost|lowest) "
    r"(?:corner|margin|border|quadrant|edge)s?\b(?! of (?!the (?:image|picture|view|photo|frame|scene)))"
)
OF_THE_FRAME = re.compile(
    r"(?:\w+ ){0,3}?\w+ of (?:the|this) (?:whole |entire )?(?:image|picture|photo\w*|frame|view|scene|tile|shot)\b",
    re.IGNORECASE,
)
HEIGHTS = words_of("above below over under beneath upper lower top base foot roof crown overhead atop")
ACROSS = words_of("across beyond opposite past behind other over")
WORDS = re.compile(r"[a-z]+")
# Words that name a place or direction by themselves; others, like "behind", do so in some sentences only.
PLACE = re.compile(
    r"left|right|leftmost|rightmost|upper|lower|top|bottom|uppermost|topmost|lefthand|righthand|"
    r"(?:north|south)?(?:east|west)?(?:ern|ward|wards|erly|ernmost)?|(?:anti|counter)?clockwise|above|below"
)
CLOSELY = words_of("just right immediately directly shortly straight close closely")
# Ways to say the same depth; they place a thing in the image in some sentences only.
DEPTH = (
    words_of("front before foreground precede precedes preceded"),
    words_of("behind background back beyond past further farther distance distant rear screen screens screened"),
    words_of("lowest bottommost lowermost"),
    words_of("climb climbs climbing rise rises rising ascend ascends ascending uphill upward upwards up"),
    words_of("diagonal diagonally slant slants slanting slantwise aslant oblique obliquely slope slopes sloping"),
    words_of("descend descends descending drop drops dropping fall falls falling down downhill slope slopes sloping"),
)
DEPTHS = frozenset().union(*DEPTH)

SAME_HEIGHT = words_of("above over overhead atop"), words_of("below under underneath beneath foot feet base")
# Depths that are facts in a street photograph.
DEEP = words_of("front behind beyond back up down")
TOPPED = words_of("top surmount cap crown")
HIGHEST = words_of("topmost uppermost highest")
SIDEWAYS = words_of("left right")
VERTICAL = words_of("above below under underneath beneath over overhead")
# The top of a thing, rather than a place near it or on its edge.
ITS_TOP = re.compile(
    r"(?<!at )(?<!near )(?<!from )(?<!towards )(?<!toward )(?<!along )\b(?:its|their|whose) tops?\b"
    r"(?! (?:edge|corner|margin|border|half|part|side|end|left|right|row|third)s?\b)",
    re.IGNORECASE,
)


def orientation(case: Case) -> str:
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
            depths = words & DEPTHS
            grounded = all(any(word in same and same & source_words for same in DEPTH) for word in depths) and all(
                case.source.stems.intersection(stems(w))
                for w in words - DETERMINERS - PREPOSITIONS - EXTENT - CLOSELY - DEPTHS
            )
            allowed = places <= before and (places or grounded)
            if _told_by_it(case, sentence, found) or _as_high(case, words):
                continue
            if found.lower() not in source and not allowed and not _of_object(case, sentence, found):
                added.append(found)
    if added:
        return f"orientation added: {comma_list(added)}"
    elsewhere = dict.fromkeys(said for reading in case.texts for said in misplaced(case.source.text, reading.text))
    return f"put elsewhere: {'; '.join(elsewhere)}" if elsewhere else ""


def _told_by_it(case: Case, sentence: str, found: str) -> bool:
    """Whether a place tells which thing is meant, as in the source: the lower station."""
    behind = sentence[sentence.find(found) + len(found) :].split()[:1]
    place = found.lower().split()[-1]
    pair = f" {place} {''.join(behind).lower().rstrip('.,;:')} "
    return PLACE.fullmatch(place) is not None and pair in case.source.words


def _as_high(case: Case, words: set[str]) -> bool:
    """Whether the source has another word for a height: over for above."""
    return case.platform != "satellite" and all(
        any(word in same and same & set(case.source.tokens) for same in SAME_HEIGHT) for word in words
    )


def _of_object(case: Case, sentence: str, found: str) -> bool:
    """Whether a place is one on a thing: 'near its top', 'the top of the front' of a view that shows heights.

    "The far side of the street" is no more than "across the street".
    """
    if any(m.group(1) in WORDS.findall(found.lower()) for m in IN_A_CORNER.finditer(sentence.lower())):
        return False
    if OF_THE_FRAME.match(sentence[sentence.find(found) :]):
        return False
    if re.search(r"\bfar (?:side|end)\b", found):
        return bool(ACROSS & set(case.source.tokens))
    said = set(WORDS.findall(found.lower()))
    if case.platform == "ground" and said & DEEP and not any(map(PLACE.fullmatch, said)):
        return True
    if re.search(r"\bin front\b", found) and case.platform != "satellite":
        return bool(re.search(r"\b(?:farther|further) back\b|\bbehind\b", case.source.text, re.IGNORECASE))
    if ITS_TOP.search(sentence) and re.search(r"\btops?\b", found):
        return True  # the roof
    if found == "up" and re.search(r"\bup to\b", sentence):
        return True
    if re.search(r"\btop\b", found) and case.source.stems & SUMMITS:
        return True
    if found in {"above", "below"} and case.platform != "satellite" and "overlook" in case.source.stems:
        return True
    if found in {"top", "the top"} and case.source.stems & TOPPED:
        return True
    if re.search(r"\btop\b", found) and HIGHEST & set(case.source.tokens) and not said & SIDEWAYS:
        return True
    if re.search(r"\bup\b", found) and case.platform != "satellite" and case.source.stems & {"up", "high", "upper"}:
        return True
    if case.platform == "ground" and said & VERTICAL:
        return bool(case.source.stems & (HEIGHTS | STOREYS))
    if case.platform == "satellite" or not re.search(
        r"\b(?:top|bottom|base|foot|upper|uppermost|topmost|lower|lowest|above)\b", found
    ):
        return False
    if said & SIDEWAYS:
        return False  # the lower left is no part of a thing
    if re.search(r"\b(?:its|their|whose)\b", found) or STOREYS & set(case.source.tokens):
        return True
    behind = read(re.split(r"[,;:]", sentence[sentence.find(found) + len(found) :])[0])
    parts = lexicon().parts | {"object:building", "object:tower", "object:stair"}
    return any(m.concept in parts and m.at <= 3 for m in behind.of("object"))
