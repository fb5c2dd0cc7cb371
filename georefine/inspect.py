"""`georefine inspect DATASET`: raw -> stripped -> refined in the terminal, with word diffs, removed spans and gates.

On a terminal the output goes through a pager; in a pipe it is plain text, one caption after another, at any length.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from data.shards import open_version
from review.compare import Diff, visible, word_diff
from review.decisions import REVIEWS, Decision, source_hash, standing_decisions
from schemas.errors import UsageError
from schemas.records import PLATFORMS, SPLITS, STATUSES, Platform, Split, Status

COLUMNS = ("caption_id", "building_id", "platform", "split", "raw", "edits", "stripped", "refined", "queries")
MORE_COLUMNS = ("final", "status", "gates", "refiner")
STYLES = {"same": "", "del": "red strike", "ins": "green underline"}
MARKS = {"same": ("", ""), "del": ("[-", "-]"), "ins": ("{+", "+}")}
WIDTH = 100  # columns in a pipe


def show(
    dataset: Path,
    platform: Platform | None = None,
    status: Status | None = None,
    n: int = 10,
    *,
    split: Split | None = None,
    console: Console | None = None,
) -> int:
    """Print the first `n` captions of the given platform, status and split, train first.

    Colour and pager on a terminal; elsewhere [-removed-] and {+added+} as in `git diff --word-diff`.

    Returns:
        How many captions were printed.

    Raises:
        UsageError: platform, status, split or n is none. DatasetError: the data set cannot be read.
    """
    for name, value, known in (("--platform", platform, PLATFORMS), ("--status", status, STATUSES)):
        if value is not None and value not in known:
            raise UsageError(f"{name} {value}: choose one of {', '.join(known)}.")
    if split is not None and split not in SPLITS:
        raise UsageError(f"--split {split}: choose one of {', '.join(SPLITS)}.")
    if n < 1:
        raise UsageError(f"-n {n}: ask for at least one caption.")
    if console is None:
        console = Console() if sys.stdout.isatty() else Console(width=WIDTH, no_color=True, highlight=False)
    version = open_version(dataset)
    decisions = standing_decisions(version.path.parent / REVIEWS)
    shown = 0
    os.environ.setdefault("LESS", "-RFX")  # colours, and no pager where one screen is enough
    with console.pager(styles=True) if console.is_terminal else nullcontext():
        for row in _rows(dataset, platform, status, split):
            if shown == n:
                break
            shown += 1
            console.print(_caption(row, decisions.get(row["caption_id"]), marked=not console.is_terminal))
        if not shown:
            console.print(f"No caption of {version.path} matches.", markup=False)
    return shown


def _rows(
    dataset: Path, platform: Platform | None, status: Status | None, split: Split | None
) -> Iterator[dict[str, Any]]:
    platforms = [platform] if platform else None
    columns = [*COLUMNS, *MORE_COLUMNS]
    version = open_version(dataset)
    for part in [split] if split else SPLITS:
        for batch in version.batches("captions", split=part, platforms=platforms, columns=columns, rows=256):
            yield from (row for row in batch.to_pylist() if status is None or row["status"] == status)


def _caption(row: dict[str, Any], decision: Decision | None, *, marked: bool) -> Group:
    title = f"{row['platform']}  building {row['building_id']}  {row['split']}  {row['status']}"
    parts: list[Any] = [
        Rule(Text(visible(row["caption_id"]).replace("\n", " "), style="bold"), align="left", style="dim"),
        Text(visible(title).replace("\n", " "), style="dim"),
    ]

    def step(name: str, diff: Diff) -> None:
        parts.extend((Text(name, style="bold cyan"), Padding(_text(diff, marked), (0, 0, 0, 2))))

    step("raw", _removed(row))
    if row["stripped"] != row["raw"]:
        step("stripped", word_diff(row["stripped"], row["stripped"]))
    if row["refined"]:
        step("refined, against stripped", word_diff(row["stripped"], row["refined"]))
    if row["final"] not in (row["refined"], row["stripped"]):
        step("final", word_diff(row["refined"], row["final"]))
    if row["queries"]:
        parts.append(Text("queries", style="bold cyan"))
        parts += [Padding(Text("- " + visible(query)), (0, 0, 0, 2)) for query in row["queries"]]
    if row["gates"]:
        failed = [gate for gate in row["gates"] if not gate["passed"]]
        parts.append(Text(f"gates: {len(row['gates']) - len(failed)} passed, {len(failed)} failed ({row['refiner']})"))
        parts += [
            Padding(Text(f"✕ {visible(gate['gate'])}: {visible(gate['detail'])}", style="red"), (0, 0, 0, 2))
            for gate in failed
        ]
    if decision:
        parts.append(_decided(row, decision))
    return Group(*parts, Text(""))


def _decided(row: dict[str, Any], decision: Decision) -> Text:
    stale = "" if decision.source_sha256 == source_hash(row["raw"]) else " (stale: the source text has changed since)"
    text = f": {decision.text}" if decision.kind == "edit" else ""
    return Text(visible(f"decision: {decision.kind} by {decision.reviewer}, {decision.time}{stale}{text}"), "yellow")


def _removed(row: dict[str, Any]) -> Diff:
    """The raw caption with the spans that cleaning takes out, and what it puts there."""
    parts: list[tuple[Any, str]] = []
    at = 0
    for edit in row["edits"]:
        parts += [("same", row["raw"][at : edit["start"]]), ("del", edit["old"]), ("ins", edit["new"])]
        at = edit["end"]
    return tuple((op, text) for op, text in [*parts, ("same", row["raw"][at:])] if text)


def _text(diff: Diff, marked: bool) -> Text:
    """Styled, or, where there are no styles, marked. Never markup: a caption's [brackets] are its own."""
    text = Text()
    for op, part in diff:
        before, after = MARKS[op] if marked else ("", "")
        text.append(f"{before}{visible(part)}{after}", STYLES[op])
    return text
