"""The steps of a rebuild as plain functions over typed records: no Prefect here, so that any process can run them.

build_shard(job, key) -> ShardResult      one shard: check, deduplicate, augment, strip, refine, gate, write

What makes shards imports OpenCV, spaCy and albumentations, which takes seconds; what is known of shards that were made
is in flows/results.py. Keys are made in flows/plan.py.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq

from augment.satellite import augment_tile
from data.hashes import FileHash, mark_of
from data.images import inspect
from data.shards import WrittenFile, write_rows
from data.spill import Rows
from flows.jobs import ShardJob, copy_id, variants
from flows.refining import read_answers
from flows.results import ShardResult, check_accounts, keep_result, result_folder
from flows.wording import ORIGINAL, Wordings, caption_wordings, region_wordings
from refine.refinement import keep_captions, refine_stripped
from review.decisions import apply
from schemas.errors import SourceError
from schemas.manifest import Account, Shard
from schemas.records import (
    TABLES,
    Box,
    GateResult,
    Refined,
    Reject,
    SourceCaption,
    SourceImage,
    SourceRegion,
    Stripped,
    Table,
)

R = TypeVar("R", SourceCaption, SourceRegion)


@dataclass
class _Made:
    """What one shard is made of, but for the images, which are written as they are read; and the balance of each table.

    Attributes:
        images: those accepted, in order.
        copies: refused copy -> the gallery image that stands for it.
        boxes: (image, variant) -> the boxes of the image's regions in that augmented copy; a copy not made has none.
        rejects: a caption's or region's names its image and ordinal; where these stand in an annotation file is looked
            up when the version is published (`rejects_of`), because it may change while the shard does not.
    """

    images: list[SourceImage] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)
    boxes: dict[tuple[str, int], tuple[Box | None, ...]] = field(default_factory=dict)
    captions: list[dict[str, Any]] = field(default_factory=list)
    regions: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    written: Counter[str] = field(default_factory=Counter)
    derived: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    applied: int = 0
    stale: list[str] = field(default_factory=list)

    def add(self, table: Table, rows: Sequence[dict[str, Any]], derived: bool = False) -> None:
        getattr(self, table).extend(rows)
        (self.derived if derived else self.written)[table] += len(rows)


def _read(job: ShardJob, image: SourceImage, digest: FileHash) -> bytes:
    """The file that was hashed for the job's key.

    Raises:
        SourceError: it is another one now.
    """
    try:
        with open(f"{job.source}/{image.path}", "rb", buffering=0) as file:  # noqa: PTH123  (a Path costs as much)
            data = file.read()
            same = digest.mark == mark_of(os.fstat(file.fileno()))
    except OSError as error:
        raise SourceError(f"{image.path} vanished during the rebuild ({error.strerror}): run it again.") from error
    # A file that is as it was when it was hashed is not hashed again; marks differ too where a cluster's machines do.
    if not (same and len(data) == image.bytes) and hashlib.sha256(data).hexdigest() != digest.sha256:
        raise SourceError(f"{image.path} changed during the rebuild: run it again when the source is at rest.")
    return data


def _gallery(rows: Rows) -> dict[tuple[str, str], str]:
    """(building, hash of the file) -> the first gallery image; a query image of the same bytes is a copy of it.

    Equal bytes are accepted or refused alike, so that no image needs to be looked at before.
    """
    gallery: dict[tuple[str, str], str] = {}
    for image in rows.images:
        digest = rows.digests[image.path]
        if image.role == "gallery" and isinstance(digest, FileHash):
            gallery.setdefault((image.building_id, digest.sha256), image.path)
    return gallery


def _image_rows(job: ShardJob, rows: Rows, made: _Made) -> Iterator[dict[str, Any]]:
    """Rows of the images table as they are read: what cannot be read or trusted is refused, and so is a query file that
    is byte-identical to a gallery file of its building; satellite tiles of train are followed by augmented copies."""
    gallery = _gallery(rows)
    regions: dict[str, list[SourceRegion]] = {}
    for region in rows.regions:
        regions.setdefault(region.image_id, []).append(region)
    for image in rows.images:
        digest = rows.digests[image.path]
        if isinstance(digest, str):
            made.rejects.append(Reject("images", image.path, 0, "image", "unreadable", digest))
            continue
        data = _read(job, image, digest)
        found = inspect(data, job.config.partition.max_pixels, digest.sha256)
        if isinstance(found, str):
            reason, _, detail = found.partition(": ")
            made.rejects.append(Reject("images", image.path, 0, "image", reason, detail))
            continue
        original = gallery.get((image.building_id, digest.sha256)) if image.role == "query" else None
        if original:
            made.copies[image.path] = original
            detail = f"byte-identical to {original}"
            made.rejects.append(Reject("images", image.path, 0, "image", "duplicate", detail))
            continue
        made.images.append(image)
        made.written["images"] += 1
        yield _image_row(job, image, data, (found.width, found.height), digest.sha256)
        try:
            for row in _copies(job, image, data, regions.get(image.path, []), made):
                made.derived["images"] += 1
                yield row
        except SourceError as error:
            made.notes.append(f"not augmented: {error}")


def _copies(
    job: ShardJob, image: SourceImage, data: bytes, regions: Sequence[SourceRegion], made: _Made
) -> Iterator[dict[str, Any]]:
    """Rows of the augmented copies of a tile."""
    for variant in variants(job.config, job.split, job.platform):
        tile = augment_tile(
            data,
            [region.bbox for region in regions],
            image_id=image.path,
            variant=variant,
            seed=job.config.seed,
            config=job.config.augment,
            symmetries_only=job.config.orientation.satellite == "remap",
        )
        made.boxes[image.path, variant] = tile.boxes
        copy = replace(image, path=copy_id(image.path, variant))
        row = _image_row(job, copy, tile.data, (tile.width, tile.height), hashlib.sha256(tile.data).hexdigest())
        yield {**row, "parent_image_id": image.path, "transform": tile.transform}


def _by_image(
    table: Table,
    given: Sequence[R],
    said: Callable[[R], object],
    kept: Iterable[str],
    made: _Made,
) -> dict[str, list[R]]:
    """Captions or regions by image; a query copy's go to its gallery image, a refused image's are refused.

    Args:
        said: what a row says; a copy's row that says what its gallery image says already is refused as a duplicate.
    """
    homes: dict[str, list[R]] = {image_id: [] for image_id in kept}
    for row in sorted(given, key=lambda r: (r.image_id in made.copies, r.image_id, r.ordinal)):
        image_id = made.copies.get(row.image_id, row.image_id)
        home = homes.get(image_id)
        if home is None:
            made.rejects.append(_refused(table, row, "parent", f"its image {image_id} was refused"))
        elif row.image_id == image_id:
            home.append(row)
        elif said(row) in map(said, home):
            made.rejects.append(_refused(table, row, "duplicate", f"stands already at {image_id}"))
        else:
            home.append(replace(row, image_id=image_id, ordinal=1 + max((r.ordinal for r in home), default=-1)))
    return homes


def _refused(table: Table, row: SourceCaption | SourceRegion, reason: str, detail: str) -> Reject:
    return Reject(table, row.image_id, row.ordinal, "image", reason, detail)


def _refine(job: ShardJob, said: Wordings, image_of: Mapping[str, str]) -> dict[tuple[str, int | None], Refined]:
    """Every wording refined: by the model's answers where the job has some, else by the rules."""
    answers = read_answers(Path(job.answers)) if job.answers else {}
    known = {} if answers else _refined_before(job)
    done: dict[tuple[str, int | None], Refined] = {}
    for (caption_id, variant), stripped in said.items():
        if job.answers:
            refined = answers[image_of[caption_id], stripped.text]
        elif stripped.text in known:
            refined = known[stripped.text]
        else:
            refined = known[stripped.text] = refine_stripped(stripped, job.platform)
        done[caption_id, variant] = replace(refined, stripped=stripped)
    return done


