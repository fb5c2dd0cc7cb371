"""Check a version of a data set against everything its manifest and the design promise (`georefine verify DATASET`).

    findings = verify(Path("dataset"))        # empty: nothing is wrong

Reads every shard once, in row groups, so that memory holds no more than a row group of images (and a thousand bytes per
image of what it looks like). Checks by name: manifest, latest, files, shard, schema, partition, ids, references,
image, caption, region, accounts, counts, leak.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.images import Looks, looks, near_duplicates
from data.shards import (
    ALL_SCHEMAS,
    LATEST,
    MANIFEST,
    READ_ERRORS,
    ROW_GROUP,
    Version,
    complete_versions,
    is_inside,
    open_version,
    sha256_bytes,
    sha256_file,
)
from data.versions import CARD
from schemas.errors import DatasetError
from schemas.manifest import Account, Shard
from schemas.records import PLATFORMS, SPLITS, STATUSES, TABLES, Edit, Table, apply_edits

SHOWN = 20  # findings of one check that are listed one by one
BOX_ROUNDING = 1e-6  # boxes are stored as float32


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: the check that found it, where (a path or an id), and the problem in one sentence."""

    check: str
    where: str
    problem: str


@dataclass
class _Seen:
    """What the rows read so far add up to."""

    findings: list[Finding] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    ids: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    home: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # image_id -> building, platform, split
    texts: list[tuple[str, str, tuple[str, str, str]]] = field(default_factory=list)  # that disagree with their image
    derived: set[str] = field(default_factory=set)
    parents: dict[str, str] = field(default_factory=dict)
    rows: Counter[tuple[str, bool]] = field(default_factory=Counter)  # table, derived
    counts: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    rejected: Counter[str] = field(default_factory=Counter)
    statuses: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    splits_of_building: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    first_with_bytes: dict[str, tuple[str, str]] = field(default_factory=dict)  # sha256 -> split, image_id
    copies: set[str] = field(default_factory=set)  # images whose byte-identical twin was reported
    looks: dict[str, dict[str, Looks]] = field(default_factory=lambda: defaultdict(dict))  # split -> image_id

    def add(self, check: str, where: str, problem: str) -> None:
        self.found[check] += 1
        if self.found[check] <= SHOWN:
            self.findings.append(Finding(check, where, problem))

    def expect(self, ok: bool, check: str, where: str, problem: str) -> None:
        if not ok:
            self.add(check, where, problem)

    def unique(self, table: str, row_id: str) -> None:
        self.expect(row_id not in self.ids[table], "ids", row_id, f"stands more than once in {table}.")
        self.ids[table].add(row_id)


def verify(dataset: Path) -> list[Finding]:
    """Everything that is wrong with the newest version of a data set, or with the version named (DATASET/v0002).

    At most SHOWN findings per check are listed, then how many more there are. Never raises for damage: a data set that
    cannot be opened at all is one finding.
    """
    seen = _Seen()
    try:
        version = open_version(dataset)
    except DatasetError as error:
        return [Finding("manifest", str(dataset), str(error))]
    if problem := _malformed(version):
        return [Finding("manifest", f"{version.path.name}/{MANIFEST}", problem)]
    _check_manifest(seen, Path(dataset), version)
    readable = _check_files(seen, version)
    for table, check in _CHECKS.items():
        for shard in readable:
            if shard.table == table:
                try:
                    check(seen, version, shard)
                except DatasetError as error:
                    seen.add("shard", shard.path, str(error))
    if len(readable) == len(version.manifest.shards) and not seen.found["shard"]:  # else their faults only echo
        _check_references(seen)
        _check_accounts(seen, version.manifest.accounts)
        _check_counts(seen, version.manifest.counts)
    _check_leaks(seen)
    more = [
        Finding(check, version.name, f"{count - SHOWN:,} more findings of this check are not listed.")
        for check, count in sorted(seen.found.items())
        if count > SHOWN
    ]
    return seen.findings + more


def _malformed(version: Version) -> str | None:
    """Why the rest of the checks cannot trust the types in the manifest; None where they can."""
    manifest = version.manifest
    for shard in manifest.shards:
        texts = (shard.path, shard.table, shard.sha256, shard.split or "", shard.platform or "")
        if not all(isinstance(text, str) for text in texts) or not _whole(shard.rows, shard.bytes):
            return f"describes a shard with values of wrong types: {shard}."
    for table, account in manifest.accounts.items():
        if not _whole(account.read, account.written, account.rejected, account.derived):
            return f"has numbers of wrong types in the account of {table}: {account}."
    cells = manifest.counts.values() if isinstance(manifest.counts, dict) else [None]
    if not all(isinstance(cell, dict) and all(isinstance(c, dict) for c in cell.values()) for cell in cells):
        return "has counts that are no mapping of split, platform and count."
    return None


