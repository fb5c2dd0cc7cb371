"""Texts and images through a trained model, in batches: what evaluation, mining and search share."""

import math
from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from experts.device import precision
from experts.encoders import Bags, Texts, Vocabulary, sentences
from experts.examples import Images, Pictures
from experts.model import CompactMixture, MixtureOfExperts

TEXT_BATCH = 2048
IMAGE_BATCH = 256
PRETRAINED_BATCH = 32


@overload
def text_bags(vocabulary: Vocabulary, texts: Sequence[str]) -> Bags: ...


@overload
def text_bags(vocabulary: Vocabulary | None, texts: Sequence[str]) -> Bags | Texts: ...


def text_bags(vocabulary: Vocabulary | None, texts: Sequence[str]) -> Bags | Texts:
    """Whole texts as bags; word pairs do not reach across sentences. Without a vocabulary: the texts as they are."""
    if vocabulary is None:
        return Texts(tuple(texts))
    return Bags.of([[i for part in sentences(text) for i in vocabulary.encode(part)] for text in texts])


def batches(rows: Tensor, size: int) -> Sequence[Tensor]:
    """Rows in near-equal parts of at most `size`, or three where two leave one alone.

    A batch of one is computed by other code: equal inputs would get features that differ in their last bit, and a layer
    that learns from the spread of its batch has none.
    """
    parts = max(1, min(math.ceil(len(rows) / size), len(rows) // 2))
    return torch.tensor_split(rows, parts) if len(rows) else ()


@torch.no_grad()
def text_features(model: MixtureOfExperts, bags: Bags | Texts, device: torch.device) -> Tensor:
    """Text trunk features float32 [N, W] on `device`; the model is left in evaluation mode."""
    model.eval()
    parts = []
    size = TEXT_BATCH if isinstance(bags, Bags) else PRETRAINED_BATCH
    for rows in batches(torch.arange(len(bags)), size):
        with precision(device):
            parts.append(model.text_trunk(bags.pick(rows, rows + 1).to(device)).float())
    return torch.cat(parts) if parts else torch.zeros(0, model.text_trunk.width, device=device)


@torch.no_grad()
def image_features(model: MixtureOfExperts, pixels: Tensor, device: torch.device) -> Tensor:
    """Image trunk features float32 [N, W] on `device`, of uint8 [N, 3, S, S]; leaves the model in evaluation mode."""
    model.eval()
    parts = []
    size = IMAGE_BATCH if isinstance(model, CompactMixture) else PRETRAINED_BATCH
    for some in batches(pixels, size):
        with precision(device):
            parts.append(model.image_trunk(some.to(device)).float())
    return torch.cat(parts) if parts else torch.zeros(0, model.image_trunk.width, device=device)


def gallery_features(model: MixtureOfExperts, gallery: Images | Pictures, size: int, device: torch.device) -> Tensor:
    """Image trunk features float32 [N, W] on `device`; what is encoded is decoded at `size`, some at a time."""
    if isinstance(gallery, Images):
        return image_features(model, gallery.pixels, device)
    parts = batches(torch.arange(len(gallery)), IMAGE_BATCH)
    found = [image_features(model, gallery.pixels(rows.tolist(), size), device) for rows in parts]
    return torch.cat(found) if found else torch.zeros(0, model.image_trunk.width, device=device)


@torch.no_grad()
def fused_texts(model: MixtureOfExperts, features: Tensor) -> Tensor:
    """[g_k t_k]_k of text trunk features, float32 [N, 3 D]."""
    return model.fused_text(features).float()


@torch.no_grad()
def fused_images(model: MixtureOfExperts, features: Tensor) -> Tensor:
    """[v_k]_k of image trunk features, float32 [N, 3 D]."""
    return model.fused_image(features).float()
