"""The steps of a rebuild as plain functions over typed records: no Prefect here, so that any process can run them.

build_shard(job, key) -> ShardResult      one shard: decode, deduplicate, strip, refine, gate, augment, write
stored_result(job, key) -> ShardResult    the same from an earlier run; keys are made in flows/plan.py
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from augment.satellite import augment_tile
from data.hashes import Hashes
from data.images import ImageInfo, inspect
from data.shards import atomic_write, write_table
from flows.jobs import UNREADABLE, ShardJob, copy_id
from flows.refining import read_answers
from flows.wording import ORIGINAL, Wordings, caption_wordings, region_wordings, variants
from refine.refinement import keep_captions, refine_stripped
from review.decisions import apply
from schemas.errors import AccountingError, SourceError
from schemas.manifest import Account, Shard
from schemas.records import (
    TABLES,
    Box,
    Platform,
    Refined,
    Reject,
    SourceCaption,
    SourceImage,
    SourceRegion,
    Split,
    Stripped,
    Table,
)
from schemas.tables import SCHEMAS

R = TypeVar("R", SourceCaption, SourceRegion)

RESULT = "result.json"  # written last: its presence means that the shard is complete


@dataclass(frozen=True)
class ShardResult:
    """What a shard holds. `files`: table -> Shard whose path is relative to `folder`; tables without rows have none."""

    name: str
    split: Split
    platform: Platform
    folder: str
    reused: bool
    files: dict[Table, Shard]
    accounts: dict[Table, Account]
    counts: dict[str, Any]
    gates: dict[str, dict[str, int]]
    rejects: tuple[Reject, ...]
    notes: tuple[str, ...]


@dataclass
class _Rows:
    """Rows gathered for one shard, and the balance of each table."""

    images: list[dict[str, Any]] = field(default_factory=list)
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


@dataclass(frozen=True)
class _Image:
    """An accepted image with its bytes and what decoding found."""

    source: SourceImage
    data: bytes
    info: ImageInfo


def _read(job: ShardJob) -> dict[str, bytes | str]:
    """Bytes of every image file of the job, or why it cannot be read.

    Raises:
        SourceError: a file is not the one that the job's key speaks of.
    """
    read: dict[str, bytes | str] = {}
    for image in job.images:
        digest = job.digests[image.path]
        if digest.startswith(UNREADABLE):
            read[image.path] = digest.removeprefix(UNREADABLE)
            continue
        try:
            data = (Path(job.source) / image.path).read_bytes()
        except OSError as error:
            raise SourceError(f"{image.path} vanished during the rebuild ({error.strerror}): run it again.") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise SourceError(f"{image.path} changed during the rebuild: run it again when the source is at rest.")
        read[image.path] = data
    return read


def _decode(job: ShardJob, read: Mapping[str, bytes | str], rows: _Rows) -> list[_Image]:
    """Decode every image; what cannot be read or trusted is refused."""
    accepted: list[_Image] = []
    for image in job.images:
        data = read[image.path]
        found = (
            inspect(data, job.config.partition.max_pixels, job.digests[image.path])  # _read has checked it
            if isinstance(data, bytes)
            else f"unreadable: {data}"
        )
        if isinstance(found, str) or isinstance(data, str):
            reason, _, detail = str(found).partition(": ")
            rows.rejects.append(Reject("images", image.path, 0, "image", reason, detail))
        else:
            accepted.append(_Image(image, data, found))
    return accepted


def _refuse_copies(images: Sequence[_Image], rows: _Rows) -> dict[str, str]:
    """Refuse query files that are byte-identical to a gallery file of their building.

    Returns:
        For every refused copy the id of the gallery image that stands for it.
    """
    gallery = {
        (i.source.building_id, i.info.sha256): i.source.path for i in reversed(images) if i.source.role == "gallery"
    }
    copies: dict[str, str] = {}
    for image in images:
        original = gallery.get((image.source.building_id, image.info.sha256))
        if image.source.role == "query" and original:
            copies[image.source.path] = original
            detail = f"byte-identical to {original}"
            rows.rejects.append(Reject("images", image.source.path, 0, "image", "duplicate", detail))
    return copies


def _by_image(
    table: Table,
    given: Sequence[R],
    said: Callable[[R], object],
    kept: Iterable[str],
    copies: Mapping[str, str],
    rows: _Rows,
) -> dict[str, list[R]]:
    """Captions or regions by image; a query copy's go to its gallery image, a refused image's are refused.

    Args:
        said: what a row says; a copy's row that says what its gallery image says already is refused as a duplicate.
    """
    homes: dict[str, list[R]] = {image_id: [] for image_id in kept}
    for row in sorted(given, key=lambda r: (r.image_id in copies, r.image_id, r.ordinal)):
        image_id = copies.get(row.image_id, row.image_id)
        home = homes.get(image_id)
        if home is None:
            rows.rejects.append(_refused(table, row, "parent", f"its image {image_id} was refused"))
        elif row.image_id == image_id:
            home.append(row)
        elif said(row) in map(said, home):
            rows.rejects.append(_refused(table, row, "duplicate", f"stands already at {image_id}"))
        else:
            home.append(replace(row, image_id=image_id, ordinal=1 + max((r.ordinal for r in home), default=-1)))
    return homes


def _refused(table: Table, row: SourceCaption | SourceRegion, reason: str, detail: str) -> Reject:
    return Reject(table, row.source, row.row, "image", reason, detail)


def _refine(job: ShardJob, said: Wordings, image_of: Mapping[str, str]) -> dict[tuple[str, int | None], Refined]:
    """Every wording refined: by the model's answers where the job has some, else by the rules."""
    answers = read_answers(Path(job.answers)) if job.answers else {}
    known: dict[tuple[str, str], Refined] = {}
    done: dict[tuple[str, int | None], Refined] = {}
    for (caption_id, variant), stripped in said.items():
        asked = (image_of[caption_id], stripped.text)
        if asked not in known:
            known[asked] = answers[asked] if job.answers else refine_stripped(stripped, job.platform)
        done[caption_id, variant] = replace(known[asked], stripped=stripped)
    return done


