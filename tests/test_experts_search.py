"""Search: what it returns, its order, its errors."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_experts_examples import tiny_rows, write_dataset, write_tiny
from test_experts_trainer import TINY, quiet
from typer.testing import CliRunner

from data.shards import open_version
from experts import search as module
from experts.checkpoint import CHECKPOINT, load_checkpoint
from experts.embed import fused_images, fused_texts, image_features, text_bags, text_features
from experts.evaluate import evaluate
from experts.examples import load_images
from experts.search import GALLERIES, as_json, as_lines, nearest, search
from experts.trainer import train
from georefine.cli import app
from schemas.errors import DatasetError, TrainingError, UsageError
from schemas.records import Split


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


def test_a_split_without_an_image_is_said(run: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, *tiny_rows({"train": 8, "val": 3}))
    with pytest.raises(DatasetError, match="has no image to find in its test split"):
        search(run, dataset, "a red roof")


@pytest.mark.parametrize("count", [257, 513])
def test_equal_inputs_have_equal_features_wherever_they_stand(run: Path, count: int) -> None:
    cpu = torch.device("cpu")
    checkpoint = load_checkpoint(run, cpu)
    pixels = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8).expand(count, -1, -1, -1)
    features = image_features(checkpoint.model, pixels, cpu)
    assert torch.equal(features, features[:1].expand_as(features))
    bags = text_bags(checkpoint.vocabulary, ["a red roof"] * (8 * count))
    features = text_features(checkpoint.model, bags, cpu)
    assert torch.equal(features, features[:1].expand_as(features))


def test_a_device_of_the_cpu_with_a_number_is_the_cpu(run: Path, dataset: Path) -> None:
    assert evaluate(run, dataset, device="cpu:0") == evaluate(run, dataset)


def test_evaluate_reads_a_run(run: Path, dataset: Path) -> None:
    scores = evaluate(run, dataset)
    assert scores["queries"] == scores["gallery"] == 12
    assert set(scores["per_platform"]) == {"satellite", "drone", "ground"}
    assert evaluate(run, dataset, "val")["queries"] == 9


def refuse(*_: object) -> None:
    raise DatasetError("no gallery is made here")


def open_gallery_features(run: Path, dataset: Path) -> bytes:
    cpu = torch.device("cpu")
    gallery = module.open_gallery(run, load_checkpoint(run, cpu), open_version(dataset), "test", cpu)
    return gallery.features.numpy().tobytes()


def galleries(run: Path) -> list[Path]:
    return sorted((run / GALLERIES).iterdir())


def test_the_gallery_is_made_once_for_a_checkpoint_and_its_shards(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns(GALLERIES)))
    first = search(mine, dataset, "a red roof")
    search(mine, dataset, "a red roof", split="val")
    (test, val) = sorted(galleries(mine), key=lambda path: path.stat().st_mtime_ns)
    monkeypatch.setattr(module, "_encode", refuse)
    assert search(mine, dataset, "a red roof") == first
    with pytest.raises(DatasetError, match="no gallery"):
        search(mine, dataset, "a red roof", split=None)
    test.write_bytes(test.read_bytes()[:100])  # torn
    with pytest.raises(DatasetError, match="no gallery"):
        search(mine, dataset, "a red roof")
    monkeypatch.undo()
    assert search(mine, dataset, "a red roof") == first
    content = bytearray(test.read_bytes())
    at = content.find(open_gallery_features(mine, dataset)[:8])
    content[at] ^= 1
    test.write_bytes(content)  # a disk that forgot
    assert search(mine, dataset, "a red roof") == first
    val.rename(test)  # of another split
    assert search(mine, dataset, "a red roof") == first
    values = torch.load(mine / CHECKPOINT, weights_only=True)
    values["weights"] = {name: value * 2 for name, value in values["weights"].items()}
    torch.save(values, mine / CHECKPOINT)
    assert search(mine, dataset, "a red roof").hits[0].score != first.hits[0].score
    assert galleries(mine) != [test]
    assert len(galleries(mine)) == 1


def test_equal_galleries_are_equal_files(run: Path, dataset: Path, tmp_path: Path) -> None:
    copies = [Path(shutil.copytree(run, tmp_path / name, ignore=shutil.ignore_patterns(GALLERIES))) for name in "ab"]
    for copy in copies:
        search(copy, dataset, "a red roof")
    (a,), (b,) = map(galleries, copies)
    assert (a.name, a.read_bytes()) == (b.name, b.read_bytes())


def test_a_run_that_cannot_be_written_to_is_searched_all_the_same(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns(GALLERIES)))
    monkeypatch.setattr(module, "write_in_one_step", refuse)
    assert len(search(mine, dataset, "a red roof").hits) == 10
    assert not (mine / GALLERIES).exists()


VALUES = st.sampled_from([-1.0, 0.0, 0.5, 1.0])  # few, so that scores are often equal


@settings(deadline=None)
@given(st.data(), st.integers(1, 12), st.integers(0, 3), st.booleans())
def test_nearest_is_sorting_every_score(data: st.DataObject, top: int, spare: int, with_faiss: bool) -> None:
    def vectors(most: int) -> torch.Tensor:
        rows = data.draw(st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=most))
        return torch.tensor(rows, dtype=torch.float32).reshape(-1, 3)

    queries, features = vectors(4), vectors(9)
    here = with_faiss and importlib.util.find_spec("faiss") is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SPARE", spare)
        patch.setattr(importlib.util, "find_spec", lambda name: here or None)
        rows, scores = nearest(queries, features, top)
    assert rows.shape == scores.shape == (len(queries), min(top, len(features)))
    for query, found, of_them in zip(queries, rows.tolist(), scores.tolist(), strict=True):
        every = [(-float(query @ feature), row) for row, feature in enumerate(features)]
        assert [(-score, row) for score, row in zip(of_them, found, strict=True)] == sorted(every)[:top]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_many_queries_at_once_find_what_each_finds_alone(seed: int, top: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, features = (torch.nn.functional.normalize(torch.randn(n, 24, generator=generator)) for n in (300, 200))
    rows, scores = nearest(queries, features, top)
    for i in (0, 255, 256, 299):
        alone, of_them = nearest(queries[i : i + 1], features, top)
        assert torch.equal(rows[i], alone[0])
        assert torch.equal(scores[i], of_them[0])


def test_scores_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(TrainingError, match="NaN"):
        nearest(torch.full((1, 2), float("nan")), torch.ones(3, 2), 2)
    with pytest.raises(TrainingError, match="NaN"):
        module.check_finite(torch.tensor([[0.0, float("inf")]]))


def test_the_command_searches_the_split_it_is_told(run: Path, dataset: Path) -> None:
    arguments = ["search", str(run), str(dataset), "a red roof", "--top", "2", "--json"]
    for split in ("test", "val", "train"):
        done = CliRunner().invoke(app, [*arguments, "--split", split])
        assert [hit["image_id"] for hit in json.loads(done.stdout)["results"]] == [
            hit.image_id for hit in search(run, dataset, "a red roof", 2, split=cast(Split, split)).hits
        ]
    assert json.loads(CliRunner().invoke(app, arguments).stdout) == as_json(search(run, dataset, "a red roof", 2))
