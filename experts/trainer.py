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
    load_checkpoint,
    read_tensors,
    save_checkpoint,
    write_tensors,
)
from experts.device import memory_errors, open_device, precision
from experts.embed import fused_images, fused_texts, image_features, text_bags, text_features
from experts.encoders import Bags, Vocabulary, build_vocabulary, sentences
from experts.evaluate import report
from experts.examples import Captions, Images, building_codes, load_captions, load_images, platform_codes
from experts.losses import info_nce, info_nce_hard
from experts.mining import mine
from experts.model import MixtureOfExperts
from experts.muon import Muon
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
EXPERT_BATCHES = 4  # their batches are larger by this factor: features are cheap, and each platform gets its share
SHIFT, ZOOM, LIGHT = 0.06, 0.08, 0.1


@dataclass(frozen=True)
class TrainSet:
    """Captioned images of the train split and their texts, as tensors; images sorted by id, captions by image.

    Attributes:
        pixels: uint8 [N, 3, S, S].
        buildings, platforms: int64 [N] codes.
        first_caption: int64 [N + 1]; image i owns captions first_caption[i]..first_caption[i + 1] - 1.
        units: every sentence and every query of every text that the mix has, as bags.
        shares: float64 [M], the weight of each kind of text in the mix: final, refined, raw without those of weight 0.
        first_unit: int64 [M C + 1]; text m of caption c owns units first_unit[M c + m]..first_unit[M c + m + 1] - 1,
            sentences before queries.
        first_query: int64 [M C]; the first of them that is a query.
        caption_image: int64 [C], the image's row.
    """

    pixels: Tensor
    buildings: Tensor
    platforms: Tensor
    first_caption: Tensor
    units: Bags
    shares: Tensor
    first_unit: Tensor
    first_query: Tensor
    caption_image: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


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


