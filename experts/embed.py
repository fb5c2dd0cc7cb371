"""Texts and images through a trained model, in batches: what evaluation, mining and search share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from experts.device import precision
from experts.encoders import Bags, Vocabulary, sentences
from experts.model import MixtureOfExperts

TEXT_BATCH = 2048
IMAGE_BATCH = 256


def text_bags(vocabulary: Vocabulary, texts: Sequence[str]) -> Bags:
    """Whole texts as bags; word pairs do not reach across sentences."""
    return Bags.of([[i for part in sentences(text) for i in vocabulary.encode(part)] for text in texts])


@torch.no_grad()
def text_features(model: MixtureOfExperts, bags: Bags, device: torch.device) -> Tensor:
    """Text trunk features float32 [N, W] on `device`; the model is left in evaluation mode."""
    model.eval()
    parts = []
    for start in range(0, len(bags), TEXT_BATCH):
        rows = torch.arange(start, min(start + TEXT_BATCH, len(bags)))
        with precision(device):
            parts.append(model.text_trunk(bags.pick(rows, rows + 1).to(device)).float())
    return torch.cat(parts) if parts else torch.zeros(0, model.text_trunk.width, device=device)


@torch.no_grad()
def image_features(model: MixtureOfExperts, pixels: Tensor, device: torch.device) -> Tensor:
    """Image trunk features float32 [N, W] on `device`, of uint8 [N, 3, S, S]; leaves the model in evaluation mode."""
    model.eval()
    parts = []
    for start in range(0, len(pixels), IMAGE_BATCH):
        with precision(device):
            parts.append(model.image_trunk(pixels[start : start + IMAGE_BATCH].to(device)).float())
    return torch.cat(parts) if parts else torch.zeros(0, model.image_trunk.width, device=device)


@torch.no_grad()
def fused_texts(model: MixtureOfExperts, features: Tensor) -> Tensor:
    """[g_k t_k]_k of text trunk features, float32 [N, 3 D]."""
    return model.fused_text(features).float()


@torch.no_grad()
def fused_images(model: MixtureOfExperts, features: Tensor) -> Tensor:
    """[v_k]_k of image trunk features, float32 [N, 3 D]."""
    return model.fused_image(features).float()
