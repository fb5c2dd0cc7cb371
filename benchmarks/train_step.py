"""The trainer's loop beside the bare forward, backward and optimizer step of the same modules.

Run: python benchmarks/train_step.py [--device cuda] [--pairs 9]                       A table, then one JSON line.

Stages 0 and 1 of the compact encoders at the demo's sizes, on made-up images and captions. The bare loop is given the
batches of an epoch, ready on the device: texts drawn, images jittered, word targets or cached features looked up. The
trainer makes them as it goes. Both run in turn; on the CPU it is the processor's time of one thread, on CUDA the
clock's. The interval holds the median of the ratio with 95 % or more (order statistics, no assumption about noise).
"""

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from experts.device import precision
from experts.encoders import Bags, Texts
from experts.examples import Captions, Images
from experts.trainer import WORD_LOSS, Trainer, ValSet, batches, jitter, make_train_set
from schemas.config import TrainConfig
from schemas.records import PLATFORMS

IMAGES, VIEWS, WORDS = 640, 10, 800
EPOCHS = {0: 1, 1: 6}  # of a measurement; an epoch of stage 1 is short


def made_up(config: TrainConfig) -> tuple[Images, Captions]:
    """As many images of every building, one caption of five sentences and two queries each."""
    draw = random.Random(0)
    words = [f"word{n}" for n in range(WORDS)]

    def sentence() -> str:
        return " ".join(words[int(WORDS * draw.random() ** 2)] for _ in range(12))

    ids = tuple(f"{n:05}" for n in range(IMAGES))
    buildings = tuple(str(n // VIEWS) for n in range(IMAGES))
    platforms = tuple(PLATFORMS[n % VIEWS % 3] for n in range(IMAGES))
    side = config.image_size
    pixels = torch.randint(0, 256, (IMAGES, 3, side, side), dtype=torch.uint8, generator=torch.Generator())
    texts = tuple(". ".join(sentence() for _ in range(5)) for _ in ids)
    queries = tuple((sentence(), sentence()) for _ in ids)
    captions = Captions(tuple(f"{i}#0" for i in ids), ids, buildings, platforms, texts, texts, texts, queries)
    return Images(ids, buildings, platforms, pixels), captions


@dataclass(frozen=True)
class Ready:
    """A step's inputs. images: jittered pixels in stage 0, trunk features in stage 1; words: stage 0's targets."""

    rows: Tensor
    texts: Bags | Texts
    images: Tensor
    words: Tensor | None


def ready_batches(trainer: Trainer, stage: int) -> list[Ready]:
    """The batches of an epoch, as the trainer makes them."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(trainer.data), generator=generator)
    starts, ends = trainer.draw(stage, generator)
    found = []
    for rows in batches(order, trainer.batch_size(stage)):
        texts = trainer.texts(starts[:, rows].flatten(), ends[:, rows].flatten())
        if stage == 0:
            x = jitter(trainer.pixels(rows), trainer.data.platforms[rows], generator)
            found.append(Ready(rows, texts, x, trainer.word_targets(rows)))
        else:
            found.append(Ready(rows, texts, trainer.image_feature(stage, rows, rows * 0, generator), None))
    return found


def loss_of(trainer: Trainer, batch: Ready) -> Tensor:
    """The trainer's loss of a ready batch."""
    model = trainer.compact
    with precision(trainer.device):
        if batch.words is None:
            with torch.no_grad():
                feature = model.text_trunk(batch.texts)
            scores, text, image = model.gate_scores(feature), model.each_text(feature), model.each_image(batch.images)
            return trainer.pair_loss(batch.rows, scores.float(), text.float(), image.float(), None, None)
        first, feature = model.expert(0), model.image_trunk(batch.images)
        text, image = first.text(model.text_trunk(batch.texts)), first.image(feature)
        words = model.visual_words(feature)
    predicted = F.cross_entropy(words.float() @ model.text_trunk.embedding.T, batch.words)
    return trainer.trunk_contrast(batch.rows, text.float(), image.float()) + WORD_LOSS * predicted


def bare(trainer: Trainer, stage: int, ready: list[Ready]) -> None:
    """Nothing but the loss of ready batches, its gradient and the step."""
    trainer.model.train(stage == 0)
    for batch in ready:
        loss = loss_of(trainer, batch)
        for optimizer in trainer.loop.optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in trainer.loop.optimizers:
            optimizer.step()


def seconds(run: Callable[[], object], device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def interval(ratios: list[float]) -> tuple[float, float]:
    """The narrowest pair of order statistics that holds the median with 95 % or more; it takes six ratios at least."""
    n, ranked = len(ratios), sorted(ratios)
    outside = [sum(math.comb(n, k) for k in range(below + 1)) / 2**n for below in range(n)]
    rank = max(1, sum(2 * share <= 0.05 for share in outside))
    return ranked[rank - 1], ranked[-rank]


def measure(trainer: Trainer, stage: int, pairs: int) -> dict[str, float]:
    """Milliseconds per step of both loops, and their ratio."""
    device, epochs = trainer.device, EPOCHS[stage]
    trainer.begin_stage(stage)
    if stage > 0:
        trainer.views = trainer.cache_views()
    ready = ready_batches(trainer, stage)

    def loop() -> None:
        for _ in range(epochs):
            trainer.pass_over(stage, 0, 1)

    def alone() -> None:
        for _ in range(epochs):
            bare(trainer, stage, ready)

    loop()  # warm up
    alone()
    taken = [(seconds(loop, device), seconds(alone, device)) for _ in range(pairs)]
    steps = epochs * len(ready)
    ratios = [ours / theirs for ours, theirs in taken]
    low, high = interval(ratios)
    return {
        "stage": stage,
        "batch": len(ready[0].rows),
        "trainer_ms": 1e3 * median(ours for ours, _ in taken) / steps,
        "bare_ms": 1e3 * median(theirs for _, theirs in taken) / steps,
        "ratio": median(ratios),
        "low": low,
        "high": high,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=9, help="of measurements, seven or more")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config, device = TrainConfig(), torch.device(options.device)
    images, captions = made_up(config)
    data, vocabulary = make_train_set(images, captions, config.texts)
    trainer = Trainer(data, vocabulary, ValSet("val", captions, images, captions.finals), config, device)
    rows = [measure(trainer, stage, options.pairs) for stage in EPOCHS]
    print(f"{'stage':<8}{'batch':>7}{'trainer ms':>13}{'bare ms':>11}{'ratio':>9}   interval of {options.pairs} pairs")
    for row in rows:
        print(
            f"{row['stage']:<8.0f}{row['batch']:>7.0f}{row['trainer_ms']:>13.2f}{row['bare_ms']:>11.2f}"
            f"{row['ratio']:>9.3f}   {row['low']:.3f} .. {row['high']:.3f}"
        )
    print(json.dumps({"benchmark": "train_step", "device": options.device, "torch": torch.__version__, "stages": rows}))


if __name__ == "__main__":
    main()
