"""The mixture of experts: two shared trunks, one expert per platform, a gate that reads the text.

Expert k scores S_k(q, i) = <t_k(q), v_k(i)>, a cosine. The fused score is S(q, i) = sum_k g_k(q) S_k(q, i) over every
image, whatever its platform; being linear in the image side it is the single inner product of [g_k t_k]_k and [v_k]_k.
A unified model is the mixture whose three experts are one: its gate is uniform, and one term of the sum stands for all.

Here stand the mixture and its compact form, which needs no pretrained weights; experts/tails.py has the other forms.
"""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experts.encoders import ImageTrunk, Residual, TextTrunk, Trunk
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
    """One platform's expert: what it does to texts, what it does to images, and its own temperature."""

    def __init__(self, text: nn.Module, image: nn.Module, temperature: float) -> None:
        super().__init__()
        self.text = text
        self.image = image
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def scale(self) -> Tensor:
        """The inverse temperature, at most 100 as in CLIP."""
        return self.log_scale.exp().clamp(max=100.0)


class MixtureOfExperts(nn.Module):
    """Trunks, experts in the order of PLATFORMS (or one for all of them), and the gate.

    Attributes:
        text_trunk: batch of texts (Bags or Texts) -> feature float [B, W].
        image_trunk: uint8 or float pixels [B, 3, S, S] in 0..255 -> feature float [B, W'].
        experts: heads on these features, all alike in the beginning.
    """

    def __init__(
        self, text_trunk: Trunk, image_trunk: Trunk, experts: Sequence[Expert], gate: nn.Module, config: TrainConfig
    ) -> None:
        super().__init__()
        self.router = "uniform" if config.experts == "unified" else config.router
        self.text_trunk = text_trunk
        self.image_trunk = image_trunk
        self.experts = nn.ModuleList(experts)
        self.gate = gate
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

    def start_from(self, other: "MixtureOfExperts") -> None:
        """Take the weights of a mixture over equal trunks: experts from experts; three from one, or one as their mean.

        The mean of weights is meant for experts that were copies once (model soups: Wortsman et al. 2022).

        Raises:
            RuntimeError: names or shapes differ.
        """
        weights = other.state_dict()
        own = {name: value for name, value in weights.items() if not name.startswith("experts.")}
        theirs = [expert.state_dict() for expert in other.experts]
        for k in range(len(self.experts)):
            for name in theirs[0]:
                each = theirs if self.unified else [theirs[k % len(theirs)]]
                own[f"experts.{k}.{name}"] = torch.stack([one[name] for one in each]).mean(0)
        self.load_state_dict(own)

    def gate_scores(self, text_feature: Tensor) -> Tensor:
        """Text features float [B, W] -> what the router turns into weights, float [B, 3] in the order of PLATFORMS."""
        scores: Tensor = self.gate(text_feature)
        return scores

    def gates(self, text_feature: Tensor) -> Tensor:
        """Text features float [B, W] -> weights float [B, 3] in the order of PLATFORMS, which sum to one."""
        return route(self.router, self.gate_scores(text_feature))

    def each_text(self, text_feature: Tensor) -> Tensor:
        """Text features float [..., W] -> [t_k]_k float [..., K, D]; K is 1 in a unified model, else 3."""
        return torch.stack([self.expert(k).text(text_feature) for k in range(len(self.experts))], dim=-2)

    def each_image(self, image_feature: Tensor) -> Tensor:
        """Image features float [..., W'] -> [v_k]_k float [..., K, D]."""
        return torch.stack([self.expert(k).image(image_feature) for k in range(len(self.experts))], dim=-2)

    def weighted(self, gates: Tensor, each: Tensor) -> Tensor:
        """[g_k t_k]_k float [B, K D], of gates float [B, 3] and [t_k]_k float [B, K, D]."""
        return each.flatten(1) if self.unified else (gates.unsqueeze(-1) * each).flatten(1)

    def fused_text(self, text_feature: Tensor) -> Tensor:
        """Text features float [B, W] -> [g_k t_k]_k float [B, K D]."""
        return self.weighted(self.gates(text_feature), self.each_text(text_feature))

    def fused_image(self, image_feature: Tensor) -> Tensor:
        """Image features float [B, W'] -> [v_k]_k float [B, K D]."""
        return self.each_image(image_feature).flatten(1)


def alike(first: Expert, config: TrainConfig) -> list[Expert]:
    """The experts of a mixture before training: one per platform, or one for all, equal but not shared."""
    copies = 0 if config.experts == "unified" else len(PLATFORMS) - 1
    return [first, *(copy.deepcopy(first) for _ in range(copies))]


def make_gate(width: int, hidden: int) -> nn.Sequential:
    """The paper's gate: text feature float [B, width] -> scores float [B, 3]; untrained, it trusts all alike."""
    gate = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, len(PLATFORMS)))
    for parameter in gate[3].parameters():
        nn.init.zeros_(parameter)
    return gate


class CompactMixture(MixtureOfExperts):
    """The mixture over the compact trunks, which start from nothing."""

    text_trunk: TextTrunk
    image_trunk: ImageTrunk

    def __init__(self, terms: int, config: TrainConfig) -> None:
        text, image = TextTrunk(terms, TEXT_WIDTH, WORD_DROPOUT), ImageTrunk()
        first = Expert(Head(TEXT_WIDTH, config.width), Head(image.width, config.width), config.temperature)
        # Stage 0 only: image features into the space of the term embeddings, to predict an image's words.
        words = nn.Linear(image.width, TEXT_WIDTH)
        super().__init__(text, image, alike(first, config), make_gate(TEXT_WIDTH, GATE_HIDDEN), config)
        self.visual_words = words
