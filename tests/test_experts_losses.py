"""Contrastive losses: the formula by hand, and no push between two images of one building."""

import math

import pytest
import torch

from experts.losses import info_nce, info_nce_hard


def unit(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def slow_info_nce(
    texts: torch.Tensor, images: torch.Tensor, buildings: list[int], scale: float, platforms: list[int]
) -> float:
    """The mean over both directions of -log(exp(own) / sum of exp over allowed), pair by pair."""
    n, total = len(texts), 0.0
    for a, b in ((texts, images), (images, texts)):
        for i in range(n):
            others = [j for j in range(n) if buildings[j] != buildings[i] and platforms[j] == platforms[i]]
            allowed = [i, *others]
            scores = {j: scale * float(a[i] @ b[j]) for j in allowed}
            total += math.log(sum(math.exp(s) for s in scores.values())) - scores[i]
    return total / (2 * n)


def test_info_nce_is_its_formula_with_pairs_of_one_building_or_of_other_platforms_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    texts, images = (
        unit(*torch.randn(5, 3, generator=generator).tolist()),
        unit(*torch.randn(5, 3, generator=generator).tolist()),
    )
    buildings = [0, 1, 0, 2, 1]
    found = info_nce(texts, images, torch.tensor(buildings), torch.tensor(4.0))
    assert float(found) == pytest.approx(slow_info_nce(texts, images, buildings, 4.0, [0] * 5), rel=1e-5)
    platforms = [0, 0, 1, 1, 2]  # the last is alone on its platform
    found = info_nce(texts, images, torch.tensor(buildings), torch.tensor(4.0), torch.tensor(platforms))
    assert float(found) == pytest.approx(slow_info_nce(texts, images, buildings, 4.0, platforms), rel=1e-5)


def test_one_building_alone_has_no_loss_and_no_gradient() -> None:
    texts, images = unit((1, 0), (0, 1)).requires_grad_(), unit((0, 1), (1, 0))
    loss = info_nce(texts, images, torch.tensor([3, 3]), torch.tensor(10.0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert texts.grad is not None
    assert texts.grad.abs().max() == 0


def test_missing_mined_images_change_nothing_and_real_ones_raise_the_loss() -> None:
    texts, images = unit((1, 0), (0, 1)), unit((1, 0.2), (0.1, 1))
    buildings, scale = torch.tensor([0, 1]), torch.tensor(5.0)
    mined = unit((1, 0.1), (0.3, 1)).unsqueeze(1)
    plain = info_nce(texts, images, buildings, scale)
    none = info_nce_hard(texts, images, buildings, scale, mined, torch.zeros(2, 1, dtype=torch.bool))
    some = info_nce_hard(texts, images, buildings, scale, mined, torch.ones(2, 1, dtype=torch.bool))
    torch.testing.assert_close(none, plain)
    assert some > plain
