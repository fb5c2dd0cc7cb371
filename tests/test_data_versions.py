"""Publication: nothing unfinished is visible, nothing changed makes no version, unchanged shards are shared."""

import io
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from data import shards, versions
from data.shards import open_version, sha256_bytes, shard_path, write_table
from data.versions import WORK, Published, clean, list_versions, lock, name_checkpoint, next_version, prune, publish
from schemas.errors import DatasetError
from schemas.manifest import FORMAT_VERSION, Account, Manifest, Shard
from schemas.records import SPLITS, Split, Table
from schemas.tables import CAPTIONS, IMAGES, REJECTS


def captions(split: str, finals: list[str]) -> pa.Table:
    rows = [
        dict.fromkeys(CAPTIONS.names, text)
        | {"caption_id": f"{n}", "split": split, "platform": "drone", "edits": [], "queries": [text], "gates": []}
        for n, text in enumerate(finals)
    ]
    return pa.Table.from_pylist(rows, schema=CAPTIONS)


def images(split: str) -> pa.Table:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (9, 9, 9)).save(out, "PNG")
    row: dict[str, Any] = dict.fromkeys(IMAGES.names) | {
        "image_id": "a",
        "building_id": "1",
        "platform": "drone",
        "split": split,
        "role": "train",
        "image": {"bytes": out.getvalue(), "path": "a.png"},
        "width": 8,
        "height": 6,
        "sha256": sha256_bytes(out.getvalue()),
    }
    return pa.Table.from_pylist([row], schema=IMAGES)


