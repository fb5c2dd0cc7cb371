"""Look at image files as hostile input: decode fully or say why not; a perceptual descriptor finds near-duplicates.

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
PIXELS, WAVES = 32, 16

Looks = NDArray[np.float32]


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


def inspect(data: bytes, max_pixels: int, sha256: str | None = None) -> ImageInfo | str:
    """Decode an image to its end, or say in a word or two, then a colon and details, why it is refused. Never raises.

    Reasons: `empty_file`, `not_an_image`, `animated`, `too_large` (found before decoding), `truncated`.
    Args:
        data: the file's bytes.
        max_pixels: width x height above which an image is refused.
        sha256: of the data, if it is known already.
    """
    if not data:
        return "empty_file"
    try:
        with _without_warnings():
            return _inspect(data, max_pixels, sha256)
    except MemoryError:
        return "too_large: not enough memory to decode it"
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        return f"truncated: {_words(error)}"


def _inspect(data: bytes, max_pixels: int, sha256: str | None) -> ImageInfo | str:
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
        # Of a JPEG every coefficient is decoded, which tells a damaged file, but only an eighth of the pixels is made.
        image.draft("L", (1, 1))
        image.load()
        return ImageInfo(width, height, image.format or "", sha256 or hashlib.sha256(data).hexdigest())


def _words(error: BaseException) -> str:
    """An error in one printable line, without the addresses of Python objects."""
    text = str(error) or type(error).__name__
    text = text.split(" <_io")[0].splitlines()[0] if text.strip() else type(error).__name__
    return text[:200].encode("utf-8", "backslashreplace").decode()


def _dct_rows(size: int, rows: int) -> NDArray[np.float32]:
    k, x = np.arange(rows)[:, None], np.arange(size)[None, :]
    return np.cos(np.pi * (2 * x + 1) * k / (2 * size)).astype(np.float32)


_DCT = _dct_rows(PIXELS, WAVES)
_FREQUENCY = np.hypot(np.arange(WAVES)[:, None], np.arange(WAVES)[None, :]).astype(np.float32)


def looks(data: bytes) -> Looks | None:
    """What an image looks like, as a vector whose inner products tell copies from other pictures; None: not decodable.

    The lowest 16 x 16 DCT coefficients of the grey image at 32 x 32 pixels, each times its frequency, so that the sky's
    brightness, which all photos share, does not outweigh what is in them. Norm 1; all 0 for an image of one colour.
    Measured on real tiles, drone views and photos: below 0.4 for different pictures; 0.9 to 1 for copies re-encoded at
    JPEG quality 30, resized to a third, brightened by 15 %.

    Returns:
        float32[256]
    """
    try:
        with _without_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.draft("L", (4 * PIXELS, 4 * PIXELS))  # JPEGs: decode at a fraction of the size
            grey = image.convert("L").resize((PIXELS, PIXELS), Image.Resampling.BOX)
    except Exception:  # decoders raise nearly anything on hostile bytes
        return None
    waves = (_DCT @ np.asarray(grey, dtype=np.float32) @ _DCT.T * _FREQUENCY).ravel()
    norm = np.linalg.norm(waves)
    flat = norm < PIXELS * WAVES  # contrast of about one grey level
    return np.zeros_like(waves) if flat else waves / norm


def near_duplicates(one: Looks, other: Looks, min_match: float = 0.88) -> list[tuple[int, int]]:
    """Pairs (row of `one`, row of `other`) that show the same picture: re-encoded, resized, brightened.

    At most one pair per row of `one`: its nearest. Costs len(one) x len(other) x 256 multiplications, in blocks.

    Args:
        one: float32[N, 256], rows from `looks`.
        other: float32[M, 256].
        min_match: smallest inner product of a pair.
    """
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(one) if len(other) else 0, 1024):
        match = one[start : start + 1024] @ other.T
        nearest = match.argmax(axis=1)
        close = np.flatnonzero(match[np.arange(len(nearest)), nearest] >= min_match)
        pairs += [(start + int(row), int(nearest[row])) for row in close]
    return pairs
