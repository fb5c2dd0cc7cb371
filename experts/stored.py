"""Features of frozen, whole trunks, computed once: what `tails: adapters` trains and is validated on.

They are kept by experts/features.py, under the hash of a text or of an image's file, and read from a memory map.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from experts.embed import image_features, text_features
from experts.encoders import Texts
from experts.examples import Captions, Encoded, Images
from experts.features import FeatureTable, cached
from experts.model import MixtureOfExperts
from experts.tails import PooledImage, PooledText
from experts.train_set import TrainSet

DTYPE = torch.float16  # both features come out of a layer norm


@dataclass(frozen=True)
class StoredFeatures:
    """What stages 1 and 2 read instead of texts and pixels.

    Attributes:
        texts: of every unit of the train set; then, two rows for each text t, of its sentences and of its queries
            together.
        images: of the train set's. val_texts, val_images: of what checkpoints are chosen on.
    """

    texts: FeatureTable
    images: FeatureTable
    val_texts: FeatureTable
    val_images: FeatureTable


def text_rows(data: TrainSet, starts: Tensor, ends: Tensor) -> Tensor:
    """Rows of StoredFeatures.texts of drawn texts that are one unit, or all of a kind. int64 [B] each."""
    texts = data.texts_with(starts)
    together = len(data.units) + 2 * texts + (starts >= data.first_query[texts])
    return torch.where(ends - starts == 1, starts, together)


def rows_of_sentences(data: TrainSet, texts: Tensor) -> Tensor:
    """Rows of StoredFeatures.texts of all sentences of texts, int64 [B], together."""
    return len(data.units) + 2 * texts


def stored_features(
    folder: Path, model: MixtureOfExperts, data: TrainSet, val: tuple[Captions, Images], device: torch.device
) -> StoredFeatures:
    """Encode what is not in `folder` yet.

    Raises:
        TrainingError: the folder cannot be written, or a feature is not finite. DatasetError: an image is damaged.
    """
    assert isinstance(data.units, Texts)
    sentences = data.units.pick(data.first_unit[:-1], data.first_query)
    queries = data.units.pick(data.first_query, data.first_unit[1:])
    both = [text for pair in zip(sentences.texts, queries.texts, strict=True) for text in pair]
    captions, images = val
    return StoredFeatures(
        _texts(folder, model, [*data.units.texts, *both], device),
        _images(folder, model, data.pixels, device),
        _texts(folder, model, captions.finals, device),
        _images(folder, model, images.pixels, device),
    )


def _texts(folder: Path, model: MixtureOfExperts, texts: Sequence[str], device: torch.device) -> FeatureTable:
    trunk = model.text_trunk
    assert isinstance(trunk, PooledText)
    keys = [hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() for text in texts]
    text_of = dict(zip(keys, texts, strict=True))

    def encode(some: Sequence[str]) -> Tensor:
        return text_features(model, Texts(tuple(text_of[key] for key in some)), device)

    return cached(folder, trunk.encoder.identity("cls", DTYPE), keys, encode, trunk.width)


def _images(folder: Path, model: MixtureOfExperts, pixels: Tensor | Encoded, device: torch.device) -> FeatureTable:
    trunk = model.image_trunk
    assert isinstance(trunk, PooledImage)
    assert isinstance(pixels, Encoded)
    row_of = {key: row for row, key in enumerate(pixels.sha256s)}

    def encode(some: Sequence[str]) -> Tensor:
        return image_features(model, pixels.some([row_of[key] for key in some]), device)

    return cached(folder, trunk.encoder.identity("pooled", DTYPE), pixels.sha256s, encode, trunk.width)
