"""The queries gate: one to four statements, none said twice, none that ties things together as no source does."""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from refine.gates.case import Case
from refine.gates.clauses import BACK, CLAUSE, HERE, PRONOUN, SENTENCE, filled, units_of
from refine.gates.things import name, on_axis, same_thing, things_of
from refine.registers import lexicon
from refine.registers.instances import fits, holds, instances, relations, reversals, unrested
from refine.registers.reading import (
    BE,
    DETERMINERS,
    FRACTIONS,
    PREPOSITIONS,
    Reading,
    number,
    plain,
    plain_words,
    read,
    related,
    stems,
    words_of,
)
from refine.thesaurus import is_person, linked, mostly, uses

MAX_QUERIES = 4
BACK_WORDS = words_of("it them this these those which")
PARTS = re.compile(r"[.;:!?]+(?:\s|$)|,?\s+(?:and|but|while|whereas|where)\s+|,\s+")
# Prepositions that say where a thing rests; a thing has one such place.
RESTING = frozenset({"on", "onto", "against", "upon"})
FASTENED = RESTING | {"to"}
# What begins to tell of another one, and where a sentence goes on with a clause of its own.
_NEXT_ONE = (
    r"(?:and |while |but )?(?:(?:on|in|at) )?"
    r"(?:another|(?:a|the) (?:second|third|fourth)|the (?:other|others|next|rest))\b"
)
NEXT_ONE = re.compile(_NEXT_ONE, re.IGNORECASE)
PLACE_FIRST = re.compile(rf"\W*(?:{'|'.join(sorted(PREPOSITIONS))})\b", re.IGNORECASE)
BRANCH = re.compile(
    rf"[,;] (?={_NEXT_ONE})"
    r"|, (?:and|while|but) (?=(?:(?:on|in|at) )?(?:an?|the|one|two|three|four|five|six|some|several|many|few)\b)",
    re.IGNORECASE,
)
BELONGING = words_of("belongs belong")
# Where somebody is found; that is told of one such place.
FOUND = frozenset({"beside", "by", "at", "near"})
# Ground that goes by the name of what stands on it: school grounds.
GROUNDS = words_of("grounds site plot premises")
# After these, "through" tells through what a thing is seen.
SEEN = words_of("visible seen shown glimpsed out")
# Words that put two things in one scene and say no more, and words that only list things.
LOOSE = words_of("near beside by beyond behind past with of")
LISTED = words_of(", and or while near beside next close opposite nearby adjacent")
# Relation words that claim something definite when a query uses them, and the class of relation they claim.
CLAIMS = {
    "around": "around", "surround": "around", "encircle": "around", "circle": "around", "enclose": "around",
    "ring": "around", "under": "under", "underneath": "under", "beneath": "under", "above": "vertical",
    "atop": "vertical", "over": "over", "crown": "vertical", "between": "between", "separate": "between",
    "cross": "crossing", "through": "piercing", "bisect": "crossing", "connect": "joining", "link": "joining",
    "inside": "holding", "within": "holding",
}  # fmt: skip
MOVERS = ("object:vehicle", "object:person", "object:bicycle", "object:boat", "object:train", "object:animal")
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
    "over": frozenset({"vertical", "upon", "crossing"}),
    "under": frozenset({"vertical"}),
    "crossing": frozenset({"crossing"}),
    "piercing": frozenset({"crossing", "between"}),
    "joining": frozenset({"joining", "between", "crossing"}),
}


def _content(reading: Reading) -> frozenset[str]:
    facts = {m.concept for m in reading.mentions if m.kind != "quality"}.union(concept for _, concept in reading.named)
    words = {stems(t)[-1] for t in reading.tokens if t[0].isalnum() and not plain(t)}
    return frozenset(facts or words)


