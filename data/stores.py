"""Object stores (s3://, gs://) by fsspec: list, fetch and put whole objects, and mirror a source folder.

    source = local_source("s3://bucket/University-Release", dataset / ".work", progress)   # a path is itself
    store = connect("gs://bucket/dataset")
    store.create("v0001/manifest.json", data)        # False: there is one already, and it stays as it is

Credentials and endpoints are those of s3fs and gcsfs (environment, ~/.aws, service account, fsspec's configuration).
Every failure is one sentence that names the object. Data sets in a store are data/remote.py's.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from data.partition import PARTS
from data.shards import atomic_write, write_in_one_step
from schemas.errors import DatasetError, GeorefineError, SourceError, UsageError

PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
ALIASES = {"s3a": "s3", "gcs": "gs"}
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
PIECE = 16 * 2**20  # bytes of an object that are held in memory at once, by each of THREADS
THREADS = 8
SOURCE = "source"  # in .work: the mirror of a source that lies in a store
MD5 = re.compile(r"[0-9a-f]{32}")

logging.getLogger("gcsfs").addHandler(logging.NullHandler())  # it logs tracebacks of what it raises; we say it once

Progress = Callable[[str, int, int, str], None]  # stage, done, total, message
T = TypeVar("T")
R = TypeVar("R")


def is_url(place: str) -> bool:
    """Whether a place is written as SCHEME://…, and so is no path."""
    return bool(URL.match(place))


@dataclass(frozen=True)
class Stored:
    """An object as a listing shows it: size in bytes; `mark` changes whenever the object does."""

    size: int
    mark: str


