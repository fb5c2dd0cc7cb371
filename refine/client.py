"""The HTTP client: sends chat-completions requests to one or several vLLM servers and waits out their troubles.

    async with Client(urls, server) as client:
        answer = await client.ask(body)

Every server has at most `in_flight` requests under way; a request goes to the one with the fewest. Connection errors,
timeouts, 429, 5xx and whatever makes no sense are tried again, elsewhere where there is an elsewhere; what a server
refuses for itself (REFUSED) is not, and what no request will get (NEVER, a redirect) ends the work. A server that
fails is left alone until its /health answers. Which server answered, how long it took and how often a request was sent
decide nothing: an answer is what the model said.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import TracebackType

import aiohttp

from refine.replies import Answer
from schemas.config import ServerConfig
from schemas.errors import RefinerError

TRIES = 6  # of a request that a living server fails to answer
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0  # seconds between them, doubling
KEEP_SECONDS = 4.0  # of an idle connection; uvicorn, and so vLLM, closes it after five
WATCH_SECONDS = 0.5
QUIET_SECONDS = 5.0  # a server is asked how it is when nothing came from it for so long
PROBE_SECONDS = 5.0
STORM = 20  # failures in a row of servers that call themselves healthy are no accident
REFUSED = (400, 413, 422)  # these speak of the request; whatever stands in neither table may be better next time
NEVER = {
    401: "wants an API key",
    403: "refuses us",
    404: "does not serve this model at this address",
    405: "takes no requests at this address",
    410: "serves nothing at this address any more",
}
PROBE = aiohttp.ClientTimeout(total=PROBE_SECONDS)
LONE = re.compile(r"[\ud800-\udfff]")
MOST_TOKENS = 2**63 - 1  # that SQLite holds
COUNTER = re.compile(r"^([\w:]+)(?:\{[^}]*\})? ([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)$", re.MULTILINE)


@dataclass
class Server:
    """What the client knows of one server.

    Attributes:
        heard: when it last answered anything, seconds of `time.monotonic`.
        up: whether requests go there; a failed request takes it away, an answer gives it back.
        missed: whether it failed to answer the last probe.
        trouble: what was wrong last.
    """

    url: str
    heard: float
    under_way: int = 0
    up: bool = True
    missed: bool = False
    trouble: str = "never answered"


class ServersGoneError(RefinerError):
    """No server answers any more, or none will serve these requests. Its sentence has no full stop yet."""


class _NoAnswerError(Exception):
    """This try came to nothing. `busy`: the server works but wants none now; `after`: for so many seconds."""

    def __init__(self, reason: str, *, busy: bool = False, after: float = 0.0) -> None:
        super().__init__(reason)
        self.busy = busy
        self.after = after


def one_line(text: str, most: int = 300) -> str:
    """The text on one line that can be stored, at most so many characters."""
    return LONE.sub("\ufffd", " ".join(text.split())[:most])


def _tokens(number: float | str | None) -> int:
    return min(max(0, int(number or 0)), MOST_TOKENS)


def read_answer(payload: bytes) -> Answer:
    """The answer in the body of a successful chat-completions response.

    Raises:
        ValueError: the body is none.
    """
    try:
        loaded = json.loads(payload)
        choice = loaded["choices"][0]
        text, finish = choice["message"]["content"], choice["finish_reason"]
        if not isinstance(finish, str) or not isinstance(text, str | None):
            raise TypeError(f"finish_reason {finish!r}")
        usage = loaded.get("usage") or {}
        tokens = _tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens"))
    except (ArithmeticError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ValueError(one_line(f"the server's answer is no chat completion: {error!r}")) from error
    if finish in ("rejected", "failed"):  # words of ours, see Answer
        finish = f"server: {finish}"
    return Answer(LONE.sub("\ufffd", text or ""), LONE.sub("\ufffd", finish), *tokens)


def _wait_asked(value: str | None) -> float:
    """Seconds that a Retry-After header asks for, given as a number or a date; 0 without a usable one."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | ConnectionError):
        return "the connection was dropped"
    return one_line(f"{type(error).__name__}: {error}".removesuffix(": "), 120)


