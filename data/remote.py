"""Data sets in an object store: fetch the version that is read, publish the version that was made.

    version = local_dataset("s3://bucket/dataset", progress)         # a path is itself; …/v0002 names a version
    remote = Remote.at("s3://bucket/dataset")                        # where a rebuild publishes
    with lock(remote.folder):
        remote.pull(progress); …; remote.push(published.version, progress)

A data set by URL has a folder on this machine, too: its versions that were read or made here, .work, the lock, and
reviews.sqlite, which never leaves it. In the store a version exists when its manifest does. That is put last, and only
if there is none, so that no two rebuilds publish the same version; each first claims a number for itself, so that
neither writes over the other's shards. Unchanged shards are copied by the store itself.
"""

import fcntl
import json
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from data.shards import (
    LATEST,
    MANIFEST,
    VERSION_NAME,
    Version,
    atomic_write,
    complete_versions,
    is_inside,
    open_version,
    read_bytes,
    sha256_bytes,
    sha256_file,
    sync_folder,
)
from data.stores import Journal, Progress, Store, Stored, connect, in_threads, is_url
from data.versions import CARD, TRASH, WORK, check_space, lock
from schemas.errors import DatasetError
from schemas.manifest import Manifest

CLAIM = ".publishing"  # in a version of a store: who is uploading it
RUNS = "runs"  # in a store: which versions checkpoints name
FETCHED = "fetched"  # in .work: versions on their way from the store
JOURNAL = "store.jsonl"  # in .work: tag and SHA-256 of objects that are known to be right

Objects = Mapping[str, Stored]