def _share_words(one: Reading, other: Reading, share: float, least: int = 0) -> bool:
    """Whether two short texts have that share of their words in common, and so many at least."""
    mine, yours = ([_meaning(text, word) for word in text.content] for text in (one, other))
    met = sum(any(not own.isdisjoint(their) for their in yours) for own in mine)
    return met >= max(least, share * (len(mine) + len(yours) - met))


def _meaning(text: Reading, word: str) -> frozenset[str]:
    """The base forms of a word of a text, and what it names there."""
    at = next((n for n, token in enumerate(text.tokens) if token == word), -1)
    return frozenset(stems(word)).union(text.concepts_at.get(at, ()))


def _same_words(one: Reading, other: Reading) -> bool:
    """Whether two statements are made of the same words with a meaning, three at least, in whatever order."""
    mine, yours = ({m.concept for m in text.mentions if m.kind not in ("object", "quality")} for text in (one, other))
    if mine == yours and not _told_apart(one, other) and _share_words(one, other, 0.8, 4):
        return True
    if not 2 < len(one.content) == len(other.content):
        return False
    roots = [set(stems(word)) for word in other.content]
    return all(any(root.intersection(stems(word)) for root in roots) for word in one.content)


def _told_apart(one: Reading, other: Reading) -> bool:
    """Whether one statement has a quality that excludes one of the other's: tall and low."""
    mine, yours = ({tuple(m.concept.split(":")) for m in text.of("quality")} for text in (one, other))
    return any(a == b and x != y for a, x in mine for b, y in yours)


def _verbatim(source: Reading, query: Reading) -> bool:
    """Whether the query's words stand in the source one after the other."""
    return query.words in source.words


def _ends(query: Reading) -> list[tuple[int, str]]:
    """What the relations of a query may have at their ends: no school for the school grounds."""
    w = query.parsed
    return [(at, concept) for at, concept in query.named if w.token(w.ends[at]) not in GROUNDS]


def _false_relation(query: Reading, source: Reading) -> str:
    breaks = [i for i, t in enumerate(query.tokens) if t in {",", ";", ":", "."}]
    named = _ends(query)
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
        after_it = query.tokens[at + 1 : at + 2]
        if (
            uses(token, "n")
            and at
            and on_axis(query.tokens[at - 1])
            and not query.tokens[at - 1].endswith(("ly", "ed"))
        ):
            continue  # trees with dark crowns
        if mostly(token, "n") and at - 1 in query.parsed.noun_at and _acts(query, at + 1, high):
            continue  # tree crowns hide
        if token == "around" and after_it and (number(after_it[0]) or after_it[0] in FRACTIONS):
            continue  # around half of the roof
        if token == "through" and at and query.tokens[at - 1] in SEEN:
            continue  # visible through the glass
        if token.endswith("ing") and at + 1 in query.parsed.nouns and query.parsed.modifier(at - 1):
            continue  # the glazed connecting bar
        if token == "over" and at and query.tokens[at - 1].endswith(("ed", "spread", "strewn")):
            continue  # scattered over
        pair = ((before[-1],), (after[0],))
        if claim in ("around", "vertical", "over", "under", "crossing", "piercing") and (
            holds(source.text, *pair) or holds(source.text, *pair[::-1])
        ):
            continue
        moves = claim == "crossing" and (
            any(related(before[-1], mover) for mover in MOVERS) or is_person(name(before[-1]))
        )
        for stated, classes in units_of(source.text, CLAUSE if claim in ("vertical", "under", "around") else SENTENCE):
            ends = all(
                any(related(end, s) or end in lexicon().implied.get(s, ()) for end in side for s in stated)
                for side in (before, after)
            )
            if claim == "between":
                ends = all(any(same_thing(end, s) for s in stated) for end in (*before[-1:], *after))
            # "The area is ringed by parking" names one end only: the other may be what the area holds.
            ends |= 0 < len(stated) == sum(any(related(end, s) for end in (*before, *after)) for s in stated)
            if ends and (moves or classes & ALLOWS.get(claim, frozenset({claim}))):
                break
        else:
            return f"'{token}' between {name(before[-1])} and {name(after[0])} is not in the source"
    return ""


