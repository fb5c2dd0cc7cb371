"""Read a source folder in the layout of University-1652 / GeoText-1652 without decoding an image.

    with spilled(work / SPILL) as spill:
        source = read_source(Path("University-Release"), config.partition, spill)

What it holds goes to a file as it is read (data/spill.py), annotations one record at a time, so that memory does not
grow with the source.

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
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from data.partition import PARTS, differences, gaps, place_of
from data.spill import Spill, open_spill
from schemas.config import PartitionConfig
from schemas.errors import SourceError
from schemas.records import TABLES, Box, Platform, Reject, SourceCaption, SourceImage, SourceRegion, Split, Table

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp")
SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep", ".directory")

# Detectors round, and let a box stand out of the image a little: beyond that a box is refused, never clipped.
ROUNDING = 1e-3  # of a coordinate outside 0..1; moved to 0 or 1
OVERHANG = 2e-2  # of an edge outside the image; kept


SHOWN = 200  # characters of a value that a reject shows
CHUNK = 1 << 20  # characters of an annotation file read at once
CUT = 12  # characters at the end of a chunk that may be part of a number, a literal or an escape
_BLANK = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True)
class Source:
    """What a source folder holds. Equal folders give equal sources.

    Attributes:
        spill: the rows.
        ignored: file or folder relative to the source -> why it is no data.
        read: rows read per table; len(accepted) + rejected.
        refused: rows refused per table.
        unread: a sentence for every annotation file of which nothing could be taken.
        buildings: the buildings of accepted images of every split and platform, sorted.
        notes: differences from the official counts, gaps and leaks, one sentence each.
        fingerprint: {"sha256": of names and sizes of the images and of all rows as they were read, "files": n,
            "bytes": n, "ignored": {path: why}}.
    """

    spill: Spill = field(compare=False)
    ignored: dict[str, str]
    read: dict[Table, int]
    refused: dict[Table, int]
    unread: tuple[str, ...]
    buildings: dict[tuple[Split, Platform], list[str]]
    notes: tuple[str, ...]
    fingerprint: dict[str, Any]

    # All rows at once are for looking at a source; a rebuild asks the spill for the rows of one shard.
    @property
    def images(self) -> tuple[SourceImage, ...]:
        """Accepted, sorted by path."""
        return tuple(self.spill.every_image())

    @property
    def captions(self) -> tuple[SourceCaption, ...]:
        """Accepted, sorted by image and ordinal."""
        return tuple(self.spill.every_caption())

    @property
    def regions(self) -> tuple[SourceRegion, ...]:
        """Accepted, sorted by image and ordinal."""
        return tuple(self.spill.every_region())

    @property
    def rejects(self) -> tuple[Reject, ...]:
        """Every row refused, in the order of TABLES, then by source and row."""
        return tuple(self.spill.every_reject())


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
    spill: Spill
    ignored: dict[str, str] = field(default_factory=dict)
    read: Counter[Table] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)  # train/drone, or a flat building -> accepted images
    unread: list[str] = field(default_factory=list)  # a sentence for each annotation file of which nothing was taken

    def refuse(self, table: Table, source: str, row: int, why: _RowError) -> None:
        self.spill.add_reject(Reject(table, printable(source, 1000), row, why.field, why.reason, why.detail))

    def refuse_image(self, path: str, reason: str, detail: object = "") -> None:
        self.read["images"] += 1
        self.spill.refuse_image(path, reason)
        self.refuse("images", path, 0, _RowError("path", reason, detail))


def printable(value: object, longest: int = SHOWN) -> str:
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


def read_source(source: Path, config: PartitionConfig, spill: Spill | None = None) -> Source:
    """Read the names of all images and all annotations of a source folder.

    Args:
        spill: an empty one, where the rows go; None: one of their own, in the system's temporary folder.

    Raises:
        SourceError: it is missing, empty, without the expected folders, or holds no image that can be placed.
    """
    root = Path(source)
    names = _check_layout(root)
    reading = _Reading(Path(os.path.realpath(root)), config, spill or open_spill(None))
    annotations = [name for name in names if name.lower().endswith(".json")]
    for name in sorted(set(names) - set(annotations) - set(PARTS)):
        reading.ignored[name] = "not train, test or an annotation file"
    for path in _walk(reading):
        if path.count("/") == 1 and path.lower().endswith(".json"):
            annotations.append(path)
        else:
            _read_image_file(reading, path)
    reading.spill.images_are_in()
    if not reading.folders:
        files = reading.spill.refused["images"]
        refused = f"; {files:,} files were refused" if files else ""
        first = next((f" ({r.source}: {r.reason})" for r in reading.spill.every_reject()), "")
        raise SourceError(
            f"{source} holds no image that can be placed{refused}{first}: expected files like "
            "train/drone/0839/image-01.jpeg or train/0839/image-01.jpeg."
        )
    for name in sorted(annotations):
        _read_annotations(reading, name)
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
        reading.folders["/".join(path.split("/")[:2])] += 1
        reading.spill.add_image(
            SourceImage(path, place.building_id, place.platform, place.split, place.role, found.st_size)
        )


def _read_annotations(reading: _Reading, name: str) -> None:
    """Read one annotation file: a list of records, or nested lists of them. A file that breaks off gives no row."""
    official = posixpath.basename(name).lower() in ("train.json", "test.json")
    read = reading.read.copy()
    try:
        with reading.spill.all_or_nothing():
            is_annotation = official
            for row, record in enumerate(_records(reading, name)):
                is_annotation = is_annotation or _is_record(record)
                _read_record(reading, name, row, record)
            if not is_annotation:
                raise _RowError("", "no_list_of_records", "JSON, but no list of records with image and caption")
    except _RowError as why:
        reading.read = read
        if official or why.reason not in ("not_a_list", "no_list_of_records"):
            reading.read["captions"] += 1
            reading.refuse("captions", name, 0, why)
            reading.unread.append(
                f"{printable(name)} is no readable annotation file ({why.reason}: {why.detail}): no caption and no "
                "region of it was taken; mend it and rebuild."
            )
        else:
            reading.ignored[printable(name, 1000)] = "JSON, but no list of records with image and caption"


def _records(reading: _Reading, name: str) -> Iterator[Any]:
    """The records of an annotation file, one at a time, those of a nested list in its place.

    Raises:
        _RowError: it cannot be read to its end.
    """
    path = reading.root / name
    if not _inside(os.path.realpath(path), reading.root):
        raise _RowError("", "outside", f"leads to {os.path.realpath(path)}")
    try:
        if not path.is_file():
            raise _RowError("", "unreadable", "not a file")
        with path.open(encoding="utf-8-sig") as file:
            yield from _items_of(_Text(file))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise _RowError("", "unreadable", str(error) or type(error).__name__) from error


@dataclass
class _Text:
    """A JSON text read in chunks: `at` is the next character of `chunk`, which begins at `start` of the file."""

    file: TextIO
    chunk: str = ""
    at: int = 0
    start: int = 0
    is_whole: bool = False  # the chunk reaches to the end of the file

    def more(self) -> None:
        rest = self.chunk[self.at :]
        read = self.file.read(max(CHUNK, len(rest)))
        self.start += self.at
        self.chunk, self.at, self.is_whole = rest + read, 0, not read

    def sign(self) -> str:
        """The next character that is not blank; empty at the end of the file."""
        while True:
            blank = _BLANK.match(self.chunk, self.at)
            self.at = blank.end() if blank else self.at
            if self.at < len(self.chunk):
                return self.chunk[self.at]
            if self.is_whole:
                return ""
            self.more()

    def value(self) -> Any:
        """The JSON value that begins here."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.chunk, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos > len(self.chunk) - CUT
                if self.is_whole or not cut:
                    raise ValueError(f"{error.msg} at character {self.start + error.pos:,}") from error
            else:
                if self.is_whole or end <= len(self.chunk) - CUT:
                    self.at = end
                    return value
            self.more()