@dataclass(frozen=True)
class _File:
    """A file of a version: its path in it, size in bytes and SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Remote:
    """A data set in a store, and its folder here."""

    store: Store
    folder: Path

    @classmethod
    def at(cls, url: str) -> "Remote":
        """The data set of a URL; nobody is asked yet.

        Raises:
            UsageError: the URL cannot be used.
        """
        store = connect(url)
        return cls(store, working_folder(store.url))

    def newest(self) -> str:
        """The name of the version that `latest` names; the newest one where a rebuild was killed before it said so.

        Raises:
            DatasetError: there is none, or the store cannot be read.
        """
        objects = self.store.list()
        names = _complete(objects)
        if not names:
            raise DatasetError(
                f"There is no data set at {self.store.url}: make one with `georefine rebuild SOURCE --out DATASET`."
            )
        if LATEST not in objects:
            return names[-1]
        name = self.store.read(LATEST).decode("utf-8", "replace").strip()
        if name not in names:
            raise DatasetError(
                f"{self.store.url}/{LATEST} names {name[:40]!r}, which is no complete version of this data set "
                f"(there are {', '.join(names)}): run the rebuild again, or name a version."
            )
        return name

    def pull(self, progress: Progress) -> None:
        """Make the folder agree with the store: the newest version in it, none that the store has not, and the numbers
        of versions that others are uploading taken.

        Call it with the folder's lock held.

        Raises:
            DatasetError: the store cannot be read, or the folder not written.
        """
        objects = self.store.list()
        there = _complete(objects)
        for name in complete_versions(self.folder):
            if name not in there or not self._is_here(name, objects):
                self._discard(name)
        begun = {key.partition("/")[0] for key in objects if "/" in key} - set(there)
        for name in sorted(filter(VERSION_NAME.fullmatch, begun)):
            if not self._is_claimed_here(name, objects):
                (self.folder / name).mkdir(exist_ok=True)  # data.versions.next_version counts it
            elif there and int(name[1:]) < int(there[-1][1:]):  # of ours; others went on meanwhile
                self._remove(name, objects)
        if there:
            self.fetch(there[-1], progress)
            atomic_write(self.folder / LATEST, f"{there[-1]}\n".encode())
        else:
            (self.folder / LATEST).unlink(missing_ok=True)

    def fetch(self, name: str, progress: Progress) -> Path:
        """The folder here of a version, fetched from the store unless it is here already.

        Raises:
            DatasetError: there is no such version, an object of it is missing or damaged, or the disk is full.
        """
        objects = self.store.list(name)
        if f"{name}/{MANIFEST}" not in objects:
            there = ", ".join(_complete(self.store.list())) or "none yet"
            raise DatasetError(f"{self.store.url} has no complete version {name}; there are: {there}.")
        with self._fetching():
            if self._is_here(name, objects):
                return self.folder / name
            if (self.folder / name / MANIFEST).is_file():  # ours, overtaken; not while a rebuild uploads it
                with lock(self.folder):
                    self._discard(name)
            build = self.folder / WORK / FETCHED / name
            text = self.store.read(f"{name}/{MANIFEST}")
            where = f"{self.store.url}/{name}/{MANIFEST}"
            try:
                files = _files(Manifest.from_json(text.decode("utf-8", "replace"), where), where)
            except RecursionError as error:
                raise DatasetError(f"{where} is not a manifest of georefine: rebuild the data set.") from error
            self._download(name, build, files, objects, progress)
            atomic_write(build / MANIFEST, text)
            try:
                for folder, _, _ in os.walk(build):
                    sync_folder(Path(folder))
                build.rename(self.folder / name)
                sync_folder(self.folder)
            except OSError as error:
                raise DatasetError(f"{self.folder} cannot take {name} ({error.strerror}): mend it.") from error
            self._journal().note(f"{name}/{MANIFEST}", objects[f"{name}/{MANIFEST}"].mark, sha256_bytes(text))
        return self.folder / name

    def copy(self, name: str, target: Path, progress: Progress) -> None:
        """Read every object of a version anew into a new folder, whatever is wrong with them.

        Raises:
            DatasetError: the store cannot be read, or has names that no folder can hold.
        """
        objects = {key: stored for key, stored in self.store.list(name).items() if not key.endswith("/")}
        check_space(target, sum(stored.size for stored in objects.values()))
        if strange := next((key for key in objects if not is_inside(key)), None):
            raise DatasetError(f"{self.store.url} holds {strange!a}, which is no name of a file: remove it.")

        def fetch(key: str) -> str:
            return self.store.fetch(key, objects[key].size, target / key)

        for n, _ in enumerate(in_threads(fetch, objects), 1):
            progress("fetch", n, len(objects), name)

    def push(self, version: Version, progress: Progress) -> bool:
        """Upload a version that was made after `pull`. Killed in between, the next one goes on where it was.

        Call it with the folder's lock held.

        Returns:
            False: the store has this version already.

        Raises:
            DatasetError: the store cannot be written, or another rebuild has published meanwhile.
        """
        name = version.path.name
        objects = self.store.list()
        text, card = read_bytes(version.path / MANIFEST), read_bytes(version.path / CARD)
        if f"{name}/{MANIFEST}" in objects and self._is_here(name, objects):
            self._point()
            return False
        before = [other for other in complete_versions(self.folder) if other != name][-1:]
        self._check_base(before, objects)
        self._claim(name)
        files = [*_files(version.manifest, name), _File(CARD, len(card), sha256_bytes(card))]
        self._upload(version.path, files, before, objects, progress)
        self._check_base(before, self.store.list())
        made = self.store.create(f"{name}/{MANIFEST}", text)
        if not made and self.store.read(f"{name}/{MANIFEST}") != text:  # it is ours where an answer was lost
            raise self._overtaken(name)
        journal = self._journal()
        journal.note(f"{name}/{MANIFEST}", self.store.look(f"{name}/{MANIFEST}").mark, sha256_bytes(text))
        self.store.remove(f"{name}/{CLAIM}")
        self._point()
        journal.keep(key for key in journal.known if key in objects or key.startswith(f"{name}/"))
        return True

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` versions from the store, and none that a checkpoint names. A version
        disappears in one step, with its manifest. Call it with the lock held, after data.versions.prune.

        Returns:
            The names of the versions that were removed.

        Raises:
            DatasetError: the store cannot be read or written.
        """
        objects = self.store.list()
        kept = set(complete_versions(self.folder))  # what is left of them here is new, or named by a run
        for note in (key for key in objects if key.startswith(f"{RUNS}/")):
            with suppress(ValueError, KeyError, TypeError):
                kept.add(json.loads(self.store.read(note))["version"])
        removed = [name for name in _complete(objects)[: -max(1, keep)] if name not in kept]
        for name in removed:
            self._remove(name, objects)
        return removed

    def name_checkpoint(self, version: str, run: Path) -> None:
        """Note in the store that a checkpoint was trained on a version, which `prune` then keeps.

        Raises:
            DatasetError: the store cannot be written.
        """
        record = {"version": version, "run": str(run.resolve()), "host": socket.gethostname()}
        data = json.dumps(record, sort_keys=True).encode("utf-8", "surrogatepass")
        self.store.write(f"{RUNS}/{sha256_bytes(data)[:16]}.json", data)

    def _journal(self) -> Journal:
        return Journal.open(self.folder / WORK / JOURNAL)

    def _is_here(self, name: str, objects: Objects) -> bool:
        """Whether the folder has this version of the store, and not another one of the same name."""
        try:
            text = (self.folder / name / MANIFEST).read_bytes()
        except OSError:
            return False
        key = f"{name}/{MANIFEST}"
        journal = self._journal()
        facts = [objects[key].mark, sha256_bytes(text)]
        if journal.known.get(key) == facts:
            return True
        if self.store.read(key) != text:
            return False
        journal.note(key, *facts)
        return True

    def _discard(self, name: str) -> None:
        """Take a version out of the folder; results of steps stay in .work."""
        trash = self.folder / WORK / TRASH
        try:
            shutil.rmtree(trash, ignore_errors=True)
            trash.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                (self.folder / name).rename(trash)
        except OSError as error:
            raise DatasetError(
                f"{self.folder / name} cannot be removed ({error.strerror}): mend its permissions."
            ) from error
        shutil.rmtree(trash, ignore_errors=True)

    @contextmanager
    def _fetching(self) -> Iterator[None]:
        """One process at a time fetches; the others wait for what it fetches."""
        path = self.folder / WORK / "fetch.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise DatasetError(
                f"{path} cannot be written ({error.strerror}): the data set of {self.store.url} needs a folder here; "
                "set XDG_DATA_HOME to choose another."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _download(self, name: str, build: Path, files: Sequence[_File], objects: Objects, progress: Progress) -> None:
        """Fetch the files of a version, except what is here already, in `build` or in another version."""
        here = {
            shard.sha256: self.folder / other / shard.path
            for other in complete_versions(self.folder)
            for shard in open_version(self.folder / other).manifest.shards
        }
        journal = self._journal()
        missing: list[_File] = []
        for file in files:
            target = build / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not _is(target, file):
                target.unlink(missing_ok=True)
                if file.sha256 in here and _is(here[file.sha256], file):
                    with suppress(OSError):
                        os.link(here[file.sha256], target)
            if not target.exists():
                missing.append(file)
        check_space(self.folder, sum(file.bytes for file in missing))

        def fetch(file: _File) -> None:
            key = f"{name}/{file.path}"
            if key not in objects:
                raise DatasetError(f"{self.store.url}/{key} is missing: run `georefine verify` on it, and rebuild.")
            self.store.fetch(key, objects[key].size, build / file.path)
            if not _is(build / file.path, file):
                raise DatasetError(f"{self.store.url}/{key} is damaged: run `georefine verify` on it, and rebuild.")

        progress("fetch", len(files) - len(missing), len(files), name)
        for n, (file, _) in enumerate(in_threads(fetch, missing), len(files) - len(missing) + 1):
            journal.note(f"{name}/{file.path}", objects[f"{name}/{file.path}"].mark, file.sha256)
            progress("fetch", n, len(files), name)
        if (key := f"{name}/{CARD}") in objects:
            self.store.fetch(key, objects[key].size, build / CARD)

    def _check_base(self, before: list[str], objects: Objects) -> None:
        """Refuse to publish when the store has another newest version than the one that was built upon."""
        if _complete(objects)[-1:] != before:
            raise self._overtaken(", ".join(_complete(objects)[-1:]) or "no version")

    def _overtaken(self, name: str) -> DatasetError:
        return DatasetError(
            f"Another rebuild has published to {self.store.url} meanwhile ({name} is the newest there): run the same "
            "command again; nothing is made twice."
        )

    def _publisher(self) -> str:
        """What our claims are known by, for as long as .work lives."""
        path = self.folder / WORK / "publisher"
        with suppress(OSError):
            return path.read_text(encoding="utf-8")
        name = uuid.uuid4().hex
        atomic_write(path, name.encode())
        return name

    def _claim(self, name: str) -> None:
        """Make a number ours.

        Raises:
            DatasetError: it is somebody else's.
        """
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        claim = {"publisher": self._publisher(), "host": socket.gethostname(), "since": since}
        data = json.dumps(claim).encode()
        if self.store.create(f"{name}/{CLAIM}", data):
            if self.store.create(f"{name}/{CLAIM}", data):
                raise DatasetError(
                    f"{self.store.url} lies in a store that has no conditional writes (it takes no notice of "
                    "If-None-Match), so that two rebuilds could spoil each other's version: use another store."
                )
            return
        held = _claim_of(self.store.read(f"{name}/{CLAIM}"))
        if held.get("publisher") != claim["publisher"]:
            raise DatasetError(
                f"{self.store.url}/{name} is being uploaded by {held.get('host', 'another machine')} since "
                f"{held.get('since', 'some time')}: run the same command again, and it takes the next number."
            )

    def _is_claimed_here(self, name: str, objects: Objects) -> bool:
        key = f"{name}/{CLAIM}"
        return key in objects and _claim_of(self.store.read(key)).get("publisher") == self._publisher()

    def _upload(
        self, path: Path, files: Sequence[_File], before: Sequence[str], objects: Objects, progress: Progress
    ) -> None:
        """Put the files of a version into the store, except what is there already; what the store has, it copies."""
        name = path.name
        wanted = {f"{name}/{file.path}": file for file in files}
        journal = self._journal()

        def is_right(key: str, sha256: str) -> bool:
            return key in objects and journal.known.get(key) == [objects[key].mark, sha256]

        copies = {
            shard.sha256: key
            for other in before
            for shard in open_version(self.folder / other).manifest.shards
            if is_right(key := f"{other}/{shard.path}", shard.sha256)
        }
        for key in objects:  # left by an upload of ours that was killed
            if key.startswith(f"{name}/") and key not in wanted and key != f"{name}/{CLAIM}":
                self.store.remove(key)
        missing = [key for key, file in wanted.items() if not is_right(key, file.sha256)]

        def upload(key: str) -> str:
            file = wanted[key]
            if file.sha256 in copies:
                stored = self.store.copy(copies[file.sha256], key)
                if stored.size == file.bytes:
                    return stored.mark
            if not _is(path / file.path, file):
                raise DatasetError(f"{path / file.path} is not the file that was made: remove {path}, run it again.")
            return self.store.put(key, path / file.path).mark

        progress("publish", len(wanted) - len(missing), len(wanted), name)
        for n, (key, mark) in enumerate(in_threads(upload, missing), len(wanted) - len(missing) + 1):
            journal.note(key, mark, wanted[key].sha256)
            progress("publish", n, len(wanted), name)

    def _point(self) -> None:
        """Let `latest` name the newest version; again, if another was published while we wrote."""
        while True:
            objects = self.store.list()
            newest = f"{_complete(objects)[-1]}\n".encode()
            if LATEST in objects and self.store.read(LATEST) == newest:
                return
            self.store.write(LATEST, newest)

    def _remove(self, name: str, objects: Objects) -> None:
        self.store.remove(f"{name}/{MANIFEST}")
        rest = [key for key in objects if key.startswith(f"{name}/") and key != f"{name}/{MANIFEST}"]
        for _ in in_threads(self.store.remove, rest):
            pass


