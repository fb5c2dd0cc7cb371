"""The mixture of experts: two shared trunks, one expert per platform, a gate that reads the text.

Expert k scores S_k(q, i) = <t_k(q), v_k(i)>, a cosine. The fused score is S(q, i) = sum_k g_k(q) S_k(q, i) over every
image, whatever its platform; being linear in the image side it is the single inner product of [g_k t_k]_k and [v_k]_k.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experts.encoders import ImageTrunk, Residual, TextTrunk
from schemas.config import TrainConfig
from schemas.records import PLATFORMS

GATE_HIDDEN = 128
TEXT_WIDTH = 192
WORD_DROPOUT = 0.3


class Head(nn.Module):
    """An expert's own last block and projection: trunk feature float [B, W] -> unit vector float [B, D]."""

    def __init__(self, trunk_width: int, width: int) -> None:
        super().__init__()
        self.block = Residual(trunk_width)
        self.norm = nn.LayerNorm(trunk_width)
        self.projection = nn.Linear(trunk_width, width, bias=False)

    def forward(self, feature: Tensor) -> Tensor:
        return F.normalize(self.projection(self.norm(self.block(feature))), dim=-1)


class Expert(nn.Module):
    """One platform's expert: a head for texts, a head for images, and its own temperature."""

    def __init__(self, text_width: int, image_width: int, width: int, temperature: float) -> None:
        super().__init__()
        self.text = Head(text_width, width)
        self.image = Head(image_width, width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def scale(self) -> Tensor:
        """The inverse temperature, at most 100 as in CLIP."""
        return self.log_scale.exp().clamp(max=100.0)


class MixtureOfExperts(nn.Module):
    """Trunks, experts in the order of PLATFORMS, and the gate."""

    def __init__(self, terms: int, config: TrainConfig) -> None:
        super().__init__()
        self.text_trunk = TextTrunk(terms, TEXT_WIDTH, WORD_DROPOUT)
        self.image_trunk = ImageTrunk()
        first = Expert(TEXT_WIDTH, self.image_trunk.width, config.width, config.temperature)
        self.experts = nn.ModuleList([first, *(copy.deepcopy(first) for _ in PLATFORMS[1:])])
        # Stage 0 only: image features into the space of the term embeddings, to predict an image's words.
        self.visual_words = nn.Linear(self.image_trunk.width, TEXT_WIDTH)
        self.gate = nn.Sequential(
            nn.LayerNorm(TEXT_WIDTH),
            nn.Linear(TEXT_WIDTH, GATE_HIDDEN),
            nn.GELU(),
            nn.Linear(GATE_HIDDEN, len(PLATFORMS)),
        )
        last = self.gate[3]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # an untrained gate trusts every expert alike
        nn.init.zeros_(last.bias)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))

    def expert(self, k: int) -> Expert:
        found = self.experts[k]
        assert isinstance(found, Expert)
        return found

    def scale(self) -> Tensor:
        """The inverse temperature of the fused score, at most 100."""
        return self.log_scale.exp().clamp(max=100.0)

    def share_first_expert(self) -> None:
        """Let every expert, and the fused score's temperature, start as a copy of the first."""
        for k in range(1, len(PLATFORMS)):
            self.expert(k).load_state_dict(self.expert(0).state_dict())
        self.log_scale.data.copy_(self.expert(0).log_scale.data)

    def gates(self, text_feature: Tensor) -> Tensor:
        """Text trunk features float [B, W] -> weights float [B, 3] that sum to one."""
        weights: Tensor = self.gate(text_feature).softmax(dim=-1)
        return weights

    def fused_text(self, text_feature: Tensor) -> Tensor:
        """Text trunk features float [B, W] -> [g_k t_k]_k float [B, 3 D]."""
        each = torch.stack([self.expert(k).text(text_feature) for k in range(len(PLATFORMS))], dim=1)
        return (self.gates(text_feature).unsqueeze(-1) * each).flatten(1)

    def fused_image(self, image_feature: Tensor) -> Tensor:
        """Image trunk features float [B, W] -> [v_k]_k float [B, 3 D]."""
        return torch.cat([self.expert(k).image(image_feature) for k in range(len(PLATFORMS))], dim=1)
