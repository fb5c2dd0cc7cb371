"""Processes beside an event loop: they judge replies while it sends requests, at a priority that yields to a server.

    async with Workers(judges()) as run:
        gates = await run(check, platform, source, reply)

A reply takes milliseconds of processor time to judge. Spent in the loop they would delay the next request; spent at the
loop's priority they would be taken from a vLLM server that shares the processor. Workers are forked: they start at
once, with the word lists that this process has read, and keep nothing else of it, no socket and no file. They end
when the block is left, and with this process however that one goes.
"""

import asyncio
import contextlib
import gc
import os
import pickle
import signal
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar

from schemas.errors import RefinerError

# Low, but not the lowest: beside others that take all they can get, replies must still be judged as fast as they come.
NICE = 5
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
    return max(1, min(MOST, (os.cpu_count() or 1) - 1))


class _Worker:
    """One process, what it was asked to do, and the two ends of the talk with it."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.reader = reader
        self.writer = writer
        self.promised: deque[asyncio.Future[Any]] = deque()


class Workers:
    """So many processes for the calls of one event loop; calls are done in any order."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._workers: list[_Worker] = []
        self._listening: list[asyncio.Task[None]] = []
        self._waiting: deque[tuple[bytes, asyncio.Future[Any]]] = deque()
        self._lost: RefinerError | None = None

    async def __aenter__(self) -> Run:
        try:
            for _ in range(self._number):
                worker = await _started()
                self._workers.append(worker)
                self._listening.append(asyncio.create_task(self._listen(worker)))
        except BaseException:
            await self._end()
            raise
        return self._run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        for worker in self._workers:
            worker.writer.close()
            # It keeps nothing, so that it need not be asked; whoever waits for any child may have been told already.
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
            with contextlib.suppress(OSError):
                await worker.writer.wait_closed()

    async def _run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of a module in a worker; arguments, value and error are pickled.

        Raises:
            RefinerError: a worker was killed.
        """
        if self._lost:
            raise self._lost
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((pickle.dumps((function, args, kwargs)), future))
        self._deal()
        return await future

    def _deal(self) -> None:
        while self._waiting:
            worker = min(self._workers, key=lambda one: len(one.promised))
            if len(worker.promised) >= AHEAD:
                return
            call, future = self._waiting.popleft()
            if not future.done():  # whoever wanted it has gone
                worker.promised.append(future)
                worker.writer.write(len(call).to_bytes(8) + call)

    async def _listen(self, worker: _Worker) -> None:
        try:
            while True:
                size = int.from_bytes(await worker.reader.readexactly(8))
                value, error = pickle.loads(await worker.reader.readexactly(size))
                future = worker.promised.popleft()
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
            unanswered = [future for one in self._workers for future in one.promised]
            for future in [*unanswered, *(future for _, future in self._waiting)]:
                if not future.done():
                    future.set_exception(self._lost)
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
    os.nice(NICE)
    gc.freeze()  # to look through what we were would be to copy it
    gc.set_threshold(SELDOM)
    while len(head := calls.recv(8, socket.MSG_WAITALL)) == 8:
        function, args, kwargs = pickle.loads(calls.recv(int.from_bytes(head), socket.MSG_WAITALL))
        try:
            said = pickle.dumps((function(*args, **kwargs), None))
        except Exception as error:
            said = pickle.dumps((None, error))
        calls.sendall(len(said).to_bytes(8) + said)
