"""People's decisions on captions: an append-only log in DATASET/reviews.sqlite, and what a rebuild makes of them.

    decisions = standing_decisions(dataset / REVIEWS)      # {caption_id: Decision}, what stands after every undo
    outcome = apply(decision, raw=raw, refined=refined, queries=queries, fallback=fallback, platform=platform)

A decision is about a source text. Where the source text has changed since, the decision is stale: apply gives None, the
rebuild reports it, and the log keeps it. Undo is one more event; nothing in the log is ever changed or removed.
"""

import hashlib
import json
import sqlite3
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

from schemas.errors import DatasetError
from schemas.records import Platform, Status

REVIEWS = "reviews.sqlite"
LOG_FORMAT = 1
Kind = Literal["accept", "reject", "edit"]
KINDS: tuple[Kind, ...] = ("accept", "reject", "edit")

_CREATE = f"""
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  caption_id TEXT NOT NULL,
  revision INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('accept', 'reject', 'edit', 'undo')),
  old_text TEXT NOT NULL,
  new_text TEXT NOT NULL,
  reviewer TEXT NOT NULL,
  time TEXT NOT NULL,
  version TEXT NOT NULL,
  source_sha256 TEXT NOT NULL,
  batch TEXT NOT NULL,
  undoes INTEGER REFERENCES events (seq),
  UNIQUE (caption_id, revision)
);
CREATE INDEX IF NOT EXISTS events_of_batch ON events (batch);
CREATE UNIQUE INDEX IF NOT EXISTS undone_once ON events (undoes) WHERE undoes IS NOT NULL;
CREATE TRIGGER IF NOT EXISTS never_changed BEFORE UPDATE ON events
  BEGIN SELECT RAISE(ABORT, 'the log of decisions is append-only'); END;
CREATE TRIGGER IF NOT EXISTS never_removed BEFORE DELETE ON events
  BEGIN SELECT RAISE(ABORT, 'the log of decisions is append-only'); END;
PRAGMA user_version = {LOG_FORMAT};
"""
_COLUMNS = "seq, caption_id, revision, kind, old_text, new_text, reviewer, time, version, source_sha256, batch, undoes"
# A decision stands when it was not undone, and every later one on its caption was.
_STANDS = """
e.kind <> 'undo' AND NOT EXISTS (SELECT 1 FROM events u WHERE u.undoes = e.seq) AND NOT EXISTS (
  SELECT 1 FROM events l WHERE l.caption_id = e.caption_id AND l.revision > e.revision AND l.kind <> 'undo'
  AND NOT EXISTS (SELECT 1 FROM events u WHERE u.undoes = l.seq))
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the log.

    Attributes:
        seq: position in the log, ascending over the whole data set.
        revision: 1, 2, 3, ... per caption; a save states the one it saw, so that nobody overwrites what they never saw.
        old_text, new_text: the caption before and after; an accept has the same twice, a reject leaves new_text empty.
        time: UTC, ISO 8601, seconds.
        version: data set version that was on the screen.
        source_sha256: source_hash of the raw caption.
        batch: what was decided in one go; an undo reverts a batch.
        undoes: seq of the event that an undo takes back.
    """

    seq: int
    caption_id: str
    revision: int
    kind: Literal["accept", "reject", "edit", "undo"]
    old_text: str
    new_text: str
    reviewer: str
    time: str
    version: str
    source_sha256: str
    batch: str
    undoes: int | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What stands for a caption: the last event that was not undone. `text` is empty for a reject."""

    caption_id: str
    kind: Kind
    text: str
    reviewer: str
    time: str
    version: str
    source_sha256: str
    batch: str
    revision: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A decision about to be saved. `revision` is the caption's revision that its author saw: 0 before any event."""

    caption_id: str
    kind: Kind
    old_text: str
    new_text: str
    version: str
    source_sha256: str
    revision: int


@dataclass(frozen=True, slots=True)
class Saved:
    """What went into the log, and the captions left alone because somebody else had decided meanwhile."""

    batch: str
    events: tuple[Event, ...]
    conflicts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one person decided in one go. `standing` of its `count` decisions are neither undone nor overtaken."""

    batch: str
    kind: str
    reviewer: str
    time: str
    count: int
    standing: int
    caption_id: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The columns of a caption that a decision settles."""

    final: str
    status: Status
    queries: tuple[str, ...]


def source_hash(raw: str) -> str:
    """SHA-256 of the raw caption as UTF-8, hexadecimal."""
    return hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()


