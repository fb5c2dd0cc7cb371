"""The pretrained encoders: BGE-M3 for texts (through transformers), the EVA02-CLIP image tower (through timm).

    text = load_text("BAAI/bge-m3", layers=2)                 # a hub name, or a folder made by save_pretrained
    image = load_image("eva02_large_patch14_clip_336.merged2b", size=384, blocks=4)  # or a file of weights
    tail = text.tail()                                        # one expert's own copy of the last two layers
    cls = tail(text.trunk(tokens), tokens.mask)               # float [B, 1024], what the whole model gives

A trunk is frozen and never leaves evaluation mode; tails are what experts train. Neither library is imported before an
encoder is asked for, and no code that comes with weights is ever run. docs/encoders.md says how to fetch weights.
"""

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experts.device import precision
from experts.features import EncoderIdentity
from schemas.errors import TrainingError

# Mean and standard deviation of RGB in 0..1 that OpenAI's CLIP was trained with, and EVA-CLIP after it.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
EVA = "eva02_large_patch14_clip_224"  # the architecture; width, depth and patch come from the weights
HEAD_WIDTH = 64  # of every EVA02-CLIP tower
EVA_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
EVA_PREFIXES = ("visual.trunk.", "visual.", "")  # as timm's checkpoint_filter_fn knows them
TEXT_ADVICE = "where there is a network, run `hf download BAAI/bge-m3 --local-dir DIR`, and name DIR."
IMAGE_ADVICE = (
    "where there is a network, run `hf download timm/eva02_large_patch14_clip_336.merged2b"
    " --local-dir DIR`, and name DIR."
)
# Finite in float32, bfloat16 and, under autocast to them, in attention masks: -inf minus -inf would be NaN.
MASKED = torch.finfo(torch.bfloat16).min


@dataclass(frozen=True)
class Tokens:
    """A padded batch of tokenised texts. ids: int64 [B, T]; mask: bool [B, T], true for tokens, false for padding."""

    ids: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> "Tokens":
        return Tokens(self.ids.to(device), self.mask.to(device))


class Frozen(nn.Module):
    """A module without gradients that stays in evaluation mode whatever its parent does."""

    def freeze(self) -> None:
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


class TextTail(nn.Module):
    """The last layers of the text encoder: hidden float [B, T, W] and mask bool [B, T] -> CLS float [B, W]."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        bias = torch.zeros(mask.shape, device=hidden.device).masked_fill(~mask, MASKED)[:, None, None, :]
        for layer in self.layers:
            out = layer(hidden, attention_mask=bias)
            hidden = out[0] if isinstance(out, tuple) else out  # transformers 4 gives a tuple, 5 the tensor
        return hidden[:, 0]


class TextEncoder(Frozen):
    """XLM-RoBERTa cut before its last `layers` layers.

    Attributes:
        width: W, of hidden states; 1024 for BGE-M3.
        layers: how many last layers the trunk leaves to the tails.
        max_length: tokens that a text may have; the rest is cut off.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, layers: int, max_length: int) -> None:
        """Take over an XLMRobertaModel without pooler and its fast tokenizer.

        Raises:
            TrainingError: the model has fewer layers, or positions for fewer tokens.
        """
        super().__init__()
        config: Any = model.config
        depth = len(model.encoder.layer)  # type: ignore[union-attr, arg-type]
        positions = config.max_position_embeddings - config.pad_token_id - 1
        if not 0 <= layers <= depth:
            raise TrainingError(f"The text encoder has {depth} layers: its tails cannot have {layers} of them.")
        if not 1 < max_length <= positions:
            raise TrainingError(f"The text encoder reads 2 to {positions} tokens, not {max_length}: lower the length.")
        self.width: int = config.hidden_size
        self.layers, self.max_length = layers, max_length
        self.name = f"xlm-roberta-{depth}x{self.width}"
        self.last: nn.ModuleList = model.encoder.layer[depth - layers :]  # type: ignore[union-attr, index, assignment]
        model.encoder.layer = model.encoder.layer[: depth - layers]  # type: ignore[union-attr, index]
        self.body = model
        self.tokenizer = tokenizer
        self.tokenizer.padding_side = self.tokenizer.truncation_side = "right"  # CLS is the first token
        self.freeze()

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids of texts, padded to the longest of them. Text that looks like a special token is ordinary text."""
        if not texts:
            return Tokens(torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.bool))
        # Lone surrogates are refused by the tokenizer; "</s>" in a caption would be taken for the end of the text.
        valid = [text.encode(errors="replace").decode() for text in texts]
        for special in self.tokenizer.all_special_tokens:
            valid = [text.replace(special, f"{special[0]} {special[1:]}") for text in valid]
        batch = self.tokenizer(valid, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")
        return Tokens(batch["input_ids"], batch["attention_mask"].bool())

    @torch.no_grad()
    def trunk(self, tokens: Tokens) -> Tensor:
        """Hidden states before the tails, float32 [B, T, W], on the tokens' device; bfloat16 inside on CUDA."""
        with precision(tokens.ids.device):
            out = self.body(input_ids=tokens.ids, attention_mask=tokens.mask.long())
        hidden: Tensor = out.last_hidden_state.float()
        return hidden

    def tail(self) -> TextTail:
        """A trainable copy of the last layers; with `layers` = 0 it only picks CLS."""
        return TextTail(copy.deepcopy(self.last)).requires_grad_(True)

    def identity(self, feature: str, dtype: torch.dtype) -> EncoderIdentity:
        """What cached trunk features depend on; `feature` says what of them is kept, for example "cls"."""
        rules = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for changing in ("truncation", "padding"):  # set by every call
            del rules[changing]
        weights = hashlib.sha256(f"{weights_hash(self)} {json.dumps(rules)}".encode()).hexdigest()
        return _identity(self, weights, self.max_length, self.layers, feature, dtype)


