"""The coverage gate: a caption keeps the main object and enough of what the platform can see of the source."""

import re
from bisect import bisect_left, bisect_right
from itertools import pairwise

from refine.gates.case import Case, comma_list
from refine.gates.clauses import CLAUSE
from refine.gates.things import at_same_word, meant
from refine.registers import Register, register
from refine.registers.reading import (
    BE,
    DEFINITE,
    PREPOSITIONS,
    Mention,
    Reading,
    broader,
    is_plural,
    read,
    related,
    stems,
)

# Shares of the source's visible facts (objects, colours, materials) that a caption keeps: of the first sentence, which
# has the main object, and of all sentences.
MAIN_COVERAGE, COVERAGE = 0.3, 0.4
FEW_FACTS = 2
CLOSE = 6  # tokens to either side that tell a fact from its likes
OWN = frozenset({"its", "their", "whose"})
STANDPOINT = re.compile(r"\W*(?:I am|I'm|I stand|We are|We're|You are|Standing)\b", re.IGNORECASE)
FACTS = ("object", "colour", "material")
# What a source calls its main thing: "a dome is the most conspicuous object".
MAIN_OBJECT = re.compile(
    r" (\w+) (?:is|forms|makes) the (?:most \w+|main|dominant|principal|largest|biggest|central) "
    r"(?:object|structure|feature|thing|element|landmark) "
)


def _visible(register_: Register, clause: str) -> bool:
    bare = register_.seen.sub(" ", clause) if register_.seen else clause
    return not register_.unseen.search(bare)


def _kept(case: Case, facts: list[tuple[str, list[Mention]]]) -> set[int]:
    """Which of the source's facts (grouped by word) the caption states, in any wording; three roofs are three.

    Every word of the caption stands for one fact: the one that has the most neighbours in common with it, so that
    another thing's white roof does not stand for the main building's.
    """
    stated = [group for kind in FACTS for group in at_same_word(case.caption, kind)]
    own = [_beside_in(case.source, mentions[0]) for _, mentions in facts]
    said = [_beside_in(case.caption, mentions[0]) for _, mentions in stated]
    roots = [frozenset(stems(word)) for word, _ in stated]
    meanings = [_meanings(mentions) for _, mentions in stated]
    pairs = []
    for i, (word, mentions) in enumerate(facts):
        mine, (concepts, wider) = stems(word), _meanings(mentions)
        for j, (theirs, their_wider) in enumerate(meanings):
            same = not roots[j].isdisjoint(mine)
            if same or not (theirs.isdisjoint(wider) and concepts.isdisjoint(their_wider)):
                pairs.append((-len(own[i] & said[j]) - same, i, j))
    kept: set[int] = set()
    used: set[int] = set()
    for _, i, j in sorted(pairs):
        if i not in kept and j not in used:
            kept.add(i)
            used.add(j)
    for i, (word, mentions) in enumerate(facts):
        if i not in kept and mentions[0].kind == "object" and all(root.isdisjoint(stems(word)) for root in roots):
            last = case.source.tokens[mentions[0].end - 1]  # the estate of a housing estate
            kept |= {i} if any(meant(case.caption, noun) for noun in (word, last)) else set()
    return kept | {i for i in range(len(facts)) if i not in kept and any(_repeats(facts, own, i, j) for j in kept)}


def _meanings(mentions: list[Mention]) -> tuple[frozenset[str], frozenset[str]]:
    """The concepts of a word, and these with all broader ones: two words are related if one has a concept of the other.

    Concepts of two kinds never are.
    """
    concepts = frozenset(mention.concept for mention in mentions)
    return concepts, frozenset().union(*map(broader, concepts))


def _repeats(facts: list[tuple[str, list[Mention]]], beside: list[frozenset[str]], i: int, j: int) -> bool:
    """Whether a source says one thing in two sentences: the same word among mostly the same words."""
    mine, yours = facts[i][1][0], facts[j][1][0]
    if mine.sentence == yours.sentence or mine.concept != yours.concept:
        return False
    return 2 * len(beside[i] & beside[j]) >= min(len(beside[i]), len(beside[j])) > 0


def _beside_in(reading: Reading, mention: Mention) -> frozenset[str]:
    """The stems and concepts that stand close to a mention in its sentence."""
    low = max(bisect_left(reading.sentences, mention.sentence), mention.at - CLOSE)
    high = min(bisect_right(reading.sentences, mention.sentence), mention.end + CLOSE)
    return frozenset().union(*reading.landmarks[low : mention.at], *reading.landmarks[mention.end : high])


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
        for word, mentions in at_same_word(case.source, kind)
        if mentions[0].concept not in case.source.denied and not (kind != "object" and mentions[0].heads & hidden)
    ]
    groups.sort(key=lambda group: group[1][0].at)
    return [(w, m) for w, m in groups if m[0].concept not in hidden] or groups


