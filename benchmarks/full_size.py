"""The real layout of University-1652 with GeoText-1652's captions, full size, through a rebuild: time, memory, rows.

Run: python benchmarks/full_size.py [--share 0.1] [--folder DIR] [--real DIR] [--runner processes] [--cores N]
           [--buildings 64]
`--share 1` builds all of it: 701 + 951 buildings, 50,218 + 55,227 images, three captions each; a share takes so many
of the buildings. File names of the test split are the published ones, numbers of images per building those of the
published counts; captions are put together from published sentences; pictures are small JPEGs, no two with the same
bytes. Three rebuilds: of everything, of nothing changed, of one caption changed. Prints a table, then one JSON line.
"""

import argparse
import gzip
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "real"
GROUND = {"train": 11_663, "test": 2_921}  # published numbers of ground images; the views per building vary
DRONE_VIEWS = 54  # of every train building, published
CAPTIONS, SENTENCES, REGIONS = 3, 5, 3  # per image, per caption, per image
SAMPLE_SECONDS = 0.25
MIB = 1 << 20


@dataclass
class Sampler:
    """Peak resident memory of every kind of process below this one, and processor seconds of every process: a busy
    machine lengthens the time, not these."""

    process: psutil.Process
    peaks: dict[str, int] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.stopped.wait(SAMPLE_SECONDS):
            try:
                below = self.process.children(recursive=True)
            except psutil.Error:
                continue
            for process in (self.process, *below):
                try:
                    kind = self._kind(process)
                    self.peaks[kind] = max(self.peaks.get(kind, 0), process.memory_info().rss)
                    used = process.cpu_times()
                    self.seconds[process.pid] = used.user + used.system
                except psutil.Error:
                    continue

    def _kind(self, process: psutil.Process) -> str:
        command = " ".join(process.cmdline())
        if "flows.server" in command:
            return "server"
        if "resource_tracker" in command:
            return "tracker"
        return "main" if process.pid == self.process.pid else "worker"


def buildings(real: Path) -> dict[str, dict[str, list[str]]]:
    """{split: {building: its drone file names}}: the published ones of test, as many as published in train."""
    test: dict[str, list[str]] = defaultdict(list)
    with gzip.open(real / "university1652_gallery_name.txt.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            building, name = line.strip().split("/")[-2:]
            test[building].append(name)
    queries = (real / "university1652_query_name.txt").read_text(encoding="utf-8").split()
    assert {line.split("/")[-2] for line in queries} <= test.keys()
    numbers = {f"{n:04d}" for n in range(1652)}
    train = sorted(numbers - test.keys())
    assert (len(train), len(test)) == (701, 951)
    views = [f"image-{n:02d}.jpeg" for n in range(1, DRONE_VIEWS + 1)]
    return {"train": dict.fromkeys(train, views), "test": dict(sorted(test.items()))}


def images(split: str, named: dict[str, list[str]], share: float) -> Iterator[str]:
    """Paths of every image of a split, relative to the source; a share of its buildings."""
    prefix = "gallery_" if split == "test" else ""
    ground, left = GROUND[split], len(named)
    kept = set(list(named)[:: max(1, round(1 / share))])
    for building, views in named.items():
        streets = ground // left
        ground, left = ground - streets, left - 1
        if building in kept:
            yield f"{split}/{prefix}satellite/{building}/{building}.jpg"
            yield from (f"{split}/{prefix}drone/{building}/{name}" for name in views)
            yield from (f"{split}/{prefix}street/{building}/{n}.jpg" for n in range(1, streets + 1))


def pictures() -> list[bytes]:
    """A few JPEGs of 4 to 8 KB."""
    noise = np.random.default_rng(0)
    made = []
    for _ in range(16):
        coarse = Image.fromarray(noise.integers(0, 256, (12, 12, 3), np.uint8)).resize(
            (160, 160), Image.Resampling.BICUBIC
        )
        grain = np.asarray(coarse).astype(np.int16) + noise.integers(-10, 11, (160, 160, 1))
        out = io.BytesIO()
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=80)
        made.append(out.getvalue())
    return made


def named(picture: bytes, name: str) -> bytes:
    """The picture with its name in a JPEG comment, so that no two files are the same."""
    comment = name.encode()
    return picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]


