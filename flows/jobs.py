"""How the rows of a source are dealt to shards: by building, so that a change of one caption touches one shard.

jobs = hashed(deal(source, root, work, config), hashes)
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from data.hashes import FileHash, Hashes
from data.partition import part_of
from data.readers import Source
from data.spill import SPILL, Rows, Spill, read_rows
from review.decisions import Decision
from schemas.config import Config
from schemas.records import Platform, Split

_IMAGE = attrgetter("path", "building_id", "platform", "split", "role", "bytes")
_CAPTION = attrgetter("image_id", "ordinal", "raw")
_REGION = attrgetter("image_id", "ordinal", "sentence", "bbox")


@dataclass(frozen=True)
class Contents:
    """The rows of a shard by hashes and numbers.

    Attributes:
        images, captions, regions: hashes of what the rows say, with the hashes of the images' files. Where a row stands
            in its annotation file is left out: a record that is put in or taken out moves all that follow.
        number: of captions.
        bytes: of the images' files.
        characters: of captions and region sentences.
    """

    images: str = ""
    captions: str = ""
    regions: str = ""
    number: int = 0
    bytes: int = 0
    characters: int = 0


@dataclass(frozen=True)
class ShardJob:
    """Everything one shard is made of: the rows of some buildings of one split and platform, by reference.

    Attributes:
        work: the data set's .work, which holds the rows (data/spill.py) until the rebuild ends.
        answers: file with what a model made of the captions (flows/refining.py); empty: the rules refine.
        before: folder of the shard's last result, where the same rules refined captions that may still be the same.
        decisions: of reviewers, on captions of this shard.
    """

    source: str
    work: str
    split: Split
    platform: Platform
    part: int
    buildings: tuple[str, ...]
    config: Config
    contents: Contents = Contents()
    answers: str = ""
    before: str = ""
    decisions: tuple[Decision, ...] = ()

    @property
    def name(self) -> str:
        return f"split={self.split}/platform={self.platform}/part-{self.part:05d}.parquet"

    def rows(self) -> Rows:
        """The rows themselves.

        Raises:
            DatasetError: the file that holds them cannot be read.
        """
        return read_rows(Path(self.work) / SPILL, self.split, self.platform, self.buildings)


def deal(source: Source, root: Path, work: Path, config: Config, hashes: Hashes) -> list[ShardJob]:
    """Deal the source's rows to shards by a hash of the building, so that a change of one caption touches one shard.

    The hashes of the images go to the rows; a file that cannot be read keeps the reason, and is refused later.

    Args:
        source: read into the file that the jobs will look for, `work / SPILL`.
    """
    found = hashes.of_all(f"{root}/{path}" for _, path in source.spill.paths())
    for (image, _), (_, digest) in zip(source.spill.paths(), found, strict=True):
        source.spill.add_digest(image, digest if isinstance(digest, FileHash) else digest.strerror or str(digest))
    source.spill.commit()
    shards: dict[tuple[Split, Platform, int], list[str]] = defaultdict(list)
    for (split, platform), buildings in source.buildings.items():
        parts = -(-len(buildings) // config.shards.buildings)
        for building in buildings:
            shards[split, platform, part_of(building, parts)].append(building)
    jobs = [ShardJob(str(root), str(work), *where, tuple(shards[where]), config) for where in sorted(shards)]
    return [replace(job, contents=contents(source.spill, job)) for job in jobs]


def contents(spill: Spill, job: ShardJob) -> Contents:
    """What the rows of a job are, without them."""
    rows = spill.rows(job.split, job.platform, job.buildings)
    return Contents(
        images=_hash([(*_IMAGE(image), _said(rows.digests[image.path])) for image in rows.images]),
        captions=_hash([_CAPTION(caption) for caption in rows.captions]),
        regions=_hash([_REGION(region) for region in rows.regions]),
        number=len(rows.captions),
        bytes=sum(image.bytes for image in rows.images),
        characters=sum(len(c.raw) for c in rows.captions) + sum(len(r.sentence) for r in rows.regions),
    )


def _said(digest: FileHash | str) -> list[str]:
    return [digest.sha256] if isinstance(digest, FileHash) else ["unreadable", digest]


def _hash(values: list[tuple[object, ...]]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def decided(
    jobs: Iterable[ShardJob], decisions: Mapping[str, Decision], spill: Spill
) -> tuple[list[ShardJob], tuple[str, ...]]:
    """The train jobs with the decisions on their captions, and the ids of captions decided on that are not there.

    A decision on the caption of an augmented copy goes to the job of its original.
    """
    jobs = list(jobs)
    home = {(job.platform, b): n for n, job in enumerate(jobs) if job.split == "train" for b in job.buildings}
    given: dict[int, list[Decision]] = defaultdict(list)
    unknown: list[str] = []
    for caption_id, decision in sorted(decisions.items()):
        image = spill.captioned(caption_id) or spill.captioned(original(caption_id))
        if image is None or image.split != "train":
            unknown.append(caption_id)
        else:
            given[home[image.platform, image.building_id]].append(decision)
    return [replace(job, decisions=tuple(given[n])) for n, job in enumerate(jobs)], tuple(unknown)


def variants(config: Config, split: Split, platform: Platform) -> range:
    """Numbers of the augmented copies that an image of this split and platform gets."""
    return range(config.augment.variants if split == "train" and platform == "satellite" else 0)


def copy_id(image_id: str, variant: int) -> str:
    """Id of the augmented copy number `variant` of an image."""
    return f"{image_id}~aug{variant}"


def original(caption_id: str) -> str:
    """Id of the caption whose augmented copy this is; itself if it is none."""
    return re.sub(r"~aug\d+(#\d+)$", r"\1", caption_id)
