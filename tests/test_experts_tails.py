"""Training over pretrained trunks, of reduced depth and with random weights: both kinds of tails, from end to end."""

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import test_experts_pretrained as pretrained
import torch
from test_experts_examples import tiny_rows, write_tiny

from data.shards import open_version
from experts.checkpoint import PRETRAINED
from experts.embed import fused_images, fused_texts, image_features, text_bags, text_features
from experts.evaluate import evaluate
from experts.search import search
from experts.stored import rows_of_sentences, stored_features, text_rows
from experts.tails import pretrained_mixture
from experts.train_set import draw_texts, load_data
from experts.trainer import train
from schemas.config import TrainConfig, build
from schemas.errors import ConfigError, TrainingError

pytestmark = pytest.mark.usefixtures("vision")


class StopError(Exception):
    """Stands for a kill right after an epoch was recorded."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_tiny(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, vision: None) -> TrainConfig:
    """Small encoders that know the words of the tiny data set."""
    from transformers import XLMRobertaModel

    folder = tmp_path_factory.mktemp("weights")
    _, captions = tiny_rows({"train": 8})
    texts = [str(row["final"]) for row in captions] + [query for row in captions for query in row["queries"]]
    words = sorted({word for text in texts for sentence in text.split(". ") for word in sentence.split()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "WORDS", [*pretrained.WORDS[:4], *words, "<mask>"])
        torch.manual_seed(0)
        XLMRobertaModel(pretrained.small_text_config(initializer_range=0.3)).save_pretrained(folder / "text")
        pretrained.write_tokenizer(folder / "text")
    pretrained.save_eva(pretrained.small_eva(depth=3), folder / "eva.safetensors")
    return TrainConfig(
        encoder="bge-m3+eva-clip",
        text_model=str(folder / "text"),
        image_model=str(folder / "eva.safetensors"),
        text_length=32,
        text_layers=1,
        image_blocks=1,
        image_size=28,
        width=16,
        batch=16,
        stage0_epochs=5,
        stage1_epochs=6,
        stage2_epochs=1,
        hard_negatives=2,
        expert_learning_rate=5e-4,
    )


def test_tails_over_trunks_are_the_whole_encoders_in_the_beginning(config: TrainConfig) -> None:
    """With copies of the last layers, an untrained expert reads what BGE-M3's own CLS says."""
    layers = pretrained_mixture(config).eval()
    whole = pretrained_mixture(dataclasses.replace(config, text_layers=0, image_blocks=0)).eval()
    texts = text_bags(None, ["A red round roof", "The square building stands on rough ground"])
    cpu = torch.device("cpu")
    tailed, plain = (text_features(model, texts, cpu) for model in (layers, whole))
    torch.testing.assert_close(layers.each_text(tailed), whole.each_text(plain), atol=1e-5, rtol=0)
    assert layers.each_text(tailed).shape == (2, 3, 32)
    torch.testing.assert_close(layers.gates(tailed), torch.full((2, 3), 1 / 3))
    pixels = pretrained.pixels(28, 2)
    assert layers.each_image(image_features(layers, pixels, cpu)).shape == (2, 3, 32)


