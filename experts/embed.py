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


def shared_out(count: int, most: int) -> list[range]:
    """So many rows in near-equal parts of at most `most`: none is left alone, for a batch of one is computed by other
    code, and equal inputs would get features that differ in their last bit."""
    parts = math.ceil(count / most)
    return [range(count * n // parts, count * (n + 1) // parts) for n in range(parts)]


@torch.no_grad()
def text_features(model: MixtureOfExperts, bags: Bags | Texts, device: torch.device) -> Tensor:
    """Text trunk features float32 [N, W] on `device`; the model is left in evaluation mode."""
    model.eval()
    parts = []
    size = TEXT_BATCH if isinstance(bags, Bags) else PRETRAINED_BATCH
    for part in shared_out(len(bags), size):
        rows = torch.arange(part.start, part.stop)
        with precision(device):
            parts.append(model.text_trunk(bags.pick(rows, rows + 1).to(device)).float())
    return torch.cat(parts) if parts else torch.zeros(0, model.text_trunk.width, device=device)


@torch.no_grad()
def image_features(model: MixtureOfExperts, pixels: Tensor, device: torch.device) -> Tensor:
    """Image trunk features float32 [N, W] on `device`, of uint8 [N, 3, S, S]; leaves the model in evaluation mode."""
    model.eval()
    parts = []
    size = IMAGE_BATCH if isinstance(model, CompactMixture) else PRETRAINED_BATCH
    for part in shared_out(len(pixels), size):
        with precision(device):
            parts.append(model.image_trunk(pixels[part.start : part.stop].to(device)).float())
    return torch.cat(parts) if parts else torch.zeros(0, model.image_trunk.width, device=device)


def gallery_features(model: MixtureOfExperts, gallery: Images | Pictures, size: int, device: torch.device) -> Tensor:
    """Image trunk features float32 [N, W] on `device`; what is encoded is decoded at `size`, some at a time."""
    if isinstance(gallery, Images):
        return image_features(model, gallery.pixels, device)
    parts = shared_out(len(gallery), IMAGE_BATCH)
    found = [image_features(model, gallery.pixels(part, size), device) for part in parts]
    return torch.cat(found) if found else torch.zeros(0, model.image_trunk.width, device=device)


@torch.no_grad()
def fused_texts(model: MixtureOfExperts, features: Tensor) -> Tensor:
    """[g_k t_k]_k of text trunk features, float32 [N, 3 D]."""
    return model.fused_text(features).float()


@torch.no_grad()
def fused_images(model: MixtureOfExperts, features: Tensor) -> Tensor:
    """[v_k]_k of image trunk features, float32 [N, 3 D]."""
    return model.fused_image(features).float()
