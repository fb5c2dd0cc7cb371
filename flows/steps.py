"""The steps of a rebuild as plain functions over typed records: no Prefect here, so that any process can run them.

    deal(source) -> [ShardJob]            rows dealt to shards by building
    build_shard(job) -> ShardResult       one shard: decode, deduplicate, strip, refine, gate, augment, write
    rejects_table(...), totals(...)       what the manifest says

A shard's result is stored under a key of everything that went in (file contents, captions, boxes, the part of the
configuration that is read, the code itself), and taken from there when the same goes in again.
"""

import hashlib
import importlib.metadata
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from augment.satellite import augment_tile
from data.images import ImageInfo, inspect
from data.partition import part_of
from data.readers import Source
from data.shards import atomic_write, sha256_file, write_table
from refine.orientation import strip_many
from refine.refinement import keep_captions, refine_captions
from schemas.config import Config, OrientationMode, config_dict
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
    Table,
)
from schemas.tables import REJECTS, SCHEMAS

R = TypeVar("R", SourceCaption, SourceRegion)

ROOT = Path(__file__).resolve().parent.parent
# Whatever may change a shard's bytes while its input stays the same: our own code and word lists, and these libraries.
CODE = (
    "flows/steps.py",
    "refine",
    "augment",
    "data/images.py",
    "data/shards.py",
    "schemas/records.py",
    "schemas/tables.py",
)
LIBRARIES = ("albumentations", "numpy", "opencv-python-headless", "pillow", "pyarrow", "spacy")


@dataclass(frozen=True)
class ShardJob:
    """Everything one shard is made of: the rows of some buildings of one split and platform."""

    source: str
    work: str
    split: Split
    platform: Platform
    part: int
    images: tuple[SourceImage, ...]
    captions: tuple[SourceCaption, ...]
    regions: tuple[SourceRegion, ...]
    config: Config

    @property
    def name(self) -> str:
        return f"split={self.split}/platform={self.platform}/part-{self.part:05d}.parquet"


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

    def add(self, table: Table, rows: Sequence[dict[str, Any]], derived: bool = False) -> None:
        getattr(self, table).extend(rows)
        (self.derived if derived else self.written)[table] += len(rows)


@dataclass(frozen=True)
class _Image:
    """An accepted image with its bytes and what decoding found."""

    source: SourceImage
    data: bytes
    info: ImageInfo


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


def _read(job: ShardJob) -> dict[str, bytes | str]:
    """Bytes of every image file of the job, or why it cannot be read."""
    read: dict[str, bytes | str] = {}
    for image in job.images:
        try:
            read[image.path] = (Path(job.source) / image.path).read_bytes()
        except OSError as error:
            read[image.path] = error.strerror or str(error)
    return read


@cache
def step_version() -> str:
    """Hash of the code, the word lists and the library versions that a shard's bytes depend on, hexadecimal."""
    digest = hashlib.sha256()
    for name in CODE:
        paths = [ROOT / name] if name.endswith(".py") else sorted((ROOT / name).rglob("*.*"))
        for path in (p for p in paths if p.suffix in (".py", ".yaml")):
            digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    for library in LIBRARIES:
        digest.update(f"{library} {importlib.metadata.version(library)}\0".encode())
    return digest.hexdigest()