def _refined_before(job: ShardJob) -> dict[str, Refined]:
    """What the same rules made of the wordings of the shard's last result: they take milliseconds for each.

    A reviewer's decision changed `final`, `queries` and `status` of some; the reply has what the rules said.
    """
    known: dict[str, Refined] = {}
    if not (job.before and (Path(job.before) / "captions.parquet").exists()):
        return known
    columns = ["stripped", "refiner", "gates", "prompt_version", "reply_key", "reply"]
    with pq.ParquetFile(Path(job.before) / "captions.parquet") as file:
        for batch in file.iter_batches(columns=columns):
            for row in batch.to_pylist():
                if row.pop("refiner") == "rules" and row["reply"]:
                    said, text = json.loads(row["reply"]), row.pop("stripped")
                    known[text] = Refined(
                        stripped=Stripped(text),
                        refined=said["caption"],
                        queries=tuple(said["queries"]),
                        final=said["caption"],
                        status="refined",
                        gates=tuple(GateResult(**gate) for gate in row.pop("gates")),
                        refiner="rules",
                        **row,
                    )
    return known


def _decide(
    job: ShardJob, captions: Sequence[SourceCaption], refined: dict[tuple[str, int | None], Refined], made: _Made
) -> None:
    """Let people's decisions settle captions: an edited text wins, a rejected rewrite falls back, a stale one is noted.

    A copy without a decision of its own follows its original as long as both say the same.
    """
    decisions = {decision.caption_id: decision for decision in job.decisions}
    for caption in captions:
        first = refined[caption.caption_id, ORIGINAL].stripped.text
        for variant in (ORIGINAL, *variants(job.config, job.split, job.platform)):
            now = refined[caption.caption_id, variant]
            image_id = caption.image_id if variant is ORIGINAL else copy_id(caption.image_id, variant)
            own = decisions.get(replace(caption, image_id=image_id).caption_id)
            decision = own or (decisions.get(caption.caption_id) if now.stripped.text == first else None)
            if decision is None:
                continue
            outcome = apply(
                decision,
                raw=caption.raw,
                refined=now.refined,
                queries=now.queries,
                fallback=now.stripped.text,
                platform=job.platform,
            )
            if outcome:
                refined[caption.caption_id, variant] = replace(
                    now, final=outcome.final, status=outcome.status, queries=outcome.queries
                )
                made.applied += 1
            elif own:
                made.stale.append(own.caption_id)


