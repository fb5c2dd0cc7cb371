"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere. Always on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from flows.progress import Progress as Report

SECONDS_BETWEEN_LINES = 5.0


class _Rate(ProgressColumn):
    """Steps per second of the task."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


def _bars() -> Iterator[Report]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, int] = {}

        def report(stage: str, done: int, total: int, message: str) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, note="")
            progress.update(tasks[stage], completed=done, total=total, note=message)  # type: ignore[arg-type]

        yield report


def _lines() -> Iterator[Report]:
    last: dict[str, float] = {}

    def report(stage: str, done: int, total: int, message: str) -> None:
        now = time.monotonic()
        if done >= total or now - last.get(stage, 0.0) >= SECONDS_BETWEEN_LINES:
            last[stage] = now
            with suppress(BrokenPipeError):  # that nobody listens shall not stop the work
                print(f"{stage} {done}/{total} {message}".rstrip(), file=sys.stderr, flush=True)

    yield report


@contextmanager
def reporting() -> Iterator[Report]:
    """Yield the function that long work calls with (stage, done, total, message)."""
    yield from _bars() if sys.stderr.isatty() else _lines()
