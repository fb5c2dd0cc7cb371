"""Shards: equal rows give equal bytes, every reader opens them, errors name the file."""

import errno
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data import shards
from schemas.errors import DatasetError
from schemas.manifest import FORMAT_VERSION, Account, Manifest, Shard
from schemas.tables import CAPTIONS, IMAGES, REGIONS, REJECTS

ROOT = Path(__file__).resolve().parents[1]


def png(colour: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (colour, 0, 0)).save(out, "PNG")
    return out.getvalue()


def image_rows(split: str, platform: str, count: int = 3) -> pa.Table:
    data = [png(n) for n in range(count)]
    return pa.Table.from_pydict(
        {
            "image_id": [f"{split}/{platform}/000{n}/000{n}.png" for n in range(count)],
            "building_id": [f"000{n}" for n in range(count)],
            "platform": [platform] * count,
            "split": [split] * count,
            "role": ["train"] * count,
            "image": [{"bytes": d, "path": f"{n}.png"} for n, d in enumerate(data)],
            "width": [8] * count,
            "height": [6] * count,
            "sha256": [shards.sha256_bytes(d) for d in data],
            "parent_image_id": [None] * count,
            "transform": [None] * count,
        },
        schema=IMAGES,
    )


def caption_row(split: str, platform: str, number: int, **changes: Any) -> dict[str, Any]:
    image_id = f"{split}/{platform}/000{number}/000{number}.png"
    row = {
        "caption_id": f"{image_id}#0",
        "image_id": image_id,
        "building_id": f"000{number}",
        "platform": platform,
        "split": split,
        "raw": "A red roof on the left.",
        "edits": [{"start": 10, "end": 22, "old": " on the left", "new": ""}],
        "stripped": "A red roof.",
        "refined": "A red roof.",
        "queries": ["A red roof"],
        "final": "A red roof.",
        "status": "refined",
        "gates": [{"gate": "colours", "passed": True, "detail": ""}],
        "refiner": "rules",
        "prompt_version": "1",
        "reply_key": "",
        "reply": "",
    }
    return row | changes


def captions(split: str, platform: str, count: int = 3) -> pa.Table:
    return pa.Table.from_pylist([caption_row(split, platform, n) for n in range(count)], schema=CAPTIONS)


def write_version(folder: Path, tables: dict[str, pa.Table]) -> Manifest:
    """A version with the given shards and little else in its manifest."""
    listed = []
    for path, table in tables.items():
        written = shards.write_table(folder / path, table)
        split, platform = (part.partition("=")[2] for part in Path(path).parts[1:3]) if "=" in path else (None, None)
        listed.append(
            Shard(path, path.split("/")[0], split, platform, written.rows, written.bytes, written.sha256)  # type: ignore[arg-type]
        )
    manifest = Manifest(
        FORMAT_VERSION, folder.name, "0", {}, {}, tuple(listed), {"images": Account(0, 0, 0, 0)}, {}, {}
    )
    shards.atomic_write(folder / "manifest.json", manifest.to_json().encode())
    return manifest


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    tables = {
        shards.shard_path("images", "train", "drone", 0): image_rows("train", "drone"),
        shards.shard_path("images", "train", "satellite", 0): image_rows("train", "satellite"),
        shards.shard_path("images", "test", "satellite", 0): image_rows("test", "satellite", 2),
        shards.shard_path("captions", "train", "drone", 0): captions("train", "drone"),
        shards.shard_path("captions", "test", "satellite", 0): captions("test", "satellite", 2),
    }
    write_version(tmp_path / "v0001", tables)
    shards.atomic_write(tmp_path / "latest", b"v0001\n")
    return tmp_path


def test_equal_rows_give_equal_bytes_whatever_their_chunks_and_dictionaries(tmp_path: Path) -> None:
    table = image_rows("train", "drone")
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    other = pa.Table.from_pylist(table.to_pylist(), schema=IMAGES)
    strings = other.set_column(3, "split", other.column("split").cast(pa.string()))
    written = {shards.write_table(tmp_path / f"{n}", t) for n, t in enumerate([table, pieces, other, strings])}
    assert len(written) == 1
    assert written.pop() == shards.WrittenFile(3, (tmp_path / "0").stat().st_size, shards.sha256_file(tmp_path / "3"))


@pytest.mark.parametrize("schema", [IMAGES, CAPTIONS, REGIONS, REJECTS])
def test_empty_tables_keep_their_schema(tmp_path: Path, schema: pa.Schema) -> None:
    assert shards.write_table(tmp_path / "empty.parquet", schema.empty_table()).rows == 0
    assert pq.ParquetFile(tmp_path / "empty.parquet").schema_arrow.equals(schema, check_metadata=False)


def test_only_image_bytes_are_uncompressed_and_image_row_groups_are_small(tmp_path: Path) -> None:
    table = pa.concat_tables([image_rows("train", "drone")] * 200)
    shards.write_table(tmp_path / "images.parquet", table)
    metadata = pq.ParquetFile(tmp_path / "images.parquet").metadata
    assert metadata.num_row_groups == 3
    group = metadata.row_group(0)
    codecs = {group.column(n).path_in_schema: group.column(n).compression for n in range(group.num_columns)}
    assert codecs.pop("image.bytes") == "UNCOMPRESSED"
    assert set(codecs.values()) == {"ZSTD"}


