"""The mixture over pretrained trunks (encoder "bge-m3+eva-clip"): as in the paper, or with light adapters.

- layers, the paper's: an expert owns copies of the last text layers and image blocks, and a projection of the image;
  the text side is the normalised CLS of its own copy. What stands before them is shared and frozen.
- adapters: whole encoders are shared and frozen; an expert is a head on each side, as in the compact mixture. Trunk
  features never change, so that they are computed once (experts/features.py).

Both give a feature per item that evaluation, mining and search keep as they keep those of the compact mixture: with
layers, it is the shared feature that the gate reads, then the vectors of all experts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experts.encoders import Texts, Trunk
from experts.model import Expert, Head, MixtureOfExperts, alike, make_gate
from experts.pretrained import ImageEncoder, ImageTail, TextEncoder, load_image, load_text, weights_hash
from schemas.config import TrainConfig
from schemas.errors import ConfigError

GATE_HIDDEN = 512  # the paper's


class PooledText(Trunk):
    """Texts -> CLS of the whole text encoder, float [B, W], without gradient."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = encoder.width

    def encode(self, texts: Sequence[str]) -> Tensor:
        tokens = self.encoder.tokenize(texts).to(next(self.encoder.parameters()).device)
        return self.encoder.trunk(tokens)[:, 0]

    def forward(self, texts: Texts) -> Tensor:
        return self.encode(texts.texts)


class PooledImage(Trunk):
    """Pixels -> CLS of the whole image encoder after its norm, float [B, W], without gradient."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = encoder.width
        self.norm = encoder.tail().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        pooled: Tensor = self.norm(self.encoder.trunk(pixels))
        return pooled


class Projected(nn.Module):
    """An expert's own last image blocks and its linear projection."""

    def __init__(self, tail: ImageTail, before: int, after: int) -> None:
        super().__init__()
        self.tail = tail
        self.projection = nn.Linear(before, after, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.tail(tokens))
        return projected


class TailedText(Trunk):
    """Texts -> [shared CLS, t_1, ..., t_K], float [B, W + K D]: the trunk's, then every expert's unit vector."""

    def __init__(self, encoder: TextEncoder, experts: Sequence[Expert]) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = encoder.width * (1 + len(experts))
        self.experts = tuple(experts)  # no ModuleList: they are the mixture's

    def forward(self, texts: Texts) -> Tensor:
        tokens = self.encoder.tokenize(texts.texts).to(next(self.encoder.parameters()).device)
        hidden = self.encoder.trunk(tokens)
        each = [F.normalize(expert.text(hidden, tokens.mask).float(), dim=-1) for expert in self.experts]
        return torch.cat([hidden[:, 0], *each], dim=1)


class TailedImage(Trunk):
    """Pixels -> [v_1, ..., v_K], float [B, K D]: every expert's unit vector."""

    def __init__(self, encoder: ImageEncoder, experts: Sequence[Expert], width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = width * len(experts)
        self.experts = tuple(experts)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.encoder.trunk(pixels)
        return torch.cat([F.normalize(expert.image(tokens).float(), dim=-1) for expert in self.experts], dim=1)


class AdaptedMixture(MixtureOfExperts):
    """Heads over whole, frozen encoders."""

    text_trunk: PooledText
    image_trunk: PooledImage

    def __init__(self, text: TextEncoder, image: ImageEncoder, config: TrainConfig) -> None:
        text_trunk, image_trunk = PooledText(text), PooledImage(image)
        first = Expert(Head(text.width, config.width), Head(image.width, config.width), config.temperature)
        super().__init__(text_trunk, image_trunk, alike(first, config), make_gate(text.width, GATE_HIDDEN), config)


class TailedMixture(MixtureOfExperts):
    """The paper's: every expert owns the last layers of both encoders, and the projection of the image."""

    def __init__(self, text: TextEncoder, image: ImageEncoder, config: TrainConfig) -> None:
        image_side = Projected(image.tail(), image.width, text.width)
        experts = alike(Expert(text.tail(), image_side, config.temperature), config)
        trunks = TailedText(text, experts), TailedImage(image, experts, text.width)
        super().__init__(*trunks, experts, make_gate(text.width, GATE_HIDDEN), config)
        self.shared_width = text.width

    def gate_scores(self, text_feature: Tensor) -> Tensor:
        return super().gate_scores(text_feature[..., : self.shared_width])

    def each_text(self, text_feature: Tensor) -> Tensor:
        own = text_feature[..., self.shared_width :]
        return own.reshape(*own.shape[:-1], len(self.experts), self.shared_width)

    def each_image(self, image_feature: Tensor) -> Tensor:
        return image_feature.reshape(*image_feature.shape[:-1], len(self.experts), self.shared_width)


def load_encoders(config: TrainConfig) -> tuple[TextEncoder, ImageEncoder]:
    """The two encoders that a configuration names, on the CPU, cut before the layers that its experts own.

    Raises:
        TrainingError: a library or weights are not there, or do not fit; ConfigError: no weights are named.
    """
    for key, name in (("text_model", config.text_model), ("image_model", config.image_model)):
        if not name:
            raise ConfigError(f"train.{key}", "is empty: name the folder or the hub's name of the pretrained weights.")
    layers, blocks = (config.text_layers, config.image_blocks) if config.tails == "layers" else (0, 0)
    text = load_text(config.text_model, layers=layers, max_length=config.text_length)
    return text, load_image(config.image_model, size=config.image_size, blocks=blocks)


def pretrained_mixture(config: TrainConfig) -> AdaptedMixture | TailedMixture:
    """A mixture over the encoders that the configuration names, untrained experts, on the CPU."""
    text, image = load_encoders(config)
    return TailedMixture(text, image, config) if config.tails == "layers" else AdaptedMixture(text, image, config)


def trunk_hashes(mixture: MixtureOfExperts) -> dict[str, str]:
    """SHA-256 of both frozen trunks' weights, which a checkpoint keeps instead of the weights."""
    trunks = {"text": mixture.text_trunk, "image": mixture.image_trunk}
    return {name: weights_hash(trunk.encoder) for name, trunk in trunks.items() if isinstance(trunk.encoder, nn.Module)}
