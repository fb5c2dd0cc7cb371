"""The reply store: what became of every request to a model, in one SQLite file that outlives a kill -9.

    with ReplyStore(dataset / ".work" / "replies.sqlite") as store:
        answer = store.get(key)

A row is keyed by the hash of the exact request and the model's revision (`refine.prompts.reply_key`). Whatever `put`
has returned is kept: each call is a transaction of its own in a write-ahead log. A power cut may cost the last few
rows, never the file. Several processes may use one store; the first answer to a request is everybody's.
"""

import json
import re
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from schemas.errors import RefinerError

SCHEMA_VERSION = 1
BUSY_SECONDS = 60.0
# A picture is in the data set already: what is kept of it in a request is its kind and length.
PICTURE = re.compile(rb'data:image/(\w+);base64,([^"]{64})([^"]*)')
CREATE = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,               -- sha256 of request and model revision, hexadecimal
    finish TEXT NOT NULL,               -- stop | length | ... as the server said; rejected | failed: no reply
    reply TEXT NOT NULL,                -- the model's words as they came, or why there are none
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    retries TEXT NOT NULL,              -- JSON list: why the request was sent again
    refused TEXT NOT NULL,              -- JSON list: why the gates refused the reply when it came
    request BLOB NOT NULL               -- zlib of the request's JSON, pictures left out
) WITHOUT ROWID
"""
PUT = """
INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
    finish = excluded.finish, reply = excluded.reply, prompt_tokens = excluded.prompt_tokens,
    completion_tokens = excluded.completion_tokens, retries = excluded.retries, refused = excluded.refused
WHERE replies.finish = 'failed'
"""
REFUSE = "UPDATE replies SET refused = ? WHERE key = ?"
GET = "SELECT reply, finish, prompt_tokens, completion_tokens, retries, refused FROM replies WHERE key = ?"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request.

    Attributes:
        text: the model's words as they came; for `rejected` and `failed` the reason in one line.
        finish: the server's finish_reason ("stop": the reply is whole), or `rejected`: the server will never take this
            request (HTTP 400, 413, 422), or `failed`: no answer came, though the server was asked several times.
        retries: why the request was sent again, one entry each.
        refused: why the gates refused the text.
    """

    text: str
    finish: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def is_settled(self) -> bool:
        """Whether asking again is of no use."""
        return self.finish != "failed"

    @property
    def is_reply(self) -> bool:
        """Whether a model said it."""
        return self.finish not in ("rejected", "failed")


class ReplyStore:
    """Replies by key. One object may be used by several threads, one after the other; every process opens its own."""

    def __init__(self, path: Path) -> None:
        """Open the store, or make it.

        Raises:
            RefinerError: the file is damaged, of a newer georefine, or cannot be opened.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained():
            # autocommit: a put is in the file's log when it returns
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise RefinerError(
                f"The reply store {self.path} was written by a newer georefine (version {version}, this one reads "
                f"{SCHEMA_VERSION}): use that one, or move the file aside."
            )
        if version < SCHEMA_VERSION:
            self._db.execute("BEGIN EXCLUSIVE")  # processes that start together make the table one after the other
            self._db.execute(CREATE)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._db.execute("COMMIT")
        self._log_ahead()
        self._db.execute("PRAGMA synchronous = NORMAL")

    def _log_ahead(self) -> None:
        """Turn the write-ahead log on; SQLite refuses that at once, without waiting, while somebody uses the file."""
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            time.sleep(0.02)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise RefinerError(
                f"The reply store {self.path} cannot be used ({error}): see to free space and permissions, then run "
                "again; what it holds is kept."
            ) from error
        except sqlite3.DatabaseError as error:
            raise RefinerError(
                f"The reply store {self.path} is damaged ({error}): move it aside and run again; its captions will be "
                "asked anew."
            ) from error

    def get(self, key: str) -> Answer | None:
        """What became of the request, or None if it was never sent."""
        with self._explained():
            row = self._db.execute(GET, (key,)).fetchone()
        if row is None:
            return None
        text, finish, prompt_tokens, completion_tokens, retries, refused = row
        return Answer(
            text, finish, prompt_tokens, completion_tokens, tuple(json.loads(retries)), tuple(json.loads(refused))
        )

    def put(self, key: str, request: bytes, answer: Answer) -> Answer:
        """Keep an answer; what is returned survives a kill -9.

        Returns:
            The answer that the store holds: an earlier one where there was one, unless that had `failed`.
        """
        row = (
            key,
            answer.finish,
            answer.text,
            answer.prompt_tokens,
            answer.completion_tokens,
            json.dumps(answer.retries),
            json.dumps(answer.refused),
            zlib.compress(_without_pictures(request)),
        )
        with self._explained():
            if self._db.execute(PUT, row).rowcount == 1:
                return answer
        return self.get(key) or answer

    def refuse(self, key: str, reasons: Sequence[str]) -> None:
        """Note beside an answer why the gates refused it."""
        with self._explained():
            self._db.execute(REFUSE, (json.dumps(reasons), key))

    def request(self, key: str) -> bytes | None:
        """The request's body as it was sent, pictures shortened; None if it was never sent."""
        with self._explained():
            row = self._db.execute("SELECT request FROM replies WHERE key = ?", (key,)).fetchone()
        return None if row is None else zlib.decompress(row[0])

    def __len__(self) -> int:
        """Number of requests with an outcome that will not be asked again."""
        with self._explained():
            return int(self._db.execute("SELECT count(*) FROM replies WHERE finish != 'failed'").fetchone()[0])

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> "ReplyStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _without_pictures(request: bytes) -> bytes:
    return PICTURE.sub(
        lambda m: b"data:image/%s;base64,%s... (%d characters)" % (m[1], m[2], len(m[2]) + len(m[3])), request
    )
