"""What changed between two versions of a data set."""

from pathlib import Path

import pyarrow as pa
import pytest

from data.diff import changes
from data.shards import write_table
from data.versions import lock, publish
from schemas.errors import DatasetError, UsageError
from schemas.manifest import FORMAT_VERSION, Account, Manifest, Shard
from schemas.tables import CAPTIONS


def add_version(dataset: Path, captions: dict[str, tuple[str, str]]) -> None:
    """A version whose captions are {id: (final, status)}, a shard for each."""
    files, shards = {}, []
    with lock(dataset):
        for number, (caption_id, (final, status)) in enumerate(sorted(captions.items())):
            texts = dict.fromkeys(CAPTIONS.names, "same") | {"caption_id": caption_id, "final": final, "status": status}
            lists = {"edits": [], "queries": [], "gates": []}
            path = f"captions/split=train/platform=drone/part-{number:05d}.parquet"
            files[path] = dataset / ".work" / f"{number}.parquet"
            table = pa.Table.from_pylist([texts | lists | {"split": "train", "platform": "drone"}], schema=CAPTIONS)
            done = write_table(files[path], table)
            shards.append(Shard(path, "captions", "train", "drone", done.rows, done.bytes, done.sha256))
        rows = Account(len(captions), len(captions), 0, 0)
        publish(
            dataset, files, Manifest(FORMAT_VERSION, "", "0", {}, {}, tuple(shards), {"captions": rows}, {}, {}, ())
        )


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    add_version(folder, {"a": ("one", "refined"), "b": ("two", "refined"), "c": ("three", "refined")})
    add_version(
        folder, {"a": ("one", "refined"), "b": ("zwei", "edited"), "c": ("three", "fallback"), "d": ("new", "refined")}
    )
    return folder


def test_names_what_was_added_removed_and_changed(dataset: Path) -> None:
    found = [(c.caption_id, c.kind, c.fields) for c in changes(dataset, "v0001", "v0002")]
    assert found == [("b", "changed", ("final", "status")), ("c", "changed", ("status",)), ("d", "added", ())]
    back = [(c.caption_id, c.kind) for c in changes(dataset, "v0002", "v0001")]
    assert back == [("b", "changed"), ("c", "changed"), ("d", "removed")]


def test_a_version_does_not_differ_from_itself(dataset: Path) -> None:
    assert list(changes(dataset, "v0001", "v0001")) == []


def test_versions_that_are_not_there_are_named(dataset: Path) -> None:
    with pytest.raises(DatasetError, match="has no complete version v0009; there are: v0001, v0002"):
        list(changes(dataset, "v0001", "v0009"))
    with pytest.raises(UsageError, match="not the name of a version"):
        list(changes(dataset, "../v0001", "v0002"))