def apply(
    decision: Decision, *, raw: str, refined: str, queries: Sequence[str], fallback: str, platform: Platform
) -> Outcome | None:
    """What a rebuild writes for a caption that a person decided on; None where the decision is stale.

    An accepted or edited text wins over whatever the refiner says now; a rejected rewrite gives `fallback` (the text
    that needs no rewriting: the stripped caption). Queries always speak of the final text: those of another text could
    repeat what the reviewer took out, so they are cut anew from the final one.

    Args:
        raw: the source text now. refined, queries: what the refiner gives now.
    """
    if decision.source_sha256 != source_hash(raw):
        return None
    if decision.kind == "reject":
        return Outcome(fallback, "rejected", _queries_of(fallback, platform))
    if decision.kind == "accept" and decision.text == refined:
        return Outcome(refined, "refined", tuple(queries))
    return Outcome(decision.text, "edited", _queries_of(decision.text, platform))


def _queries_of(text: str, platform: Platform) -> tuple[str, ...]:
    from refine.rules import rewrite  # loads word lists: only where a decision needs it

    return rewrite(text, platform).queries if text.strip() else ()


def fold(events: Iterable[Event]) -> dict[str, Decision]:
    """What stands after these events, which are in the order of the log."""
    stacks: dict[str, list[Event]] = {}
    for event in events:
        stack = stacks.setdefault(event.caption_id, [])
        if event.kind != "undo":
            stack.append(event)
        elif stack and stack[-1].seq == event.undoes:
            stack.pop()
    return {caption_id: _decision(stack[-1]) for caption_id, stack in stacks.items() if stack}


def _decision(event: Event) -> Decision:
    return Decision(
        event.caption_id,
        cast(Kind, event.kind),
        event.new_text,
        event.reviewer,
        event.time,
        event.version,
        event.source_sha256,
        event.batch,
        event.revision,
    )


def standing_decisions(path: Path) -> dict[str, Decision]:
    """Every decision that stands in a log, by caption id, sorted; empty where there is no log.

    Raises:
        DatasetError: the log is damaged, cannot be looked at, or was written by a newer georefine.
    """
    path = Path(path)
    try:
        path.stat()
    except FileNotFoundError:
        return {}
    except OSError as error:  # to go on without it would undo what people decided
        raise DatasetError(
            f"The log of decisions {path} cannot be looked at ({error.strerror}): mend the disk or its permissions."
        ) from error
    with closing(DecisionLog(path)) as log:
        return dict(sorted(fold(log.events()).items()))


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DatasetError(
            f"The log of decisions {path} cannot be used ({error}): free space, mend its permissions, or put back a "
            "copy of it."
        ) from error


