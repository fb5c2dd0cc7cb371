"""The rows of a source in a file while a rebuild runs, so that memory does not grow with them: one SQLite file.

    with spilled(work / SPILL) as spill:               # data.readers.read_source fills it
        ...
    rows = read_rows(work / SPILL, "train", "drone", ["0839"])      # in any process, once it is filled

It is scratch: made anew by every rebuild, removed at its end, synced never.
"""

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b, sha256
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from data.hashes import FileHash
from schemas.errors import DatasetError
from schemas.records import (
    TABLES,
    Box,
    Platform,
    Reject,
    Role,
    SourceCaption,
    SourceImage,
    SourceRegion,
    Split,
    Table,
)

SPILL = "source.sqlite"
BATCH = 1000  # rows kept back before they are written
CACHE_KIB = 16 * 1024  # of SQLite's pages in memory

# `key` is a hash of what a row says; null in a row that was refused, which only keeps its place in the counting.
_TABLES = """
CREATE TABLE images (id INTEGER PRIMARY KEY, path TEXT, building TEXT, platform TEXT, split TEXT, role TEXT,
    bytes INTEGER);
CREATE TABLE captions (id INTEGER PRIMARY KEY, image INTEGER, key BLOB, text TEXT, source TEXT, row INTEGER);
CREATE TABLE regions (id INTEGER PRIMARY KEY, image INTEGER, key BLOB, text TEXT, source TEXT, row INTEGER,
    cx REAL, cy REAL, w REAL, h REAL);
CREATE TABLE rejects (id INTEGER PRIMARY KEY, nth INTEGER, source TEXT, row INTEGER, field TEXT, reason TEXT,
    detail TEXT);
CREATE TABLE refused (path BLOB PRIMARY KEY, reason TEXT) WITHOUT ROWID;
CREATE TABLE digests (image INTEGER PRIMARY KEY, sha256 TEXT, size INTEGER, modified INTEGER, inode TEXT, why TEXT);
"""
_INSERT: Final[Mapping[str, str]] = {
    "images": "INSERT INTO images VALUES (NULL, ?, ?, ?, ?, ?, ?)",
    "captions": "INSERT INTO captions VALUES (NULL, ?, ?, ?, ?, ?)",
    "regions": "INSERT INTO regions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "rejects": "INSERT INTO rejects VALUES (NULL, ?, ?, ?, ?, ?, ?)",
    "refused": "INSERT OR REPLACE INTO refused VALUES (?, ?)",
    "digests": "INSERT INTO digests VALUES (?, ?, ?, ?, ?, ?)",
}
_SELECT: Final[Mapping[str, str]] = {
    "images": "SELECT i.id, i.path, i.building, i.platform, i.split, i.role, i.bytes FROM images i {0} ORDER BY i.path",
    "captions": "SELECT i.path, c.key IS NULL, c.text, c.source, c.row FROM images i JOIN captions c ON c.image = i.id "
    "{0} ORDER BY i.path, c.id",
    "regions": "SELECT i.path, c.key IS NULL, c.text, c.source, c.row, c.cx, c.cy, c.w, c.h "
    "FROM images i JOIN regions c ON c.image = i.id {0} ORDER BY i.path, c.id",
    "digests": "SELECT i.path, d.sha256, d.size, d.modified, d.inode, d.why "
    "FROM images i JOIN digests d ON d.image = i.id {0} ORDER BY i.path",
}
_SHARD = "WHERE i.split = ? AND i.platform = ? AND i.building IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True)
class Rows:
    """The rows of some buildings of one split and platform, sorted by image and ordinal.

    Attributes:
        digests: image path -> the hash of its file, or why it cannot be read; absent before it was looked at.
    """

    images: tuple[SourceImage, ...]
    captions: tuple[SourceCaption, ...]
    regions: tuple[SourceRegion, ...]
    digests: Mapping[str, FileHash | str]


def _captions(rows: Iterable[Sequence[Any]]) -> Iterator[SourceCaption]:
    for image_id, of_image in groupby(rows, key=itemgetter(0)):
        for ordinal, (_, refused, text, source, row) in enumerate(of_image):
            if not refused:
                yield SourceCaption(image_id, ordinal, text, source, row)


