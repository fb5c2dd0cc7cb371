"""What a rebuild would do: which shards are reused, made and dropped, and why."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from data.hashes import Hashes
from data.readers import read_source
from data.spill import SPILL, spilled
from flows import plan as module
from flows import steps
from flows.jobs import ShardJob, deal
from flows.plan import CODE, CODE_OF_TRAIN, ROOT, Plan, lines, plan, remember, step_version
from flows.steps import build_shard
from refine.refinement import refine_stripped
from schemas.config import AugmentConfig, Config, PartitionConfig, ShardConfig
from schemas.records import Platform, Refined, Stripped

CONFIG = Config(partition=PartitionConfig(val_fraction=0.0), shards=ShardConfig(buildings=2))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    from PIL import Image

    root = tmp_path / "source"
    records = []
    for building in range(8):
        for folder in ("satellite", "drone"):
            path = root / "train" / folder / f"{building:04d}" / "image-01.jpeg"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (16, 16), (building * 30, 0, 0)).save(path)
            records.append({"image": path.relative_to(root).as_posix(), "caption": f"A red roof and {building} cars."})
    (root / "train.json").write_text(json.dumps(records), encoding="utf-8")
    return root


@contextmanager
def rows_of(source: Path, work: Path, config: Config) -> Iterator[list[ShardJob]]:
    work.mkdir(exist_ok=True)
    with spilled(work / SPILL) as spill:
        yield deal(read_source(source, config.partition, spill), source, work, config, Hashes())


def planned(source: Path, work: Path, config: Config = CONFIG) -> Plan:
    with rows_of(source, work, config) as jobs:
        return plan(jobs, Hashes(), work)


def build(source: Path, work: Path, config: Config = CONFIG) -> None:
    with rows_of(source, work, config) as jobs:
        found = plan(jobs, Hashes(), work)
        for shard in found.shards:
            if not shard.stored:
                build_shard(shard.job, shard.key)
    remember(found, work)


def reasons(found: Plan) -> dict[str, str]:
    return {shard.job.name: shard.reason for shard in found.shards if not shard.stored}


def test_everything_is_new_then_nothing_is(source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert set(reasons(planned(source, work)).values()) == {"new"}
    build(source, work)
    again = planned(source, work)
    assert reasons(again) == {}
    assert again.counts() == {
        "drone": {"reused": 4, "recomputed": 0, "dropped": 0},
        "satellite": {"reused": 4, "recomputed": 0, "dropped": 0},
    }
    assert lines(again)[0] == "drone: 4 shards reused, 0 recomputed, 0 dropped"


def test_one_changed_caption_concerns_one_shard_and_says_so(source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    build(source, work)
    records = json.loads((source / "train.json").read_text(encoding="utf-8"))
    records[3]["caption"] = "A blue roof."
    (source / "train.json").write_text(json.dumps(records), encoding="utf-8")
    assert list(reasons(planned(source, work)).values()) == ["captions"]


def test_captions_that_did_not_change_are_not_refined_again_and_the_bytes_are_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, fresh = tmp_path / "work", tmp_path / "fresh"
    build(source, work)
    records = json.loads((source / "train.json").read_text(encoding="utf-8"))
    records[3]["caption"] = "A blue roof."
    (source / "train.json").write_text(json.dumps(records), encoding="utf-8")
    refined: list[str] = []

    def counted(stripped: Stripped, platform: Platform) -> Refined:
        refined.append(stripped.text)
        return refine_stripped(stripped, platform)

    monkeypatch.setattr(steps, "refine_stripped", counted)
    build(source, work)
    assert refined == ["A blue roof."]
    build(source, fresh)
    assert len(refined) == 1 + len(records)
    again, anew = planned(source, work), planned(source, fresh)
    assert [s.stored and s.stored.files for s in again.shards] == [s.stored and s.stored.files for s in anew.shards]


def test_a_changed_setting_is_named_and_concerns_who_reads_it(source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    build(source, work)
    other = replace(CONFIG, augment=AugmentConfig(variants=1), train=replace(CONFIG.train, seed=4))
    found = reasons(planned(source, work, other))
    assert set(found.values()) == {"configuration: augment.variants 2 -> 1"}
    assert all("satellite" in name for name in found)


def test_changed_code_and_damage_are_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    build(source, work)
    damaged = planned(source, work).shards[0]
    assert damaged.stored is not None
    (Path(damaged.stored.folder) / "images.parquet").write_bytes(b"")
    assert reasons(planned(source, work)) == {damaged.job.name: "its stored result is damaged"}
    code = module.code_read("train")
    monkeypatch.setattr(module, "code_read", lambda split: code | {"georefine": "other", "pillow": "99"})
    said = f"another version of georefine, pillow ({code['pillow']} -> 99)"
    assert set(reasons(planned(source, work)).values()) == {said}
    assert lines(planned(source, work))[-1] == "  needs about 67 MB of free disk"
    last = json.loads((work / "plan.json").read_text(encoding="utf-8"))
    old = {name: {key: shard[key] for key in ("parts", "config")} for name, shard in last.items()}
    (work / "plan.json").write_text(json.dumps(old), encoding="utf-8")
    assert set(reasons(planned(source, work)).values()) == {"georefine or a library is another version"}


def test_shards_that_are_gone_are_dropped(source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    build(source, work)
    fewer = planned(source, work, replace(CONFIG, shards=ShardConfig(buildings=8)))
    assert len(fewer.dropped) == 6
    assert all(line.startswith("  drop split=train/") for line in lines(fewer)[-6:])


@pytest.mark.parametrize("text", ["", "[]", '{"a": 3}', "no json"])
def test_a_damaged_memory_of_the_last_plan_costs_the_reasons_only(source: Path, tmp_path: Path, text: str) -> None:
    work = tmp_path / "work"
    build(source, work)
    (work / "plan.json").write_text(text, encoding="utf-8")
    assert reasons(planned(source, work)) == {}


def test_the_step_version_knows_the_rules_and_their_word_lists() -> None:
    for name in (*CODE, *CODE_OF_TRAIN):
        assert (ROOT / name).exists(), name
    assert len({step_version("train"), step_version("val")}) == 2
