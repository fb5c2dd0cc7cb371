"""Processes beside an event loop: they judge replies while it sends requests, in processor time that nobody else wants.

    async with Workers(judges()) as run:
        gates = await run(check, platform, source, reply)

A reply takes milliseconds of processor time to judge. Spent in the loop they would delay the next request; spent at the
loop's priority they would be taken from a vLLM server that shares the processor. So workers stand behind everybody
else, and what they do not get to within a second, because others take all there is, is done in the loop after all. They
are forked: they start at once, with the word lists that this process has read, and keep nothing else of it, no socket
and no file. They end when the block is left, and with this process however that one goes.
"""

import asyncio
import contextlib
import gc
import os
import pickle
import signal
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar

from schemas.errors import RefinerError

NICE = 19  # the lowest: what is late is done in the loop
GROUP = Path("/proc/self/autogroup")
GROUP_SECONDS = 2.0  # the kernel lets one process in a tenth of a second set it
LATE = 1.0  # seconds that a call may wait for a worker
MOST = 8  # workers of one loop, which cannot keep more of them busy
AHEAD = 2  # calls that a worker is given at once: one to do, and one so that it never waits for the next
SELDOM = 100_000  # objects made between two looks for cycles, of which judging leaves none: else a tenth of the time
P = ParamSpec("P")
T = TypeVar("T")


class Run(Protocol):
    """Calls a function, here or elsewhere."""

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]: ...


async def here(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it in this thread, at once."""
    return function(*args, **kwargs)


def judges() -> int:
    """How many workers this machine should have: one core is the loop's."""
    return max(1, min(MOST, len(os.sched_getaffinity(0)) - 1))


@dataclass(eq=False, slots=True)
class _Call:
    """What is to be done, since when, and who waits for it."""

    do: Callable[[], Any]
    future: asyncio.Future[Any]
    since: float = field(default_factory=time.monotonic)


class _Worker:
    """One process, what it was asked to do, and the two ends of the talk with it."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.reader = reader
        self.writer = writer
        self.promised: deque[_Call] = deque()


class Workers:
    """So many processes for the calls of one event loop; calls are done in any order."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._workers: list[_Worker] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: deque[_Call] = deque()
        self._lost: RefinerError | None = None

    async def __aenter__(self) -> Run:
        try:
            for _ in range(self._number):
                worker = await _started()
                self._workers.append(worker)
                self._tasks.append(asyncio.create_task(self._listen(worker)))
            self._tasks.append(asyncio.create_task(self._help()))
        except BaseException:
            await self._end()
            raise
        return self._run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self._workers:
            worker.writer.close()
            # It keeps nothing, so that it need not be asked; whoever waits for any child may have been told already.
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
            with contextlib.suppress(OSError):
                await worker.writer.wait_closed()

    async def _run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of a module in a worker, or here if none gets to it; arguments, value and error are pickled.

        Raises:
            RefinerError: a worker was killed.
        """
        if self._lost:
            raise self._lost
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(partial(function, *args, **kwargs), future))
        self._deal()
        return await future

    def _deal(self) -> None:
        while self._waiting:
            worker = min(self._workers, key=lambda one: len(one.promised))
            if len(worker.promised) >= AHEAD:
                return
            call = self._waiting.popleft()
            if not call.future.done():  # whoever wanted it has gone
                worker.promised.append(call)
                sent = pickle.dumps(call.do)
                worker.writer.write(len(sent).to_bytes(8) + sent)

    async def _help(self) -> None:
        """Do here what is late; a worker's answer to it comes to nothing."""
        while True:
            promised = (call for worker in self._workers for call in worker.promised)
            calls = [call for call in (*promised, *self._waiting) if not call.future.done()]
            oldest = min(calls, key=lambda call: call.since, default=None)
            if oldest is None or (wait := oldest.since + LATE - time.monotonic()) > 0:
                await asyncio.sleep(wait if oldest else LATE)
                continue
            try:
                oldest.future.set_result(oldest.do())
            except Exception as error:
                oldest.future.set_exception(error)
            await asyncio.sleep(0)

    async def _listen(self, worker: _Worker) -> None:
        try:
            while True:
                size = int.from_bytes(await worker.reader.readexactly(8))
                value, error = pickle.loads(await worker.reader.readexactly(size))
                future = worker.promised.popleft().future
                self._deal()
                if future.done():
                    continue
                if error is None:
                    future.set_result(value)
                else:
                    future.set_exception(error)
        except (asyncio.IncompleteReadError, ConnectionError):
            self._lost = RefinerError(
                "A process that judges replies was killed: free memory and run again; replies that came are kept."
            )
            unanswered = [call for one in self._workers for call in one.promised]
            for call in [*unanswered, *self._waiting]:
                if not call.future.done():
                    call.future.set_exception(self._lost)
            self._waiting.clear()


async def _started() -> _Worker:
    """A new worker.

    Raises:
        RefinerError: the machine has no room for one.
    """
    ours, theirs = socket.socketpair()
    try:
        pid = os.fork()
    except OSError as error:
        ours.close()
        theirs.close()
        raise RefinerError(
            f"No process could be started to judge replies ({error.strerror}): free memory or processes, and run again."
        ) from error
    if not pid:
        try:
            _work(theirs)
        finally:
            os._exit(0)  # nothing of what this process was is to be ended by its copy
    theirs.close()
    return _Worker(pid, *await asyncio.open_connection(sock=ours))


def _work(calls: socket.socket) -> None:
    """In the worker: do what comes until the other end is gone."""
    # A Ctrl-C is for the process that started us; how it would react to signals is not ours.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Copies of its sockets, pipes and locked files would keep them open after its end.
    os.closerange(3, calls.fileno())
    os.closerange(calls.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
    _stand_back()
    gc.freeze()  # to look through what we were would be to copy it
    gc.set_threshold(SELDOM)
    while len(head := calls.recv(8, socket.MSG_WAITALL)) == 8:
        do = pickle.loads(calls.recv(int.from_bytes(head), socket.MSG_WAITALL))
        try:
            said = pickle.dumps((do(), None))
        except Exception as error:
            said = pickle.dumps((None, error))
        calls.sendall(len(said).to_bytes(8) + said)


def _stand_back() -> None:
    """Take this process behind all others of the machine, as far as the machine lets us.

    Idle tasks are put off at once by whoever wakes up, and their core counts as free; one core is left to others
    altogether, for a core that falls idle for an instant would fetch a task that then stands in the way. Linux weighs
    a session as one against other sessions, and what is nice within ours is nothing to a server in its own.
    """
    os.setsid()
    os.nice(NICE)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[1:])  # of a single core nothing is left: refused
    until = time.monotonic() + GROUP_SECONDS
    while time.monotonic() < until:
        try:
            GROUP.write_text(str(NICE))
            return
        except BlockingIOError:  # another process was let before us
            time.sleep(0.02)
        except OSError:
            return  # there are no such groups here, or they are not ours to set
