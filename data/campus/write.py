"""Writes a sample world as a folder in the official University-1652 layout, annotated like GeoText-1652.

georefine sample DIR [--buildings N] [--seed S]
"""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data.campus.language import caption, query, regions, visible_facts
from data.campus.render import render
from data.campus.world import VERSION, Building, Query, ceiling, draw_buildings, fitting, rng_for, values
from schemas.errors import GeorefineError, UsageError
from schemas.records import Platform

DRONE_VIEWS = 3
CAPTIONS = 3
_NO_CAPTION, _NO_REGIONS = 0.01, 0.02  # shares of images, as in the real data
_INLINE = 24  # fewer buildings are not worth starting processes for


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Numbers of one split. `images` counts distinct images, not their copies in query folders."""

    buildings: int
    images: int
    captions: int
    regions: int


@dataclass(frozen=True, slots=True)
class WorldSummary:
    """What was written.

    Attributes:
        ceiling: {"all" or platform: {"r1", "r5", "r10"}}, percent: the best text-to-image recall that the test
            queries' ambiguity allows.
    """

    train: SplitCounts
    test: SplitCounts
    ceiling: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class _Written:
    """One building's annotations and queries, as a worker returns them."""

    records: tuple[dict[str, Any], ...]
    queries: tuple[Query, ...]
    counts: SplitCounts


def image_names(building_id: str) -> list[tuple[Platform, int, str, str]]:
    """Platform, view index, official folder and file name of every image of a building."""
    drone: list[tuple[Platform, int, str, str]] = [
        ("drone", k, "drone", f"image-{k + 1:02d}.jpeg") for k in range(DRONE_VIEWS)
    ]
    return [("satellite", 0, "satellite", f"{building_id}.jpg"), *drone, ("ground", 0, "street", "1.jpg")]


def _write_building(root: Path, seed: int, is_query: bool, building: Building) -> _Written:
    """Draw and write one building's images; `is_query` also copies its drone and street views to the query folders."""
    train = building.split == "train"
    records: list[dict[str, Any]] = []
    queries: list[Query] = []
    captions = region_count = 0
    for platform, index, folder, name in image_names(building.id):
        view = render(building, platform, index, rng_for(seed, building.id, platform, index))
        path = f"{building.split}/{folder if train else 'gallery_' + folder}/{building.id}/{name}"
        _write_file(root / path, view.jpeg)
        if not train and (platform == "satellite" or is_query):
            _write_file(root / f"test/query_{folder}/{building.id}/{name}", view.jpeg)
        rng = rng_for(seed, building.id, platform, index, "words")
        found = regions(building, platform, view.parts, building.split, rng)
        texts: list[str] = []
        for ordinal in range(CAPTIONS):
            if train:
                texts.append(caption(building, platform, view.parts, rng).text)
                continue
            text, stated = query(visible_facts(building, platform, view.parts), rng)
            while text in texts:
                text, stated = query(visible_facts(building, platform, view.parts), rng)
            texts.append(text)
            queries.append(Query(path, ordinal, building.id, platform, tuple(stated.items())))
        if train and rng.random() < _NO_CAPTION:
            continue
        record: dict[str, Any] = {"image_id": f"{building.id}/{name}", "image": path, "caption": texts}
        record["sentences"] = [region.sentence for region in found]
        record["bboxes"] = [[round(value, 6) for value in region.box] for region in found]
        if rng.random() < _NO_REGIONS:
            record["sentences"] = record["bboxes"] = None
        captions += len(texts)
        region_count += len(record["sentences"] or ())
        records += [{**record, "caption": text} for text in texts] if train else [record]
    counts = SplitCounts(1, 2 + DRONE_VIEWS, captions, region_count)
    return _Written(tuple(records), tuple(queries), counts)


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _work(root: Path, seed: int, task: tuple[bool, Building]) -> _Written:
    return _write_building(root, seed, *task)


def _run(root: Path, seed: int, tasks: list[tuple[bool, Building]], workers: int) -> Iterator[_Written]:
    work = partial(_work, root, seed)
    if workers == 1 or len(tasks) < _INLINE:
        yield from map(work, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, tasks, chunksize=8)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _total(written: list[_Written]) -> SplitCounts:
    return SplitCounts(
        sum(item.counts.buildings for item in written),
        sum(item.counts.images for item in written),
        sum(item.counts.captions for item in written),
        sum(item.counts.regions for item in written),
    )


def _dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _write_all(
    root: Path, buildings: list[Building], seed: int, workers: int, progress: Callable[[int, int], None] | None
) -> WorldSummary:
    tests = [building for building in buildings if building.split == "test"]
    asking = {building.id for building in rng_for(seed, "query").sample(tests, max(1, len(tests) // 3))}
    tasks = [(building.id in asking, building) for building in buildings]
    written: list[_Written] = []
    for item in _run(root, seed, tasks, workers):
        written.append(item)
        if progress:
            progress(len(written), len(tasks))
    by_split = {
        split: [item for item, (_, building) in zip(written, tasks, strict=True) if building.split == split]
        for split in ("train", "test")
    }
    for split, items in by_split.items():
        (root / split).mkdir(exist_ok=True)
        _dump(root / f"{split}.json", [record for item in items for record in item.records])
    queries = [query for item in by_split["test"] for query in item.queries]
    fits = [fitting(query, tests) for query in queries]
    best = ceiling([(query.platform, count) for query, count in zip(queries, fits, strict=True)])
    _dump(
        root / "campus.json",
        {
            "version": VERSION,
            "seed": seed,
            "ceiling": best,
            "buildings": {
                building.id: {"split": building.split, "attributes": values(building.attributes)}
                for building in buildings
            },
            "queries": [
                {**asdict(query), "facts": dict(query.facts), "fitting": count}
                for query, count in zip(queries, fits, strict=True)
            ],
        },
    )
    return WorldSummary(_total(by_split["train"]), _total(by_split["test"]), best)


def write_world(
    out: Path,
    *,
    buildings: int = 912,
    seed: int = 7,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> WorldSummary:
    """Write a sample world: same buildings and seed, same bytes, whatever the number of workers.

    Args:
        out: a new or empty folder; it appears, or is filled, only when everything is written.
        buildings: 2 to 10,000; one eighth of them, at least one, is the test split.
        workers: processes that draw; None takes one per processor.
        progress: called with (buildings done, buildings).

    Raises:
        UsageError: `out` is not empty or not a folder, or a number is out of range.
        GeorefineError: the folder cannot be written.
    """
    if not 2 <= buildings <= 10_000:
        raise UsageError(f"A sample world of {buildings} buildings cannot be drawn: ask for 2 to 10,000.")
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers cannot draw a sample world: ask for at least 1.")
    target = Path(out).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder: name a new folder for the sample world.")
    processes = workers or _processors()
    partial_folder = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        partial_folder.mkdir(parents=True)
        summary = _write_all(partial_folder, draw_buildings(buildings, seed), seed, processes, progress)
        if target.exists():
            for child in sorted(partial_folder.iterdir()):
                child.rename(target / child.name)
        else:
            partial_folder.rename(target)
        return summary
    except OSError as error:
        reason = error.strerror or str(error)
        raise GeorefineError(
            f"The sample world cannot be written to {out}: {reason}; free space or choose another folder."
        ) from error
    except BrokenProcessPool as error:
        raise GeorefineError(
            f"A process that drew the sample world for {out} was killed: free memory, or ask for fewer workers."
        ) from error
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