@pytest.mark.parametrize("tails", ["adapters", pytest.param("layers", marks=pytest.mark.slow)])
def test_both_tails_train_score_search_and_resume(
    dataset: Path, config: TrainConfig, tmp_path: Path, tails: str
) -> None:
    config = build(TrainConfig, {**dataclasses.asdict(config), "tails": tails})
    said: list[str] = []
    run = tmp_path / "run"
    result = train(dataset, run, config, progress=lambda *line: said.append(line[3]))
    assert any("no stage 0" in line for line in said)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["epoch"]) for line in lines] == [*((1, epoch) for epoch in range(1, 7)), (2, 1)]
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert lines[5]["loss"] < lines[0]["loss"]
    assert result["epochs"] == 7

    values = torch.load(run / "checkpoint.pt", weights_only=True)
    assert values["vocabulary"] is None
    assert not [name for name in values["weights"] if name.startswith(PRETRAINED)]
    assert any(name.startswith("experts.2.image.") for name in values["weights"])
    assert set(values["encoders"]) == {"text", "image"}

    scores = evaluate(run, dataset, "val")
    best = result["best"]["val"]["t2i"]
    assert scores["t2i"]["r10"] == pytest.approx(best["r10"], abs=12)  # stored features are half as precise
    found = search(run, dataset, "a red roof", 3)
    assert len(found.hits) == 3
    assert sum(found.gate.values()) == pytest.approx(1)
    assert (run / "features").exists() == (tails == "adapters")

    def stop(stage: str, done: int, total: int, message: str) -> None:
        if stage != "read" and done == 2:
            raise StopError

    again = tmp_path / "again"
    with pytest.raises(StopError):
        train(dataset, again, config, progress=stop)
    train(dataset, again, config, resume=True, progress=lambda *line: None)
    one, other = (torch.load(folder / "checkpoint.pt", weights_only=True)["weights"] for folder in (run, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_changed_trunk_is_refused(dataset: Path, config: TrainConfig, tmp_path: Path) -> None:
    weights = tmp_path / "eva.safetensors"
    weights.write_bytes(Path(config.image_model).read_bytes())
    config = dataclasses.replace(config, image_model=str(weights), tails="adapters", stage1_epochs=1, stage2_epochs=0)
    train(dataset, tmp_path / "run", config, progress=lambda *line: None)

    def stop(stage: str, done: int, total: int, message: str) -> None:
        if stage == "experts":
            raise StopError

    with pytest.raises(StopError):
        train(dataset, tmp_path / "stopped", config, progress=stop)
    pretrained.save_eva(pretrained.small_eva(depth=3, seed=1), weights)
    with pytest.raises(TrainingError, match=re.escape(f"other weights than {config.text_model} and {weights} hold")):
        evaluate(tmp_path / "run", dataset, "val")
    with pytest.raises(TrainingError, match="other pretrained weights"):
        train(dataset, tmp_path / "stopped", config, resume=True, progress=lambda *line: None)


def test_stored_features_are_those_of_the_drawn_texts(dataset: Path, config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, tails="adapters")
    data, vocabulary, (_, captions, images), _ = load_data(open_version(dataset), config)
    assert vocabulary is None
    model, cpu = pretrained_mixture(config), torch.device("cpu")
    stored = stored_features(tmp_path, model, data, (captions, images), cpu)
    for seed in range(5):
        starts, ends = draw_texts(data, 0.5, torch.Generator().manual_seed(seed), one_or_all=True)
        live = text_features(model, data.units.pick(starts, ends), cpu)
        torch.testing.assert_close(stored.texts[text_rows(data, starts, ends)], live, atol=2e-3, rtol=2e-3)
    whole = data.units.pick(data.first_unit[:-1], data.first_query)
    rows = rows_of_sentences(data, torch.arange(len(whole)))
    torch.testing.assert_close(stored.texts[rows], text_features(model, whole, cpu), atol=2e-3, rtol=2e-3)
    pixels = image_features(model, data.pixels, cpu)
    torch.testing.assert_close(stored.images[torch.arange(len(data))], pixels, atol=2e-3, rtol=2e-3)
    fused = fused_texts(model, stored.texts[rows]) @ fused_images(model, pixels).T
    assert fused.isfinite().all()


def test_what_does_not_go_together_is_said(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="end_to_end"):
        dataclasses.replace(config, end_to_end=True)
    with pytest.raises(ConfigError, match="text_model"):
        pretrained_mixture(dataclasses.replace(config, text_model=""))


def test_the_parameters_of_a_trunk_get_no_gradient_and_every_tail_one(config: TrainConfig) -> None:
    model = pretrained_mixture(config).eval()
    text = model.text_trunk(text_bags(None, ["A red roof", "A blue round building"]))
    image = model.image_trunk(pretrained.pixels(28, 2))
    (model.fused_text(text) @ model.fused_image(image).T).square().sum().backward()
    learned = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {"experts", "gate"}
    for k in range(3):
        assert all(p.grad is not None for p in model.expert(k).image.parameters())
