"""Parquet shards: written in one step with equal bytes for equal rows, read back by version, split and platform.

Needs pyarrow and the standard library only, because `experts/` reads data sets on bare GPU machines:

    version = open_version(Path("dataset"))            # follows dataset/latest; dataset/v0002 names one version
    captions = version.read("captions", split="train", platforms=["satellite"], columns=["image_id", "final"])
"""

import hashlib
import io
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import DatasetError
from schemas.manifest import Manifest, Shard
from schemas.records import PLATFORMS, SPLITS, Platform, Split
from schemas.tables import REJECTS, SCHEMAS

ALL_SCHEMAS: dict[str, pa.Schema] = {**{str(name): schema for name, schema in SCHEMAS.items()}, "rejects": REJECTS}
ROW_GROUP = {"images": 256, "captions": 8192, "regions": 8192, "rejects": 8192}
PIECE = 1 << 20  # bytes read at once
AHEAD = 8 << 20  # bytes written that need not be hashed or synced yet
MANIFEST = "manifest.json"
LATEST = "latest"
VERSION_NAME = re.compile(r"v\d{4,}")

# What pyarrow raises for a damaged file: ArrowInvalid is a ValueError; others are OSError; bad page data can be either.
READ_ERRORS = (OSError, ValueError, KeyError, pa.ArrowException)


@dataclass(frozen=True)
class WrittenFile:
    """What was written: rows, size in bytes, SHA-256 in hexadecimal."""

    rows: int
    bytes: int
    sha256: str


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's content, hexadecimal; reads in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        while data := file.read(PIECE):
            digest.update(data)
    return digest.hexdigest()


def read_bytes(path: Path) -> bytes:
    """The content of a file of the data set.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): rebuild the data set.") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_in_one_step(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file so that after a crash it is either absent (or as before) or complete: temp, fsync, rename, fsync.

    Raises:
        DatasetError: the file system refuses (full, read-only, ...); nothing is left behind.
    """
    path = Path(path)
    # Process and thread, not a random name: a leftover is overwritten by the next try instead of piling up.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be written ({error.strerror or error}): free space or choose another folder, "
            "then run the same command again."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def atomic_write(path: Path, data: bytes) -> WrittenFile:
    """Write bytes in one step (see write_in_one_step); rows of the result is 0."""

    def write(file: BinaryIO) -> None:
        file.write(data)

    write_in_one_step(path, write)
    return WrittenFile(0, len(data), sha256_bytes(data))