def _regions(rows: Iterable[Sequence[Any]]) -> Iterator[SourceRegion]:
    for image_id, of_image in groupby(rows, key=itemgetter(0)):
        for ordinal, (_, refused, text, source, row, *box) in enumerate(of_image):
            if not refused:
                cx, cy, w, h = box
                yield SourceRegion(image_id, ordinal, text, (cx, cy, w, h), source, row)


def _digest(row: Sequence[Any]) -> FileHash | str:
    _, digest, size, modified, inode, why = row
    return why if digest is None else FileHash(digest, None if size is None else (size, modified, int(inode)))


def _key(text: str, box: Box | None) -> bytes:
    return blake2b(f"{box}{text}".encode(), digest_size=16).digest()


class Spill:
    """The file, open for writing by one thread at a time.

    Attributes:
        fingerprint: hash of all rows in the order in which they came.
        refused: rows refused so far by table.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._waiting: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _INSERT}
        self._kept_back = 0
        self._last: tuple[str, int | None] = "", None
        self.fingerprint = sha256()
        self.refused: Counter[Table] = Counter()

    def _add(self, table: str, row: tuple[Any, ...]) -> None:
        self._waiting[table].append(row)
        self._kept_back += 1
        if self._kept_back >= BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._kept_back and not self._connection.in_transaction:
            self._connection.execute("BEGIN")
        for table, rows in self._waiting.items():
            if rows:
                self.fingerprint.update(f"{table} {rows!r}".encode("utf-8", "surrogatepass"))
                self._connection.executemany(_INSERT[table], rows)
                rows.clear()
        self._kept_back = 0

    def add_image(self, image: SourceImage) -> None:
        self._add("images", (image.path, image.building_id, image.platform, image.split, image.role, image.bytes))

    def add_caption(self, image: int, text: str | None, source: str, row: int) -> None:
        """A caption of an image; None: one that was refused, so that those after it keep their ordinals."""
        self._add("captions", (image, None if text is None else _key(text, None), text, source, row))

    def add_region(self, image: int, text: str | None, box: Box, source: str, row: int) -> None:
        """A region of an image; None: one that was refused."""
        self._add("regions", (image, None if text is None else _key(text, box), text, source, row, *box))

    def add_reject(self, reject: Reject) -> None:
        """A refused row, whose texts are such as UTF-8 can store."""
        self.refused[reject.table] += 1
        nth = TABLES.index(reject.table)
        self._add("rejects", (nth, reject.source, reject.row, reject.field, reject.reason, reject.detail))

    def refuse_image(self, path: str, reason: str) -> None:
        """Remember that a path is that of a refused image."""
        self._add("refused", (path.encode("utf-8", "surrogatepass"), reason))

    def images_are_in(self) -> None:
        """Every image was added: from now on they can be looked up."""
        self._flush()
        self._connection.execute("CREATE UNIQUE INDEX images_path ON images (path)")
        self._connection.execute("CREATE INDEX images_shard ON images (split, platform, building)")

    def image(self, path: str) -> int | None:
        """Number of the accepted image of a path."""
        if path != self._last[0]:
            try:
                found = self._connection.execute("SELECT id FROM images WHERE path = ?", (path,)).fetchone()
            except UnicodeEncodeError:  # half of a surrogate pair: no image that was accepted
                return None
            self._last = path, found and found[0]
        return self._last[1]

    def why_refused(self, path: str) -> str | None:
        """Why the image of a path was refused."""
        key = path.encode("utf-8", "surrogatepass")
        found = self._connection.execute("SELECT reason FROM refused WHERE path = ?", (key,)).fetchone()
        return found and str(found[0])

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Take back every row that was added inside if an error leaves it."""
        self._flush()
        fingerprint, refused = self.fingerprint.copy(), self.refused.copy()
        self._connection.execute("SAVEPOINT part")
        try:
            yield
            self._flush()
        except BaseException:
            for rows in self._waiting.values():
                rows.clear()
            self._kept_back = 0
            self.fingerprint, self.refused = fingerprint, refused
            self._connection.execute("ROLLBACK TO part")
            raise
        finally:
            self._connection.execute("RELEASE part")

    def refuse_duplicates(self, table: Table, field: str, longest: int) -> None:
        """Refuse every caption or region that says what an earlier one of its image said, and make them findable.

        Args:
            longest: characters of its text that a reject shows.
        """
        self._flush()
        self._connection.execute(f"CREATE INDEX {table}_image ON {table} (image, key)")
        self._connection.execute(
            f"CREATE TABLE again_{table} AS SELECT id FROM (SELECT id, row_number() OVER "
            f"(PARTITION BY image, key ORDER BY id) AS nth FROM {table} WHERE key IS NOT NULL) WHERE nth > 1"
        )
        again = f"(SELECT id FROM again_{table})"
        for text, source, row in self._connection.execute(
            f"SELECT text, source, row FROM {table} WHERE id IN {again} ORDER BY id"
        ):
            shown = text if len(text) <= longest else f"{text[:longest]}…"
            self.add_reject(Reject(table, source, row, field, "duplicate", shown))
        self._flush()
        self._connection.execute(f"UPDATE {table} SET key = NULL, text = NULL WHERE id IN {again}")

    def commit(self) -> None:
        """Let other processes see what was added."""
        self._flush()
        self._connection.commit()

    def close(self) -> None:
        """Let go of the file; what was not committed is lost."""
        self._connection.close()

    def buildings(self) -> dict[tuple[Split, Platform], list[str]]:
        """Buildings of every split and platform, sorted."""
        found: dict[tuple[Split, Platform], list[str]] = {}
        for split, platform, building in self._connection.execute(
            "SELECT DISTINCT split, platform, building FROM images ORDER BY split, platform, building"
        ):
            found.setdefault((split, platform), []).append(building)
        return found

    def without_captions(self) -> tuple[int, int]:
        """Images without a caption, and images in all; not those that are queries themselves."""
        images = "SELECT count(*) FROM images WHERE role != 'query'"
        none = "NOT EXISTS (SELECT 1 FROM captions WHERE image = images.id AND key IS NOT NULL)"
        (without,) = self._connection.execute(f"{images} AND {none}").fetchone()
        (every,) = self._connection.execute(images).fetchone()
        return without, every

    def bytes(self) -> int:
        """Of all images."""
        (total,) = self._connection.execute("SELECT coalesce(sum(bytes), 0) FROM images").fetchone()
        return int(total)

    def counts(self) -> dict[tuple[Role, Platform], tuple[int, int, int]]:
        """Images, captions and region sentences accepted, by role and platform."""
        found: dict[tuple[Role, Platform], tuple[int, int, int]] = {}
        said = "(SELECT count(*) FROM {} WHERE image = images.id AND key IS NOT NULL)"
        for role, platform, *numbers in self._connection.execute(
            f"SELECT role, platform, count(*), sum({said.format('captions')}), sum({said.format('regions')}) "
            "FROM images GROUP BY role, platform"
        ):
            found[role, platform] = numbers[0], numbers[1], numbers[2]
        return found

    def paths(self) -> Iterator[tuple[int, str]]:
        """Number and path of every image, in pieces, so that something may be added meanwhile."""
        after = 0
        while rows := self._connection.execute(
            "SELECT id, path FROM images WHERE id > ? ORDER BY id LIMIT ?", (after, BATCH)
        ).fetchall():
            yield from rows
            after = rows[-1][0]

    def add_digest(self, image: int, found: FileHash | str) -> None:
        """The hash of an image's file, or why it cannot be read."""
        if isinstance(found, str):
            self._add("digests", (image, None, None, None, None, found))
        else:
            size, modified, inode = found.mark or (None, None, "")
            self._add("digests", (image, found.sha256, size, modified, str(inode), None))

    def rows(self, split: Split, platform: Platform, buildings: Sequence[str]) -> Rows:
        """The rows of some buildings of one split and platform."""
        self._flush()
        return _rows(self._connection, split, platform, buildings)

    def captioned(self, caption_id: str) -> SourceImage | None:
        """The image of an accepted caption; None where there is no such caption."""
        image_id, _, _ = caption_id.rpartition("#")
        self._flush()
        where = "WHERE i.path = ?"
        try:
            of_image = self._connection.execute(_SELECT["captions"].format(where), (image_id,))
        except UnicodeEncodeError:  # half of a surrogate pair
            return None
        if all(caption.caption_id != caption_id for caption in _captions(of_image)):
            return None
        _, *image = self._connection.execute(_SELECT["images"].format(where), (image_id,)).fetchone()
        return SourceImage(*image)

    def record(self, table: Table, image_id: str, ordinal: int) -> tuple[str, int]:
        """Annotation file and record of a caption or region, accepted or not."""
        self._flush()
        source, row = self._connection.execute(
            f"SELECT c.source, c.row FROM images i JOIN {table} c ON c.image = i.id WHERE i.path = ? "
            "ORDER BY c.id LIMIT 1 OFFSET ?",
            (image_id, ordinal),
        ).fetchone()
        return source, row

    def every_image(self) -> Iterator[SourceImage]:
        """All images, sorted by path."""
        self._flush()
        return (SourceImage(*row[1:]) for row in self._connection.execute(_SELECT["images"].format("")))

    def every_caption(self) -> Iterator[SourceCaption]:
        """All captions, sorted by image and ordinal."""
        self._flush()
        return _captions(self._connection.execute(_SELECT["captions"].format("")))

    def every_region(self) -> Iterator[SourceRegion]:
        """All regions, sorted by image and ordinal."""
        self._flush()
        return _regions(self._connection.execute(_SELECT["regions"].format("")))

    def every_reject(self) -> Iterator[Reject]:
        """Every refused row, in the order of TABLES, then of source, row, field and detail."""
        self._flush()
        columns = "nth, source, row, field, reason, detail"
        for nth, *row in self._connection.execute(
            f"SELECT {columns} FROM rejects ORDER BY nth, source, row, field, detail, id"
        ):
            yield Reject(TABLES[nth], *row)


