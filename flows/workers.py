"""The processes that make shards beside a rebuild, where `--runner processes`.

    with workers(2) as pool:
        pool.submit(make, job, key)

They import this file and flows/steps.py, and so neither Prefect nor torch, which take seconds and 300 MiB of each.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from flows.jobs import ShardJob
from flows.results import ShardResult


@contextmanager
def workers(number: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of so many processes, started at once; what waits in it is dropped at the end."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(number, mp_context=context, initializer=_begin)
    try:
        with _without_interrupts():
            for _ in range(number):
                pool.submit(os.getpid)  # a process is started for each while none is idle
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def make(job: ShardJob, key: str) -> ShardResult:
    """One shard: flows.steps.build_shard, imported by whoever makes one and not by whoever plans."""
    from flows.steps import build_shard

    return build_shard(job, key)


def _begin() -> None:
    # albumentations and spaCy import torch where they find it, and use nothing of it here.
    sys.modules["torch"] = None  # type: ignore[assignment]
    _end_with_parent()


def _end_with_parent() -> None:
    """Let a pool's process end, without a word, when the rebuild is interrupted or killed.

    Left alone it would print a traceback, or wait for work for ever and hold our output open.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let processes started inside ignore Ctrl-C until they are up: they import for seconds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
