"""Read a source folder in the layout of University-1652 / GeoText-1652 without decoding an image.

    source = read_source(Path("University-Release"), config.partition)

Nothing is lost quietly. Per table, rows read equal rows accepted plus rows rejected, where a row is

- images: a file in train/ or test/ that is called an image, or that lies in a building's folder; a link or folder there
  that cannot be followed. A file elsewhere that is no data is listed in `ignored`.
- captions: an item of `caption` (a string is one item; a missing, null or empty `caption` is one refused row, and so is
  a record that is no object, and an annotation file that cannot be read).
- regions: a position in `sentences` / `bboxes`, up to the longer of both.

GeoText's train.json repeats an image once per caption, with its regions each time: equal captions and equal (sentence,
box) pairs of one image count as read, and all but the first are refused as `duplicate`. Ordinals run over the rows read
of an image, refused ones included, so that mending one caption does not rename the others.

Text is kept as it came, control characters included; only what UTF-8 cannot store (lone surrogates) is refused.
"""

import json
import math
import os
import posixpath
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.partition import PARTS, differences, gaps, place_of
from schemas.config import PartitionConfig
from schemas.errors import SourceError
from schemas.records import TABLES, Box, Reject, SourceCaption, SourceImage, SourceRegion, Table

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp")
SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep", ".directory")

# Detectors round, and let a box stand out of the image a little: beyond that a box is refused, never clipped.
ROUNDING = 1e-3  # of a coordinate outside 0..1; moved to 0 or 1
OVERHANG = 2e-2  # of an edge outside the image; kept


@dataclass(frozen=True)
class Source:
    """What a source folder holds. All tuples are sorted; equal folders give equal sources.

    Attributes:
        images: accepted, sorted by path.
        captions: accepted, sorted by image and ordinal.
        regions: accepted, sorted by image and ordinal.
        rejects: every row refused, in the order of TABLES, then by source and row.
        ignored: file or folder relative to the source -> why it is no data.
        read: rows read per table; len(accepted) + rejected.
        buildings: the buildings of accepted images.
        notes: differences from the official counts, gaps and leaks, one sentence each.
    """

    images: tuple[SourceImage, ...]
    captions: tuple[SourceCaption, ...]
    regions: tuple[SourceRegion, ...]
    rejects: tuple[Reject, ...]
    ignored: dict[str, str]
    read: dict[Table, int]
    buildings: tuple[str, ...]
    notes: tuple[str, ...]


class _RowError(Exception):
    """A row cannot be accepted: field, reason, detail."""

    def __init__(self, field: str, reason: str, detail: object = "") -> None:
        super().__init__(reason)
        self.field, self.reason, self.detail = field, reason, printable(detail)


@dataclass
class _Reading:
    """What has been read so far."""

    root: Path
    config: PartitionConfig
    images: dict[str, SourceImage] = field(default_factory=dict)
    refused_images: dict[str, str] = field(default_factory=dict)
    captions: list[SourceCaption] = field(default_factory=list)
    regions: list[SourceRegion] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    read: Counter[Table] = field(default_factory=Counter)
    ordinals: Counter[tuple[Table, str]] = field(default_factory=Counter)
    seen: set[tuple[str, str, Box | None]] = field(default_factory=set)

    def refuse(self, table: Table, source: str, row: int, why: _RowError) -> None:
        self.rejects.append(Reject(table, printable(source, 1000), row, why.field, why.reason, why.detail))

    def refuse_image(self, path: str, reason: str, detail: object = "") -> None:
        self.read["images"] += 1
        self.refused_images[path] = reason
        self.refuse("images", path, 0, _RowError("path", reason, detail))

    def next_ordinal(self, table: Table, image_id: str) -> int:
        self.ordinals[table, image_id] += 1
        return self.ordinals[table, image_id] - 1


