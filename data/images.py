"""Look at image files as hostile input: whole or say why not; a perceptual descriptor finds near-duplicates.

info = inspect(data, max_pixels=50_000_000)        # ImageInfo, or the reason of a reject as text

Whole means: Pillow decodes it to its end. Of the commonest JPEGs (baseline, one scan, no restarts) the structure alone
shows that, at a tenth of the cost: every segment up to the scan, tables that libjpeg takes, a scan that no marker
interrupts, and the end marker as the file's last two bytes. What this does not show is left to the decoder. Neither
sees damage that leaves the file a JPEG: libjpeg shows other pixels and goes on.
"""

import hashlib
import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

# No other decoder of Pillow is tried: some start programs. A JPEG with further pictures in it is named MPO.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
PIXELS, WAVES = 32, 16

JFIF_BYTES = 18  # of a JFIF segment, marker and length included
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
DQT, DHT, SOF0, SOS, COM, APP = 0xDB, 0xC4, 0xC0, 0xDA, 0xFE, range(0xE0, 0xF0)
_NOT_STUFFED = re.compile(rb"\xff[^\x00]", re.DOTALL)  # in a scan, 0xFF stands before a zero or is a marker

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
    """Describe an image that is whole, or say in a word or two, then a colon and details, why it is refused.

    Never raises. Reasons: `empty_file`, `not_an_image`, `animated`, `too_large` (found before decoding), `truncated`.

    Args:
        data: the file's bytes.
        max_pixels: width x height above which an image is refused.
        sha256: of the data, if it is known already.
    """
    if not data:
        return "empty_file"
    seen = whole_jpeg(data)
    if seen and seen.is_plain and not ImageFile.LOAD_TRUNCATED_IMAGES and seen.width * seen.height <= max_pixels:
        return ImageInfo(seen.width, seen.height, "JPEG", sha256 or hashlib.sha256(data).hexdigest())
    try:
        with _without_warnings():
            return _inspect(data, max_pixels, sha256, seen is not None)
    except MemoryError:
        return "too_large: not enough memory to decode it"
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        return f"truncated: {_words(error)}"


def _inspect(data: bytes, max_pixels: int, sha256: str | None, is_whole: bool) -> ImageInfo | str:
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
        if not (image.format == "JPEG" and is_whole):
            image.draft("L", (1, 1))  # of a JPEG every coefficient is decoded, but only an eighth of the pixels is made
            image.load()
        return ImageInfo(width, height, image.format or "", sha256 or hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A JPEG that its structure shows to be whole: size in pixels; plain: with nothing but JFIF and comments."""

    width: int
    height: int
    is_plain: bool


def whole_jpeg(data: bytes) -> Jpeg | None:
    """The JPEG that a file is, if its structure shows that libjpeg decodes it to its end; None: decoding can tell."""
    if not (data.startswith(SOI) and data.endswith(EOI)):
        return None
    at, tables, is_plain = 2, [], True
    while True:
        head = data[at : at + 4]
        if len(head) < 4 or head[0] != 0xFF:
            return None
        kind, end = head[1], at + 2 + int.from_bytes(head[2:])
        if kind in (DQT, DHT, SOF0, SOS):
            tables.append(data[at + 1 : end])
        elif kind not in APP and kind != COM:
            return None
        elif kind != COM:
            is_plain = is_plain and kind == APP[0] and end >= at + JFIF_BYTES and data[at + 4 : at + 9] == b"JFIF\0"
        at = end
        if kind == SOS:
            break
    marker = _NOT_STUFFED.search(data, at)
    size = _decoded_size(tuple(tables)) if marker is not None and marker.end() == len(data) else None
    return size and Jpeg(*size, is_plain)


@lru_cache(maxsize=1024)
def _decoded_size(tables: tuple[bytes, ...]) -> tuple[int, int] | None:
    """Width and height of a baseline JPEG of one interleaved scan, if libjpeg takes its tables, frame and scan.

    Stricter than ITU-T T.81 annex B and libjpeg's own checks (jdmarker.c, jdhuff.c, jdinput.c).

    Args:
        tables: the segments DQT, DHT, SOF0 and SOS, from the second byte of the marker on.
    """
    quantisers: set[int] = set()
    codes: set[tuple[int, int]] = set()
    frame: list[bytes] = []
    size = 0, 0
    for segment in tables:
        kind, body = segment[0], segment[3:]
        if len(segment) != 1 + int.from_bytes(segment[1:3]):
            return None
        if kind == DQT and not _quantisers(body, quantisers):
            return None
        if kind == DHT and not _codes(body, codes):
            return None
        if kind == SOF0:
            components = [body[n : n + 3] for n in range(6, len(body), 3)]
            if frame or not _is_frame(body, components):
                return None
            frame, size = components, (int.from_bytes(body[3:5]), int.from_bytes(body[1:3]))
    scan = tables[-1][3:]
    if not frame or len(scan) != 4 + 2 * len(frame) or scan[0] != len(frame) or scan[-3:] != b"\0\x3f\0":
        return None
    is_taken = all(
        component[2] in quantisers and name == component[0] and {(0, chosen >> 4), (1, chosen & 15)} <= codes
        for component, name, chosen in zip(frame, scan[1:-3:2], scan[2:-3:2], strict=True)
    )
    return size if is_taken else None


def _quantisers(body: bytes, found: set[int]) -> bool:
    """Add the numbers of the quantisation tables of a DQT segment; False: it is none."""
    while body:
        precision, number = body[0] >> 4, body[0] & 15
        length = 1 + 64 * (1 + precision)
        if precision > 1 or number > 3 or len(body) < length:
            return False
        found.add(number)
        body = body[length:]
    return True


def _codes(body: bytes, found: set[tuple[int, int]]) -> bool:
    """Add (0 DC or 1 AC, number) of the Huffman tables of a DHT segment; False: it is none, or no prefix code."""
    while body:
        kind, number, counts = body[0] >> 4, body[0] & 15, body[1:17]
        symbols = body[17 : 17 + sum(counts)]
        if kind > 1 or number > 3 or len(counts) < 16 or not 0 < len(symbols) == sum(counts) <= 256:
            return False
        if kind == 0 and max(symbols) > 15:
            return False
        code = 0
        for length, count in enumerate(counts, 1):
            code += count
            if code >= 1 << length:  # no code is all ones
                return False
            code <<= 1
        found.add((kind, number))
        body = body[17 + len(symbols) :]
    return True


def _is_frame(body: bytes, components: list[bytes]) -> bool:
    """Whether a SOF0 segment describes grey or three components, the first of which may be the finer one."""
    if len(body) < 9 or body[0] != 8 or len(body) != 6 + 3 * body[5] or body[5] not in (1, 3):
        return False
    if 0 in (int.from_bytes(body[1:3]), int.from_bytes(body[3:5])) or len({c[0] for c in components}) < body[5]:
        return False
    return components[0][1] in (0x11, 0x12, 0x21, 0x22) and all(c[1] == 0x11 for c in components[1:])


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