def _acts(query: Reading, start: int, end: int) -> bool:
    """Whether one of the tokens is a finite verb, as far as word lists tell."""
    return any(mostly(word, "v") and not word.endswith(("ed", "ing")) for word in query.tokens[start:end])


def _is_somebody(concept: str) -> bool:
    """Whether a concept is people, in the lexicon or outside it; the lexicon's cranes bear no family name."""
    return related(concept, "object:person") or (concept.startswith("thing:") and is_person(name(concept)))


def _moved(query: Reading, source: Reading) -> str:
    """Why a query that puts one of the source's things on or against another is false: the source puts it elsewhere.

    Somebody may not be put beside another thing either.

    Both things are named in the source, never in one clause, and the source says on what the first one is.
    """
    if query.denied:
        return ""
    named = sorted(query.of("object"), key=lambda m: m.at)
    first = [concept for _, concept in query.named[:1]]
    for at, token in enumerate(query.tokens):
        found = token in FOUND and any(map(_is_somebody, first))
        if token not in RESTING and not found and not (token == "to" and query.tokens[at - 1].endswith("ed")):
            continue
        before = [concept for start, concept in query.named if start < at][-1:]
        if found and before != first:
            continue
        subject = query.said_of(at - 1) - {"generic"} if token == "to" else frozenset(before)
        if subject and subject.isdisjoint(before):
            continue  # "cubes with white roofs are attached to"
        ends = [m for m in named if at < m.at <= at + 4 and m.concept in source.objects]
        after = [m.concept for m in ends]
        if not before or not after or before[0] not in things_of(source):
            continue
        word = next(query.tokens[query.parsed.ends[n] - 1] for n, _ in reversed(query.named) if n < at)
        spots = [part for part in PARTS.split(source.text) if f" {word} " in plain_words(part)]
        units = [unit for part in spots for unit in units_of(part, PARTS)] or [
            unit for unit in units_of(source.text, PARTS) if before[0] in unit[0]
        ]
        if any(related(end, own) or _one_body(end, own) for end in after for unit in units for own in unit[0]):
            continue
        if query.tokens[ends[0].end - 1].endswith("'s") and {"its", "their"} & set(source.tokens):
            continue  # on its shoulders: on the statue's
        if any(_rests(source, before[0], token)):
            return f"'{token}' between {name(before[0])} and {name(after[0])} is not in the source"
    return ""


def _of_another(query: Reading, source: Reading) -> str:
    """Why a query that gives a thing to an owner is false: the source gives every such thing to somebody else."""
    for at, token in enumerate(query.tokens):
        noun = next((n for n in range(at + 1, at + 4) if n in query.parsed.nouns), None)
        if not token.endswith("'s") or noun is None:
            continue
        roots = set(stems(query.tokens[query.parsed.ends[noun] - 1]))
        own = [n for n, word in enumerate(source.tokens) if roots & set(stems(word))]
        owners = [next((t for t in source.tokens[max(0, n - 3) : n] if t.endswith("'s")), "") for n in own]
        if own and all(owners) and not any(set(stems(token)) & set(stems(owner)) for owner in owners):
            return f"{token} {query.tokens[noun]} is not in the source"
    for (start, part), (at, whole) in pairwise(query.named):
        between = query.tokens[query.parsed.ends[start] : at]
        end = query.parsed.ends[at]  # a depot, of "a fuel depot"
        closed = end not in query.parsed.nouns and not query.parsed.names(end)
        if closed and not BELONGING.isdisjoint(between) and _has_other_owners(source, part, whole):
            return f"{name(part)} of the {name(whole)} is not in the source"
    return ""


