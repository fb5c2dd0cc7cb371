"""SHA-256 of files, remembered by size, modification time and inode, so that an unchanged source is not read again.

    with remembered(dataset / ".work" / "hashes.sqlite") as hashes:
        hashes.of(path)

It is what git goes by, but for the time of the last change of status, which a hard link changes too. `rehash` distrusts
everything that is remembered. A damaged row, or a damaged memory, is as good as none: the files are read again. Nothing
that happens to the memory can fail a rebuild.
"""

import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from data.shards import sha256_file

# A file changed again within the clock tick of its last change keeps its time: such a young file is not remembered.
SETTLED = 2_000_000_000  # nanoseconds; file systems exist whose clocks tick in whole and even seconds
BUSY_SECONDS = 0.5  # whoever looks into the memory of a running rebuild shall not hold it up

KEPT_BACK = 10_000  # files learnt before they are written
PIECE = 512  # files looked at together
HANDFUL = 32  # files that a thread reads

P = TypeVar("P", Path, str)
Mark = tuple[int, int, int]  # size, modification time in nanoseconds, inode


@dataclass(frozen=True, slots=True)
class FileHash:
    """SHA-256 of a file, hexadecimal, and the mark that it had; None: so young that it may change and keep its mark."""

    sha256: str
    mark: Mark | None


class Hashes:
    """What is known of files, in SQLite on disk, so that memory does not grow with their number.

    Attributes:
        learnt: what is not on disk yet: path -> (mark, SHA-256).
    """

    def __init__(self, memory: Path | None = None) -> None:
        self._path = memory
        self._memory = memory and _opened(memory)
        self.learnt: dict[str, tuple[Mark, str]] = {}

    def of(self, path: Path) -> str:
        """SHA-256 of the file's content, hexadecimal; read only if the file is not the one that is remembered.

        Raises:
            OSError: the file cannot be read.
        """
        status = path.stat()
        return (self._known(path, status) or self._learnt(path, status, *_read(path))).sha256

    def of_all(self, paths: Iterable[P]) -> Iterator[tuple[P, FileHash | OSError]]:
        """The hash of every file, or why it cannot be read, in the order given; read by several threads.

        Paths may be texts: to make a Path of each takes as long as to hash a small file.
        """

        waiting = iter(paths)
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            while piece := list(islice(waiting, PIECE)):
                found: dict[P, FileHash | OSError] = {}
                unknown: dict[P, os.stat_result] = {}
                for path in piece:
                    try:
                        status = os.stat(path)  # noqa: PTH116
                    except OSError as error:
                        found[path] = error
                        continue
                    if known := self._known(path, status):
                        found[path] = known
                    else:
                        unknown[path] = status
                listed = list(unknown)  # dealt in handfuls: handing over a file takes as long as reading it
                handfuls = [listed[start : start + HANDFUL] for start in range(0, len(listed), HANDFUL)]
                for path, now in zip(listed, chain.from_iterable(pool.map(_read_all, handfuls)), strict=True):
                    found[path] = now if isinstance(now, OSError) else self._learnt(path, unknown[path], *now)
                yield from ((path, found[path]) for path in piece)

    def learn(self, path: Path, digest: str) -> None:
        """Remember a file that we have just written ourselves, and that nobody else writes."""
        with suppress(OSError):
            self._keep(path, mark_of(path.stat()), digest)

    def save(self) -> None:
        """Write what was learnt; a memory that cannot be written costs time in the next run, and nothing else."""
        if self._path and self.learnt:
            if self._memory:
                self._memory.close()  # it may be damaged, and is made anew then
            _save(self._path, self.learnt)
            self._memory = _opened(self._path)
        self.learnt.clear()

    def _known(self, path: Path | str, status: os.stat_result) -> FileHash | None:
        mark = mark_of(status)
        known = self.learnt.get(str(path)) or (self._memory and _remembered(self._memory, str(path)))
        return FileHash(known[1], mark) if known and known[0] == mark else None

    def _learnt(self, path: Path | str, status: os.stat_result, digest: str, when: int) -> FileHash:
        """Of a file that was read at a time (nanoseconds since 1970) after its status was taken."""
        if when - status.st_mtime_ns <= SETTLED:
            return FileHash(digest, None)
        self._keep(path, mark_of(status), digest)
        return FileHash(digest, mark_of(status))

    def _keep(self, path: Path | str, mark: Mark, digest: str) -> None:
        self.learnt[str(path)] = mark, digest
        if len(self.learnt) >= KEPT_BACK:
            self.save()


def _read(path: Path | str) -> tuple[str, int]:
    """SHA-256 of a file and when reading began."""
    now = time.time_ns()
    return sha256_file(path), now


def _read_all(paths: Sequence[Path | str]) -> list[tuple[str, int] | OSError]:
    read: list[tuple[str, int] | OSError] = []
    for path in paths:
        try:
            read.append(_read(path))
        except OSError as error:
            read.append(error)
    return read


def mark_of(status: os.stat_result) -> Mark:
    """By what a file is told from what it was."""
    return status.st_size, status.st_mtime_ns, status.st_ino


@contextmanager
def remembered(path: Path, *, rehash: bool = False) -> Iterator[Hashes]:
    """The hashes of earlier runs; what is learnt inside is added to the file, also after an error."""
    if rehash:
        with suppress(OSError):
            path.unlink()
    hashes = Hashes(path)
    try:
        yield hashes
    finally:
        hashes.save()


# As text, because an inode may exceed SQLite's integers; the path as bytes, because it may be no Unicode.
Row = tuple[bytes, str, str, int]  # path, mark, SHA-256, CRC of the three


def _row(path: str, mark: Mark, digest: str) -> Row:
    name, stamp = os.fsencode(path), " ".join(map(str, mark))
    return name, stamp, digest, zlib.crc32(b"\0".join([name, stamp.encode(), digest.encode()]))


def _opened(path: Path) -> sqlite3.Connection | None:
    """The memory for reading; None where there is none."""
    if os.access(path, os.R_OK):
        with suppress(sqlite3.Error):
            return sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
    return None


def _remembered(memory: sqlite3.Connection, path: str) -> tuple[Mark, str] | None:
    with suppress(sqlite3.Error, ValueError, TypeError, AttributeError):  # a damaged memory, or a damaged row
        found = memory.execute("SELECT path, mark, sha256, crc FROM files WHERE path = ?", (os.fsencode(path),))
        for row in found.fetchall():
            size, when, inode = map(int, row[1].split())
            if _row(path, (size, when, inode), row[2]) == row:
                return (size, when, inode), row[2]
    return None


def _save(path: Path, learnt: dict[str, tuple[Mark, str]]) -> None:
    """Add rows, if that can be."""
    rows = [_row(name, mark, digest) for name, (mark, digest) in learnt.items()]
    for _ in range(2):
        try:
            with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as memory, memory:
                memory.execute(
                    "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, mark TEXT, sha256 TEXT, crc INTEGER) "
                    "WITHOUT ROWID"
                )
                memory.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)
                return
        except sqlite3.OperationalError:
            return
        except sqlite3.DatabaseError:  # damaged: made anew
            with suppress(OSError):
                path.unlink()
                path.with_name(f"{path.name}-journal").unlink(missing_ok=True)  # it would be played into the new one
