"""Verification: silent on a sound data set, and every planted fault is found by the check that is meant to find it."""

import io
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.campus import write_world
from data.images import ImageInfo, inspect
from data.readers import read_source
from data.shards import ALL_SCHEMAS, atomic_write, open_version, sha256_bytes, sha256_file, shard_path, write_table
from data.verify import SHOWN, Finding, verify
from data.versions import lock, publish
from schemas.config import PartitionConfig
from schemas.manifest import FORMAT_VERSION, Account, Manifest, Shard
from schemas.records import PLATFORMS, SPLITS, TABLES, Split, Table

Rows = dict[str, list[dict[str, Any]]]


def jpeg(seed: int, size: tuple[int, int] = (96, 64), **options: Any) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(small).resize((192, 128), Image.Resampling.BICUBIC).resize(size).save(out, "JPEG", **options)
    return out.getvalue()


def image_row(image_id: str, building: str, platform: str, split: str, role: str, data: bytes) -> dict[str, Any]:
    info = inspect(data, 10**8)
    assert isinstance(info, ImageInfo)
    place = {"image_id": image_id, "building_id": building, "platform": platform, "split": split, "role": role}
    content = {"image": {"bytes": data, "path": image_id}, "width": info.width, "height": info.height}
    return {**place, **content, "sha256": info.sha256, "parent_image_id": None, "transform": None}


def caption_row(image: dict[str, Any], raw: str, ordinal: int = 0, *, cleaned: bool = False) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(ALL_SCHEMAS["captions"].names, "")
    row |= {key: image[key] for key in ("image_id", "building_id", "platform", "split")}
    text = raw.removesuffix(" on the left")
    edit = {"start": len(text), "end": len(raw), "old": " on the left", "new": ""}
    return row | {
        "caption_id": f"{image['image_id']}#{ordinal}",
        "raw": raw,
        "edits": [edit] if cleaned else [],
        "stripped": text if cleaned else raw,
        "refined": text if cleaned else raw,
        "final": text if cleaned else raw,
        "status": "refined" if cleaned else "kept",
        "queries": [],
        "gates": [{"gate": "colours", "passed": True, "detail": ""}],
    }


def region_row(image: dict[str, Any], sentence: str, box: list[float], ordinal: int = 0) -> dict[str, Any]:
    place = {key: image[key] for key in ("image_id", "building_id", "platform", "split")}
    return {
        **place,
        "region_id": f"{image['image_id']}@{ordinal}",
        "sentence": sentence,
        "stripped": sentence,
        "bbox": box,
    }


def small_rows() -> Rows:
    """Two buildings per split on two platforms; the satellite tiles of train have an augmented copy."""
    rows: Rows = {table: [] for table in ALL_SCHEMAS}
    for n, split in enumerate(["train", "train", "val", "val", "test", "test"]):
        for platform, name in (("satellite", f"b{n}.jpg"), ("drone", "image-01.jpeg")):
            image_id, role = f"{split}/{platform}/b{n}/{name}", "gallery" if split == "test" else "train"
            image = image_row(image_id, f"b{n}", platform, split, role, jpeg(2 * n + (platform == "drone")))
            rows["images"].append(image)
            rows["captions"].append(caption_row(image, "a red roof on the left", cleaned=split == "train"))
            rows["regions"].append(region_row(image, "a roof", [0.5, 0.5, 1.0, 0.3]))
            if split == "train" and platform == "satellite":
                copy = image_row(f"{image_id}~aug0", f"b{n}", platform, split, role, jpeg(2 * n, quality=60))
                rows["images"].append(copy | {"parent_image_id": image_id, "transform": '{"rotate": 90}'})
                rows["captions"].append(caption_row(copy, "a red roof on the left", cleaned=True))
    rows["rejects"].append(dict.fromkeys(ALL_SCHEMAS["rejects"].names, "x") | {"table": "captions", "row": 3})
    return rows


