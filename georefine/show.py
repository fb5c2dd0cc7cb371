"""What a person sees on the terminal after a rebuild, a training, a search, the demo: tables by rich, on stdout."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas.records import PLATFORMS, SPLITS, STATUSES

if TYPE_CHECKING:
    from data.diff import Change
    from experts.search import Found


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    return table


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _console() -> Console:
    """Standard output; in a pipe as wide as our widest table, not the 80 columns that rich assumes."""
    return Console() if sys.stdout.isatty() else Console(width=120)


def _cells(counts: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    return (
        (split, platform, counts[split][platform])
        for split in SPLITS
        for platform in PLATFORMS
        if platform in counts.get(split, {})
    )


def counts_table(counts: Mapping[str, Any]) -> Table:
    """Rows per split and platform."""
    table = _table("What is in it", "split", "platform", "buildings", "images", "augmented", "captions")
    for split, platform, cell in _cells(counts):
        table.add_row(split, platform, *(str(cell[key]) for key in ("buildings", "images", "augmented", "captions")))
    return table


def statuses_table(counts: Mapping[str, Any]) -> Table:
    """Captions per split, platform and status; a table of its own, for one of both does not fit into 80 columns."""
    used = [status for status in STATUSES if any(status in cell["statuses"] for _, _, cell in _cells(counts))]
    table = _table("What became of the captions", "split", "platform", *used)
    for split, platform, cell in _cells(counts):
        table.add_row(split, platform, *(str(cell["statuses"].get(status, 0)) for status in used))
    return table


def accounts_table(accounts: Mapping[str, Any]) -> Table:
    """Rows read, written and rejected per table."""
    table = _table("No row lost: read = written + rejected", "table", "read", "written", "rejected", "derived")
    for name, a in accounts.items():
        table.add_row(name, *(str(a[key]) for key in ("read", "written", "rejected", "derived")))
    return table


def gates_table(gates: Mapping[str, Any]) -> Table:
    """How often each faithfulness gate passed."""
    table = _table("Gates", "gate", "passed", "failed")
    for gate, tally in gates.items():
        table.add_row(gate, str(tally["passed"]), str(tally["failed"]))
    return table


def scores_table(scores: Mapping[str, Any], extra: Mapping[str, Mapping[str, float]] | None = None) -> Table:
    """Recall in percent: fused, per platform of the query, image to text, then what to compare it with."""
    title = f"Scores: {scores['queries']} queries, {scores['gallery']} images of unseen buildings"
    table = _table(title, "text to image, percent", "R@1", "R@5", "R@10", "Score")

    def add(name: str, s: Mapping[str, float]) -> None:
        table.add_row(name, *(f"{s[key]:.1f}" if key in s else "" for key in ("r1", "r5", "r10", "score")))

    add("fused, all queries", scores["t2i"])
    for platform in PLATFORMS:
        if platform in scores["per_platform"]:
            add(f"fused, {platform} queries", scores["per_platform"][platform]["t2i"])
    table.add_section()
    add("image to text", scores["i2t"])
    table.add_section()
    for name, values in (extra or {}).items():
        add(name, values)
    add("chance", scores["chance"])
    return table


def show_rebuild(result: Mapping[str, Any]) -> None:
    """Tables of a rebuild."""
    console = _console()
    counts = result["counts"]
    console.print(counts_table(counts), statuses_table(counts), accounts_table(result["accounts"]), sep="\n")
    for path, why in result["ignored"].items():
        console.print(f"not data: {escape(ascii(path)[1:-1])} ({escape(why)})", style="dim", highlight=False)
    for note in result["notes"]:
        console.print(escape(note), highlight=False)
    if damaged := result["damaged"]:
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        console.print(f"damaged results of earlier runs, made again: {', '.join(damaged[:5])}{more}", highlight=False)
    if applied := result["decisions"]["applied"]:
        console.print(f"{_counted(applied, 'row')} as reviewers decided", highlight=False)
    if result["refining"]:
        console.print(refining_line(result["refining"]), highlight=False, soft_wrap=True)
    for name in result["removed"]:
        console.print(f"removed version {name}", highlight=False)
    what = "new version" if result["new"] else "nothing changed: still version"
    where = f"{result['dataset']}/{result['version']}"  # a folder or a URL
    console.print(
        f"{what} {where} ({_counted(result['shards'], 'shard')}, {result['reused']} reused)",
        highlight=False,
        soft_wrap=True,
    )


def refining_line(tally: Mapping[str, Any]) -> str:
    """What the model was asked in this run, and what became of it, in one line."""
    fallbacks = ", ".join(
        f"{gate} {n}" for gate, n in sorted(tally["fallbacks"].items(), key=lambda kv: (-kv[1], kv[0]))
    )
    fell = sum(tally["fallbacks"].values())
    rate = tally["prefix_hit_rate"]
    return (
        f"model: {_counted(tally['captions'], 'wording')}, {tally['accepted']} accepted, {fell} left to the rules"
        f"{f' ({fallbacks})' if fell else ''}; {_counted(tally['sent'], 'request')} sent "
        f"({tally['retries']} repeated), {tally['stored']} from the store of replies"
        f"{'' if rate is None else f', {100 * rate:.0f} % of the prompts in the prefix cache'}"
    )


def show_diff(changes: Iterable["Change"]) -> None:
    """Changed captions one after the other, old above new; then how many."""
    from review.compare import visible

    console = _console()
    counts: Counter[str] = Counter()
    for change in changes:
        counts[change.kind] += 1
        console.print(f"{change.kind} {visible(change.caption_id)}", style="bold", markup=False, soft_wrap=True)
        for name in change.fields or ("final",):
            for sign, state, colour in (("-", change.before, "red"), ("+", change.after, "green")):
                if state is not None:
                    text = f"  {sign} {name}: {visible(getattr(state, name))}"
                    console.print(text, style=colour, markup=False, highlight=False, soft_wrap=True)
    kinds = ("added", "removed", "changed")
    console.print(", ".join(f"{counts[kind]} {kind}" for kind in kinds), highlight=False)


def show_scores(scores: Mapping[str, Any], run: Path) -> None:
    """Table of an evaluation."""
    console = _console()
    console.print(scores_table(scores))
    console.print(f"run: {run}", highlight=False, soft_wrap=True)


def show_search(found: "Found") -> None:
    """Ranked images, and how the gate weighed the experts."""
    console = _console()
    weights = ", ".join(f"{platform} {weight:.2f}" for platform, weight in found.gate.items())
    table = _table(f"Experts weighed: {weights}", "image", "score", "building", "platform")
    for hit in found.hits:
        table.add_row(escape(hit.image_id), f"{hit.score:.3f}", escape(hit.building_id), hit.platform)
    console.print(table)


def show_demo(report: Mapping[str, Any]) -> None:
    """The demo's end: counts, gates, scores beside baseline and ceiling, where every file is, what to try next."""
    console = _console()
    rebuild = report["rebuild"]
    console.print(
        counts_table(rebuild["counts"]),
        statuses_table(rebuild["counts"]),
        accounts_table(rebuild["accounts"]),
        gates_table(rebuild["gates"]),
        *([refining_line(rebuild["refining"]), ""] if rebuild["refining"] else []),
        scores_table(report["scores"], report["beside"]),
        sep="\n",
    )
    paths = _table("Where it is", "what", "path")
    paths.columns[1].justify = "left"
    paths.columns[1].no_wrap = False
    paths.columns[1].overflow = "fold"
    for what, path in report["paths"].items():
        paths.add_row(what, escape(str(path)))
    console.print(paths)
    console.print("Try next:", style="bold")
    for command in report["next"]:
        console.print(f"  {escape(command)}", highlight=False, soft_wrap=True)