class Client:
    """Requests to replicas of one model. To be used in one event loop, as an asynchronous context manager."""

    def __init__(self, urls: Sequence[str], config: ServerConfig) -> None:
        now = time.monotonic()
        self.config = config
        self.servers = [Server(url.rstrip("/").removesuffix("/v1"), now) for url in urls]
        self.sent = 0
        self._answered = now
        self._storm = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._look = asyncio.Event()
        self._asking: set[asyncio.Task[object]] = set()
        self._given_up: ServersGoneError | None = None

    async def __aenter__(self) -> "Client":
        room = self.config.in_flight * len(self.servers)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=room + len(self.servers), keepalive_timeout=KEEP_SECONDS),
            timeout=aiohttp.ClientTimeout(total=self.config.timeout),
            headers={"Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watcher
        await self._session.close()

    async def ask(self, body: bytes) -> Answer:
        """Send a request until something comes of it.

        Returns:
            The model's answer, or one that is `rejected` or `failed` with the reason as its text.

        Raises:
            ServersGoneError: no server has answered for `config.patience` seconds, or none will serve these requests.
        """
        if self._given_up:
            raise self._given_up
        task = asyncio.current_task()
        assert task is not None
        if not self._asking:  # nobody knows how the servers were while nothing was asked
            now = time.monotonic()
            self._answered = self._answered if self._storm else now
            for server in self.servers:
                server.heard = now
        self._asking.add(task)
        try:
            return await self._ask(body)
        except asyncio.CancelledError:
            if self._given_up:
                raise self._given_up from None
            raise
        finally:
            self._asking.discard(task)

    async def _ask(self, body: bytes) -> Answer:
        retries: list[str] = []
        failures = 0
        patient_until = time.monotonic() + self.config.timeout  # with servers that say they are busy
        while failures < TRIES:
            server = await self._take()
            try:
                answer = await self._send(server, body)
            except _NoAnswerError as trouble:
                server.trouble = str(trouble)
                retries.append(server.trouble)
                is_failure = not trouble.busy or time.monotonic() > patient_until
                failures += is_failure
                self._storm += is_failure
                doubled = FIRST_PAUSE if trouble.after else min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (len(retries) - 1))
                pause = min(trouble.after, self.config.timeout) + doubled * random.uniform(0.5, 1)
            else:
                return replace(answer, retries=tuple(retries))
            finally:
                self._give(server)
            if failures < TRIES:
                await asyncio.sleep(pause)
        return Answer(f"no answer in {len(retries)} tries, the last: {retries[-1]}", "failed", retries=tuple(retries))

    async def metrics(self) -> dict[str, float]:
        """Counters of all servers that have /metrics, summed by name; {} where there are none."""
        total: dict[str, float] = {}
        for server in self.servers:
            with contextlib.suppress(aiohttp.ClientError, OSError, UnicodeDecodeError):
                async with self._session.get(f"{server.url}/metrics", timeout=PROBE) as response:
                    text = await response.text() if response.status == 200 else ""
                for name, value in COUNTER.findall(text):
                    total[name] = total.get(name, 0.0) + float(value)
        return total

    async def _send(self, server: Server, body: bytes) -> Answer:
        """One try.

        Raises:
            _NoAnswerError: it came to nothing.
            ServersGoneError: the server will never serve these requests.
        """
        self.sent += 1
        url = f"{server.url}/v1/chat/completions"
        try:
            # aiohttp would follow a redirect with a GET, to which nobody has an answer.
            async with self._session.post(url, data=body, allow_redirects=False) as response:
                payload = await response.read()
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            self._leave(server)
            raise _NoAnswerError(_words(error)) from error
        status = response.status
        said = f"HTTP {status}: {one_line(payload.decode('utf-8', 'replace'))}"
        if status >= 500:
            self._leave(server)
            raise _NoAnswerError(said)
        self._heard(server)
        if status == 429:
            raise _NoAnswerError("HTTP 429", busy=True, after=_wait_asked(response.headers.get("Retry-After")))
        never = NEVER.get(status)
        if 300 <= status < 400:
            never = f"sends us on to {one_line(response.headers.get('Location', 'nowhere'))}"
        if never:
            raise ServersGoneError(f"{url} {never} ({said}): correct the URL or the model's name")
        if status == 200:
            try:
                answer = read_answer(payload)
            except ValueError as error:
                raise _NoAnswerError(str(error)) from error
        elif status in REFUSED:
            answer = Answer(said, "rejected")
        else:
            raise _NoAnswerError(said)
        self._answered, self._storm = time.monotonic(), 0
        return answer

    # --- who sends where --------------------------------------------------------------------------

    async def _take(self) -> Server:
        """A place at the server with the fewest requests under way; waits for one."""
        while True:
            free = [s for s in self.servers if s.up and s.under_way < self.config.in_flight]
            if free:
                server = min(free, key=lambda s: s.under_way)
                server.under_way += 1
                return server
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn

    def _give(self, server: Server) -> None:
        server.under_way -= 1
        self._next()

    def _next(self, places: int = 1) -> None:
        while places and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                places -= 1

    # --- who is alive -----------------------------------------------------------------------------

    def _heard(self, server: Server) -> None:
        server.heard = time.monotonic()
        if not server.up:
            server.up = True
            self._next(self.config.in_flight)

    def _leave(self, server: Server) -> None:
        """Leave a server alone until it has been visited."""
        server.up = False
        self._look.set()

    async def _watch(self) -> None:
        """Visit servers that failed, or fell silent while something is asked, for as long as there is hope."""
        while not self._given_up:
            if self._asking or not all(server.up for server in self.servers):
                try:
                    await asyncio.gather(*(self._visit(server) for server in self.servers))
                    if self._asking:
                        self._judge()
                except Exception as error:  # without a watch an ask might wait for ever
                    self._give_up(f"Watching over the servers failed ({error!r}): please report this")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):  # wait_for may swallow the cancellation that ends us
                    await self._look.wait()
            self._look.clear()

    async def _visit(self, server: Server) -> None:
        if server.up and time.monotonic() - server.heard < QUIET_SECONDS:
            return
        try:
            async with self._session.get(f"{server.url}/health", timeout=PROBE) as response:
                alive = response.status < 500  # another OpenAI-compatible server may have no /health
                trouble = f"HTTP {response.status} from /health"
        except (aiohttp.ClientError, OSError) as error:
            alive, trouble = False, _words(error)
        if not alive:
            server.up, server.missed, server.trouble = False, True, trouble
            return
        if server.missed:  # it was away, and what failed meanwhile says nothing about it now
            self._answered, self._storm = time.monotonic(), 0
        server.missed = False
        self._heard(server)

    def _judge(self) -> None:
        now = time.monotonic()
        silent = now - max((server.heard for server in self.servers), default=0.0)
        unanswered = now - self._answered
        told = ", ".join(f"{server.url}: {server.trouble}" for server in self.servers)
        if not any(server.up for server in self.servers):
            if silent > self.config.patience:
                self._give_up(
                    f"No vLLM server has answered since {_clock(silent)} ({told}): start it and repeat the command"
                )
        elif self._storm >= STORM and unanswered > self.config.patience:
            self._give_up(f"Every request has failed since {_clock(unanswered)} ({told}): read the server's log")

    def _give_up(self, sentence: str) -> None:
        self._given_up = ServersGoneError(sentence)
        for task in self._asking:
            task.cancel()


def _clock(seconds: float) -> str:
    return f"{datetime.now() - timedelta(seconds=seconds):%H:%M:%S}, {seconds:.0f} s ago"