@dataclass(frozen=True)
class Store:
    """A folder of an object store. Names are relative to it, POSIX.

    Attributes:
        url: without a slash at the end.
        files: the file system of fsspec.
        root: the folder as the file system names it.
        error: what is raised, as one sentence.
    """

    url: str
    files: Any
    root: str
    error: type[GeorefineError] = DatasetError

    def list(self, below: str = "") -> dict[str, Stored]:
        """Every object below a folder of the store, by name; markers of empty folders end in a slash.

        Raises:
            GeorefineError: it cannot be listed.
        """
        with self._asking(below, "listed"):
            self.files.invalidate_cache()  # else a scheduled rebuild sees yesterday's listing
            found = self.files.find(self._path(below), detail=True)
            start = len(self.root) + 1
            return {
                path[start:]: _stored(info)
                for path, info in sorted(found.items())
                if info["type"] == "file" and path.startswith(f"{self.root}/") and len(path) > start
            }

    def look(self, name: str) -> Stored:
        """One object, asked for anew.

        Raises:
            GeorefineError: it is not there, or cannot be looked at.
        """
        with self._asking(name, "looked at"):
            self.files.invalidate_cache(self._path(name))
            return _stored(self.files.info(self._path(name)))

    def read(self, name: str) -> bytes:
        """The content of a small object.

        Raises:
            GeorefineError: it is not there, or cannot be read.
        """
        with self._asking(name, "read"):
            return bytes(self.files.cat_file(self._path(name)))

    def fetch(self, name: str, size: int, target: Path) -> str:
        """Copy an object of known size into a file, in one step.

        Returns:
            MD5 of what came, hexadecimal.

        Raises:
            GeorefineError: it cannot be read, has another size now, or the file cannot be written.
        """
        digest = hashlib.md5(usedforsecurity=False)

        def write(file: BinaryIO) -> None:
            for start in range(0, size, PIECE):
                end = min(start + PIECE, size)
                with self._asking(name, "read"):
                    piece = self.files.cat_file(self._path(name), start=start, end=end)
                if len(piece) != end - start:
                    raise self.error(f"{self.url}/{name} was changed while it was read: run the same command again.")
                digest.update(piece)
                file.write(piece)

        write_in_one_step(target, write)
        return digest.hexdigest()

    def put(self, name: str, source: Path) -> Stored:
        """Upload a file; the object is there as a whole or not at all.

        Raises:
            GeorefineError: it cannot be written, or has another size than the file.
        """
        with self._asking(name, "written"):
            self.files.put_file(str(source), self._path(name))
        stored = self.look(name)
        if stored.size != source.stat().st_size:
            raise self.error(
                f"{self.url}/{name} arrived with another size than it has here: run the same command again."
            )
        return stored

    def write(self, name: str, data: bytes) -> None:
        """Write a small object, whether there is one or not.

        Raises:
            GeorefineError: it cannot be written.
        """
        with self._asking(name, "written"):
            self.files.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small object if there is none of this name (If-None-Match: *); False: there is one.

        Raises:
            GeorefineError: it cannot be written.
        """
        try:
            with self._asking(name, "written"):
                self.files.pipe_file(self._path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def copy(self, name: str, target: str) -> Stored:
        """Let the store itself copy an object.

        Raises:
            GeorefineError: it cannot.
        """
        with self._asking(target, "written"):
            self.files.cp_file(self._path(name), self._path(target))
        return self.look(target)

    def remove(self, name: str) -> None:
        """Remove an object; it may be gone already.

        Raises:
            GeorefineError: it cannot be removed.
        """
        with self._asking(name, "removed"), suppress(FileNotFoundError):
            self.files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    @contextmanager
    def _asking(self, name: str, what: str) -> Iterator[None]:
        """Say in one sentence what went wrong at a store, whatever the libraries between raise.

        Raises:
            FileExistsError: a conditional write found an object.
            GeorefineError: anything else.
        """
        where = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except (GeorefineError, FileExistsError):
            raise
        except FileNotFoundError as error:
            raise self.error(
                f"{where} is not there ({_reason(error)}): check the names of bucket and folder."
            ) from error
        except PermissionError as error:
            raise self.error(
                f"{where} must not be {what} ({_reason(error)}): check your credentials and the bucket's permissions."
            ) from error
        except Exception as error:  # botocore, aiohttp and google-auth have a tree of errors each
            raise self.error(
                f"{where} cannot be {what} ({_reason(error)}): check bucket, credentials and network, "
                "then run the same command again."
            ) from error


def _stored(info: Mapping[str, Any]) -> Stored:
    tag = next((info[key] for key in ("ETag", "etag", "generation", "LastModified", "updated") if info.get(key)), "")
    return Stored(int(info["size"] or 0), str(tag).strip('"'))


def _reason(error: BaseException) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
    return text if len(text) <= 300 else f"{text[:300]}…"


def connect(url: str, error: type[GeorefineError] = DatasetError) -> Store:
    """The folder of a store that a URL names. Nobody is asked yet.

    Raises:
        UsageError: the scheme is none of PACKAGES, its package is missing, or no bucket is named.
        GeorefineError: the package cannot be used, for want of credentials for instance.
    """
    match = URL.match(url)
    written = match[1] if match else ""
    scheme = ALIASES.get(written.lower(), written.lower())
    package = PACKAGES.get(scheme)
    if not package:
        raise UsageError(f"{url} is neither a path nor a URL that georefine knows: use s3://bucket/folder or gs://….")
    if not find_spec(package):
        extra = "gcs" if package == "gcsfs" else "s3"
        raise UsageError(f"{url} needs the package {package}: pip install 'georefine[{extra}]'.")
    root = url[len(written) + 3 :].strip("/")
    if not root or any(part in ("", ".", "..") for part in root.split("/")):
        raise UsageError(f"{url} names no folder of a bucket: write {scheme}://bucket/folder.")
    store = Store(f"{scheme}://{root}", None, root, error)
    with store._asking("", "opened"):
        files = import_module("fsspec").filesystem(scheme)
    return Store(store.url, files, root, error)


@dataclass
class Journal:
    """What is known of objects, one line of JSON each, so that a killed transfer goes on where it was.

    A line that cannot be read is as good as none: the object is transferred again.
    """

    path: Path
    known: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> "Journal":
        journal = cls(path)
        with suppress(OSError):
            for line in path.read_bytes().splitlines():
                with suppress(ValueError, RecursionError):
                    match json.loads(line):
                        case [str(name), *facts]:
                            journal.known[name] = facts
        return journal

    def note(self, name: str, *facts: str | int) -> None:
        """Remember facts of an object, instead of what was remembered before.

        Raises:
            DatasetError: the file system refuses.
        """
        self.known[name] = list(facts)
        try:
            with self.path.open("ab") as file:
                file.write(f"\n{json.dumps([name, *facts])}".encode())  # behind a line that a kill cut short
        except OSError as error:
            raise DatasetError(
                f"{self.path} cannot be written ({error.strerror}): free space, then run the same command again."
            ) from error

    def keep(self, names: Iterable[str]) -> None:
        """Forget all others, and write the file anew.

        Raises:
            DatasetError: the file system refuses.
        """
        self.known = {name: self.known[name] for name in sorted(names) if name in self.known}
        lines = [json.dumps([name, *facts]) for name, facts in self.known.items()]
        atomic_write(self.path, "\n".join(lines).encode())


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Do what waits for the network, a few at a time; yields item and result. After an error nothing more is begun."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        futures = {pool.submit(work, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def local_source(source: str, work: Path, progress: Progress) -> Path:
    """The folder that a source is read from: itself, or for a URL its mirror in `work`, brought up to date.

    Only what changed since the last time is fetched, checked by size, and by MD5 where the store's tags are that. What
    stands beside train/, test/ and the annotation files is named in the mirror, but empty: nobody reads it.

    Args:
        work: folder of the data set that is made, whose lock is held.

    Raises:
        UsageError: the URL cannot be used.
        SourceError: the store cannot be read, or holds names that no folder can.
        DatasetError: the mirror cannot be written.
    """
    if not is_url(source):
        return Path(source)
    store = connect(source, SourceError)
    objects = store.list()
    if not objects:
        raise SourceError(f"{store.url} holds nothing: check the names of bucket and folder.")
    names = {name if _is_read(name) else "".join(name.partition("/")[:2]) for name in objects}
    _check_names(store, names)
    root = work / SOURCE
    wanted = {name: stored for name, stored in objects.items() if _is_read(name) and not name.endswith("/")}
    folders = {name.rstrip("/") for name in names if name.endswith("/")}
    empty = {name for name in names - set(wanted) if not name.endswith("/")}
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_others(root, {*wanted, *empty}, folders)
        for name in folders:
            (root / name).mkdir(parents=True, exist_ok=True)
        for name in empty:
            (root / name).touch()
    except OSError as error:
        raise DatasetError(f"{root} cannot be written ({error.strerror}): mend its permissions.") from error
    journal = Journal.open(work / f"{SOURCE}.jsonl")
    _fetch_changed(store, root, wanted, journal, progress)
    return root


def _is_read(name: str) -> bool:
    top, slash, _ = name.partition("/")
    return top in PARTS if slash else top.lower().endswith(".json")


def _check_names(store: Store, names: set[str]) -> None:
    """Refuse names that have no place in a folder; leaving them out would lose rows without a word.

    Raises:
        SourceError: there are some; the first is named.
    """
    bad = [
        name
        for name in sorted(names)
        for parts in [name.removesuffix("/").split("/")]
        if {"", ".", ".."} & set(parts)
        or "\0" in name
        or max(len(os.fsencode(part)) for part in parts) > 200
        or any("/".join(parts[:n]) in names for n in range(1, len(parts) + name.endswith("/")))
    ]
    if bad:
        more = f" and {len(bad) - 1:,} more" if len(bad) > 1 else ""
        raise SourceError(
            f"{store.url} holds {bad[0]!a}{more}, whose name no folder can hold (empty, too long, '.', '..', or "
            "both file and folder): rename or remove it."
        )


def _remove_others(root: Path, files: set[str], folders: set[str]) -> None:
    """Remove from a mirror what the store has no more.

    Raises:
        OSError: something cannot be removed.
    """
    kept = folders | {
        "/".join(name.split("/")[:n]) for name in {*files, *folders} for n in range(1, name.count("/") + 1)
    }
    for folder, below, names in os.walk(root, topdown=False):
        for name in [*names, *below]:
            path = Path(folder) / name
            relative = path.relative_to(root).as_posix()
            if path.is_symlink() or not path.is_dir():
                if relative not in files:
                    path.unlink()
            elif relative not in kept:
                path.rmdir()


def _fetch_changed(
    store: Store, root: Path, wanted: Mapping[str, Stored], journal: Journal, progress: Progress
) -> None:
    """Fetch every object of which the mirror has no copy, or one of another state.

    Raises:
        SourceError: one cannot be fetched.
        DatasetError: the mirror cannot be written.
    """
    missing = [name for name, stored in wanted.items() if journal.known.get(name) != _facts(store, stored, root / name)]
    total, done = len(wanted), len(wanted) - len(missing)
    progress("fetch source", done, total, f"{len(missing):,} new or changed")
    tags_are_md5 = True

    def fetch(name: str) -> None:
        nonlocal tags_are_md5
        stored = wanted[name]
        digest = store.fetch(name, stored.size, root / name)
        if tags_are_md5 and MD5.fullmatch(stored.mark) and digest != stored.mark:
            if store.fetch(name, stored.size, root / name) != digest:
                raise SourceError(f"{store.url}/{name} arrives differently every time: run the same command again.")
            tags_are_md5 = False  # encrypted with a key of one's own, tags only look like MD5

    try:
        for name, _ in in_threads(fetch, missing):
            done += 1
            journal.note(name, *_facts(store, wanted[name], root / name))
            progress("fetch source", done, total, name)
    finally:
        journal.keep(wanted)


def _facts(store: Store, stored: Stored, path: Path) -> list[str | int]:
    """What has to be as it was for a copy to be up to date: the object's tag and size, the file's time and size."""
    try:
        status = path.lstat()
    except OSError:
        return []
    return [store.url, stored.mark, stored.size, status.st_mtime_ns, status.st_size]
