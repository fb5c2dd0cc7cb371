"""The steps of a rebuild without Prefect: accounting, duplicates, parents, reuse, order of workers."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.hashes import Hashes
from data.readers import read_source
from data.spill import SPILL, Spill, spilled
from flows import plan
from flows.jobs import ShardJob, deal, decided
from flows.plan import plan_shard
from flows.results import ShardResult, check_accounts
from flows.steps import build_shard
from flows.totals import total_accounts, write_rejects
from review.decisions import Decision, Kind, source_hash
from schemas.config import AugmentConfig, Config, OrientationConfig, PartitionConfig
from schemas.errors import AccountingError, SourceError
from schemas.manifest import Account
from schemas.records import Edit, apply_edits

CAPTION = "A red roof stands on the left side of the image. The lawn is green."
CONFIG = Config(partition=PartitionConfig(val_fraction=0.0))


def picture(colour: str, size: int = 48) -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGB", (size, size), colour)
    image.paste("white", (4, 4, 20, 30))
    image.save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def world(tmp_path: Path) -> Callable[[dict[str, bytes], dict[str, list]], Path]:
    def write(files: dict[str, bytes], annotations: dict[str, list]) -> Path:
        root = tmp_path / "source"
        for name, data in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        for name, records in annotations.items():
            (root / name).write_text(json.dumps(records), encoding="utf-8")
        return root

    return write


def record(image: str, caption: object = CAPTION, **more: object) -> dict[str, object]:
    return {"image_id": image, "image": image, "caption": caption, "sentences": None, "bboxes": None, **more}


def run(job: ShardJob) -> ShardResult:
    planned = plan_shard(job, Hashes(), {})
    return planned.stored or build_shard(job, planned.key)


@contextmanager
def spill_of(work: Path) -> Iterator[Spill]:
    work.mkdir(exist_ok=True)
    with spilled(work / SPILL) as spill:
        yield spill


def made(root: Path, work: Path, config: Config = CONFIG) -> dict[str, ShardResult]:
    with spill_of(work) as spill:
        source = read_source(root, config.partition, spill)
        results = {r.name: r for r in (run(job) for job in deal(source, root, work, config, Hashes()))}
        total_accounts(source, list(results.values()))
        write_rejects(work / "rejects.parquet", source, list(results.values()))
    return results


def refused(work: Path) -> list[dict]:
    """Rows of the rejects table."""
    return pq.read_table(work / "rejects.parquet").to_pylist()


def rows(result: ShardResult, table: str) -> list[dict]:
    return pq.read_table(Path(result.folder) / f"{table}.parquet").to_pylist()


def only(results: dict[str, ShardResult], start: str) -> ShardResult:
    found = [r for name, r in results.items() if name.startswith(start)]
    assert len(found) == 1
    return found[0]


def test_train_satellite_is_stripped_refined_and_augmented(world, tmp_path: Path) -> None:
    region = {"sentences": ["On the left, there is a red roof"], "bboxes": [[0.25, 0.35, 0.33, 0.54]]}
    root = world(
        {"train/satellite/0001/0001.jpg": picture("red")},
        {"train.json": [record("train/satellite/0001/0001.jpg", **region)]},
    )
    result = only(made(root, tmp_path / "work"), "split=train/platform=satellite")
    images, captions, regions = (rows(result, table) for table in ("images", "captions", "regions"))
    assert [i["parent_image_id"] for i in images] == [None, *["train/satellite/0001/0001.jpg"] * 2]
    assert images[0]["image"]["bytes"] == picture("red")
    assert len({i["image"]["bytes"] for i in images}) == 3
    assert len(captions) == 3
    for row in captions:
        assert row["raw"] == CAPTION
        assert "left" not in row["stripped"]
        assert "left" not in row["final"]
        assert apply_edits(row["raw"], [Edit(**e) for e in row["edits"]]) == row["stripped"]
        assert row["status"] in ("refined", "fallback")
        assert row["final"]
    assert 1 <= len(regions) <= 3
    assert all("left" not in r["stripped"] for r in regions)
    assert result.accounts == {t: Account(1, 1, 0, len(rows(result, t)) - 1) for t in ("images", "captions", "regions")}


def test_kept_satellite_words_never_reach_a_turned_tile(world, tmp_path: Path) -> None:
    root = world(
        {"train/satellite/0001/0001.jpg": picture("red")}, {"train.json": [record("train/satellite/0001/0001.jpg")]}
    )
    config = replace(CONFIG, orientation=OrientationConfig(satellite="keep"))
    result = only(made(root, tmp_path / "work", config), "split=train/platform=satellite")
    original, *copies = rows(result, "captions")
    assert original["stripped"] == CAPTION
    assert all("left" not in copy["final"] + copy["stripped"] for copy in copies)


def test_test_split_passes_through_unchanged(world, tmp_path: Path) -> None:
    root = world(
        {"test/gallery_satellite/0001/0001.jpg": picture("red")},
        {"test.json": [record("test/gallery_satellite/0001/0001.jpg", [CAPTION, "left"])]},
    )
    result = only(made(root, tmp_path / "work"), "split=test/platform=satellite")
    assert [(r["final"], r["stripped"], r["status"], r["edits"]) for r in rows(result, "captions")] == [
        (CAPTION, CAPTION, "kept", []),
        ("left", "left", "kept", []),
    ]
    assert len(rows(result, "images")) == 1


def test_query_copy_is_one_gallery_image_and_its_captions_move(world, tmp_path: Path) -> None:
    query, gallery = "test/query_drone/0001/image-01.jpeg", "test/gallery_drone/0001/image-01.jpeg"
    other = "test/query_drone/0002/image-01.jpeg"
    root = world(
        {query: picture("red"), gallery: picture("red"), other: picture("red")},
        {"test.json": [record(gallery, ["one"]), record(query, ["one", "two"]), record(other, ["three"])]},
    )
    result = only(made(root, tmp_path / "work"), "split=test/platform=drone")
    assert [i["image_id"] for i in rows(result, "images")] == [gallery, other], "another building's copy stays"
    assert [(c["caption_id"], c["raw"]) for c in rows(result, "captions")] == [
        (f"{gallery}#0", "one"),
        (f"{gallery}#1", "two"),
        (f"{other}#0", "three"),
    ]
    assert [(r["table"], r["source"], r["row"], r["reason"]) for r in refused(tmp_path / "work")] == [
        ("images", query, 0, "duplicate"),
        ("captions", "test.json", 1, "duplicate"),
    ]


def test_refused_image_refuses_its_rows(world, tmp_path: Path) -> None:
    name = "train/drone/0001/image-01.jpeg"
    root = world(
        {name: picture("red")[:200], "train/drone/0002/image-01.jpeg": picture("blue")},
        {"train.json": [record(name, sentences=["a roof"], bboxes=[[0.5, 0.5, 0.2, 0.2]])]},
    )
    result = only(made(root, tmp_path / "work"), "split=train/platform=drone")
    assert [i["building_id"] for i in rows(result, "images")] == ["0002"]
    assert [(r["table"], r["source"], r["row"], r["reason"]) for r in refused(tmp_path / "work")] == [
        ("images", name, 0, "not_an_image"),
        ("captions", "train.json", 0, "parent"),
        ("regions", "train.json", 0, "parent"),
    ]
    assert set(result.files) == {"images"}


def test_same_input_is_reused_and_damage_is_made_anew(world, tmp_path: Path) -> None:
    root = world({"train/drone/0001/image-01.jpeg": picture("red")}, {})
    first = only(made(root, tmp_path / "work"), "split=train")
    again = only(made(root, tmp_path / "work"), "split=train")
    assert (first.reused, again.reused) == (False, True)
    assert replace(again, reused=False) == first
    (Path(first.folder) / "images.parquet").write_bytes(b"damaged")
    mended = only(made(root, tmp_path / "work"), "split=train")
    assert not mended.reused
    assert mended.files == first.files


def test_changed_code_makes_everything_anew(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = world({"train/drone/0001/image-01.jpeg": picture("red")}, {})
    made(root, tmp_path / "work")
    monkeypatch.setattr(plan, "step_version", lambda split: "other code")
    assert not only(made(root, tmp_path / "work"), "split=train").reused


def test_only_the_shard_of_a_changed_caption_is_made_anew(world, tmp_path: Path) -> None:
    files = {f"train/drone/{i:04d}/image-01.jpeg": picture("red") for i in range(40)}
    config = replace(CONFIG, shards=replace(CONFIG.shards, buildings=5))
    records = [record(name, f"A roof number {i}.") for i, name in enumerate(files)]
    root = world(files, {"train.json": records})
    assert len(made(root, tmp_path / "work", config)) > 4
    records[7]["caption"] = "A green roof."
    root = world(files, {"train.json": records})
    assert sum(not r.reused for r in made(root, tmp_path / "work", config).values()) == 1


def test_a_record_put_in_before_others_concerns_its_own_shard_and_moves_the_rows_of_rejects(
    world, tmp_path: Path
) -> None:
    files = {f"train/drone/{i:04d}/image-01.jpeg": picture("red") for i in range(40)}
    files["train/drone/0039/image-01.jpeg"] = b"no picture"
    config = replace(CONFIG, shards=replace(CONFIG.shards, buildings=5))
    records = [record(name, f"A roof number {i}.") for i, name in enumerate(files)]
    made(world(files, {"train.json": records}), tmp_path / "work", config)
    assert refused(tmp_path / "work")[-1]["row"] == 39
    records.insert(0, record("train/drone/0000/image-01.jpeg", "A green roof."))
    again = made(world(files, {"train.json": records}), tmp_path / "work", config)
    assert sum(not r.reused for r in again.values()) == 1
    assert refused(tmp_path / "work")[-1]["row"] == 40


def test_a_file_that_changes_after_it_was_hashed_is_an_error(world, tmp_path: Path) -> None:
    name = "train/drone/0001/image-01.jpeg"
    root, work = world({name: picture("red")}, {}), tmp_path / "work"
    with spill_of(work) as spill:
        (job,) = deal(read_source(root, CONFIG.partition, spill), root, work, CONFIG, Hashes())
        (root / name).write_bytes(picture("blue"))
        with pytest.raises(SourceError, match=f"{name} changed during the rebuild"):
            build_shard(job, "key")
        (root / name).write_bytes(picture("red"))
        assert build_shard(job, "key").accounts["images"] == Account(1, 1, 0, 0)
        (root / name).unlink()
        with pytest.raises(SourceError, match=f"{name} vanished during the rebuild"):
            build_shard(job, "key")
    assert not list(work.rglob("*.tmp"))


def test_remap_turns_the_words_with_the_tile(world, tmp_path: Path) -> None:
    names = [f"train/satellite/{n:04d}/{n:04d}.jpg" for n in range(6)]
    region = {"sentences": ["A pond lies on the left."], "bboxes": [[0.2, 0.5, 0.1, 0.2]]}
    root = world({name: picture("red") for name in names}, {"train.json": [record(name, **region) for name in names]})
    config = replace(CONFIG, orientation=OrientationConfig(satellite="remap"))
    result = only(made(root, tmp_path / "work", config), "split=train/platform=satellite")
    captions = {row["caption_id"]: row for row in rows(result, "captions")}
    for name in names:
        assert captions[f"{name}#0"]["stripped"] == CAPTION, "the original keeps its words"
    where = {"left": (0.2, 0.5), "right": (0.8, 0.5), "top": (0.5, 0.2), "bottom": (0.5, 0.8)}
    seen = set()
    for row in (row for row in rows(result, "regions") if "~aug" in row["image_id"]):
        side = next(side for side in where if side in row["stripped"])
        seen.add(side)
        assert tuple(row["bbox"][:2]) == pytest.approx(where[side], abs=0.02), row
        caption = captions[row["image_id"] + "#0"]
        assert side in caption["stripped"] or {"top": "upper", "bottom": "lower"}.get(side, "?") in caption["stripped"]
        assert apply_edits(caption["raw"], [Edit(**e) for e in caption["edits"]]) == caption["stripped"]
    assert len(seen) > 2


def verdict(caption_id: str, kind: Kind, text: str = "", raw: str = CAPTION) -> Decision:
    return Decision(caption_id, kind, text, "ann", "2026-01-01T00:00:00Z", "v0001", source_hash(raw), "b", 1)


def test_decisions_of_people_win_and_stale_ones_are_reported(world, tmp_path: Path) -> None:
    names = [f"train/satellite/{n:04d}/{n:04d}.jpg" for n in range(4)]
    root = world({name: picture("red") for name in names}, {"train.json": [record(name) for name in names]})
    ids = [f"{name}#0" for name in names]
    decisions = [
        verdict(ids[0], "edit", "A red roof beside a pond."),
        verdict(ids[1], "reject"),
        verdict(ids[2], "edit", "Never.", raw="another source text"),
        verdict(ids[0].replace("#", "~aug1#"), "edit", "A copy of its own."),
        verdict("train/satellite/9999/9999.jpg#0", "reject"),
    ]
    work = tmp_path / "work"
    with spill_of(work) as spill:
        jobs = deal(read_source(root, CONFIG.partition, spill), root, work, CONFIG, Hashes())
        found, unknown = decided(jobs, {d.caption_id: d for d in decisions}, spill)
        result = run(found[0])
    captions = {row["caption_id"]: row for row in rows(result, "captions")}
    assert unknown == ("train/satellite/9999/9999.jpg#0",)
    assert result.counts["decisions"] == {"applied": 6, "stale": [ids[2]]}
    assert [captions[i]["status"] for i in ids] == ["edited", "rejected", "refined", "refined"]
    assert captions[ids[0]]["final"] == captions[f"{names[0]}~aug0#0"]["final"] == "A red roof beside a pond."
    assert captions[f"{names[0]}~aug1#0"]["final"] == "A copy of its own."
    assert captions[ids[1]]["final"] == captions[ids[1]]["stripped"]
    assert captions[ids[2]]["final"] == captions[ids[3]]["final"]
    assert plan_shard(found[0], Hashes(), {}).key != plan_shard(jobs[0], Hashes(), {}).key


def test_augmentation_can_be_switched_off(world, tmp_path: Path) -> None:
    root = world({"train/satellite/0001/0001.jpg": picture("red")}, {})
    result = only(made(root, tmp_path / "work", replace(CONFIG, augment=AugmentConfig(variants=0))), "split=train")
    assert len(rows(result, "images")) == 1


def test_a_tile_that_cannot_be_augmented_is_kept_and_said(world, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40_000, 2), "red").save(buffer, "PNG")
    root = world({"train/satellite/0001/0001.png": buffer.getvalue()}, {})
    result = only(made(root, tmp_path / "work"), "split=train/platform=satellite")
    assert len(rows(result, "images")) == 1
    assert len(result.notes) == 1
    assert "train/satellite/0001/0001.png" in result.notes[0]


def test_a_lost_row_is_an_error() -> None:
    with pytest.raises(AccountingError, match="3 captions were read"):
        check_accounts({"captions": Account(3, 1, 1, 0)}, "here")