def _has_other_owners(source: Reading, part: str, whole: str) -> bool:
    """Whether the source says of every such part what has it, and of none that the whole has."""
    owners = [r.one for r in relations(source.text) if r.kind == "with" and r.one and part in r.other]
    told = [at for at, concept in source.named if concept == part]
    return len(owners) == len(told) > 0 and not any(related(whole, one) for owner in owners for one in owner)


def _apart(query: Reading, source: Reading) -> str:
    """Why a query that ties two of the source's things together is false: no sentence of the source has both."""
    named = sorted({at: concept for at, concept in _ends(query) if concept not in OVER_ALL}.items())
    named = [(at, concept) for at, concept in named if not query.tokens[at].endswith("'s")]  # the bridge's arch
    for (start, one), (at, other) in pairwise(named):
        between = query.tokens[query.parsed.ends[start] : at]
        if LISTED & set(between) or not any(_ties(word) for word in between) or related(one, other):
            continue
        homes = [_homes(query, source, place, end) for place, end in ((start, one), (at, other))]
        if all(homes) and (not homes[0] & homes[1] or _branched(source, homes[0] & homes[1], one, other)):
            return f"'{' '.join(between)}' between {name(one)} and {name(other)} is not in the source"
    return ""


def _branched(source: Reading, sentences: set[int], one: str, other: str) -> bool:
    """Whether every sentence with both ends tells them of different things: one has a lawn, another holds a tree."""
    parts = SENTENCE.split(source.text)
    if len(parts) != source.sentences[-1] + 1:
        return False
    proven = False
    for sentence in sentences:
        branches = _with_verbs(BRANCH.split(parts[sentence]))
        units = [frozenset(concept for _, concept in read(part).named) for part in branches]
        units[1:] = (unit | _counted_off(read(branches[0])) for unit in units[1:])
        linked_back = any(PRONOUN.search(part) or BACK.search(part) for part in branches[1:])
        linked_back = linked_back or HERE.search(f"{branches[0]},") is not None
        mine, yours = (
            {n for n, unit in enumerate(units) if any(_meets_end(end, own) for own in unit)} for end in (one, other)
        )
        if not mine and not yours:
            continue  # it only points back
        if linked_back or not mine or not yours or mine & yours:
            return False
        proven = True
    return proven


def _with_verbs(parts: list[str]) -> list[str]:
    """The parts of a sentence; one without a verb belongs to the part before: "a hall, a tower, and a pond".

    A place that opens the sentence ("across a street, another …") belongs to the part behind it.
    """
    found = parts[:1]
    for part in parts[1:]:
        opens = len(found) == 1 and PLACE_FIRST.match(found[0]) and not _has_verb(found[0])
        if not opens and (_has_verb(part) or NEXT_ONE.match(part)):
            found.append(part)
        else:
            found[-1] = f"{found[-1]}, {part}"
    return found


def _has_verb(part: str) -> bool:
    reading = read(part)
    bare = (at for at, word in enumerate(reading.tokens) if at not in reading.parsed.noun_at and word not in LISTED)
    return any(reading.tokens[at] in BE or mostly(reading.tokens[at], "v") for at in bare)


def _counted_off(reading: Reading) -> frozenset[str]:
    """What "the other" may be another one of: the slab that a sentence opens with, or stands behind "one" in it."""
    at, concept = next(iter(reading.named), (0, ""))
    opens = all(word in DETERMINERS or reading.parsed.modifier(n) for n, word in enumerate(reading.tokens[:at]))
    ones = {concept for start, concept in reading.named if start and reading.tokens[start - 1] == "one"}
    return frozenset({concept} if concept and opens else ()) | ones


