"""A split of a data set in memory: decoded pixels and captions, in an order that no shard layout can change."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from data.shards import Version
from schemas.config import TrainConfig
from schemas.errors import DatasetError
from schemas.records import PLATFORMS, Platform, Split

DECODING_THREADS = 4
ROWS_IN_FLIGHT = 512


class Gallery(Protocol):
    """What is searched, as far as scores are concerned."""

    @property
    def buildings(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Pictures:
    """Images sorted by id, as they are stored: encoded, a tenth of what their pixels take. sha256s: of the bytes."""

    ids: tuple[str, ...]
    buildings: tuple[str, ...]
    platforms: tuple[Platform, ...]
    sha256s: tuple[str, ...]
    encoded: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, rows: Sequence[int], size: int) -> Tensor:
        """Decoded images, uint8 [B, 3, size, size], RGB.

        Raises:
            DatasetError: an image cannot be decoded.
        """
        if not len(rows):
            return torch.zeros(0, 3, size, size, dtype=torch.uint8)
        with ThreadPoolExecutor(DECODING_THREADS) as pool:  # Pillow decodes outside the interpreter lock
            decoded = list(pool.map(lambda row: decode(self.encoded[row], size, self.ids[row]), rows))
        return torch.from_numpy(np.stack(decoded))

    def select(self, rows: Sequence[int]) -> "Pictures":
        """The images of these rows, in this order."""
        return Pictures(
            tuple(self.ids[row] for row in rows),
            tuple(self.buildings[row] for row in rows),
            tuple(self.platforms[row] for row in rows),
            tuple(self.sha256s[row] for row in rows),
            tuple(self.encoded[row] for row in rows),
        )


@dataclass(frozen=True)
class Images:
    """Images sorted by id. pixels: uint8 [N, 3, S, S], RGB."""

    ids: tuple[str, ...]
    buildings: tuple[str, ...]
    platforms: tuple[Platform, ...]
    pixels: Tensor

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
    except (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError) as error:
        raise DatasetError(f"Image {image_id!r} cannot be decoded ({error}): run `georefine verify`.") from error
    return np.ascontiguousarray(np.asarray(small, dtype=np.uint8).transpose(2, 0, 1))


def _rows(version: Version, split: Split | None, *, augmented: bool) -> Iterator[dict[str, Any]]:
    columns = ["image_id", "building_id", "platform", "role", "parent_image_id", "sha256", "image"]
    for batch in version.batches("images", split=split, columns=columns, rows=ROWS_IN_FLIGHT):
        for row in batch.to_pylist():
            if row["role"] != "query" and (row["parent_image_id"] is None or augmented):
                yield row


def load_pictures(version: Version, split: Split | None, *, augmented: bool) -> Pictures:
    """The images that load_images would decode, as they are stored.

    Raises:
        DatasetError: a shard cannot be read.
    """
    rows = sorted(_rows(version, split, augmented=augmented), key=lambda row: row["image_id"])
    return Pictures(
        tuple(row["image_id"] for row in rows),
        tuple(row["building_id"] for row in rows),
        tuple(row["platform"] for row in rows),
        tuple(row["sha256"] for row in rows),
        tuple(row["image"]["bytes"] or b"" for row in rows),
    )


def load_images(version: Version, split: Split | None, size: int, *, augmented: bool) -> Images:
    """Decode the images of a split (None: of all splits) that are no query images.

    Query folders of University-1652 repeat gallery images or serve image-to-image search; they are no targets here.

    Args:
        augmented: whether augmented tiles are wanted too; they are for training, never for a gallery.

    Raises:
        DatasetError: a shard or an image cannot be read.
    """
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


def load_gallery(
    version: Version, split: Split | None, config: TrainConfig, *, augmented: bool = False
) -> Images | Pictures:
    """The images of a split for a model: decoded for the compact encoders; as they are stored for the pretrained ones,
    at whose size the pixels of a big split would fill the memory.

    Raises:
        DatasetError: a shard or an image cannot be read.
    """
    if config.encoder == "compact":
        return load_images(version, split, config.image_size, augmented=augmented)
    return load_pictures(version, split, augmented=augmented)


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