def working_folder(url: str) -> Path:
    """The folder on this machine of a data set in a store; not a cache, because people's decisions lie in it."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    name = re.sub(r"[^A-Za-z0-9._-]", "_", url.rpartition("/")[2])[:60]
    return home / "georefine" / f"{name}-{sha256_bytes(url.encode())[:12]}"


def local_dataset(dataset: str, progress: Progress) -> Path:
    """What a data set is read from here: a path itself; of a URL the version's folder, fetched if it is not here.

    Raises:
        UsageError: the URL cannot be used.
        DatasetError: there is no such data set or version, or it is damaged, or cannot be fetched.
    """
    if not is_url(dataset):
        return Path(dataset)
    url, name = _split(dataset)
    remote = Remote.at(url)
    return remote.fetch(name or remote.newest(), progress)


def note_checkpoint(dataset: str, version: str, run: Path) -> None:
    """Note in the store, where the credentials may write to it, that a checkpoint was trained on a version."""
    if is_url(dataset):
        with suppress(DatasetError):
            Remote.at(_split(dataset)[0]).name_checkpoint(version, run)


def local_versions(dataset: str, names: Sequence[str], progress: Progress) -> Path:
    """The folder that holds the named versions of a data set; those of a URL are fetched.

    Raises:
        UsageError: the URL cannot be used.
        DatasetError: there is no such version, or it cannot be fetched.
    """
    if not is_url(dataset):
        return Path(dataset)
    remote = Remote.at(dataset)
    for name in names:
        if VERSION_NAME.fullmatch(name):  # else whoever reads says what is wrong with it
            remote.fetch(name, progress)
    return remote.folder


def local_folder(dataset: str, progress: Progress) -> Path:
    """The folder of a data set with its newest version; of a URL the one here, where decisions are kept.

    Raises:
        UsageError: the URL cannot be used.
        DatasetError: there is no data set, or it cannot be fetched.
    """
    if not is_url(dataset):
        return Path(dataset)
    version = local_dataset(dataset, progress)
    atomic_write(version.parent / LATEST, f"{version.name}\n".encode())
    return version.parent


@contextmanager
def as_stored(dataset: str, progress: Progress) -> Iterator[Path]:
    """A data set to be verified: a path itself; of a URL a copy made now of every object, gone afterwards.

    Raises:
        UsageError: the URL cannot be used.
        DatasetError: there is no such data set or version, or it cannot be read.
    """
    if not is_url(dataset):
        yield Path(dataset)
        return
    url, named = _split(dataset)
    remote = Remote.at(url)
    name = named or remote.newest()
    work = remote.folder / WORK
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work, prefix="verify-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        for other in _complete(remote.store.list()):
            atomic_write(folder / other / MANIFEST, b"")  # that there are others is all that is asked of them
        with suppress(DatasetError):
            atomic_write(folder / LATEST, remote.store.read(LATEST))
        remote.copy(name, folder, progress)
        yield folder / name if named else folder


def _split(dataset: str) -> tuple[str, str]:
    """URL of a data set and name of a version; "" where none is named."""
    url, _, name = dataset.rstrip("/").rpartition("/")
    return (url, name) if VERSION_NAME.fullmatch(name) else (dataset, "")


def _complete(objects: Objects) -> list[str]:
    """Names of the versions that have a manifest, oldest first."""
    names = [key.removesuffix(f"/{MANIFEST}") for key in objects if key.endswith(f"/{MANIFEST}")]
    return sorted(filter(VERSION_NAME.fullmatch, names), key=lambda name: (int(name[1:]), name))


def _files(manifest: Manifest, where: str) -> list[_File]:
    """The shards of a manifest.

    Raises:
        DatasetError: one of them stands outside the version.
    """
    for shard in manifest.shards:
        if not isinstance(shard.path, str) or not is_inside(shard.path):
            raise DatasetError(f"{where} names a shard outside the version ({shard.path!r}).")
        if not isinstance(shard.bytes, int) or not isinstance(shard.sha256, str):
            raise DatasetError(f"{where} describes {shard.path} with values of wrong types: rebuild the data set.")
    return [_File(shard.path, shard.bytes, shard.sha256) for shard in manifest.shards]


def _is(path: Path, file: _File) -> bool:
    """Whether a file is there and has the bytes that it should have."""
    try:
        return path.stat().st_size == file.bytes and sha256_file(path) == file.sha256
    except OSError:
        return False


def _claim_of(data: bytes) -> dict[str, str]:
    with suppress(ValueError):
        claim = json.loads(data)
        if isinstance(claim, dict):
            return claim
    return {}