def _image_row(job: ShardJob, image: SourceImage, data: bytes, size: tuple[int, int], sha256: str) -> dict[str, Any]:
    return {
        "image_id": image.path,
        "building_id": image.building_id,
        "platform": job.platform,
        "split": job.split,
        "role": image.role,
        "image": {"bytes": data, "path": image.path},
        "width": size[0],
        "height": size[1],
        "sha256": sha256,
        "parent_image_id": None,
        "transform": None,
    }


def _caption_row(job: ShardJob, image: SourceImage, caption: SourceCaption, done: Refined) -> dict[str, Any]:
    return {
        "caption_id": caption.caption_id,
        "image_id": caption.image_id,
        "building_id": image.building_id,
        "platform": job.platform,
        "split": job.split,
        "raw": caption.raw,
        "edits": [{"start": e.start, "end": e.end, "old": e.old, "new": e.new} for e in done.stripped.edits],
        "stripped": done.stripped.text,
        "refined": done.refined,
        "queries": list(done.queries),
        "final": done.final,
        "status": done.status,
        "gates": [{"gate": g.gate, "passed": g.passed, "detail": g.detail} for g in done.gates],
        "refiner": done.refiner,
        "prompt_version": done.prompt_version,
        "reply_key": done.reply_key,
        "reply": done.reply,
    }


def _region_row(job: ShardJob, image: SourceImage, region: SourceRegion, stripped: str, box: Box) -> dict[str, Any]:
    return {
        "region_id": region.region_id,
        "image_id": region.image_id,
        "building_id": image.building_id,
        "platform": job.platform,
        "split": job.split,
        "sentence": region.sentence,
        "stripped": stripped,
        "bbox": list(box),
    }