def sentences(real: Path) -> list[str]:
    """The published sentences, each once."""
    rows = [json.loads(line) for line in (real / "geotext_captions.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {f"{part.strip().rstrip('.')}." for row in rows for part in row["text"].split(". ") if part.strip()}
    return sorted(found)


def write_source(folder: Path, real: Path, share: float) -> dict[str, int]:
    """Write the layout.

    Returns:
        Rows of each table.
    """
    said, shown, rows = sentences(real), pictures(), {"images": 0, "captions": 0, "regions": 0}
    for split, of_buildings in buildings(real).items():
        records = []
        for number, path in enumerate(images(split, of_buildings, share)):
            draw = random.Random(path)
            target = folder / path
            if not target.parent.exists():
                target.parent.mkdir(parents=True)
            target.write_bytes(named(shown[number % len(shown)], path))
            record = {
                "image": path,
                "caption": [
                    " ".join([*draw.sample(said, SENTENCES - 1), f"There are {draw.randrange(2, 400)} cars."])
                    for _ in range(CAPTIONS)
                ],
                "sentences": draw.sample(said, REGIONS),
                "bboxes": [[round(draw.uniform(0.3, 0.6), 4) for _ in range(4)] for _ in range(REGIONS)],
            }
            records.append(record)
        (folder / f"{split}.json").write_text(json.dumps(records), encoding="utf-8")
        rows = {
            "images": rows["images"] + len(records),
            "captions": rows["captions"] + CAPTIONS * len(records),
            "regions": rows["regions"] + REGIONS * len(records),
        }
    return rows


def change_one_caption(folder: Path) -> None:
    records = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    records[len(records) // 2]["caption"][0] = "A red hall stands beside a pond."
    (folder / "train.json").write_text(json.dumps(records), encoding="utf-8")


def rebuild(source: Path, out: Path, runner: str, config: Path) -> dict[str, Any]:
    """One rebuild by the command: {"seconds", "cpu_seconds", "made" (shards), "peak_mib" by kind of process}."""
    before = {path.name for path in (out / ".work" / "shards").glob("*")}
    command = [sys.executable, "-m", "georefine", "rebuild", str(source), "--out", str(out), "--runner", runner]
    command += ["--config", str(config)]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    sampler = Sampler(psutil.Process(process.pid))
    thread = threading.Thread(target=sampler.watch)
    thread.start()
    try:
        code = process.wait()
        seconds = time.perf_counter() - start
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        sampler.stopped.set()
        thread.join()
    if code:
        sys.exit(f"the rebuild failed with exit code {code}; the source is {source}")
    made = {path.name for path in (out / ".work" / "shards").glob("*")} - before
    peaks = {kind: round(peak / MIB) for kind, peak in sorted(sampler.peaks.items()) if kind != "tracker"}
    used = round(sum(sampler.seconds.values()), 1)
    return {"seconds": round(seconds, 1), "cpu_seconds": used, "made": len(made), "peak_mib": peaks}


def accounts(out: Path) -> dict[str, Any]:
    version = (out / "latest").read_text(encoding="utf-8").strip()
    read: dict[str, Any] = json.loads((out / version / "manifest.json").read_text(encoding="utf-8"))["accounts"]
    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.1, help="of the buildings, 0..1")
    parser.add_argument("--folder", type=Path, help="keep source and data set in this new folder")
    parser.add_argument("--real", type=Path, default=REAL, help="folder with the published names and captions")
    parser.add_argument("--runner", default="processes")
    parser.add_argument("--cores", type=int, help="use so many cores only")
    parser.add_argument("--buildings", type=int, default=64, help="per shard")
    options = parser.parse_args()
    if not (options.real / "university1652_gallery_name.txt.gz").exists():
        print(f"skipped: the published file names are not at {options.real}")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it early finds nothing left, as by Ctrl-C
    folder = options.folder or Path(tempfile.mkdtemp(prefix="georefine-full-size-"))
    source, out, config = folder / "source", folder / "dataset", folder / "config.json"
    psutil.Process().cpu_affinity(psutil.Process().cpu_affinity()[: options.cores])
    try:
        rows = write_source(source, options.real, options.share)
        config.write_text(json.dumps({"shards": {"buildings": options.buildings}}), encoding="utf-8")
        runs = {"everything": rebuild(source, out, options.runner, config)}
        written = accounts(out)
        runs["nothing changed"] = rebuild(source, out, options.runner, config)
        change_one_caption(source)
        runs["one caption changed"] = rebuild(source, out, options.runner, config)
    finally:
        if not options.folder:
            shutil.rmtree(folder, ignore_errors=True)
    cores = len(psutil.Process().cpu_affinity())
    print(f"{options.share:g} of the buildings, {options.buildings} per shard, {cores} cores")
    for table, account in written.items():
        assert account["read"] == rows[table] == account["written"] + account["rejected"], table
        print(f"{table:10} {account['read']:>9,} read {account['written']:>9,} written", end=" ")
        print(f"{account['rejected']:>6,} rejected {account['derived']:>7,} derived")
    for name, run in runs.items():
        peaks = ", ".join(f"{kind} {peak:,}" for kind, peak in run["peak_mib"].items())
        told = f"{name:20} {run['seconds']:>8.1f} s {run['cpu_seconds']:>8.1f} CPU s {run['made']:>4} shards made"
        print(f"{told}; peak RSS in MiB: {peaks}")
    print(json.dumps({"benchmark": "full_size", "share": options.share, "rows": rows, "runs": runs}))


if __name__ == "__main__":
    main()
