"""Typed records that pass between the rooms, and the few names every room shares.

Coordinates: a box is (cx, cy, w, h), each 0..1 of the image's width and height, origin at the top left corner.
Offsets into captions are Unicode code points, end exclusive.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Platform = Literal["satellite", "drone", "ground"]
Split = Literal["train", "val", "test"]
Role = Literal["train", "query", "gallery"]
Status = Literal["refined", "fallback", "kept", "empty", "edited", "rejected"]
Table = Literal["images", "captions", "regions"]

PLATFORMS: tuple[Platform, ...] = ("satellite", "drone", "ground")
SPLITS: tuple[Split, ...] = ("train", "val", "test")
STATUSES: tuple[Status, ...] = ("refined", "fallback", "kept", "empty", "edited", "rejected")
TABLES: tuple[Table, ...] = ("images", "captions", "regions")

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace raw[start:end], which reads `old`, by `new`. Code points; 0 <= start <= end <= len(raw)."""

    start: int
    end: int
    old: str
    new: str


def apply_edits(raw: str, edits: Iterable[Edit]) -> str:
    """Apply non-overlapping edits, sorted by start, to the raw caption.

    Raises:
        ValueError: an edit overlaps its predecessor, or `old` is not what stands there.
    """
    parts: list[str] = []
    at = 0
    for edit in edits:
        if edit.start < at or raw[edit.start : edit.end] != edit.old:
            raise ValueError(f"edit {edit} does not fit the caption {raw!r}")
        parts += raw[at : edit.start], edit.new
        at = edit.end
    return "".join([*parts, raw[at:]])


@dataclass(frozen=True, slots=True)
class Stripped:
    """A caption after orientation was taken out: `text` equals apply_edits(raw, edits). Empty when nothing is left."""

    text: str
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one faithfulness gate said of a reply; `detail` names the words that failed it, or is empty."""

    gate: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A rewritten caption in the platform's register, with one to four short query-level statements."""

    caption: str
    queries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refined:
    """One caption through the whole of refinement; the columns of the captions table that refinement fills.

    `is_settled` is none of them: whether asking again would give the same. It would not where a request failed or was
    never sent.
    """

    stripped: Stripped
    refined: str
    queries: tuple[str, ...]
    final: str
    status: Status
    gates: tuple[GateResult, ...]
    refiner: str
    prompt_version: str
    reply_key: str
    reply: str
    is_settled: bool = True


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image file found in the source. `path` is relative to the source, POSIX, and serves as image_id."""

    path: str
    building_id: str
    platform: Platform
    split: Split
    role: Role
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class SourceCaption:
    """One caption of an image: the `ordinal`-th of that image in source order (0-based)."""

    image_id: str
    ordinal: int
    raw: str
    source: str
    row: int

    @property
    def caption_id(self) -> str:
        return f"{self.image_id}#{self.ordinal}"


@dataclass(frozen=True, slots=True)
class SourceRegion:
    """One region sentence of an image with its box: the `ordinal`-th of that image in source order (0-based)."""

    image_id: str
    ordinal: int
    sentence: str
    bbox: Box
    source: str
    row: int

    @property
    def region_id(self) -> str:
        return f"{self.image_id}@{self.ordinal}"


@dataclass(frozen=True, slots=True)
class Reject:
    """An input row that was refused; `row` is its record in the annotation file `source`, or 0 for an image file."""

    table: Table
    source: str
    row: int
    field: str
    reason: str
    detail: str
