"""Muon: orthogonal updates, filters of four dimensions, and a state that saves and loads."""

import copy

import torch
from torch import nn

from experts.muon import Muon, orthogonal


def test_an_update_is_made_nearly_orthogonal_whatever_its_shape() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((8, 20), (20, 8), (8, 8)):
        update = torch.randn(shape, generator=generator)
        left, values, right = torch.linalg.svd(update, full_matrices=False)
        out = orthogonal(update)
        found = torch.linalg.svdvals(out)
        assert (found < 1.3).all()
        assert found[values > 0.1 * values[0]].min() > 0.5
        assert torch.nn.functional.cosine_similarity(out.flatten(), (left @ right).flatten(), dim=0) > 0.95


def test_filters_are_fitted_and_a_loaded_state_goes_on_to_the_bit() -> None:
    def fit(model: nn.Conv2d, optimizer: Muon, steps: int) -> float:
        x = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
        loss = torch.zeros(())
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (model(x) - x[:, :2]).square().mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    torch.manual_seed(0)
    model = nn.Conv2d(3, 2, 3, padding=1, bias=False)
    optimizer = Muon(model.parameters(), lr=0.02)
    start = fit(model, optimizer, 1)
    twin = nn.Conv2d(3, 2, 3, padding=1, bias=False)
    twin.load_state_dict(model.state_dict())
    other = Muon(twin.parameters(), lr=0.02)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert fit(model, optimizer, 40) < start / 5
    fit(twin, other, 40)
    assert torch.equal(model.weight, twin.weight)
