"""Refinement by a model behind vLLM: ask about every caption, judge the reply, ask again, or leave it to the rules.

    for ask, refined in refine_all(asks, model=model, config=config.refine, server=config.server, urls=urls,
                                   store=dataset / ".work" / "replies.sqlite", report=report):

What comes of a caption depends on the caption, the configuration and the stored replies alone: the same store gives
the same `Refined`, whoever sent the requests, when, and in which order.

The event loop sends, reads and stores; gates and rules are called in processes beside it (refine.workers), so that no
request waits for a judgement. A reply is stored when it comes, before it is judged.
"""

import asyncio
import contextlib
import itertools
import json
import queue
import threading
import time
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from refine import judge
from refine.client import Client, ServersGoneError
from refine.gates import check, passed
from refine.prompts import body, prompt_version, reasons, reply_key, sendable
from refine.refinement import refine_stripped
from refine.replies import Answer, ReplyStore
from refine.server import Model
from refine.workers import Run, Workers, judges
from schemas.config import RefineConfig, ServerConfig
from schemas.errors import RefinerError
from schemas.records import PLATFORMS, GateResult, Platform, Refined, Stripped

Report = Callable[[str, int, int, str], None]  # step, done, total (0: not known), detail
Gates = tuple[GateResult, ...]
GatesOf = Callable[[Answer], Awaitable[Gates]]

WINDOW = 2  # captions held, per request that may be under way: as many wait to be sent
BACKLOG = 256  # and those whose replies wait to be judged: beside a busy server the judges fall behind for seconds
REPORT_SECONDS = 0.5
RATE_REPORTS = 40  # the rates shown are those of the last so many reports
WARM = Stripped("A building stands next to a road.")
UNSENT = Answer("only stored replies were wanted", "failed")
LOOK_AHEAD = 1024  # lines read beyond the first that has no answer yet


@dataclass(frozen=True, slots=True)
class Ask:
    """One caption to refine; `tag` is the caller's name for it, `image` the encoded picture to show with it."""

    stripped: Stripped
    platform: Platform
    image: bytes | None
    tag: Hashable


