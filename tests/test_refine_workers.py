"""Workers: they do what they are asked, lose nothing, and never outlive the process that started them."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from refine.orientation import strip
from refine.workers import AHEAD, GROUP, NICE, Run, Workers, here, judges
from schemas.errors import RefinerError


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not make these processes do what workers are to do, and be what a test ends."""
    monkeypatch.setattr("refine.workers.LATE", 60.0)


def use(number: int, what: Callable[[Run], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with Workers(number) as call:
            return await what(call)

    return asyncio.run(run())


def told(seconds: float, what: object) -> tuple[int, object]:
    """Who did it, and what came in."""
    time.sleep(seconds)
    return os.getpid(), what


def refuse(why: str) -> None:
    raise ZeroDivisionError(why)


def open_files() -> set[str]:
    found = set()
    for link in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # the one that the listing itself was read from
            found |= {str(link.readlink())} if int(link.name) > 2 else set()
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # The child of a killed process may wait for an init that never asks for it.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pid: int, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_every_call_gets_its_own_value_and_all_workers_are_used() -> None:
    async def many(run: Run) -> list[tuple[int, object]]:
        return list(await asyncio.gather(*(run(told, 0.005, number) for number in range(60))))

    said = use(3, many)
    assert [what for _, what in said] == list(range(60))
    assert len({pid for pid, _ in said} - {os.getpid()}) == 3
    assert all(gone(pid) for pid, _ in said)


def test_calls_wait_here_and_not_in_the_pipe() -> None:
    big = "x" * 3_000_000  # more than a socket holds, both ways at once

    async def many(run: Run) -> bool:
        said = await asyncio.gather(*(run(told, 0.0, big) for _ in range(4 * AHEAD)))
        return all(what == big for _, what in said)

    assert use(1, many)


def test_an_error_is_the_callers() -> None:
    async def both(run: Run) -> int:
        with pytest.raises(ZeroDivisionError, match="the reason"):
            await run(refuse, "the reason")
        return (await run(told, 0.0, 7))[1]  # type: ignore[return-value]

    assert use(1, both) == 7


def test_a_caller_that_goes_away_leaves_the_others_their_values() -> None:
    async def story(run: Run) -> object:
        calls = [asyncio.ensure_future(run(told, 0.05, number)) for number in range(5)]
        await asyncio.sleep(0.02)
        for call in calls[:4]:
            call.cancel()
        return (await calls[4])[1]

    assert use(1, story) == 4


def test_a_killed_worker_is_one_sentence_for_everybody() -> None:
    async def story(run: Run) -> list[object]:
        pid, _ = await run(told, 0.0, 0)
        calls = [asyncio.ensure_future(run(told, 5.0, number)) for number in range(5)]
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        said: list[object] = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(RefinerError, match="was killed"):
            await run(told, 0.0, 0)
        return said

    assert all(isinstance(one, RefinerError) for one in use(1, story))


def test_work_under_way_is_not_waited_for_at_the_end() -> None:
    async def story(run: Run) -> int:
        pid, _ = await run(told, 0.0, 0)
        call = asyncio.ensure_future(run(told, 60.0, 1))
        await asyncio.sleep(0.05)
        call.cancel()
        return pid

    start = time.monotonic()
    assert gone(use(1, story))
    assert time.monotonic() - start < 30


def test_what_a_worker_does_not_get_to_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refine.workers.LATE", 0.5)

    async def story() -> tuple[list[tuple[int, object]], list[tuple[int, object]]]:
        workers = Workers(1)
        async with workers as run:
            pid = workers._workers[0].pid
            os.kill(pid, signal.SIGSTOP)  # as good as a machine that others have filled
            late = await asyncio.gather(*(run(told, 0.0, number) for number in range(3 * AHEAD)))
            with pytest.raises(ZeroDivisionError, match="the reason"):
                await run(refuse, "the reason")
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.5)  # for the answers that nobody wants any more
            return late, await asyncio.gather(*(run(told, 0.0, number) for number in "abcd"))

    late, then = asyncio.run(story())
    assert late == [(os.getpid(), number) for number in range(3 * AHEAD)]
    assert [what for _, what in then] == list("abcd")


def standing() -> tuple[int, int, set[int], int, str]:
    group = GROUP.read_text() if GROUP.exists() else f"nice {NICE}"
    return os.nice(0), os.sched_getscheduler(0), os.sched_getaffinity(0), os.getsid(0), group


def test_a_worker_stands_behind_everybody() -> None:
    nice, policy, cores, session, group = use(1, lambda run: run(standing))
    assert nice == NICE
    assert policy == os.SCHED_IDLE
    ours = sorted(os.sched_getaffinity(0))
    assert cores == set(ours[1:] or ours)
    assert session != os.getsid(0)
    assert group.split()[-2:] == ["nice", str(NICE)]


def test_a_worker_holds_no_file_of_ours(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w"):
        files = use(1, lambda run: run(open_files))
    assert len([name for name in files if name.startswith("socket:")]) == 1
    assert not [name for name in files if str(tmp_path) in name]


def test_a_worker_may_be_started_while_threads_read_captions() -> None:
    stop = False

    def read() -> None:
        number = 0
        while not stop:
            number += 1
            strip(f"On the left, there is a hut with {number} doors.")

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            assert use(1, lambda run: run(strip, "On the left, there is a hut.")).text == "There is a hut."
    finally:
        stop = True
        for thread in threads:
            thread.join()


def test_here_is_the_same_without_a_process() -> None:
    assert asyncio.run(here(told, 0.0, 3)) == (os.getpid(), 3)
    assert 1 <= judges() <= 8


BUSY = """
import asyncio, os, sys, time
sys.path.insert(0, sys.argv[1])
import refine.workers
from refine.workers import Workers
refine.workers.LATE = 60
async def main():
    async with Workers(2) as run:
        print(*await asyncio.gather(run(os.getpid), run(os.getpid)), flush=True)
        await asyncio.sleep(60)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_us(number: signal.Signals) -> None:
    root = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, root], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        # As a terminal's Ctrl-C comes to the whole group; the others to one process.
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        said, complaints = process.communicate(timeout=30)  # ends when nobody holds its output
        assert all(gone(pid) for pid in workers)
    assert (said, complaints) == (b"interrupted\n" if number == signal.SIGINT else b"", b"")
