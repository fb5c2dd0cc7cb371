"""Number and publish versions of a data set: one rename makes a version visible, and unchanged shards are shared.

    with lock(dataset):
        published = publish(dataset, {"captions/split=.../part-00000.parquet": staged, ...}, manifest)

A version is put together under DATASET/.work, from hard links, and then renamed; `latest` follows. Killed in between,
the next publication repairs what is missing.
"""

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from itertools import chain
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
    sha256_bytes,
    sha256_file,
    sync_folder,
)
from schemas.errors import DatasetError
from schemas.manifest import Card, Manifest, Shard
from schemas.records import PLATFORMS, SPLITS, STATUSES, TABLES

WORK = ".work"
CARD = "README.md"  # of a version
BUILD = "version"  # in .work: the version that is being put together
TRASH = "removed"  # in .work: a version on its way out
TEMPORARY = ".*.tmp"  # of data.shards.write_in_one_step


@dataclass(frozen=True)
class Published:
    """A version, and whether it was made now (False: nothing had changed, it is the one that was there)."""

    version: Version
    new: bool


@contextmanager
def lock(dataset: Path) -> Iterator[None]:
    """Hold the right to write to a data set; the folder is made if it is not there. Let go of even by kill -9.

    A folder that was made for the lock, and holds nothing else at the end, goes again.

    Raises:
        DatasetError: another process holds it (its id and since when), or the folder cannot be written.
    """
    path = Path(dataset) / WORK / "lock"
    try:
        made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except BlockingIOError as error:
        raise DatasetError(
            f"{dataset} is being rebuilt by {_holder(path)}: wait until it ends, or stop it, then run the same command "
            "again."
        ) from error
    except OSError as error:
        raise DatasetError(
            f"{error.filename or dataset} cannot be written ({error.strerror}): mend it, or choose another folder."
        ) from error
    try:
        with suppress(OSError):  # a courtesy to whoever comes second
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {time.time():.0f}\n".encode())
        yield
    finally:
        with suppress(OSError):
            if made and list(path.parent.iterdir()) == [path]:
                path.unlink()
                for folder in made:
                    folder.rmdir()
        os.close(descriptor)