def write_dataset(dataset: Path, rows: Rows) -> None:
    """Publish rows as a version whose manifest states what they are."""
    dealt: dict[tuple[str, str | None, str | None], list[dict[str, Any]]] = defaultdict(list)
    for table, table_rows in rows.items():
        for row in table_rows:
            dealt[table, row.get("split"), row.get("platform")].append(row)
    files, shards = {}, []
    for (table, split, platform), part in sorted(dealt.items(), key=str):
        path = shard_path(table, split, platform, 0)  # type: ignore[arg-type]
        files[path] = dataset.parent / "staged" / path
        done = write_table(files[path], pa.Table.from_pylist(part, schema=ALL_SCHEMAS[table]))
        shards.append(Shard(path, table, split, platform, done.rows, done.bytes, done.sha256))  # type: ignore[arg-type]
    derived = {row["image_id"] for row in rows["images"] if row["parent_image_id"]}
    accounts: dict[Table, Account] = {}
    for table in TABLES:
        more = sum(row["image_id"] in derived for row in rows[table])
        refused = sum(row["table"] == table for row in rows["rejects"])
        accounts[table] = Account(len(rows[table]) - more + refused, len(rows[table]) - more, refused, more)
    counts: dict[str, Any] = defaultdict(dict)
    for split in SPLITS:
        for platform in PLATFORMS:
            here = {t: [r for r in rows[t] if (r["split"], r["platform"]) == (split, platform)] for t in TABLES}
            if here["images"]:
                augmented = sum(row["image_id"] in derived for row in here["images"])
                counts[split][platform] = {
                    "buildings": len({row["building_id"] for row in here["images"]}),
                    "images": len(here["images"]) - augmented,
                    "augmented": augmented,
                    "captions": len(here["captions"]),
                    "regions": len(here["regions"]),
                    "statuses": dict(Counter(row["status"] for row in here["captions"])),
                }
    with lock(dataset):
        publish(dataset, files, Manifest(FORMAT_VERSION, "", "0", {}, {}, tuple(shards), accounts, dict(counts), {}))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = tmp_path_factory.mktemp("sound") / "dataset"
    write_dataset(dataset, small_rows())
    return dataset


@pytest.fixture
def dataset(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "dataset")
    return tmp_path / "dataset"


def checks(findings: list[Finding]) -> set[str]:
    for finding in findings:
        assert finding.where
        assert finding.problem.endswith(".")
    return {finding.check for finding in findings}


def test_a_sound_data_set_has_no_findings(sound: Path) -> None:
    assert verify(sound) == []
    assert verify(sound / "v0001") == []


def _image(n: int, **changes: Any) -> Callable[[Rows], None]:
    return lambda rows: rows["images"][n].update(changes)


def _caption(n: int, **changes: Any) -> Callable[[Rows], None]:
    return lambda rows: rows["captions"][n].update(changes)


def _region(n: int, **changes: Any) -> Callable[[Rows], None]:
    return lambda rows: rows["regions"][n].update(changes)


def _same_bytes(rows: Rows) -> None:
    rows["images"][-1] |= {key: rows["images"][0][key] for key in ("image", "sha256")}  # a drone view of test


def _copy_across_splits(rows: Rows) -> None:
    data = jpeg(0, (48, 32), quality=60)  # image 0 again: resized and encoded anew
    rows["images"][-1] |= {"image": {"bytes": data, "path": "x"}, "sha256": sha256_bytes(data)}


def _building_in_two_splits(rows: Rows) -> None:
    for table in TABLES:
        for row in rows[table]:
            row["building_id"] = "b0" if row["building_id"] == "b5" else row["building_id"]


def _twice(table: str) -> Callable[[Rows], None]:
    return lambda rows: rows[table].append(dict(rows[table][0]))


