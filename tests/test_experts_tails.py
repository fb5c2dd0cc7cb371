"""The pretrained mixtures, small and with random weights: they train, resume, score, and keep to their weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_experts_examples import write_tiny
from test_experts_pretrained import save_eva, small_eva, small_text_config, write_tokenizer
from test_experts_trainer import StopError, assert_same_weights, quiet

from experts import stored
from experts.checkpoint import load_checkpoint, own_weights
from experts.cues import cues
from experts.embed import fused_images, fused_texts, image_features, text_bags, text_features
from experts.encoders import Texts
from experts.evaluate import evaluate
from experts.tails import AdaptedMixture, TailedMixture, pretrained_mixture, trunk_hashes
from experts.trainer import train
from schemas.config import TrainConfig
from schemas.errors import ConfigError, TrainingError

pytestmark = pytest.mark.usefixtures("vision")
CPU = torch.device("cpu")
TAILS = ("layers", "adapters")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, vision: None) -> TrainConfig:
    """Both encoders in small, and a short training."""
    from transformers import XLMRobertaModel

    text, image = tmp_path_factory.mktemp("text"), tmp_path_factory.mktemp("image")
    torch.manual_seed(0)
    XLMRobertaModel(small_text_config(initializer_range=0.3)).save_pretrained(text)
    write_tokenizer(text)
    return TrainConfig(
        encoder="bge-m3+eva-clip",
        text_model=str(text),
        image_model=str(save_eva(small_eva(), image / "eva.safetensors")),
        text_layers=1,
        image_blocks=1,
        text_length=32,
        image_size=28,
        width=16,
        batch=6,
        stage1_epochs=2,
        stage2_epochs=1,
        hard_negatives=1,
    )


def with_tails(config: TrainConfig, tails: str, **changes: Any) -> TrainConfig:
    return dataclasses.replace(config, **{"tails": tails, **changes})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("dataset"), train=4, val=2, test=2)


@pytest.mark.parametrize("tails", TAILS)
def test_it_trains_resumes_to_the_bit_and_is_scored(
    config: TrainConfig, dataset: Path, tmp_path: Path, tails: str
) -> None:
    config = with_tails(config, tails)
    result = train(dataset, tmp_path / "whole", config, progress=quiet)
    assert result["epochs"] == 3  # no stage 0: the trunks are pretrained
    metrics = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in metrics] == [1, 1, 2]

    def stop(stage: str, done: int, total: int, message: str) -> None:
        if stage != "read" and done == 1:
            raise StopError

    with pytest.raises(StopError):
        train(dataset, tmp_path / "resumed", config, progress=stop)
    train(dataset, tmp_path / "resumed", config, resume=True, progress=quiet)
    assert_same_weights(tmp_path / "whole", tmp_path / "resumed")
    scores = evaluate(tmp_path / "whole", dataset)
    assert scores["queries"] == 6
    assert 0 <= scores["t2i"]["r1"] <= 100
    found = cues(tmp_path / "whole", dataset)
    assert found["plain"] == found["flight"] == {**scores["t2i"], "vectors": 6}  # one drone view of each building
    assert 0 <= found["crops"]["r1"] <= 100


@pytest.mark.parametrize("tails", TAILS)
def test_experts_and_gate_learn_and_trunks_stay(config: TrainConfig, dataset: Path, tmp_path: Path, tails: str) -> None:
    config = with_tails(config, tails, stage2_epochs=0, expert_learning_rate=1e-2)
    train(dataset, tmp_path, config, progress=quiet)
    torch.manual_seed(0)
    before = pretrained_mixture(config)
    trained = load_checkpoint(tmp_path, CPU).model
    assert trunk_hashes(before) == trunk_hashes(trained)
    experts = [trained.expert(k).state_dict() for k in range(3)]
    for name in experts[0]:
        if name.endswith("weight"):
            assert not torch.equal(experts[0][name], experts[1][name]), name
    assert not torch.equal(trained.gate[3].weight, before.gate[3].weight)  # type: ignore[index, union-attr]
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["weights"]
    assert saved.keys() == own_weights(trained).keys()
    assert not any("encoder" in name for name in saved)


@pytest.mark.parametrize("tails", TAILS)
def test_the_fused_product_is_the_gated_sum(config: TrainConfig, tails: str) -> None:
    torch.manual_seed(0)
    model = pretrained_mixture(with_tails(config, tails)).eval()
    assert isinstance(model, TailedMixture if tails == "layers" else AdaptedMixture)
    for parameter in [*model.experts.parameters(), *model.gate.parameters()]:
        parameter.data += 0.1 * torch.randn_like(parameter)
    texts = text_features(model, text_bags(None, ["a white tower", "grass", ""]), CPU)
    images = image_features(model, torch.randint(0, 256, (5, 3, 28, 28), dtype=torch.uint8), CPU)
    fused = fused_texts(model, texts) @ fused_images(model, images).T
    each = torch.einsum("qkd,ikd->kqi", model.each_text(texts), model.each_image(images))
    torch.testing.assert_close(fused, torch.einsum("qk,kqi->qi", model.gates(texts), each))
    assert each.abs().max() <= 1 + 1e-5


def test_stored_features_are_those_of_the_trunk(
    config: TrainConfig, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_tails(config, "adapters", stage1_epochs=1, stage2_epochs=0)
    made: list[stored.Stored] = []
    monkeypatch.setattr("experts.trainer.store", lambda *args: made.append(stored.store(*args)) or made[-1])
    train(dataset, tmp_path / "one", config, progress=quiet)
    model = load_checkpoint(tmp_path / "one", CPU).model
    assert isinstance(model, AdaptedMixture)
    starts = made[0].first_unit[:-1]
    middle, ends = made[0].first_query, made[0].first_unit[1:]
    units = [
        "A red round roof seen here",
        "The round building stands on rough ground",
        "A red roof",
        "A round building",
    ]
    whole = made[0].texts_at(starts[:1], middle[:1]), made[0].texts_at(middle[:1], ends[:1])
    one = made[0].texts_at(starts[:1] + 1, starts[:1] + 2)
    texts = Texts((". ".join(units[:2]), ". ".join(units[2:]), units[1]))
    torch.testing.assert_close(torch.cat([*whole, one]), model.text_trunk(texts), atol=2e-3, rtol=2e-3)

    class Unused(torch.nn.Module):
        def forward(self, *args: Any) -> torch.Tensor:
            raise AssertionError("a stored feature was encoded again")

    monkeypatch.setattr("experts.tails.PooledImage.forward", Unused.forward)
    monkeypatch.setattr("experts.tails.PooledText.encode", Unused.forward)
    train(dataset, tmp_path / "two", config, progress=quiet)
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_other_weights_than_it_was_trained_over_are_refused(config: TrainConfig, dataset: Path, tmp_path: Path) -> None:
    image = save_eva(small_eva(), tmp_path / "eva.safetensors")
    config = with_tails(config, "adapters", stage1_epochs=1, stage2_epochs=0, image_model=str(image))
    train(dataset, tmp_path / "run", config, progress=quiet)

    def stop(stage: str, done: int, total: int, message: str) -> None:
        if stage != "read":
            raise StopError

    with pytest.raises(StopError):
        train(dataset, tmp_path / "stopped", config, progress=stop)
    save_eva(small_eva(seed=5), image)
    with pytest.raises(TrainingError, match="other pretrained weights"):
        train(dataset, tmp_path / "stopped", config, resume=True, progress=quiet)
    with pytest.raises(TrainingError, match="other weights"):
        load_checkpoint(tmp_path / "run", CPU)
    image.unlink()
    with pytest.raises(TrainingError, match="hf download"):
        load_checkpoint(tmp_path / "run", CPU)


def test_weights_must_be_named_and_trunks_cannot_learn_on(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"train\.image_model"):
        pretrained_mixture(dataclasses.replace(config, image_model=""))
    with pytest.raises(ConfigError, match="end_to_end"):
        dataclasses.replace(config, end_to_end=True)