@dataclass
class Tally:
    """What a run did.

    Attributes:
        captions: refined in any way; accepted + fallbacks + empty.
        sent: requests that went to a server, the repeated ones (`retries`) among them.
        stored: answers taken from the store instead.
        fallbacks: number of captions left to the rules, by the first gate that refused the last reply; `answered`
            where no reply came.
        prompt_tokens, completion_tokens: of the answers that came.
        prefix_hit_rate: share of prompt tokens that the servers had in their prefix cache; None: they do not say.
    """

    captions: int = 0
    accepted: int = 0
    empty: int = 0
    fallbacks: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    retries: int = 0
    stored: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prefix_hit_rate: float | None = None

    def count(self, row: Refined) -> None:
        self.captions += 1
        self.accepted += row.status == "refined"
        self.empty += row.status == "empty"
        if row.status == "fallback":
            reason = next(gate.gate for gate in row.gates if not gate.passed)
            self.fallbacks[reason] = self.fallbacks.get(reason, 0) + 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer and what the gates say of it."""

    answer: Answer
    gates: Gates


class Asker:
    """Answers to requests: from the store, from a request under way, or from a server. `run` is who judges them."""

    def __init__(self, store: ReplyStore, client: Client | None, revision: str, tally: Tally, run: Run) -> None:
        self.store = store
        self.client = client
        self.revision = revision
        self.tally = tally
        self.run = run
        self._under_way: dict[str, asyncio.Future[Outcome]] = {}

    async def outcome(self, request: bytes, gates_of: GatesOf) -> Outcome:
        """What came of a request; it `failed` when there is no client and the store does not know it."""
        key = reply_key(request, self.revision)
        stored = self.store.get(key)
        if stored is not None and (self.client is None or stored.is_settled):
            self.tally.stored += 1
            return Outcome(stored, await self._judged(key, stored, gates_of))
        if self.client is None:
            return Outcome(UNSENT, await gates_of(UNSENT))
        if key in self._under_way:
            return await self._under_way[key]
        promise = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            outcome = await self._ask(self.client, key, request, gates_of)
            promise.set_result(outcome)
        finally:
            promise.cancel()
            del self._under_way[key]
        return outcome

    async def _ask(self, client: Client, key: str, request: bytes, gates_of: GatesOf) -> Outcome:
        answer = await client.ask(request)
        self.tally.retries += len(answer.retries)
        self.tally.prompt_tokens += answer.prompt_tokens
        self.tally.completion_tokens += answer.completion_tokens
        kept = self.store.put(key, request, answer)
        return Outcome(kept, await self._judged(key, kept, gates_of))

    async def _judged(self, key: str, answer: Answer, gates_of: GatesOf) -> Gates:
        """What the gates say of a stored answer; why they refuse it stands beside it from then on."""
        gates = await gates_of(answer)
        if not answer.refused and (why := reasons(gates)):
            self.store.refuse(key, why)
        return gates


async def _gates(run: Run, platform: Platform, source: str, answer: Answer) -> Gates:
    """What the gates say of an answer."""
    if not answer.is_reply:
        return (GateResult("answered", False, answer.text),)
    if answer.finish != "stop":
        return (GateResult("finished", False, f"the reply did not end, it was stopped by '{answer.finish}'"),)
    return await run(check, platform, source, answer.text)


async def refine_one(asker: Asker, ask: Ask, model: Model, config: RefineConfig) -> Refined:
    """One caption: attempts until a reply passes, then the rules."""
    if not ask.stripped.text.strip():
        return refine_stripped(ask.stripped, ask.platform)
    source = sendable(ask.stripped.text)  # what the model reads is what its reply is judged by
    gates: Gates = ()
    key = reply = ""
    is_settled = True
    for attempt in range(config.attempts):
        request = body(
            model.name, ask.platform, source, config, attempt=attempt, refused=reasons(gates), image=ask.image
        )
        outcome = await asker.outcome(request, partial(_gates, asker.run, ask.platform, source))
        is_settled = is_settled and outcome.answer.is_settled
        if not outcome.answer.is_reply:
            key = key or reply_key(request, model.revision)
            gates += outcome.gates
            break
        key, reply, gates = reply_key(request, model.revision), outcome.answer.text, outcome.gates
        if passed(gates) and config.judge:
            verdict = await _verdict(asker, model, source, reply, config)
            is_settled = is_settled and verdict.answer.is_settled
            gates += verdict.gates
        if passed(gates):
            break
    row = Refined(
        stripped=ask.stripped,
        refined="",
        queries=(),
        final="",
        status="refined",
        gates=gates,
        refiner=f"vllm:{model.name}@{model.revision[:12]}",
        prompt_version=prompt_version(ask.platform),
        reply_key=key,
        reply=reply,
        is_settled=is_settled,
    )
    if passed(gates):
        said = json.loads(reply)
        caption = said["caption"].strip()
        return replace(row, refined=caption, final=caption, queries=tuple(q.strip() for q in said["queries"]))
    rules = await asker.run(refine_stripped, ask.stripped, ask.platform)
    return replace(row, status="fallback", refined=rules.refined, final=rules.final, queries=rules.queries)


async def _verdict(asker: Asker, model: Model, source: str, reply: str, config: RefineConfig) -> Outcome:
    """What the model itself says of a reply that the other gates let pass."""
    request = judge.body(model.name, source, reply, config)

    async def gates_of(answer: Answer) -> Gates:
        return (judge.gate(answer),)

    return await asker.outcome(request, gates_of)


@contextlib.asynccontextmanager
async def _opened(
    model: Model, config: RefineConfig, server: ServerConfig, urls: Sequence[str], store: Path, tally: Tally
) -> AsyncIterator[Callable[[Ask], Coroutine[Any, Any, Refined]]]:
    """Yields the function that refines one caption; without URLs it sends nothing."""
    async with contextlib.AsyncExitStack() as stack:
        for platform in PLATFORMS:  # read the word lists once, for all workers
            refine_stripped(WARM, platform)
        run = await stack.enter_async_context(Workers(judges()))
        replies = stack.enter_context(ReplyStore(store))
        client = await stack.enter_async_context(Client(urls, server)) if urls else None
        before = await client.metrics() if client else {}
        asker = Asker(replies, client, model.revision, tally, run)
        try:
            yield lambda ask: refine_one(asker, ask, model, config)
        except ServersGoneError as error:
            raise RefinerError(f"{error}; the {len(replies):,} replies in {store} are kept.") from error
        finally:
            tally.sent += client.sent if client else 0
        tally.prefix_hit_rate = _hit_rate(before, await client.metrics() if client else {})


def _hit_rate(before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    """Share of prompt tokens found in the prefix cache between two readings of vLLM's counters, 0..1."""
    names = [f"vllm:prefix_cache_{what}_total" for what in ("hits", "queries")]
    if not all(name in before and name in after for name in names):
        return None
    hits, queries = (after[name] - before[name] for name in names)
    return hits / queries if 0 <= hits <= queries and queries else None  # a restarted server counts anew


