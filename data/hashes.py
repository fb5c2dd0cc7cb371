"""SHA-256 of files, remembered by size, modification time and inode as git does, so that an unchanged source is not
read again.

    with remembered(dataset / ".work" / "hashes.sqlite") as hashes:
        hashes.of(path)

`rehash` distrusts everything that is remembered. A damaged row, or a damaged memory, is as good as none: the files are
read again. Nothing that happens to the memory can fail a rebuild.
"""

import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from data.shards import sha256_file

# A file changed again within the clock tick of its last change keeps its time: such a young file is not remembered.
SETTLED = 2_000_000_000  # nanoseconds; file systems exist whose clocks tick in whole and even seconds
BUSY_SECONDS = 0.5  # whoever looks into the memory of a running rebuild shall not hold it up

Mark = tuple[int, int, int]  # size, modification time in nanoseconds, inode


@dataclass
class Hashes:
    """What is known of files: path -> (mark, SHA-256)."""

    known: dict[str, tuple[Mark, str]] = field(default_factory=dict)
    learnt: dict[str, tuple[Mark, str]] = field(default_factory=dict)

    def of(self, path: Path) -> str:
        """SHA-256 of the file's content, hexadecimal; read only if the file is not the one that is remembered.

        Raises:
            OSError: the file cannot be read.
        """
        status = path.stat()
        mark = _mark(status)
        known = self.known.get(str(path))
        if known and known[0] == mark:
            return known[1]
        now = time.time_ns()
        digest = sha256_file(path)
        if now - status.st_mtime_ns > SETTLED:
            self.learnt[str(path)] = self.known[str(path)] = (mark, digest)
        return digest

    def of_all(self, paths: Iterable[Path]) -> Iterator[tuple[Path, str | OSError]]:
        """The hash of every file, or why it cannot be read, in the order given; read by several threads."""

        def one(path: Path) -> str | OSError:
            try:
                return self.of(path)
            except OSError as error:
                return error

        listed = list(paths)
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            yield from zip(listed, pool.map(one, listed, chunksize=64), strict=True)

    def learn(self, path: Path, digest: str) -> None:
        """Remember a file that we have just written ourselves, and that nobody else writes."""
        with suppress(OSError):
            self.learnt[str(path)] = self.known[str(path)] = (_mark(path.stat()), digest)


def _mark(status: os.stat_result) -> Mark:
    return status.st_size, status.st_mtime_ns, status.st_ino


@contextmanager
def remembered(path: Path, *, rehash: bool = False) -> Iterator[Hashes]:
    """The hashes of earlier runs; what is learnt inside is added to the file at the end, also after an error."""
    hashes = Hashes({} if rehash else _load(path))
    try:
        yield hashes
    finally:
        if hashes.learnt:
            _save(path, hashes.learnt)


# As text, because an inode may exceed SQLite's integers; the path as bytes, because it may be no Unicode.
Row = tuple[bytes, str, str, int]  # path, mark, SHA-256, CRC of the three


def _row(path: str, mark: Mark, digest: str) -> Row:
    name, stamp = os.fsencode(path), " ".join(map(str, mark))
    return name, stamp, digest, zlib.crc32(b"\0".join([name, stamp.encode(), digest.encode()]))


def _load(path: Path) -> dict[str, tuple[Mark, str]]:
    known: dict[str, tuple[Mark, str]] = {}
    if not os.access(path, os.R_OK):
        return known
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as memory:
        for row in memory.execute("SELECT path, mark, sha256, crc FROM files"):
            with suppress(ValueError, TypeError, AttributeError):  # a damaged row
                size, when, inode = map(int, row[1].split())
                name = os.fsdecode(row[0])
                if _row(name, (size, when, inode), row[2]) == row:
                    known[name] = (size, when, inode), row[2]
    return known


def _save(path: Path, learnt: dict[str, tuple[Mark, str]]) -> None:
    """Add rows; a memory that cannot be written costs time in the next run, and nothing else."""
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
