"""Training in three stages: `python -m experts train DATASET --out RUN [--device cuda] [--resume]`.

Stage 0, of the compact encoders only, trains the trunks and one pair of heads on all platforms together; every expert
starts as a copy of those heads. With `--trunks RUN` it is left out, and all that RUN learned is where stage 1 starts.
Stage 1 trains each expert on its own platform, and the gate, which learns from the
fused score and from the platform of the text; stage 2 repeats that with hard negatives mined by the stage-1 model. The
trunks are frozen then, unless `end_to_end` lets them learn on. After every epoch the model is scored on the val split;
each stage starts from the best model so far, and the best of all is the checkpoint. The test split is not read.

Every random number comes from a hash of (seed, stage, epoch), so a run that was killed and resumed at an epoch's end
finishes, on the CPU, with the weights of an undisturbed one, to the bit. Under torchrun the ranks share each batch
(experts/parallel.py).
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.shards import Version, atomic_write, open_version, sha256_file
from experts.card import draw_curves, model_card
from experts.checkpoint import (
    CHECKPOINT,
    FORMAT,
    Checkpoint,
    encoder_hashes,
    load_checkpoint,
    load_own_weights,
    make_model,
    own_weights,
    read_tensors,
    save_checkpoint,
    write_tensors,
)
from experts.device import memory_errors, open_device, precision
from experts.embed import batches, fused_images, fused_texts, gallery_features, image_features, text_bags, text_features
from experts.encoders import Bags, Texts, Vocabulary, build_vocabulary, sentences
from experts.evaluate import report
from experts.examples import (
    Captions,
    Images,
    Pictures,
    building_codes,
    load_captions,
    load_gallery,
    platform_codes,
)
from experts.losses import info_nce, info_nce_hard
from experts.mining import mine
from experts.model import CompactMixture, MixtureOfExperts
from experts.muon import Muon
from experts.parallel import average_gradients, gather, joined, part, rank, ranks, same_as_first, told_by_first
from experts.routers import route
from experts.stored import Stored, spans_to_store, store
from experts.tails import AdaptedMixture
from schemas.config import TextMix, TrainConfig, config_dict
from schemas.errors import TrainingError
from schemas.records import PLATFORMS, Split

Progress = Callable[[str, int, int, str], None]

LOOP_STATE = "resume.pt"
METRICS = "metrics.jsonl"
STAGES = ("trunk", "experts", "hard negatives")
WARM_UP = 0.1
TEXTS_PER_IMAGE = 3  # in stage 0, where a text costs next to nothing beside an image
WHOLE_TEXTS = 0.3  # share of drawn texts that are all sentences, or all queries, of a caption
WORD_LOSS = 1.0  # weight of predicting an image's words in stage 0
MIN_WORD_IMAGES = 10  # a term of fewer images is not predicted
CACHED_VIEWS = 4  # jittered copies of every training image that stages 1 and 2 see, as cached features
EXPERT_BATCHES = 4  # how much larger their batches are
END_TO_END_BATCHES = 2  # how much larger than in stage 0, for each platform's share of a batch
END_TO_END_RATE = 0.3  # of the stage-0 learning rates, for trunks that learn on
SHORT = 3  # sentences of the short val queries that epochs are chosen by
SHIFT, ZOOM, LIGHT = 0.06, 0.08, 0.1


@dataclass(frozen=True)
class TrainSet:
    """Captioned images of the train split and their texts, as tensors; images sorted by id, captions by image.

    Attributes:
        pictures: uint8 [N, 3, S, S], or encoded images that are decoded when they are needed.
        buildings, platforms: int64 [N] codes.
        first_caption: int64 [N + 1]; image i owns captions first_caption[i]..first_caption[i + 1] - 1.
        units: every sentence and every query of every text that the mix has.
        shares: float64 [M], the weight of each kind of text in the mix: final, refined, raw without those of weight 0.
        first_unit: int64 [M C + 1]; text m of caption c owns units first_unit[M c + m]..first_unit[M c + m + 1] - 1,
            sentences before queries.
        first_query: int64 [M C]; the first of them that is a query.
        caption_image: int64 [C], the image's row.
    """

    pictures: Tensor | Pictures
    buildings: Tensor
    platforms: Tensor
    first_caption: Tensor
    units: Bags | Texts
    shares: Tensor
    first_unit: Tensor
    first_query: Tensor
    caption_image: Tensor

    def __len__(self) -> int:
        return len(self.buildings)


@dataclass(frozen=True)
class ValSet:
    """What epochs are chosen by: captions of unseen buildings, and the gallery they search.

    Attributes:
        split: val; train where val is empty.
        texts: the captions, then as many short queries: up to SHORT neighbouring sentences of each.
    """

    split: Split
    captions: Captions
    gallery: Images | Pictures
    texts: tuple[str, ...]


def print_progress(stage: str, done: int, total: int, message: str) -> None:
    """The default progress: one plain line to stderr."""
    print(f"{stage} {done}/{total}: {message}", file=sys.stderr, flush=True)


def seed_of(*parts: object) -> int:
    """A 63-bit seed from a hash of the parts' text."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def texts_of(captions: Captions, c: int, mix: TextMix) -> list[tuple[list[str], list[str]]]:
    """Sentences and queries of each kind of text of caption c that the mix has; queries tell what the refiner kept."""
    queries = [query for query in captions.queries[c] if sentences(query)]
    kinds: tuple[tuple[float, str, list[str]], ...] = (
        (mix.final, captions.finals[c], queries),
        (mix.refined, captions.refined[c], queries),
        (mix.raw, captions.raws[c], []),
    )
    return [(sentences(text), asked) for weight, text, asked in kinds if weight > 0]


