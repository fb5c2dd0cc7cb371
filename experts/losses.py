"""Contrastive losses that never push apart a text and an image of one building."""

import torch
from torch import Tensor
from torch.nn import functional as F


def same_building(rows: Tensor, columns: Tensor) -> Tensor:
    """bool [R, C]: whether row and column are of one building. rows: int64 [R]; columns: int64 [C]."""
    return rows.unsqueeze(1) == columns.unsqueeze(0)


def info_nce(
    texts: Tensor, images: Tensor, buildings: Tensor, scale: Tensor, platforms: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018; CLIP) over a batch of pairs; other pairs of one building are masked.

    Args:
        texts, images: float [B, D]; pair i is (texts[i], images[i]).
        buildings: int64 [B].
        scale: scalar, the inverse temperature.
        platforms: int64 [B]; if given, pairs of different platforms are masked too.

    Returns:
        Scalar loss, >= 0; 0 where no pair has a negative.
    """
    logits = _masked(scale * texts @ images.T, buildings)
    if platforms is not None:
        logits = logits.masked_fill(platforms.unsqueeze(1) != platforms.unsqueeze(0), float("-inf"))
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def info_nce_hard(
    texts: Tensor, images: Tensor, buildings: Tensor, scale: Tensor, mined: Tensor, real: Tensor
) -> Tensor:
    """InfoNCE with mined images as further negatives of each text; image-to-text stays in the batch.

    Args:
        texts, images, buildings, scale: as in info_nce.
        mined: float [B, H, D], the mined images of each text.
        real: bool [B, H], False where fewer than H were mined.
    """
    logits = _masked(scale * texts @ images.T, buildings)
    hard = (scale * torch.einsum("bd,bhd->bh", texts, mined)).masked_fill(~real, float("-inf"))
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(torch.cat([logits, hard], dim=1), own) + F.cross_entropy(logits.T, own)) / 2


def _masked(logits: Tensor, buildings: Tensor) -> Tensor:
    false = same_building(buildings, buildings)
    false.fill_diagonal_(False)
    return logits.masked_fill(false, float("-inf"))