def _locked(path: Path) -> int:
    """Open the lock file and lock it: a descriptor, to be closed.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be opened or locked.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever held it has taken the file away meanwhile


def _holder(path: Path) -> str:
    """Who holds a lock and since when, in words."""
    try:
        process, start = map(int, path.read_text(encoding="utf-8").split())
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(start))
    except (OSError, ValueError, OverflowError):
        return "another process"
    minutes = max(0, round(time.time() - start)) // 60
    lasting = "less than a minute" if not minutes else f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
    return f"process {process} since {since} (for {lasting})"


def check_space(dataset: Path, needed: int) -> None:
    """Refuse to start what cannot be finished.

    Args:
        needed: bytes that are going to be written below `dataset`, which exists.

    Raises:
        DatasetError: less is free.
    """
    try:
        disk = shutil.disk_usage(dataset)
    except OSError:
        return
    if disk.total and disk.free < needed:  # some network file systems do not tell
        raise DatasetError(
            f"{dataset} needs about {needed / 1e6:,.0f} MB more for what has to be made, but its disk has "
            f"{disk.free / 1e6:,.0f} MB free: free space or choose another folder, then run the same command again."
        )


def list_versions(dataset: Path) -> list[Version]:
    """The complete versions of a data set, oldest first.

    Raises:
        DatasetError: the manifest of one of them cannot be read.
    """
    return [open_version(Path(dataset) / name) for name in complete_versions(dataset)]


def next_version(dataset: Path) -> str:
    """The name after the highest number taken, complete or not: v0001 in an empty data set."""
    taken = [int(entry.name[1:]) for entry in Path(dataset).iterdir() if VERSION_NAME.fullmatch(entry.name)]
    return f"v{max(taken, default=0) + 1:04d}"


def publish(
    dataset: Path, files: Mapping[str, Path], manifest: Manifest, sha256_of: Callable[[Path], str] = sha256_file
) -> Published:
    """Make a version of staged shards, unless the newest version has the same shards, configuration and accounts.

    A newest version of which a file is gone or damaged is not taken for the same: it is followed by a whole one.

    Call it with the lock held.

    Args:
        dataset: the data set's folder.
        files: path in the version -> staged file, for exactly the shards of the manifest; the files stay where they are
            (hard links; a copy where the file system has none).
        manifest: complete but for its version, which is filled in.
        sha256_of: tells the SHA-256 of a file of the newest version that is not the staged file itself.

    Raises:
        DatasetError: files and manifest disagree, a file cannot be read, or the disk is full (nothing is visible then).
    """
    dataset = Path(dataset)
    listed = {shard.path: shard for shard in manifest.shards}
    if set(listed) != set(files) or len(listed) != len(manifest.shards) or not all(map(is_inside, listed)):
        raise DatasetError(f"{dataset}: the manifest lists other shards than were made: please report this.")
    try:
        previous = _newest(dataset)
        if previous and _same(previous, manifest) and _is_whole(previous, files, sha256_of):
            _point_to(dataset, previous.name)
            return Published(previous, new=False)
        name = next_version(dataset)
        build = dataset / WORK / BUILD
        shutil.rmtree(build, ignore_errors=True)  # of a run that was killed
        manifest = replace(manifest, version=name)
        for path in sorted(listed):
            _place(files[path], build / path, listed[path], previous)
        written = atomic_write(build / CARD, card(manifest).encode())
        manifest = replace(manifest, card=Card(written.bytes, written.sha256))
        atomic_write(build / MANIFEST, manifest.to_json().encode())
        for folder, _, _ in os.walk(build):
            sync_folder(Path(folder))
        build.rename(dataset / name)
        sync_folder(dataset)
    except OSError as error:
        raise DatasetError(
            f"{dataset} cannot take a new version ({error.strerror}): free space or mend its permissions, "
            "then run the same command again."
        ) from error
    _point_to(dataset, name)
    return Published(Version(dataset / name, manifest), new=True)


def _newest(dataset: Path) -> Version | None:
    """The newest complete version; None where there is none, or where its manifest cannot be read any more."""
    names = complete_versions(dataset)
    with suppress(DatasetError):
        return open_version(dataset / names[-1]) if names else None
    return None


def _same(previous: Version, manifest: Manifest) -> bool:
    """Whether a version with this manifest would add nothing to the previous one.

    How training is configured and where a model is served changes no shard, so it makes no version.
    """
    old, new = (json.loads(m.to_json()) for m in (previous.manifest, manifest))
    for values in (old, new):
        for section in ("train", "server"):
            values["config"].pop(section, None)
    return all(old[key] == new[key] for key in ("shards", "config", "accounts", "format_version"))


def _is_whole(version: Version, files: Mapping[str, Path], sha256_of: Callable[[Path], str]) -> bool:
    """Whether a version still has its files as they were published: the staged ones, or others with their bytes."""
    card = version.manifest.card
    try:
        return (card is None or sha256_of(version.path / CARD) == card.sha256) and all(
            (path := version.path / shard.path).samefile(files[shard.path]) or sha256_of(path) == shard.sha256
            for shard in version.manifest.shards
        )
    except OSError:
        return False


def _has_size(path: Path, shard: Shard) -> bool:
    try:
        return path.stat().st_size == shard.bytes
    except OSError:
        return False


def _place(staged: Path, target: Path, shard: Shard, previous: Version | None) -> None:
    """Put a shard into the version that is being built: the previous version's file if it is the same, else the staged
    one, as a hard link where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = staged
    if previous and any(s.path == shard.path and s.sha256 == shard.sha256 for s in previous.manifest.shards):
        old = previous.path / shard.path
        if _has_size(old, shard) and not old.samefile(staged) and sha256_file(old) == shard.sha256:
            source = old
    if not _has_size(source, shard):
        raise DatasetError(f"{source} is not the shard that was made (missing or of another size): run it again.")
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
            raise
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())


def _point_to(dataset: Path, name: str) -> None:
    path = dataset / LATEST
    with suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == f"{name}\n":
            return
    atomic_write(path, f"{name}\n".encode())


def prune(dataset: Path, keep: int) -> list[str]:
    """Remove all but the newest `keep` (at least 1) complete versions, and none that a checkpoint names.

    A version disappears in one step. Call it with the lock held.

    Returns:
        The names of the versions that were removed.

    Raises:
        DatasetError: a version cannot be moved away.
    """
    dataset = Path(dataset)
    named = set(_trained(dataset))
    removed = [name for name in complete_versions(dataset)[: -max(1, keep)] if name not in named]
    for name in removed:
        trash = dataset / WORK / TRASH
        shutil.rmtree(trash, ignore_errors=True)
        try:
            trash.parent.mkdir(exist_ok=True)
            (dataset / name).rename(trash)
        except OSError as error:
            raise DatasetError(
                f"{dataset / name} cannot be removed ({error.strerror}): mend its permissions, or remove it yourself."
            ) from error
        shutil.rmtree(trash, ignore_errors=True)
    return removed


def name_checkpoint(dataset: Path, version: str, run: Path) -> None:
    """Note that a checkpoint in the folder `run` was trained on a version, which `prune` then keeps."""
    record = {"version": version, "run": str(Path(run).resolve())}
    name = sha256_bytes(json.dumps(record, sort_keys=True).encode("utf-8", "surrogatepass"))[:16]
    atomic_write(Path(dataset) / WORK / "runs" / f"{name}.json", json.dumps(record, sort_keys=True).encode())