def _homes(query: Reading, source: Reading, at: int, end: str) -> set[int]:
    """The sentences of the source that have a query's thing: those of the very one, where its attributes tell which."""
    units = units_of(source.text, SENTENCE)
    thing = next((t for t in instances(query.text) if t.at == at and t.traits), None)
    if end in {stuff for _, stuff in filled(source.text)}:
        thing = None  # the water of a moat is wherever the moat is
    if thing is not None and len(units) == source.sentences[-1] + 1:
        same = [one for one in instances(source.text) if fits(thing, one) and {end} & set(one.concepts)]
        back = {n for n, part in enumerate(SENTENCE.split(source.text)) if BACK.search(part)}
        found = {source.sentences[one.at] for one in same}
        if found:
            found |= {
                source.sentences[one.at]
                for one in instances(source.text)
                if not one.traits
                and source.tokens[one.at - 1] == "the"
                and (source.tokens[one.at] == query.tokens[at] or any(_one_body(end, own) for own in one.concepts))
            }
            return found | {n + 1 for n in found if n + 1 in back}
    return {n for n, unit in enumerate(units) if any(_meets_end(end, own) for own in unit[0])}


def _ties(word: str) -> bool:
    """Whether a word between two things says more of them than that both are there: a verb, or a place."""
    verb = mostly(word, "v") or (word in lexicon().relations and uses(word, "v") > 0)
    return word not in LOOSE and (word in PREPOSITIONS or (verb and word not in BE))


@lru_cache(maxsize=50_000)
def _meets_end(end: str, own: str) -> bool:
    """Whether a thing of a query may be what the source names: the same, a part or whole, or another word for it."""
    building, parts = "object:building", lexicon().parts | lexicon().body.keys()
    return (
        related(end, own)
        or _one_body(end, own)
        or end in lexicon().implied.get(own, ())
        or own in lexicon().implied.get(end, ())
        or (end in parts and related(own, building))
        or (own in parts and related(end, building))
        or linked(name(end), name(own))
        or linked(name(own), name(end))
    )


def _one_body(one: str, other: str) -> bool:
    """Whether two concepts are words for the outside of a building: a wall and a facade."""
    body = lexicon().body
    return one in body and other in body and body[one] == body[other]


def _rests(source: Reading, concept: str, token: str) -> Iterator[bool]:
    """For every mention of the thing, whether the same preposition and another thing follow in its clause."""
    places = FASTENED if token in FASTENED else FASTENED | FOUND
    for end in (source.parsed.ends[start] for start, own in source.named if own == concept):
        for at in range(end, min(end + 6, len(source.tokens))):
            if source.tokens[at] in {",", ".", ";", "and", "while", "but"}:
                break
            if set(source.tokens[at + 1 : at + 4]) & BACK_WORDS:
                break  # on it: whatever was named before
            follows = {t for t in source.tokens[at + 1 : at + 5] if t[0].isalpha()} - DETERMINERS
            if source.tokens[at] in places and follows:
                yield True


def queries(case: Case) -> str:
    if not 1 <= len(case.queries) <= MAX_QUERIES:
        return f"{len(case.queries)} queries, 1 to {MAX_QUERIES} wanted"
    seen: list[tuple[frozenset[str], Reading]] = []
    texts: set[str] = set()
    for query in case.queries:
        plainly = " ".join(sorted(t for t in query.tokens if t[0].isalnum()))  # in whatever order
        content = _content(query)
        likes = [said for other, said in seen if content == other and not _told_apart(query, said)]
        twice = any(_share_words(query, said, 0.4) for said in likes)
        twice = (len(content) > 1 and twice) or any(_same_words(query, said) for _, said in seen)
        if plainly in texts or twice:
            return f"said twice: {query.text}"
        texts.add(plainly)
        seen.append((content, query))
    reworded = [query for query in case.queries if not _verbatim(case.source, query)]
    for query in reworded:
        why = _false_relation(query, case.source) or _moved(query, case.source) or _apart(query, case.source)
        why = why or _of_another(query, case.source)
        why = why or next((f"not in the source: {w}" for w in unrested(case.source.text, query.text)), "")
        why = why or next((f"not so in the source: {w}" for w in reversals(case.source.text, query.text)), "")
        if why:
            return why
    return ""
