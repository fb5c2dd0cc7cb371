"""What colour alone reaches: `python -m experts.baseline DATASET` prints the scores of evaluate for a model of colours.

An image is a histogram of 4 x 4 x 4 RGB cells; a text is a bag of words, mapped to histograms by ridge regression that
is fitted on the train split. A retriever that does not beat this has learnt nothing but colour.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from data.shards import open_version
from experts.embed import text_bags
from experts.encoders import Vocabulary, build_vocabulary, sentences
from experts.evaluate import load_split, report
from experts.examples import load_captions, load_images
from schemas.errors import GeorefineError, TrainingError
from schemas.records import Split

SIZE = 64
CELLS = 4
MOST_TERMS = 4000
RIDGE = 10.0


def histograms(pixels: Tensor) -> Tensor:
    """Square roots of the shares of 64 colour cells, float [N, 64], of pixels uint8 [N, 3, S, S]."""
    cells = pixels.long() * CELLS // 256
    index = ((cells[:, 0] * CELLS + cells[:, 1]) * CELLS + cells[:, 2]).flatten(1)
    counts = torch.zeros(len(pixels), CELLS**3).scatter_add_(1, index, torch.ones_like(index, dtype=torch.float32))
    return (counts / index.shape[1]).sqrt()


def bags_of_words(vocabulary: Vocabulary, texts: tuple[str, ...]) -> Tensor:
    """Which terms a text has, as unit rows float [N, terms]."""
    bags = text_bags(vocabulary, texts)
    table = torch.zeros(len(texts), len(vocabulary))
    table[torch.repeat_interleave(torch.arange(len(texts)), bags.offsets.diff()), bags.ids] = 1.0
    return F.normalize(table, dim=1)


def evaluate_baseline(dataset: Path, split: Split = "test") -> dict[str, Any]:
    """Scores of the colour model on a split, in the form of evaluate.report.

    Raises:
        TrainingError: the train split has no captioned images, or the split is empty.
        DatasetError: the data set cannot be read.
    """
    version = open_version(dataset)
    captions, images = load_captions(version, "train"), load_images(version, "train", SIZE, augmented=False)
    row_of = {image_id: row for row, image_id in enumerate(images.ids)}
    pairs = [(c, row_of[image_id]) for c, image_id in enumerate(captions.image_ids) if image_id in row_of]
    if not pairs:
        raise TrainingError("The train split has no captioned images: see the counts in its README.md, then rebuild.")
    vocabulary = Vocabulary(build_vocabulary(map(sentences, captions.finals)).terms[:MOST_TERMS])
    colours = histograms(images.pixels)
    mean = colours.mean(dim=0)
    x = bags_of_words(vocabulary, tuple(captions.finals[c] for c, _ in pairs))
    y = (colours - mean)[[row for _, row in pairs]]
    weights = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1]), x.T @ y)
    queries, gallery = load_split(version, split, SIZE)
    texts = F.normalize(bags_of_words(vocabulary, queries.finals) @ weights, dim=1)
    return report(texts, F.normalize(histograms(gallery.pixels) - mean, dim=1), queries, gallery)


if __name__ == "__main__":
    try:
        print(json.dumps(evaluate_baseline(Path(sys.argv[1]))))
    except IndexError:
        sys.exit("Usage: python -m experts.baseline DATASET")
    except GeorefineError as error:
        sys.exit(f"Error: {error}")
