"""Step time of the trainer's loop beside the bare forward, backward and optimizer step of the same modules.

Run: python benchmarks/train_step.py                      all stages of the compact encoders, on the CPU
     python benchmarks/train_step.py --device cuda --images 20000

The bare loop gets every batch ready-made: pixels jittered, texts picked, word targets laid out, learning rates set.
It reports no loss. What the trainer's loop does beside that (drawing texts, jitter, schedule, bookkeeping, a check of
the loss) is its overhead. Scoring on val and the caching of features, once an epoch or a run, are outside of both. The
two take turns, epoch by epoch, from the same weights, after a warm-up of each; the median counts: of processor time on
the CPU, where other jobs would spoil the clock's, of wall time on a GPU. Prints a table, then one JSON line.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from experts.device import open_device, precision
from experts.encoders import Bags
from experts.examples import Captions, Images
from experts.losses import info_nce, info_nce_hard
from experts.routers import route
from experts.trainer import GATE_LOSS, STAGES, WORD_LOSS, Trainer, ValSet, batches, jitter, make_train_set
from schemas.config import TextMix, TrainConfig
from schemas.records import PLATFORMS

WORDS = 1500
ROUNDS = 5


def campus(images: int, size: int) -> tuple[Images, Captions]:
    """Noise with captions of eight random sentences, four images to a building: for what a step costs."""
    rng = random.Random(0)
    ids = tuple(f"{i:06}" for i in range(images))
    buildings = tuple(f"{i // 4:05}" for i in range(images))
    platforms = tuple(PLATFORMS[i % 3] for i in range(images))
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8)
    texts = tuple(". ".join(" ".join(f"w{rng.randrange(WORDS)}" for _ in range(10)) for _ in range(8)) for _ in ids)
    queries = tuple(tuple(text.split(". ")[:3]) for text in texts)
    return Images(ids, buildings, platforms, pixels), Captions(
        ids, ids, buildings, platforms, texts, texts, texts, queries
    )


class StepTrainer(Trainer):
    """The trainer, which neither scores nor changes its learning rates between the two loops."""

    def validate(self, stage: int) -> dict[str, object]:
        return {}


def bare_trunk(trainer: Trainer) -> Callable[[], None]:
    """The steps of an epoch of stage 0, laid out."""
    model, data = trainer.compact, trainer.data
    generator = torch.Generator().manual_seed(0)
    steps: list[tuple[Tensor, Bags, Tensor, Tensor]] = []
    starts, ends = trainer.draw(0, generator)
    for rows in batches(torch.randperm(len(data), generator=generator), trainer.batch_size(0)):
        texts = trainer.texts(starts[:, rows].flatten(), ends[:, rows].flatten())
        assert isinstance(texts, Bags)
        pixels = jitter(trainer.pixels(rows), data.platforms[rows], generator)
        steps.append((pixels, texts, trainer.word_targets(rows), trainer.buildings[rows.to(trainer.device)]))
    first = model.expert(0)

    def loss(pixels: Tensor, texts: Bags, targets: Tensor, buildings: Tensor) -> Tensor:
        with precision(trainer.device):
            feature = model.image_trunk(pixels)
            text, image = first.text(model.text_trunk(texts)), first.image(feature)
            words = model.visual_words(feature)
        scale, some = first.scale(), text.float().split(len(pixels))
        contrast = torch.stack([info_nce(one, image.float(), buildings, scale) for one in some]).mean()
        logits = words.float() @ model.text_trunk.embedding.T
        return contrast + WORD_LOSS * F.cross_entropy(logits, targets)

    def epoch() -> None:
        model.train()
        for step in steps:
            advance(trainer, loss(*step))

    return epoch


def bare_experts(trainer: Trainer, stage: int) -> Callable[[], None]:
    """The steps of an epoch of stage 1 or 2, laid out."""
    model, data, views = trainer.compact, trainer.data, trainer.views
    assert views is not None
    generator = torch.Generator().manual_seed(0)
    starts, ends = trainer.draw(stage, generator)
    steps = []
    for rows in batches(torch.randperm(len(data), generator=generator), trainer.batch_size(stage)):
        at = rows.to(trainer.device)
        mined = trainer.loop.mined
        own = None if mined is None else mined[trainer.captions_of(starts[0, rows]).to(trainer.device)]
        hard = None if own is None else views[0, own.clamp_min(0)]
        texts = trainer.texts(starts[0, rows], ends[0, rows])
        steps.append((texts, views[0, at], hard, own, trainer.platforms[at], trainer.buildings[at]))

    def epoch() -> None:
        model.eval()
        for texts, features, hard, own, platforms, buildings in steps:
            with precision(trainer.device):
                with torch.no_grad():
                    text_feature = model.text_trunk(texts)
                scores, text = model.gate_scores(text_feature).float(), model.each_text(text_feature).float()
                image = model.each_image(features).float()
                found = None if hard is None else model.each_image(hard).float()
            fused = model.weighted(route(model.router, scores), text)

            def contrast(t: Tensor, v: Tensor, b: Tensor, s: Tensor, h: Tensor | None, real: Tensor | None) -> Tensor:
                return info_nce(t, v, b, s) if h is None or real is None else info_nce_hard(t, v, b, s, h, real)

            real = None if own is None else own >= 0
            together = None if found is None else found.flatten(2)
            loss = contrast(fused, image.flatten(1), buildings, model.scale(), together, real)
            loss = loss + GATE_LOSS * F.cross_entropy(scores, platforms)
            for k in range(len(PLATFORMS)):
                at = (platforms == k).nonzero().squeeze(1)
                own_hard, own_real = (None, None) if found is None or real is None else (found[at, :, k], real[at])
                part = contrast(text[at, k], image[at, k], buildings[at], model.expert(k).scale(), own_hard, own_real)
                loss = loss + part * (len(at) / len(buildings))
            advance(trainer, loss)

    return epoch


def advance(trainer: Trainer, loss: Tensor) -> None:
    """Backward and a step of every optimizer."""
    for optimizer in trainer.loop.optimizers:
        optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for optimizer in trainer.loop.optimizers:
        optimizer.step()


def seconds(trainer: Trainer, epoch: Callable[[], object]) -> float:
    """Time of an epoch, from the same weights each time: of the processor on the CPU, else of the clock."""
    clock = time.process_time if trainer.device.type == "cpu" else time.perf_counter
    weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    start = clock()
    epoch()
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    elapsed = clock() - start
    trainer.model.load_state_dict(weights)
    return elapsed


def measure(trainer: Trainer, stage: int, rounds: int) -> tuple[float, float]:
    """Median seconds of an epoch of the trainer's loop and of the bare loop, taken in turns."""
    trainer.begin_stage(stage)
    if stage > 0 and trainer.views is None:
        trainer.views = trainer.cache_views()
    if stage == 2:
        trainer.loop.mined = trainer.mine()
    bare = bare_trunk(trainer) if stage == 0 else bare_experts(trainer, stage)
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        ours = seconds(trainer, lambda: trainer.run_epoch(stage, 0, 1))
        theirs = seconds(trainer, bare)
        if turn > 0:
            times[0].append(ours)
            times[1].append(theirs)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=1, help="of torch, on the CPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = TrainConfig()
    images, captions = campus(args.images, config.image_size)
    data, vocabulary = make_train_set(images, captions, TextMix())
    trainer = StepTrainer(data, vocabulary, ValSet("train", captions, images, ()), config, open_device(args.device))
    rows = []
    print(f"{'stage':<16}{'pairs/step':>11}{'steps':>7}{'trainer ms':>12}{'bare ms':>10}{'overhead':>10}")
    for stage, name in enumerate(STAGES):
        steps = len(list(batches(torch.arange(len(data)), trainer.batch_size(stage))))
        ours, bare = (1e3 * value / steps for value in measure(trainer, stage, args.rounds))
        rows.append(
            {"stage": name, "trainer_ms": round(ours, 2), "bare_ms": round(bare, 2), "ratio": round(ours / bare, 3)}
        )
        print(f"{name:<16}{trainer.batch_size(stage):>11}{steps:>7}{ours:>12.1f}{bare:>10.1f}{ours / bare - 1:>10.1%}")
    print(json.dumps({"benchmark": "train_step", "device": args.device, "images": args.images, "stages": rows}))


if __name__ == "__main__":
    main()
