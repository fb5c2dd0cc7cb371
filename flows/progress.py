"""How far a flow is, told to whoever runs it: the command line draws a bar from it, a scheduled run says nothing.

Flows call `report`, never the variable behind it: Prefect pickles a flow's function with the globals it names.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[str, int, int, str], None]  # stage, done, total, message


def _silent(stage: str, done: int, total: int, message: str) -> None:
    """Tell nobody."""


_PROGRESS: ContextVar[Progress] = ContextVar("_PROGRESS", default=_silent)


def report(stage: str, done: int, total: int, message: str) -> None:
    """Tell whoever listens that `done` of `total` steps of a stage are done."""
    _PROGRESS.get()(stage, done, total, message)


@contextmanager
def listening(listener: Progress) -> Iterator[None]:
    """Let a listener hear of the progress of the flows that run inside."""
    token = _PROGRESS.set(listener)
    try:
        yield
    finally:
        _PROGRESS.reset(token)
