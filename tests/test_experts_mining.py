"""Mining: against a slow, obvious twin, and against the order of steps that loses negatives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from experts.mining import building_pairs, mine
from schemas.errors import TrainingError

SEEDS = st.integers(0, 2**32 - 1)


def world(seed: int, queries: int = 8, images: int = 11) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Texts, images and their buildings; every text is of the building of some image."""
    generator = torch.Generator().manual_seed(seed)
    texts, gallery = torch.randn(queries, 4, generator=generator), torch.randn(images, 4, generator=generator)
    image_buildings = torch.randint(0, 4, (images,), generator=generator)
    text_buildings = image_buildings[torch.randint(0, images, (queries,), generator=generator)]
    return texts, gallery, text_buildings, image_buildings


def slow_negatives(scores: list[float], wrong: list[bool], own: list[float], margin: float) -> list[int]:
    """Every wrong image that is no more than the weakest positive less the margin, best first."""
    ceiling = min(own) - margin * abs(min(own))
    allowed = [g for g in range(len(scores)) if wrong[g] and scores[g] <= ceiling]
    return sorted(allowed, key=lambda g: -scores[g])


@settings(deadline=None)
@given(SEEDS, st.integers(0, 12), st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.integers(1, 9), st.booleans())
def test_mining_agrees_with_looking_at_every_image(
    seed: int, count: int, margin: float, chunk: int, several: bool
) -> None:
    texts, images, asked, shown = world(seed)
    every = [[g for g in range(11) if shown[g] == asked[q]] for q in range(8)]
    own = every if several else [[rows[seed % len(rows)]] for rows in every]
    width = max(map(len, own))
    table = torch.tensor([rows + [-1] * (width - len(rows)) for rows in own])
    positives = table if several else table[:, 0]
    found = mine(texts, images, asked, shown, positives, count=count, relative_margin=margin, chunk=chunk)
    assert found.shape == (8, count)
    for q in range(8):
        scores = (texts[q : q + 1] @ images.T)[0].tolist()
        best = slow_negatives(scores, (shown != asked[q]).tolist(), [scores[g] for g in own[q]], margin)[:count]
        kept = [g for g in found[q].tolist() if g >= 0]
        assert len(kept) == len(set(kept)) == len(best)
        assert found[q, len(kept) :].tolist() == [-1] * (count - len(kept))
        assert [scores[g] for g in kept] == pytest.approx([scores[g] for g in best], abs=1e-6)


@settings(deadline=None)
@given(SEEDS, st.integers(1, 4), st.integers(1, 11))
def test_cutting_before_filtering_finds_a_beginning_of_the_same(seed: int, count: int, candidates: int) -> None:
    """What mine_hard_negatives of sentence-transformers does; what it finds is right, but it can find too little."""
    texts, images, asked, shown = world(seed)
    own = torch.tensor([shown.tolist().index(building) for building in asked.tolist()])
    found = mine(texts, images, asked, shown, own, count=count, relative_margin=0.05)
    for q in range(8):
        scores = (texts @ images.T)[q].tolist()
        cut = sorted(range(11), key=lambda g: -scores[g])[:candidates]
        wrong = [bool(shown[g] != asked[q]) and g in cut for g in range(11)]
        theirs = slow_negatives(scores, wrong, [scores[int(own[q])]], 0.05)[:count]
        assert found[q, : len(theirs)].tolist() == theirs


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=9), st.lists(st.integers(0, 5), max_size=9))
def test_pairs_of_one_building_are_those_that_a_table_shows(rows: list[int], columns: list[int]) -> None:
    r, c = torch.tensor(rows, dtype=torch.int64), torch.tensor(columns, dtype=torch.int64)
    expected = (r.unsqueeze(1) == c.unsqueeze(0)).nonzero()
    assert torch.equal(torch.stack(building_pairs(r, c), dim=1), expected)


def test_nothing_to_mine_is_minus_one() -> None:
    one = torch.ones(1, 2)
    row = torch.zeros(1, dtype=torch.int64)
    assert mine(one, one, row, row, row, count=3, relative_margin=0.05).tolist() == [[-1, -1, -1]]
    assert mine(one[:0], one, row[:0], row, row[:0], count=3, relative_margin=0.05).shape == (0, 3)


@pytest.mark.parametrize("where", ["the right image", "a wrong image"])
def test_nan_is_an_error(where: str) -> None:
    images = torch.ones(2, 2)
    images[0 if where == "the right image" else 1] = float("nan")
    codes = torch.arange(2)
    with pytest.raises(TrainingError, match="NaN"):
        mine(torch.ones(1, 2), images, codes[:1], codes, codes[:1], count=1, relative_margin=0.05)


def test_a_text_without_a_positive_is_an_error() -> None:
    one, row = torch.ones(1, 2), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(TrainingError, match="no image of its own"):
        mine(one, one, row, row, torch.tensor([[-1, -1]]), count=1, relative_margin=0.05)
