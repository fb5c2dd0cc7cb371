"""Augmented tiles per second in one process, beside plain albumentations (decode + D4 + rotate + crop + jitter + JPEG).

Run: python benchmarks/augment.py        Prints a table, then one JSON line.
"""

import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from augment.satellite import augment_tile
from schemas.config import AugmentConfig

ROUNDS = 3
SECONDS = 1.0


def tile(side: int) -> bytes:
    """A JPEG of smooth blotches with fine noise, about as hard to code as a photograph."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (side // 16, side // 16, 3), np.uint8)).resize((side, side))
    noisy = np.asarray(coarse).astype(np.int16) + random.integers(-12, 13, (side, side, 1))
    out = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=92)
    return out.getvalue()


def plain(side: int, data: bytes) -> Callable[[int], None]:
    """The peer: the usual albumentations pipeline, JPEG through OpenCV."""
    import albumentations as A
    import cv2

    pipeline = A.Compose(
        [
            A.D4(p=1),
            A.Rotate(limit=45, p=1),
            A.RandomResizedCrop(size=(side, side), scale=(0.64, 1.0), ratio=(1, 1), p=1),
            A.RandomBrightnessContrast(p=1),
        ],
        bbox_params=A.BboxParams(format="yolo"),
    )
    boxes = np.array([[0.5, 0.5, 0.3, 0.3, 0]])

    def run(i: int) -> None:
        pipeline.set_random_seed(i)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        made = pipeline(image=image, bboxes=boxes)["image"]
        cv2.imencode(".jpg", cv2.cvtColor(made, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])

    return run


def ours(data: bytes, weather: float) -> Callable[[int], None]:
    config = AugmentConfig(weather=weather)

    def run(i: int) -> None:
        augment_tile(data, [(0.5, 0.5, 0.3, 0.3)], image_id="tile", variant=i, seed=0, config=config)

    return run


def rate(run: Callable[[int], None]) -> float:
    """Calls per second of processor time (other work on the machine does not count)."""
    count, start = 0, time.process_time()
    while (spent := time.process_time() - start) < SECONDS:
        run(count)
        count += 1
    return count / spent


def main() -> None:
    results: dict[str, float] = {}
    print(f"{'tiles/s, one process':<32}{'128 px':>9}{'512 px':>9}")
    peers: dict[int, dict[str, Callable[[int], None]]] = {}
    for side in (128, 512):
        data = tile(side)
        peers[side] = {
            "georefine": ours(data, AugmentConfig().weather),
            "georefine, always weather": ours(data, 1),
            "plain albumentations": plain(side, data),
        }
    for name in peers[128]:
        best = {side: max(rate(peers[side][name]) for _ in range(ROUNDS)) for side in peers}
        results |= {f"{name} {side}": round(value, 1) for side, value in best.items()}
        print(f"{name:<32}{best[128]:>9.0f}{best[512]:>9.0f}")
    print(json.dumps({"benchmark": "augment", "tiles_per_cpu_second": results}))


if __name__ == "__main__":
    main()
