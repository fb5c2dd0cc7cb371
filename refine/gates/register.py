"""The register gate: nothing that the platform cannot see, and no other platform's point of view."""

import re

from refine.gates.case import Case, comma_list
from refine.gates.clauses import SENTENCE
from refine.gates.things import in_lexicon
from refine.registers import english, register
from refine.registers.reading import WORD, Reading, is_generic, plain_words
from refine.thesaurus import bases
from schemas.records import Platform

# A standpoint is one where something is seen from it.
FROM_PLACE = re.compile(
    r"\bfrom (?:the|a|an) (?:\w+ )?(?:street|ground|pavement|sidewalk|kerb|curb|car|window|balcony|crossing)\b",
    re.IGNORECASE,
)
# What flies over a scene, and what may be said to have seen a platform's image.
FROM_CRAFT = re.compile(
    r"\bfrom (?:a|an|the) (?:[\w-]+ ){0,2}?"
    r"(drone|quadcopter|aircraft|(?:aero|air)?plane|helicopter|balloon|satellite)\b",
    re.IGNORECASE,
)
CRAFT: dict[Platform, frozenset[str]] = {
    "satellite": frozenset({"satellite"}),
    "drone": frozenset({"drone", "quadcopter"}),
    "ground": frozenset(),
}
# Whoever stands or moves on the ground, and sees the scene from there.
ONLOOKER = re.compile(
    r"\b(?:for|to|by|as) (?:somebody|someone|anybody|anyone|whoever"
    r"|a (?:person|walker|pedestrian|passer-?by|visitor|driver|cyclist|hiker|stroller))"
    r"(?: who)?(?: is| was)? (?:\w+ing|walks?|stands?|strolls?|drives?|rides?|looks?|passes)\b"
    r"|\b(?:standing|walking|strolling|sitting)\b[^.;]{0,40},\s+"
    r"(?:(?:the|a|any) (?:viewer|observer|onlooker|spectator|visitor)|one|you|we)\b"
    r"|\bthe (?:viewer|observer|onlooker|spectator) (?:faces|stands|walks|sits|waits)\b"
    r"|\b(?:pedestrian|passer-?by|walker|driver|cyclist|visitor|onlooker)s? (?:would|might|may|could|can) "
    r"(?:see|look|notice)\b"
    r"|\b(?:over|above) (?:the (?:viewer|observer|onlooker)'s|one's|your|our) head\b"
    r"|\blooked up at\b|\bcran(?:es?|ing) (?:[\w']+ ){0,2}necks?\b",
    re.IGNORECASE,
)
# Where somebody looks from who does not look straight down.
VANTAGE = re.compile(
    r"\b(?:seen|viewed|observed|watched|pictured|photographed|shot|captured) (?:\w+ ){0,2}?from (?:the|a|an|one|its) "
    r"(?!air\b|sky\b|zenith\b|top\b|satellite\b|vertical\b|great\b|height\b)[\w-]+",
    re.IGNORECASE,
)
TREE = re.compile(r"\s+trees?\b", re.IGNORECASE)
VIEWING = re.compile(
    r"\b(?:view\w*|seen|sees?|looks?|looking|shot|shown|photo\w*|picture\w*|captured|taken|images?|watched|visible"
    r"|observed|glimpsed|scene|perspective|angle)\b",
    re.IGNORECASE,
)
# What something is only likened to: "a staircase-like outline", "like a turret".
LIKENED = re.compile(
    r"\b\w+(?:[\s-]\w+)?-(?:like|shaped|style)\b"
    r"|\b(?:like|resembling|reminiscent of|in the (?:manner|form|shape|style) of) (?:an? |the )?(?:\w+ ){0,2}?\w+",
    re.IGNORECASE,
)


def unseen_words(platform: Platform, text: str) -> list[str]:
    """The words of the text that speak of what the platform cannot see."""
    where = register(platform)
    bare = where.seen.sub(" ", text) if where.seen else text
    return [match.group() for match in where.unseen.finditer(bare)]


def _is_shown(case: Case, word: str) -> bool:
    """Whether the source has the word where the platform can see it, and nowhere else."""
    hidden = (unseen.lower() for unseen in unseen_words(case.platform, _nouns_only(case.source)))
    return word.lower() in case.source.tokens and word.lower() not in hidden


def _said_from_above(case: Case, phrase: str) -> bool:
    """Whether a phrase is made of words that the source has too, none of which the platform cannot see there."""
    words = set(plain_words(phrase).split()) - english().function
    return len(words) > 1 and words <= case.source.stems and not unseen_words(case.platform, case.source.text)


def _nouns_only(reading: Reading) -> str:
    """The text without likenesses and the nouns' namesakes: "conifers wall off one side", "the entrance court"."""
    spots = [m.span() for m in WORD.finditer(reading.text)]
    verbs = [
        spots[at]
        for at, token in enumerate(reading.tokens)
        if in_lexicon(token) and (at not in reading.parsed.noun_at or _tells_which(reading, at))
    ]
    text = reading.text
    for low, high in reversed(verbs):
        text = text[:low] + " " * (high - low) + text[high:]
    return LIKENED.sub(" ", text)


def _tells_which(reading: Reading, at: int) -> bool:
    """Whether a noun stands before another thing's, which is the one that is there: the court before an entrance."""
    w = reading.parsed
    end = w.ends.get(at, at + 1)
    thing = is_generic(w.token(end)) or (end in w.nouns and w.is_object(end))
    last = w.token(end - 1)
    return at in w.nouns and thing and last in bases(last, "n")[:1]


def _is_view(text: str, found: re.Match[str]) -> bool:
    """Whether words for a place tell where one looks from: "seen from the street", but not "set back from it"."""
    if TREE.match(text, found.end()):
        return False  # from a plane tree
    if not (FROM_PLACE.match(found.group()) or FROM_CRAFT.match(found.group())):
        return True
    before = SENTENCE.split(text[: found.start()])[-1]
    return not before.strip() or VIEWING.search(before[-60:]) is not None


def _is_in(source: Reading, phrase: str) -> bool:
    """Whether the source has all words of a phrase: "high above" of a clock that is high on the wall above a base."""
    words = plain_words(phrase).split()
    return len(words) > 1 and set(words) <= set(source.tokens)


def in_register(case: Case) -> str:
    where = register(case.platform)
    found: list[str] = []
    for reading in case.texts:
        if unseen_words(case.platform, reading.text):  # most texts need no closer look
            found += [
                word
                for word in unseen_words(case.platform, _nouns_only(reading))
                if not _is_shown(case, word) and not _said_from_above(case, word)
            ]
        views = (m for m in reading.find(where.foreign_views) if _is_view(reading.text, m))
        found += [m.group() for m in views if not _is_in(case.source, m.group())]
        if case.platform != "ground":
            found += [m.group() for m in ONLOOKER.finditer(reading.text) if not ONLOOKER.search(case.source.text)]
            found += [m.group() for m in FROM_PLACE.finditer(reading.text) if _is_view(reading.text, m)]
        if case.platform == "satellite":
            found += [m.group() for m in VANTAGE.finditer(reading.text) if not _is_in(case.source, m.group())]
        found += [
            m.group()
            for m in FROM_CRAFT.finditer(reading.text)
            if m.group(1).lower() not in CRAFT[case.platform] and _is_view(reading.text, m)
        ]
    return f"not seen from {case.platform}: {comma_list(found)}" if found else ""
