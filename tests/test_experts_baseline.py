"""The colour baseline: it finds colours, and nothing else."""

from pathlib import Path

import pytest
import torch
from test_experts_examples import write_tiny

from experts.baseline import evaluate_baseline, histograms
from schemas.errors import TrainingError


def test_a_histogram_counts_colours_wherever_they_are() -> None:
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = histograms(pixels)
    torch.testing.assert_close(found.square().sum(1), torch.ones(2))
    torch.testing.assert_close(histograms(pixels.flip(2).transpose(2, 3)), found)
    red = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    red[:, 0] = 255
    assert histograms(red)[0, 48] == 1


def test_colour_words_find_colours(tmp_path: Path) -> None:
    scores = evaluate_baseline(write_tiny(tmp_path, train=16, test=8))
    # Four colours in two shapes each: colour alone leaves two buildings of eight, 6 images of 24.
    assert scores["t2i"]["r5"] > 60 > scores["chance"]["r1"] * 4


def test_without_train_captions_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no captioned images"):
        evaluate_baseline(write_tiny(tmp_path, test=3))