def _rows(connection: sqlite3.Connection, split: Split, platform: Platform, buildings: Sequence[str]) -> Rows:
    chosen = split, platform, json.dumps(list(buildings), ensure_ascii=False)

    def select(what: str) -> sqlite3.Cursor:
        return connection.execute(_SELECT[what].format(_SHARD), chosen)

    return Rows(
        tuple(SourceImage(*row[1:]) for row in select("images")),
        tuple(_captions(select("captions"))),
        tuple(_regions(select("regions"))),
        {row[0]: _digest(row) for row in select("digests")},
    )


@contextmanager
def _told(path: Path | None, what: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DatasetError(
            f"{path or 'The temporary folder'} cannot be {what} ({error}): free space or mend its permissions, then "
            "run the same command again."
        ) from error


def open_spill(path: Path | None) -> Spill:
    """A new, empty file, in the place of one that may be there; None: a file that the system removes.

    Raises:
        DatasetError: it cannot be written.
    """
    if path is not None:
        remove(path)
    with _told(path, "written"):
        connection = sqlite3.connect(
            "" if path is None else os.fspath(path), isolation_level=None, check_same_thread=False
        )
        connection.executescript(f"PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE_KIB}; {_TABLES} BEGIN;")
        return Spill(connection)


def remove(path: Path) -> None:
    """Remove what a rebuild, or one that was killed, left behind."""
    for name in (path, path.with_name(f"{path.name}-journal")):
        with suppress(OSError):
            name.unlink()


@contextmanager
def spilled(path: Path | None) -> Iterator[Spill]:
    """A new, empty file that is removed in the end; None: one that nobody else can read, in the temporary folder.

    Raises:
        DatasetError: it cannot be written.
    """
    spill = open_spill(path)
    try:
        with _told(path, "written"):
            yield spill
    finally:
        spill.close()
        if path is not None:
            remove(path)


def read_rows(path: Path, split: Split, platform: Platform, buildings: Sequence[str]) -> Rows:
    """The rows of some buildings of one split and platform, from a file that nobody writes to any more.

    Raises:
        DatasetError: it cannot be read.
    """
    with (
        _told(path, "read"),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection,
    ):
        return _rows(connection, split, platform, buildings)