def printable(value: object, longest: int = 200) -> str:
    """A value as text that UTF-8 can store, at most `longest` characters (plus the sign that it was cut)."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # integers of thousands of digits, lists nested by the thousand
        text = f"a {type(value).__name__} that cannot be shown"
    if len(text) > longest:
        text = text[:longest] + "…"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can store the text: no lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read_source(source: Path, config: PartitionConfig) -> Source:
    """Read the names of all images and all annotations of a source folder.

    Raises:
        SourceError: it is missing, empty, without the expected folders, or holds no image that can be placed.
    """
    root = Path(source)
    names = _check_layout(root)
    reading = _Reading(Path(os.path.realpath(root)), config)
    annotations = [name for name in names if name.lower().endswith(".json")]
    for name in sorted(set(names) - set(annotations) - set(PARTS)):
        reading.ignored[name] = "not train, test or an annotation file"
    for path in _walk(reading):
        if path.count("/") == 1 and path.lower().endswith(".json"):
            annotations.append(path)
        else:
            _read_image_file(reading, path)
    for name in sorted(annotations):
        _read_annotations(reading, name)
    if not reading.images:
        refused = f"; {len(reading.refused_images):,} files were refused" if reading.refused_images else ""
        first = next((f" ({r.source}: {r.reason})" for r in reading.rejects if r.table == "images"), "")
        raise SourceError(
            f"{source} holds no image that can be placed{refused}{first}: expected files like "
            "train/drone/0839/image-01.jpeg or train/0839/image-01.jpeg."
        )
    return _finish(reading)


def _check_layout(root: Path) -> list[str]:
    """Names in the source folder; SourceError says what was found and what was expected."""
    expected = "expected a folder with train/ and test/ as in University-1652 or GeoText-1652"
    try:
        names = sorted(entry.name for entry in root.iterdir())
    except FileNotFoundError as error:
        raise SourceError(f"There is no folder {root}: {expected}.") from error
    except NotADirectoryError as error:
        raise SourceError(f"{root} is a file: {expected}.") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{root} cannot be read ({error}): {expected}.") from error
    if not names:
        raise SourceError(f"{root} is empty: {expected}.")
    if not any((root / part).is_dir() for part in PARTS):
        found = ", ".join(printable(name, 40) + ("/" if (root / name).is_dir() else "") for name in names[:8])
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        inside = next((name for name in names if any((root / name / part).is_dir() for part in PARTS)), None)
        hint = f"; perhaps you mean {root / printable(inside, 40)}" if inside else ""
        raise SourceError(f"{root} holds {found}{more}, but neither train/ nor test/: {expected}{hint}.")
    return names


def _walk(reading: _Reading) -> Iterator[str]:
    """Paths of all files below train/ and test/, relative to the source, sorted within a folder.

    A link to a folder is followed once, if it stays inside the source and is not read anyway: so loops end.
    """
    folders = list(reversed(PARTS))
    links: list[str] = []
    visited: set[str] = set()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        absolute = os.path.join(reading.root, folder)  # noqa: PTH118
        real = os.path.realpath(absolute)
        if folder in PARTS and not os.path.lexists(absolute):
            continue
        if not _inside(real, reading.root):
            reading.refuse_image(folder, "outside", f"leads to {real}")
            continue
        if real in visited:
            reading.ignored[printable(folder, 1000)] = "a link to a folder that is read anyway"
            continue
        visited.add(real)
        try:
            with os.scandir(absolute) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except NotADirectoryError:
            reading.ignored[printable(folder, 1000)] = "not a folder"
            continue
        except OSError as error:
            reading.refuse_image(folder, "unreadable", error.strerror)
            continue
        below: list[str] = []
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if _is_folder(entry):
                (links if entry.is_symlink() else below).append(path)
            else:
                yield path
        folders.extend(reversed(below))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _inside(real: str, root: Path) -> bool:
    return real == str(root) or real.startswith(str(root).rstrip("/") + "/")


def _read_image_file(reading: _Reading, path: str) -> None:
    name = path.rpartition("/")[2]
    is_image = name.lower().rpartition(".")[2] in IMAGE_EXTENSIONS
    place = place_of(path, reading.config)
    if name in SYSTEM_FILES or name.startswith("._"):
        reading.ignored[printable(path, 1000)] = "made by an operating system"
    elif not is_image and isinstance(place, str):
        reading.ignored[printable(path, 1000)] = f"no image, and {place}"
    elif not is_utf8(path):
        reading.refuse_image(path, "bad_name", "the file name is not UTF-8")
    elif not is_image:
        reading.refuse_image(path, "not_an_image", f"its name does not end in one of {', '.join(IMAGE_EXTENSIONS)}")
    elif isinstance(place, str):
        reading.refuse_image(path, "no_place", place)
    else:
        absolute = os.path.join(reading.root, path)  # noqa: PTH118
        try:
            found = os.lstat(absolute)
            if stat.S_ISLNK(found.st_mode):
                real = os.path.realpath(absolute)
                if not _inside(real, reading.root):
                    reading.refuse_image(path, "outside", f"leads to {real}")
                    return
                found = os.stat(absolute)  # noqa: PTH116
        except OSError as error:
            reading.refuse_image(path, "unreadable", error.strerror)
            return
        if not stat.S_ISREG(found.st_mode):
            reading.refuse_image(path, "unreadable", "not a regular file")
            return
        reading.read["images"] += 1
        reading.images[path] = SourceImage(
            path, place.building_id, place.platform, place.split, place.role, found.st_size
        )


def _read_annotations(reading: _Reading, name: str) -> None:
    """Read one annotation file: a list of records, or nested lists of them."""
    records, why = _load(reading, name)
    if why is not None:
        if why.reason == "no_annotation":
            reading.ignored[printable(name, 1000)] = why.detail
        else:
            reading.read["captions"] += 1
            reading.refuse("captions", name, 0, why)
        return
    row = -1
    stack = [iter(records)]
    while stack:
        for record in stack[-1]:
            if isinstance(record, list):
                stack.append(iter(record))
                break
            row += 1
            _read_record(reading, name, row, record)
        else:
            stack.pop()


def _load(reading: _Reading, name: str) -> tuple[list[Any], _RowError | None]:
    path = reading.root / name
    if not _inside(os.path.realpath(path), reading.root):
        return [], _RowError("", "outside", f"leads to {os.path.realpath(path)}")
    try:
        if not path.is_file():
            return [], _RowError("", "unreadable", "not a file")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        return [], _RowError("", "unreadable", str(error) or type(error).__name__)
    official = posixpath.basename(name).lower() in ("train.json", "test.json")
    if isinstance(content, list) and (official or _has_record(content)):
        return content, None
    if official:
        return [], _RowError("", "not_a_list", f"the file holds a {type(content).__name__}, not a list of records")
    return [], _RowError("", "no_annotation", "JSON, but no list of records with image and caption")


def _has_record(content: list[Any]) -> bool:
    """Whether any record below looks like GeoText's."""
    stack = [iter(content)]
    while stack:
        for item in stack[-1]:
            if isinstance(item, list):
                stack.append(iter(item))
                break
            if (
                isinstance(item, dict)
                and ("image" in item or "image_id" in item)
                and {"caption", "sentences"} & set(item)
            ):
                return True
        else:
            stack.pop()
    return False