def _fill(job: ShardJob, rows: Rows, made: _Made) -> None:
    """Rows of captions and regions, once it is known which images were accepted."""
    ids = [image.path for image in made.images]
    captions_of = _by_image("captions", rows.captions, lambda c: c.raw, ids, made)
    regions_of = _by_image("regions", rows.regions, lambda r: (r.sentence, r.bbox), ids, made)
    captions = tuple(chain.from_iterable(captions_of.values()))
    regions = tuple(chain.from_iterable(regions_of.values()))

    said: Wordings = {(r.region_id, ORIGINAL): Stripped(r.sentence) for r in regions}
    if job.split == "train":
        said = region_wordings(regions, job.platform, job.config)
        wordings = caption_wordings(captions, job.platform, job.config)
        refined = _refine(job, wordings, {c.caption_id: c.image_id for c in captions})
        _decide(job, captions, refined, made)
    else:
        kept = keep_captions([c.raw for c in captions])
        refined = {(c.caption_id, ORIGINAL): row for c, row in zip(captions, kept, strict=True)}

    for image in made.images:
        own_captions, own_regions = captions_of[image.path], regions_of[image.path]
        made.add("captions", [_caption_row(job, image, c, refined[c.caption_id, ORIGINAL]) for c in own_captions])
        made.add("regions", [_region_row(job, image, r, said[r.region_id, ORIGINAL].text, r.bbox) for r in own_regions])
        for variant in variants(job.config, job.split, job.platform):
            boxes = made.boxes.get((image.path, variant))
            if boxes is None:
                continue
            copy = replace(image, path=copy_id(image.path, variant))
            made.add(
                "captions",
                [
                    _caption_row(job, copy, replace(c, image_id=copy.path), refined[c.caption_id, variant])
                    for c in own_captions
                ],
                derived=True,
            )
            made.add(
                "regions",
                [
                    _region_row(job, copy, replace(r, image_id=copy.path), said[r.region_id, variant].text, box)
                    for r, box in zip(own_regions, boxes, strict=True)
                    if box is not None
                ],
                derived=True,
            )


def _accounts(job: ShardJob, rows: Rows, made: _Made) -> dict[Table, Account]:
    refused = Counter(reject.table for reject in made.rejects)
    accounts = {
        table: Account(len(getattr(rows, table)), made.written[table], refused[table], made.derived[table])
        for table in TABLES
    }
    check_accounts(accounts, job.name)
    return accounts


def _counts(made: _Made) -> dict[str, Any]:
    return {
        "buildings": sorted({image.building_id for image in made.images}),
        "images": made.written["images"],
        "augmented": made.derived["images"],
        "captions": len(made.captions),
        "regions": len(made.regions),
        "statuses": dict(sorted(Counter(row["status"] for row in made.captions).items())),
        "decisions": {"applied": made.applied, "stale": made.stale},
    }


def _gates(made: _Made) -> dict[str, dict[str, int]]:
    tally: dict[str, dict[str, int]] = {}
    for row in made.captions:
        for gate in row["gates"]:
            tally.setdefault(gate["gate"], {"passed": 0, "failed": 0})["passed" if gate["passed"] else "failed"] += 1
    return dict(sorted(tally.items()))


def build_shard(job: ShardJob, key: str) -> ShardResult:
    """Make one shard and keep its result under its key.

    Returns:
        What the shard holds; its files lie in `folder` as <table>.parquet.

    Raises:
        AccountingError: rows went missing, which is a defect of ours.
        SourceError: an image changed since the key was made.
    """
    return make_shard(job, job.rows(), key)


def make_shard(job: ShardJob, rows: Rows, key: str) -> ShardResult:
    """Make the shard of these rows; see build_shard."""
    made = _Made()
    folder = result_folder(job, key)
    written: dict[Table, WrittenFile] = {}
    images = _image_rows(job, rows, made)
    if first := next(images, None):
        written["images"] = write_rows(folder / "images.parquet", "images", chain([first], images))
    _fill(job, rows, made)
    if made.captions:
        written["captions"] = write_rows(folder / "captions.parquet", "captions", made.captions)
    if made.regions:
        written["regions"] = write_rows(folder / "regions.parquet", "regions", made.regions)
    result = ShardResult(
        name=job.name,
        split=job.split,
        platform=job.platform,
        folder=str(folder),
        reused=False,
        files={
            table: Shard(f"{table}/{job.name}", table, job.split, job.platform, file.rows, file.bytes, file.sha256)
            for table, file in written.items()
        },
        accounts=_accounts(job, rows, made),
        counts=_counts(made),
        gates=_gates(made),
        notes=tuple(made.notes),
    )
    keep_result(result, made.rejects)
    return result
