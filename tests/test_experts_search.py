"""Search: what it returns, its order, its errors."""

import dataclasses
from pathlib import Path

import pytest
import torch
from test_experts_examples import write_tiny
from test_experts_trainer import TINY, quiet

from data.shards import open_version
from experts.checkpoint import CHECKPOINT, load_checkpoint
from experts.embed import fused_images, fused_texts, image_features, text_bags, text_features
from experts.evaluate import evaluate
from experts.examples import load_images
from experts.search import as_json, as_lines, search
from experts.trainer import train
from schemas.errors import TrainingError, UsageError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(dataset, folder, TINY, progress=quiet)
    return folder


def test_hits_are_the_gallery_ranked_by_the_fused_score(run: Path, dataset: Path) -> None:
    found = search(run, dataset, "a red roof", top=5)
    cpu = torch.device("cpu")
    checkpoint = load_checkpoint(run, cpu)
    images = load_images(open_version(dataset), "test", TINY.image_size, augmented=False)
    text = fused_texts(
        checkpoint.model, text_features(checkpoint.model, text_bags(checkpoint.vocabulary, ["a red roof"]), cpu)
    )
    scores = (text @ fused_images(checkpoint.model, image_features(checkpoint.model, images.pixels, cpu)).T)[0]
    assert [hit.score for hit in found.hits] == pytest.approx(
        scores.sort(descending=True).values[:5].tolist(), abs=1e-5
    )
    assert [hit.rank for hit in found.hits] == [1, 2, 3, 4, 5]
    for hit in found.hits:
        row = images.ids.index(hit.image_id)
        assert (hit.building_id, hit.platform) == (images.buildings[row], images.platforms[row])
    assert sum(found.gate.values()) == pytest.approx(1, abs=1e-5)
    assert list(found.gate) == ["satellite", "drone", "ground"]


def test_both_forms_of_the_answer(run: Path, dataset: Path) -> None:
    found = search(run, dataset, "a red roof", top=1000)
    assert len(found.hits) == 12
    assert len(search(run, dataset, "a red roof", top=1000, split=None).hits) == 45
    answer = as_json(found)
    assert list(answer) == ["text", "gate", "results"]
    assert list(answer["results"][0]) == ["rank", "score", "image_id", "building_id", "platform"]
    assert len(as_lines(found)) == 13


@pytest.mark.parametrize(
    ("text", "top", "message"), [("", 10, "no words"), (" ?!", 10, "no words"), ("roof", 0, "--top")]
)
def test_wrong_usage_is_said(run: Path, dataset: Path, text: str, top: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        search(run, dataset, text, top)


def test_a_run_without_a_readable_checkpoint_is_said(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no checkpoint\.pt"):
        search(tmp_path, dataset, "roof")
    (tmp_path / CHECKPOINT).write_bytes(b"PK torn")
    with pytest.raises(TrainingError, match="cannot be read"):
        evaluate(tmp_path, dataset)
    torch.save({"format": 99}, tmp_path / CHECKPOINT)
    with pytest.raises(TrainingError, match="not written by this georefine"):
        evaluate(tmp_path, dataset)
    torch.save({"format": 1, "config": dataclasses.asdict(TINY)}, tmp_path / CHECKPOINT)
    with pytest.raises(TrainingError, match="does not fit"):
        evaluate(tmp_path, dataset)


def test_evaluate_reads_a_run(run: Path, dataset: Path) -> None:
    scores = evaluate(run, dataset)
    assert scores["queries"] == scores["gallery"] == 12
    assert set(scores["per_platform"]) == {"satellite", "drone", "ground"}
    assert evaluate(run, dataset, "val")["queries"] == 9
