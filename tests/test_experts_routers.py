"""Routers: weights on the simplex, each beside an obvious twin, and a gradient that reaches the gate."""

import math
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from experts.routers import route, sparsemax, top
from schemas.config import TrainConfig

ROUTERS = get_args(get_type_hints(TrainConfig)["router"])
tables = st.integers(2, 5).flatmap(
    lambda width: st.lists(st.lists(st.floats(-20, 20), min_size=width, max_size=width), min_size=1, max_size=4)
)


def projection(row: list[float]) -> list[float]:
    """The nearest point of the simplex, by bisection on what is taken from every score."""
    low, high = min(row) - 1, max(row)
    for _ in range(200):
        middle = (low + high) / 2
        if sum(max(0.0, z - middle) for z in row) > 1:
            low = middle
        else:
            high = middle
    return [max(0.0, z - high) for z in row]


@pytest.mark.parametrize("router", ROUTERS)
@settings(deadline=None)
@given(table=tables)
def test_weights_are_not_negative_and_sum_to_one(router: str, table: list[list[float]]) -> None:
    weights = route(router, torch.tensor(table, dtype=torch.float64))
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(table), dtype=torch.float64))


@settings(deadline=None)
@given(tables)
def test_sparsemax_is_the_projection_onto_the_simplex(table: list[list[float]]) -> None:
    expected = torch.tensor([projection(row) for row in table], dtype=torch.float64)
    torch.testing.assert_close(sparsemax(torch.tensor(table, dtype=torch.float64)), expected, rtol=0, atol=1e-9)


def test_sparsemax_takes_scores_of_any_size() -> None:
    assert sparsemax(torch.tensor([[3e7, 3e7, 1.0]])).tolist() == [[0.5, 0.5, 0.0]]


def test_sparsemax_has_the_gradient_of_its_paper() -> None:
    scores = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sparsemax, scores)


@settings(deadline=None)
@given(tables, st.integers(1, 2))
def test_top_is_a_softmax_over_the_kept_ones(table: list[list[float]], count: int) -> None:
    weights = top(torch.tensor(table, dtype=torch.float64), count)
    for row, got in zip(table, weights.tolist(), strict=True):
        kept = sorted(range(len(row)), key=lambda k: -row[k])[:count]
        mass = sum(math.exp(row[k]) for k in kept)
        assert got == pytest.approx([math.exp(z) / mass if k in kept else 0.0 for k, z in enumerate(row)])


def test_uniform_trusts_all_alike_and_an_unknown_router_is_an_error() -> None:
    assert route("uniform", torch.tensor([[9.0, 0.0, -9.0]])).tolist() == [[pytest.approx(1 / 3)] * 3]
    with pytest.raises(ValueError, match="no router 'roulette'"):
        route("roulette", torch.zeros(1, 3))


@pytest.mark.parametrize("router", [router for router in ROUTERS if router != "uniform"])
def test_a_better_expert_gets_more_weight_by_descent(router: str) -> None:
    scores = torch.zeros(1, 3, requires_grad=True)
    quality: Tensor = torch.tensor([[0.2, 0.9, 0.1]])
    for _ in range(50):
        (gradient,) = torch.autograd.grad((route(router, scores) * quality).sum(), scores)
        scores = (scores + gradient).detach().requires_grad_()
    assert int(route(router, scores).argmax()) == 1
