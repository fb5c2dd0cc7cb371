"""Data sets in a store: a version is there as a whole or not at all, and nobody publishes over anybody."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET, s3_server
from test_data_versions import staged

from data.remote import (
    CLAIM,
    Remote,
    as_stored,
    local_dataset,
    local_folder,
    local_versions,
    note_checkpoint,
    working_folder,
)
from data.shards import open_version, sha256_bytes
from data.stores import Store
from data.verify import verify
from data.versions import lock, prune, publish
from schemas.errors import DatasetError, UsageError

Machine = Callable[[str], Remote]
ROOT = Path(__file__).resolve().parents[1]


def silent(stage: str, done: int, total: int, message: str) -> None:
    """Tell nobody."""


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with s3_server() as files:
        yield files


@pytest.fixture
def url(server: Any, request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{sha256_bytes(request.node.name.encode())[:12]}/dataset"


@pytest.fixture
def machine(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Be a machine of this name: it has folders of its own."""

    def be(name: str) -> Remote:
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / name))
        return Remote.at(url)

    return be


def everything(folder: Path) -> dict[str, bytes]:
    """All files of a data set but those of .work."""
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {str(name): (folder / name).read_bytes() for name in sorted(names) if name.parts[0] != ".work"}


def make(remote: Remote, train: list[str]) -> Any:
    """What a rebuild makes on this machine, after it has pulled."""
    files, manifest = staged(remote.folder.parent / "staged", train)
    return publish(remote.folder, files, replace(manifest, counts={})).version


def rebuild(remote: Remote, train: list[str]) -> tuple[str, bool]:
    with lock(remote.folder):
        remote.pull(silent)
        version = make(remote, train)
        return version.name, remote.push(version, silent)


def fail() -> bool:
    raise KeyboardInterrupt


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are uploaded."""
    put, names = Store.put, []

    def counted(self: Store, name: str, source: Path) -> Any:
        names.append(name)
        return put(self, name, source)

    monkeypatch.setattr(Store, "put", counted)
    return names


def test_a_version_is_the_same_on_another_machine(machine: Machine, url: str, server: Any) -> None:
    first = machine("a")
    assert rebuild(first, ["one"]) == ("v0001", True)
    assert rebuild(first, ["one"]) == ("v0001", False)
    assert server.cat_file(f"{url}/latest") == b"v0001\n"
    assert not server.exists(f"{url}/v0001/{CLAIM}")
    other = machine("b")
    path = local_dataset(url, silent)
    assert path == other.folder / "v0001"
    assert everything(path) == everything(first.folder / "v0001")
    assert open_version(path).read("captions", split="train")["final"].to_pylist() == ["one"]
    assert rebuild(other, ["one"]) == ("v0001", False)  # nothing changed, on a machine that never made it
    assert rebuild(other, ["two"]) == ("v0002", True)
    first = machine("a")
    assert rebuild(first, ["two"]) == ("v0002", False)
    assert everything(first.folder) == everything(other.folder)
    assert local_versions(url, ("v0001", "v0002"), silent) == first.folder


def test_unchanged_shards_are_copied_by_the_store(machine: Machine, url: str, server: Any, puts: list[str]) -> None:
    remote = machine("a")
    rebuild(remote, ["one"])
    assert len(puts) == 5
    puts.clear()
    rebuild(remote, ["two"])
    assert sorted(puts) == ["v0002/README.md", "v0002/captions/split=train/platform=drone/part-00000.parquet"]
    with as_stored(url, silent) as folder:
        assert everything(folder / "v0002") == everything(remote.folder / "v0002")


def test_a_copy_of_a_damaged_object_is_not_trusted(machine: Machine, url: str, server: Any, puts: list[str]) -> None:
    remote = machine("a")
    rebuild(remote, ["one"])
    server.pipe_file(f"{url}/v0001/images/split=train/platform=drone/part-00000.parquet", b"rot")
    puts.clear()
    rebuild(remote, ["two"])
    assert "v0002/images/split=train/platform=drone/part-00000.parquet" in puts


def test_two_publishers_cannot_publish_the_same_version(machine: Machine, url: str) -> None:
    slow, quick = machine("a"), machine("b")
    with lock(slow.folder):
        slow.pull(silent)
        mine = make(slow, ["mine"])
        assert rebuild(quick, ["yours"]) == ("v0001", True)
        with pytest.raises(DatasetError, match=r"Another rebuild has published to s3://.*v0001 is the newest there"):
            slow.push(mine, silent)
    with as_stored(url, silent) as folder:
        assert everything(folder)["v0001/manifest.json"] == (quick.folder / "v0001" / "manifest.json").read_bytes()
        assert everything(folder / "v0001") == everything(quick.folder / "v0001")
    assert rebuild(slow, ["mine"]) == ("v0002", True)
    assert everything(slow.folder / "v0001") == everything(quick.folder / "v0001")


def test_the_manifest_itself_is_conditional(machine: Machine, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with claims, the store refuses a second manifest."""
    slow, quick = machine("a"), machine("b")
    monkeypatch.setattr(Remote, "_claim", lambda self, name: None)
    monkeypatch.setattr(Remote, "_check_base", lambda self, before, objects: None)
    with lock(slow.folder):
        slow.pull(silent)
        mine = make(slow, ["mine"])
        rebuild(quick, ["yours"])
        monkeypatch.setattr(Store, "list", lambda self, below="": {})
        with pytest.raises(DatasetError, match="Another rebuild has published"):
            slow.push(mine, silent)
    assert slow.store.read("v0001/manifest.json") == (quick.folder / "v0001" / "manifest.json").read_bytes()