def _read_record(reading: _Reading, name: str, row: int, record: Any) -> None:
    if not isinstance(record, dict):
        reading.read["captions"] += 1
        reading.refuse("captions", name, row, _RowError("", "not_an_object", record))
        return
    image: SourceImage | _RowError
    try:
        image = _image_of(reading, name, record)
    except _RowError as why:
        image = why
    caption = record.get("caption")
    for text in (caption or [None]) if isinstance(caption, list) else [caption]:
        _read_caption(reading, name, row, image, text)
    sentences, boxes = _items(record.get("sentences")), _items(record.get("bboxes"))
    for n in range(max(len(sentences), len(boxes))):
        sentence = sentences[n] if n < len(sentences) else None
        box = boxes[n] if n < len(boxes) else None
        _read_region(reading, name, row, image, sentence, box)


def _items(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _image_of(reading: _Reading, name: str, record: dict[str, Any]) -> SourceImage:
    """The image that a record annotates.

    `image` is relative to the source or to train/ or test/ (the one that the annotation file names goes first);
    GeoText's `image_id` (relative to train/ or test/) stands in where `image` is absent.
    """
    key = "image" if record.get("image") is not None else "image_id"
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _RowError("image", "no_image", "absent" if value is None else value)
    if value.startswith("/"):
        raise _RowError(key, "outside", value)
    parts = sorted(PARTS, key=lambda part: not name.rpartition("/")[2].startswith(part))
    candidates = [posixpath.normpath(posixpath.join(base, value)) for base in ("", *parts)]
    for path in candidates:
        if path in reading.images:
            return reading.images[path]
    if candidates[0] == ".." or candidates[0].startswith("../"):
        raise _RowError(key, "outside", value)
    for path in candidates:
        if path in reading.refused_images:
            raise _RowError(key, "parent", f"image {path}: {reading.refused_images[path]}")
    raise _RowError(key, "missing_image", value)


def _check_text(text: Any, field: str, config: PartitionConfig) -> str:
    if text is None:
        raise _RowError(field, "null")
    if not isinstance(text, str):
        raise _RowError(field, "not_text", text)
    if not any(map(str.isalnum, text)):
        raise _RowError(field, "empty", text)
    if len(text) > config.max_caption_chars:
        raise _RowError(
            field, "too_long", f"{len(text):,} characters, at most {config.max_caption_chars:,}: {text[:80]}"
        )
    if not is_utf8(text):
        raise _RowError(field, "not_utf8", text)
    return text


def check_box(value: Any) -> Box:
    """A box as four floats in 0..1, width and height positive, inside the image but for the overhang of detectors."""
    if not isinstance(value, list) or len(value) != 4:
        raise _RowError("bboxes", "box_shape", value)
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in value):
        raise _RowError("bboxes", "box_shape", value)
    if any(not -ROUNDING <= v <= 1 + ROUNDING for v in value):  # NaN too; before float(), which large integers overflow
        raise _RowError("bboxes", "box_range", value)
    cx, cy, w, h = (min(1.0, max(0.0, float(v))) for v in value)
    overhang = max(w / 2 - cx, cx + w / 2 - 1, h / 2 - cy, cy + h / 2 - 1)
    if min(w, h) <= 0 or overhang > OVERHANG or not math.isfinite(overhang):
        raise _RowError("bboxes", "box_range", value)
    return cx, cy, w, h


