"""The flight and the crops: what must not change a building's vector, and what the obvious twin gives."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from experts.cues import CROP_SCALES, five_crops, multi_scale, pool_flight


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
