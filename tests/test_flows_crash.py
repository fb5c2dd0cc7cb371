"""Killed at any moment, or failed by any file operation, a rebuild ends with the bytes of one that was never disturbed.

Most of it runs the rebuild without Prefect, which needs ten seconds to start where the files of a small source are
written in one.
"""

import builtins
import copy
import errno
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from PIL import Image
from scripted_server import Said, ScriptedServer, echo

from data.shards import open_version, sha256_file
from data.verify import verify
from data.versions import list_versions
from flows.plan import Planned
from flows.steps import build_shard
from schemas.errors import DatasetError, GeorefineError, SourceError

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


class _Done:
    """A future that is done."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def result(self) -> Any:
        return self.value


@contextmanager
def _engine_here(*args: Any) -> Iterator[Callable[[Planned], _Done]]:
    yield lambda shard: _Done(build_shard(shard.job, shard.key))


def rebuild_here(source: Path, out: Path, **options: Any) -> dict[str, Any]:
    """The rebuild flow with its tasks as plain functions, one after the other in this process."""
    from prefect import Task

    from flows import rebuild as module

    plain: dict[str, Any] = {name: value.fn for name, value in vars(module).items() if isinstance(value, Task)}
    plain |= {
        "engine": _engine_here,
        "opaque": copy.copy,
        "as_completed": list,
        "create_markdown_artifact": mock.Mock(),
    }
    with mock.patch.dict(vars(module), plain):
        result: dict[str, Any] = module.rebuild.fn(str(source), str(out), **options)
        return result


@dataclass
class Faults:
    """Lets the file operation number `at` (of those named, below `root`) fail; counts them all.

    Attributes:
        lasting: every later one fails too, as on a full disk.
        short: a write that fails leaves half of its bytes in the file.
    """

    root: Path
    operations: frozenset[str]
    error: int
    at: int
    lasting: bool = False
    short: bool = False
    count: int = 0
    hit: list[str] = field(default_factory=list)

    def concerns(self, path: object) -> bool:
        # A descriptor, or a name in the folder of a descriptor (shutil.rmtree), is always of the data set.
        name = Path(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else Path()
        return not name.is_absolute() or name.is_relative_to(self.root)

    def due(self, operation: str, path: object) -> bool:
        if operation not in self.operations or not self.concerns(path):
            return False
        self.count += 1
        due = self.count == self.at or (self.lasting and self.count > self.at)
        if due:
            self.hit.append(f"{operation} {path}")
        return due

    def check(self, operation: str, path: object) -> None:
        if self.due(operation, path):
            raise OSError(self.error, os.strerror(self.error), str(path))


class _File(io.FileIO):
    """A file open for writing, whose writes may fail."""

    def __init__(self, path: Any, faults: Faults) -> None:
        super().__init__(path, "w")
        self._path, self._faults = path, faults

    def write(self, data: Any) -> int:
        if self._faults.due("write", self._path):
            if self._faults.short:
                super().write(bytes(data)[: len(data) // 2])
            raise OSError(self._faults.error, os.strerror(self._faults.error), str(self._path))
        return super().write(data) or 0


@contextmanager
def injected(faults: Faults) -> Iterator[None]:
    """Let the operations of this process on files fail as `faults` says."""

    def guarded(operation: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            faults.check(operation, path)
            return function(path, *args, **kwargs)

        return call

    opened = io.open

    def open_file(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(path, int) or not faults.concerns(path):
            return opened(path, mode, *args, **kwargs)
        if mode in ("r", "rb"):
            faults.check("read", path)
            return opened(path, mode, *args, **kwargs)
        assert mode == "wb", f"teach the injector the mode {mode!r}"
        faults.check("open", path)
        return io.BufferedWriter(_File(path, faults))

    functions = {"fsync": "fsync", "rename": "rename", "replace": "rename", "link": "link", "mkdir": "mkdir"}
    functions |= {"unlink": "unlink", "rmdir": "unlink", "open": "open", "ftruncate": "write", "stat": "stat"}
    functions |= {"scandir": "read", "listdir": "read"}
    with ExitStack() as stack:
        # What is synced is not looked at after a power cut here, and waiting for a disk takes most of the time.
        stack.enter_context(mock.patch.object(os, "fsync", return_value=None))
        for name, operation in functions.items():
            stack.enter_context(mock.patch.object(os, name, guarded(operation, getattr(os, name))))
        stack.enter_context(mock.patch.object(io, "open", open_file))
        stack.enter_context(mock.patch.object(builtins, "open", open_file))
        yield


def picture(number: int) -> bytes:
    """A small JPEG that looks like no other."""
    pixels = random.Random(number).randbytes(16 * 16 * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (16, 16), pixels).resize((48, 48)).save(out, "JPEG")
    return out.getvalue()


def write_source(root: Path, **buildings: int) -> Path:
    """Buildings in the official folders: train_satellite=8, test_drone=4; each with a picture, a caption, a region."""
    records: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for number, (where, count) in enumerate(buildings.items()):
        split, _, kind = where.partition("_")
        for building in range(count):
            name = f"{building + 1000 * (split == 'test'):04d}"
            path = root / split / f"{'gallery_' * (split == 'test')}{kind}" / name
            path /= f"{name if kind == 'satellite' else 'image-01'}.jpeg"
            path.parent.mkdir(parents=True)
            path.write_bytes(picture(1000 * number + building))
            os.utime(path, ns=(10**18, 10**18))  # old enough for its hash to be remembered
            records[split].append(
                {
                    "image": path.relative_to(root).as_posix(),
                    "caption": f"On the left, there is a building with a red roof and {building + 2} cars.",
                    "sentences": ["a red roof"],
                    "bboxes": [[0.5, 0.5, 0.2, 0.2]],
                }
            )
    for split, rows in records.items():
        (root / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    return root


def change_caption(source: Path) -> None:
    path = source / "train.json"
    path.write_text(path.read_text(encoding="utf-8").replace("2 cars", "a fountain"), encoding="utf-8")


def seen(dataset: Path) -> dict[str, str]:
    """SHA-256 of every file that is visible: all but those in .work."""
    return {
        str(path.relative_to(dataset)): sha256_file(path)
        for path in sorted(dataset.rglob("*"))
        if path.is_file() and ".work" not in path.parts
    }


def whole(dataset: Path) -> bool:
    """Whether every visible version is what its manifest says, and `latest` names one of them."""
    versions = list_versions(dataset)
    if versions:
        open_version(dataset)
    return all(sha256_file(v.path / shard.path) == shard.sha256 for v in versions for shard in v.manifest.shards)


def newest(dataset: Path) -> dict[str, str]:
    """SHA-256 of every shard of the newest version."""
    folder = open_version(dataset).path
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*.parquet")}


def undisturbed(source: Path, out: Path, **options: Any) -> dict[str, Any]:
    """A rebuild in which nothing fails (and nothing waits for the disk)."""
    with injected(Faults(out, frozenset(), 0, 0)):
        return rebuild_here(source, out, **options)


ANY = frozenset(["open", "read", "write", "fsync", "rename", "link", "mkdir", "unlink"])
PLACES = frozenset(["rename", "link"])
FAULTS = {
    "broken disk": {"operations": ANY, "error": errno.EIO},
    "full disk": {"operations": ANY - {"read", "unlink"}, "error": errno.ENOSPC, "lasting": True, "short": True},
    "refused": {"operations": PLACES, "error": errno.EACCES},
    "another device": {"operations": PLACES, "error": errno.EXDEV},
}
SMALL = {"partition": {"val_fraction": 0}}


def fail_everywhere(
    fault: dict[str, Any], prepare: Callable[[Path], None], source: Path, scratch: Path, **options: Any
) -> tuple[int, int]:
    """Let the operations of a rebuild fail one after the other, each in a rebuild of its own; check what each leads to.

    Args:
        prepare: makes the data set's folder as it is before the rebuild.

    Returns:
        How many rebuilds were failed, and how many of them ended well all the same.
    """
    calm, out = scratch / "calm", scratch / "out"
    prepare(calm)
    undisturbed(source, calm, **options)
    expected, fine = newest(calm), 0
    for at in range(1, 10_000):
        shutil.rmtree(out, ignore_errors=True)
        prepare(out)
        faults = Faults(out, at=at, **fault)
        try:
            with injected(faults):
                rebuild_here(source, out, **options)
            fine += bool(faults.hit)
            assert newest(out) == expected, f"after {faults.hit}"
        except GeorefineError as error:
            assert error.exit_code == 1
            assert "\n" not in str(error)
            assert str(error).endswith(".")
        if not faults.hit:
            assert verify(out) == []
            return at - 1, fine
        assert whole(out), f"after {faults.hit}"
        undisturbed(source, out, **options)
        assert newest(out) == expected, f"after {faults.hit}"
    raise AssertionError("a rebuild of a tiny source has fewer operations")


@pytest.mark.parametrize("fault", FAULTS)
def test_any_file_operation_of_a_first_rebuild_may_fail(fault: str, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", train_satellite=1, test_drone=1)
    failed, fine = fail_everywhere(FAULTS[fault], lambda folder: None, source, tmp_path, config=SMALL)
    assert failed > 20
    assert fine < failed / 2


@pytest.mark.parametrize("fault", ["broken disk", "full disk"])
@pytest.mark.parametrize("changed", [True, False])
def test_any_file_operation_of_a_later_rebuild_may_fail(fault: str, changed: bool, tmp_path: Path) -> None:
    """One caption changed, one shard is reused, the version before is removed; or nothing changed."""
    source, before = write_source(tmp_path / "source", train_satellite=1, test_drone=1), tmp_path / "before"
    undisturbed(source, before, config=SMALL)
    if changed:
        change_caption(source)

    def prepare(folder: Path) -> None:
        # Files are replaced, never changed: links will do, but for SQLite's.
        shutil.copytree(before, folder, copy_function=os.link, ignore=shutil.ignore_patterns("*.sqlite", "lock"))

    failed, _ = fail_everywhere(FAULTS[fault], prepare, source, tmp_path, config=SMALL, keep=1)
    assert failed > 5
    assert [version.name for version in list_versions(tmp_path / "calm")] == ["v0002" if changed else "v0001"]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "a bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "empty": lambda data: b"",
    "garbage": lambda data: b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_of_earlier_steps_are_found_made_anew_and_named(damage: str, tmp_path: Path) -> None:
    source, out = write_source(tmp_path / "source", train_satellite=2, train_drone=2, test_drone=1), tmp_path / "out"
    undisturbed(source, out)
    expected = seen(out)
    for name in ("images.parquet", "result.json", "plan.json", "hashes.sqlite"):
        path = sorted((out / ".work").rglob(name))[0]
        data = path.read_bytes()
        path.unlink()  # the same bytes are linked into the version
        path.write_bytes(DAMAGE[damage](data))
        result = undisturbed(source, out)
        assert not result["new"]
        assert len(result["damaged"]) == (name in ("images.parquet", "result.json"))
        assert result["reused"] == result["shards"] - len(result["damaged"])
        assert seen(out) == expected
    shutil.rmtree(out / ".work")
    assert undisturbed(source, out)["damaged"] == []
    assert seen(out) == expected


def test_damaged_answers_of_a_model_are_found_and_counted(tmp_path: Path) -> None:
    """The replies are in the reply store; what the gates made of them is judged again."""
    source, out = write_source(tmp_path / "source", train_drone=2), tmp_path / "out"
    config = {**SMALL, "refine": {"refiner": "vllm", "model": "a-model", "revision": "1"}}

    def asked() -> dict[str, Any]:
        result: dict[str, Any] = rebuild_here(source, out, config=config, finish_with_what_we_have=True)["refining"]
        return result

    assert "damaged_answers" not in asked()
    partial = next((out / ".work" / "answers").iterdir())
    whole = partial.rename(partial.with_name(partial.name.removeprefix("partial")))
    assert asked() == {}, "the answers are there"
    whole.write_bytes(whole.read_bytes()[:-9])
    assert asked()["damaged_answers"] == 1


def test_captions_that_an_outage_left_unanswered_are_asked_about_by_the_next_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refine.client.FIRST_PAUSE", 0.001)
    source, out = write_source(tmp_path / "source", train_drone=3), tmp_path / "out"
    settings = {"refiner": "vllm", "model": "a-model", "revision": "1", "attempts": 1}
    with ScriptedServer(lambda request, number: Said(status=500)) as server:
        server.models = ("a-model",)
        config = {**SMALL, "refine": settings, "server": {"urls": (server.url,), "timeout": 5}}

        def rebuilt() -> dict[str, Any]:
            return rebuild_here(source, out, config=config)

        assert set(rebuilt()["refining"]["fallbacks"]) == {"answered"}
        server.script = echo
        again = rebuilt()
        assert (again["new"], again["refining"]["fallbacks"]) == (True, {})
        assert rebuilt()["refining"] == {}

        change_caption(source)
        server.script = lambda request, number: Said(status=400)
        assert rebuilt()["refining"]["fallbacks"] == {"answered": 1}
        assert rebuilt()["refining"] == {}, "what the server refuses for itself stays settled"


def test_what_is_there_is_finished_with_when_the_server_is_gone(tmp_path: Path) -> None:
    source, out = write_source(tmp_path / "source", train_drone=2), tmp_path / "out"
    with ScriptedServer(echo) as server:
        server.models = ("a-model",)
        config = {**SMALL, "refine": {"refiner": "vllm"}, "server": {"urls": (server.url,)}}
        rebuild_here(source, out, config=config)
    change_caption(source)
    nameless: dict[str, Any] = {**config, "server": {}}
    for given in (config, nameless, {**nameless, "refine": {"refiner": "vllm", "model": "a-model"}}):
        result = rebuild_here(source, out, config=given, finish_with_what_we_have=True)["refining"]
        assert (result["stored"], result["fallbacks"]) == (1, {"answered": 1})
    other = {**nameless, "refine": {"refiner": "vllm", "model": "another"}}
    assert rebuild_here(source, out, config=other, finish_with_what_we_have=True)["refining"]["stored"] == 0
    with pytest.raises(GeorefineError, match="No vLLM server answers"):
        rebuild_here(source, out, config=config)


def test_a_refused_source_leaves_no_folder_and_a_full_disk_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError):
        rebuild_here(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    source = write_source(tmp_path / "source", train_satellite=2, test_drone=1)
    rebuild_here(source, tmp_path / "out")
    disk = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    assert rebuild_here(source, tmp_path / "out")["version"] == "v0001", "what is reused needs no space"
    with pytest.raises(DatasetError, match=r"needs about 67 MB more .* has 10 MB free"):
        rebuild_here(source, tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.parquet"))


def test_of_two_rebuilds_started_at_once_one_is_told_who_holds_the_data_set(tmp_path: Path) -> None:
    source, out = write_source(tmp_path / "source", train_satellite=6, train_drone=6, test_drone=4), tmp_path / "out"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flows.rebuild"])
    for _ in range(3):
        shutil.rmtree(out, ignore_errors=True)
        together, told = context.Barrier(2), context.SimpleQueue()
        rivals = [context.Process(target=_rival, args=(source, out, together, told)) for _ in range(2)]
        for rival in rivals:
            rival.start()
        for rival in rivals:
            rival.join(120)
        said = sorted(told.get() for _ in rivals)
        if said[1] != "v0001":  # else one had ended before the other began
            assert said[0].startswith(f"{out} is being rebuilt by ")
        assert "v0001" in said
        assert verify(out) == []
        assert [version.name for version in list_versions(out)] == ["v0001"]


def _rival(source: Path, out: Path, together: Any, told: Any) -> None:
    together.wait()
    try:
        told.put(rebuild_here(source, out)["version"])
    except GeorefineError as error:
        told.put(str(error))


def _victim(source: Path, out: Path, operations: Any, last: int, delay: float) -> None:
    """The rebuild, which counts its file operations below `out`, and dies `delay` seconds after number `last`.

    A clock alone would miss the moments of writing on a machine that is now fast, now slow. What the timer's signal
    does is what kill -9 does: the process ends wherever it is, and nothing of Python's runs.
    """

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if (event == "open" or event.startswith("os.")) and arguments and str(arguments[0]).startswith(str(out)):
            operations.value += 1
            if operations.value == last:
                signal.setitimer(signal.ITIMER_REAL, delay)

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    sys.addaudithook(count)
    rebuild_here(source, out)


def test_killed_at_any_moment_nothing_is_half_done_and_the_next_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """Ten kills spread over the rebuild's file operations, the moment in each tenth by chance."""
    source = write_source(
        tmp_path / "source", train_satellite=6, train_drone=6, train_street=4, test_satellite=4, test_drone=4
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flows.rebuild"])

    def run(out: Path, last: int, delay: float) -> tuple[int, int]:
        # No lock: who is killed while he counts would keep it, and whoever asks for the count waits for ever.
        operations = context.Value("l", 0, lock=False)
        process = context.Process(target=_victim, args=(source, out, operations, last, delay))
        process.start()
        process.join(120)
        assert process.exitcode is not None, f"not ended after 120 s and {operations.value} file operations"
        return process.exitcode, operations.value

    ended, operations = run(tmp_path / "calm", last=0, delay=0)
    assert ended == 0
    assert operations > 100
    expected, chance = seen(tmp_path / "calm"), random.Random(5)
    assert verify(tmp_path / "calm") == []
    killed = 0
    for tenth in range(10):
        out = tmp_path / f"killed{tenth}"
        last = 1 + int(operations * (tenth + chance.random()) / 10)
        ended, _ = run(out, last, delay=chance.uniform(1e-6, 0.01))
        killed += ended == -signal.SIGALRM
        assert whole(out)
        undisturbed(source, out)
        assert seen(out) == expected
    assert killed >= 8, "the last may end before its timer does"


def test_the_whole_command_killed_twice_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """Once while Prefect starts, once while files are written; the whole process group each time."""
    source = write_source(tmp_path / "source", train_satellite=6, train_drone=6, test_satellite=4, test_drone=4)
    undisturbed(source, tmp_path / "calm")
    out, chance = tmp_path / "killed", random.Random(7)
    command = [sys.executable, "-m", "georefine", "rebuild", str(source), "--out", str(out)]
    for until in (tmp_path, out / ".work" / "lock"):
        victim = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while not until.exists() and victim.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 3))
        os.killpg(victim.pid, signal.SIGKILL)
        victim.communicate(timeout=60)  # nothing that it started may hold its output open
        assert whole(out)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert seen(out) == seen(tmp_path / "calm")