def test_rows_of_no_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="are of no table"):
        shards.write_table(tmp_path / "x", pa.table({"a": [1]}))
    wrong = pa.table({name: ["x"] for name in REJECTS.names})
    with pytest.raises(DatasetError, match=r"Column rejects\.row is not of type int64"):
        shards.write_table(tmp_path / "x", wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"part\.parquet cannot be written .*free space or choose"):
        shards.write_table(tmp_path / "file" / "part.parquet", captions("train", "drone"))
    shards.atomic_write(tmp_path / "kept", b"before")

    def fail(file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DatasetError, match="No space left on device"):
        shards.write_in_one_step(tmp_path / "kept", fail)
    assert (tmp_path / "kept").read_bytes() == b"before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "kept"]


def test_a_sync_that_fails_while_more_is_written_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system tells of lost pages once: a sync in the background must not swallow it."""
    table = image_rows("train", "drone", 200)
    written = shards.write_table(tmp_path / "calm.parquet", table)
    assert written.sha256 == shards.sha256_file(tmp_path / "calm.parquet")
    monkeypatch.setattr(shards, "AHEAD", 100)
    monkeypatch.setattr(shards, "PIECE", 10)
    assert shards.write_table(tmp_path / "synced.parquet", table) == written
    failures = [OSError(errno.EIO, "lost")]

    def failing(descriptor: int) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr("os.fsync", failing)
    with pytest.raises(DatasetError, match=r"failed\.parquet cannot be written"):
        shards.write_table(tmp_path / "failed.parquet", table)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calm.parquet", "synced.parquet"]


def test_a_version_is_read_by_split_platform_and_column(dataset: Path) -> None:
    version = shards.open_version(dataset)
    assert version.name == "v0001"
    assert version.read("images").num_rows == 8
    assert version.read("images").schema.equals(IMAGES, check_metadata=True)
    some = version.read("images", split="train", platforms=["satellite"], columns=["split", "image_id"])
    assert some.column_names == ["split", "image_id"]
    assert set(some["split"].to_pylist()) == {"train"}
    assert version.read("regions").schema.equals(REGIONS)
    batches = list(version.batches("captions", columns=["final"], rows=2))
    assert [b.num_rows for b in batches] == [2, 2, 1]
    assert version.read("images", split="val").num_rows == 0
    wrongs: list[dict[str, Any]] = [{"split": "dev"}, {"columns": ["colour"]}, {"platforms": ["space"]}]
    for wrong in wrongs:
        with pytest.raises(DatasetError, match=r"There is no (split|column|platform)"):
            version.read("images", **wrong)
    with pytest.raises(DatasetError, match="There is no table"):
        version.read("videos")


def test_latest_is_followed_and_a_version_can_be_named(dataset: Path) -> None:
    write_version(dataset / "v0002", {})
    assert shards.open_version(dataset).name == "v0001"
    assert shards.open_version(dataset / "v0002").name == "v0002"
    (dataset / "latest").unlink()  # killed between the rename and the pointer
    assert shards.open_version(dataset).name == "v0002"
    (dataset / "latest").write_text("v0009")
    with pytest.raises(DatasetError, match=r"names 'v0009', which is no complete version .*v0001, v0002"):
        shards.open_version(dataset)
    (dataset / "v0003").mkdir()
    with pytest.raises(DatasetError, match=r"v0003 is unfinished \(it has no manifest\.json\)"):
        shards.open_version(dataset / "v0003")


def test_versions_sort_by_number(dataset: Path) -> None:
    for number in (9, 10, 9999, 10000):
        write_version(dataset / f"v{number:04d}", {})
    assert shards.complete_versions(dataset)[-3:] == ["v0010", "v9999", "v10000"]


def test_no_data_set_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="There is no data set at"):
        shards.open_version(tmp_path / "absent")
    with pytest.raises(DatasetError, match="holds no complete version"):
        shards.open_version(tmp_path)


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"format_version": 99}', b"null"])
def test_a_broken_manifest_is_named(dataset: Path, text: bytes) -> None:
    (dataset / "v0001" / "manifest.json").write_bytes(text)
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        shards.open_version(dataset)


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "schema"])
def test_a_damaged_shard_is_named(dataset: Path, damage: str) -> None:
    path = dataset / "v0001" / shards.shard_path("captions", "train", "drone", 0)
    if damage == "missing":
        path.unlink()
    elif damage == "schema":
        pq.write_table(pa.table({"raw": [1]}), path)
    else:
        data = path.read_bytes()
        path.write_bytes(data[:100] if damage == "truncated" else data[:200] + b"x" * 400 + data[600:])
    with pytest.raises(DatasetError, match=r"Shard .*captions/split=train/platform=drone/part-00000\.parquet cannot"):
        shards.open_version(dataset).read("captions")


def test_pandas_duckdb_and_polars_open_a_version_with_and_without_hive(dataset: Path) -> None:
    folder = dataset / "v0001" / "images"
    pattern = f"{folder}/**/*.parquet"
    frame = pd.read_parquet(folder)
    assert len(frame) == 8
    assert frame.groupby("split", observed=True).size().to_dict() == {"test": 2, "train": 6}
    for hive in ("true", "false"):
        query = f"SELECT split, count(*) FROM read_parquet('{pattern}', hive_partitioning={hive}) GROUP BY 1 ORDER BY 1"
        assert duckdb.connect().execute(query).fetchall() == [("test", 2), ("train", 6)]
    for partitioned in (True, False):
        lazy = pl.scan_parquet(pattern, hive_partitioning=partitioned)
        counts = lazy.group_by("split").len().sort("split").collect()
        assert counts["len"].to_list() == [2, 6]
        assert counts["split"].cast(pl.String).to_list() == ["test", "train"]


def test_shards_need_nothing_that_a_bare_machine_lacks() -> None:
    """The trainer imports data.shards where there is only torch, numpy, pyarrow and pillow."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['PIL', 'yaml', 'pydantic', 'pandas', 'prefect']));"
        "import data.shards; assert callable(data.shards.open_version)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
