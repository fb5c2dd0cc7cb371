"""One big offline run: vLLM's own batch runner answers the same requests as a server would, into the same reply store.

    answer_in_batches(lambda: asks, model=model, config=config.refine, server=config.server,
                      store=dataset / ".work" / "replies.sqlite", folder=dataset / ".work" / "batch", report=report)
    rows = refine_all(asks, ..., urls=(), only_stored=True)

A round asks for every caption whose next reply the store lacks, so that refused ones get their retry in the next round.
A round is dealt to parts, each one run of `python -m vllm.entrypoints.openai.run_batch`, which writes its replies when
the part is done: what a kill can cost is one part.
"""

import contextlib
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from refine.client import REFUSED, STORM, one_line, read_answer
from refine.prompts import reply_key
from refine.replies import Answer, ReplyStore
from refine.server import (
    Model,
    Report,
    ended,
    engine_arguments,
    environment,
    last_words,
    log_lines,
    running,
    vllm_python,
)
from refine.vllm import Ask, Asker, GatesOf, Outcome, Tally, refine_one
from refine.workers import here
from schemas.config import RefineConfig, ServerConfig
from schemas.errors import ConfigError, RefinerError

PART_REQUESTS = 20_000  # the runner holds a part in memory, about 50 KB for each
PART_BYTES = 256 * 2**20
LOOK_SECONDS = 0.5
_PROGRESS = re.compile(r"Running batch:.* (\d+)/(\d+) \[")


@dataclass
class BatchTally:
    """What a batch run did.

    Attributes:
        rounds: times that all captions were gone through and some had to be asked about.
        asked: requests written for the runner; answered: those whose outcome is settled now; failed: those that the
            runner could not answer.
        malformed: lines of the runner's output that could not be read; their requests are asked again.
        unknown: lines that answer no request of the part.
    """

    rounds: int = 0
    asked: int = 0
    answered: int = 0
    failed: int = 0
    malformed: int = 0
    unknown: int = 0


class _LackingError(Exception):
    """The store knows nothing of a request."""

    def __init__(self, key: str, request: bytes) -> None:
        super().__init__(key)
        self.key = key
        self.request = request


class _Stored(Asker):
    """Answers from the store alone; the first request that it lacks is an error."""

    def __init__(self, store: ReplyStore, revision: str) -> None:
        super().__init__(store, None, revision, Tally(), here)

    async def outcome(self, request: bytes, gates_of: GatesOf) -> Outcome:
        key = reply_key(request, self.revision)
        stored = self.store.get(key)
        if stored is None or not stored.is_settled:
            raise _LackingError(key, request)
        return Outcome(stored, await gates_of(stored))


def wanted(
    asks: Iterable[Ask], *, model: Model, config: RefineConfig, store: ReplyStore
) -> Iterator[tuple[str, bytes]]:
    """Key and body of the next request of every caption that has one, each request once, in the order of the asks."""
    seen: set[bytes] = set()
    for ask in asks:
        try:  # it never waits for anything, so it needs no event loop
            refine_one(_Stored(store, model.revision), ask, model, config).send(None)
        except StopIteration:
            continue
        except _LackingError as lacking:
            key, request = lacking.key, lacking.request
        if bytes.fromhex(key) in seen:
            continue
        seen.add(bytes.fromhex(key))
        yield key, request


def write_requests(requests: Iterator[tuple[str, bytes]], path: Path) -> int:
    """Write the next part of the requests as OpenAI batch lines, whole or not at all; return their number."""
    number = size = 0
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as stream:
        while number < PART_REQUESTS and size < PART_BYTES and (following := next(requests, None)):
            key, request = following
            # The body as it is sent to a server, byte for byte: a reply's key is the hash of it.
            size += stream.write(
                b'{"custom_id":"%s","method":"POST","url":"/v1/chat/completions","body":%s}\n' % (key.encode(), request)
            )
            number += 1
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(path)
    return number


def _bodies(requests: Path) -> dict[str, tuple[int, int]]:
    """Where the body of each request stands in a file of requests: key -> (offset, bytes)."""
    places = {}
    with requests.open("rb") as stream:
        start = 0
        for line in stream:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # not as write_requests writes it
                key = json.loads(line)["custom_id"]
                before = line.index(b'"body":') + len(b'"body":')
                places[key] = (start + before, len(line) - before - len(b"}\n"))
            start += len(line)
    return places


def _outcome(line: bytes) -> tuple[str, Answer]:
    """Key and answer in one line of the runner's output.

    Raises:
        ValueError: it is none, or only half of one.
    """
    try:
        row = json.loads(line)
        key, response, error = row["custom_id"], row["response"] or {}, row["error"]
        if not isinstance(key, str):
            raise TypeError("custom_id")
        body, status = response.get("body"), int(response.get("status_code") or 0)
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as trouble:
        raise ValueError(f"no line of a batch's output: {trouble!r}") from trouble
    if body is not None and not error:
        return key, read_answer(json.dumps(body).encode())
    said = one_line(f"HTTP {status}: {json.dumps(error, ensure_ascii=False)}")
    return key, Answer(said, "rejected" if status in REFUSED else "failed")


