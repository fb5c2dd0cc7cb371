"""The form of a reply: its JSON (well-formed), finished sentences, length, hedging, markup, and English words."""

import json
import re
from collections.abc import Mapping
from itertools import groupby

from refine.gates.case import Case, comma_list
from refine.registers import lexicon
from refine.registers.reading import ARTICLES, PREPOSITIONS, Reading, known, stems, words_of

MAX_QUERY_WORDS = 30
MAX_QUERY_CHARS = 400
MAX_REPLY_CHARS = 20_000
# A rewrite may be a little longer than its source, the more so the shorter the source is.
LENGTH_FACTOR, LENGTH_SLACK = 1.3, 8
ENGLISH_SHARE = 0.6
DANGLING = words_of(
    "a an the and or but nor with without of at from for as into onto its their his her which that whose where while "
    "because than is are was were be been being has have to very"
)
# A relative clause in the passive may end in its preposition.
WHICH, PASSIVE = words_of("that which whom"), words_of("is are was were been being")
STOP = re.compile(r"(?<![.…])[.!?][\"'”’)]?\s*$")
LOOKING = ("look like", "looks like a", "looks like an")
LIKENESS = re.compile(r"\b(?:like|resembl\w+|as if|as though|reminiscent)\b", re.IGNORECASE)
MARKUP = re.compile(
    r"</?[a-zA-Z!/ ][^<>]*>|&(?:[a-zA-Z]{2,8}|#\d{1,6});|^\s*(?:[-+•]|\(?[a-z0-9]{1,2}[.)])\s|\]\(|__|(?<!\w)_\w|\\\w"
    r"|--+|https?:|www\.|[<>`*#|{}\[\]\\^~=$@•\n\r\t]|(?<!\w)&\w"
    r"|[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]",  # half a character cannot be stored
    re.MULTILINE,
)


def parse(reply: object) -> tuple[str, list[str]] | str:
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


def finished(case: Case) -> str:
    """Gate `finished`: the caption ends as a sentence does, and no text is cut off."""
    caption = case.caption.text.strip()
    if not STOP.search(caption):
        return f"the caption does not end as a sentence: … {caption[-30:]}"
    for reading in case.texts:
        words = [token for token in reading.tokens if token[0].isalnum()]
        dangles = words and words[-1] in DANGLING and not _stranded(reading)
        if dangles or (words and reading.text.rstrip().endswith((",", ";", ":", "…", "...", "-"))):
            return f"cut off after '{words[-1]}'"
    open_ones = [query for query in case.queries if not STOP.search(query.text)]
    if 0 < len(open_ones) < len(case.queries):  # all of them may do without
        return f"a query ends without a stop, unlike the others: … {open_ones[0].text[-30:]}"
    return ""


def _stranded(reading: Reading) -> bool:
    """Whether a sentence may well end in its preposition: "snow that the paths have been cleared of"."""
    before, end = reading.tokens[:-3], reading.tokens[-3:]
    if len(end) < 3 or not end[0].endswith("ed") or end[1] not in PREPOSITIONS or end[2] != ".":
        return False
    return not WHICH.isdisjoint(before) and not PASSIVE.isdisjoint(before)


def length(case: Case) -> str:
    """Gate `length`: not much longer than the source, and no long query."""
    words = sum(token[0].isalnum() for token in case.caption.tokens)
    most = int(LENGTH_FACTOR * sum(token[0].isalnum() for token in case.source.tokens)) + LENGTH_SLACK
    if words > most:
        return f"{words} words, at most {most} for this source"
    long = [len(q.tokens) for q in case.queries if sum(t[0].isalnum() for t in q.tokens) > MAX_QUERY_WORDS]
    return f"a query has more than {MAX_QUERY_WORDS} words" if long else ""


def hedging(case: Case) -> str:
    """Gate `hedging`: no guess where the source makes none."""
    found = [
        match.group()
        for reading in case.fresh
        for match in reading.find(lexicon().hedges)
        if not (match.group().lower() in LOOKING and _likened(case.source, reading.text[match.end() :]))
    ]
    if not found or case.source.has(lexicon().hedges):
        return ""
    if LIKENESS.search(case.source.text):  # "something like a railway" for a railway-like strip
        found = [words for words in found if not LIKENESS.search(words)]
    return f"hedging: {comma_list(found)}" if found else ""


def _likened(source: Reading, rest: str) -> bool:
    """Whether what something looks like is in the source: "look like a bow tie" of halls that form one."""
    said = (word for word in re.findall(r"[a-z]+", rest.lower()[:60]) if word not in ARTICLES)
    return not source.stems.isdisjoint(stems(next(said, "")))


def shouts(text: str) -> bool:
    """Whether most letters of a text are capitals."""
    capitals = sum(map(str.isupper, text))
    return capitals > 10 and 2 * capitals > max(20, sum(map(str.isalpha, text)))


def markup(case: Case) -> str:
    """Gate `markup`: no HTML, Markdown, links, list marks or control characters."""
    own = set("$@#=~").intersection(case.source.text)  # a price on a board
    found = [repr(m.group()) for reading in case.texts for m in MARKUP.finditer(reading.text) if m.group() not in own]
    return f"markup: {comma_list(found)}" if found else ""


def foreign(case: Case, reading: Reading) -> str:
    """The start of a sentence of another language; "" when all are English."""
    pairs = zip(reading.tokens, reading.sentences, strict=True)
    for _, sentence in groupby(pairs, key=lambda pair: pair[1]):
        words = [token for token, _ in sentence if token[0].isalpha()]
        share = sum(known(w) or bool(case.source.stems.intersection(stems(w))) for w in words) / max(len(words), 1)
        if words and (share < ENGLISH_SHARE or any(ord(c) > 0x24F for w in words for c in w)):
            return " ".join(words[:6])
    return ""


def in_english(case: Case) -> str:
    """Gate `english`: every sentence is in English."""
    found = [words for reading in case.texts if (words := foreign(case, reading))]
    return f"not English: {comma_list(found)}" if found else ""
