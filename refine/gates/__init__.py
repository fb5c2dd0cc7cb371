"""Faithfulness gates: what a rewritten caption must satisfy before training reads it.

Every gate is a plain function from a `Case` (the source caption, the reply, both read) to the reason it fails, or "".
Gates compare facts, not wording: "car park" for "parking lot" passes, a fountain that nobody mentioned does not. The
words they know are data (`refine/registers/*.yaml`). The reply is hostile input: no reply raises.

    georefine check-replies < replies.jsonl          or          python -m refine.gates < replies.jsonl

`GATES` names them in their order and the file of each. What several of them ask is in `things.py` (which words name the
same thing), `bindings.py` (what an attribute is said of) and `clauses.py` (which things stand in one clause).
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict

from refine.gates import (
    attributes,
    contradictions,
    coverage,
    form,
    meta,
    names,
    numbers,
    objects,
    orientation,
    queries,
    register,
)
from refine.gates.case import Case, lettering_of, supported, without_lettering
from refine.gates.register import unseen_words
from refine.registers.reading import mend_stops, read, spell_out
from schemas.records import PLATFORMS, GateResult, Platform

__all__ = ["GATES", "check", "check_lines", "passed", "unseen_words"]

GATES: tuple[tuple[str, Callable[[Case], str]], ...] = (
    ("finished", form.finished),
    ("orientation", orientation.orientation),
    ("colour", attributes.colours),
    ("number", numbers.numbers),
    ("material", attributes.materials),
    ("object", objects.objects),
    ("name", names.names),
    ("contradiction", contradictions.contradiction),
    ("coverage", coverage.covered),
    ("length", form.length),
    ("hedging", form.hedging),
    ("meta", meta.meta),
    ("markup", form.markup),
    ("english", form.in_english),
    ("queries", queries.queries),
    ("register", register.in_register),
)


def check(platform: Platform, source: str, reply: str | Mapping[str, object]) -> tuple[GateResult, ...]:
    """Judge a reply to (platform, source) by every gate; a reply that is not well-formed is judged by that gate alone.

    Args:
        source: the stripped caption the reply was asked to rewrite.
        reply: a JSON object {"caption": text, "queries": [text, …]} as text, or already parsed; others fail.
    """
    parsed = form.parse(reply)
    if not isinstance(parsed, str) and len(parsed[0]) > 2 * len(source) + 400:
        parsed = f"a caption of {len(parsed[0])} characters for a source of {len(source)}"
    if isinstance(parsed, str):
        return (GateResult("well-formed", False, parsed),)
    caption, queries = parsed
    lettering = lettering_of(source)
    source, caption, *queries = map(spell_out, without_lettering(source, source, caption, *queries))
    source_reading = read(mend_stops(source))
    case = Case(
        platform, source_reading, read(caption), tuple(map(read, queries)), supported(source_reading), lettering
    )
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