class ImageTail(nn.Module):
    """The last blocks and the final norm of the image tower: tokens float [B, N, W] -> pooled (CLS) float [B, W]."""

    def __init__(self, blocks: nn.ModuleList, norm: nn.Module, rope: Tensor) -> None:
        super().__init__()
        self.blocks = blocks
        self.norm = norm
        self.rope: Tensor
        self.register_buffer("rope", rope, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens, rope=self.rope)
        pooled: Tensor = self.norm(tokens[:, 0])
        return pooled


class ImageEncoder(Frozen):
    """An EVA02-CLIP image tower cut before its last `blocks` blocks; its projection into CLIP's space is left out.

    Attributes:
        width: W, of tokens; 1024 for the large tower.
        size: S, pixels of an image's side; position embeddings are interpolated to it.
        blocks: how many last blocks the trunk leaves to the tails.
        tokens: N, class token and patches.
    """

    def __init__(self, model: nn.Module, size: int, blocks: int) -> None:
        """Take over a timm Eva with class token pooling, made for images of `size` cut down to whole patches.

        Raises:
            TrainingError: the tower has fewer blocks.
        """
        super().__init__()
        tower: Any = model
        depth = len(tower.blocks)
        if not 0 <= blocks <= depth:
            raise TrainingError(f"The image encoder has {depth} blocks: its tails cannot have {blocks} of them.")
        self.width: int = tower.embed_dim
        self.size, self.blocks = size, blocks
        self.inner: int = tower.patch_embed.img_size[0]
        self.tokens: int = tower.patch_embed.num_patches + 1
        self.name = f"eva02-clip-{depth}x{self.width}-{tower.patch_embed.patch_size[0]}"
        self.last: nn.ModuleList = tower.blocks[depth - blocks :]
        self.norm: nn.Module = tower.norm
        self.rope: Tensor
        self.register_buffer("rope", tower.rope.get_embed().detach().clone(), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor(CLIP_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(CLIP_STD).view(1, 3, 1, 1), persistent=False)
        tower.blocks = tower.blocks[: depth - blocks]
        tower.norm = nn.Identity()
        self.body = model
        self.freeze()

    @torch.no_grad()
    def trunk(self, pixels: Tensor) -> Tensor:
        """Tokens before the tails, float32 [B, N, W], of uint8 or float pixels [B, 3, S, S] in 0..255, RGB.

        A size that is no multiple of the patch (384 of 14) is scaled to the multiple below, lest an edge be cut off.
        """
        x = (pixels.float() - self.mean) / self.std
        if self.inner != self.size:
            x = F.interpolate(x, size=(self.inner, self.inner), mode="bilinear", antialias=True, align_corners=False)
        body: Any = self.body
        with precision(pixels.device):
            tokens: Tensor = body.forward_features(x)
        return tokens.float()

    def tail(self) -> ImageTail:
        """A trainable copy of the last blocks and the norm; with `blocks` = 0 of the norm alone."""
        tail = ImageTail(copy.deepcopy(self.last), copy.deepcopy(self.norm), self.rope.clone())
        return tail.requires_grad_(True)

    def identity(self, feature: str, dtype: torch.dtype) -> EncoderIdentity:
        """What cached trunk features depend on; `feature` says what of them is kept, for example "cls"."""
        return _identity(self, weights_hash(self), self.size, self.blocks, feature, dtype)


def _identity(
    encoder: TextEncoder | ImageEncoder, weights: str, size: int, split: int, feature: str, dtype: torch.dtype
) -> EncoderIdentity:
    inside = "bfloat16" if next(encoder.parameters()).device.type == "cuda" else "float32"
    stored = str(dtype).removeprefix("torch.")
    return EncoderIdentity(encoder.name, weights, size, split, feature, inside, stored)


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of names, types, shapes and values of a module's state, in the order of names; of no path or device."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_text(name: str, *, layers: int = 2, max_length: int = 512) -> TextEncoder:
    """BGE-M3, or any XLM-RoBERTa, on the CPU: from a folder (config.json, tokenizer.json, weights) or a hub name.

    Raises:
        TrainingError: transformers or the weights are not there, incomplete, damaged or of another architecture.
    """
    try:
        from transformers import AutoTokenizer, XLMRobertaModel
    except (ImportError, RuntimeError) as error:
        raise _unusable("transformers", error) from error
    loader: Any = XLMRobertaModel
    local = _local(name)
    if local and not local.is_dir():
        raise TrainingError(f"There is no folder {name} with a text encoder: {TEXT_ADVICE}")
    source = str(local or name)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                source, use_fast=True, trust_remote_code=False, local_files_only=bool(local)
            )
            model, report = loader.from_pretrained(
                source,
                add_pooling_layer=False,
                trust_remote_code=False,
                weights_only=True,
                local_files_only=bool(local),
                output_loading_info=True,
            )
    except Exception as error:  # the libraries raise whatever a damaged file or an absent hub provokes
        raise TrainingError(f"The text encoder {name} cannot be loaded ({_line(error)}): {TEXT_ADVICE}") from error
    if report["missing_keys"] or report.get("mismatched_keys"):
        missing = sorted(map(str, report["missing_keys"] or report["mismatched_keys"]))
        raise TrainingError(f"{name} is no complete XLM-RoBERTa (it lacks {missing[0]}, …): {TEXT_ADVICE}")
    # Without its files a tokenizer comes up with hardly a word, and without complaint.
    fits = 0.9 * model.config.vocab_size < len(tokenizer) <= model.config.vocab_size
    if not fits or tokenizer.pad_token_id != model.config.pad_token_id:
        raise TrainingError(
            f"The tokenizer of {name} has {len(tokenizer)} words, its model {model.config.vocab_size}: {TEXT_ADVICE}"
        )
    return TextEncoder(model.float(), tokenizer, layers, max_length)


