"""Features of frozen pretrained encoders for every text and image of a run: encoded once, then memory-mapped.

Kept beside the data set, in .work/features, under the hash of what they encode and of the encoder: a second run, or one
whose captions changed a little, encodes only what is new (experts/features.py).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from experts.examples import Pictures
from experts.features import FeatureTable, cached
from experts.tails import AdaptedMixture

KEPT_AS = torch.float16
AT_ONCE = 32  # items that an encoder takes at a time


@dataclass(frozen=True)
class Stored:
    """Trunk features of one run.

    Attributes:
        texts: of every unit, then of all sentences of every text, then of all queries of every text.
        images: of every training image.
        val_texts, val_images: of the val set, in its order.
        first_unit: int64 [T + 1], first_query: int64 [T], as in TrainSet.
    """

    texts: FeatureTable
    images: FeatureTable
    val_texts: FeatureTable
    val_images: FeatureTable
    first_unit: Tensor
    first_query: Tensor

    def texts_at(self, starts: Tensor, ends: Tensor) -> Tensor:
        """Features float32 [B, W] of what draw_texts gives without runs: one unit, all sentences or all queries."""
        units, texts = int(self.first_unit[-1]), len(self.first_query)
        text = torch.searchsorted(self.first_unit, starts, right=True) - 1
        whole = units + torch.where(starts < self.first_query[text], text, texts + text)
        return self.texts[torch.where(ends - starts == 1, starts, whole)]

    def images_at(self, rows: Tensor) -> Tensor:
        """Features float32 [B, W] of training images."""
        return self.images[rows]


def spans_to_store(units: Sequence[str], first_unit: Tensor, first_query: Tensor) -> list[str]:
    """The texts of Stored.texts, in its order; sentences are joined as Texts.pick joins them."""
    bounds = list(zip(first_unit[:-1].tolist(), first_query.tolist(), first_unit[1:].tolist(), strict=True))
    sentences = [". ".join(units[start:middle]) for start, middle, _ in bounds]
    queries = [". ".join(units[middle:end]) for _, middle, end in bounds]
    return [*units, *sentences, *queries]


def store(
    model: AdaptedMixture,
    folder: Path,
    spans: Sequence[str],
    pictures: Pictures,
    val_texts: Sequence[str],
    val_pictures: Pictures,
    first_unit: Tensor,
    first_query: Tensor,
    size: int,
    say: Callable[[str], None],
) -> Stored:
    """Encode what the folder does not hold yet; the model is on its device and stays in evaluation mode.

    Args:
        spans: what spans_to_store gave; size: pixels of an image's side; say: told what was made anew.

    Raises:
        TrainingError: the folder cannot be written, or a feature is not finite. DatasetError: an image is damaged.
    """
    model.eval()
    text_encoder, image_encoder = model.text_trunk.encoder, model.image_trunk.encoder
    device = next(model.text_trunk.parameters()).device

    @torch.no_grad()
    def of_texts(texts: Sequence[str]) -> FeatureTable:
        by_key = {hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest(): text for text in texts}

        def encode(keys: Sequence[str]) -> Tensor:
            wanted = [by_key[key] for key in keys]
            parts = [wanted[start : start + AT_ONCE] for start in range(0, len(wanted), AT_ONCE)]
            return torch.cat([model.text_trunk.encode(part).float().cpu() for part in parts])

        keys = [hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() for text in texts]
        return cached(folder, text_encoder.identity("cls", KEPT_AS), keys, encode, text_encoder.width, say=say)

    @torch.no_grad()
    def of_images(found: Pictures) -> FeatureTable:
        row_of = {key: row for row, key in enumerate(found.sha256s)}

        def encode(keys: Sequence[str]) -> Tensor:
            parts = [keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE)]
            pixels = (found.pixels([row_of[key] for key in part], size) for part in parts)
            return torch.cat([model.image_trunk(some.to(device)).float().cpu() for some in pixels])

        identity = image_encoder.identity("cls", KEPT_AS)
        return cached(folder, identity, found.sha256s, encode, image_encoder.width, say=say)

    return Stored(
        of_texts(spans), of_images(pictures), of_texts(val_texts), of_images(val_pictures), first_unit, first_query
    )