def read_replies(replies: Path, requests: Path, store: ReplyStore, revision: str, tally: BatchTally) -> None:
    """Keep what the runner answered to a part; a reply that is missing or cannot be read is simply asked for again.

    Args:
        replies: the runner's output; it may be absent, or cut off anywhere.
        requests: the part, as `write_requests` wrote it.
        revision: the model's.
        tally: counts are added to it.
    """
    if not replies.exists() or not requests.exists():
        return
    places = _bodies(requests)
    with replies.open("rb") as lines, requests.open("rb") as bodies:
        for line in lines:
            if not line.strip():
                continue
            try:
                key, answer = _outcome(line)
            except ValueError:
                tally.malformed += 1
                continue
            offset, size = places.get(key, (0, 0))
            bodies.seek(offset)
            body = bodies.read(size)
            if reply_key(body, revision) != key:
                tally.unknown += 1
                continue
            store.put(key, body, answer)
            tally.answered += answer.is_settled
            tally.failed += not answer.is_settled


def run(
    requests: Path, replies: Path, log: Path, *, model: Model, server: ServerConfig, tell: Callable[[int, str], None]
) -> None:
    """Let vLLM's batch runner answer a file of requests.

    Args:
        tell: gets the number of requests done and the runner's last log line, about once a second.

    Raises:
        RefinerError: vLLM is not installed, or the runner failed.
    """
    command = [
        *(vllm_python(server), "-m", "vllm.entrypoints.openai.run_batch", "-i", str(requests), "-o", str(replies)),
        *engine_arguments(model, server),
    ]
    with running(command, environment(model, server), log) as process:
        while process.poll() is None:
            lines = log_lines(log, 4096)
            found = [match for line in lines if (match := _PROGRESS.match(line))]
            tell(int(found[-1][1]) if found else 0, lines[-1][:200] if lines else "starting vLLM")
            time.sleep(LOOK_SECONDS)
        if process.returncode:
            raise RefinerError(
                f"vLLM's batch runner failed ({ended(process)}); its last words: {last_words(log)}; the whole log is "
                f"{log}; replies that came earlier are kept."
            )


def answer_in_batches(
    asks: Callable[[], Iterable[Ask]],
    *,
    model: Model,
    config: RefineConfig,
    server: ServerConfig,
    store: Path,
    folder: Path,
    report: Report,
) -> BatchTally:
    """Fill the reply store until no caption has a request left to be sent; a second run sends nothing.

    Args:
        asks: gives all captions anew, once for every round.
        store: the reply store; made if absent.
        folder: for requests, replies and the log of the part under way; a killed run's leftovers there are read first.
        report: gets the step "batch" with the requests done in this part and of how many.

    Raises:
        RefinerError: vLLM is not installed, the runner failed, or it answered nothing of a whole round.
        ConfigError: servers are given too.
    """
    if server.urls:
        raise ConfigError(
            "server.batch", "runs a vLLM of its own: leave it out, or leave out server.urls (--vllm-url)."
        )
    folder.mkdir(parents=True, exist_ok=True)
    requests, replies, log = (folder / name for name in ("requests.jsonl", "replies.jsonl", "vllm-batch.log"))
    tally = BatchTally()
    with ReplyStore(store) as kept:
        read_replies(replies, requests, kept, model.revision, tally)
        for number in itertools.count(1):
            pending = wanted(asks(), model=model, config=config, store=kept)
            asked, answered, failed = tally.asked, tally.answered, tally.failed
            while True:
                replies.unlink(missing_ok=True)
                part = write_requests(pending, requests)
                if not part:
                    break
                tally.asked += part

                def tell(done: int, line: str, part: int = part, number: int = number) -> None:
                    report("batch", done, part, f"round {number}: {line}")

                run(requests, replies, log, model=model, server=server, tell=tell)
                read_replies(replies, requests, kept, model.revision, tally)
                report("batch", part, part, f"round {number}: {tally.answered:,} answered so far")
            requests.unlink(missing_ok=True)
            if tally.asked == asked:
                break
            tally.rounds += 1
            if tally.answered == answered and tally.failed > failed and tally.asked - asked < STORM:
                break  # a few that the runner cannot answer are left to the rules, and to the next run
            if tally.answered == answered:
                raise RefinerError(
                    f"vLLM's batch runner answered none of {tally.asked - asked:,} requests ({tally.malformed:,} lines "
                    f"of its output could not be read); see {log}."
                )
    return tally