# Rows of small_rows(): images 0 tile of b0, 1 its copy, 2 drone view of b0, …; the last are of test; captions alike.
BAD_ROWS: dict[str, tuple[Callable[[Rows], None], str, str]] = {
    "image id twice": (_twice("images"), "ids", "more than once in images"),
    "caption id twice": (_twice("captions"), "ids", "more than once in captions"),
    "region id twice": (_twice("regions"), "ids", "more than once in regions"),
    "caption id of another image": (_caption(0, caption_id="x#0"), "ids", "should be train/satellite/b0/b0.jpg#"),
    "region id without number": (_region(0, region_id="train/satellite/b0/b0.jpg@"), "ids", "and a number"),
    "caption of no image": (_caption(-1, image_id="gone", caption_id="gone#0"), "references", "image gone"),
    "region of no image": (_region(-1, image_id="gone", region_id="gone@0"), "references", "image gone"),
    "caption of another building": (_caption(0, building_id="b9"), "references", "its image of ('b0'"),
    "augmented tile without original": (_image(1, parent_image_id="gone"), "references", "made from gone"),
    "augmented tile of a tile elsewhere": (
        _image(1, parent_image_id="test/satellite/b5/b5.jpg"),
        "references",
        "of another place",
    ),
    "image bytes changed": (_image(0, image={"bytes": jpeg(77), "path": "x"}), "image", "bytes of another SHA-256"),
    "image that does not decode": (
        _image(0, image={"bytes": b"no image", "path": "x"}, sha256=sha256_bytes(b"no image")),
        "image",
        "does not decode",
    ),
    "image without bytes": (_image(0, image=None), "image", "does not decode"),
    "image without size": (_image(0, width=0), "image", "has no size"),
    "image without building": (_image(0, building_id=None), "image", "has no building"),
    "role of another split": (_image(0, role="query"), "image", "has the role 'query'"),
    "augmented tile without transform": (_image(1, transform="turned"), "image", "its transform is no JSON"),
    "original with a transform": (_image(0, transform="{}"), "image", "is an original"),
    "edits that do not fit": (_caption(0, edits=[]), "caption", "edits that do not give stripped"),
    "edits beyond the text": (
        _caption(0, edits=[{"start": 90, "end": 95, "old": "x", "new": ""}]),
        "caption",
        "edits that do not give stripped",
    ),
    "unknown status": (_caption(0, status="fine"), "caption", "unknown status 'fine'"),
    "nothing to train on": (_caption(0, final=" "), "caption", "empty final text"),
    "caption without raw": (_caption(0, raw=None), "caption", "no raw, stripped or final"),
    "test caption edited": (_caption(-1, final="a roof"), "caption", "is of test, but was not kept"),
    "test caption refined": (_caption(-1, status="refined"), "caption", "is of test, but was not kept"),
    "box out of range": (_region(0, bbox=[0.5, 0.5, 1.5, 0.3]), "region", "not in 0..1"),
    "box of no size": (_region(0, bbox=[0.5, 0.5, 0.0, 0.3]), "region", "not in 0..1"),
    "box with NaN": (_region(0, bbox=[float("nan"), 0.5, 0.1, 0.3]), "region", "not in 0..1"),
    "no box": (_region(0, bbox=None), "region", "not in 0..1"),
    "no sentence": (_region(0, sentence=""), "region", "has no sentence"),
    "same bytes in train and test": (_same_bytes, "leak", "has the very bytes of test/drone/b5/image-01.jpeg"),
    "a resized copy in train and test": (_copy_across_splits, "leak", "shows the same picture as"),
    "building in two splits": (_building_in_two_splits, "leak", "is a building of test, train"),
}


@pytest.mark.parametrize("fault", sorted(BAD_ROWS))
def test_faults_in_rows_are_found(tmp_path: Path, fault: str) -> None:
    plant, check, problem = BAD_ROWS[fault]
    rows = small_rows()
    plant(rows)
    write_dataset(tmp_path / "dataset", rows)
    findings = verify(tmp_path / "dataset")
    assert any(f.check == check and problem in f.problem for f in findings), findings
    assert checks(findings) <= {check, "references", "accounts", "counts"}  # the last three follow from others