def conform(table: pa.Table) -> tuple[str, pa.Table]:
    """The name of the table whose columns these are, and the rows in exactly its schema.

    Dictionaries are made anew in order of appearance, so that equal rows give equal bytes.

    Raises:
        DatasetError: no table has these columns, or a column cannot be cast to its type.
    """
    name = next((name for name, schema in ALL_SCHEMAS.items() if schema.names == table.column_names), None)
    if name is None:
        raise DatasetError(
            f"Columns {table.column_names} are of no table of a data set; expected those of "
            f"{', '.join(ALL_SCHEMAS)} in the order of schemas/tables.py."
        )
    schema = ALL_SCHEMAS[name]
    columns = []
    for field in schema:
        column = table.column(field.name)
        try:
            if pa.types.is_dictionary(field.type):
                column = column.cast(field.type.value_type).combine_chunks().dictionary_encode()
            columns.append(column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DatasetError(f"Column {name}.{field.name} is not of type {field.type}: {error}.") from error
    return name, pa.Table.from_arrays(columns, schema=schema)


class _Hashing(io.RawIOBase):
    """A file being written, hashed on the way: reading it back would cost as much as writing it.

    While more is made, two threads hash and sync what is written, so that the end has little to wait for.
    """

    def __init__(self, file: BinaryIO, threads: Executor) -> None:
        self._file = file
        self._threads = threads
        self._pieces: list[bytes] = []
        self._unhashed = self._unsynced = 0
        self._hashing: Future[None] = Future()
        self._syncing: Future[None] = Future()
        self._hashing.set_result(None)
        self._syncing.set_result(None)
        self._digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(data)
        self._pieces.append(bytes(data))
        self.size += len(data)
        self._unhashed += len(data)
        self._unsynced += len(data)
        if self._unhashed >= PIECE and (self._hashing.done() or self._unhashed >= AHEAD):
            self._hash_on()
        if self._unsynced >= AHEAD and self._syncing.done():
            self._syncing.result()
            self._file.flush()
            self._syncing, self._unsynced = self._threads.submit(os.fsync, self._file.fileno()), 0
        return len(data)

    def _hash_on(self) -> None:
        self._hashing.result()  # in the order written
        self._hashing = self._threads.submit(self._update, self._pieces)
        self._pieces, self._unhashed = [], 0

    def _update(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._digest.update(piece)

    def tell(self) -> int:
        return self.size

    def sha256(self) -> str:
        """Of all that was written, hexadecimal.

        Raises:
            OSError: a sync on the way failed; the system tells that once, and the last sync would succeed.
        """
        self._hash_on()
        self._hashing.result()
        self._syncing.result()
        return self._digest.hexdigest()


def write_table(path: Path, table: pa.Table) -> WrittenFile:
    """Write rows of images, captions, regions or rejects as one Parquet shard, in one step.

    zstd except for image bytes (they do not shrink); equal rows give equal bytes under equal versions of pyarrow.

    Raises:
        DatasetError: the columns are not those of a table, or the file cannot be written.
    """
    name, rows = conform(table)
    # Joined per row group: pages end at chunks, and a whole shard of images may exceed 2 GiB.
    groups = (rows.slice(start, ROW_GROUP[name]).combine_chunks() for start in range(0, rows.num_rows, ROW_GROUP[name]))
    return write_groups(path, name, groups)


def write_rows(path: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> WrittenFile:
    """Write the rows of a table as one Parquet shard, in one step; memory holds one row group of them.

    Raises:
        DatasetError: the file cannot be written.
    """
    waiting = iter(rows)

    def groups() -> Iterator[pa.Table]:
        while group := list(islice(waiting, ROW_GROUP[name])):
            yield pa.Table.from_pylist(group, schema=ALL_SCHEMAS[name])

    return write_groups(path, name, groups())


def write_groups(path: Path, name: str, groups: Iterable[pa.Table]) -> WrittenFile:
    """Write tables in the schema of the table `name`, each as one row group of a Parquet shard, in one step.

    Raises:
        DatasetError: the file cannot be written.
    """
    schema = ALL_SCHEMAS[name]
    if name == "images":
        flat = [column for column in schema.names if column != "image"]
        compression: str | dict[str, str] = {"image.bytes": "NONE", **dict.fromkeys([*flat, "image.path"], "zstd")}
        dictionary: bool | list[str] = ["building_id", "platform", "split", "role", "transform"]
        statistics: bool | list[str] = [*flat, "image.path"]
    else:
        compression, dictionary, statistics = "zstd", True, True
    done: list[WrittenFile] = []

    def write(file: BinaryIO) -> None:
        rows = 0
        with ThreadPoolExecutor(2) as threads:
            hashing = _Hashing(file, threads)
            with pq.ParquetWriter(
                hashing, schema, compression=compression, use_dictionary=dictionary, write_statistics=statistics
            ) as writer:
                for group in groups:
                    rows += group.num_rows
                    writer.write_table(group)
            done.append(WrittenFile(rows, hashing.size, hashing.sha256()))

    write_in_one_step(path, write)
    return done[0]


def shard_path(table: str, split: Split | None, platform: Platform | None, part: int) -> str:
    """Path of a shard inside a version: captions/split=train/platform=satellite/part-00003.parquet."""
    folder = table if split is None else f"{table}/split={split}/platform={platform}"
    return f"{folder}/part-{part:05d}.parquet"


def is_inside(path: str) -> bool:
    """Whether a shard's path, as a manifest states it, stays inside the version's folder."""
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\0" not in path


def selected(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    """The schema restricted to some columns, in the order asked for.

    Raises:
        DatasetError: a column is unknown.
    """
    if columns is None:
        return schema
    unknown = [column for column in columns if column not in schema.names]
    if unknown:
        raise DatasetError(f"There is no column {', '.join(unknown)}; there are {', '.join(schema.names)}.")
    return pa.schema([schema.field(column) for column in columns], metadata=schema.metadata)


@dataclass(frozen=True)
class Version:
    """One complete version of a data set: its folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.version

    def shards(
        self, table: str, *, split: Split | None = None, platforms: Sequence[Platform] | None = None
    ) -> tuple[Shard, ...]:
        """The shards of a table, sorted by path, optionally of one split and of some platforms.

        Raises:
            DatasetError: table, split or platform is unknown, or a shard's path leaves the version's folder.
        """
        if table not in ALL_SCHEMAS:
            raise DatasetError(f"There is no table {table!r}; a data set has {', '.join(ALL_SCHEMAS)}.")
        if split is not None and split not in SPLITS:
            raise DatasetError(f"There is no split {split!r}; a data set has {', '.join(SPLITS)}.")
        if unknown := set(platforms or ()) - set(PLATFORMS):
            raise DatasetError(f"There is no platform {min(unknown)!r}; a data set has {', '.join(PLATFORMS)}.")
        chosen = tuple(
            shard
            for shard in sorted(self.manifest.shards, key=lambda shard: shard.path)
            if shard.table == table
            and (split is None or shard.split == split)
            and (platforms is None or shard.platform in platforms)
        )
        for shard in chosen:
            if not is_inside(shard.path):
                raise DatasetError(f"{self.path / MANIFEST} names a shard outside the version ({shard.path!r}).")
        return chosen

    def batches(
        self,
        table: str,
        *,
        split: Split | None = None,
        platforms: Sequence[Platform] | None = None,
        columns: Sequence[str] | None = None,
        rows: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Stream a table in the order of its shards, at most `rows` rows at a time (default: a row group's).

        Memory is bounded by one row group.

        Raises:
            DatasetError: a shard is missing or damaged (it is named), or a column is unknown.
        """
        shards = self.shards(table, split=split, platforms=platforms)
        schema = selected(ALL_SCHEMAS[table], columns)
        for shard in shards:
            yield from self.shard_batches(shard, schema, rows or ROW_GROUP[table])

    def shard_batches(self, shard: Shard, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
        """Stream one shard, cast to `schema`, at most `rows` rows at a time.

        Raises:
            DatasetError: the shard is missing or damaged; it is named.
        """
        try:
            with pq.ParquetFile(self.path / shard.path) as file:
                for batch in file.iter_batches(batch_size=rows, columns=schema.names):
                    yield batch.select(schema.names).cast(schema)
        except READ_ERRORS as error:
            raise DatasetError(
                f"Shard {self.path / shard.path} cannot be read ({_first_line(error)}): "
                "run `georefine verify`, then rebuild the data set."
            ) from error

    def read(
        self,
        table: str,
        *,
        split: Split | None = None,
        platforms: Sequence[Platform] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Read a table into memory, in the order of its shards, in the schema of schemas/tables.py.

        Raises:
            DatasetError: a shard is missing or damaged (it is named), or a column is unknown.
        """
        schema = selected(ALL_SCHEMAS[table], columns) if table in ALL_SCHEMAS else None
        batches = list(self.batches(table, split=split, platforms=platforms, columns=columns))
        return pa.Table.from_batches(batches, schema).unify_dictionaries()


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def complete_versions(dataset: Path) -> list[str]:
    """Names of the versions of a data set whose manifest exists, oldest first; empty where there is no data set.

    Raises:
        DatasetError: the folder is there, but cannot be listed.
    """
    try:
        names = [entry.name for entry in os.scandir(dataset) if VERSION_NAME.fullmatch(entry.name)]
        names = [name for name in names if (Path(dataset) / name / MANIFEST).is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DatasetError(f"{dataset} cannot be listed ({error.strerror}): mend its permissions.") from error
    return sorted(names, key=lambda n: (int(n[1:]), n))


def open_version(dataset: Path) -> Version:
    """Open the newest version of a data set (DATASET), or the one named (DATASET/v0002).

    Raises:
        DatasetError: there is no data set here, its version is unfinished, or its manifest cannot be read.
    """
    dataset = Path(dataset)
    if (dataset / MANIFEST).is_file():
        return _open(dataset)
    if not dataset.is_dir():
        raise DatasetError(
            f"There is no data set at {dataset}: make one with `georefine rebuild SOURCE --out DATASET`."
        )
    if VERSION_NAME.fullmatch(dataset.name):
        raise DatasetError(f"{dataset} is unfinished (it has no {MANIFEST}): run the rebuild again.")
    complete = complete_versions(dataset)
    if not complete:
        raise DatasetError(
            f"{dataset} holds no complete version of a data set: make one with "
            "`georefine rebuild SOURCE --out DATASET`."
        )
    if not (dataset / LATEST).exists():  # killed between publishing the first version and naming it
        return _open(dataset / complete[-1])
    try:
        name = (dataset / LATEST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{dataset / LATEST} cannot be read ({_first_line(error)}): run the rebuild again."
        ) from error
    if name not in complete:
        raise DatasetError(
            f"{dataset / LATEST} names {name[:40]!r}, which is no complete version of this data set "
            f"(there are {', '.join(complete)}): run the rebuild again, or name a version."
        )
    return _open(dataset / name)


def _open(path: Path) -> Version:
    where = path / MANIFEST
    try:
        text = read_bytes(where).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{where} is not a manifest of georefine (not UTF-8): rebuild the data set.") from error
    try:
        return Version(path, Manifest.from_json(text, str(where)))
    except RecursionError as error:
        raise DatasetError(f"{where} is not a manifest of georefine: rebuild the data set.") from error
