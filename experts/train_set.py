"""Pairs to train on: the captioned images of the train split, their texts, and how a text is drawn for each."""

from dataclasses import dataclass

import torch
from torch import Tensor

from data.shards import Version
from experts.encoders import Bags, Texts, Vocabulary, build_vocabulary, sentences
from experts.examples import Captions, Encoded, Images, building_codes, load_captions, load_images, platform_codes
from schemas.config import TextMix, TrainConfig
from schemas.errors import TrainingError
from schemas.records import Split

WHOLE_TEXTS = 0.3  # share of drawn texts that are all sentences, or all queries, of a caption
MIN_WORD_IMAGES = 10  # a term of fewer images is not predicted


@dataclass(frozen=True)
class TrainSet:
    """Captioned images of the train split and their texts, as tensors; images sorted by id, captions by image.

    Attributes:
        pixels: uint8 [N, 3, S, S], decoded or not.
        buildings, platforms: int64 [N] codes.
        first_caption: int64 [N + 1]; image i owns captions first_caption[i]..first_caption[i + 1] - 1.
        units: every sentence and every query of every text that the mix has, as bags; as they are where the encoder
            has a tokenizer of its own.
        shares: float64 [M], the weight of each kind of text in the mix: final, refined, raw without those of weight 0.
        first_unit: int64 [M C + 1]; text m of caption c owns units first_unit[M c + m]..first_unit[M c + m + 1] - 1,
            sentences before queries.
        first_query: int64 [M C]; the first of them that is a query.
        caption_image: int64 [C], the image's row.
    """

    pixels: Tensor | Encoded
    buildings: Tensor
    platforms: Tensor
    first_caption: Tensor
    units: Bags | Texts
    shares: Tensor
    first_unit: Tensor
    first_query: Tensor
    caption_image: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def texts_with(self, units: Tensor) -> Tensor:
        """Texts that own units: int64 [B] -> int64 [B], text m of caption c being number M c + m."""
        return torch.searchsorted(self.first_unit, units, right=True) - 1


def texts_of(captions: Captions, c: int, mix: TextMix) -> list[tuple[list[str], list[str]]]:
    """Sentences and queries of each kind of text of caption c that the mix has; queries tell what the refiner kept."""
    queries = [query for query in captions.queries[c] if sentences(query)]
    kinds: tuple[tuple[float, str, list[str]], ...] = (
        (mix.final, captions.finals[c], queries),
        (mix.refined, captions.refined[c], queries),
        (mix.raw, captions.raws[c], []),
    )
    return [(sentences(text), asked) for weight, text, asked in kinds if weight > 0]


def make_train_set(images: Images, captions: Captions, config: TrainConfig) -> tuple[TrainSet, Vocabulary | None]:
    """Pair images with their captions; images without captions are left out. Compact encoders: words become ids.

    Raises:
        TrainingError: there is no captioned image, or all are of one building.
    """
    mix = config.texts
    row_of = {image_id: row for row, image_id in enumerate(images.ids)}
    owned: dict[int, list[int]] = {}
    for c, image_id in enumerate(captions.image_ids):
        if image_id in row_of and all(parts for parts, _ in texts_of(captions, c, mix)):
            owned.setdefault(row_of[image_id], []).append(c)
    rows = sorted(owned)
    if not rows:
        raise TrainingError("The train split has no captioned images: see the counts in its README.md, then rebuild.")
    if len({images.buildings[row] for row in rows}) < 2:
        raise TrainingError("The train split has captions of one building only; learning to tell apart needs two.")
    order = [c for row in rows for c in owned[row]]
    of_caption = [texts_of(captions, c, mix) for c in order]
    vocabulary = None
    if config.starts_from_nothing:
        vocabulary = build_vocabulary([[u for parts, asked in texts for u in (*parts, *asked)] for texts in of_caption])
    split = [text for texts in of_caption for text in texts]
    unit_counts = torch.tensor([0, *(len(parts) + len(queries) for parts, queries in split)])
    first_unit = unit_counts.cumsum(0)
    train_set = TrainSet(
        pixels=images.pixels.some(rows) if isinstance(images.pixels, Encoded) else images.pixels[rows],
        buildings=building_codes([images.buildings[row] for row in rows])[0],
        platforms=platform_codes([images.platforms[row] for row in rows]),
        first_caption=torch.tensor([0, *(len(owned[row]) for row in rows)]).cumsum(0),
        units=units_of([text for parts, queries in split for text in (*parts, *queries)], vocabulary),
        shares=torch.tensor([w for w in (mix.final, mix.refined, mix.raw) if w > 0], dtype=torch.float64),
        first_unit=first_unit,
        first_query=first_unit[:-1] + torch.tensor([len(parts) for parts, _ in split]),
        caption_image=torch.tensor([i for i, row in enumerate(rows) for _ in owned[row]]),
    )
    return train_set, vocabulary