def _key(job: ShardJob, read: Mapping[str, bytes | str]) -> str:
    config = config_dict(job.config)
    content = {
        "step": step_version(),
        "split": job.split,
        "platform": job.platform,
        "images": [
            (repr(i), hashlib.sha256(b).hexdigest() if isinstance(b := read[i.path], bytes) else b) for i in job.images
        ],
        "captions": [repr(c) for c in job.captions],
        "regions": [repr(r) for r in job.regions],
        "max_pixels": config["partition"]["max_pixels"],
        **({k: config[k] for k in ("seed", "orientation", "augment", "refine")} if job.split == "train" else {}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _decode(job: ShardJob, read: Mapping[str, bytes | str], rows: _Rows) -> list[_Image]:
    """Decode every image; what cannot be read or trusted is refused."""
    accepted: list[_Image] = []
    for image in job.images:
        data = read[image.path]
        found = inspect(data, job.config.partition.max_pixels) if isinstance(data, bytes) else f"unreadable: {data}"
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


def _refine(job: ShardJob, raws: Sequence[str], mode: OrientationMode) -> list[Refined]:
    if job.split != "train":
        return keep_captions(raws)
    return refine_captions(raws, job.platform, mode=mode, refiner=job.config.refine.refiner)


def _image_row(job: ShardJob, image: SourceImage, data: bytes, width: int, height: int) -> dict[str, Any]:
    return {
        "image_id": image.path,
        "building_id": image.building_id,
        "platform": job.platform,
        "split": job.split,
        "role": image.role,
        "image": {"bytes": data, "path": image.path},
        "width": width,
        "height": height,
        "sha256": hashlib.sha256(data).hexdigest(),
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
    captions: Sequence[tuple[SourceCaption, Refined]],
    regions: Sequence[tuple[SourceRegion, str]],
    rows: _Rows,
) -> None:
    """Add the augmented copies of a satellite tile, with the captions and the regions that are still true of them."""
    for variant in range(job.config.augment.variants):
        tile = augment_tile(
            image.data,
            [region.bbox for region, _ in regions],
            image_id=image.source.path,
            variant=variant,
            seed=job.config.seed,
            config=job.config.augment,
        )
        copy = replace(image.source, path=f"{image.source.path}~aug{variant}")
        row = _image_row(job, copy, tile.data, tile.width, tile.height)
        rows.add("images", [{**row, "parent_image_id": image.source.path, "transform": tile.transform}], derived=True)
        rows.add(
            "captions",
            [_caption_row(job, copy, replace(caption, image_id=copy.path), done) for caption, done in captions],
            derived=True,
        )
        rows.add(
            "regions",
            [
                _region_row(job, copy, replace(region, image_id=copy.path), stripped, box)
                for (region, stripped), box in zip(regions, tile.boxes, strict=True)
                if box is not None
            ],
            derived=True,
        )


def _fill(job: ShardJob, images: Sequence[_Image], copies: Mapping[str, str], rows: _Rows) -> None:
    ids = [image.source.path for image in images]
    captions_of = _by_image("captions", job.captions, lambda c: c.raw, ids, copies, rows)
    regions_of = _by_image("regions", job.regions, lambda r: (r.sentence, r.bbox), ids, copies, rows)
    captions = [caption for image_id in ids for caption in captions_of[image_id]]
    regions = [region for image_id in ids for region in regions_of[image_id]]

    mode = job.config.orientation.mode(job.platform)
    augments = job.split == "train" and job.platform == "satellite" and job.config.augment.variants > 0
    cleans = job.split == "train" and mode == "strip"
    done = dict(zip(captions, _refine(job, [c.raw for c in captions], mode), strict=True))
    # An augmented tile is turned: its words never keep their orientation, whatever the mode of the originals is.
    turned = done
    if augments and mode != "strip":
        turned = dict(zip(captions, _refine(job, [c.raw for c in captions], "strip"), strict=True))
    bare = {}
    if cleans or augments:
        bare = dict(zip(regions, (s.text for s in strip_many(r.sentence for r in regions)), strict=True))

    for image in images:
        own_captions, own_regions = captions_of[image.source.path], regions_of[image.source.path]
        rows.add("images", [_image_row(job, image.source, image.data, image.info.width, image.info.height)])
        rows.add("captions", [_caption_row(job, image.source, c, done[c]) for c in own_captions])
        rows.add(
            "regions",
            [_region_row(job, image.source, r, bare[r] if cleans else r.sentence, r.bbox) for r in own_regions],
        )
        if augments:
            try:
                _augmented(
                    job, image, [(c, turned[c]) for c in own_captions], [(r, bare[r]) for r in own_regions], rows
                )
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
    }


def _gates(rows: _Rows) -> dict[str, dict[str, int]]:
    tally: dict[str, dict[str, int]] = {}
    for row in rows.captions:
        for gate in row["gates"]:
            tally.setdefault(gate["gate"], {"passed": 0, "failed": 0})["passed" if gate["passed"] else "failed"] += 1
    return dict(sorted(tally.items()))


def _stored(job: ShardJob, folder: Path) -> ShardResult | None:
    """The result of an earlier run under the same key, if every file of it is undamaged."""
    try:
        values = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        files = {table: Shard(**shard) for table, shard in values["files"].items()}
        if any(sha256_file(folder / f"{table}.parquet") != shard.sha256 for table, shard in files.items()):
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
    except (OSError, ValueError, TypeError, KeyError):
        return None


def build_shard(job: ShardJob) -> ShardResult:
    """Make one shard, or take it from .work when the same was made before.

    Returns:
        What the shard holds; its files lie in `folder` as <table>.parquet.

    Raises:
        AccountingError: rows went missing, which is a defect of ours.
    """
    read = _read(job)
    folder = Path(job.work) / "shards" / _key(job, read)
    stored = _stored(job, folder)
    if stored is not None:
        return stored

    rows = _Rows()
    images = _decode(job, read, rows)
    copies = _refuse_copies(images, rows)
    _fill(job, [image for image in images if image.source.path not in copies], copies, rows)
    folder.mkdir(parents=True, exist_ok=True)
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
    atomic_write(folder / "result.json", json.dumps(kept, sort_keys=True).encode())
    return result


def rejects_table(rejects: Iterable[Reject]) -> pa.Table:
    """Every refused row, in the order of source, row, field."""
    rows = sorted(
        (asdict(reject) for reject in rejects),
        key=lambda r: (r["table"], r["source"], r["row"], r["field"], r["detail"]),
    )
    return pa.Table.from_pylist(rows, schema=REJECTS)


def total_accounts(source: Source, results: Sequence[ShardResult]) -> dict[Table, Account]:
    """The balance of the whole rebuild: rows the reader refused count as read and rejected.

    Raises:
        AccountingError: the parts do not add up to what was read.
    """
    refused = Counter(reject.table for reject in source.rejects)
    accounts = {
        table: Account(
            read=source.read[table],
            written=sum(r.accounts[table].written for r in results),
            rejected=refused[table] + sum(r.accounts[table].rejected for r in results),
            derived=sum(r.accounts[table].derived for r in results),
        )
        for table in TABLES
    }
    check_accounts(accounts, "the rebuild")
    return accounts


def total_counts(results: Sequence[ShardResult]) -> dict[str, Any]:
    """{split: {platform: counts}} summed over shards; buildings as a number."""
    totals: dict[str, Any] = {}
    for result in results:
        cell = totals.setdefault(result.split, {}).setdefault(
            result.platform, {"buildings": 0, "images": 0, "augmented": 0, "captions": 0, "regions": 0, "statuses": {}}
        )
        cell["buildings"] += len(result.counts["buildings"])
        for key in ("images", "augmented", "captions", "regions"):
            cell[key] += result.counts[key]
        for status, n in result.counts["statuses"].items():
            cell["statuses"][status] = cell["statuses"].get(status, 0) + n
    return totals


def total_gates(results: Sequence[ShardResult]) -> dict[str, dict[str, int]]:
    """Per gate how many replies passed and failed it, originals and augmented copies alike."""
    totals: dict[str, dict[str, int]] = {}
    for result in results:
        for gate, tally in result.gates.items():
            cell = totals.setdefault(gate, {"passed": 0, "failed": 0})
            cell["passed"] += tally["passed"]
            cell["failed"] += tally["failed"]
    return dict(sorted(totals.items()))