_DECODER = json.JSONDecoder()


def _items_of(text: _Text) -> Iterator[Any]:
    """The items of a JSON list, those of a list in it in its place.

    Raises:
        ValueError: it is no JSON.
        _RowError: it is no list.
    """
    if text.sign() != "[":
        kind = type(text.value()).__name__
        if text.sign():
            raise ValueError(f"Extra data at character {text.start + text.at:,}")
        raise _RowError("", "not_a_list", f"the file holds a {kind}, not a list of records")
    depth, after = 0, "["  # what stands before the next sign: [ , or an item
    while True:
        sign = text.sign()
        if sign == "[" and after != "item":
            text.at, depth, after = text.at + 1, depth + 1, "["
        elif sign == "]" and after != ",":
            text.at, depth, after = text.at + 1, depth - 1, "item"
        elif sign == "," and after == "item":
            text.at, after = text.at + 1, ","
        elif sign and after != "item":
            yield text.value()
            after = "item"
        else:
            raise ValueError(f"Expecting a list to go on or to end at character {text.start + text.at:,}")
        if not depth:
            if text.sign():
                raise ValueError(f"Extra data at character {text.start + text.at:,}")
            return


def _is_record(item: Any) -> bool:
    """Whether an item looks like a record of GeoText's."""
    return (
        isinstance(item, dict)
        and ("image" in item or "image_id" in item)
        and bool({"caption", "sentences"} & set(item))
    )