def edit_manifest(dataset: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = dataset / "v0001" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def rewrite(dataset: Path, path: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Replace a shard's table and make the manifest agree with the new file."""
    file = dataset / "v0001" / path
    table = change(pq.ParquetFile(file).read())
    pq.write_table(table, file)
    agree_on(dataset, path, rows=table.num_rows)


def agree_on(dataset: Path, path: str, **changes: Any) -> None:
    """Make the manifest agree with the file that stands at a shard's path."""
    file = dataset / "v0001" / path

    def agree(manifest: dict[str, Any]) -> None:
        for shard in manifest["shards"]:
            if shard["path"] == path:
                shard.update({"bytes": file.stat().st_size, "sha256": sha256_file(file)} | changes)

    edit_manifest(dataset, agree)


def _replace_file(dataset: Path, data: bytes, *, agree: bool) -> None:
    atomic_write(dataset / "v0001" / CAPTIONS_PATH, data)
    if agree:
        agree_on(dataset, CAPTIONS_PATH)


CAPTIONS_PATH = shard_path("captions", "train", "drone", 0)
IMAGES_PATH = shard_path("images", "test", "satellite", 0)


def _first(dataset: Path, **changes: Any) -> None:
    edit_manifest(dataset, lambda manifest: manifest["shards"][0].update(changes))


def _as_other(table: pa.Table) -> pa.Table:
    column = pa.array(["val"] * table.num_rows).dictionary_encode()
    return table.set_column(table.schema.get_field_index("split"), table.schema.field("split"), column)


def _folder_for_card(dataset: Path) -> None:
    (dataset / "v0001/README.md").unlink()
    (dataset / "v0001/README.md").mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no data set": (shutil.rmtree, "manifest", "There is no data set"),
    "no manifest": (lambda d: (d / "v0001/manifest.json").unlink(), "manifest", "holds no complete version"),
    "broken manifest": (lambda d: (d / "v0001/manifest.json").write_text("{"), "manifest", "is not a manifest"),
    "wrong types": (lambda d: _first(d, rows="many"), "manifest", "values of wrong types"),
    "account of wrong type": (
        lambda d: edit_manifest(d, lambda m: m["accounts"]["images"].update(read="1")),
        "manifest",
        "numbers of wrong types",
    ),
    "counts of wrong type": (lambda d: edit_manifest(d, lambda m: m.update(counts=[])), "manifest", "no mapping"),
    "another version's manifest": (
        lambda d: edit_manifest(d, lambda m: m.update(version="v0007")),
        "manifest",
        "calls itself version 'v0007'",
    ),
    "path out of the version": (lambda d: _first(d, path="../../x.parquet"), "manifest", "is no path of a shard"),
    "listed twice": (
        lambda d: edit_manifest(d, lambda m: m["shards"].append(m["shards"][0])),
        "manifest",
        "lists shards twice",
    ),
    "latest missing": (lambda d: (d / "latest").unlink(), "latest", "is missing; the newest version is v0001"),
    "latest behind": (
        lambda d: shutil.copytree(d / "v0001", d / "v0002"),
        "latest",
        "names v0001, but the newest complete version is v0002",
    ),
    "shard missing": (lambda d: (d / "v0001" / CAPTIONS_PATH).unlink(), "files", "is listed in the manifest"),
    "file unlisted": (lambda d: (d / "v0001/captions/new.parquet").write_text(""), "files", "not listed"),
    "link unlisted": (lambda d: (d / "v0001/link").symlink_to("nowhere"), "files", "not listed"),
    "card missing": (lambda d: (d / "v0001/README.md").unlink(), "files", "is missing"),
    "card changed": (
        lambda d: (d / "v0001/README.md").write_text("# Better than ever"),
        "files",
        "has another SHA-256",
    ),
    "card unreadable": (_folder_for_card, "files", "cannot be read (Is a directory)"),
    "shard truncated": (lambda d: _replace_file(d, b"PAR1", agree=False), "shard", "another SHA-256"),
    "shard that never was Parquet": (lambda d: _replace_file(d, b"PAR1", agree=True), "shard", "cannot be read"),
    "shard with broken pages": (
        lambda d: _replace_file(d, _garbled((d / "v0001" / CAPTIONS_PATH).read_bytes()), agree=True),
        "shard",
        "cannot be read",
    ),
    "shard garbled": (
        lambda d: atomic_write(d / "v0001" / IMAGES_PATH, _garbled((d / "v0001" / IMAGES_PATH).read_bytes())),
        "shard",
        "another SHA-256",
    ),
    "wrong size": (lambda d: _first(d, bytes=5), "shard", "the manifest says 5"),
    "wrong rows": (lambda d: _first(d, rows=99), "shard", "the manifest says 99"),
    "column missing": (
        lambda d: rewrite(d, CAPTIONS_PATH, lambda t: t.drop_columns(["final"])),
        "schema",
        "differs from schemas/tables.py in final",
    ),
    "column of another type": (
        lambda d: rewrite(d, IMAGES_PATH, lambda t: t.set_column(6, "width", t["width"].cast(pa.int64()))),
        "schema",
        "in width",
    ),
    "column added": (
        lambda d: rewrite(d, CAPTIONS_PATH, lambda t: t.append_column("more", t["raw"])),
        "schema",
        "in more",
    ),
    "metadata lost": (
        lambda d: rewrite(d, IMAGES_PATH, lambda t: t.replace_schema_metadata(None)),
        "schema",
        "order or metadata",
    ),
    "rows of another split": (lambda d: rewrite(d, CAPTIONS_PATH, _as_other), "partition", "split is 'val', but"),
    "shard in the wrong folder": (lambda d: _first(d, platform="ground"), "partition", "should stand in"),
    "unknown split": (lambda d: _first(d, split="dev"), "partition", "split 'dev'"),
    "unbalanced account": (
        lambda d: edit_manifest(d, lambda m: m["accounts"]["captions"].update(read=99)),
        "accounts",
        "read is not written + rejected",
    ),
    "rejects that are not there": (
        lambda d: edit_manifest(d, lambda m: m["accounts"]["captions"].update(read=18, rejected=6)),
        "accounts",
        "rejected: the manifest says 6, the shards hold 1",
    ),
    "derived rows miscounted": (
        lambda d: edit_manifest(d, lambda m: m["accounts"]["images"].update(derived=0)),
        "accounts",
        "derived: the manifest says 0, the shards hold 2",
    ),
    "no account": (lambda d: edit_manifest(d, lambda m: m["accounts"].pop("regions")), "accounts", "has no account"),
    "counts off": (
        lambda d: edit_manifest(d, lambda m: m["counts"]["test"]["drone"].update(captions=7)),
        "counts",
        "captions: the manifest says 7, shards hold 2",
    ),
    "counts of a status off": (
        lambda d: edit_manifest(d, lambda m: m["counts"]["test"]["drone"]["statuses"].update(empty=7)),
        "counts",
        "statuses: the manifest says",
    ),
}


def _garbled(data: bytes) -> bytes:
    return data[:200] + bytes(100) + data[300:]


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_damage_is_found(dataset: Path, damage: str) -> None:
    plant, check, problem = DAMAGE[damage]
    plant(dataset)
    findings = verify(dataset)
    checks(findings)
    assert any(f.check == check and problem in f.problem for f in findings), findings


def test_a_version_of_before_the_card_was_noted_is_sound(dataset: Path) -> None:
    edit_manifest(dataset, lambda m: m.pop("card"))
    (dataset / "v0001/README.md").write_text("whatever it was")
    assert verify(dataset) == []


def test_many_findings_of_one_check_are_counted(tmp_path: Path) -> None:
    rows = small_rows()
    image = rows["images"][0]
    rows["captions"] += [caption_row(image, "a roof", n) | {"status": "odd"} for n in range(1, SHOWN + 11)]
    write_dataset(tmp_path / "dataset", rows)
    findings = verify(tmp_path / "dataset")
    assert len(findings) == SHOWN + 1
    assert findings[-1] == Finding("caption", "v0001", "10 more findings of this check are not listed.")


def rows_of_source(source: Path) -> Rows:
    """A source's rows as a rebuild that changes no caption would write them."""
    found = read_source(source, PartitionConfig())
    rows: Rows = {table: [] for table in ALL_SCHEMAS}
    images = {}
    for image in found.images:
        if image.role == "query":  # a rebuild keeps the gallery's copy
            continue
        data = (source / image.path).read_bytes()
        images[image.path] = image_row(image.path, image.building_id, image.platform, image.split, image.role, data)
    rows["images"] = list(images.values())
    rows["captions"] = [caption_row(images[c.image_id], c.raw, c.ordinal) for c in found.captions]
    rows["regions"] = [region_row(images[r.image_id], r.sentence, list(r.bbox), r.ordinal) for r in found.regions]
    return rows


def test_no_false_alarm_on_the_real_mini_set(mini: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset", rows_of_source(mini))
    assert verify(tmp_path / "dataset") == []
    splits: set[Split] = {s.split for s in open_version(tmp_path / "dataset").manifest.shards if s.split}
    assert splits == set(SPLITS)


def test_no_false_alarm_on_a_sample_world(tmp_path: Path) -> None:
    write_world(tmp_path / "source", buildings=16, workers=1)
    write_dataset(tmp_path / "dataset", rows_of_source(tmp_path / "source"))
    assert verify(tmp_path / "dataset") == []


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_changed_byte_is_found_and_nothing_raises(dataset: Path, data: st.DataObject) -> None:
    files = sorted(path for path in (dataset / "v0001").rglob("*.parquet"))
    file = data.draw(st.sampled_from([*files, dataset / "v0001" / "manifest.json", dataset / "latest"]))
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + data.draw(st.binary(max_size=4)) + whole[at + data.draw(st.integers(0, 4)) :]
    try:
        file.write_bytes(changed)
        findings = verify(dataset)
        checks(findings)
        harmless = changed == whole or file.suffix != ".parquet"  # a digit of the code version, white space of JSON
        assert findings or harmless
    finally:
        file.write_bytes(whole)
    assert verify(dataset) == []