def _whole(*numbers: Any) -> bool:
    return all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)


def _rows(version: Version, shard: Shard, columns: list[str]) -> Iterator[dict[str, Any]]:
    schema = ALL_SCHEMAS[shard.table]
    schema = pa.schema([schema.field(name) for name in columns])
    for batch in version.shard_batches(shard, schema, ROW_GROUP[shard.table]):
        yield from batch.to_pylist()


def _check_manifest(seen: _Seen, dataset: Path, version: Version) -> None:
    where = f"{version.path.name}/{MANIFEST}"
    seen.expect(version.name == version.path.name, "manifest", where, f"calls itself version {version.name!r}.")
    twice = [path for path, n in Counter(shard.path for shard in version.manifest.shards).items() if n > 1]
    seen.expect(not twice, "manifest", where, f"lists shards twice: {', '.join(twice[:5])}.")
    if version.path == dataset:
        return
    newest = complete_versions(dataset)[-1]
    if not (dataset / LATEST).is_file():
        seen.add("latest", LATEST, f"is missing; the newest version is {newest}.")
    elif version.path.name != newest:
        seen.add("latest", LATEST, f"names {version.path.name}, but the newest complete version is {newest}.")


def _check_files(seen: _Seen, version: Version) -> list[Shard]:
    """Compare files with the manifest; returns the shards whose rows can be read."""
    readable = []
    for shard in sorted(version.manifest.shards, key=lambda s: str(s.path)):
        path = version.path / str(shard.path)
        if not is_inside(str(shard.path)) or shard.table not in ALL_SCHEMAS:
            seen.add("manifest", str(shard.path), "is no path of a shard in a version.")
        elif not path.is_file():
            seen.add("files", shard.path, "is listed in the manifest, but missing.")
        elif _check_shard(seen, path, shard):
            readable.append(shard)
    listed = {shard.path for shard in version.manifest.shards} | {MANIFEST, CARD}
    for path in sorted(version.path.rglob("*")):
        name = path.relative_to(version.path).as_posix()
        if not path.is_dir() and name not in listed:
            seen.add("files", name, "is not listed in the manifest.")
    _check_card(seen, version)
    return readable


def _check_card(seen: _Seen, version: Version) -> None:
    path, card = version.path / CARD, version.manifest.card
    try:
        digest = sha256_file(path)
    except OSError as error:
        seen.add("files", CARD, "is missing." if not path.exists() else f"cannot be read ({error.strerror}).")
        return
    if card:  # versions of before it was noted have none
        seen.expect(digest == card.sha256, "files", CARD, "has another SHA-256 than the manifest says.")


