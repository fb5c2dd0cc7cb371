"""Training in three stages: `python -m experts train DATASET --out RUN [--device cuda] [--resume]`.

Stage 0 trains the trunks and one pair of heads on all platforms together; then the trunks are frozen and every expert
starts as a copy of those heads. Stage 1 trains each expert on its own platform and the gate through the fused score;
stage 2 repeats that with hard negatives mined by the stage-1 model. After every epoch the model is scored on the val
split; each stage starts from the best model so far, and the best of all is the checkpoint. The test split is not read.

Every random number comes from a hash of (seed, stage, epoch), so a run that was killed and resumed at an epoch's end
finishes, on the CPU, with the weights of an undisturbed one, to the bit.
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from data.shards import Version, atomic_write, open_version
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
from experts.embed import fused_images, fused_texts, image_features, text_bags, text_features
from experts.encoders import Bags, Texts, Vocabulary
from experts.evaluate import report
from experts.examples import Captions, Images
from experts.losses import info_nce, info_nce_hard
from experts.mining import mine
from experts.model import CompactMixture, MixtureOfExperts
from experts.muon import Muon
from experts.parallel import average_gradients, gather, joined, part, rank, ranks, same_as_first, told_by_first
from experts.routers import route
from experts.stored import StoredFeatures, rows_of_sentences, stored_features, text_rows
from experts.train_set import TrainSet, draw_texts, load_data, rarity
from schemas.config import TrainConfig, config_dict
from schemas.errors import TrainingError
from schemas.records import PLATFORMS, Split

Progress = Callable[[str, int, int, str], None]

LOOP_STATE = "resume.pt"
FEATURES = "features"
METRICS = "metrics.jsonl"
STAGES = ("trunk", "experts", "hard negatives")
WARM_UP = 0.1
TEXTS_PER_IMAGE = 3  # in stage 0, where a text costs next to nothing beside an image
WORD_LOSS = 1.0  # weight of predicting an image's words in stage 0
CACHED_VIEWS = 4  # jittered copies of every training image that stages 1 and 2 see, as cached features
EXPERT_BATCHES = 4  # their batches are larger by this factor: features are cheap, and each platform gets its share
TRUNK_RATE = 0.1  # of the experts' learning rate, for trunks that learn on
SHIFT, ZOOM, LIGHT = 0.06, 0.08, 0.1


def print_progress(stage: str, done: int, total: int, message: str) -> None:
    """The default progress: one plain line to stderr."""
    print(f"{stage} {done}/{total}: {message}", file=sys.stderr, flush=True)


def seed_of(*parts: object) -> int:
    """A 63-bit seed from a hash of the parts' text."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def jitter(pixels: Tensor, platforms: Tensor, chance: Tensor) -> Tensor:
    """Shift, zoom and light at random; satellite tiles are also turned and mirrored, their captions hold no directions.

    Args:
        pixels: uint8 [B, 3, S, S]; platforms: int64 [B]; chance: float [8, B] in 0..1, on the CPU.

    Returns:
        float32 [B, 3, S, S] on the device of `pixels`, about 0..255.
    """
    n = len(pixels)
    rand = chance * 2 - 1
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


def epochs_of(config: TrainConfig) -> tuple[int, int, int]:
    """Epochs of each stage; pretrained trunks need no stage 0."""
    return config.stage0_epochs if config.starts_from_nothing else 0, config.stage1_epochs, config.stage2_epochs


def batches(order: Tensor, size: int) -> Iterator[Tensor]:
    """Split a permutation into near-equal parts of at most `size`."""
    yield from order.tensor_split(math.ceil(len(order) / size))


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


@dataclass(frozen=True)
class Batch:
    """A step's pairs, made ready. Every rank knows all of a batch and encodes its part of it: b of B pairs.

    Attributes:
        rows: int64 [B], of the train set.
        texts: of the part; in stage 0 one of every image, then another, up to TEXTS_PER_IMAGE; stored features
            float [b, W] where texts are encoded beforehand.
        images: pixels float [U, 3, S, S], or features float [b, W'] where they are encoded beforehand.
        words: stage 0: the terms of the part's images, weighted, float [b, terms].
        mined: stage 2: int64 [B, H], rows of the train set, -1 where fewer were found.
        hard: features of the part's mined images, float [b, H, W'], where they are encoded beforehand.
        place, hard_place: int64 [b], int64 [b, H]: where in `images` the part's own and mined ones are, otherwise.
    """

    rows: Tensor
    texts: Bags | Texts | Tensor
    images: Tensor
    words: Tensor | None = None
    mined: Tensor | None = None
    hard: Tensor | None = None
    place: Tensor | None = None
    hard_place: Tensor | None = None


