"""How the rows of a source are dealt to shards: by building, so that a change of one caption touches one shard.

jobs = hashed(deal(source, root, work, config), hashes)
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.hashes import Hashes
from data.partition import part_of
from data.readers import Source
from review.decisions import Decision
from schemas.config import Config
from schemas.records import Platform, SourceCaption, SourceImage, SourceRegion, Split

UNREADABLE = "unreadable: "


@dataclass(frozen=True)
class ShardJob:
    """Everything one shard is made of: the rows of some buildings of one split and platform.

    Attributes:
        digests: image path -> SHA-256 of the file, or "unreadable: why".
        answers: file with what a model made of the captions (flows/refining.py); empty: the rules refine.
        decisions: of reviewers, on captions of this shard.
    """

    source: str
    work: str
    split: Split
    platform: Platform
    part: int
    images: tuple[SourceImage, ...]
    captions: tuple[SourceCaption, ...]
    regions: tuple[SourceRegion, ...]
    config: Config
    digests: Mapping[str, str] = field(default_factory=dict)
    answers: str = ""
    decisions: tuple[Decision, ...] = ()

    @property
    def name(self) -> str:
        return f"split={self.split}/platform={self.platform}/part-{self.part:05d}.parquet"


def deal(source: Source, root: Path, work: Path, config: Config) -> list[ShardJob]:
    """Deal the source's rows to shards by a hash of the building, so that a change of one caption touches one shard."""
    buildings: dict[tuple[Split, Platform], set[str]] = defaultdict(set)
    for image in source.images:
        buildings[image.split, image.platform].add(image.building_id)
    parts = {key: -(-len(ids) // config.shards.buildings) for key, ids in buildings.items()}
    home: dict[str, tuple[Split, Platform, int]] = {}
    images: dict[tuple[Split, Platform, int], list[SourceImage]] = defaultdict(list)
    captions: dict[tuple[Split, Platform, int], list[SourceCaption]] = defaultdict(list)
    regions: dict[tuple[Split, Platform, int], list[SourceRegion]] = defaultdict(list)
    for image in source.images:
        where = (image.split, image.platform, part_of(image.building_id, parts[image.split, image.platform]))
        home[image.path] = where
        images[where].append(image)
    for caption in source.captions:
        captions[home[caption.image_id]].append(caption)
    for region in source.regions:
        regions[home[region.image_id]].append(region)
    return [
        ShardJob(
            source=str(root),
            work=str(work),
            split=where[0],
            platform=where[1],
            part=where[2],
            images=tuple(images[where]),
            captions=tuple(captions[where]),
            regions=tuple(regions[where]),
            config=config,
        )
        for where in sorted(images)
    ]


def hashed(jobs: Iterable[ShardJob], hashes: Hashes) -> list[ShardJob]:
    """The jobs with the hashes of their images; a file that cannot be read keeps the reason, and is refused later."""
    jobs = list(jobs)
    paths = {image.path: Path(job.source) / image.path for job in jobs for image in job.images}
    found = dict(hashes.of_all(paths.values()))
    return [replace(job, digests={i.path: _digest(found[paths[i.path]]) for i in job.images}) for job in jobs]


def _digest(found: str | OSError) -> str:
    return found if isinstance(found, str) else f"{UNREADABLE}{found.strerror or found}"


def decided(jobs: Iterable[ShardJob], decisions: Mapping[str, Decision]) -> tuple[list[ShardJob], tuple[str, ...]]:
    """The train jobs with the decisions on their captions, and the ids of captions decided on that are not there.

    A decision on the caption of an augmented copy goes to the job of its original.
    """
    jobs = list(jobs)
    home = {c.caption_id: number for number, job in enumerate(jobs) if job.split == "train" for c in job.captions}
    given: dict[int, list[Decision]] = defaultdict(list)
    unknown: list[str] = []
    for caption_id, decision in sorted(decisions.items()):
        number = home.get(caption_id, home.get(original(caption_id)))
        if number is None:
            unknown.append(caption_id)
        else:
            given[number].append(decision)
    return [replace(job, decisions=tuple(given[n])) for n, job in enumerate(jobs)], tuple(unknown)


def copy_id(image_id: str, variant: int) -> str:
    """Id of the augmented copy number `variant` of an image."""
    return f"{image_id}~aug{variant}"


def original(caption_id: str) -> str:
    """Id of the caption whose augmented copy this is; itself if it is none."""
    return re.sub(r"~aug\d+(#\d+)$", r"\1", caption_id)
