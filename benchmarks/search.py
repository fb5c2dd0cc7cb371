"""Fused search beside three searches and a merge: 55,000 images, three experts of 256 dimensions.

Run: python benchmarks/search.py [--images N] [--width D] [--device cuda]        Prints a table, then one JSON line.

The fused score is linear in the image, so one product of [g_k t_k]_k with [v_k]_k finds what the mixture finds. The
peers keep an index per expert. "merged whole" scores every image in each and adds the three up under the gate: the only
merge of three searches that always gives the ranking of the mixture. "merged from the best 100" joins the best of each
list, an image that a list lacks counting as its last, which is what separate indexes do; it can be wrong, and the table
says for how many queries. A ranking is another if it differs where scores differ by more than 1e-6. Queries come all at
once, and one at a time. Contestants take turns.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

sys.path.insert(0, str(Path(__file__).parents[1]))

from experts.search import nearest

IMAGES, WIDTH, QUERIES, TOP, LISTED, ROUNDS, ALONE, SEED = 55_000, 256, 192, 10, 100, 5, 16, 1652


@dataclass(frozen=True)
class World:
    """Per expert: texts float [3, Q, D], images float [3, G, D], unit vectors; gates float [Q, 3]; and both fused."""

    texts: Tensor
    images: Tensor
    gates: Tensor
    fused_texts: Tensor
    fused_images: Tensor


def draw(images: int, width: int, device: str) -> World:
    generator = torch.Generator().manual_seed(SEED)
    centres = torch.randn(images // 50 + 1, width, generator=generator)
    shown = torch.arange(images) % len(centres)
    asked = torch.arange(QUERIES) % len(centres)

    def view(rows: Tensor) -> Tensor:
        return normalize(centres[rows] + 1.5 * torch.randn(len(rows), width, generator=generator), dim=1)

    texts = torch.stack([view(asked) for _ in range(3)])
    gallery = torch.stack([view(shown) for _ in range(3)])
    gates = torch.randn(QUERIES, 3, generator=generator).softmax(dim=1)
    fused = (gates.T.unsqueeze(2) * texts).transpose(0, 1).flatten(1)
    whole = gallery.transpose(0, 1).flatten(1).contiguous()
    return World(*(tensor.to(device) for tensor in (texts, gallery, gates, fused, whole)))


def fused(world: World, part: slice) -> Tensor:
    return nearest(world.fused_texts[part], world.fused_images, TOP)[0]


def merged_whole(world: World, part: slice) -> Tensor:
    total = torch.zeros(len(world.gates[part]), world.images.shape[1], device=world.gates.device)
    for k in range(3):
        total += world.gates[part, k : k + 1] * (world.texts[k, part] @ world.images[k].T)
    return total.topk(TOP, dim=1).indices.cpu()


def merged_lists(world: World, part: slice) -> Tensor:
    gates = world.gates[part]
    total = torch.zeros(len(gates), world.images.shape[1], device=gates.device)
    for k in range(3):
        best, rows = (world.texts[k, part] @ world.images[k].T).topk(LISTED, dim=1)
        last = best[:, -1:]
        total += gates[:, k : k + 1] * last
        total.scatter_add_(1, rows, gates[:, k : k + 1] * (best - last))
    return total.topk(TOP, dim=1).indices.cpu()


CONTESTANTS: dict[str, Callable[[World, slice], Tensor]] = {
    "fused, one index": fused,
    "three, merged whole": merged_whole,
    f"three, merged from the best {LISTED}": merged_lists,
}


def seconds(run: Callable[[World, slice], Tensor], world: World, parts: list[slice]) -> float:
    """Per query."""
    start = time.perf_counter()
    for part in parts:
        run(world, part)  # ends on the CPU, so that nothing is left to wait for
    queries: int = sum(part.stop - part.start for part in parts)
    return (time.perf_counter() - start) / queries


def others(world: World, rows: Tensor, expected: Tensor) -> int:
    """Queries whose ranking is another than expected: int64 [Q, TOP] each."""
    rows, expected = rows.to(world.gates.device), expected.to(world.gates.device)
    texts = world.fused_texts.double().unsqueeze(1)
    ours, right = ((world.fused_images[part].double() * texts).sum(dim=2) for part in (rows, expected))
    return int(((ours - right).abs() > 1e-6).any(dim=1).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--width", type=int, default=WIDTH, help="dimensions of each expert")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    world = draw(args.images, args.width, args.device)
    whole = [slice(0, QUERIES)]
    alone = [slice(q, q + 1) for q in range(ALONE)]
    texts, images = world.fused_texts.double(), world.fused_images.double()
    right = torch.stack([(images @ text).topk(TOP).indices for text in texts])  # no shortcut
    del images
    spent: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in CONTESTANTS}
    for run in CONTESTANTS.values():
        run(world, whole[0])
    for _ in range(ROUNDS):
        for name, run in CONTESTANTS.items():
            spent[name][0].append(seconds(run, world, whole))
            spent[name][1].append(seconds(run, world, alone))
    print(f"{args.images} images, 3 x {args.width} dimensions, {QUERIES} queries, {args.device}, top {TOP}")
    print(f"{'':<32}{'ms/query':>10}{'spread':>16}{'alone, ms':>11}{'spread':>16}{'other rankings':>16}")
    result: dict[str, object] = {"benchmark": "search", "images": args.images, "width": args.width}
    for name, run in CONTESTANTS.items():
        wrong = others(world, run(world, whole[0]), right)
        row = f"{name:<32}"
        for times, wide in zip(spent[name], (10, 11), strict=True):
            low, middle, high = (1000 * f(times) for f in (min, statistics.median, max))
            row += f"{middle:>{wide}.3f}{low:>9.3f}-{high:<6.3f}"
        print(f"{row}{wrong:>15}")
        together, single = (round(1000 * statistics.median(times), 3) for times in spent[name])
        result[name] = {"ms_per_query": together, "ms_alone": single, "other_rankings": wrong}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
