"""A split of a data set in memory: decoded pixels and captions, in an order that no shard layout can change."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from data.shards import Version
from schemas.errors import DatasetError
from schemas.records import PLATFORMS, Platform, Split

DECODING_THREADS = 4
ROWS_IN_FLIGHT = 512


@dataclass(frozen=True)
class Encoded:
    """Images as they are stored, a tenth of what their pixels take; decoded where they are asked for.

    Attributes:
        files: the bytes of every image's file; sha256s: of these bytes; ids: to name one that is damaged.
        size: S, pixels of a side once decoded.
    """

    files: tuple[bytes, ...]
    sha256s: tuple[str, ...]
    ids: tuple[str, ...]
    size: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Decoded images uint8 [B, 3, S, S], RGB, of a slice or of rows int64 [B].

        Raises:
            DatasetError: an image cannot be decoded.
        """
        which = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
        if not len(which):
            return torch.zeros(0, 3, self.size, self.size, dtype=torch.uint8)
        with ThreadPoolExecutor(DECODING_THREADS) as pool:  # Pillow decodes outside the interpreter lock
            decoded = list(pool.map(lambda row: decode(self.files[row], self.size, self.ids[row]), which))
        return torch.from_numpy(np.stack(decoded))

    def some(self, rows: Sequence[int]) -> "Encoded":
        """These rows, still encoded."""
        files = tuple(self.files[row] for row in rows)
        sha256s, ids = (tuple(column[row] for row in rows) for column in (self.sha256s, self.ids))
        return Encoded(files, sha256s, ids, self.size)


@dataclass(frozen=True)
class Images:
    """Images sorted by id. pixels: uint8 [N, 3, S, S], RGB; or encoded, and then decoded batch by batch."""

    ids: tuple[str, ...]
    buildings: tuple[str, ...]
    platforms: tuple[Platform, ...]
    pixels: Tensor | Encoded

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Captions:
    """Captions sorted by id; `finals` is what is searched with, and trained on if no mix says otherwise.

    Attributes:
        refined: the refiner's words; the final text where there are none.
        queries: short statements of the same facts.
    """

    ids: tuple[str, ...]
    image_ids: tuple[str, ...]
    buildings: tuple[str, ...]
    platforms: tuple[Platform, ...]
    finals: tuple[str, ...]
    refined: tuple[str, ...]
    raws: tuple[str, ...]
    queries: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)


def platform_codes(platforms: Sequence[Platform]) -> Tensor:
    """Platforms as int64 [N]: the index into PLATFORMS, which is also the index of the expert."""
    return torch.tensor([PLATFORMS.index(platform) for platform in platforms], dtype=torch.int64)


def building_codes(*groups: Sequence[str]) -> tuple[Tensor, ...]:
    """Building ids as int64 codes, the same id the same code in every group."""
    known: dict[str, int] = {}
    return tuple(torch.tensor([known.setdefault(b, len(known)) for b in group], dtype=torch.int64) for group in groups)


def decode(data: bytes, size: int, image_id: str) -> npt.NDArray[np.uint8]:
    """An encoded image as uint8 [3, size, size], RGB, stretched to the square.

    Raises:
        DatasetError: the bytes are not an image that Pillow reads.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (size, size))  # JPEG is decoded at the nearest larger eighth: several times as fast
            small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"Image {image_id!r} cannot be decoded ({error}): run `georefine verify`.") from error
    return np.ascontiguousarray(np.asarray(small, dtype=np.uint8).transpose(2, 0, 1))


def _rows(version: Version, split: Split | None, *, augmented: bool) -> Iterator[dict[str, Any]]:
    columns = ["image_id", "building_id", "platform", "role", "parent_image_id", "sha256", "image"]
    for batch in version.batches("images", split=split, columns=columns, rows=ROWS_IN_FLIGHT):
        for row in batch.to_pylist():
            if row["role"] != "query" and (row["parent_image_id"] is None or augmented):
                yield row


def load_images(version: Version, split: Split | None, size: int, *, augmented: bool, decoded: bool = True) -> Images:
    """The images of a split (None: of all splits) that are no query images.

    Query folders of University-1652 repeat gallery images or serve image-to-image search; they are no targets here.

    Args:
        augmented: whether augmented tiles are wanted too; they are for training, never for a gallery.
        decoded: False leaves them encoded, where pixels of that size would fill the memory.

    Raises:
        DatasetError: a shard or an image cannot be read.
    """
    if not decoded:
        return _encoded(version, split, size, augmented=augmented)
    found: list[tuple[str, str, Platform, npt.NDArray[np.uint8]]] = []
    pending: list[dict[str, Any]] = []

    def decode_row(row: dict[str, Any]) -> tuple[str, str, Platform, npt.NDArray[np.uint8]]:
        pixels = decode(row["image"]["bytes"] or b"", size, row["image_id"])
        return row["image_id"], row["building_id"], row["platform"], pixels

    with ThreadPoolExecutor(DECODING_THREADS) as pool:  # Pillow decodes outside the interpreter lock
        for row in _rows(version, split, augmented=augmented):
            pending.append(row)
            if len(pending) == ROWS_IN_FLIGHT:
                found += pool.map(decode_row, pending)
                pending = []
        found += pool.map(decode_row, pending)
    found.sort(key=lambda item: item[0])
    pixels = np.stack([item[3] for item in found]) if found else np.zeros((0, 3, size, size), np.uint8)
    return Images(
        tuple(item[0] for item in found),
        tuple(item[1] for item in found),
        tuple(item[2] for item in found),
        torch.from_numpy(pixels),
    )


def _encoded(version: Version, split: Split | None, size: int, *, augmented: bool) -> Images:
    rows = sorted(_rows(version, split, augmented=augmented), key=lambda row: row["image_id"])
    ids = tuple(row["image_id"] for row in rows)
    files = tuple(row["image"]["bytes"] or b"" for row in rows)
    return Images(
        ids,
        tuple(row["building_id"] for row in rows),
        tuple(row["platform"] for row in rows),
        Encoded(files, tuple(row["sha256"] for row in rows), ids, size),
    )


def load_captions(version: Version, split: Split | None) -> Captions:
    """The captions of a split; those that were only orientation (status empty) or hold no text are left out.

    Raises:
        DatasetError: a shard cannot be read.
    """
    columns = ["caption_id", "image_id", "building_id", "platform", "raw", "refined", "final", "queries", "status"]
    rows = version.read("captions", split=split, columns=columns).to_pylist()
    rows = [row for row in rows if row["status"] != "empty" and (row["final"] or "").strip()]
    rows.sort(key=lambda row: row["caption_id"])
    return Captions(
        tuple(row["caption_id"] for row in rows),
        tuple(row["image_id"] for row in rows),
        tuple(row["building_id"] for row in rows),
        tuple(row["platform"] for row in rows),
        tuple(row["final"] for row in rows),
        tuple(row["refined"] if (row["refined"] or "").strip() else row["final"] for row in rows),
        tuple(row["raw"] for row in rows),
        tuple(tuple(query for query in row["queries"] or () if query.strip()) for row in rows),
    )