def load_image(name: str, *, size: int = 224, blocks: int = 4) -> ImageEncoder:
    """An EVA02-CLIP image tower on the CPU, for images of `size` pixels a side.

    Args:
        name: a file of weights (.safetensors, or .pt/.bin without code), a folder with one, or a timm name on the hub.
            The names of timm, of open_clip and of the EVA-CLIP repository are understood inside the file.
        size: S; positions are interpolated from the size that the weights were trained with.
        blocks: how many last blocks the tails take.

    Raises:
        TrainingError: timm or the weights are not there, incomplete, damaged or of another architecture.
    """
    try:
        import timm
        from timm.models.eva import checkpoint_filter_fn
    except (ImportError, RuntimeError) as error:
        raise _unusable("timm", error) from error
    try:
        state = _read_state(_weights_file(name))
        width, depth, patch = _eva_shape(state)
        if size < patch:
            raise TrainingError(f"Images of {size} pixels have no whole patch of {patch}: raise train.image_size.")
        model = timm.create_model(
            EVA,
            img_size=size // patch * patch,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=width // HEAD_WIDTH,
            num_classes=0,
        )
        known = {key: value for key, value in checkpoint_filter_fn(state, model).items() if not key.startswith("head.")}
        model.load_state_dict(known, strict=True)
    except TrainingError:
        raise
    except Exception as error:  # the libraries raise whatever a damaged file or an absent hub provokes
        raise TrainingError(f"The image encoder {name} cannot be loaded ({_line(error)}): {IMAGE_ADVICE}") from error
    return ImageEncoder(model.float(), size, blocks)


def _unusable(library: str, error: BaseException) -> TrainingError:
    while error.__cause__:  # transformers hides what really failed
        error = error.__cause__
    return TrainingError(
        f"The encoder bge-m3+eva-clip needs {library}, which cannot be imported ({_line(error)}): "
        "`pip install 'georefine[encoders]'`, with a torchvision built for the torch that is here (docs/encoders.md)."
    )


def _line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0].strip()[:300]


def _local(name: str) -> Path | None:
    """The path that a name means: one that exists, or that only a path can look like; None for a hub name."""
    path = Path(name).expanduser()
    looks_local = name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name
    return path if looks_local or path.exists() else None


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars nor reports of unused pooler weights while loading; what is missing is checked by us."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _weights_file(name: str) -> Path:
    local = _local(name)
    if local is None and name.endswith((".safetensors", ".pt", ".bin", ".pth")):
        local = Path(name)
    if local is None:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(name if "/" in name else f"timm/{name}", EVA_FILES[0]))
    candidates = [local / file for file in EVA_FILES] if local.is_dir() else [local]
    for path in candidates:
        if path.is_file():
            return path
    raise TrainingError(f"There are no weights of an image encoder at {name}: {IMAGE_ADVICE}")


def _read_state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in ("model_ema", "model", "module", "state_dict"):  # in timm's order
        state = state.get(wrapper, state)
    tensors: dict[str, Tensor] = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    return tensors


def _eva_shape(state: dict[str, Tensor]) -> tuple[int, int, int]:
    """(width, depth, patch) of the image tower in a state dict."""
    prefix = next((p for p in EVA_PREFIXES if f"{p}pos_embed" in state), None)
    if prefix is None:
        raise ValueError("it has no position embeddings of an image tower")
    blocks = {
        key.removeprefix(f"{prefix}blocks.").partition(".")[0] for key in state if key.startswith(f"{prefix}blocks.")
    }
    return state[f"{prefix}pos_embed"].shape[-1], len(blocks), state[f"{prefix}patch_embed.proj.weight"].shape[-1]
