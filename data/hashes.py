"""SHA-256 of files, remembered by size, modification time and inode as git does, so that an unchanged source is not
read again.

    with remembered(dataset / ".work" / "hashes.sqlite") as hashes:
        hashes.of(path)

`rehash` distrusts everything that is remembered. A damaged memory is as good as none: it is made anew.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from data.shards import sha256_file

# A file changed again within the clock tick of its last change keeps its time: such a young file is not remembered.
SETTLED = 2_000_000_000  # nanoseconds; file systems exist whose clocks tick in whole and even seconds

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
        mark = (status.st_size, status.st_mtime_ns, status.st_ino)
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
        status = path.stat()
        self.learnt[str(path)] = self.known[str(path)] = (
            (status.st_size, status.st_mtime_ns, status.st_ino),
            digest,
        )


@contextmanager
def remembered(path: Path, *, rehash: bool = False) -> Iterator[Hashes]:
    """The hashes of earlier runs; what is learnt inside is added to the file at the end, also after an error."""
    hashes = Hashes({} if rehash else _load(path))
    try:
        yield hashes
    finally:
        if hashes.learnt:
            _save(path, hashes.learnt)


def _load(path: Path) -> dict[str, tuple[Mark, str]]:
    if not path.exists():
        return {}
    try:
        with closing(sqlite3.connect(path)) as memory:
            rows = memory.execute("SELECT path, size, time, inode, sha256 FROM hashes").fetchall()
            return {name: ((size, when, inode), digest) for name, size, when, inode, digest in rows}
    except sqlite3.Error:
        return {}


def _save(path: Path, learnt: dict[str, tuple[Mark, str]]) -> None:
    """Add rows; a memory that cannot be written costs time in the next run, and nothing else."""
    rows = [(name, *mark, digest) for name, (mark, digest) in learnt.items()]
    for _ in range(2):
        try:
            with closing(sqlite3.connect(path)) as memory, memory:
                memory.execute(
                    "CREATE TABLE IF NOT EXISTS hashes "
                    "(path TEXT PRIMARY KEY, size INTEGER, time INTEGER, inode INTEGER, sha256 TEXT) WITHOUT ROWID"
                )
                memory.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?)", rows)
                return
        except sqlite3.OperationalError:
            return
        except sqlite3.DatabaseError:  # damaged: made anew
            with suppress(OSError):
                path.unlink()
