"""Mining: against a slow, obvious twin."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from experts.mining import mine


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.sampled_from([0.0, 0.05, 0.5]), st.integers(1, 9))
def test_mining_agrees_with_looking_at_every_image(seed: int, count: int, margin: float, chunk: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    texts, images = torch.randn(8, 4, generator=generator), torch.randn(11, 4, generator=generator)
    image_buildings = torch.randint(0, 4, (11,), generator=generator)
    positives = torch.randint(0, 11, (8,), generator=generator)
    text_buildings = image_buildings[positives]
    found = mine(
        texts,
        images,
        text_buildings,
        image_buildings,
        positives,
        count=count,
        relative_margin=margin,
        chunk=chunk,
    )
    assert found.shape == (8, count)
    for q in range(8):
        scores = (texts[q : q + 1] @ images.T)[0]
        own = scores[positives[q]]
        allowed = [
            g for g in range(11) if image_buildings[g] != text_buildings[q] and scores[g] <= own - margin * abs(own)
        ]
        best = sorted(allowed, key=lambda g: -float(scores[g]))[:count]
        kept = [g for g in found[q].tolist() if g >= 0]
        assert len(kept) == len(best)
        torch.testing.assert_close(scores[kept], scores[best])
        assert set(kept) <= set(allowed)


def test_nothing_to_mine_is_minus_one() -> None:
    one = torch.ones(1, 2)
    row = torch.zeros(1, dtype=torch.int64)
    assert mine(one, one, row, row, row, count=3, relative_margin=0.05).tolist() == [[-1, -1, -1]]