def _read_record(reading: _Reading, name: str, row: int, record: Any) -> None:
    if not isinstance(record, dict):
        reading.read["captions"] += 1
        reading.refuse("captions", name, row, _RowError("", "not_an_object", record))
        return
    image: int | _RowError
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


def _image_of(reading: _Reading, name: str, record: dict[str, Any]) -> int:
    """Number of the image that a record annotates.

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
        if (image := reading.spill.image(path)) is not None:
            return image
    if candidates[0] == ".." or candidates[0].startswith("../"):
        raise _RowError(key, "outside", value)
    for path in candidates:
        if why := reading.spill.why_refused(path):
            raise _RowError(key, "parent", f"image {path}: {why}")
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


def _read_caption(reading: _Reading, name: str, row: int, image: int | _RowError, text: Any) -> None:
    reading.read["captions"] += 1
    try:
        if isinstance(image, _RowError):
            raise image
        caption = _check_text(text, "caption", reading.config)
    except _RowError as why:
        reading.refuse("captions", name, row, why)
        if isinstance(image, int):
            reading.spill.add_caption(image, None, name, row)
    else:
        reading.spill.add_caption(image, caption, name, row)


def _read_region(reading: _Reading, name: str, row: int, image: int | _RowError, text: Any, value: Any) -> None:
    reading.read["regions"] += 1
    try:
        if isinstance(image, _RowError):
            raise image
        sentence = _check_text(text, "sentences", reading.config)
        if value is None:
            raise _RowError("bboxes", "null", sentence)
        box = check_box(value)
    except _RowError as why:
        reading.refuse("regions", name, row, why)
        if isinstance(image, int):
            reading.spill.add_region(image, None, (0, 0, 0, 0), name, row)
    else:
        reading.spill.add_region(image, sentence, box, name, row)


def _finish(reading: _Reading) -> Source:
    spill = reading.spill
    spill.refuse_duplicates("captions", "caption", SHOWN)
    spill.refuse_duplicates("regions", "sentences", SHOWN)
    spill.commit()
    buildings = spill.buildings()
    notes = [*reading.unread, *differences(reading.folders, spill.counts, reading.config), *gaps(buildings)]
    without, images = spill.without_captions()
    if without:
        notes.append(f"{without:,} of {images:,} images have no caption (query images aside).")
    ignored = dict(sorted(reading.ignored.items()))
    return Source(
        spill=spill,
        ignored=ignored,
        read={table: reading.read[table] for table in TABLES},
        refused={table: spill.refused[table] for table in TABLES},
        unread=tuple(reading.unread),
        buildings=buildings,
        notes=tuple(notes),
        fingerprint={
            "sha256": spill.fingerprint.hexdigest(),
            "files": reading.read["images"],
            "bytes": spill.bytes(),
            "ignored": ignored,
        },
    )