def make_train_set(
    images: Images | Pictures, captions: Captions, mix: TextMix, vocabulary: Vocabulary | None = None
) -> tuple[TrainSet, Vocabulary | None]:
    """Pair images with their captions; images without captions are left out.

    Decoded images are for the compact encoders, for which words are turned into ids, by the vocabulary given or by one
    of their own; there is no vocabulary else.

    Raises:
        TrainingError: there is no captioned image, or all are of one building.
    """
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
    units: Bags | Texts
    pictures: Tensor | Pictures
    if isinstance(images, Images):
        if vocabulary is None:
            said = ([u for parts, asked in texts for u in (*parts, *asked)] for texts in of_caption)
            vocabulary = build_vocabulary(said)
        units = Bags.of(
            [vocabulary.encode(u) for texts in of_caption for parts, asked in texts for u in (*parts, *asked)]
        )
        pictures = images.pixels[rows]
    else:
        units = Texts(tuple(u for texts in of_caption for parts, asked in texts for u in (*parts, *asked)))
        pictures = images.select(rows)
    split = [text for texts in of_caption for text in texts]
    unit_counts = torch.tensor([0, *(len(parts) + len(queries) for parts, queries in split)])
    first_unit = unit_counts.cumsum(0)
    train_set = TrainSet(
        pictures=pictures,
        buildings=building_codes([images.buildings[row] for row in rows])[0],
        platforms=platform_codes([images.platforms[row] for row in rows]),
        first_caption=torch.tensor([0, *(len(owned[row]) for row in rows)]).cumsum(0),
        units=units,
        shares=torch.tensor([w for w in (mix.final, mix.refined, mix.raw) if w > 0], dtype=torch.float64),
        first_unit=first_unit,
        first_query=first_unit[:-1] + torch.tensor([len(parts) for parts, _ in split]),
        caption_image=torch.tensor([i for i, row in enumerate(rows) for _ in owned[row]]),
    )
    return train_set, vocabulary


def short_query(caption_id: str, text: str) -> str:
    """SHORT neighbouring sentences of a caption, chosen by its id; all of it if it has no more."""
    found = sentences(text)
    start = seed_of("short", caption_id) % max(1, len(found) - SHORT + 1)
    return ". ".join(found[start : start + SHORT]) or text


