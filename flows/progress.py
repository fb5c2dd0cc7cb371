"""How far a flow is, told to whoever runs it: the command line draws a bar from it, a scheduled run says nothing."""

from collections.abc import Callable
from contextvars import ContextVar

Progress = Callable[[str, int, int, str], None]  # stage, done, total, message


def _silent(stage: str, done: int, total: int, message: str) -> None:
    """Tell nobody."""


PROGRESS: ContextVar[Progress] = ContextVar("PROGRESS", default=_silent)
