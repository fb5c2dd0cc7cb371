"""Training on a tiny data set: it ends, repeats and resumes to the bit, and says what is wrong."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_experts_examples import tiny_rows, write_dataset, write_tiny
from torch.nn import functional as F

from data.shards import open_version, sha256_file
from experts import trainer
from experts.checkpoint import load_checkpoint
from experts.embed import batches, text_bags, text_features
from experts.losses import info_nce
from experts.trainer import draw_texts, jitter, one_cycle, short_query, train
from schemas.config import TextMix, TrainConfig, build, config_dict
from schemas.errors import ConfigError, TrainingError
from schemas.records import PLATFORMS

TINY = TrainConfig(
    image_size=16, width=16, batch=8, stage0_epochs=2, stage1_epochs=2, stage2_epochs=2, hard_negatives=2
)

CPU = torch.device("cpu")


class StopError(Exception):
    """Stands for a kill right after an epoch was recorded."""


def quiet(stage: str, done: int, total: int, message: str) -> None:
    """No progress."""


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run, torch.device("cpu")).model.state_dict()


def assert_same_weights(a: Path, b: Path) -> None:
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(dataset, folder, TINY, progress=quiet)
    return folder


def test_a_run_holds_checkpoint_metrics_curves_and_card(run: Path, dataset: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["epoch"]) for line in lines] == [(s, e) for s in (0, 1, 2) for e in (1, 2)]
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert all(0 <= line["val"]["short"]["score"] <= 100 for line in lines)
    assert all(0 <= line["gate"]["own"] <= 1 for line in lines)
    assert all(0 <= line["gate"]["entropy"] <= math.log(3) + 1e-6 for line in lines)
    with Image.open(run / "curves.png") as curves:
        assert curves.size == (960, 400)
    card = (run / "README.md").read_text()
    checkpoint = load_checkpoint(run, torch.device("cpu"))
    shards = open_version(dataset).manifest.shards
    assert "`v0001`" in card
    assert all(shard.sha256 in card for shard in shards if shard.split != "test")
    assert checkpoint.dataset == {"version": "v0001", "shards": {s.path: s.sha256 for s in shards}}
    assert checkpoint.config == TINY
    best = max(lines, key=lambda line: line["val"]["short"]["score"])
    assert checkpoint.result["best"] == best
    assert not (run / "resume.pt").exists()


def test_the_same_seed_gives_the_same_run_and_another_seed_another(run: Path, dataset: Path, tmp_path: Path) -> None:
    train(dataset, tmp_path / "again", TINY, progress=quiet)
    assert_same_weights(run, tmp_path / "again")
    for name in ("metrics.jsonl", "README.md", "curves.png", "checkpoint.pt"):
        assert (run / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    train(dataset, tmp_path / "other", dataclasses.replace(TINY, seed=1), progress=quiet)
    a, b = weights(run), weights(tmp_path / "other")
    assert any(not torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5, 6])
def test_a_resumed_run_ends_like_an_undisturbed_one(run: Path, dataset: Path, tmp_path: Path, after: int) -> None:
    def stop(stage: str, done: int, total: int, message: str) -> None:
        if stage != "read" and done == after:
            raise StopError

    with pytest.raises(StopError):
        train(dataset, tmp_path, TINY, progress=stop)
    train(dataset, tmp_path, TINY, resume=True, progress=quiet)
    assert_same_weights(run, tmp_path)
    assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "metrics.jsonl").read_bytes()


def test_resuming_with_other_settings_is_refused(dataset: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int, message: str) -> None:
        if done == 1 and stage != "read":
            raise StopError

    with pytest.raises(StopError):
        train(dataset, tmp_path, TINY, progress=stop)
    with pytest.raises(TrainingError, match="another configuration"):
        train(dataset, tmp_path, dataclasses.replace(TINY, seed=5), resume=True, progress=quiet)
    other = write_tiny(tmp_path / "other", train=5, val=2)
    with pytest.raises(TrainingError, match="other data"):
        train(other, tmp_path, TINY, resume=True, progress=quiet)
    (tmp_path / "resume.pt").write_bytes(b"torn")
    with pytest.raises(TrainingError, match="cannot be read"):
        train(dataset, tmp_path, TINY, resume=True, progress=quiet)


def test_resuming_a_finished_run_leaves_it_as_it_is(run: Path, dataset: Path) -> None:
    before = (run / "checkpoint.pt").read_bytes()
    said: list[str] = []
    result = train(dataset, run, TINY, resume=True, progress=lambda *line: said.append(line[3]))
    assert (run / "checkpoint.pt").read_bytes() == before
    assert result["epochs"] == 6
    assert any("finished" in line for line in said)


def test_the_test_split_is_not_read(tmp_path: Path, run: Path) -> None:
    dataset = write_tiny(tmp_path / "dataset")
    for shard in (dataset / "v0001").rglob("split=test/**/*.parquet"):
        shard.unlink()
    train(dataset, tmp_path / "run", TINY, progress=quiet)
    assert_same_weights(run, tmp_path / "run")


def test_without_val_buildings_it_says_so(tmp_path: Path) -> None:
    dataset = write_tiny(tmp_path / "dataset", train=4, test=2)
    said: list[str] = []
    result = train(dataset, tmp_path / "run", TINY, progress=lambda *line: said.append(line[3]))
    assert any("val split has no" in line for line in said)
    assert "val split has no" in (tmp_path / "run" / "README.md").read_text()
    assert len(result["notes"]) == 1
    assert result["best"]["scored_on"] == "train"
    assert "val" not in result["best"]


def test_a_missing_platform_is_normal(tmp_path: Path) -> None:
    images, captions = tiny_rows({"train": 4, "val": 2})
    images, captions = ([row for row in rows if row["platform"] != "ground"] for rows in (images, captions))
    result = train(write_dataset(tmp_path / "dataset", images, captions), tmp_path / "run", TINY, progress=quiet)
    assert result["epochs"] == 6


@pytest.mark.parametrize(
    ("buildings", "changes", "device", "message"),
    [
        ({"val": 2}, {}, "cpu", "no captioned images"),
        ({"train": 1}, {}, "cpu", "one building only"),
        ({"train": 2}, {}, "tpu", "device"),
        ({"train": 2}, {}, "mps", "cpu or cuda"),
        ({"train": 2}, {"stage0_epochs": 0, "stage1_epochs": 0, "stage2_epochs": 0}, "cpu", "no epochs"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_sentence(
    tmp_path: Path, buildings: dict[str, int], changes: dict[str, Any], device: str, message: str
) -> None:
    dataset = write_tiny(tmp_path / "dataset", **buildings)
    with pytest.raises(TrainingError, match=message):
        train(dataset, tmp_path / "run", dataclasses.replace(TINY, **changes), device, progress=quiet)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_that_is_not_there_is_said(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no CUDA device"):
        train(dataset, tmp_path, TINY, "cuda", progress=quiet)


def test_a_loss_that_is_not_finite_and_full_memory_stop_the_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "info_nce", lambda *args: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(TrainingError, match="became nan in stage 0, epoch 1"):
        train(dataset, tmp_path, TINY, progress=quiet)

    def full(*args: Any) -> torch.Tensor:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(trainer, "info_nce", full)
    with pytest.raises(TrainingError, match=r"Out of memory while training: lower train\.batch"):
        train(dataset, tmp_path, TINY, progress=quiet)


def test_drawn_texts_belong_to_their_image_and_are_queries_in_the_asked_share(dataset: Path) -> None:
    data, *_ = trainer.load_data(open_version(dataset), TINY)
    queries = 0
    for seed in range(50):
        starts, ends = draw_texts(data, 0.5, torch.Generator().manual_seed(seed))
        for image, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            caption = int(data.first_caption[image])
            first, query, last = (
                int(data.first_unit[caption]),
                int(data.first_query[caption]),
                int(data.first_unit[caption + 1]),
            )
            assert first <= start < end <= last
            assert end <= query or start >= query
            queries += start >= query
    assert 0.4 < queries / (50 * len(data)) < 0.6


def test_the_mix_draws_final_and_raw_texts_in_its_shares(tmp_path: Path) -> None:
    images, captions = tiny_rows({"train": 8, "val": 2})
    for row in captions:
        row["raw"] = "Unwashed words on the left. More of them."
    version = open_version(write_dataset(tmp_path, images, captions))
    mix = TextMix(final=0.75, raw=0.25)
    data, vocabulary, *_ = trainer.load_data(version, dataclasses.replace(TINY, texts=mix))
    raw_terms = {vocabulary.ids[word] for word in ("unwashed", "words", "more", "them")}
    drawn = raw = 0
    for seed in range(60):
        starts, ends = draw_texts(data, 0.0, torch.Generator().manual_seed(seed))
        bags = data.units.pick(starts, ends)
        for i in range(len(bags)):
            drawn += 1
            raw += bool(raw_terms & set(bags.ids[bags.offsets[i] : bags.offsets[i + 1]].tolist()))
    assert 0.2 < raw / drawn < 0.3
    only_raw, vocabulary, *_ = trainer.load_data(version, dataclasses.replace(TINY, texts=TextMix(final=0, raw=1)))
    assert {"unwashed", "left"} <= vocabulary.ids.keys()
    assert not {"roof", "white"} & vocabulary.ids.keys()
    starts, ends = draw_texts(only_raw, 1.0, torch.Generator().manual_seed(0))
    assert int((ends - starts).min()) >= 1  # raw captions have no queries: sentences then


@pytest.mark.parametrize(
    "changes",
    [
        {"experts": "unified"},
        {"router": "uniform"},
        {"router": "sparsemax", "stage1_epochs": 3, "stage2_epochs": 0},
        {"router": "top1", "texts": TextMix(final=0.5, refined=0.25, raw=0.25)},
        {"end_to_end": True, "gate_loss": 0.0},
    ],
)
def test_every_row_of_the_ablation_trains_and_resumes_to_the_bit(
    dataset: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(TINY, stage0_epochs=1, **changes)
    result = train(dataset, tmp_path / "whole", config, progress=quiet)
    assert result["epochs"] == config.stage0_epochs + config.stage1_epochs + config.stage2_epochs

    def stop(stage: str, done: int, total: int, message: str) -> None:
        if stage != "read" and done == total - 1:
            raise StopError

    with pytest.raises(StopError):
        train(dataset, tmp_path / "resumed", config, progress=stop)
    train(dataset, tmp_path / "resumed", config, resume=True, progress=quiet)
    assert_same_weights(tmp_path / "whole", tmp_path / "resumed")


def test_the_gate_learns_which_platform_a_text_was_written_for(tmp_path: Path) -> None:
    images, captions = tiny_rows({"train": 8, "val": 4})
    seen = {"satellite": "its outline from above", "drone": "one of its corners", "ground": "its door and windows"}
    for row in captions:
        row["final"] = f"{row['final']} The photo has {seen[str(row['platform'])]}."
        row["queries"] = []
    dataset = write_dataset(tmp_path / "dataset", images, captions)
    config = dataclasses.replace(
        TINY, stage0_epochs=1, stage1_epochs=20, stage2_epochs=0, expert_learning_rate=5e-3, gate_loss=0.3
    )
    asked = [f"The photo has {seen[platform]}" for platform in PLATFORMS]
    own = {}
    for weight in (0.0, 0.3):
        data, vocabulary, val, _ = trainer.load_data(open_version(dataset), config)
        loop = trainer.Trainer(data, vocabulary, val, dataclasses.replace(config, gate_loss=weight), CPU)
        loop.run(lambda line: None)
        assert vocabulary is not None
        gates = loop.model.gates(text_features(loop.model, text_bags(vocabulary, asked), CPU)).detach()
        own[weight] = float(gates.diagonal().min())
    assert own[0.3] > 0.6
    assert own[0.0] < own[0.3] - 0.2


def test_trunks_learn_within_platforms_too_unless_the_model_is_unified(dataset: Path) -> None:
    data, vocabulary, val, _ = trainer.load_data(open_version(dataset), TINY)
    rows = torch.arange(12)
    generator = torch.Generator().manual_seed(0)
    text, image = (F.normalize(torch.randn(12, 16, generator=generator), dim=1) for _ in range(2))
    found = {}
    for experts in ("unified", "platforms"):
        config = build(TrainConfig, config_dict(TINY) | {"experts": experts})
        loop = trainer.Trainer(data, vocabulary, val, config, CPU)
        found[experts] = loop.trunk_contrast(rows, text.repeat(3, 1), image).item()
    scale = torch.tensor(1 / TINY.temperature)
    buildings, platforms = data.buildings[:12], data.platforms[:12]
    pooled = float(info_nce(text, image, buildings, scale))
    within = float(info_nce(text, image, buildings, scale, platforms))
    assert found["unified"] == pytest.approx(pooled, rel=1e-5)
    assert found["platforms"] == pytest.approx((pooled + within) / 2, rel=1e-5)
    assert within < pooled


def test_a_pair_alone_on_its_platform_learns_from_its_mined_negatives(dataset: Path) -> None:
    data, vocabulary, val, _ = trainer.load_data(open_version(dataset), TINY)
    loop = trainer.Trainer(data, vocabulary, val, TINY, CPU)
    satellite = int((data.platforms == 0).nonzero()[0])
    rows = torch.cat([torch.tensor([satellite]), (data.platforms == 1).nonzero().flatten()[:5]])
    generator = torch.Generator().manual_seed(0)
    width = loop.model.each_text(torch.zeros(1, loop.model.text_trunk.width)).shape[-1]
    text, image, hard = (
        F.normalize(torch.randn(*shape, width, generator=generator), dim=-1) for shape in ((6, 3), (6, 3), (6, 2, 3))
    )
    text.requires_grad_()
    scores = torch.tensor([[-99.0, 99.0, -99.0]]).expand(6, 3)  # the fused score says nothing of the satellite expert
    for mined, learns in ((torch.zeros(6, 2, dtype=torch.int64), True), (torch.full((6, 2), -1), False)):
        text.grad = None
        loop.pair_loss(rows, scores, text, image, mined, hard).backward()
        assert text.grad is not None
        assert bool(text.grad[0, 0].abs().max() > 1e-4) == learns


@pytest.mark.parametrize("changes", [{"end_to_end": True}, {"batch": 2}])
def test_no_hard_negatives_and_the_smallest_batches_train(
    dataset: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(TINY, hard_negatives=0, stage0_epochs=1, stage1_epochs=1, stage2_epochs=1, **changes)
    train(dataset, tmp_path, config, progress=quiet)


@given(st.integers(1, 300), st.integers(2, 70))
def test_batches_are_near_equal_and_leave_none_alone(count: int, size: int) -> None:
    parts = batches(torch.arange(count), size)
    assert torch.cat(parts).tolist() == list(range(count))
    lengths = sorted(map(len, parts))
    assert lengths[-1] - lengths[0] <= 1
    assert lengths[0] > 1 or count == 1
    assert lengths[-1] <= max(size, 3)


def test_from_stage_one_on_trunks_learn_only_end_to_end(dataset: Path) -> None:
    for end_to_end in (False, True):
        config = dataclasses.replace(TINY, stage0_epochs=0, stage1_epochs=1, stage2_epochs=0, end_to_end=end_to_end)
        data, vocabulary, val, _ = trainer.load_data(open_version(dataset), config)
        loop = trainer.Trainer(data, vocabulary, val, config, CPU)
        before = {name: value.clone() for name, value in loop.model.state_dict().items()}
        loop.run(lambda line: None)
        after = loop.model.state_dict()
        changed = {name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])}
        assert {"experts", "gate", "log_scale"} <= changed
        assert ({"text_trunk", "image_trunk"} <= changed) == end_to_end


def test_with_trunks_of_another_run_stage_zero_is_left_out_and_nothing_of_the_trunks_changes(
    run: Path, tmp_path: Path
) -> None:
    images, captions = tiny_rows({"train": 8, "val": 3})
    for row in captions:
        row["final"] = f"{row['final']} Hitherto unheard words."
    here = write_dataset(tmp_path / "here", images, captions)
    config = dataclasses.replace(TINY, trunks=str(run))
    result = train(here, tmp_path / "run", config, progress=quiet)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["epoch"]) for line in lines] == [(s, e) for s in (1, 2) for e in (1, 2)]
    start, end = load_checkpoint(run, CPU), load_checkpoint(tmp_path / "run", CPU)
    assert end.vocabulary == start.vocabulary
    before, after = start.model.state_dict(), end.model.state_dict()
    changed = {name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"experts", "gate", "log_scale"}
    origin = {"run": str(run), "sha256": sha256_file(run / "checkpoint.pt"), "dataset": start.dataset}
    assert result["trunks"] == end.result["trunks"] == origin
    assert origin["sha256"] in (tmp_path / "run" / "README.md").read_text()

    def stop(stage: str, done: int, total: int, message: str) -> None:
        if stage != "read" and done == 3:
            raise StopError

    with pytest.raises(StopError):
        train(here, tmp_path / "resumed", config, progress=stop)
    train(here, tmp_path / "resumed", config, resume=True, progress=quiet)
    assert_same_weights(tmp_path / "run", tmp_path / "resumed")


def test_trunks_that_were_replaced_or_do_not_fit_are_refused(dataset: Path, run: Path, tmp_path: Path) -> None:
    trunks = shutil.copytree(run, tmp_path / "trunks")
    config = dataclasses.replace(TINY, stage1_epochs=1, stage2_epochs=0, trunks=str(trunks))
    train(dataset, tmp_path / "run", config, progress=quiet)
    shutil.rmtree(trunks)
    train(dataset, trunks, dataclasses.replace(TINY, seed=1, stage1_epochs=0, stage2_epochs=0), progress=quiet)
    with pytest.raises(TrainingError, match="finished training with other trunks"):
        train(dataset, tmp_path / "run", config, resume=True, progress=quiet)
    with pytest.raises(TrainingError, match=r"train\.image_size 16, not 32"):
        train(dataset, tmp_path / "other", dataclasses.replace(config, image_size=32), progress=quiet)
    with pytest.raises(TrainingError, match=r"no checkpoint\.pt in"):
        train(dataset, tmp_path / "other", dataclasses.replace(config, trunks=str(dataset)), progress=quiet)
    with pytest.raises(ConfigError, match=r"train\.trunks"):
        TrainConfig(encoder="bge-m3+eva-clip", trunks=str(trunks))


def test_a_short_query_is_a_run_of_sentences_of_the_caption() -> None:
    text = "One roof. Two trees. Three cars. Four doors. Five lamps."
    assert {short_query(f"c{i}", text) for i in range(40)} == {
        "One roof. Two trees. Three cars",
        "Two trees. Three cars. Four doors",
        "Three cars. Four doors. Five lamps",
    }
    assert short_query("c", "One roof. Two trees.") == "One roof. Two trees"
    assert short_query("c", "?!") == "?!"


def test_only_satellite_tiles_are_turned() -> None:
    pixels = torch.zeros(64, 3, 16, 16, dtype=torch.uint8)
    pixels[:, :, :4] = 255  # bright at the top
    for platform, least_turned in ((0, 20), (1, 0), (2, 0)):
        out = jitter(pixels, torch.full((64,), platform), torch.Generator().manual_seed(0))
        still = out[:, :, :3].mean((1, 2, 3)) > out[:, :, -8:].mean((1, 2, 3)) + 50
        turned = int((~still).sum())
        assert turned >= least_turned
        assert turned == 0 or platform == 0


@given(st.floats(0, 1))
def test_the_learning_rate_rises_then_falls(done: float) -> None:
    assert 0 <= one_cycle(done) <= 1
    assert abs(one_cycle(1.0)) < 1e-12 < one_cycle(0.0) < one_cycle(0.1)