def units_of(texts: list[str], vocabulary: Vocabulary | None) -> Bags | Texts:
    return Texts(tuple(texts)) if vocabulary is None else Bags.of([vocabulary.encode(text) for text in texts])


def draw_texts(
    data: TrainSet, query_share: float, generator: torch.Generator, *, one_or_all: bool = False
) -> tuple[Tensor, Tensor]:
    """One random text per image: units starts[i]..ends[i]-1, int64 [N] each.

    A random caption of the image, and the kind of text that the mix draws; of that, with probability query_share, a run
    of its queries, else a run of its sentences. Runs have a random length, because people ask in one sentence and
    captions have many; with `one_or_all` they have one unit or all, which can be encoded beforehand.
    """

    def below(limit: Tensor) -> Tensor:  # uniform in 0..limit-1
        return (torch.rand(len(limit), generator=generator, dtype=torch.float64) * limit).long()

    caption = data.first_caption[:-1] + below(data.first_caption.diff())
    kinds = len(data.shares)
    text = kinds * caption
    if kinds > 1:
        text += torch.multinomial(data.shares, len(caption), replacement=True, generator=generator)
    start, middle, end = data.first_unit[text], data.first_query[text], data.first_unit[text + 1]
    ask = torch.rand(len(caption), generator=generator) < query_share
    ask = (ask & (end > middle)) | (middle == start)
    low, high = torch.where(ask, middle, start), torch.where(ask, end, middle)
    length = torch.ones_like(low) if one_or_all else 1 + below(high - low)
    length = torch.where(torch.rand(len(length), generator=generator) < WHOLE_TEXTS, high - low, length)
    starts = low + below(high - low - length + 1)
    return starts, starts + length


def rarity(data: TrainSet, terms: int) -> Tensor:
    """Weight of every term as a label, float [terms]: log((1 + N) / (1 + n)), n of N images with it; 0 if rare."""
    assert isinstance(data.units, Bags)
    first = data.first_unit[len(data.shares) * data.first_caption]
    bags = data.units.pick(first[:-1], first[1:])
    image = torch.repeat_interleave(torch.arange(len(data)), bags.offsets.diff())
    with_term = torch.bincount(torch.unique(image * terms + bags.ids) % terms, minlength=terms)
    return torch.log((1 + len(data)) / (1 + with_term)) * (with_term >= MIN_WORD_IMAGES)


def load_data(
    version: Version, config: TrainConfig
) -> tuple[TrainSet, Vocabulary | None, tuple[Split, Captions, Images], list[str]]:
    """Train set, vocabulary, what checkpoints are chosen on, and remarks for the model card.

    Raises:
        TrainingError: the train split cannot be trained on.
        DatasetError: a shard or an image cannot be read.
    """
    notes = []
    captions = load_captions(version, "train")
    size, decoded = config.image_size, config.starts_from_nothing
    images = load_images(version, "train", size, augmented=True, decoded=decoded)
    data, vocabulary = make_train_set(images, captions, config)
    scored_on: Split = "val"
    scored = load_captions(version, "val"), load_images(version, "val", size, augmented=False, decoded=decoded)
    if len(scored[0]) == 0 or len(scored[1]) == 0:
        notes.append(
            "The val split has no captioned buildings: the checkpoint was chosen by how well it fits the train split, "
            "and nothing here tells how it does on unseen buildings."
        )
        scored_on = "train"
        scored = captions, load_images(version, "train", size, augmented=False, decoded=decoded)
    return data, vocabulary, (scored_on, *scored), notes