def _trained(dataset: Path) -> Iterator[str]:
    """Names of the versions that were trained on, by runs whose folder is still there."""
    for path in sorted((dataset / WORK / "runs").glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if Path(record["run"]).is_dir():
                yield record["version"]


def clean(work: Path, shards: Set[str], answers: Set[str]) -> None:
    """Remove step results that neither the last rebuild nor any version uses, and what killed runs left behind.

    Call it with the lock held. What cannot be removed stays: it costs space, nothing else.

    Args:
        shards: keys of the shards of the last rebuild.
        answers: names of its files of answers.
    """
    for name in (BUILD, TRASH):
        shutil.rmtree(work / name, ignore_errors=True)
    results = _entries(work / "shards")
    for folder in results:
        with suppress(OSError):
            # A file of a version is a hard link to the step's result: both go for the price of one.
            if folder.name not in shards and not any(f.stat().st_nlink > 1 for f in _entries(folder)):
                shutil.rmtree(folder, ignore_errors=True)
    unused = [path for path in _entries(work / "answers") if path.name not in answers]
    beside = chain.from_iterable(_entries(folder) for folder in (work.parent, work, *results))
    for path in [*unused, *(path for path in beside if fnmatch(path.name, TEMPORARY))]:
        with suppress(OSError):
            path.unlink()


def _entries(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(folder.iterdir())
    return []


def tables(manifest: Manifest) -> list[str]:
    """Counts per split, platform and status, and the balance of rows, as lines of Markdown."""
    rows = [
        [
            split,
            platform,
            *(cell.get(key, 0) for key in _COUNTED),
            *(cell.get("statuses", {}).get(s, 0) for s in STATUSES),
        ]
        for split in SPLITS
        for platform in PLATFORMS
        if (cell := manifest.counts.get(split, {}).get(platform))
    ]
    accounts = [[t, a.read, a.written, a.rejected, a.derived] for t, a in sorted(manifest.accounts.items())]
    return [
        *_markdown(["split", "platform", *_COUNTED, *STATUSES], 2, rows),
        "",
        *_markdown(["table", "rows read", "written", "rejected", "derived"], 1, accounts),
    ]


def _markdown(head: Sequence[str], names: int, rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table whose first `names` columns hold names, the others numbers."""
    rule = "|" + "---|" * names + "--:|" * (len(head) - names)
    cells = [[f"{value:,}" if isinstance(value, int) else str(value) for value in row] for row in rows]
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in cells)]


def card(manifest: Manifest) -> str:
    """The README.md of a version: a Hugging Face data set card, so that `load_dataset(folder, "captions")` works."""
    configs: list[str] = []
    for table in TABLES:
        splits = [split for split in SPLITS if any(s.table == table and s.split == split for s in manifest.shards)]
        if splits:
            configs += [f"- config_name: {table}", *(["  default: true"] if table == "captions" else [])]
            configs += ["  data_files:"]
            for split in splits:
                configs += [f"  - split: {split}", f"    path: {table}/split={split}/**/*.parquet"]
    captions = sum(shard.rows for shard in manifest.shards if shard.table == "captions")
    return "\n".join(
        [
            "---",
            "pretty_name: Geo-referenced images and captions by platform",
            "language: [en]",
            "license: other",
            "task_categories: [image-to-text, text-to-image]",
            "tags: [geo-localization, cross-modal-retrieval, University-1652, GeoText-1652]",
            f"size_categories: ['{_size_category(captions)}']",
            *(["configs:", *configs] if configs else []),
            "---",
            "",
            f"# Version {manifest.version}",
            "",
            f"Made by georefine {manifest.code_version}: images of buildings from satellite, drone and ground.",
            "Captions of the train split are cleaned and refined (`raw`, `stripped`, `refined`; train on `final`),",
            "those of val and test are as in the source. The licence is that of the source.",
            "",
            *tables(manifest),
            "",
            "Rejected rows stand in `rejects/` with the reason.",
            "",
            *(f"- {' '.join(note.split())}" for note in manifest.notes),
            "",
            "```python",
            "import datasets, duckdb, pandas",
            "",
            'captions = datasets.load_dataset(".", "captions", split="train")',
            'captions = pandas.read_parquet("captions", filters=[("split", "==", "train")])',
            "duckdb.sql(\"SELECT platform, count(*) FROM 'captions/**/*.parquet' GROUP BY platform\").show()",
            "```",
            "",
        ]
    )


_COUNTED = ("buildings", "images", "augmented", "captions", "regions")


def _size_category(rows: int) -> str:
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if rows < limit:
            return name
    return "1M<n<10M"