def _first_time(reading: _Reading, image_id: str, text: str, box: Box | None, field: str) -> None:
    if (image_id, text, box) in reading.seen:
        raise _RowError(field, "duplicate", text)
    reading.seen.add((image_id, text, box))


def _read_caption(reading: _Reading, name: str, row: int, image: SourceImage | _RowError, text: Any) -> None:
    reading.read["captions"] += 1
    try:
        if isinstance(image, _RowError):
            raise image
        ordinal = reading.next_ordinal("captions", image.path)
        caption = _check_text(text, "caption", reading.config)
        _first_time(reading, image.path, caption, None, "caption")
    except _RowError as why:
        reading.refuse("captions", name, row, why)
    else:
        reading.captions.append(SourceCaption(image.path, ordinal, caption, name, row))


def _read_region(reading: _Reading, name: str, row: int, image: SourceImage | _RowError, text: Any, value: Any) -> None:
    reading.read["regions"] += 1
    try:
        if isinstance(image, _RowError):
            raise image
        ordinal = reading.next_ordinal("regions", image.path)
        sentence = _check_text(text, "sentences", reading.config)
        if value is None:
            raise _RowError("bboxes", "null", sentence)
        box = check_box(value)
        _first_time(reading, image.path, sentence, box, "sentences")
    except _RowError as why:
        reading.refuse("regions", name, row, why)
    else:
        reading.regions.append(SourceRegion(image.path, ordinal, sentence, box, name, row))


def _finish(reading: _Reading) -> Source:
    images = tuple(reading.images[path] for path in sorted(reading.images))
    captions = tuple(sorted(reading.captions, key=lambda c: (c.image_id, c.ordinal)))
    regions = tuple(sorted(reading.regions, key=lambda r: (r.image_id, r.ordinal)))
    rejects = tuple(sorted(reading.rejects, key=lambda r: (TABLES.index(r.table), r.source, r.row)))
    per_image = Counter(caption.image_id for caption in captions)
    notes = differences(images, per_image, Counter(region.image_id for region in regions), reading.config)
    notes += gaps(images)
    if without := sum(not per_image[image.path] for image in images):
        notes.append(f"{without:,} of {len(images):,} images have no caption; they are kept.")
    return Source(
        images=images,
        captions=captions,
        regions=regions,
        rejects=rejects,
        ignored=dict(sorted(reading.ignored.items())),
        read={table: reading.read[table] for table in TABLES},
        buildings=tuple(sorted({image.building_id for image in images})),
        notes=tuple(notes),
    )