class Trainer:
    """One training run: its data, its model and its loop, on one device."""

    def __init__(
        self,
        data: TrainSet,
        vocabulary: Vocabulary | None,
        val: tuple[Split, Captions, Images],
        config: TrainConfig,
        device: torch.device,
        features: Path,
    ) -> None:
        """Make the model. features: folder for those that are encoded beforehand and kept (`tails: adapters`)."""
        self.data, self.config, self.device = data, config, device
        self.scored_on, self.val_captions, self.val_images = val
        self.val_bags = text_bags(vocabulary, self.val_captions.finals)
        self.pixels = data.pixels.to(device) if isinstance(data.pixels, Tensor) else data.pixels
        self.units = data.units.to(device)
        self.buildings, self.platforms = data.buildings.to(device), data.platforms.to(device)
        torch.manual_seed(seed_of(config.seed, "weights"))
        model = make_model(config, len(vocabulary or ())).to(device)
        self.encoders = encoder_hashes(model)
        self.loop = Loop(model, [], 0, [], {}, None)
        self.rarity = None if vocabulary is None else rarity(data, len(vocabulary)).to(device)
        # Whether stages 1 and 2 encode texts and images anew in every step; else they read features made before.
        self.live = config.end_to_end or (not config.starts_from_nothing and config.tails == "layers")
        self.views: Tensor | None = None  # float [V, N, W], image features of stages 1 and 2 (compact)
        self.stored: StoredFeatures | None = None
        if not self.live and not config.starts_from_nothing:
            self.stored = stored_features(features, model, data, val[1:], device)
        self.epochs = epochs_of(config)
        self.schedule = [(stage, epoch) for stage, epochs in enumerate(self.epochs) for epoch in range(epochs)]

    @property
    def model(self) -> MixtureOfExperts:
        return self.loop.model

    def texts(self, starts: Tensor, ends: Tensor) -> Bags | Texts:
        return self.units.pick(starts.to(self.device), ends.to(self.device))

    def begin_stage(self, stage: int) -> None:
        """Take up the best model so far and make the stage's optimizers; from stage 1 on trunks are frozen, or slow."""
        if self.loop.best:
            load_own_weights(self.model, self.loop.best["weights"])
        model, config = self.model, self.config
        rate, decay = config.learning_rate, config.weight_decay
        if stage == 0:
            assert isinstance(model, CompactMixture)
            filters = [p for p in model.image_trunk.parameters() if p.ndim == 4 and p.shape[1] > 3]
            known = set(filters)
            learning = [model.text_trunk, model.image_trunk, model.visual_words, model.expert(0)]
            parameters = [p for module in learning for p in module.parameters() if p not in known]
            self.loop.optimizers = [
                torch.optim.AdamW(parameters, lr=rate, weight_decay=decay),
                Muon(filters, lr=config.filter_learning_rate),
            ]
        else:
            rate = config.expert_learning_rate
            parameters = [*model.experts.parameters(), *model.gate.parameters(), model.log_scale]
            self.loop.optimizers = [torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)]
            if config.end_to_end:
                trunks = [*model.text_trunk.parameters(), *model.image_trunk.parameters()]
                self.loop.optimizers.append(torch.optim.AdamW(trunks, lr=TRUNK_RATE * rate, weight_decay=decay))
        self.loop.mined = None

    def cache_views(self) -> Tensor:
        """Trunk features of CACHED_VIEWS jittered copies of every training image, float [V, N, W]."""
        views = []
        for view in range(CACHED_VIEWS):
            generator = torch.Generator().manual_seed(seed_of(self.config.seed, "view", view))
            parts = []
            for rows in batches(torch.arange(len(self.data)), 256):
                on_device = rows.to(self.device)
                chance = torch.rand(8, len(rows), generator=generator)
                x = jitter(self.pixels[on_device], self.platforms[on_device], chance)
                parts.append(image_features(self.model, x, self.device))
            views.append(torch.cat(parts))
        return torch.stack(views)

    def mine(self) -> Tensor:
        """Hard negatives of every caption by the model as it stands, int64 [C, H] rows of images, on the CPU."""
        data = self.data
        firsts = torch.arange(len(data.caption_image)) * len(data.shares)
        if self.stored is not None:
            whole = rows_of_sentences(data, firsts)
            text_feature, image_feature = self.stored.texts[whole], self.stored.images[torch.arange(len(data))]
        else:
            both = self.texts(data.first_unit[firsts], data.first_unit[firsts + 1])
            text_feature = text_features(self.model, both, self.device)
            image_feature = image_features(self.model, self.pixels, self.device)
        own = data.caption_image.to(self.device)
        return mine(
            fused_texts(self.model, text_feature.to(self.device)),
            fused_images(self.model, image_feature.to(self.device)),
            self.buildings[own],
            self.buildings,
            own,
            count=self.config.hard_negatives,
            relative_margin=self.config.relative_margin,
        ).cpu()

    def trunk_loss(self, batch: Batch) -> Tensor:
        """Stage 0: both trunks and the first expert, all platforms in one batch.

        Beside the contrast with several texts each, an image predicts the words of all its captions, through the text
        trunk's own embeddings: text as labels (Joulin et al. 2016; SuperClass, arXiv 2411.03313), which teaches a small
        network far more per image than the contrast alone.
        """
        model, total = self.model, len(batch.rows)
        assert isinstance(model, CompactMixture)
        assert batch.words is not None
        first = model.expert(0)
        with precision(self.device):
            feature = model.image_trunk(batch.images)
            text, image = first.text(model.text_trunk(batch.texts)), first.image(feature)
            words = model.visual_words(feature)
        buildings, scale = self.buildings[batch.rows], first.scale()
        image = gather(image.float(), total)
        own = text.float().split(len(batch.images))
        each = [info_nce(gather(part, total), image, buildings, scale) for part in own]
        logits = words.float() @ model.text_trunk.embedding.T
        predicted = F.cross_entropy(logits, batch.words) * (len(batch.images) / total)
        return torch.stack(each).mean() + WORD_LOSS * gather(predicted.view(1), ranks()).sum()

    def word_targets(self, rows: Tensor) -> Tensor:
        """The terms of all captions of images, weighted by rarity, float [B, terms]; rows sum to one, or are zero."""
        data = self.data
        first = data.first_unit[len(data.shares) * data.first_caption]
        bags = self.texts(first[rows], first[rows + 1])
        assert isinstance(bags, Bags)
        assert self.rarity is not None
        at = torch.repeat_interleave(torch.arange(len(rows), device=self.device), bags.offsets.diff())
        target = torch.zeros(len(rows), len(self.rarity), device=self.device)
        target[at, bags.ids] = self.rarity[bags.ids]
        return target / target.sum(1, keepdim=True).clamp_min(1e-6)

    def encoded(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Of this rank's part: gate scores [b, 3], [t_k] [b, K, D], [v_k] [b, K, D] and those mined [b, H, K, D]."""
        model = self.model
        if isinstance(batch.texts, Tensor):
            text_feature = batch.texts
        else:
            with torch.set_grad_enabled(self.live), precision(self.device):
                text_feature = model.text_trunk(batch.texts).float()
        scores, text = model.gate_scores(text_feature), model.each_text(text_feature)
        if batch.place is None:
            hard = None if batch.hard is None else model.each_image(batch.hard)
            return scores, text, model.each_image(batch.images), hard
        with precision(self.device):
            image_feature = model.image_trunk(batch.images).float()
        each = model.each_image(image_feature)
        return scores, text, each[batch.place], None if batch.hard_place is None else each[batch.hard_place]

    def expert_loss(self, batch: Batch) -> Tensor:
        """Stages 1 and 2: every expert on its own platform, plus the fused score on the mixed batch.

        The fused term reaches the experts too, so that their scores are comparable on images of the other platforms.
        The gate learns from it, and from the platform that a text was written for.
        """
        model, rows = self.model, batch.rows
        own_scores, own_text, own_image, own_hard = self.encoded(batch)
        scores, text, image = (gather(one, len(rows)) for one in (own_scores, own_text, own_image))
        hard = None if own_hard is None else gather(own_hard, len(rows))
        platforms, buildings = self.platforms[rows], self.buildings[rows]

        def contrast(texts: Tensor, images: Tensor, at: Tensor, scale: Tensor, hard: Tensor | None) -> Tensor:
            if hard is None or batch.mined is None:
                return info_nce(texts, images, buildings[at], scale)
            return info_nce_hard(texts, images, buildings[at], scale, hard, batch.mined[at] >= 0)

        everything = torch.arange(len(rows), device=self.device)
        fused_hard = None if hard is None else hard.flatten(2)
        fused_text = model.weighted(route(model.router, scores), text)
        loss = contrast(fused_text, image.flatten(1), everything, model.scale(), fused_hard)
        for k in range(0 if model.unified else len(PLATFORMS)):
            at = everything[platforms == k]
            if len(at) > 1:
                hard_of_k = None if hard is None else hard[at, :, k]
                of_k = contrast(text[at, k], image[at, k], at, model.expert(k).scale(), hard_of_k)
                loss = loss + of_k * (len(at) / len(rows))
        if self.config.gate_loss > 0 and model.router != "uniform":
            loss = loss + self.config.gate_loss * F.cross_entropy(scores, platforms)
        return loss

    def prepared(self, stage: int, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch: every captioned image once, each with a random text of its own."""
        data, config = self.data, self.config
        generator = torch.Generator().manual_seed(seed_of(config.seed, "epoch", stage, epoch))
        size = config.batch * (EXPERT_BATCHES if stage > 0 and not self.live else 1)
        parts = list(batches(torch.randperm(len(data), generator=generator), size))
        least = min(map(len, parts))
        if least < ranks():
            raise TrainingError(
                f"Batches of {least} cannot be dealt to {ranks()} processes: raise train.batch, or start fewer."
            )
        one_or_all = self.stored is not None
        drawn = [
            draw_texts(data, config.query_share, generator, one_or_all=one_or_all)
            for _ in range(TEXTS_PER_IMAGE if stage == 0 else 1)
        ]
        starts, ends = torch.stack([start for start, _ in drawn]), torch.stack([end for _, end in drawn])
        captions = data.texts_with(starts[0]) // len(data.shares)
        view = torch.randint(CACHED_VIEWS, (len(data),), generator=generator)
        chance = torch.rand(8, len(data), generator=generator) if stage > 0 and self.live else None
        for rows in parts:
            own = part(rows)
            if stage == 0:
                now = part(torch.rand(8, len(rows), generator=generator).T).T
                texts = self.texts(starts[:, own].flatten(), ends[:, own].flatten())
                x = self.jittered(own, now)
                yield Batch(rows.to(self.device), texts, x, words=self.word_targets(own))
                continue
            mined = None if self.loop.mined is None else self.loop.mined[captions[rows]]
            if chance is not None:
                texts = self.texts(starts[0, own], ends[0, own])
                yield self.live_batch(rows, texts, mined, chance)
            else:
                yield self.read_batch(rows, starts[0], ends[0], mined, view)

    def jittered(self, rows: Tensor, chance: Tensor) -> Tensor:
        """Pixels of images, each moved by its column of `chance`, float [U, 3, S, S] on the device."""
        at = rows.to(self.device)
        pixels = self.pixels[at] if isinstance(self.pixels, Tensor) else self.pixels[rows].to(self.device)
        return jitter(pixels, self.platforms[at], chance)

    def live_batch(self, rows: Tensor, texts: Bags | Texts, mined: Tensor | None, chance: Tensor) -> Batch:
        """A batch of stages 1 and 2 whose images are encoded in the step, each once."""
        own, asked = part(rows), rows.new_zeros(0)
        if mined is not None:
            hard = part(mined)
            asked = torch.where(hard < 0, own.unsqueeze(1), hard)
        images, at = torch.unique(torch.cat([own, asked.flatten()]), return_inverse=True)
        place, hard_place = at.to(self.device).split([len(own), asked.numel()])
        return Batch(
            rows.to(self.device),
            texts,
            self.jittered(images, chance[:, images]),
            mined=None if mined is None else mined.to(self.device),
            place=place,
            hard_place=None if mined is None else hard_place.view_as(asked),
        )

    def read_batch(self, rows: Tensor, starts: Tensor, ends: Tensor, mined: Tensor | None, view: Tensor) -> Batch:
        """A batch of stages 1 and 2 whose image features, and with adapters text features, were made before."""
        own, all_mined = part(rows), None if mined is None else mined.to(self.device)
        if self.stored is not None:
            texts = self.stored.texts[text_rows(self.data, starts[own], ends[own])].to(self.device)
            images = self.stored.images[own].to(self.device)
            hard = None
            if mined is not None:
                asked = part(mined).clamp_min(0)
                hard = self.stored.images[asked.flatten()].to(self.device).view(*asked.shape, -1)
            return Batch(rows.to(self.device), texts, images, mined=all_mined, hard=hard)
        assert self.views is not None
        views = self.views
        at, seen = own.to(self.device), view[own].to(self.device)
        hard = None if all_mined is None else views[seen.unsqueeze(1), part(all_mined).clamp_min(0)]
        picked = self.texts(starts[own], ends[own])
        return Batch(rows.to(self.device), picked, views[seen, at], mined=all_mined, hard=hard)

    def steps(self, stage: int, epoch: int) -> float:
        """One pass over the captioned images; returns the mean loss.

        Raises:
            TrainingError: the loss is not finite.
        """
        torch.manual_seed(seed_of(self.config.seed, "epoch", stage, epoch) + rank())  # word dropout
        optimizers = self.loop.optimizers
        rates = [optimizer.defaults["lr"] for optimizer in optimizers]
        parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        # Frozen trunks keep their batch statistics; heads and gate have nothing that depends on it.
        self.model.train(stage == 0)
        size = self.config.batch * (EXPERT_BATCHES if stage > 0 and not self.live else 1)
        count, epochs = math.ceil(len(self.data) / size), self.epochs[stage]
        losses, sizes = [], []
        for step, batch in enumerate(self.prepared(stage, epoch)):
            factor = one_cycle((epoch * count + step) / (epochs * count))
            for optimizer, rate in zip(optimizers, rates, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = rate * factor
            loss = self.trunk_loss(batch) if stage == 0 else self.expert_loss(batch)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            average_gradients(parameters)
            for optimizer in optimizers:
                optimizer.step()
            losses.append(loss.detach())  # read at the end: a GPU would wait for it in every step
            sizes.append(len(batch.rows))
        values: list[float] = torch.stack(losses).tolist()
        if not all(map(math.isfinite, values)):
            value = next(value for value in values if not math.isfinite(value))
            raise TrainingError(
                f"The loss became {value} in stage {stage}, epoch {epoch + 1}: lower "
                f"train.{'learning_rate' if stage == 0 else 'expert_learning_rate'}."
            )
        return sum(value * size for value, size in zip(values, sizes, strict=True)) / len(self.data)

    def run_epoch(self, stage: int, epoch: int) -> dict[str, Any]:
        """Train for an epoch and score the model; returns the line of metrics, the same on every rank."""
        loss = self.steps(stage, epoch)
        if stage == 0:
            self.model.share_first_expert()
        same_as_first(own_weights(self.model).values())
        scores = told_by_first(self.validate() if rank() == 0 else None)
        return {"stage": stage, "epoch": epoch + 1, "loss": loss, **scores}

    def validate(self) -> dict[str, Any]:
        """Recall on val and what the gate does there: mean entropy in nats, mean weight per expert."""
        if self.stored is not None:
            everything = (torch.arange(len(table)) for table in (self.stored.val_texts, self.stored.val_images))
            features, image_feature = (
                table[rows].to(self.device)
                for table, rows in zip((self.stored.val_texts, self.stored.val_images), everything, strict=True)
            )
        else:
            features = text_features(self.model, self.val_bags, self.device)
            image_feature = image_features(self.model, self.val_images.pixels, self.device)
        found = report(
            fused_texts(self.model, features),
            fused_images(self.model, image_feature),
            self.val_captions,
            self.val_images,
        )
        with torch.no_grad():
            gates = self.model.gates(features)
        entropy = float(-(gates * gates.clamp_min(1e-9).log()).sum(1).mean())
        weights = dict(zip(PLATFORMS, gates.mean(0).tolist(), strict=True))
        scores = {"t2i": found["t2i"], "i2t": found["i2t"]}
        return {"scored_on": self.scored_on, self.scored_on: scores, "gate": {"entropy": entropy, **weights}}

    def run(self, after_epoch: Callable[[dict[str, Any]], None]) -> None:
        """Everything that is left of the schedule."""
        for stage, epoch in self.schedule[self.loop.epochs_done :]:
            if epoch == 0:
                self.begin_stage(stage)
                if stage == 2:
                    self.loop.mined = told_by_first(self.mine() if rank() == 0 else None)
            if stage > 0 and self.views is None and not self.live and self.stored is None:
                self.views = self.cache_views()
            line = self.run_epoch(stage, epoch)
            self.loop.metrics.append(line)
            self.loop.epochs_done += 1
            score = line[self.scored_on]["t2i"]["score"]
            if not self.loop.best or score > self.loop.best["score"]:
                weights = {name: value.detach().clone() for name, value in own_weights(self.model).items()}
                self.loop.best = {"score": score, "line": json.dumps(line), "weights": weights}
            after_epoch(line)


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
        {"version", "best": the chosen epoch's line of metrics.jsonl, "epochs", "parameters", "notes"}.

    Raises:
        TrainingError: see schemas/errors.py; DatasetError: the data set cannot be read, or RUN cannot be written.
    """
    with joined(device) as own_device:
        return train_here(dataset, run, config, own_device, resume, progress or print_progress)


def train_here(
    dataset: Path, run: Path, config: TrainConfig, device: str, resume: bool, progress: Progress
) -> dict[str, Any]:
    """What `train` does, on this rank; the first alone writes files and tells progress."""
    where = open_device(device)

    def say(stage: str, done: int, total: int, message: str) -> None:
        if rank() == 0:
            progress(stage, done, total, message)

    version = open_version(dataset)
    if sum(epochs_of(config)) == 0:
        raise TrainingError("There are no epochs to train: raise train.stage0_epochs, stage1_epochs or stage2_epochs.")
    shards = {shard.path: shard.sha256 for shard in version.manifest.shards}
    origin = {"dataset": {"version": version.name, "shards": shards}, "config": config_dict(config)}
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
    data, vocabulary, val, notes = load_data(version, config)
    terms = "" if vocabulary is None else f", {len(vocabulary)} terms"
    say("read", 1, 1, f"{len(data)} captioned images, {len(data.caption_image)} captions{terms}")
    if not config.starts_from_nothing:
        say("read", 1, 1, "the trunks are pretrained and stay as they are: there is no stage 0")
    for note in notes:
        say("read", 1, 1, note)
    with memory_errors("training"):
        trainer = Trainer(data, vocabulary, val, config, where, run / FEATURES)
        if resume and (run / LOOP_STATE).exists():
            restore(trainer, run, origin)

        def after_epoch(line: dict[str, Any]) -> None:
            if rank() == 0:
                write_metrics(run, trainer.loop.metrics)
                write_tensors(run / LOOP_STATE, trainer.loop.state({**origin, "encoders": trainer.encoders}))
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
    }
    if rank() == 0:
        write_run(run, version, trainer, vocabulary, result)
    return result


def write_run(
    run: Path, version: Version, trainer: Trainer, vocabulary: Vocabulary | None, result: dict[str, Any]
) -> None:
    """What a finished run leaves behind; the checkpoint comes last but for the loop's state, which goes."""
    config = trainer.config
    shards = {shard.path: shard.sha256 for shard in version.manifest.shards}
    atomic_write(run / "curves.png", draw_curves(trainer.loop.metrics))
    atomic_write(run / "README.md", model_card(version, config, result).encode())
    dataset = {"version": version.name, "shards": shards}
    save_checkpoint(run, Checkpoint(trainer.model, config, vocabulary, dataset, result))
    (run / LOOP_STATE).unlink(missing_ok=True)


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
    if {"dataset": checkpoint.dataset, "config": config_dict(checkpoint.config)} != origin:
        what = "another configuration" if checkpoint.dataset == origin["dataset"] else "other data"
        raise TrainingError(f"{run} holds a finished training with {what}: remove it, or choose another --out.")
    return checkpoint.result


def restore(trainer: Trainer, run: Path, origin: dict[str, Any]) -> None:
    """Put the loop where RUN/resume.pt says it was.

    Raises:
        TrainingError: the file is damaged, or belongs to other data or another configuration.
    """
    advice = "train without --resume to begin anew."
    state = read_tensors(run / LOOP_STATE, trainer.device, advice)
    if state["origin"].pop("encoders") != trainer.encoders:
        raise TrainingError(
            f"{run / LOOP_STATE} was trained over other pretrained weights: put those back, or {advice}"
        )
    if state["origin"] != origin:
        what = "another configuration" if state["origin"]["dataset"] == origin["dataset"] else "other data"
        raise TrainingError(f"{run / LOOP_STATE} was trained with {what}: {advice}")
    loop = trainer.loop
    loop.epochs_done = state["epochs_done"]
    loop.metrics, loop.best = json.loads(state["metrics"]), state["best"]
    trainer.begin_stage(trainer.schedule[loop.epochs_done - 1][0])
    loop.mined = state["mined"]
    load_own_weights(trainer.model, state["weights"])
    for optimizer, saved in zip(loop.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
