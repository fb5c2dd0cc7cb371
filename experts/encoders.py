"""The compact encoders, which start from nothing: words to ids, a text trunk, an image trunk.

The text side is a weighted bag of words and word pairs; the image side a small convolutional network with residual
blocks. Both end in one feature vector per item; the experts of model.py take it from there.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BUCKETS = 256
MAX_WORDS = 20_000
MAX_PAIRS = 12_000
MIN_WORD_CAPTIONS = 2
MIN_PAIR_CAPTIONS = 5
MAX_TEXT_WORDS = 400

# "a white buildingThe road": published captions lack the blank after a sentence now and then.
GLUED = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")
SENTENCE_END = re.compile(r"[.!?;]+(?:\s+|(?=[A-Z])|$)|\n+")
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def sentences(text: str) -> list[str]:
    """Sentences of a caption, in order; never empty for a text that has a word."""
    return [part for part in SENTENCE_END.split(text) if WORD.search(part)]


def words(text: str) -> list[str]:
    """Lower-case words of a text, at most MAX_TEXT_WORDS."""
    return WORD.findall(GLUED.sub(" ", text).lower())[:MAX_TEXT_WORDS]


def _bucket(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=4).digest(), "big") % BUCKETS


@dataclass(frozen=True)
class Vocabulary:
    """Words and word pairs ("green roof") seen in training, most frequent first.

    Ids: 0..BUCKETS-1 stand for unknown words, by hash; BUCKETS + i for terms[i]. Unknown pairs have no id.
    """

    terms: tuple[str, ...]

    @cached_property
    def ids(self) -> dict[str, int]:
        return {term: BUCKETS + i for i, term in enumerate(self.terms)}

    def __len__(self) -> int:
        return BUCKETS + len(self.terms)

    def encode(self, text: str) -> list[int]:
        """Ids of the words and of the known neighbouring pairs of one sentence; empty for a text without words."""
        found = words(text)
        singles = [self.ids[word] if word in self.ids else _bucket(word) for word in found]
        pairs = (self.ids.get(f"{a} {b}") for a, b in pairwise(found))
        return singles + [pair for pair in pairs if pair is not None]


def build_vocabulary(texts: Iterable[Sequence[str]]) -> Vocabulary:
    """Count the words and pairs of captions, each given as its sentences; a word of one caption only stays unknown.

    Words that stay unknown share the hash buckets, so that these are trained too.
    """
    single: Counter[str] = Counter()
    pair: Counter[str] = Counter()
    for parts in texts:
        found = [words(part) for part in parts]
        single.update({word for part in found for word in part})
        pair.update({f"{a} {b}" for part in found for a, b in pairwise(part)})

    def frequent(counts: Counter[str], least: int, most: int) -> list[str]:
        ranked = sorted((-n, term) for term, n in counts.items() if n >= least)
        return [term for _, term in ranked[:most]]

    return Vocabulary((*frequent(single, MIN_WORD_CAPTIONS, MAX_WORDS), *frequent(pair, MIN_PAIR_CAPTIONS, MAX_PAIRS)))


@dataclass(frozen=True)
class Bags:
    """Texts as ragged lists of ids: text i owns ids[offsets[i] : offsets[i + 1]].

    ids: int64 [M]; offsets: int64 [N + 1], from 0 to M.
    """

    ids: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "Bags":
        lengths = torch.tensor([0, *map(len, lists)], dtype=torch.int64)
        return cls(torch.tensor([i for one in lists for i in one], dtype=torch.int64), lengths.cumsum(0))

    def pick(self, starts: Tensor, ends: Tensor) -> "Bags":
        """Join texts starts[i]..ends[i]-1 into text i. starts, ends: int64 [B], starts <= ends."""
        begin, stop = self.offsets[starts], self.offsets[ends]
        lengths = stop - begin
        offsets = F.pad(lengths.cumsum(0), (1, 0))
        shift = torch.repeat_interleave(begin - offsets[:-1], lengths)
        return Bags(self.ids[torch.arange(len(shift), device=shift.device) + shift], offsets)

    def to(self, device: torch.device) -> "Bags":
        return Bags(self.ids.to(device), self.offsets.to(device))


@dataclass(frozen=True)
class Texts:
    """Texts for an encoder with a tokenizer of its own; picked and moved like Bags."""

    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def pick(self, starts: Tensor, ends: Tensor) -> "Texts":
        """Join texts starts[i]..ends[i]-1, sentences without their full stops, into text i. int64 [B] each."""
        spans = zip(starts.tolist(), ends.tolist(), strict=True)
        return Texts(tuple(". ".join(self.texts[start:end]) for start, end in spans))

    def to(self, device: torch.device) -> "Texts":
        """Itself: tokens are moved by the encoder that makes them."""
        return self


class Trunk(nn.Module):
    """What the experts share: one feature float [B, width] per item."""

    width: int


class TextTrunk(Trunk):
    """Bags -> float [B, width]: mean of term embeddings under learned term weights, then a residual MLP."""

    def __init__(self, terms: int, width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.dropout = dropout
        self.embedding = nn.Parameter(torch.randn(terms, width) * 0.1)
        self.importance = nn.Parameter(torch.zeros(terms))
        self.mlp = Residual(width)

    def forward(self, bags: Bags) -> Tensor:
        weights = self.importance[bags.ids].exp()
        if self.training:
            weights = weights * (torch.rand(weights.shape, device=weights.device) >= self.dropout)
        starts, lengths = bags.offsets[:-1], bags.offsets.diff()
        total = F.embedding_bag(bags.ids, self.embedding, starts, mode="sum", per_sample_weights=weights)
        rows = torch.repeat_interleave(torch.arange(len(bags), device=lengths.device), lengths)
        mass = weights.new_zeros(len(bags)).index_add(0, rows, weights)
        bag: Tensor = self.mlp(total / mass.clamp_min(1e-6).unsqueeze(1))
        return bag


class Residual(nn.Module):
    """x + MLP(LayerNorm(x)); float [B, width] -> float [B, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.down(F.gelu(self.up(self.norm(x))))
        return x + change


class Convolution(nn.Sequential):
    """3x3 convolution, batch normalisation, ReLU."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
        )


class Stage(nn.Module):
    """Halve the resolution, then one residual convolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.down = Convolution(before, after, 2)
        self.block = Convolution(after, after)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        change: Tensor = self.block(x)
        return x + change


class ImageTrunk(Trunk):
    """uint8 or float pixels [B, 3, S, S] in 0..255 -> float [B, 2 * channels]: mean and maximum over the last map."""

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        self.width = 2 * channels
        self.layers = nn.Sequential(
            Convolution(3, channels // 8, 2),
            Stage(channels // 8, channels // 4),
            Stage(channels // 4, channels // 2),
            Convolution(channels // 2, channels, 2),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)
        x = self.layers(x)
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1).float()