def test_a_store_without_conditional_writes_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = machine("a")
    monkeypatch.setattr(Store, "create", lambda self, name, data: self.write(name, data) is None)
    for _ in range(2):
        with pytest.raises(DatasetError, match="no conditional writes"):
            rebuild(remote, ["one"])


def test_an_answer_that_was_lost_is_no_conflict(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that tries again after a broken connection meets the object that it has written itself."""
    create = Store.create
    monkeypatch.setattr(Store, "create", lambda self, name, data: create(self, name, data) and False)
    assert rebuild(machine("a"), ["one"]) == ("v0001", True)
    assert local_dataset(machine("b").store.url, silent).name == "v0001"


def test_who_comes_while_another_uploads_takes_the_next_number(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = machine("a"), machine("b")
    put, done = Store.put, []

    def meanwhile(self: Store, name: str, source: Path) -> Any:
        if not done:
            done.append(name)
            done.append(rebuild(quick, ["yours"]))
        return put(self, name, source)

    with lock(slow.folder):
        slow.pull(silent)
        mine = make(slow, ["mine"])
        monkeypatch.setattr(Store, "put", meanwhile)
        with pytest.raises(DatasetError, match="v0002 is the newest there"):
            slow.push(mine, silent)
    assert done[1] == ("v0002", True)
    assert rebuild(slow, ["mine"]) == ("v0003", True)
    assert {name.partition("/")[0] for name in slow.store.list()} == {"latest", "v0002", "v0003"}
    assert slow.newest() == "v0003"
    assert everything(slow.folder / "v0002") == everything(quick.folder / "v0002")


def test_a_claim_that_was_lost_is_a_sentence(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = machine("a"), machine("b")
    with lock(slow.folder):
        slow.pull(silent)
        mine = make(slow, ["mine"])
        with lock(quick.folder):
            quick.pull(silent)
            quick._claim("v0001")
        with pytest.raises(DatasetError, match=r"v0001 is being uploaded by .* since .* UTC: run the same command"):
            slow.push(mine, silent)
    assert rebuild(slow, ["mine"]) == ("v0002", True)


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_a_killed_upload_goes_on_where_it_was(
    machine: Machine, url: str, server: Any, puts: list[str], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    remote = machine("a")
    put, create = Store.put, Store.create

    def killed_put(self: Store, name: str, source: Path) -> Any:
        return fail() if len(puts) >= after else put(self, name, source)

    def killed_create(self: Store, name: str, data: bytes) -> bool:
        return fail() if name.endswith("manifest.json") else create(self, name, data)

    monkeypatch.setattr("data.stores.THREADS", 1)
    with lock(remote.folder):
        remote.pull(silent)
        version = make(remote, ["one"])
        with monkeypatch.context() as patch:
            patch.setattr(Store, "put", killed_put)
            patch.setattr(Store, "create", killed_create)
            with pytest.raises(KeyboardInterrupt):
                remote.push(version, silent)
    with pytest.raises(DatasetError, match="There is no data set at"):
        local_dataset(url, silent)
    with pytest.raises(DatasetError, match="no complete version v0001; there are: none yet"):
        local_dataset(f"{url}/v0001", silent)
    assert len(puts) == after
    assert rebuild(remote, ["one"]) == ("v0001", True)
    assert len(puts) == len(set(puts)) == 5
    with as_stored(url, silent) as folder:
        assert everything(folder / "v0001") == everything(remote.folder / "v0001")


def test_a_number_with_objects_of_nobody_is_left_out(machine: Machine, url: str, server: Any) -> None:
    server.pipe_file(f"{url}/v0001/captions/left.parquet", b"of another")
    assert rebuild(machine("a"), ["two"]) == ("v0002", True)
    assert rebuild(machine("b"), ["two"]) == ("v0002", False)


def test_what_a_killed_upload_left_is_replaced(machine: Machine, url: str, server: Any, puts: list[str]) -> None:
    remote = machine("a")
    with lock(remote.folder):
        remote.pull(silent)
        remote._claim("v0001")
    stray, shard = "v0001/captions/stray.parquet", "v0001/captions/split=train/platform=drone/part-00000.parquet"
    server.pipe_file(f"{url}/{stray}", b"stray")
    server.pipe_file(f"{url}/{shard}", b"of other rows")
    assert rebuild(remote, ["one"]) == ("v0001", True)
    assert stray not in remote.store.list()
    with as_stored(url, silent) as folder:
        assert everything(folder / "v0001") == everything(remote.folder / "v0001")


def test_latest_is_mended(machine: Machine, url: str, server: Any) -> None:
    remote = machine("a")
    rebuild(remote, ["one"])
    rebuild(remote, ["two"])
    server.rm_file(f"{url}/latest")
    assert remote.newest() == "v0002"
    server.pipe_file(f"{url}/latest", b"v0001\n")
    assert local_dataset(url, silent).name == "v0001"  # who sets it back means it
    assert rebuild(remote, ["two"]) == ("v0002", False)
    assert server.cat_file(f"{url}/latest") == b"v0002\n"
    server.pipe_file(f"{url}/latest", b"v0007\xff")
    with pytest.raises(DatasetError, match=r"names 'v0007.*no complete version .*there are v0001, v0002"):
        local_dataset(url, silent)


SHARD = "captions/split=train/platform=drone/part-00000.parquet"


@pytest.mark.parametrize("damage", ["other bytes", "cut", "missing", "unlisted"])
def test_a_damaged_object_is_found_and_not_used(machine: Machine, url: str, server: Any, damage: str) -> None:
    remote = machine("a")
    rebuild(remote, ["one"])
    with as_stored(url, silent) as folder:
        before = verify(folder)
    assert not [finding for finding in before if finding.check in ("files", "shard", "manifest", "latest")]
    data = server.cat_file(f"{url}/v0001/{SHARD}")
    match damage:
        case "other bytes":
            server.pipe_file(f"{url}/v0001/{SHARD}", bytes([data[0] ^ 1]) + data[1:])
        case "cut":
            server.pipe_file(f"{url}/v0001/{SHARD}", data[:-5])
        case "missing":
            server.rm_file(f"{url}/v0001/{SHARD}")
        case "unlisted":
            server.pipe_file(f"{url}/v0001/captions/x.parquet", data)
    for place in (url, f"{url}/v0001"):
        with as_stored(place, silent) as folder:
            found = verify(folder)
        where = "captions/x.parquet" if damage == "unlisted" else SHARD
        assert where in {finding.where for finding in found if finding.check in ("files", "shard")}
    assert not list((remote.folder / ".work").glob("verify-*"))
    machine("b")
    if damage == "unlisted":
        assert local_dataset(url, silent).name == "v0001"
    else:
        with pytest.raises(DatasetError, match=rf"{SHARD} is (damaged|missing): run `georefine verify`"):
            local_dataset(url, silent)


def test_a_fetch_goes_on_where_it_was(machine: Machine, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rebuild(machine("a"), ["one"])
    other = machine("b")
    fetch, names = Store.fetch, []

    def killed(self: Store, name: str, size: int, target: Path) -> str:
        names.append(name)
        if len(names) == 3:
            raise KeyboardInterrupt
        return fetch(self, name, size, target)

    monkeypatch.setattr(Store, "fetch", killed)
    monkeypatch.setattr("data.stores.THREADS", 1)
    with pytest.raises(KeyboardInterrupt):
        local_dataset(url, silent)
    assert not (other.folder / "v0001").exists()
    local_dataset(url, silent)
    assert len(names) == 3 + 3  # two of four shards were here, and the README


def test_a_hostile_manifest_leaves_the_folder_alone(machine: Machine, url: str, server: Any, tmp_path: Path) -> None:
    remote = machine("a")
    rebuild(remote, ["one"])
    manifest = json.loads(server.cat_file(f"{url}/v0001/manifest.json"))
    manifest["shards"][0]["path"] = "../../escaped.parquet"
    machine("b")
    for text in (json.dumps(manifest).encode(), b"{}", b"\xff", b"[" * 10**6):
        server.pipe_file(f"{url}/v0001/manifest.json", text)
        with pytest.raises(DatasetError, match=r"v0001/manifest\.json"):
            local_dataset(url, silent)
    assert not list(tmp_path.rglob("escaped*"))


def test_prune_keeps_what_a_checkpoint_names(machine: Machine, url: str, tmp_path: Path) -> None:
    remote = machine("a")
    for text in ("one", "two", "three", "four"):
        rebuild(remote, [text])
    machine("gpu")
    note_checkpoint(f"{url}/v0002", "v0002", tmp_path / "run")
    remote = machine("a")
    with lock(remote.folder):
        removed = prune(remote.folder, 1)
        assert removed == ["v0001", "v0002", "v0003"]  # this machine knows of no run
        assert remote.prune(1) == ["v0001", "v0003"]
    assert {name.partition("/")[0] for name in remote.store.list()} == {"latest", "runs", "v0002", "v0004"}


def test_decisions_stay_here_when_versions_go(machine: Machine, url: str, server: Any) -> None:
    rebuild(machine("a"), ["one"])
    remote = machine("b")
    folder = local_folder(url, silent)
    assert folder == remote.folder == working_folder(url)
    assert (folder / "latest").read_text() == "v0001\n"
    (folder / "reviews.sqlite").write_bytes(b"decisions")
    server.rm(url, recursive=True)
    assert rebuild(remote, ["three"]) == ("v0001", True)
    assert (folder / "reviews.sqlite").read_bytes() == b"decisions"
    assert "reviews.sqlite" not in remote.store.list()


def test_the_folder_of_a_url_is_one_and_its_own(machine: Machine, url: str, tmp_path: Path) -> None:
    machine("a")
    folder = working_folder(url)
    assert folder.parent == tmp_path / "a" / "georefine"
    assert Remote.at(f"{url}/").folder == Remote.at(url.replace("s3://", "S3A://")).folder == folder
    assert Remote.at(f"{url}2").folder != folder
    with pytest.raises(UsageError, match="names no folder"):
        Remote.at("s3://")
    assert local_dataset("a/path", silent) == local_folder("a/path", silent) == Path("a/path")


FETCH = """
import sys
from data.remote import local_dataset
print(local_dataset(sys.argv[1], lambda *_: None))
"""


def test_processes_that_fetch_at_once_wait_for_each_other(machine: Machine, url: str) -> None:
    rebuild(machine("a"), ["one"])
    remote = machine("b")
    command = [sys.executable, "-c", FETCH, url]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=120)[0].strip() for process in running}
    assert said == {str(remote.folder / "v0001")}
    assert {process.returncode for process in running} == {0}
