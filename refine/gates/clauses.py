"""A text cut into sentences and clauses, and what each of them has: things, and relations between them."""

import re
from functools import lru_cache
from itertools import product

from refine.registers import lexicon
from refine.registers.reading import ARTICLES, read, stems
from refine.thesaurus import mostly

TWO_SIDES = re.compile(
    r"\btwo (?:of (?:its|the|their) )?(?:\w+ )?(?:sides|ends|edges|flanks)\b|\bother (?:side|end|edge)\b"
)
SENTENCE = re.compile(r"(?<=[.!?])\s+")
CLAUSE = re.compile(
    r"[.;:!?]+(?:\s|$)|,\s+(?:and|but|while|whereas|where|with)\s+|,\s+(?=(?:a|an|the|one|two|three|another|more)\s)"
)
PRONOUN = re.compile(
    r"\b(?:it|its|them|they|their|which|that|whose|these|those|both|each|"
    r"one(?! (?:side|end|edge|part|corner|half|margin)))\b",
    re.IGNORECASE,
)
# On which sides of the thing that is spoken of.
ON_SIDES = r"\bon (?:two|both|all|three|either|opposite) sides?\b(?! of\b)"
# Where something is with respect to what is spoken of: "a pond lies in front, …".
_HERE = r"\b(?:in front|in between|around|behind|beyond|alongside|beside|below|above|opposite|inside|within)\s*[,.;]"
HERE = re.compile(_HERE, re.IGNORECASE)
# What ties a sentence to the one before it: no relative pronoun, which stays in its sentence.
BACK = re.compile(
    r"\b(?:it|its|them|they|their|these|those|one another|one(?! (?:side|end|edge|part|corner|half|margin)))\b"
    r"|^\W*(?:that|which|both|each|this|such|all)\b"
    r"|\bthe two (?:is|are|lies?|stands?|runs?)\b"
    r"|\bin between (?:is|are|lies?|stands?|runs?)\b"
    rf"|{_HERE}"
    r"|\balongside (?:in|two|three|four)\b"
    rf"|{ON_SIDES}"
    r"|\bthe (?:\w+ )?(?:part|parts|half|halves|portion)\b(?! of\b)",
    re.IGNORECASE,
)
# What may be said of the first thing of a text, however far behind it is.
IT = re.compile(
    rf"\b(?:its?|they|them|their|(?:first|second|third|last|other|middle) one)\b|{ON_SIDES}|{_HERE}", re.IGNORECASE
)
AMID = re.compile(
    r"\b(?:middle|midst|heart|cent(?:re|er)) of (?!(?:the|this) (?:image|picture|scene|photo|view|tile|frame)\b)"
    r"|\b(?:at|in) (?:its|their) (?:heart|middle|cent(?:re|er)|core|midst)\b"
)
AMID_TWO = re.compile(r"\b(?:middle|midst|heart|cent(?:re|er)) of (?:the |these |its )?two\b")

THE = re.compile(r" the (\w+)")
FROM_TO = re.compile(r"\bfrom one \w+ to (?:another|the (?:other|next))\b")
OFF_FROM = re.compile(r"\b\w+ off (?:\w+ ){0,3}from\b")
# What says of things that something is between them.
APART = (TWO_SIDES, AMID_TWO, FROM_TO, OFF_FROM)


@lru_cache(maxsize=256)
def filled(source: str) -> frozenset[tuple[str, str]]:
    """Things and what they consist of or hold: (moat, water) of "a moat of dark green water"."""
    w = read(source).parsed
    found: set[tuple[str, str]] = set()
    for at, vessels in w.nouns.items():
        stuff = w.ends[at] + 1
        while w.token(w.ends[at]) == "of" and stuff not in w.nouns and w.modifier(stuff):
            stuff += 1
        if w.token(w.ends[at]) == "of" and stuff in w.nouns:
            held = (concept for concept in w.nouns[stuff] if w.is_object(stuff))
            found.update(product(vessels, held))
    return frozenset(found)


@lru_cache(maxsize=256)
def units_of(source: str, parts: re.Pattern[str]) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Parts of the source as (objects, relation classes); one with a pronoun is read together with the one before.

    "It" or "they" may be what the whole text is about, too (the first thing that it names), or of the sentence before.
    """
    units: list[tuple[frozenset[str], frozenset[str]]] = []
    first: frozenset[str] = frozenset()
    previous: frozenset[str] = frozenset()
    before: tuple[str, ...] = ()
    back = BACK if parts is SENTENCE else PRONOUN
    sentences = SENTENCE.split(source)
    held = filled(source)
    named = [frozenset(concept for _, concept in read(sentence).named) for sentence in sentences]
    for n, part in ((n, part) for n, sentence in enumerate(sentences) for part in parts.split(sentence)):
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
        classes |= {"between"} if any(apart.search(part) for apart in APART) else set()
        own = frozenset(concept for _, concept in reading.named)
        own |= {stuff for vessel, stuff in held if vessel in own}
        first = first or frozenset(concept for _, concept in reading.named[:1])
        known = set(before).intersection(THE.findall(reading.words))  # "a heap of coal. Belts lead from the heap"
        points_back = back.search(part) or any(mostly(word, "n") for word in known)
        ahead = first.union(*named[max(0, n - 1) : n]) if IT.search(part) else frozenset()
        back_to = previous | ahead if points_back else frozenset()
        units.append((own | back_to, classes))
        previous, before = own, reading.tokens
    return units
