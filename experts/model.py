"""The mixture of experts: two shared trunks, one expert per platform, a gate that reads the text.

Expert k scores S_k(q, i) = <t_k(q), v_k(i)>, a cosine. The fused score is S(q, i) = sum_k g_k(q) S_k(q, i) over every
image, whatever its platform; being linear in the image side it is the single inner product of [g_k t_k]_k and [v_k]_k.
A unified model is the mixture whose three experts are one: its gate is uniform, and one term of the sum stands for all.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experts.encoders import ImageTrunk, Residual, TextTrunk
from experts.routers import route
from schemas.config import TrainConfig
from schemas.records import PLATFORMS

GATE_HIDDEN = 128
TEXT_WIDTH = 192
WORD_DROPOUT = 0.3


class Head(nn.Module):
    """An expert's own last block and projection: trunk feature float [..., W] -> unit vector float [..., D]."""

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
    """Trunks, experts in the order of PLATFORMS (or one for all of them), and the gate."""

    def __init__(self, terms: int, config: TrainConfig) -> None:
        super().__init__()
        self.router = "uniform" if config.experts == "unified" else config.router
        self.text_trunk = TextTrunk(terms, TEXT_WIDTH, WORD_DROPOUT)
        self.image_trunk = ImageTrunk()
        first = Expert(TEXT_WIDTH, self.image_trunk.width, config.width, config.temperature)
        copies = 0 if config.experts == "unified" else len(PLATFORMS) - 1
        self.experts = nn.ModuleList([first, *(copy.deepcopy(first) for _ in range(copies))])
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

    @property
    def unified(self) -> bool:
        """Whether one expert stands for all platforms."""
        return len(self.experts) == 1

    def scale(self) -> Tensor:
        """The inverse temperature of the fused score, at most 100."""
        return self.log_scale.exp().clamp(max=100.0)

    def share_first_expert(self) -> None:
        """Let every expert, and the fused score's temperature, start as a copy of the first."""
        for k in range(1, len(self.experts)):
            self.expert(k).load_state_dict(self.expert(0).state_dict())
        self.log_scale.data.copy_(self.expert(0).log_scale.data)

    def gates(self, text_feature: Tensor) -> Tensor:
        """Text trunk features float [B, W] -> weights float [B, 3] in the order of PLATFORMS, which sum to one."""
        return route(self.router, self.gate(text_feature))

    def each_text(self, text_feature: Tensor) -> Tensor:
        """Text trunk features float [..., W] -> [t_k]_k float [..., K, D]; K is 1 in a unified model, else 3."""
        return torch.stack([self.expert(k).text(text_feature) for k in range(len(self.experts))], dim=-2)

    def each_image(self, image_feature: Tensor) -> Tensor:
        """Image trunk features float [..., W] -> [v_k]_k float [..., K, D]."""
        return torch.stack([self.expert(k).image(image_feature) for k in range(len(self.experts))], dim=-2)

    def weighted(self, gates: Tensor, each: Tensor) -> Tensor:
        """[g_k t_k]_k float [B, K D], of gates float [B, 3] and [t_k]_k float [B, K, D]."""
        return each.flatten(1) if self.unified else (gates.unsqueeze(-1) * each).flatten(1)

    def fused_text(self, text_feature: Tensor) -> Tensor:
        """Text trunk features float [B, W] -> [g_k t_k]_k float [B, K D]."""
        return self.weighted(self.gates(text_feature), self.each_text(text_feature))

    def fused_image(self, image_feature: Tensor) -> Tensor:
        """Image trunk features float [B, W] -> [v_k]_k float [B, K D]."""
        return self.each_image(image_feature).flatten(1)