def draw_texts(
    data: TrainSet, query_share: float, generator: torch.Generator, *, runs: bool = True
) -> tuple[Tensor, Tensor]:
    """One random text per image: units starts[i]..ends[i]-1, int64 [N] each.

    A random caption of the image, and the kind of text that the mix draws; of that, with probability query_share, a run
    of its queries, else a run of its sentences. Runs have a random length, because people ask in one sentence and
    captions have many; without `runs`, they are of one unit or of all, which are few enough to be stored.
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
    length = 1 + below(high - low) if runs else torch.ones_like(low)
    length = torch.where(torch.rand(len(length), generator=generator) < WHOLE_TEXTS, high - low, length)
    starts = low + below(high - low - length + 1)
    return starts, starts + length


def rarity(data: TrainSet, terms: int) -> Tensor:
    """Weight of every term as a label, float [terms]: log((1 + N) / (1 + n)), n of N images with it; 0 if rare."""
    first = data.first_unit[len(data.shares) * data.first_caption]
    bags = data.units.pick(first[:-1], first[1:])
    assert isinstance(bags, Bags)
    image = torch.repeat_interleave(torch.arange(len(data)), bags.offsets.diff())
    with_term = torch.bincount(torch.unique(image * terms + bags.ids) % terms, minlength=terms)
    return torch.log((1 + len(data)) / (1 + with_term)) * (with_term >= MIN_WORD_IMAGES)


def jitter(pixels: Tensor, platforms: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, zoom and light at random; satellite tiles are also turned and mirrored, their captions hold no directions.

    Args:
        pixels: uint8 [B, 3, S, S]; platforms: int64 [B]; generator: of the CPU.

    Returns:
        float32 [B, 3, S, S] on the device of `pixels`, about 0..255.
    """
    n = len(pixels)
    rand = torch.rand(8, n, generator=generator) * 2 - 1
    satellite = platforms.cpu() == PLATFORMS.index("satellite")
    turn = torch.where(satellite, (rand[0] * 2).round() * (math.pi / 2), 0.0)
    mirror = torch.where(satellite & (rand[1] > 0), -1.0, 1.0)
    zoom = 1 + ZOOM * rand[2]
    cos, sin = turn.cos() * zoom, turn.sin() * zoom
    move_x, move_y = SHIFT * rand[3], SHIFT * rand[4]
    theta = torch.stack([cos * mirror, -sin, move_x, sin * mirror, cos, move_y], dim=1).view(n, 2, 3).to(pixels.device)
    x = pixels.float()
    grid = F.affine_grid(theta, [n, 3, x.shape[2], x.shape[3]], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    gain = (1 + LIGHT * rand[5]).to(x.device).view(n, 1, 1, 1)
    offset = (255 * LIGHT * rand[6]).to(x.device).view(n, 1, 1, 1)
    return (x - 127.5) * gain + 127.5 + offset


def one_cycle(done: float) -> float:
    """Factor of the learning rate after the share `done` of a stage: linear warm-up, then half a cosine to zero."""
    if done < WARM_UP:
        return (done + 1e-3) / (WARM_UP + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


@dataclass
class Loop:
    """Where training stands; everything in it goes into RUN/resume.pt after every epoch."""

    model: MixtureOfExperts
    optimizers: list[torch.optim.Optimizer]
    epochs_done: int
    metrics: list[dict[str, Any]]
    best: dict[str, Any]  # {"score", "line", "weights"}; empty before the first epoch
    mined: Tensor | None  # int64 [C, H], of stage 2

    def state(self, origin: dict[str, Any]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "origin": origin,
            "weights": own_weights(self.model),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "epochs_done": self.epochs_done,
            "metrics": json.dumps(self.metrics),
            "best": self.best,
            "mined": self.mined,
        }


class Trainer:
    """One training run: its data, its model and its loop, on one device."""

    def __init__(
        self,
        data: TrainSet,
        vocabulary: Vocabulary | None,
        val: ValSet,
        config: TrainConfig,
        device: torch.device,
        stored: Stored | None = None,
        model: MixtureOfExperts | None = None,
    ) -> None:
        """Lay out a run.

        Args:
            stored: trunk features of every text and image, if the trunks are never to be run.
            model: an untrained one; by default, one with weights drawn from the seed.
        """
        self.data, self.val, self.config, self.device, self.stored = data, val, config, device, stored
        self.val_texts = text_bags(vocabulary, val.texts)
        self.pictures = data.pictures.to(device) if isinstance(data.pictures, Tensor) else data.pictures
        self.units = data.units.to(device)
        self.buildings, self.platforms = data.buildings.to(device), data.platforms.to(device)
        if model is None:
            model = new_model(config, vocabulary)
        self.loop = Loop(model.to(device), [], 0, [], {}, None)
        self.rarity = None if vocabulary is None else rarity(data, len(vocabulary)).to(device)
        self.views: Tensor | None = None  # float [V, N, W], image features of frozen compact trunks
        self.val_features: tuple[Tensor, Tensor] | None = None  # of trunks that will not change any more
        self.schedule = schedule(config)

    @property
    def model(self) -> MixtureOfExperts:
        return self.loop.model

    @property
    def compact(self) -> CompactMixture:
        assert isinstance(self.model, CompactMixture)
        return self.model

    @property
    def layered(self) -> bool:
        """Whether experts own layers of pretrained encoders, which run at every step."""
        return self.config.encoder != "compact" and self.stored is None

    def frozen(self, stage: int) -> bool:
        """Whether features of texts and images stay the same all through a stage."""
        return stage > 0 and not self.layered and not self.config.end_to_end

    def texts(self, starts: Tensor, ends: Tensor) -> Bags | Texts:
        return self.units.pick(starts.to(self.device), ends.to(self.device))

    def text_feature(self, stage: int, starts: Tensor, ends: Tensor) -> Tensor:
        """Features float [B, W] of units starts[i]..ends[i]-1."""
        if self.stored is not None:
            return self.stored.texts_at(starts, ends).to(self.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen(stage)):
            feature: Tensor = self.model.text_trunk(self.texts(starts, ends))
        return feature.float()

    def pixels(self, rows: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] on the device."""
        if isinstance(self.pictures, Tensor):
            return self.pictures[rows.to(self.device)]
        return self.pictures.pixels(rows.tolist(), self.config.image_size).to(self.device)

    def image_feature(self, stage: int, rows: Tensor, view: Tensor, generator: torch.Generator) -> Tensor:
        """Features float [B, W] of images, `view` being the stored jitter of each; int64 [B] both."""
        if self.stored is not None:
            return self.stored.images_at(rows).to(self.device)
        if self.views is not None and self.frozen(stage):
            return self.views[view.to(self.device), rows.to(self.device)]
        x = self.pixels(rows)
        if not self.layered:
            x = jitter(x, self.data.platforms[rows], generator)
        feature: Tensor = self.model.image_trunk(x)
        return feature.float()

    def begin_stage(self, stage: int) -> None:
        """Take up the best model so far and make the stage's optimizers."""
        if self.loop.best:
            load_own_weights(self.model, self.loop.best["weights"])
        model, config = self.model, self.config
        experts = [*model.experts.parameters(), *model.gate.parameters(), model.log_scale]
        self.loop.optimizers = []
        if stage == 0 or config.end_to_end:
            compact, share = self.compact, 1.0 if stage == 0 else END_TO_END_RATE
            filters = [p for p in compact.image_trunk.parameters() if p.ndim == 4 and p.shape[1] > 3]
            known = set(filters)
            learning: list[nn.Module] = [compact.text_trunk, compact.image_trunk, compact.visual_words]
            parameters = [p for module in learning for p in module.parameters() if p not in known]
            if stage == 0:
                parameters += compact.expert(0).parameters()
            self.loop.optimizers = [
                torch.optim.AdamW(parameters, lr=config.learning_rate * share, weight_decay=config.weight_decay),
                Muon(filters, lr=config.filter_learning_rate * share),
            ]
        if stage > 0:
            self.loop.optimizers.append(
                torch.optim.AdamW(experts, lr=config.expert_learning_rate, weight_decay=config.weight_decay)
            )
        self.loop.mined = None

    def cache_views(self) -> Tensor:
        """Trunk features of CACHED_VIEWS jittered copies of every training image, float [V, N, W]."""
        views = []
        for view in range(CACHED_VIEWS):
            generator = torch.Generator().manual_seed(seed_of(self.config.seed, "view", view))
            parts = []
            for rows in batches(torch.arange(len(self.data)), 256):
                x = jitter(self.pixels(rows), self.data.platforms[rows], generator)
                parts.append(image_features(self.model, x, self.device))
            views.append(torch.cat(parts))
        return torch.stack(views)

    @torch.no_grad()
    def mine(self) -> Tensor:
        """Hard negatives of every caption by the model as it stands, int64 [C, H] rows of images."""
        data = self.data
        first = torch.arange(len(data.caption_image)) * len(data.shares)
        starts, ends = data.first_unit[first], data.first_query[first]
        if self.stored is not None:
            features = self.stored.texts_at(starts, ends).to(self.device)
        else:
            features = text_features(self.model, self.texts(starts, ends), self.device)
        texts = fused_texts(self.model, features)
        everything = torch.arange(len(data))
        if self.stored is not None:
            pictures = self.stored.images_at(everything).to(self.device)
        else:
            parts = batches(everything, 256)
            pictures = torch.cat([image_features(self.model, self.pixels(rows), self.device) for rows in parts])
        images = fused_images(self.model, pictures)
        own = data.caption_image.to(self.device)
        return mine(
            texts,
            images,
            self.buildings[own],
            self.buildings,
            own,
            count=self.config.hard_negatives,
            relative_margin=self.config.relative_margin,
        )

    def trunk_loss(self, rows: Tensor, texts: Bags | Texts, generator: torch.Generator) -> Tensor:
        """Stage 0: both trunks and the first expert, all platforms in one batch.

        Beside trunk_contrast with several texts each, an image predicts the words of all its captions (word_loss).

        Args:
            rows: int64 [B], of images; texts: B texts, then B more, up to TEXTS_PER_IMAGE of each image.
        """
        model = self.compact
        first = model.expert(0)
        x = jitter(self.pixels(rows), self.data.platforms[rows], generator)
        with precision(self.device):
            feature = model.image_trunk(x)
            text, image = first.text(model.text_trunk(texts)), first.image(feature)
        return self.trunk_contrast(rows, text.float(), image.float()) + self.word_loss(rows, feature)

    def trunk_contrast(self, rows: Tensor, text: Tensor, image: Tensor) -> Tensor:
        """Half of it against all images of the batch, half against those of the text's platform alone.

        What another platform shows is too easily told from the text's own image, so that little is learned from it. A
        unified model, which stands for training that knows of no platforms, has the first half only.

        Args:
            rows: int64 [B], of images; text: float [T B, D], T of each image; image: float [B, D].
        """
        at, scale = rows.to(self.device), self.compact.expert(0).scale()
        buildings = self.buildings[at]
        against = [None] if self.model.unified else [None, self.platforms[at]]
        each = [info_nce(one, image, buildings, scale, of) for one in text.reshape(-1, *image.shape) for of in against]
        return torch.stack(each).mean()

    def word_loss(self, rows: Tensor, feature: Tensor) -> Tensor:
        """Cross-entropy of the words of all captions of images, predicted through the text trunk's own embeddings.

        Text as labels (Joulin et al. 2016; SuperClass, arXiv 2411.03313), which teaches a small network far more per
        image than the contrast alone.

        Args:
            rows: int64 [B], of images; feature: float [B, W], of the image trunk.
        """
        with precision(self.device):
            words = self.compact.visual_words(feature)
        logits = words.float() @ self.compact.text_trunk.embedding.T
        return WORD_LOSS * F.cross_entropy(logits, self.word_targets(rows))

    def word_targets(self, rows: Tensor) -> Tensor:
        """The terms of all captions of images, weighted by rarity, float [B, terms]; rows sum to one, or are zero."""
        data = self.data
        assert self.rarity is not None
        first = data.first_unit[len(data.shares) * data.first_caption]
        bags = self.texts(first[rows], first[rows + 1])
        assert isinstance(bags, Bags)
        at = torch.repeat_interleave(torch.arange(len(rows), device=self.device), bags.offsets.diff())
        target = torch.zeros(len(rows), len(self.rarity), device=self.device)
        target[at, bags.ids] = self.rarity[bags.ids]
        return target / target.sum(1, keepdim=True).clamp_min(1e-6)

    def expert_loss(
        self, stage: int, rows: Tensor, starts: Tensor, ends: Tensor, view: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Stages 1 and 2: what pair_loss says, the mean over the texts of each image.

        Under torchrun each rank encodes its part of the batch, and all compute the same loss of the whole. Trunks that
        learn on have batch statistics and dropout of the whole batch: there every rank does all of it.

        Args:
            rows: int64 [B], of images; starts, ends: int64 [T, B], the units of T texts of each; view: int64 [B].
        """
        model, learning = self.model, self.trunks_learn(stage)
        everything = torch.arange(len(rows))
        own = everything if learning else part(everything)

        def joint(values: Tensor) -> Tensor:
            return values.float() if learning else gather(values.float(), len(rows))

        with precision(self.device):
            feature = self.image_feature(stage, rows[own], view[own], generator)
            image = joint(model.each_image(feature))
        losses = []
        for start, end in zip(starts, ends, strict=True):
            mined, hard = None, None
            with precision(self.device):
                text_feature = self.text_feature(stage, start[own], end[own])
                scores, text = joint(model.gate_scores(text_feature)), joint(model.each_text(text_feature))
                if self.loop.mined is not None:
                    mined = self.loop.mined[self.captions_of(start).to(self.device)]
                    negatives = mined[own.to(self.device)].clamp_min(0)
                    views = view[own].unsqueeze(1).expand(-1, negatives.shape[1])
                    found = self.image_feature(stage, negatives.flatten().cpu(), views.flatten(), generator)
                    each = model.each_image(found)
                    hard = joint(each.reshape(*negatives.shape, *each.shape[1:]))
            losses.append(self.pair_loss(rows, scores, text, image, mined, hard))
        loss = torch.stack(losses).mean()
        return loss + self.word_loss(rows, feature) if learning else loss

    def pair_loss(
        self, rows: Tensor, scores: Tensor, text: Tensor, image: Tensor, mined: Tensor | None, hard: Tensor | None
    ) -> Tensor:
        """The fused score on the mixed batch, every expert on its own platform, and the gate on the texts' platforms.

        The fused term trains the gate too, and reaches all experts, so that their scores are comparable on images of
        other platforms.

        Args:
            rows: int64 [B], of images; scores: float [B, 3], the gate's; text, image: float [B, K, D].
            mined: int64 [B, H], rows of hard negatives, -1 for none; hard: float [B, H, K, D], what they look like.
        """
        model, at_device = self.model, rows.to(self.device)
        platforms, buildings = self.platforms[at_device], self.buildings[at_device]

        def contrast(texts: Tensor, images: Tensor, at: Tensor, scale: Tensor, hard: Tensor | None) -> Tensor:
            if hard is None or mined is None:
                return info_nce(texts, images, buildings[at], scale)
            return info_nce_hard(texts, images, buildings[at], scale, hard, mined[at] >= 0)

        everything = torch.arange(len(rows), device=self.device)
        fused = model.weighted(route(model.router, scores), text)
        loss = contrast(fused, image.flatten(1), everything, model.scale(), None if hard is None else hard.flatten(2))
        if model.router != "uniform" and self.config.gate_loss > 0:
            loss = loss + self.config.gate_loss * F.cross_entropy(scores, platforms)
        for k in range(0 if model.unified else len(PLATFORMS)):
            at = everything[platforms == k]
            if len(at):  # one that is alone on its platform still has its mined negatives
                own_hard = None if hard is None else hard[at, :, k]
                own = contrast(text[at, k], image[at, k], at, model.expert(k).scale(), own_hard)
                loss = loss + own * (len(at) / len(rows))
        return loss

    def captions_of(self, starts: Tensor) -> Tensor:
        """The captions that units are of, int64 [B]."""
        return (torch.searchsorted(self.data.first_unit, starts, right=True) - 1) // len(self.data.shares)

    def run_epoch(self, stage: int, epoch: int, epochs: int) -> dict[str, Any]:
        """Train for an epoch and score the model; returns the line of metrics."""
        loss = self.pass_over(stage, epoch, epochs)
        if stage == 0:
            self.model.share_first_expert()
        same_as_first(self.model)
        return {"stage": stage, "epoch": epoch + 1, "loss": loss, **self.validate(stage)}

    def pass_over(self, stage: int, epoch: int, epochs: int) -> float:
        """One pass over the captioned images, each with random texts of its own; returns the mean loss.

        Raises:
            TrainingError: the loss is not finite.
        """
        seed = seed_of(self.config.seed, "epoch", stage, epoch)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # word dropout
        optimizers = self.loop.optimizers
        rates = [optimizer.defaults["lr"] for optimizer in optimizers]
        # Frozen trunks keep their batch statistics; heads and gate have nothing that depends on the mode.
        model = self.model.train(self.trunks_learn(stage))
        steps = list(batches(torch.randperm(len(self.data), generator=generator), self.batch_size(stage)))
        if (least := min(map(len, steps))) < ranks():
            raise TrainingError(
                f"Batches of {least} cannot be dealt to {ranks()} processes: raise train.batch, or start fewer."
            )
        starts, ends = self.draw(stage, generator)
        view = torch.randint(CACHED_VIEWS, (len(self.data),), generator=generator)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for step, rows in enumerate(steps):
            factor = one_cycle((epoch * len(steps) + step) / (epochs * len(steps)))
            for optimizer, rate in zip(optimizers, rates, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = rate * factor
            if stage == 0:
                texts = self.texts(starts[:, rows].flatten(), ends[:, rows].flatten())
                loss = self.trunk_loss(rows, texts, generator)
            else:
                loss = self.expert_loss(stage, rows, starts[:, rows], ends[:, rows], view[rows], generator)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            average_gradients(model.parameters())
            for optimizer in optimizers:
                optimizer.step()
            total += loss.detach() * len(rows)
        value: float = total.item() / len(self.data)  # once an epoch, because asking a GPU makes it wait
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss became {value} in stage {stage}, epoch {epoch + 1}: lower train.learning_rate."
            )
        return value

    def trunks_learn(self, stage: int) -> bool:
        """Whether the compact trunks are trained in a stage."""
        return stage == 0 or self.config.end_to_end

    def batch_size(self, stage: int) -> int:
        """Pairs per step: more where trunks do not run, for features are cheap, and each platform gets its share."""
        return self.config.batch * (EXPERT_BATCHES if self.frozen(stage) else END_TO_END_BATCHES if stage else 1)

    def draw(self, stage: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Texts of every image for one epoch, int64 [T, N] starts and ends of units."""
        count = TEXTS_PER_IMAGE if self.trunks_learn(stage) else 1
        runs = self.stored is None
        drawn = [draw_texts(self.data, self.config.query_share, generator, runs=runs) for _ in range(count)]
        return torch.stack([start for start, _ in drawn]), torch.stack([end for _, end in drawn])

    @torch.no_grad()
    def validate(self, stage: int) -> dict[str, Any]:
        """Recall on val, of captions and of short queries, and what the gate does to captions.

        The gate's line: mean entropy in nats, share of captions whose own platform weighs most, mean weight per expert.
        """
        features, images = self.val_features or self.encode_val()
        if self.frozen(stage):
            self.val_features = features, images
        captions, gallery = self.val.captions, self.val.gallery
        texts, pictures = fused_texts(self.model, features), fused_images(self.model, images)
        whole, short = texts[: len(captions)], texts[len(captions) :]
        found = report(whole, pictures, captions, gallery)
        scores = {"t2i": found["t2i"], "i2t": found["i2t"], "short": report(short, pictures, captions, gallery)["t2i"]}
        gates = self.model.gates(features[: len(captions)])
        own = platform_codes(captions.platforms).to(gates.device)
        gate = {
            "entropy": float(-(gates * gates.clamp_min(1e-9).log()).sum(1).mean()),
            "own": float((gates.argmax(1) == own).double().mean()),
            **dict(zip(PLATFORMS, gates.mean(0).tolist(), strict=True)),
        }
        line: dict[str, Any] = told_by_first({"scored_on": self.val.split, self.val.split: scores, "gate": gate})
        return line

    def encode_val(self) -> tuple[Tensor, Tensor]:
        """Features of val texts float [2 C, W] and of the val gallery float [G, W']."""
        if self.stored is not None:
            tables = self.stored.val_texts, self.stored.val_images
            texts, images = (table[torch.arange(len(table))].to(self.device) for table in tables)
            return texts, images
        texts = text_features(self.model, self.val_texts, self.device)
        return texts, gallery_features(self.model, self.val.gallery, self.config.image_size, self.device)

    def run(self, after_epoch: Callable[[dict[str, Any]], None]) -> None:
        """Everything that is left of the schedule."""
        counts = [self.config.stage0_epochs, self.config.stage1_epochs, self.config.stage2_epochs]
        for stage, epoch in self.schedule[self.loop.epochs_done :]:
            if epoch == 0:
                self.begin_stage(stage)
                if stage == 2 and self.config.hard_negatives:
                    self.loop.mined = told_by_first(self.mine().cpu()).to(self.device)  # ranks may round apart
            if self.views is None and self.stored is None and self.frozen(stage):
                self.views = self.cache_views()
            line = self.run_epoch(stage, epoch, counts[stage])
            self.loop.metrics.append(line)
            self.loop.epochs_done += 1
            score = line[self.val.split]["short"]["score"]
            if not self.loop.best or score > self.loop.best["score"]:
                weights = {name: value.detach().clone() for name, value in own_weights(self.model).items()}
                self.loop.best = {"score": score, "line": json.dumps(line), "weights": weights}
            after_epoch(line)


def schedule(config: TrainConfig) -> list[tuple[int, int]]:
    """(stage, epoch) of every epoch, from 0; there is no stage 0 for trunks that are trained already."""
    first = 0 if config.encoder == "compact" and not config.trunks else 1
    counts = (config.stage0_epochs, config.stage1_epochs, config.stage2_epochs)
    return [(stage, epoch) for stage in range(first, 3) for epoch in range(counts[stage])]


def new_model(config: TrainConfig, vocabulary: Vocabulary | None) -> MixtureOfExperts:
    """An untrained model on the CPU, its weights drawn from the seed."""
    torch.manual_seed(seed_of(config.seed, "weights"))
    return make_model(config, 0 if vocabulary is None else len(vocabulary))


def load_trunks(config: TrainConfig) -> tuple[Checkpoint, dict[str, Any]]:
    """The run that `config.trunks` names, and its origin: {"run", "sha256" of its checkpoint, "dataset"}.

    Raises:
        TrainingError: it holds no checkpoint, or its trunks are not those of this configuration.
    """
    run = Path(config.trunks)
    start = load_checkpoint(run, torch.device("cpu"))
    for key in ("encoder", "image_size", "width"):
        wanted, found = getattr(config, key), getattr(start.config, key)
        if wanted != found:
            raise TrainingError(
                f"The trunks of {run} were trained with train.{key} {found}, not {wanted}: give it so, or other trunks."
            )
    return start, {"run": config.trunks, "sha256": sha256_file(run / CHECKPOINT), "dataset": start.dataset}


def load_data(
    version: Version, config: TrainConfig, vocabulary: Vocabulary | None = None
) -> tuple[TrainSet, Vocabulary | None, ValSet, list[str]]:
    """Train set, vocabulary (the one given, if any), what checkpoints are chosen on, and remarks for the model card.

    Raises:
        TrainingError: the train split cannot be trained on.
        DatasetError: a shard or an image cannot be read.
    """
    notes = []
    captions = load_captions(version, "train")
    images = load_gallery(version, "train", config, augmented=True)
    data, vocabulary = make_train_set(images, captions, config.texts, vocabulary)
    scored_on: Split = "val"
    scored, gallery = load_captions(version, "val"), load_gallery(version, "val", config)
    if len(scored) == 0 or len(gallery) == 0:
        notes.append(
            "The val split has no captioned buildings: the checkpoint was chosen by how well it fits the train split, "
            "and nothing here tells how it does on unseen buildings."
        )
        scored_on, scored, gallery = "train", captions, load_gallery(version, "train", config)
    short = [short_query(caption_id, text) for caption_id, text in zip(scored.ids, scored.finals, strict=True)]
    return data, vocabulary, ValSet(scored_on, scored, gallery, (*scored.finals, *short)), notes


def store_features(
    model: MixtureOfExperts, data: TrainSet, val: ValSet, config: TrainConfig, folder: Path, say: Progress
) -> Stored | None:
    """Features for trunks that need not run again; None where they learn, or are as cheap as the compact ones."""
    if config.encoder == "compact" or config.tails == "layers":
        return None
    assert isinstance(model, AdaptedMixture)
    assert isinstance(data.units, Texts)
    assert isinstance(data.pictures, Pictures)
    assert isinstance(val.gallery, Pictures)
    return store(
        model,
        folder,
        spans_to_store(data.units.texts, data.first_unit, data.first_query),
        data.pictures,
        val.texts,
        val.gallery,
        data.first_unit,
        data.first_query,
        config.image_size,
        lambda message: say("read", 1, 1, message),
    )


def train(
    dataset: Path,
    run: Path,
    config: TrainConfig,
    device: str = "cpu",
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train on a data set version; RUN then holds checkpoint.pt, metrics.jsonl, curves.png and README.md.

    Args:
        resume: continue where a killed run of the same data, configuration and device stopped; a run that never
            started begins at the beginning. A finished run of the same is left as it is in any case.
        progress: called with (stage, epochs done, epochs in all, message); default: lines on stderr.

    Returns:
        {"version", "best": the chosen epoch's line of metrics.jsonl, "epochs", "parameters", "notes"}, and "trunks",
        what load_trunks says of them, where they are another run's.

    Raises:
        TrainingError: see schemas/errors.py; DatasetError: the data set cannot be read, or RUN cannot be written.
    """
    with joined(device) as own_device:
        return _train(dataset, run, config, own_device, resume, progress or print_progress)


def _train(
    dataset: Path, run: Path, config: TrainConfig, device: str, resume: bool, progress: Progress
) -> dict[str, Any]:
    def say(stage: str, done: int, total: int, message: str) -> None:
        if rank() == 0:
            progress(stage, done, total, message)

    where = open_device(device)
    version = open_version(dataset)
    if not schedule(config):
        raise TrainingError("There are no epochs to train: raise train.stage0_epochs, stage1_epochs or stage2_epochs.")
    shards = {shard.path: shard.sha256 for shard in version.manifest.shards}
    start, trunks = load_trunks(config) if config.trunks else (None, {})
    origin = {"dataset": {"version": version.name, "shards": shards}, "config": config_dict(config), "trunks": trunks}
    finished = finished_run(run, origin)
    if finished is not None and not resume:
        raise TrainingError(
            f"{run} holds this very training, finished: add --resume to keep it, or choose another --out."
        )
    if finished is not None:
        say("done", finished["epochs"], finished["epochs"], f"{run} holds this very training, finished: nothing to do")
        return finished
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{run} cannot be written ({error.strerror}): choose another --out.") from error
    say("read", 0, 1, f"decoding images of {version.name}")
    data, vocabulary, val, notes = load_data(version, config, start.vocabulary if start else None)
    terms = "" if vocabulary is None else f", {len(vocabulary)} terms"
    say("read", 1, 1, f"{len(data)} captioned images, {len(data.caption_image)} captions{terms}")
    for note in notes:
        say("read", 1, 1, note)
    with memory_errors("training"):
        model = new_model(config, vocabulary)
        if start:
            model.start_from(start.model)
        model.to(where)
        stored = store_features(model, data, val, config, version.path.parent / ".work" / "features", say)
        trainer = Trainer(data, vocabulary, val, config, where, stored, model)
        encoders = encoder_hashes(model)
        if resume and (run / LOOP_STATE).exists():
            restore(trainer, run, {**origin, "encoders": encoders})

        def after_epoch(line: dict[str, Any]) -> None:
            if rank() == 0:
                write_metrics(run, trainer.loop.metrics)
                write_tensors(run / LOOP_STATE, trainer.loop.state({**origin, "encoders": encoders}))
            seen = line["scored_on"]
            recall = line[seen]["t2i"]
            message = f"loss {line['loss']:.3f}, {seen} recall@1 {recall['r1']:.1f} %, recall@10 {recall['r10']:.1f} %"
            say(STAGES[line["stage"]], trainer.loop.epochs_done, len(trainer.schedule), message)

        trainer.run(after_epoch)
    best = json.loads(trainer.loop.best["line"])
    load_own_weights(trainer.model, trainer.loop.best["weights"])
    parameters = sum(p.numel() for p in trainer.model.parameters())
    result = {
        "version": version.name,
        "best": best,
        "epochs": trainer.loop.epochs_done,
        "parameters": parameters,
        "notes": notes,
        **({"trunks": trunks} if trunks else {}),
    }
    if rank() > 0:
        return result
    atomic_write(run / "curves.png", draw_curves(trainer.loop.metrics))
    atomic_write(run / "README.md", model_card(version, config, result).encode())
    save_checkpoint(run, Checkpoint(trainer.model, config, vocabulary, origin["dataset"], result))
    (run / LOOP_STATE).unlink(missing_ok=True)
    return result


def write_metrics(run: Path, metrics: list[dict[str, Any]]) -> None:
    """RUN/metrics.jsonl, one line per epoch; rewritten whole, so that a resumed run leaves no line twice."""
    atomic_write(run / METRICS, "".join(json.dumps(line) + "\n" for line in metrics).encode())


def finished_run(run: Path, origin: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a run that ended with this data and configuration; None if there is none, or one under way.

    Raises:
        TrainingError: the folder holds a finished run of other data or another configuration, which must not be lost.
    """
    if (run / LOOP_STATE).exists() or not (run / CHECKPOINT).exists():
        return None
    checkpoint = load_checkpoint(run, torch.device("cpu"))
    held = {
        "dataset": checkpoint.dataset,
        "config": config_dict(checkpoint.config),
        "trunks": checkpoint.result.get("trunks", {}),
    }
    if held != origin:
        what = differing(held, origin)
        raise TrainingError(f"{run} holds a finished training with {what}: remove it, or choose another --out.")
    return checkpoint.result


def differing(a: dict[str, Any], b: dict[str, Any]) -> str:
    """What sets two origins apart, for a sentence."""
    if a["dataset"] != b["dataset"]:
        return "other data"
    return "another configuration" if a["config"] != b["config"] else "other trunks"


def restore(trainer: Trainer, run: Path, origin: dict[str, Any]) -> None:
    """Put the loop where RUN/resume.pt says it was.

    Raises:
        TrainingError: the file is damaged, or belongs to other data or another configuration.
    """
    advice = "train without --resume to begin anew."
    state = read_tensors(run / LOOP_STATE, trainer.device, advice)
    if state["origin"].get("encoders", {}) != origin["encoders"]:
        raise TrainingError(f"{run / LOOP_STATE} was trained over other pretrained weights: put them back, or {advice}")
    if state["origin"] != origin:
        raise TrainingError(f"{run / LOOP_STATE} was trained with {differing(state['origin'], origin)}: {advice}")
    loop = trainer.loop
    loop.epochs_done = state["epochs_done"]
    loop.metrics, loop.best = json.loads(state["metrics"]), state["best"]
    trainer.begin_stage(trainer.schedule[loop.epochs_done - 1][0])
    loop.mined = state["mined"]
    load_own_weights(trainer.model, state["weights"])
    for optimizer, saved in zip(loop.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
