"""Object stores: a source's mirror equals the store after whatever happened to it, and every failure is a sentence."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import BUCKET, s3_server

from data import stores
from data.shards import sha256_bytes
from data.stores import Journal, Store, Stored, connect, is_url, local_source
from schemas.errors import DatasetError, GeorefineError, SourceError, UsageError


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with s3_server() as files:
        yield files


@pytest.fixture
def url(server: Any, request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{sha256_bytes(request.node.name.encode())[:12]}/source"


def put(files: Any, url: str, objects: dict[str, bytes]) -> None:
    for name, data in objects.items():
        files.pipe_file(f"{url}/{name}", data)


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Told(list[tuple[str, int, int, str]]):
    """What was reported."""

    def __call__(self, stage: str, done: int, total: int, message: str) -> None:
        self.append((stage, done, total, message))

    @property
    def fetched(self) -> list[str]:
        return [message for _, _, _, message in self[1:]]


SOURCE = {
    "train.json": b"[]",
    "train/drone/0001/image-01.jpeg": b"one",
    "train/drone/0001/image-02.jpeg": b"two",
    "test/gallery_drone/0002/image 01 \xc3\xbc%.jpeg".encode("latin1").decode(): b"",
}


def test_a_path_is_itself(tmp_path: Path) -> None:
    assert local_source("some/folder", tmp_path, Told()) == Path("some/folder")
    assert [is_url(place) for place in ("s3://a/b", "GS://a", "/a://b", "a/b", "C:/x", "s3:/a")] == [True] * 2 + [
        False
    ] * 4


def test_only_what_changed_is_fetched(server: Any, url: str, tmp_path: Path) -> None:
    put(server, url, SOURCE)
    told = Told()
    mirror = local_source(f"{url}/", tmp_path, told)
    assert content(mirror) == SOURCE
    assert sorted(told.fetched) == sorted(SOURCE)
    told = Told()
    assert local_source(url, tmp_path, told) == mirror
    assert told == [("fetch source", 4, 4, "0 new or changed")]
    put(server, url, {"train/drone/0001/image-02.jpeg": b"TWO", "train/drone/0001/image-03.jpeg": b"three"})
    server.rm_file(f"{url}/train/drone/0001/image-01.jpeg")
    told = Told()
    local_source(url, tmp_path, told)
    assert sorted(told.fetched) == ["train/drone/0001/image-02.jpeg", "train/drone/0001/image-03.jpeg"]
    names = {path.name: data for path, data in ((Path(name), data) for name, data in content(mirror).items())}
    assert names == {"train.json": b"[]", "image-02.jpeg": b"TWO", "image-03.jpeg": b"three", "image 01 ü%.jpeg": b""}


def test_what_nobody_reads_is_named_but_not_fetched(server: Any, url: str, tmp_path: Path) -> None:
    put(
        server,
        url,
        {**SOURCE, "University-Release.zip": b"huge", "sub/dir/x": b"1", "sub//../y": b"2", "train/street/": b""},
    )
    mirror = local_source(url, tmp_path, Told())
    assert content(mirror) == {**SOURCE, "University-Release.zip": b""}
    assert sorted(path.name for path in mirror.iterdir()) == [
        "University-Release.zip",
        "sub",
        "test",
        "train",
        "train.json",
    ]
    assert (mirror / "train" / "street").is_dir()


@pytest.mark.parametrize(
    "names",
    [
        ["train/../x"],
        ["train//x.jpg"],
        ["train/./x"],
        ["train/a", "train/a/b"],
        ["train/a", "train/a/"],
        ["train/" + "x" * 250],
    ],
)
def test_names_that_no_folder_can_hold_are_refused(server: Any, url: str, tmp_path: Path, names: list[str]) -> None:
    put(server, url, dict.fromkeys(["train/ok.jpg", *names], b"1"))
    with pytest.raises(SourceError, match="no folder can hold"):
        local_source(url, tmp_path, Told())
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_was_touched_is_fetched_again(server: Any, url: str, tmp_path: Path) -> None:
    put(server, url, SOURCE)
    mirror = local_source(url, tmp_path, Told())
    (mirror / "train" / "drone" / "0001" / "image-01.jpeg").write_bytes(b"ONE")
    (mirror / "train.json").unlink()
    (mirror / "train" / "stray.json").symlink_to("nowhere")
    told = Told()
    local_source(url, tmp_path, told)
    assert content(mirror) == SOURCE
    assert sorted(told.fetched) == ["train.json", "train/drone/0001/image-01.jpeg"]


def test_a_killed_mirror_goes_on_where_it_was(
    server: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, url, {f"train/drone/{n:04d}/image-01.jpeg": bytes([n]) for n in range(40)})
    fetch, calls = Store.fetch, []

    def killed(self: Store, name: str, size: int, target: Path) -> str:
        calls.append(name)
        if len(calls) > 10:
            raise KeyboardInterrupt
        return fetch(self, name, size, target)

    monkeypatch.setattr(Store, "fetch", killed)
    monkeypatch.setattr(stores, "THREADS", 1)
    with pytest.raises(KeyboardInterrupt):
        local_source(url, tmp_path, Told())
    monkeypatch.setattr(Store, "fetch", fetch)
    with (tmp_path / "source.jsonl").open("ab") as file:
        file.write(b'\n["train/drone/0039/image-01.jp')  # a line that the kill cut short
    told = Told()
    mirror = local_source(url, tmp_path, told)
    assert len(told.fetched) == 30
    assert len(content(mirror)) == 40


def test_a_mirror_holds_one_source_at_a_time(server: Any, url: str, tmp_path: Path) -> None:
    put(server, url, SOURCE)
    put(server, f"{url}-2", {"train/drone/0001/image-01.jpeg": b"one"})
    local_source(url, tmp_path, Told())
    told = Told()
    assert content(local_source(f"{url}-2", tmp_path, told)) == {"train/drone/0001/image-01.jpeg": b"one"}
    assert told.fetched == ["train/drone/0001/image-01.jpeg"]


NAMES = ["train/a", "train/a/b", "train/a/c/d", "test/x.jpg", "train.json", "notes.txt", "other/x"]
CHANGES = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([None, b"", b"1", b"22"])), min_size=1, max_size=6)


@settings(max_examples=12, deadline=None)
@given(rounds=st.lists(CHANGES, min_size=2, max_size=4))
def test_the_mirror_equals_the_store_after_any_changes(
    server: Any, tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[str, bytes | None]]]
) -> None:
    url = f"s3://{BUCKET}/law"
    folder = tmp_path_factory.mktemp("mirror")
    objects: dict[str, bytes] = {}
    for changes in rounds:
        for name, data in changes:
            objects = {
                n: d for n, d in objects.items() if not n.startswith(f"{name}/") and not name.startswith(f"{n}/")
            }
            objects.pop(name, None)
            objects |= {name: data} if data is not None else {}
        if server.exists(url):
            server.rm(url, recursive=True)
        put(server, url, objects)
        if objects:
            mirror = local_source(url, folder, Told())
            read = {n: d for n, d in objects.items() if n.startswith(("train/", "test/", "train.json"))}
            assert content(mirror) == read | ({"notes.txt": b""} if "notes.txt" in objects else {})
        else:
            with pytest.raises(SourceError, match="holds nothing"):
                local_source(url, folder, Told())
    shutil.rmtree(folder)


def test_tags_that_only_look_like_md5_cost_a_second_read(
    server: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, url, SOURCE)
    listing, fetch, calls = Store.list, Store.fetch, []
    marked = {name: Stored(stored.size, "0" * 32) for name, stored in connect(url).list().items()}
    monkeypatch.setattr(Store, "list", lambda self, below="": marked)
    monkeypatch.setattr(stores, "THREADS", 1)

    def counted(self: Store, name: str, size: int, target: Path) -> str:
        calls.append(name)
        return fetch(self, name, size, target)

    monkeypatch.setattr(Store, "fetch", counted)
    assert content(local_source(url, tmp_path, Told())) == SOURCE
    assert len(calls) == len(SOURCE) + 1
    monkeypatch.setattr(Store, "list", listing)
    monkeypatch.setattr(
        Store, "fetch", lambda self, name, size, target: os.urandom(16).hex() * bool(target.touch() or 1)
    )
    put(server, url, {"train.json": b"[1]"})
    with pytest.raises(SourceError, match="arrives differently"):
        local_source(url, tmp_path, Told())


def test_an_object_that_shrinks_while_it_is_read_is_an_error(server: Any, url: str, tmp_path: Path) -> None:
    put(server, url, {"train.json": b"[]"})
    with pytest.raises(DatasetError, match=r"changed while it was read|cannot be read"):
        connect(url).fetch("train.json", 5, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_large_objects_come_in_pieces(server: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PIECE", 7)
    data = bytes(range(100))
    put(server, url, {"train/x.bin": data})
    assert content(local_source(url, tmp_path, Told())) == {"train/x.bin": data}


def test_creation_is_conditional(server: Any, url: str) -> None:
    store = connect(url)
    assert store.create("manifest.json", b"mine")
    assert not store.create("manifest.json", b"yours")
    assert store.read("manifest.json") == b"mine"
    store.write("manifest.json", b"over")
    assert store.read("manifest.json") == b"over"
    store.remove("manifest.json")
    store.remove("manifest.json")
    assert store.list() == {}


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("http://host/x", "neither a path nor a URL"),
        ("s3://", "names no folder"),
        ("s3:///x", "names no folder|bucket"),
        ("s3://b/../c", "names no folder"),
    ],
)
def test_urls_that_cannot_be_used(server: Any, place: str, said: str) -> None:
    with pytest.raises(GeorefineError, match=said):
        connect(place).list()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the package gcsfs: pip install 'georefine\[gcs\]'"):
        connect("gs://bucket/dataset")


def test_a_missing_bucket_is_a_sentence(server: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"s3://no-such-bucket/x is not there .*bucket"):
        local_source("s3://no-such-bucket/x", tmp_path, Told())
    with pytest.raises(DatasetError, match="is not there"):
        connect("s3://no-such-bucket/x").write("y", b"")


def test_no_network_and_no_credentials_are_a_sentence(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(error: type[GeorefineError]) -> str:
        type(server).clear_instance_cache()
        with pytest.raises(error) as caught:
            connect("s3://bucket/x", error).list()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        assert "s3://bucket/x cannot be listed (Could not connect" in listed(DatasetError)
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        assert "Unable to locate credentials" in listed(SourceError)
    type(server).clear_instance_cache()


def test_no_permission_is_a_sentence(server: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = connect(url)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(store.files, "pipe_file", refuse)
    with pytest.raises(DatasetError, match=r"latest must not be written \(Access Denied\): check your credentials"):
        store.write("latest", b"")


def test_a_journal_survives_torn_lines_and_forgets(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b'["a", "x"]\n[]\n{"b": 1}\n7\n["b", "y"')
    journal = Journal.open(path)
    assert journal.known == {"a": ["x"]}
    journal.note("c", "z", 3)
    journal.note("a", "w")
    assert Journal.open(path).known == {"a": ["w"], "c": ["z", 3]}
    journal.keep(["c", "d"])
    assert Journal.open(path).known == {"c": ["z", 3]}