def covered(case: Case) -> str:
    facts = _visible_facts(case)
    if not facts:
        return ""
    kept = _kept(case, facts)
    opening = _opening(case.source, facts)
    first = [i for i, (_, mentions) in enumerate(facts) if mentions[0].sentence == opening]
    if len(first) <= FEW_FACTS:  # too few to tell a thing from its likes
        kept.update(i for i in first if _is_named(case.caption, facts[i][1]))
    main = [i for i in first if any(_is_built(concept) for m in facts[i][1] for concept in (m.concept, *m.heads))]
    named = any(facts[i][1][0].end not in case.source.parsed.nouns for i in main)  # a school gate is no school
    lost = named and not any(i in kept or _comes_again(case.source, facts, kept, i) for i in main)
    lost = lost or _subject_is_lost(case.source, facts, first, kept)
    if lost and (_has_another(case.caption) or all(is_plural(facts[i][0]) for i in main)):
        lost = not any(_is_named(case.caption, facts[i][1]) for i in main)  # "a building is behind the central one"
    if sum(i in kept for i in first) < MAIN_COVERAGE * len(first) or lost:
        return f"the main object is missing: {comma_list(facts[i][0] for i in first)}"
    unlisted = _unlisted_main(case, opening)
    if unlisted:
        return f"the main object is missing: {unlisted}"
    called_main = MAIN_OBJECT.findall(case.source.words)
    for i, (word, mentions) in enumerate(facts):
        if word in called_main and i not in kept and not _is_named(case.caption, mentions):
            return f"the main object is missing: {word}"
    whole = len(kept) / len(facts)
    return f"only {whole:.0%} of the source's facts are kept" if whole < COVERAGE else ""


def _unlisted_main(case: Case, opening: int) -> str:
    """The first noun of the opening sentence, where the lexicon has none for it and the caption no word; else ""."""
    source, caption = case.source, case.caption
    outside = {word for word, _ in source.things}.union(source.strangers)
    start = bisect_left(source.sentences, opening)
    first = next(
        (n for n in range(start, len(source.tokens)) if n in source.parsed.noun_at or source.tokens[n] in outside),
        start,
    )
    word = source.tokens[first] if first < len(source.tokens) else ""
    if word not in outside or source.tokens[first - 1 : first] == ("of",) or meant(caption, word):
        return ""
    reworded = any(not meant(source, other) for other in (*caption.strangers, *(one for one, _ in caption.things)))
    reworded = reworded or any(not any(related(one, own) for own in source.objects) for one in caption.objects)
    return "" if reworded else word


def _subject_is_lost(source: Reading, facts: list[tuple[str, list[Mention]]], first: list[int], kept: set[int]) -> bool:
    """Whether the building that the opening is about, all that is said of it, and half of the sentence are lost."""
    objects = (i for i in first if facts[i][1][0].kind == "object" and source.parsed.leads(facts[i][1][0].at))
    subject = next(objects, None)
    if subject is None or 2 * sum(i in kept for i in first) >= len(first):
        return False
    if subject in kept or not _is_built(facts[subject][1][0].concept) or _comes_again(source, facts, kept, subject):
        return False
    concepts = {m.concept for m in facts[subject][1]}
    said = [i for i in first if any(concepts & m.heads for m in facts[i][1])]
    return not any(i in kept for i in said)


def _has_another(caption: Reading) -> bool:
    """Whether "one" stands for a thing that was named: no "one side"."""
    pairs = pairwise((*caption.tokens, "."))
    return any(word == "one" and (not after.isalpha() or after in PREPOSITIONS | BE) for word, after in pairs)


def _is_named(caption: Reading, mentions: list[Mention]) -> bool:
    """Whether the caption has a word for the fact, of whichever thing."""
    return any(related(m.concept, said.concept) for m in mentions for said in caption.of(m.kind))


def _comes_again(source: Reading, facts: list[tuple[str, list[Mention]]], kept: set[int], i: int) -> bool:
    """Whether a kept fact of another sentence is of the same thing: "A station … The station has …", "Its roof …"."""
    mine = stems(facts[i][0])
    for word, mentions in (facts[j] for j in kept):
        before = source.tokens[max(0, mentions[0].at - 2) : mentions[0].at]
        if (word in mine and DEFINITE & set(before[-1:])) or (_is_built(mentions[0].concept) and OWN & set(before)):
            return True
    return False


def _is_built(concept: str) -> bool:
    return concept == "object:roof" or related(concept, "object:building")


def _opening(source: Reading, facts: list[tuple[str, list[Mention]]]) -> int:
    """The sentence with the main object: the first, or behind "I am at a crossing" the first with a building."""
    opening = facts[0][1][0].sentence
    if not STANDPOINT.match(source.text):
        return opening
    built = (m.sentence for _, mentions in facts for m in mentions if related(m.concept, "object:building"))
    return next(built, opening)