def _check_shard(seen: _Seen, path: Path, shard: Shard) -> bool:
    """Whether the rows of a shard can be checked. Bytes that are not the ones written are not given to a decoder."""
    try:
        size, digest = path.stat().st_size, sha256_file(path)
        seen.expect(size == shard.bytes, "shard", shard.path, f"has {size:,} bytes, the manifest says {shard.bytes:,}.")
        if digest != shard.sha256:
            seen.add("shard", shard.path, "has another SHA-256 than the manifest says.")
            return False
        with pq.ParquetFile(path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
    except READ_ERRORS as error:
        seen.add("shard", shard.path, f"cannot be read: {str(error).splitlines()[0] if str(error) else error!r}.")
        return False
    seen.expect(rows == shard.rows, "shard", shard.path, f"has {rows:,} rows, the manifest says {shard.rows:,}.")
    folder = shard.table
    if shard.table != "rejects":
        folder += f"/split={shard.split}/platform={shard.platform}"
        if shard.split not in SPLITS or shard.platform not in PLATFORMS:
            seen.add("partition", shard.path, f"split {shard.split!r} or platform {shard.platform!r} is unknown.")
    seen.expect(Path(shard.path).parent.as_posix() == folder, "partition", shard.path, f"should stand in {folder}/.")
    expected = ALL_SCHEMAS[shard.table]
    # Not check_metadata=True: that compares the names of list items too, and Parquet calls them all "element".
    if not schema.equals(expected) or schema.metadata != expected.metadata:
        differing = [f.name for f in expected if f.name not in schema.names or not schema.field(f.name).equals(f)]
        extra = [name for name in schema.names if name not in expected.names]
        what = ", ".join([*differing, *extra]) or "order or metadata"
        seen.add("schema", shard.path, f"differs from schemas/tables.py in {what}.")
        return not differing
    return True


def _check_place(seen: _Seen, shard: Shard, row: Mapping[str, Any], row_id: str) -> None:
    for key, value in (("split", shard.split), ("platform", shard.platform)):
        seen.expect(row[key] == value, "partition", row_id, f"{key} is {row[key]!r}, but its shard is {shard.path}.")


def _check_images(seen: _Seen, version: Version, shard: Shard) -> None:
    schema = ALL_SCHEMAS["images"]
    with ThreadPoolExecutor() as pool:
        for batch in version.shard_batches(shard, schema, ROW_GROUP["images"]):
            rows = batch.to_pylist()
            originals = [row for row in rows if row["parent_image_id"] is None]
            shown = pool.map(looks, ((row["image"] or {}).get("bytes") or b"" for row in originals))
            for row in rows:
                _check_image(seen, shard, row)
            for row, look in zip(originals, shown, strict=True):
                if look is None:
                    seen.add("image", str(row["image_id"]), "does not decode.")
                else:
                    seen.looks[str(row["split"])][str(row["image_id"])] = look


def _check_image(seen: _Seen, shard: Shard, row: Mapping[str, Any]) -> None:
    image_id, split = str(row["image_id"]), str(row["split"])
    parent = row["parent_image_id"]
    seen.unique("images", image_id)
    _check_place(seen, shard, row, image_id)
    seen.home[image_id] = (str(row["building_id"]), str(row["platform"]), split)
    seen.splits_of_building[str(row["building_id"])].add(split)
    seen.rows["images", parent is not None] += 1
    cell = seen.counts[split, str(row["platform"])]
    cell["augmented" if parent is not None else "images"] += 1
    roles = ("query", "gallery") if split == "test" else ("train",)
    seen.expect(row["role"] in roles, "image", image_id, f"has the role {row['role']!r} in split {split}.")
    seen.expect(bool(row["building_id"]), "image", image_id, "has no building.")
    seen.expect((row["width"] or 0) > 0 and (row["height"] or 0) > 0, "image", image_id, "has no size.")
    digest = sha256_bytes((row["image"] or {}).get("bytes") or b"")
    seen.expect(digest == row["sha256"], "image", image_id, "has bytes of another SHA-256 than its row says.")
    if parent is not None:
        seen.derived.add(image_id)
        seen.parents[image_id] = str(parent)
        seen.expect(_is_json(row["transform"]), "image", image_id, "is augmented, but its transform is no JSON.")
        return
    seen.expect(row["transform"] is None, "image", image_id, "is an original, but has a transform.")
    other_split, other = seen.first_with_bytes.setdefault(digest, (split, image_id))
    if other_split != split:
        seen.copies.add(image_id)
        seen.add("leak", image_id, f"has the very bytes of {other}, which is in split {other_split}, not {split}.")


def _is_json(text: Any) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (TypeError, ValueError, RecursionError):
        return False


def _check_references(seen: _Seen) -> None:
    for row_id, image_id, place in seen.texts:
        if image_id not in seen.home:
            seen.add("references", row_id, f"speaks of image {image_id}, which is not there.")
        elif seen.home[image_id] != place:
            seen.add("references", row_id, f"is of {place}, its image of {seen.home[image_id]}.")
    for image_id, parent in sorted(seen.parents.items()):
        if parent not in seen.home:
            seen.add("references", image_id, f"was made from {parent}, which is not there.")
        elif seen.home[parent] != seen.home[image_id] or parent in seen.derived:
            seen.add("references", image_id, f"was made from {parent}, of another place or augmented itself.")


def _check_text_row(seen: _Seen, shard: Shard, row: Mapping[str, Any], row_id: str, sign: str) -> None:
    """What captions and regions share: place, unique id, the image they speak of."""
    image_id = str(row["image_id"])
    derived = image_id in seen.derived
    seen.unique(shard.table, row_id)
    _check_place(seen, shard, row, row_id)
    seen.rows[shard.table, derived] += 1
    seen.counts[str(row["split"]), str(row["platform"])][shard.table] += 1
    ordinal = row_id.removeprefix(f"{image_id}{sign}")
    seen.expect(ordinal.isdecimal(), "ids", row_id, f"should be {image_id}{sign} and a number.")
    place = (str(row["building_id"]), str(row["platform"]), str(row["split"]))
    if seen.home.get(image_id) != place:
        seen.texts.append((row_id, image_id, place))


def _check_captions(seen: _Seen, version: Version, shard: Shard) -> None:
    columns = [
        "caption_id",
        "image_id",
        "building_id",
        "platform",
        "split",
        "raw",
        "edits",
        "stripped",
        "final",
        "status",
    ]
    for row in _rows(version, shard, columns):
        row_id = str(row["caption_id"])
        _check_text_row(seen, shard, row, row_id, "#")
        raw, stripped, final, status = row["raw"], row["stripped"], row["final"], row["status"]
        seen.statuses[str(row["split"]), str(row["platform"])][str(status)] += 1
        if not all(isinstance(text, str) for text in (raw, stripped, final)):
            seen.add("caption", row_id, "has no raw, stripped or final text.")
            continue
        seen.expect(bool(raw.strip()), "caption", row_id, "has an empty raw text.")
        seen.expect(_edits_fit(raw, row["edits"], stripped), "caption", row_id, "has edits that do not give stripped.")
        seen.expect(status in STATUSES, "caption", row_id, f"has the unknown status {status!r}.")
        if status in ("refined", "fallback", "kept", "edited"):
            seen.expect(bool(final.strip()), "caption", row_id, f"is {status}, but has an empty final text.")
        if row["split"] != "train":
            seen.expect(
                final == raw and status == "kept",
                "caption",
                row_id,
                f"is of {row['split']}, but was not kept as it was.",
            )


def _edits_fit(raw: str, edits: Iterable[Mapping[str, Any]] | None, stripped: str) -> bool:
    try:
        return apply_edits(raw, [Edit(**edit) for edit in edits or ()]) == stripped
    except (ValueError, TypeError):
        return False


def _check_regions(seen: _Seen, version: Version, shard: Shard) -> None:
    columns = ["region_id", "image_id", "building_id", "platform", "split", "sentence", "bbox"]
    for row in _rows(version, shard, columns):
        row_id = str(row["region_id"])
        _check_text_row(seen, shard, row, row_id, "@")
        seen.expect(bool(row["sentence"]), "region", row_id, "has no sentence.")
        box = row["bbox"] or []
        inside = all(v is not None and math.isfinite(v) and -BOX_ROUNDING <= v <= 1 + BOX_ROUNDING for v in box)
        seen.expect(len(box) == 4 and inside and min(box[2:]) > 0, "region", row_id, f"has the box {box}, not in 0..1.")


def _check_rejects(seen: _Seen, version: Version, shard: Shard) -> None:
    seen.rejected.update(row["table"] for row in _rows(version, shard, ["table"]))


_CHECKS = {"images": _check_images, "captions": _check_captions, "regions": _check_regions, "rejects": _check_rejects}


def _check_accounts(seen: _Seen, accounts: Mapping[Table, Account]) -> None:
    for table in TABLES:
        if table not in accounts:
            seen.add("accounts", table, "has no account in the manifest.")
            continue
        account = accounts[table]
        seen.expect(account.balanced, "accounts", table, f"read is not written + rejected: {account}.")
        for what, stated, held in (
            ("written", account.written, seen.rows[table, False]),
            ("derived", account.derived, seen.rows[table, True]),
            ("rejected", account.rejected, seen.rejected[table]),
        ):
            seen.expect(
                stated == held, "accounts", table, f"{what}: the manifest says {stated}, the shards hold {held}."
            )


def _check_counts(seen: _Seen, counts: Mapping[str, Any]) -> None:
    buildings = Counter((split, platform) for _, platform, split in set(seen.home.values()))
    stated = {(split, platform) for split, cells in counts.items() for platform in cells}
    for split, platform in sorted(stated | set(seen.counts)):
        cell = counts.get(split, {}).get(platform, {})
        held: dict[str, Any] = {
            **{key: seen.counts[split, platform][key] for key in ("images", "augmented", "captions", "regions")},
            "buildings": buildings[split, platform],
            "statuses": dict(seen.statuses[split, platform]),
        }
        for key, value in sorted(held.items()):
            said = cell.get(key, type(value)())
            seen.expect(
                said == value, "counts", f"{split}/{platform}", f"{key}: the manifest says {said}, shards hold {value}."
            )


def _check_leaks(seen: _Seen) -> None:
    for building, splits in sorted(seen.splits_of_building.items()):
        seen.expect(len(splits) == 1, "leak", building, f"is a building of {', '.join(sorted(splits))}.")
    for one, other in combinations(sorted(seen.looks), 2):
        first, second = list(seen.looks[one]), list(seen.looks[other])
        pairs = near_duplicates(np.stack([*seen.looks[one].values()]), np.stack([*seen.looks[other].values()]))
        for a, b in pairs:
            if not {first[a], second[b]} & seen.copies:
                seen.add("leak", first[a], f"of {one} shows the same picture as {second[b]} of {other}.")
