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
from itertools import groupby

from refine.orientation import contains_orientation
from refine.registers import Register, lexicon, register
from refine.registers.reading import (
    DETERMINERS,
    PREPOSITIONS,
    Mention,
    Reading,
    known,
    mend_stops,
    plain,
    read,
    related,
    stems,
    words_of,
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
MAIN_COVERAGE, COVERAGE = 0.4, 0.5
FACTS = ("object", "colour", "material")
ENGLISH_SHARE = 0.6

DANGLING = words_of(
    "a an the and or but nor with without of at from for as into onto its their his her which that whose where while "
    "because than is are was were has have to very"
)
MARKUP = re.compile(
    r"</?[a-zA-Z][^<>]*>|<!--|&(?:[a-zA-Z]{2,8}|#\d{1,6});|`|\*|\]\(|^\s*(?:[-+•#>]|\d{1,2}[.)])\s"
    r"|\n|\r|\\n|__|(?<!\w)_\w|~~|\||https?:|www\.|\{|\}",
    re.MULTILINE,
)
ONE_ANOTHER = frozenset({"another", "second", "other", "both", "each", "either", "one", "opposite", "former", "latter"})
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
PRONOUN = re.compile(r"\b(?:it|its|them|they|their|which|that|whose|these|those|both|each|one)\b", re.IGNORECASE)
# Relation words that claim something definite when a query uses them, and the class of relation they claim.
CLAIMS = {
    "around": "enclosing", "surround": "enclosing", "encircle": "enclosing", "circle": "enclosing",
    "enclose": "enclosing", "ring": "enclosing", "under": "vertical",
    "underneath": "vertical", "beneath": "vertical", "above": "vertical",
    "atop": "vertical", "over": "vertical", "crown": "vertical", "between": "between", "separate": "between",
    "cross": "crossing", "through": "crossing", "bisect": "crossing", "connect": "joining", "link": "joining",
    "inside": "enclosing", "within": "enclosing",
}  # fmt: skip


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
        if _verbatim(case.source, read(sentence)):
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
            if found.lower() not in source and not (places <= before and (places or grounded)):
                added.append(found)
    return f"orientation added: {_list(added)}" if added else ""


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


def _english(case: Case) -> str:
    for reading in case.texts:
        pairs = zip(reading.tokens, reading.sentences, strict=True)
        for _, sentence in groupby(pairs, key=lambda pair: pair[1]):
            words = [token for token, _ in sentence if token[0].isalpha()]
            if not words:
                continue
            share = sum(known(w) or bool(case.source.stems.intersection(stems(w))) for w in words) / len(words)
            if share < ENGLISH_SHARE or any(ord(c) > 0x24F for w in words for c in w):
                return f"not English: {' '.join(words[:6])}"
    return ""


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
        for word, mentions in _at_same_word(reading, "object"):
            if word in case.source.tokens or any(m.concept in case.supported for m in mentions):
                continue
            if any(_denied_fairly(case, m) for m in mentions):
                continue
            new.append(_name(mentions[0].concept))
        new += [s for s in reading.strangers if not case.source.stems.intersection(stems(s)) and s.islower()]
    return f"not in the source: {_list(new)}" if new else ""


def _denied_fairly(case: Case, mention: Mention) -> bool:
    """A denial of a thing the source does not name is judged by the contradiction gate, not as an invented thing."""
    return any(mention.concept in reading.denied for reading in case.texts)


def _heads_meet(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two attributes may be said of the same thing; a stretch or an unknown head leaves it open."""
    if "one" in one or "one" in other or not one - {"generic"} or not other - {"generic"}:
        return True
    body = lexicon().body
    return any(related(body.get(a, a), body.get(b, b)) for a in one for b in other)


def _said_of_stretch(case: Case, heads: frozenset[str], said: Mention) -> bool:
    """For an attribute the source says of a mere shape: whether the thing may be that shape.

    "White rectangles make up the halls" makes the halls white; "a white roof with a grey square" makes no roof grey,
    because the roof has a colour of its own.
    """
    if said.heads - {"generic"} or "generic" in heads or not heads:
        return True
    own = {h for m in case.source.of(said.kind) if m.sentence == said.sentence for h in m.heads}
    near = {m.concept for m in case.source.of("object") if m.sentence == said.sentence} - own
    return any(related(h, n) for h in heads for n in near)


def _attributes(case: Case, kind: str) -> str:
    wrong: list[str] = []
    sources = case.source.of(kind)
    for reading in case.texts:
        for word, mentions in _at_same_word(reading, kind):
            matching = [s for m in mentions for s in sources if related(m.concept, s.concept)]
            if not matching:
                if word not in case.source.tokens and not any(m.concept in case.supported for m in mentions):
                    wrong.append(f"{word} is new")
            elif not any(
                _heads_meet(mentions[0].heads, s.heads) and _said_of_stretch(case, mentions[0].heads, s)
                for s in matching
            ):
                of = _list(sorted(_name(h) for h in mentions[0].heads if h != "generic"))
                wrong.append(f"{word} said of {of}")
    return "; ".join(dict.fromkeys(wrong))


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
            if word in {"both", "single", "double", "twin"}:
                continue
            same = [s for s in sources if s.concept == mention.concept]
            if any(_heads_meet(mention.heads, s.heads) for s in same):
                continue
            if mention.concept == "2" and _two_of(case, mention):
                continue
            heads = sorted(_name(h) for h in mention.heads if h != "generic")
            wrong.append(" ".join([word, *heads[:1]]))
    return f"number not in the source: {_list(wrong)}" if wrong else ""


def _two_of(case: Case, mention: Mention) -> bool:
    """Whether 'two X' follows: from 'one X … another', 'a second X', or X named twice; never against a count."""
    heads = mention.heads - {"generic"}
    for other in case.source.of("number"):
        if other.concept != "2" and other.heads & heads and case.source.tokens[other.at] != "single":
            return False
    named = {m.at for m in case.source.of("object") if any(related(m.concept, h) for h in heads)}
    return len(named) > 1 or (bool(named) and bool(ONE_ANOTHER & set(case.source.tokens)) and bool(heads))


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
            if against or invented:
                wrong.append(f"denies {_name(concept)}")
        claimed = {m.concept for m in reading.of("object")} - reading.denied
        wrong += [f"affirms {_name(c)}" for c in sorted(claimed & source.denied) if c not in asserted]
        for mention in reading.of("quality"):
            axis, _, side = mention.concept.partition(":")
            heads = mention.heads - {"generic"}
            opposite = f"{axis}:{1 - int(side)}" if side in {"0", "1"} else ""
            if (
                not heads
                or "one" in heads
                or reading.tokens[mention.at].endswith("er")
                or any(s.concept == mention.concept for s in source.of("quality") if _meets(s, heads))
            ):
                continue
            if any(s.concept == opposite for s in source.of("quality") if _meets(s, heads)):
                wrong.append(f"{reading.tokens[mention.at]} {_list(sorted(map(_name, heads)))}")
    return f"against the source: {_list(wrong)}" if wrong else ""


def _emptied(source: Reading, concept: str) -> bool:
    """Whether the source denies the thing in other words: a clear sky has no clouds, an empty car park no cars."""
    if concept == "object:cloud":
        return bool(source.stems & {"clear", "sunny", "blue"})
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


def _units(source: Reading) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Clauses of the source as (objects, relation classes); one with a pronoun is read together with the one before."""
    units: list[tuple[frozenset[str], frozenset[str]]] = []
    previous: frozenset[str] = frozenset()
    for clause in CLAUSE.split(source.text):
        if not clause.strip():
            continue
        reading = read(clause)
        classes = frozenset(c for t in reading.tokens for s in stems(t) for c in lexicon().relations.get(s, ()))
        units.append((reading.objects | (previous if PRONOUN.search(clause) else frozenset()), classes))
        previous = units[-1][0]
    return units


def _verbatim(source: Reading, query: Reading) -> bool:
    """Whether the query's words stand in the source one after the other."""
    return query.words in source.words


def _false_relation(query: Reading, units: list[tuple[frozenset[str], frozenset[str]]]) -> str:
    breaks = [i for i, t in enumerate(query.tokens) if t in {",", ";", ":", "."}]
    named = sorted(query.of("object"), key=lambda m: m.at)
    for at, token in enumerate(query.tokens):
        claim = next((CLAIMS[s] for s in stems(token) if s in CLAIMS), None)
        if claim is None:
            continue
        low = max((i for i in breaks if i < at), default=-1)
        high = min((i for i in breaks if i > at), default=len(query.tokens))
        before = [m.concept for m in named if low < m.at < at][-2:]
        after = [m.concept for m in named if at < m.at < high][:2]
        if not before or not after:
            continue
        for stated, classes in units:
            ends = all(any(related(end, s) for end in side for s in stated) for side in (before, after))
            if ends and claim in classes:
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
    units = _units(case.source) if reworded else []
    return next((why for query in reworded if (why := _false_relation(query, units))), "")


def _register(case: Case) -> str:
    where = register(case.platform)
    found: list[str] = []
    for reading in case.texts:
        found += unseen_words(case.platform, reading.text)
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
