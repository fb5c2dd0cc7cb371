"""Images into Parquet shards: georefine's steps beside Hugging Face `datasets` (map + to_parquet) and bare pyarrow.

Run: python benchmarks/shards.py [--rows 20000] [--kilobytes 40] [--rounds 3]
The same JPEG files and captions go through all of them, round by round, in one process and in one per core; every one
reads the files, finds width, height and SHA-256, and writes the same columns. Ours also reads the files a first time,
for the shard's key, refuses pictures that are not whole, writes in one step with fsync, and makes a checksum of the
shard. Of every way the fastest round counts: others that use the machine only add to it. Prints a table, then one JSON
line.
"""

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from data.hashes import FileHash, Hashes
from data.spill import Rows
from flows.jobs import ShardJob
from flows.steps import make_shard
from schemas.config import Config
from schemas.records import SourceCaption, SourceImage
from schemas.tables import CAPTIONS, IMAGES

PER_BUILDING, SHARDS = 54, 6
TEXT = "In the center of the image is a large, modern office building with several floors and a white facade."


def write_files(folder: Path, rows: int, kilobytes: int) -> list[SourceImage]:
    """So many JPEGs of about so many kilobytes in the official folders of the test split, no two the same."""
    noise = np.random.default_rng(0)
    base = []
    for _ in range(8):
        coarse = Image.fromarray(noise.integers(0, 256, (24, 24, 3), np.uint8)).resize((384, 384))
        grain = np.asarray(coarse).astype(np.int16) + noise.integers(-14, 15, (384, 384, 1))
        picture, quality = Image.fromarray(grain.clip(0, 255).astype(np.uint8)), 96
        data = b""
        while quality > 5 and (not data or len(data) > kilobytes * 1000):
            out = io.BytesIO()
            picture.save(out, "JPEG", quality=quality)
            data, quality = out.getvalue(), quality - 3
        base.append(data)
    images = []
    for row in range(rows):
        building = f"{row // PER_BUILDING:04d}"
        path = f"test/gallery_drone/{building}/image-{row % PER_BUILDING + 1:02d}.jpeg"
        data = base[row % len(base)]
        data = data[:2] + b"\xff\xfe\x00\x0a" + f"{row:08d}".encode() + data[2:]
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        images.append(SourceImage(path, building, "drone", "test", "gallery", len(data)))
    return images


