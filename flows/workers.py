"""The processes that make shards beside a rebuild, where `--runner processes`.

    with workers(2) as pool:
        pool.submit(build_shard, job, key)

They import this file and flows/steps.py, and so no Prefect, which takes seconds and a hundred MiB of each.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def workers(number: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of so many processes, started at once; what waits in it is dropped at the end."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(number, mp_context=context, initializer=_end_with_parent)
    try:
        with _without_interrupts():
            for _ in range(number):
                pool.submit(os.getpid)  # a process is started for each while none is idle
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


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