def _decide(
    job: ShardJob, captions: Sequence[SourceCaption], refined: dict[tuple[str, int | None], Refined], rows: _Rows
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
                rows.applied += 1
            elif own:
                rows.stale.append(own.caption_id)


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


def _augmented(
    job: ShardJob,
    image: _Image,
    captions: Sequence[SourceCaption],
    regions: Sequence[SourceRegion],
    refined: Mapping[tuple[str, int | None], Refined],
    said: Wordings,
    rows: _Rows,
) -> None:
    """Add the augmented copies of a satellite tile, with the captions and the regions that are still true of them."""
    for variant in variants(job.config, job.split, job.platform):
        tile = augment_tile(
            image.data,
            [region.bbox for region in regions],
            image_id=image.source.path,
            variant=variant,
            seed=job.config.seed,
            config=job.config.augment,
            symmetries_only=job.config.orientation.satellite == "remap",
        )
        copy = replace(image.source, path=copy_id(image.source.path, variant))
        row = _image_row(job, copy, tile.data, (tile.width, tile.height), hashlib.sha256(tile.data).hexdigest())
        rows.add("images", [{**row, "parent_image_id": image.source.path, "transform": tile.transform}], derived=True)
        rows.add(
            "captions",
            [_caption_row(job, copy, replace(c, image_id=copy.path), refined[c.caption_id, variant]) for c in captions],
            derived=True,
        )
        rows.add(
            "regions",
            [
                _region_row(job, copy, replace(region, image_id=copy.path), said[region.region_id, variant].text, box)
                for region, box in zip(regions, tile.boxes, strict=True)
                if box is not None
            ],
            derived=True,
        )


def _fill(job: ShardJob, images: Sequence[_Image], copies: Mapping[str, str], rows: _Rows) -> None:
    ids = [image.source.path for image in images]
    captions_of = _by_image("captions", job.captions, lambda c: c.raw, ids, copies, rows)
    regions_of = _by_image("regions", job.regions, lambda r: (r.sentence, r.bbox), ids, copies, rows)
    captions = tuple(caption for image_id in ids for caption in captions_of[image_id])
    regions = tuple(region for image_id in ids for region in regions_of[image_id])

    said: Wordings = {(r.region_id, ORIGINAL): Stripped(r.sentence) for r in regions}
    if job.split == "train":
        said = region_wordings(regions, job.platform, job.config)
        wordings = caption_wordings(captions, job.platform, job.config)
        refined = _refine(job, wordings, {c.caption_id: c.image_id for c in captions})
        _decide(job, captions, refined, rows)
    else:
        kept = keep_captions([c.raw for c in captions])
        refined = {(c.caption_id, ORIGINAL): row for c, row in zip(captions, kept, strict=True)}

    for image in images:
        own_captions, own_regions = captions_of[image.source.path], regions_of[image.source.path]
        size = image.info.width, image.info.height
        rows.add("images", [_image_row(job, image.source, image.data, size, image.info.sha256)])
        rows.add(
            "captions", [_caption_row(job, image.source, c, refined[c.caption_id, ORIGINAL]) for c in own_captions]
        )
        rows.add(
            "regions",
            [_region_row(job, image.source, r, said[r.region_id, ORIGINAL].text, r.bbox) for r in own_regions],
        )
        try:
            _augmented(job, image, own_captions, own_regions, refined, said, rows)
        except SourceError as error:
            rows.notes.append(f"not augmented: {error}")


def _accounts(job: ShardJob, rows: _Rows) -> dict[Table, Account]:
    read = {"images": len(job.images), "captions": len(job.captions), "regions": len(job.regions)}
    refused = Counter(reject.table for reject in rows.rejects)
    accounts = {
        table: Account(read[table], rows.written[table], refused[table], rows.derived[table]) for table in TABLES
    }
    check_accounts(accounts, job.name)
    return accounts


def check_accounts(accounts: Mapping[Table, Account], where: str) -> None:
    """Raise AccountingError unless rows read equal rows written plus rows rejected in every table."""
    for table, account in accounts.items():
        if not account.balanced:
            raise AccountingError(
                f"{where}: {account.read} {table} were read, but {account.written} written and {account.rejected} "
                "rejected: nothing was published; please report this."
            )


def _counts(rows: _Rows) -> dict[str, Any]:
    originals = [row for row in rows.images if row["parent_image_id"] is None]
    return {
        "buildings": sorted({row["building_id"] for row in originals}),
        "images": len(originals),
        "augmented": len(rows.images) - len(originals),
        "captions": len(rows.captions),
        "regions": len(rows.regions),
        "statuses": dict(sorted(Counter(row["status"] for row in rows.captions).items())),
        "decisions": {"applied": rows.applied, "stale": rows.stale},
    }


def _gates(rows: _Rows) -> dict[str, dict[str, int]]:
    tally: dict[str, dict[str, int]] = {}
    for row in rows.captions:
        for gate in row["gates"]:
            tally.setdefault(gate["gate"], {"passed": 0, "failed": 0})["passed" if gate["passed"] else "failed"] += 1
    return dict(sorted(tally.items()))


def _folder(job: ShardJob, key: str) -> Path:
    return Path(job.work) / "shards" / key


def stored_result(job: ShardJob, key: str, hashes: Hashes) -> ShardResult | None:
    """The result of an earlier run under the same key, if every file of it is undamaged."""
    folder = _folder(job, key)
    try:
        text = (folder / RESULT).read_text(encoding="utf-8")
        values = json.loads(text)
        files = {table: Shard(**shard) for table, shard in values["files"].items()}
        if values.pop("sha256") != _checksum(values):
            return None
        if any(hashes.of(folder / f"{table}.parquet") != shard.sha256 for table, shard in files.items()):
            return None
        return ShardResult(
            name=job.name,
            split=job.split,
            platform=job.platform,
            folder=str(folder),
            reused=True,
            files={table: replace(shard, path=f"{table}/{job.name}") for table, shard in files.items()},
            accounts={table: Account(**account) for table, account in values["accounts"].items()},
            counts=values["counts"],
            gates=values["gates"],
            rejects=tuple(Reject(**reject) for reject in values["rejects"]),
            notes=tuple(values["notes"]),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def was_finished(job: ShardJob, key: str) -> bool:
    """Whether an earlier run finished the shard; if `stored_result` gives None then, its files were damaged since."""
    return (_folder(job, key) / RESULT).exists()


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def build_shard(job: ShardJob, key: str) -> ShardResult:
    """Make one shard and keep its result under its key.

    Returns:
        What the shard holds; its files lie in `folder` as <table>.parquet.

    Raises:
        AccountingError: rows went missing, which is a defect of ours.
        SourceError: an image changed since the key was made.
    """
    rows = _Rows()
    images = _decode(job, _read(job), rows)
    copies = _refuse_copies(images, rows)
    _fill(job, [image for image in images if image.source.path not in copies], copies, rows)
    folder = _folder(job, key)
    files: dict[Table, Shard] = {}
    for table in TABLES:
        if values := getattr(rows, table):
            written = write_table(folder / f"{table}.parquet", pa.Table.from_pylist(values, schema=SCHEMAS[table]))
            path = f"{table}/{job.name}"
            files[table] = Shard(path, table, job.split, job.platform, written.rows, written.bytes, written.sha256)
    result = ShardResult(
        name=job.name,
        split=job.split,
        platform=job.platform,
        folder=str(folder),
        reused=False,
        files=files,
        accounts=_accounts(job, rows),
        counts=_counts(rows),
        gates=_gates(rows),
        rejects=tuple(rows.rejects),
        notes=tuple(rows.notes),
    )
    kept = {
        key: value
        for key, value in asdict(result).items()
        if key not in ("name", "split", "platform", "folder", "reused")
    }
    atomic_write(folder / RESULT, json.dumps({**kept, "sha256": _checksum(kept)}, sort_keys=True).encode())
    return result