def parts(images: Sequence[SourceImage]) -> list[list[SourceImage]]:
    size = -(-len(images) // SHARDS)
    return [list(images[start : start + size]) for start in range(0, len(images), size)]


def row_of(folder: Path, image: SourceImage) -> dict[str, Any]:
    """The columns of the images table, by the shortest way."""
    data = (folder / image.path).read_bytes()
    width, height = Image.open(io.BytesIO(data)).size
    return {
        "image_id": image.path,
        "building_id": image.building_id,
        "platform": image.platform,
        "split": image.split,
        "role": image.role,
        "image": {"bytes": data, "path": image.path},
        "width": width,
        "height": height,
        "sha256": hashlib.sha256(data).hexdigest(),
        "parent_image_id": None,
        "transform": None,
    }


def caption_of(image: SourceImage) -> dict[str, Any]:
    """The columns of the captions table for a caption that passes through unchanged."""
    row: dict[str, Any] = {field.name: "" for field in CAPTIONS}
    ids = {"caption_id": f"{image.path}#0", "image_id": image.path, "building_id": image.building_id}
    said = {"raw": TEXT, "stripped": TEXT, "refined": TEXT, "final": TEXT, "status": "kept"}
    return row | ids | said | {"platform": "drone", "split": "test", "edits": [], "queries": [], "gates": []}


def bare(folder: Path, number: int, part: Sequence[SourceImage], out: Path) -> None:
    """A loop over the files, pyarrow's own writer, nothing else."""
    table = pa.Table.from_pylist([row_of(folder, image) for image in part], schema=IMAGES)
    flat = [name for name in table.column_names if name != "image"]
    compression = {"image.bytes": "NONE"} | dict.fromkeys([*flat, "image.path"], "zstd")
    pq.write_table(table, out / f"images-{number}.parquet", compression=compression, row_group_size=512)
    said = pa.Table.from_pylist([caption_of(image) for image in part], schema=CAPTIONS)
    pq.write_table(said, out / f"captions-{number}.parquet", compression="zstd")


def decoding(folder: Path, number: int, part: Sequence[SourceImage], out: Path) -> None:
    """The bare loop, with every picture decoded."""
    for image in part:
        Image.open(folder / image.path).load()
    bare(folder, number, part, out)


def peer(folder: Path, number: int, part: Sequence[SourceImage], out: Path) -> None:
    """`datasets`: map over the paths, to_parquet; its cache lies beside the output."""
    import datasets

    datasets.disable_progress_bars()
    listed = datasets.Dataset.from_list([{"n": n} for n in range(len(part))])
    rows = listed.map(
        lambda row: row_of(folder, part[row["n"]]),
        remove_columns=["n"],
        cache_file_name=str(out / f"cache-{number}.arrow"),
    )
    rows.to_parquet(out / f"images-{number}.parquet")
    datasets.Dataset.from_list([caption_of(image) for image in part]).to_parquet(out / f"captions-{number}.parquet")


def ours(folder: Path, number: int, part: Sequence[SourceImage], out: Path) -> None:
    """What a rebuild does of a shard's rows: hash the files, which gives the key; then the shard's steps."""
    found = Hashes().of_all(f"{folder}/{image.path}" for image in part)
    digests = {
        image.path: digest for image, (_, digest) in zip(part, found, strict=True) if isinstance(digest, FileHash)
    }
    captions = tuple(SourceCaption(image.path, 0, TEXT, "test.json", 0) for image in part)
    buildings = tuple(sorted({image.building_id for image in part}))
    job = ShardJob(str(folder), str(out), "test", "drone", number, buildings, Config())
    make_shard(job, Rows(tuple(part), captions, (), digests), f"key{number}")


Way = Callable[[Path, int, Sequence[SourceImage], Path], None]
WAYS: dict[str, Way] = {
    "bare pyarrow": bare,
    "bare pyarrow, decoding": decoding,
    "datasets map + to_parquet": peer,
    "georefine": ours,
}


def used(way: Way, folder: Path, number: int, part: Sequence[SourceImage], out: Path) -> float:
    """Processor seconds of one shard."""
    start = time.process_time()
    way(folder, number, part, out)
    return time.process_time() - start


def seconds(way: Way, folder: Path, images: list[SourceImage], pool: ProcessPoolExecutor) -> tuple[float, float]:
    """Time of all shards and processor seconds; the pool's processes are up."""
    out = Path(tempfile.mkdtemp(prefix="georefine-bench-"))
    try:
        start = time.perf_counter()
        waiting = [pool.submit(used, way, folder, number, part, out) for number, part in enumerate(parts(images))]
        busy = sum(future.result() for future in waiting)
        return time.perf_counter() - start, busy
    finally:
        shutil.rmtree(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--kilobytes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it early finds nothing left
    context = multiprocessing.get_context("spawn")
    workers = sorted({1, os.cpu_count() or 1})
    pools = {n: ProcessPoolExecutor(n, mp_context=context) for n in workers}
    taken: dict[tuple[str, int], list[tuple[float, float]]] = {(way, n): [] for n in workers for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="georefine-bench-") as name:
        folder = Path(name)
        images = write_files(folder, options.rows, options.kilobytes)
        for (way, n), times in taken.items():
            seconds(WAYS[way], folder, images[: SHARDS * n], pools[n])  # imports
            times.clear()
        for _ in range(options.rounds):  # in turn, so that a busy moment of the machine meets all of them
            for (way, n), times in taken.items():
                times.append(seconds(WAYS[way], folder, images, pools[n]))
    for pool in pools.values():
        pool.shutdown()
    size = sum(image.bytes for image in images) / len(images) / 1000
    print(f"{options.rows:,} images of {size:.0f} KB, {SHARDS} shards, best of {options.rounds} rounds")
    best = {key: tuple(map(min, zip(*times, strict=True))) for key, times in taken.items()}
    for (way, n), (time_taken, busy) in best.items():
        ratio, load = time_taken / best["bare pyarrow", n][0], busy / best["bare pyarrow", n][1]
        told = f"{way:26} {n} process{'es' if n > 1 else '  '} {time_taken:6.1f} s"
        print(f"{told} {ratio:5.2f} x bare {busy:6.1f} CPU s {load:5.2f} x bare")
    figures = {f"{way}, {n}": [round(value, 2) for value in values] for (way, n), values in best.items()}
    print(json.dumps({"benchmark": "shards", "rows": options.rows, "seconds and CPU seconds": figures}))


if __name__ == "__main__":
    main()
