"""Recall by building of 5,000 texts and 5,000 images, both ways: ours beside the official GeoText-1652 loop.

Run: python benchmarks/recall.py [--size N]        Prints a table, then one JSON line.

The peer does, step by step, what `itm_eval` in Method/re_bbox.py of MultimodalGeo/GeoText-1652 (0d22fe83) does: sort
every row, replace one index after the other by its building, look for the first right one; its `txt_r*` is image to
text, its `img_r*` text to image. It takes labels as `re_eval_dataset` of that repository makes them, which gives the
first image of every building to the building before; both score those, and ours scores the right labels as well.
Scores are all different, for where two are equal the peer ranks them as its sort happens to. One thread each.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from experts.evaluate import recall

SIZE, IMAGES_OF_BUILDING, ROUNDS, SEED = 5_000, 5, 3, 1652
Scores = npt.NDArray[np.float32]


def official_labels(image_ids: list[str]) -> dict[int, int]:
    """Image row -> building, as the official loader numbers them: it stores the number before it moves on."""
    labels: dict[int, int] = {}
    building, before = 0, image_ids[0][:4]
    for row, image_id in enumerate(image_ids):
        labels[row] = building
        if image_id[:4] != before:
            before = image_id[:4]
            building += 1
    return labels


def official_ranks(
    scores: Scores, building_of_column: list[int], building_of_row: list[int]
) -> npt.NDArray[np.float64]:
    ranks = np.zeros(len(scores))
    for row, one in enumerate(scores):
        order = np.argsort(one)[::-1]
        for place in range(len(order)):
            order[place] = building_of_column[order[place]]
        ranks[row] = np.where(order == building_of_row[row])[0][0]
    return ranks


def official(i2t: Scores, t2i: Scores, image_of_text: list[int], building_of: dict[int, int]) -> dict[str, float]:
    """The loop of the official evaluation; raises IndexError where a query's building is in no column."""
    of_text = [building_of[image] for image in image_of_text]
    of_image = [building_of[image] for image in range(len(building_of))]
    found = {}
    for way, ranks in (
        ("txt", official_ranks(i2t, of_text, of_image)),
        ("img", official_ranks(t2i, of_image, of_text)),
    ):
        for k in (1, 5, 10):
            found[f"{way}_r{k}"] = 100.0 * len(np.where(ranks < k)[0]) / len(ranks)
    return found


def ours(i2t: Scores, t2i: Scores, of_text: list[int], of_image: list[int]) -> dict[str, float]:
    back, there = recall(i2t, of_image, of_text), recall(t2i, of_text, of_image)
    return {f"{way}_{k}": v for way, found in (("txt", back), ("img", there)) for k, v in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=SIZE, help="texts, and images")
    size = parser.parse_args().size
    torch.set_num_threads(1)
    generator = np.random.default_rng(SEED)
    image_ids = [f"{row // IMAGES_OF_BUILDING:04}/{row % IMAGES_OF_BUILDING}.jpeg" for row in range(size)]
    image_of_text = list(range(size))
    true = [row // IMAGES_OF_BUILDING for row in range(size)]
    labels = official_labels(image_ids)
    as_labelled = [labels[row] for row in range(size)]
    t2i = generator.standard_normal((size, size), dtype=np.float32)
    t2i += 2.5 * (np.array(true)[:, None] == np.array(true)[None, :])
    i2t = np.ascontiguousarray(t2i.T)
    spent: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        found = ours(i2t, t2i, as_labelled, as_labelled)
        spent.append(time.perf_counter() - start)
    start = time.perf_counter()
    expected = official(i2t, t2i, image_of_text, labels)
    theirs, mine = time.perf_counter() - start, statistics.median(spent)
    right = ours(i2t, t2i, true, true)
    print(f"{size} texts, {size} images")
    print(f"{'':<34}" + "".join(f"{name:>9}" for name in expected) + f"{'seconds':>10}")
    for who, row, seconds in (
        ("official loop, official labels", expected, theirs),
        ("georefine, official labels", found, mine),
        ("georefine, right labels", right, mine),
    ):
        print(f"{who:<34}" + "".join(f"{row[name]:>9.2f}" for name in expected) + f"{seconds:>10.3f}")
    same = found == expected
    print(
        f"same numbers: {same}; {theirs / mine:.0f} times as fast ({theirs / max(spent):.0f}-{theirs / min(spent):.0f})"
    )
    result = {
        "benchmark": "recall",
        "size": size,
        "same": same,
        "seconds": round(mine, 4),
        "official_s": round(theirs, 2),
    }
    print(json.dumps({**result, "times": round(theirs / mine, 1)}))
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
