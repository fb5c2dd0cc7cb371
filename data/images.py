"""Look at image files as hostile input: decode fully or say why not; perceptual hashes for near-duplicates.

info = inspect(data, max_pixels=50_000_000)        # ImageInfo, or the reason of a reject as text
"""

import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

# No other decoder of Pillow is tried: some start programs. A JPEG with further pictures in it is named MPO.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
HASH_SIDE = 16  # the hash has HASH_SIDE * HASH_SIDE bits
THUMB_SIDE = 16

Bits = NDArray[np.uint64]
Thumb = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a decoded image is: width and height in pixels as stored (EXIF orientation not applied), Pillow's format
    name, SHA-256 of the file's bytes in hexadecimal."""

    width: int
    height: int
    format: str
    sha256: str


class _Silence:
    """Pillow's warnings off while any thread is decoding: `warnings.catch_warnings` alone is not thread-safe."""

    lock = threading.Lock()
    threads = 0
    filters = warnings.catch_warnings()


@contextmanager
def _without_warnings() -> Iterator[None]:
    with _Silence.lock:
        if not _Silence.threads:
            _Silence.filters = warnings.catch_warnings()
            _Silence.filters.__enter__()
            warnings.simplefilter("ignore")
        _Silence.threads += 1
    try:
        yield
    finally:
        with _Silence.lock:
            _Silence.threads -= 1
            if not _Silence.threads:
                _Silence.filters.__exit__(None, None, None)


def inspect(data: bytes, max_pixels: int) -> ImageInfo | str:
    """Decode an image fully, or say in a word or two, then a colon and details, why it is refused. Never raises.

    Reasons: `empty_file`, `not_an_image`, `animated`, `too_large` (found before decoding), `truncated`.
    Args:
        data: the file's bytes.
        max_pixels: width x height above which an image is refused.
    """
    if not data:
        return "empty_file"
    try:
        with _without_warnings():
            return _inspect(data, max_pixels)
    except MemoryError:
        return "too_large: not enough memory to decode it"
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        return f"truncated: {_words(error)}"


def _inspect(data: bytes, max_pixels: int) -> ImageInfo | str:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        return f"too_large: {_words(error)}"
    except Exception as error:
        return f"not_an_image: {_words(error)}"
    with image:
        width, height = image.size
        if width < 1 or height < 1:
            return f"not_an_image: {width} x {height} pixels"
        if width * height > max_pixels:
            return f"too_large: {width} x {height} pixels, at most {max_pixels:,} in all"
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # cameras add previews and depth
            return f"animated: {getattr(image, 'n_frames', 1)} frames"
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            return "truncated: Pillow is set to load truncated images, so that none can be told from a whole one"
        image.load()
        return ImageInfo(width, height, image.format or "", hashlib.sha256(data).hexdigest())


def _words(error: BaseException) -> str:
    """An error in one printable line, without the addresses of Python objects."""
    text = str(error) or type(error).__name__
    text = text.split(" <_io")[0].splitlines()[0] if text.strip() else type(error).__name__
    return text[:200].encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class Looks:
    """What an image looks like, for finding near-duplicates.

    Attributes:
        bits: uint8[32], 256 bits packed: signs of the low DCT coefficients about their median (the "pHash").
        thumb: float32[256], grey values of a 16 x 16 thumbnail, mean 0, norm 1 (all 0 for an image of one colour).
    """

    bits: NDArray[np.uint8]
    thumb: NDArray[np.float32]


def _dct_rows(size: int, rows: int) -> NDArray[np.float32]:
    k, x = np.arange(rows)[:, None], np.arange(size)[None, :]
    return np.cos(np.pi * (2 * x + 1) * k / (2 * size)).astype(np.float32)


_DCT = _dct_rows(2 * HASH_SIDE, HASH_SIDE)


def looks(data: bytes) -> Looks | None:
    """Perceptual hash and thumbnail of an image, or None where it cannot be decoded.

    JPEGs are decoded at a fraction of their size, so that this costs a tenth of `inspect`.
    """
    try:
        with _without_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            side = 2 * HASH_SIDE
            image.draft("L", (4 * side, 4 * side))
            grey = image.convert("L").resize((side, side), Image.Resampling.BOX)
    except Exception:  # decoders raise nearly anything on hostile bytes
        return None
    pixels = np.asarray(grey, dtype=np.float32)
    low = (_DCT @ pixels @ _DCT.T).ravel()
    thumb = pixels.reshape(THUMB_SIDE, 2, THUMB_SIDE, 2).mean(axis=(1, 3)).ravel()
    thumb = thumb - thumb.mean()
    norm = float(np.linalg.norm(thumb))
    flat = norm < THUMB_SIDE  # a standard deviation of less than one grey level
    return Looks(np.packbits(low > np.median(low)), np.zeros_like(thumb) if flat else thumb / np.float32(norm))


def near_duplicates(
    one: list[Looks], other: list[Looks], *, max_bits: int = 40, min_match: float = 0.95
) -> list[tuple[int, int]]:
    """Pairs (index into `one`, index into `other`) that show the same picture: re-encoded, resized, brightened.

    A pair differs in at most `max_bits` of 256 bits, and its thumbnails correlate by at least `min_match`. At most one
    pair per image of `one`: its nearest. Costs len(one) x len(other) x 256 multiplications, in blocks.
    """
    if not one or not other:
        return []
    signs = [
        np.unpackbits(np.stack([x.bits for x in part]), axis=1).astype(np.float32) * 2 - 1 for part in (one, other)
    ]
    pairs = []
    for start in range(0, len(one), 1024):
        agreement = signs[0][start : start + 1024] @ signs[1].T  # 256 - 2 x differing bits
        nearest = agreement.argmax(axis=1)
        close = agreement[np.arange(len(nearest)), nearest] >= 256 - 2 * max_bits
        pairs += [(start + int(row), int(nearest[row])) for row in np.flatnonzero(close)]
    return [(a, b) for a, b in pairs if float(one[a].thumb @ other[b].thumb) >= min_match]