def staged(folder: Path, train: list[str]) -> tuple[dict[str, Path], Manifest]:
    tables = {
        shard_path("captions", "train", "drone", 0): captions("train", train),
        shard_path("captions", "test", "drone", 0): captions("test", ["fixed"]),
        shard_path("images", "train", "drone", 0): images("train"),
        "rejects/part-00000.parquet": REJECTS.empty_table(),
    }
    files, listed = {}, []
    for path, table in tables.items():
        files[path] = folder / path.replace("/", "_")
        done = write_table(files[path], table)
        split: Split | None = "train" if "=train" in path else "test" if "=test" in path else None
        shard = Shard(path, path.split("/")[0], split, split and "drone", done.rows, done.bytes, done.sha256)
        listed.append(shard)
    counts = {"train": {"drone": {"buildings": 1, "images": 1, "augmented": 0, "captions": len(train), "regions": 0}}}
    accounts: dict[Table, Account] = {"captions": Account(len(train) + 1, len(train) + 1, 0, 0)}
    return files, Manifest(
        FORMAT_VERSION, "", "0.1", {"sha256": "s"}, {"seed": 0}, tuple(listed), accounts, counts, {}, ("A remark.",)
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tmp_path / "dataset"


def run(dataset: Path, train: list[str], **changes: Any) -> Published:
    with lock(dataset):
        files, manifest = staged(dataset.parent / "staged", train)
        return publish(dataset, files, replace(manifest, **changes))


def everything(folder: Path) -> dict[str, bytes]:
    """All visible files of a data set."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".work" not in path.parts
    }


def test_versions_are_numbered_and_latest_follows(dataset: Path) -> None:
    first = run(dataset, ["one"])
    assert (first.version.name, first.new) == ("v0001", True)
    again = run(dataset, ["one"])
    assert (again.version.name, again.new) == ("v0001", False)
    second = run(dataset, ["two"])
    assert (second.version.name, second.new) == ("v0002", True)
    assert (dataset / "latest").read_text() == "v0002\n"
    assert open_version(dataset).read("captions", split="train")["final"].to_pylist() == ["two"]
    assert [version.name for version in list_versions(dataset)] == ["v0001", "v0002"]
    assert next_version(dataset) == "v0003"
    assert open_version(dataset).manifest == second.version.manifest


@pytest.mark.parametrize("changes", [{"config": {"seed": 1}}, {"accounts": {"captions": Account(3, 2, 1, 0)}}])
def test_another_configuration_or_other_rejects_make_a_version(dataset: Path, changes: dict[str, Any]) -> None:
    run(dataset, ["one"])
    assert run(dataset, ["one"], **changes).new


def test_another_source_fingerprint_alone_makes_none(dataset: Path) -> None:
    run(dataset, ["one"])
    assert not run(dataset, ["one"], source={"sha256": "other"}, code_version="0.2").new


def test_unchanged_shards_share_their_bytes_with_the_version_before(dataset: Path) -> None:
    run(dataset, ["one"])
    shutil.rmtree(dataset.parent / "staged")  # .work was deleted: everything is staged anew
    run(dataset, ["two"])
    changed, same = (shard_path("captions", split, "drone", 0) for split in SPLITS if split != "val")
    assert (dataset / "v0001" / same).samefile(dataset / "v0002" / same)
    assert not (dataset / "v0001" / changed).samefile(dataset / "v0002" / changed)


def test_a_damaged_file_of_the_version_before_is_not_reused(dataset: Path) -> None:
    run(dataset, ["one"])
    shutil.rmtree(dataset.parent / "staged")
    path = dataset / "v0001" / shard_path("captions", "test", "drone", 0)
    path.write_bytes(b"\0" * path.stat().st_size)
    run(dataset, ["two"])
    assert open_version(dataset).read("captions", split="test")["final"].to_pylist() == ["fixed"]


def test_a_version_that_lost_a_shard_is_made_again(dataset: Path) -> None:
    run(dataset, ["one"])
    (dataset / "v0001" / shard_path("captions", "test", "drone", 0)).unlink()
    assert run(dataset, ["one"]).version.name == "v0002"
    (dataset / "v0002" / "manifest.json").write_text("{")
    assert run(dataset, ["one"]).version.name == "v0003"


@pytest.mark.parametrize("name", [shard_path("captions", "test", "drone", 0), "README.md"])
def test_a_version_that_was_damaged_is_followed_by_a_whole_one(dataset: Path, name: str) -> None:
    run(dataset, ["one"])
    shutil.rmtree(dataset.parent / "staged")  # made again: what is damaged is a link to what was staged
    path = dataset / "v0001" / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert run(dataset, ["one"]).version.name == "v0002"
    assert (dataset / "v0002" / name).read_bytes().startswith(content[:4])
    assert open_version(dataset).read("captions", split="test")["final"].to_pylist() == ["fixed"]
    assert run(dataset, ["one"]).version.name == "v0002"


def test_a_file_system_without_hard_links_gets_copies(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    run(dataset, ["one"])
    run(dataset, ["two"])
    assert open_version(dataset).read("captions").num_rows == 2


def test_a_full_disk_is_one_sentence_and_leaves_the_version_before(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(dataset, ["one"])
    before = everything(dataset)

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(DatasetError, match=r"cannot take a new version \(No space left on device\)"):
        run(dataset, ["two"])
    assert everything(dataset) == before


def test_killed_at_any_step_nothing_unfinished_is_visible_and_the_next_run_repairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = tmp_path / "a" / "dataset"
    for texts in (["one"], ["two"]):
        run(undisturbed, texts)
    expected = everything(undisturbed)

    steps = 0
    killed_at: int | None = None

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == killed_at:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return step

    monkeypatch.setattr(os, "link", counted(os.link))
    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    monkeypatch.setattr(versions, "atomic_write", counted(shards.atomic_write))
    monkeypatch.setattr(versions, "sync_folder", counted(shards.sync_folder))
    one, two = (staged(tmp_path / text, [text]) for text in ("one", "two"))
    for point in range(1, 100):
        dataset = tmp_path / f"b{point}" / "dataset"
        killed_at = None
        with lock(dataset):
            publish(dataset, *one)
        first = everything(dataset)
        steps, killed_at = 0, point
        try:
            with lock(dataset):
                publish(dataset, *two)
            break
        except KeyboardInterrupt:
            pass
        killed_at = None
        visible = everything(dataset)
        if open_version(dataset).name == "v0001":
            assert {k: v for k, v in visible.items() if not k.startswith("v0002")} == first
        assert all(version.read("captions").num_rows == 2 for version in list_versions(dataset))
        with lock(dataset):
            assert publish(dataset, *two).version.name == "v0002"
        assert everything(dataset) == expected
    assert point > 10


def test_a_version_of_another_format_is_named_and_followed_by_one_of_ours(dataset: Path) -> None:
    run(dataset, ["one"])
    path = dataset / "v0001" / "manifest.json"
    path.write_text(path.read_text().replace(f'"format_version": {FORMAT_VERSION}', '"format_version": 0'))
    with pytest.raises(
        DatasetError, match=r"v0001/manifest.json has format version 0, this georefine reads 1: rebuild"
    ):
        open_version(dataset)
    assert run(dataset, ["one"]).version.name == "v0002"
    assert open_version(dataset).read("captions").num_rows == 2
    with lock(dataset):
        assert prune(dataset, 1) == ["v0001"]


def test_a_version_that_cannot_be_removed_is_one_sentence(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("one", "two"):
        run(dataset, [text])

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(DatasetError, match=r"v0001 cannot be removed \(Permission denied\)"), lock(dataset):
        prune(dataset, 1)


def test_files_and_manifest_must_agree(dataset: Path) -> None:
    with lock(dataset):
        files, manifest = staged(dataset.parent / "staged", ["one"])
        with pytest.raises(DatasetError, match="other shards than were made"):
            publish(dataset, {}, manifest)
        shard = replace(manifest.shards[0], path="../escape.parquet")
        with pytest.raises(DatasetError, match="other shards than were made"):
            publish(dataset, {shard.path: next(iter(files.values()))}, replace(manifest, shards=(shard,)))
        next(iter(files.values())).write_bytes(b"")
        with pytest.raises(DatasetError, match="is not the shard that was made"):
            publish(dataset, files, manifest)
    assert everything(dataset) == {}


def _hold(dataset: Path, ready: Any) -> None:
    with lock(dataset):
        ready.set()
        signal.pause()


def test_pruning_keeps_the_newest_and_what_a_checkpoint_names(dataset: Path, tmp_path: Path) -> None:
    for number in range(5):
        run(dataset, [f"caption {number}"])
    kept, gone = tmp_path / "run", tmp_path / "gone"
    kept.mkdir()
    name_checkpoint(dataset, "v0002", kept)
    name_checkpoint(dataset, "v0003", gone)
    with lock(dataset):
        assert prune(dataset, 2) == ["v0001", "v0003"]
    assert [version.name for version in list_versions(dataset)] == ["v0002", "v0004", "v0005"]
    with lock(dataset):
        assert prune(dataset, 1) == ["v0004"]
    assert open_version(dataset).name == "v0005"


def test_cleaning_keeps_what_the_last_rebuild_or_a_version_uses(tmp_path: Path) -> None:
    work = tmp_path / WORK
    for key in ("used", "linked", "stale"):
        (work / "shards" / key).mkdir(parents=True)
        (work / "shards" / key / "images.parquet").write_bytes(b"rows")
    os.link(work / "shards" / "linked" / "images.parquet", tmp_path / "version.parquet")
    leftovers = [
        tmp_path / ".latest.1-2.tmp",
        work / ".plan.json.1-2.tmp",
        work / "shards/used/.images.parquet.1-2.tmp",
    ]
    for path in leftovers:
        path.write_bytes(b"")
    (work / "version" / "images").mkdir(parents=True)
    (work / "answers").mkdir()
    for name in ("a-1.json", "b-2.json"):
        (work / "answers" / name).write_bytes(b"[]")
    clean(work, {"used"}, {"a-1.json"})
    assert sorted(p.name for p in (work / "shards").iterdir()) == ["linked", "used"]
    assert [p.name for p in (work / "answers").iterdir()] == ["a-1.json"]
    assert not any(path.exists() for path in [*leftovers, work / "version"])


def test_a_second_rebuild_is_told_who_holds_the_data_set(dataset: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=_hold, args=(dataset, ready))
    other.start()
    try:
        assert ready.wait(60)
        told = rf"is being rebuilt by process {other.pid} since 20..-..-.. ..:..:.. \(for less than a minute\): wait"
        with pytest.raises(DatasetError, match=told), lock(dataset):
            pass
        path = dataset / WORK / "lock"
        path.write_text(f"{other.pid} {time.time() - 750:.0f}\n")
        with pytest.raises(DatasetError, match=r"\(for 12 min\)"), lock(dataset):
            pass
        for garbage in ("", "x y\n", f"1 {10**30}\n", "1\n"):
            path.write_text(garbage)
            with pytest.raises(DatasetError, match="is being rebuilt by another process: wait"), lock(dataset):
                pass
    finally:
        other.kill()
        other.join()
    with lock(dataset):  # kill -9 lets go
        assert (dataset / WORK / "lock").read_text().split()[0] == str(os.getpid())


def test_a_folder_made_for_the_lock_alone_goes_with_it(tmp_path: Path) -> None:
    with lock(tmp_path / "new" / "dataset"):
        assert (tmp_path / "new" / "dataset" / WORK).is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    with lock(tmp_path / "there"):
        pass
    assert list((tmp_path / "there").iterdir()) == []
    with lock(tmp_path / "dataset"):
        (tmp_path / "dataset" / WORK / "shards").mkdir()
    assert (tmp_path / "dataset" / WORK / "lock").exists()


def test_a_lock_file_taken_away_by_its_last_holder_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / WORK / "lock"
    opened = os.open

    def taken_away(name: Path, flags: int, mode: int = 0o777) -> int:
        monkeypatch.undo()
        descriptor = opened(name, flags, mode)
        path.unlink()
        return descriptor

    monkeypatch.setattr(os, "open", taken_away)
    with lock(tmp_path):
        assert path.exists(), "the file that was locked must be the one that others find"


def test_too_little_space_is_said_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions.check_space(tmp_path, 1)
    with pytest.raises(DatasetError, match=r"needs about 1,000,000,000,000 MB more .* has [\d,]+ MB free: free space"):
        versions.check_space(tmp_path, 10**18)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 0))
    versions.check_space(tmp_path, 10**18)


def test_a_data_set_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=r"cannot be written .*choose another folder"), lock(tmp_path / "file"):
        pass


def test_the_card_opens_in_hugging_face_datasets_and_pandas(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(dataset, ["one", "two"])
    folder = dataset / "v0001"
    text = (folder / "README.md").read_text()
    assert "| train | drone | 1 | 1 | 0 | 2 | 0 |" in text
    assert "- A remark." in text
    frame = pd.read_parquet(folder / "captions", filters=[("split", "==", "train")])
    assert list(frame["final"]) == ["one", "two"]

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    cache = str(tmp_path / "cache")
    train = datasets.load_dataset(str(folder), "captions", split="train", cache_dir=cache)
    assert train["final"] == ["one", "two"]
    assert set(train["split"]) == {"train"}
    assert datasets.load_dataset(str(folder), cache_dir=cache).keys() == {"train", "test"}
    picture = datasets.load_dataset(str(folder), "images", split="train", cache_dir=cache)[0]["image"]
    assert picture.size == (8, 6)
