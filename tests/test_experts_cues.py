"""The flight and the crops: what must not change a building's vector, what the obvious twin gives, and the scores."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_experts_examples import tiny_rows, write_dataset, write_tiny
from test_experts_trainer import TINY, quiet
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from experts import cues as module
from experts.cues import CROP_SCALES, along_flights, as_lines, cues, five_crops, multi_scale, natural, pool_flight
from experts.evaluate import evaluate
from experts.examples import Pictures
from experts.trainer import train
from georefine.cli import app
from schemas.errors import TrainingError
from schemas.records import Platform


def flight(seed: int, sizes: list[int], width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Views of buildings 0, 2, 4, …: unit vectors, buildings and times without ties, shuffled together."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    vectors = F.normalize(torch.randn(n, width, generator=generator), dim=1)
    buildings = torch.tensor([2 * b for b, size in enumerate(sizes) for _ in range(size)], dtype=torch.int64)
    return vectors, buildings, torch.randperm(n, generator=generator)


def pooled_slowly(vectors: Tensor, buildings: Tensor, order: Tensor) -> dict[int, Tensor]:
    """The obvious twin: one building after the other."""
    found = {}
    for building in sorted(set(buildings.tolist())):
        rows = sorted(
            (row for row in range(len(vectors)) if buildings[row] == building), key=lambda row: float(order[row])
        )
        views = [vectors[row] for row in rows]
        steps = [float((b - a).norm()) for a, b in pairwise(views)]
        weights = [(before + after) / 2 for before, after in zip([0.0, *steps], [*steps, 0.0], strict=True)]
        if sum(weights) == 0:
            weights = [1.0] * len(views)
        total = torch.stack([w * view for w, view in zip(weights, views, strict=True)]).sum(0)
        found[building] = total / total.norm()
    return found


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@settings(deadline=None)
@given(st.integers(0, 1000), SIZES)
def test_pooling_is_the_trapezoidal_mean_of_every_flight(seed: int, sizes: list[int]) -> None:
    vectors, buildings, order = flight(seed, sizes)
    found, pooled = pool_flight(vectors, buildings, order)
    expected = pooled_slowly(vectors, buildings, order)
    assert found.tolist() == list(expected)
    torch.testing.assert_close(pooled, torch.stack(list(expected.values())), atol=1e-5, rtol=0)


@settings(deadline=None)
@given(st.integers(0, 1000), SIZES, st.data())
def test_hovering_changes_nothing(seed: int, sizes: list[int], data: st.DataObject) -> None:
    vectors, buildings, order = flight(seed, sizes)
    row = data.draw(st.integers(0, len(vectors) - 1))
    again = data.draw(st.integers(1, 4))
    times = order.double()
    hovering = times[row] + torch.linspace(0.1, 0.9, again, dtype=torch.float64)
    _, once = pool_flight(vectors, buildings, times)
    _, often = pool_flight(
        torch.cat([vectors, vectors[row].expand(again, -1)]),
        torch.cat([buildings, buildings[row].expand(again)]),
        torch.cat([times, hovering]),
    )
    torch.testing.assert_close(often, once, atol=1e-5, rtol=0)


@settings(deadline=None)
@given(st.integers(0, 1000), SIZES)
def test_neither_rows_nor_direction_matter(seed: int, sizes: list[int]) -> None:
    vectors, buildings, order = flight(seed, sizes)
    _, pooled = pool_flight(vectors, buildings, order)
    shuffle = torch.randperm(len(order), generator=torch.Generator().manual_seed(seed + 1))
    _, other = pool_flight(vectors[shuffle], buildings[shuffle], -order[shuffle])
    torch.testing.assert_close(other, pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(len(pooled)), atol=1e-5, rtol=0)


def test_the_way_counts_not_the_number_of_views() -> None:
    """Fifty views from where the flight began and five along the rest: the plain mean would stay at the beginning."""
    angles = torch.cat([torch.zeros(50), torch.linspace(0.2, 1.0, 5)])
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    _, [pooled] = pool_flight(vectors, torch.zeros(55, dtype=torch.int64), torch.arange(55))
    assert torch.atan2(pooled[1], pooled[0]).item() == pytest.approx(0.5, abs=0.02)
    mean = vectors.mean(0)
    assert torch.atan2(mean[1], mean[0]).item() < 0.1


def test_nothing_to_pool() -> None:
    found, pooled = pool_flight(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert found.shape == (0,)
    assert pooled.shape == (0, 4)


def test_five_crops_are_the_corners_and_the_centre() -> None:
    pixels = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).repeat(2, 3, 1, 1)
    crops = five_crops(pixels, 0.25)
    assert crops.shape == (2, 5, 3, 4, 4)
    assert crops[1, :, 2, 0, 0].tolist() == [0, 3, 12, 15, 5]
    assert torch.equal(crops, crops[..., :1, :1].expand_as(crops))  # crops of one pixel
    whole = five_crops(pixels, 1.0)
    assert torch.equal(whole, pixels.float().unsqueeze(1).expand_as(whole))


def test_multi_scale_is_the_mean_direction_of_ten_crops() -> None:
    pixels = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def embed(x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, 2).flatten(1) - 100

    vectors = multi_scale(pixels, embed)
    crops = [crop for scale in CROP_SCALES for crop in five_crops(pixels, scale).unbind(1)]
    assert len(crops) == 10
    total = torch.stack([F.normalize(embed(crop), dim=1) for crop in crops]).sum(0)
    torch.testing.assert_close(vectors, total / total.norm(dim=1, keepdim=True))
    blank = multi_scale(torch.full((1, 3, 16, 16), 30, dtype=torch.uint8), embed)
    torch.testing.assert_close(blank, F.normalize(embed(torch.full((1, 3, 16, 16), 30.0)), dim=1))


def pictures(*images: tuple[str, str, Platform]) -> Pictures:
    """A gallery of ids, buildings and platforms, without pixels."""
    ids, buildings, platforms = zip(*images, strict=True)
    blank = ("",) * len(ids)
    return Pictures(ids, buildings, platforms, blank, (b"",) * len(ids))


def test_a_flight_goes_by_number() -> None:
    ids = ["0839/image-10.jpeg", "0839/image-2.jpeg", "0839/image-01.jpeg", "a9/9", "a10/1", "\udcff", "٣", "9" * 5000]
    assert sorted(ids[:3], key=natural) == ["0839/image-01.jpeg", "0839/image-2.jpeg", "0839/image-10.jpeg"]
    assert sorted(ids, key=natural).index("a9/9") < sorted(ids, key=natural).index("a10/1")


def test_drone_views_become_one_vector_and_the_rest_stays() -> None:
    gallery = pictures(
        ("b/drone/image-10.jpeg", "b", "drone"),
        ("b/drone/image-2.jpeg", "b", "drone"),
        ("b/drone/image-1.jpeg", "b", "drone"),
        ("b/satellite.jpg", "b", "satellite"),
        ("a/drone/image-1.jpeg", "a", "drone"),
        ("a/street.jpg", "a", "ground"),
    )
    vectors = 3**0.5 * flight(0, [len(gallery)])[0]  # as long as fused vectors are
    buildings, found = along_flights(gallery, vectors)
    assert buildings == ("b", "a", "a", "b")
    slowly = pooled_slowly(vectors / 3**0.5, torch.tensor([1, 1, 1, 9, 0, 9]), torch.tensor([10, 2, 1, 0, 1, 0]))
    expected = torch.stack([vectors[3] / 3**0.5, vectors[5] / 3**0.5, slowly[0], slowly[1]])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    no_drone = pictures(("a/1.jpg", "a", "ground"), ("b/1.jpg", "b", "satellite"))
    buildings, found = along_flights(no_drone, vectors[:2])
    assert buildings == ("a", "b")
    torch.testing.assert_close(found, F.normalize(vectors[:2], dim=1))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(dataset, folder, TINY, progress=quiet)
    return folder


def test_one_view_of_each_building_is_its_own_flight(run: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, int, int]] = []
    found = cues(run, dataset, progress=lambda stage, done, total, _: steps.append((stage, done, total)))
    assert list(found) == ["plain", "crops", "flight", "crops+flight"]
    assert list(found["plain"]) == ["r1", "r5", "r10", "score", "vectors"]
    assert found["plain"] == found["flight"] == {**evaluate(run, dataset)["t2i"], "vectors": 12}
    assert found["crops"] == found["crops+flight"]
    assert steps == [("cues", 12, 12)]
    assert len(as_lines(found)) == 5
    monkeypatch.setattr(module, "IMAGE_BATCH", 5)
    monkeypatch.setattr(module, "PRETRAINED_BATCH", 2)
    assert cues(run, dataset) == found


def test_crops_of_the_whole_image_change_nothing(run: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CROP_SCALES", (1.0, 1.0))
    found = cues(run, dataset, "val")
    assert found["crops"] == found["plain"]


def test_more_views_of_a_building_are_one_vector_more_or_less(run: Path, tmp_path: Path) -> None:
    images, captions = tiny_rows({"train": 8, "val": 3, "test": 4})
    views = [row for row in images if row["platform"] == "drone" and row["role"] == "gallery"]
    images += [{**row, "image_id": f"{row['image_id']}/image-{n}.png"} for row in views for n in (1, 2, 10)]
    found = cues(run, write_dataset(tmp_path, images, captions))
    assert {name: row["vectors"] for name, row in found.items()} == {
        "plain": 24,
        "crops": 24,
        "flight": 12,
        "crops+flight": 12,
    }


def test_nothing_to_score_and_no_run_are_said(run: Path, tmp_path: Path) -> None:
    lone = write_tiny(tmp_path / "lone", train=2)
    with pytest.raises(TrainingError, match="nothing to evaluate"):
        cues(run, lone)
    with pytest.raises(TrainingError, match=r"no checkpoint\.pt"):
        cues(Path(shutil.copytree(lone, tmp_path / "copy")), lone)


def test_the_command_adds_a_key_and_nothing_else(run: Path, dataset: Path) -> None:
    plain = CliRunner().invoke(app, ["evaluate", str(run), str(dataset), "--json"])
    added = CliRunner().invoke(app, ["evaluate", str(run), str(dataset), "--json", "--cues"])
    scores = json.loads(added.stdout)
    assert json.loads(plain.stdout) == {key: value for key, value in scores.items() if key != "cues"}
    assert scores["cues"] == cues(run, dataset)
    table = CliRunner().invoke(app, ["evaluate", str(run), str(dataset), "--cues", "--robustness"])
    assert "\n".join(as_lines(scores["cues"])) in table.stdout
    assert "mean of the 25" in table.stdout