class DecisionLog:
    """The log of one data set. Several threads and several processes may write; every save is one transaction."""

    def __init__(self, path: Path) -> None:
        """Open the log, or begin it.

        Raises:
            DatasetError: the file is damaged or cannot be written, or a newer georefine wrote it.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        with _telling(self.path):
            self._db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found > LOG_FORMAT:
                self._db.close()
                raise DatasetError(f"{self.path} was written by a newer georefine (format {found}): use that one.")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # a decision that was confirmed survives a power cut
            if found < LOG_FORMAT:
                self._db.executescript(_CREATE)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _telling(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _select(self, query: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        with self._lock, _telling(self.path):
            return self._db.execute(query, values).fetchall()

    def events(self, after: int = 0) -> Iterator[Event]:
        """The events with a greater `seq`, in the order of the log; memory holds a thousand at a time."""
        while rows := self._select(f"SELECT {_COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT 1000", [after]):
            for row in rows:
                event = Event(*row)  # type: ignore[arg-type]
                yield event
                after = event.seq

    def last(self) -> int:
        """`seq` of the newest event; 0 in an empty log."""
        return cast(int, self._select("SELECT coalesce(max(seq), 0) FROM events")[0][0])

    def history(self, caption_id: str) -> list[Event]:
        """Everything that was ever decided on one caption, oldest first."""
        return self.histories([caption_id])

    def histories(self, caption_ids: Sequence[str]) -> list[Event]:
        """Everything that was ever decided on some captions, in the order of the log."""
        rows: list[tuple[object, ...]] = []
        for start in range(0, len(caption_ids), 500):
            part = caption_ids[start : start + 500]
            marks = ", ".join("?" * len(part))
            rows += self._select(f"SELECT {_COLUMNS} FROM events WHERE caption_id IN ({marks}) ORDER BY seq", part)
        return [Event(*row) for row in rows]  # type: ignore[arg-type]

    def standing(self, caption_id: str) -> Decision | None:
        """What stands for one caption."""
        return fold(self.history(caption_id)).get(caption_id)

    def save(self, drafts: Sequence[Draft], reviewer: str, *, copies: Sequence[Draft] = ()) -> Saved:
        """Append decisions as one batch, in one transaction.

        A draft whose caption has moved on from the revision its author saw is left out, and named in `conflicts`.

        Args:
            copies: drafts that follow the others, and are left out altogether where one of those is.
        """
        batch, time = uuid.uuid4().hex, _now()
        events: list[Event] = []
        conflicts: list[str] = []
        with self._transaction() as db:
            seq = db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
            for part in (drafts, copies):
                if conflicts:
                    break
                for d in part:
                    now = _revision(db, d.caption_id)
                    if now != d.revision:
                        conflicts.append(d.caption_id)
                        continue
                    seq += 1
                    event = Event(
                        seq,
                        d.caption_id,
                        now + 1,
                        d.kind,
                        d.old_text,
                        d.new_text,
                        reviewer,
                        time,
                        d.version,
                        d.source_sha256,
                        batch,
                        None,
                    )
                    _append(db, event)
                    events.append(event)
        return Saved(batch, tuple(events), tuple(conflicts))

    def undo(self, batch: str, reviewer: str, only: Collection[str] | None = None) -> Saved:
        """Take back a batch, or what it decided on `only` some captions: one undo event for each of its decisions that
        still stands.

        `conflicts` names the captions on which somebody has decided since; those decisions stay.
        """
        new, time = uuid.uuid4().hex, _now()
        with self._transaction() as db:
            seq = db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
            rows = db.execute(f"SELECT {_COLUMNS} FROM events e WHERE batch = ? AND {_STANDS}", [batch]).fetchall()
            events: list[Event] = []
            for e in (Event(*row) for row in rows):
                if only is not None and e.caption_id not in only:
                    continue
                seq += 1
                event = Event(
                    seq,
                    e.caption_id,
                    _revision(db, e.caption_id) + 1,
                    "undo",
                    e.new_text,
                    e.old_text,
                    reviewer,
                    time,
                    e.version,
                    e.source_sha256,
                    new,
                    e.seq,
                )
                _append(db, event)
                events.append(event)
            overtaken = db.execute(
                "SELECT DISTINCT caption_id FROM events e WHERE batch = ? AND kind <> 'undo' "
                "AND NOT EXISTS (SELECT 1 FROM events u WHERE u.undoes = e.seq) ORDER BY caption_id",
                [batch],
            ).fetchall()
        conflicts = tuple(row[0] for row in overtaken if only is None or row[0] in only)
        return Saved(new, tuple(events), conflicts)

    def batches(self, limit: int, before: int | None = None) -> list[tuple[int, Batch]]:
        """The newest batches with their first `seq`, newest first; `before` a `seq` for the next page."""
        rows = self._select(
            f"""
            WITH page AS (
              SELECT batch, min(seq) AS first FROM events GROUP BY batch
              HAVING min(seq) < ? ORDER BY first DESC LIMIT ?)
            SELECT first, page.batch, f.kind, f.reviewer, f.time, count(*), sum({_STANDS}), f.caption_id
            FROM page JOIN events f ON f.seq = page.first JOIN events e ON e.batch = page.batch
            GROUP BY page.batch ORDER BY first DESC""",
            [before if before is not None else 2**62, limit],
        )
        return [(cast(int, row[0]), Batch(*row[1:])) for row in rows]  # type: ignore[arg-type]

    def export(self) -> Iterator[str]:
        """The whole log as JSON lines, one event each, in order."""
        for event in self.events():
            yield json.dumps(asdict(event), ensure_ascii=False) + "\n"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _revision(db: sqlite3.Connection, caption_id: str) -> int:
    row = db.execute("SELECT coalesce(max(revision), 0) FROM events WHERE caption_id = ?", [caption_id]).fetchone()
    return cast(int, row[0])


def _append(db: sqlite3.Connection, e: Event) -> None:
    db.execute(
        f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            e.seq,
            e.caption_id,
            e.revision,
            e.kind,
            e.old_text,
            e.new_text,
            e.reviewer,
            e.time,
            e.version,
            e.source_sha256,
            e.batch,
            e.undoes,
        ],
    )