class _Pump:
    """An event loop in a thread: asks go in from a second thread, refined captions come out in the caller's.

    At most `window` asks are held between the iterator they are read from and the caller.
    """

    def __init__(
        self,
        asks: Iterable[Ask],
        opened: contextlib.AbstractAsyncContextManager[Callable[[Ask], Coroutine[Any, Any, Refined]]],
        window: int,
    ) -> None:
        self._asks = asks
        self._opened = opened
        self._window = threading.Semaphore(window)
        self._results: queue.SimpleQueue[tuple[Ask, Refined] | BaseException | None] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._tasks: set[asyncio.Task[Refined]] = set()
        self._all_read = False
        self._stopped = False

    def __iter__(self) -> Iterator[tuple[Ask, Refined]]:
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._work(),), name="vllm requests")
        thread.start()
        try:
            while (item := self._results.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                self._window.release()
                yield item
        finally:
            self._stopped = True
            self._window.release()  # the reader may be waiting for room
            self._loop.call_soon_threadsafe(self._end, None)
            thread.join()
            self._loop.close()

    async def _work(self) -> None:
        try:
            async with self._opened as refine:
                # A daemon: it may be waiting for a line that never comes.
                threading.Thread(target=self._read, args=(refine,), name="vllm asks", daemon=True).start()
                try:
                    await self._done
                finally:
                    for task in self._tasks:
                        task.cancel()
                    await asyncio.gather(*self._tasks, return_exceptions=True)
            self._results.put(None)
        except BaseException as error:
            self._results.put(error)

    def _read(self, refine: Callable[[Ask], Coroutine[Any, Any, Refined]]) -> None:
        """In the reading thread: pass asks on while there is room."""
        error: BaseException | None = None
        try:
            for ask in self._asks:
                self._window.acquire()
                if self._stopped:
                    return
                self._loop.call_soon_threadsafe(self._begin, ask, refine)
        except BaseException as reason:
            error = reason
        with contextlib.suppress(RuntimeError):  # the loop is closed: the caller has stopped
            self._loop.call_soon_threadsafe(self._read_all, error)

    def _read_all(self, error: BaseException | None) -> None:
        self._all_read = True
        if error or not self._tasks:
            self._end(error)

    def _begin(self, ask: Ask, refine: Callable[[Ask], Coroutine[Any, Any, Refined]]) -> None:
        if self._done.done():
            return
        task = self._loop.create_task(refine(ask))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._finished(ask, done))

    def _finished(self, ask: Ask, task: "asyncio.Task[Refined]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._results.put((ask, task.result()))
        if error or (self._all_read and not self._tasks):
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if not self._done.done():
            if error:
                self._done.set_exception(error)
            else:
                self._done.set_result(None)


def refine_all(
    asks: Iterable[Ask],
    *,
    model: Model,
    config: RefineConfig,
    server: ServerConfig,
    urls: Sequence[str],
    store: Path,
    report: Report,
    only_stored: bool = False,
    tally: Tally | None = None,
    total: int = 0,
) -> Iterator[tuple[Ask, Refined]]:
    """Refine captions by the model, each once, in the order in which they are done.

    Args:
        asks: read as they are wanted, in a thread of their own; those of one platform should stand together, for the
            servers' prefix cache.
        urls: servers of the model; none are needed with `only_stored`.
        store: the reply store; made if absent.
        report: called at most twice a second with the captions done, `total`, and the rates of the last seconds.
        only_stored: send nothing; a caption without an accepted reply in the store becomes a fallback.
        tally: filled in as the work goes on.

    Raises:
        RefinerError: no server answers any more, or none will serve these requests; replies that came are kept.
    """
    tally = Tally() if tally is None else tally
    urls = () if only_stored else tuple(urls)
    if not urls and not only_stored:
        raise RefinerError("No vLLM server is named: give --vllm-url, or let georefine start one.")
    window = WINDOW * server.in_flight * max(1, len(urls)) + BACKLOG
    seen = deque([(time.monotonic(), 0, 0)], maxlen=RATE_REPORTS)
    for ask, row in _Pump(asks, _opened(model, config, server, urls, store, tally), window):
        tally.count(row)
        if time.monotonic() - seen[-1][0] >= REPORT_SECONDS:
            seen.append((time.monotonic(), tally.captions, tally.completion_tokens))
            report("refine", tally.captions, total, _rates(seen, tally))
        yield ask, row
    report("refine", tally.captions, total or tally.captions, _rates(seen, tally))


def _rates(seen: Sequence[tuple[float, int, int]], tally: Tally) -> str:
    (start, captions, tokens), (end, _, _) = seen[0], (time.monotonic(), 0, 0)
    seconds = max(end - start, 1e-3)
    kept = tally.accepted / max(1, tally.captions - tally.empty)
    return (
        f"{(tally.captions - captions) / seconds:.1f} captions/s, "
        f"{(tally.completion_tokens - tokens) / seconds:,.0f} tokens/s, {kept:.0%} accepted"
    )


def in_order(
    stripped: Iterable[Stripped],
    platform: Platform,
    *,
    model: Model,
    config: RefineConfig,
    server: ServerConfig,
    urls: Sequence[str],
    store: Path,
    report: Report,
) -> Iterator[Refined]:
    """Refine captions of one platform, in the order given: each as soon as it and those before it are done.

    `functools.partial` of it is a refiner for `refine.refinement.refine_lines`.
    """
    room = threading.Semaphore(LOOK_AHEAD)

    def asks() -> Iterator[Ask]:
        for number, one in enumerate(stripped):
            room.acquire()
            yield Ask(one, platform, None, number)

    waiting: dict[Hashable, Refined] = {}
    numbers = itertools.count()
    number = next(numbers)
    done = refine_all(asks(), model=model, config=config, server=server, urls=urls, store=store, report=report)
    try:
        for ask, row in done:
            waiting[ask.tag] = row
            while number in waiting:
                yield waiting.pop(number)
                room.release()
                number = next(numbers)
    finally:
        room.release()  # the reader may be waiting for room