def make_train_set(images: Images, captions: Captions, mix: TextMix) -> tuple[TrainSet, Vocabulary]:
    """Pair images with their captions and turn words into ids; images without captions are left out.

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
    vocabulary = build_vocabulary([[u for parts, asked in texts for u in (*parts, *asked)] for texts in of_caption])
    split = [text for texts in of_caption for text in texts]
    unit_counts = torch.tensor([0, *(len(parts) + len(queries) for parts, queries in split)])
    first_unit = unit_counts.cumsum(0)
    train_set = TrainSet(
        pixels=images.pixels[rows],
        buildings=building_codes([images.buildings[row] for row in rows])[0],
        platforms=platform_codes([images.platforms[row] for row in rows]),
        first_caption=torch.tensor([0, *(len(owned[row]) for row in rows)]).cumsum(0),
        units=Bags.of([vocabulary.encode(text) for parts, queries in split for text in (*parts, *queries)]),
        shares=torch.tensor([w for w in (mix.final, mix.refined, mix.raw) if w > 0], dtype=torch.float64),
        first_unit=first_unit,
        first_query=first_unit[:-1] + torch.tensor([len(parts) for parts, _ in split]),
        caption_image=torch.tensor([i for i, row in enumerate(rows) for _ in owned[row]]),
    )
    return train_set, vocabulary


def draw_texts(data: TrainSet, query_share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One random text per image: units starts[i]..ends[i]-1, int64 [N] each.

    A random caption of the image, and the kind of text that the mix draws; of that, with probability query_share, a run
    of its queries, else a run of its sentences. Runs have a random length, because people ask in one sentence and
    captions have many.
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
    length = 1 + below(high - low)
    length = torch.where(torch.rand(len(length), generator=generator) < WHOLE_TEXTS, high - low, length)
    starts = low + below(high - low - length + 1)
    return starts, starts + length


def rarity(data: TrainSet, terms: int) -> Tensor:
    """Weight of every term as a label, float [terms]: log((1 + N) / (1 + n)), n of N images with it; 0 if rare."""
    first = data.first_unit[len(data.shares) * data.first_caption]
    bags = data.units.pick(first[:-1], first[1:])
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
    best: dict[str, Any]  # {"score", "val", "epoch", "weights"}; empty before the first epoch
    mined: Tensor | None  # int64 [C, H], of stage 2

    def state(self, origin: dict[str, Any]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "origin": origin,
            "weights": self.model.state_dict(),
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
        vocabulary: Vocabulary,
        val: tuple[Split, Captions, Images],
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        self.data, self.config, self.device = data, config, device
        self.scored_on, self.val_captions, self.val_images = val
        self.val_bags = text_bags(vocabulary, self.val_captions.finals)
        self.pixels = data.pixels.to(device)
        self.units = data.units.to(device)
        self.buildings, self.platforms = data.buildings.to(device), data.platforms.to(device)
        torch.manual_seed(seed_of(config.seed, "weights"))
        model = MixtureOfExperts(len(vocabulary), config).to(device)
        self.loop = Loop(model, [], 0, [], {}, None)
        self.rarity = rarity(data, len(vocabulary)).to(device)
        self.views: Tensor | None = None  # float [V, N, W], cached image features of stages 1 and 2
        self.schedule = [
            (stage, epoch)
            for stage, epochs in enumerate((config.stage0_epochs, config.stage1_epochs, config.stage2_epochs))
            for epoch in range(epochs)
        ]

    @property
    def model(self) -> MixtureOfExperts:
        return self.loop.model

    def texts(self, starts: Tensor, ends: Tensor) -> Bags:
        return self.units.pick(starts.to(self.device), ends.to(self.device))

    def begin_stage(self, stage: int) -> None:
        """Take up the best model so far and make the stage's optimizer; from stage 1 on only heads and gate learn."""
        if self.loop.best:
            self.model.load_state_dict(self.loop.best["weights"])
        model, config = self.model, self.config
        if stage == 0:
            filters = [p for p in model.image_trunk.parameters() if p.ndim == 4 and p.shape[1] > 3]
            known = set(filters)
            learning = [model.text_trunk, model.image_trunk, model.visual_words, model.expert(0)]
            parameters = [p for module in learning for p in module.parameters() if p not in known]
            self.loop.optimizers = [
                torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay),
                Muon(filters, lr=config.filter_learning_rate),
            ]
        else:
            parameters = [*model.experts.parameters(), *model.gate.parameters(), model.log_scale]
            self.loop.optimizers = [
                torch.optim.AdamW(parameters, lr=config.expert_learning_rate, weight_decay=config.weight_decay)
            ]
        self.loop.mined = None

    def cache_views(self) -> Tensor:
        """Trunk features of CACHED_VIEWS jittered copies of every training image, float [V, N, W]."""
        views = []
        for view in range(CACHED_VIEWS):
            generator = torch.Generator().manual_seed(seed_of(self.config.seed, "view", view))
            parts = []
            for rows in batches(torch.arange(len(self.data)), 256):
                on_device = rows.to(self.device)
                x = jitter(self.pixels[on_device], self.platforms[on_device], generator)
                parts.append(image_features(self.model, x, self.device))
            views.append(torch.cat(parts))
        return torch.stack(views)

    def mine(self) -> Tensor:
        """Hard negatives of every caption by the model as it stands, int64 [C, H] rows of images."""
        data = self.data
        firsts = torch.arange(len(data.caption_image)) * len(data.shares)
        whole = self.texts(data.first_unit[firsts], data.first_unit[firsts + 1])
        texts = fused_texts(self.model, text_features(self.model, whole, self.device))
        images = fused_images(self.model, image_features(self.model, self.pixels, self.device))
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

    def trunk_loss(self, rows: Tensor, texts: Bags, generator: torch.Generator) -> Tensor:
        """Stage 0: both trunks and the first expert, all platforms in one batch.

        Beside the contrast with several texts each, an image predicts the words of all its captions, through the text
        trunk's own embeddings: text as labels (Joulin et al. 2016; SuperClass, arXiv 2411.03313), which teaches a small
        network far more per image than the contrast alone.

        Args:
            rows: int64 [B], of images; texts: B texts, then B more, up to TEXTS_PER_IMAGE of each image.
        """
        model, at = self.model, rows.to(self.device)
        first = model.expert(0)
        x = jitter(self.pixels[at], self.platforms[at], generator)
        with precision(self.device):
            feature = model.image_trunk(x)
            text, image, words = first.text(model.text_trunk(texts)), first.image(feature), model.visual_words(feature)
        image, scale = image.float(), first.scale()
        each = [info_nce(part, image, self.buildings[at], scale) for part in text.float().split(len(rows))]
        logits = words.float() @ model.text_trunk.embedding.T
        return torch.stack(each).mean() + WORD_LOSS * F.cross_entropy(logits, self.word_targets(rows))

    def word_targets(self, rows: Tensor) -> Tensor:
        """The terms of all captions of images, weighted by rarity, float [B, terms]; rows sum to one, or are zero."""
        data = self.data
        first = data.first_unit[len(data.shares) * data.first_caption]
        bags = self.texts(first[rows], first[rows + 1])
        at = torch.repeat_interleave(torch.arange(len(rows), device=self.device), bags.offsets.diff())
        target = torch.zeros(len(rows), len(self.rarity), device=self.device)
        target[at, bags.ids] = self.rarity[bags.ids]
        return target / target.sum(1, keepdim=True).clamp_min(1e-6)

    def expert_loss(self, rows: Tensor, texts: Bags, view: Tensor, mined: Tensor | None) -> Tensor:
        """Stages 1 and 2: every expert on its own platform, plus the fused score on the mixed batch.

        The fused term is what trains the gate; it reaches the experts too, so that their scores are comparable on
        images of the other platforms.
        """
        model, views, rows = self.model, self.views, rows.to(self.device)
        assert views is not None
        with torch.no_grad():
            text_feature = model.text_trunk(texts).float()
        gates, text = model.gates(text_feature), model.each_text(text_feature)
        image = model.each_image(views[view, rows])
        hard = None if mined is None else model.each_image(views[view.unsqueeze(1), mined.clamp_min(0)])
        platforms, buildings = self.platforms[rows], self.buildings[rows]

        def contrast(texts: Tensor, images: Tensor, at: Tensor, scale: Tensor, hard: Tensor | None) -> Tensor:
            if hard is None or mined is None:
                return info_nce(texts, images, buildings[at], scale)
            return info_nce_hard(texts, images, buildings[at], scale, hard, mined[at] >= 0)

        everything = torch.arange(len(rows), device=self.device)
        fused_hard = None if hard is None else hard.flatten(2)
        loss = contrast(model.weighted(gates, text), image.flatten(1), everything, model.scale(), fused_hard)
        for k in range(0 if model.unified else len(PLATFORMS)):
            at = everything[platforms == k]
            if len(at) > 1:
                own_hard = None if hard is None else hard[at, :, k]
                own = contrast(text[at, k], image[at, k], at, model.expert(k).scale(), own_hard)
                loss = loss + own * (len(at) / len(rows))
        return loss

    def run_epoch(self, stage: int, epoch: int, epochs: int) -> dict[str, Any]:
        """One pass over the captioned images, each with a random text of its own; returns the line of metrics."""
        seed = seed_of(self.config.seed, "epoch", stage, epoch)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # word dropout
        optimizers = self.loop.optimizers
        rates = [optimizer.defaults["lr"] for optimizer in optimizers]
        model = self.model.train()
        if stage > 0:
            model.eval()  # frozen trunks keep their batch statistics; heads and gate have nothing that depends on it
        size = self.config.batch if stage == 0 else EXPERT_BATCHES * self.config.batch
        parts = list(batches(torch.randperm(len(self.data), generator=generator), size))
        texts_per_image = TEXTS_PER_IMAGE if stage == 0 else 1
        drawn = [draw_texts(self.data, self.config.query_share, generator) for _ in range(texts_per_image)]
        starts, ends = torch.stack([start for start, _ in drawn]), torch.stack([end for _, end in drawn])
        captions = (torch.searchsorted(self.data.first_unit, starts[0], right=True) - 1) // len(self.data.shares)
        view = torch.randint(CACHED_VIEWS, (len(self.data),), generator=generator)
        total = 0.0
        for step, rows in enumerate(parts):
            factor = one_cycle((epoch * len(parts) + step) / (epochs * len(parts)))
            for optimizer, rate in zip(optimizers, rates, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = rate * factor
            texts = self.texts(starts[:, rows].flatten(), ends[:, rows].flatten())
            if stage == 0:
                loss = self.trunk_loss(rows, texts, generator)
            else:
                mined = None if self.loop.mined is None else self.loop.mined[captions[rows].to(self.device)]
                loss = self.expert_loss(rows, texts, view[rows].to(self.device), mined)
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(
                    f"The loss became {value} in stage {stage}, epoch {epoch + 1}: lower train.learning_rate."
                )
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            total += value * len(rows)
        if stage == 0:
            model.share_first_expert()
        return {"stage": stage, "epoch": epoch + 1, "loss": total / len(self.data), **self.validate()}

    def validate(self) -> dict[str, Any]:
        """Recall on val and what the gate does there: mean entropy in nats, mean weight per expert."""
        features = text_features(self.model, self.val_bags, self.device)
        texts = fused_texts(self.model, features)
        images = fused_images(self.model, image_features(self.model, self.val_images.pixels, self.device))
        found = report(texts, images, self.val_captions, self.val_images)
        with torch.no_grad():
            gates = self.model.gates(features)
        entropy = float(-(gates * gates.clamp_min(1e-9).log()).sum(1).mean())
        weights = dict(zip(PLATFORMS, gates.mean(0).tolist(), strict=True))
        scores = {"t2i": found["t2i"], "i2t": found["i2t"]}
        return {"scored_on": self.scored_on, self.scored_on: scores, "gate": {"entropy": entropy, **weights}}

    def run(self, after_epoch: Callable[[dict[str, Any]], None]) -> None:
        """Everything that is left of the schedule."""
        counts = [self.config.stage0_epochs, self.config.stage1_epochs, self.config.stage2_epochs]
        for stage, epoch in self.schedule[self.loop.epochs_done :]:
            if epoch == 0:
                self.begin_stage(stage)
                if stage == 2:
                    self.loop.mined = self.mine()
            if stage > 0 and self.views is None:
                self.views = self.cache_views()
            line = self.run_epoch(stage, epoch, counts[stage])
            self.loop.metrics.append(line)
            self.loop.epochs_done += 1
            score = line[self.scored_on]["t2i"]["score"]
            if not self.loop.best or score > self.loop.best["score"]:
                weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
                self.loop.best = {"score": score, "line": json.dumps(line), "weights": weights}
            after_epoch(line)


def load_data(
    version: Version, config: TrainConfig
) -> tuple[TrainSet, Vocabulary, tuple[Split, Captions, Images], list[str]]:
    """Train set, vocabulary, what checkpoints are chosen on, and remarks for the model card.

    Raises:
        TrainingError: the train split cannot be trained on.
        DatasetError: a shard or an image cannot be read.
    """
    notes = []
    captions = load_captions(version, "train")
    images = load_images(version, "train", config.image_size, augmented=True)
    data, vocabulary = make_train_set(images, captions, config.texts)
    scored_on: Split = "val"
    scored = load_captions(version, "val"), load_images(version, "val", config.image_size, augmented=False)
    if len(scored[0]) == 0 or len(scored[1]) == 0:
        notes.append(
            "The val split has no captioned buildings: the checkpoint was chosen by how well it fits the train split, "
            "and nothing here tells how it does on unseen buildings."
        )
        scored_on, scored = "train", (captions, load_images(version, "train", config.image_size, augmented=False))
    return data, vocabulary, (scored_on, *scored), notes


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
    say = progress or print_progress
    where = open_device(device)
    version = open_version(dataset)
    if config.stage0_epochs + config.stage1_epochs + config.stage2_epochs == 0:
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
    say("read", 1, 1, f"{len(data)} captioned images, {len(data.caption_image)} captions, {len(vocabulary)} terms")
    for note in notes:
        say("read", 1, 1, note)
    with memory_errors("training"):
        trainer = Trainer(data, vocabulary, val, config, where)
        if resume and (run / LOOP_STATE).exists():
            restore(trainer, run, origin)

        def after_epoch(line: dict[str, Any]) -> None:
            write_metrics(run, trainer.loop.metrics)
            write_tensors(run / LOOP_STATE, trainer.loop.state(origin))
            seen = line["scored_on"]
            recall = line[seen]["t2i"]
            message = f"loss {line['loss']:.3f}, {seen} recall@1 {recall['r1']:.1f} %, recall@10 {recall['r10']:.1f} %"
            say(STAGES[line["stage"]], trainer.loop.epochs_done, len(trainer.schedule), message)

        trainer.run(after_epoch)
    best = json.loads(trainer.loop.best["line"])
    trainer.model.load_state_dict(trainer.loop.best["weights"])
    parameters = sum(p.numel() for p in trainer.model.parameters())
    result = {
        "version": version.name,
        "best": best,
        "epochs": trainer.loop.epochs_done,
        "parameters": parameters,
        "notes": notes,
    }
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
    if state["origin"] != origin:
        what = "another configuration" if state["origin"]["dataset"] == origin["dataset"] else "other data"
        raise TrainingError(f"{run / LOOP_STATE} was trained with {what}: {advice}")
    loop = trainer.loop
    loop.epochs_done = state["epochs_done"]
    loop.metrics, loop.best = json.loads(state["metrics"]), state["best"]
    trainer.begin_stage(trainer.schedule[loop.epochs_done - 1][0])
    loop.mined = state["mined"]
    trainer.model.load_state_dict(state["weights"])
    for optimizer, saved in zip(loop.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
