"""Images for a page: the bytes of raster images only, and small ones made once and kept in memory."""

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass

from PIL import Image, ImageOps

# What a browser shows and cannot run; everything else Pillow reads is sent as PNG.
_SENT_AS_THEY_ARE = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
THUMBNAIL = 256  # pixels, the longer side
KEPT = 4096  # thumbnails, about 10 KB each


@dataclass(frozen=True, slots=True)
class Picture:
    """Bytes and their media type."""

    data: bytes
    media_type: str


def picture(data: bytes) -> Picture | None:
    """An image as a browser takes it; None where the bytes are no raster image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format in _SENT_AS_THEY_ARE:
                return Picture(data, _SENT_AS_THEY_ARE[image.format])
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "PNG")
            return Picture(buffer.getvalue(), "image/png")
    except Exception:  # Pillow raises whatever a hostile file provokes
        return None


def thumbnail(data: bytes, side: int = THUMBNAIL) -> Picture | None:
    """A JPEG whose longer side is at most `side` pixels; None where the bytes are no raster image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (side, side))  # lets a JPEG be decoded at a fraction of its size
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail((side, side))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=82)
            return Picture(buffer.getvalue(), "image/jpeg")
    except Exception:  # as above
        return None


class Thumbnails:
    """The thumbnails shown last, by the checksum of the image."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, sha256: str) -> Picture | None:
        with self._lock:
            if found := self._kept.get(sha256):
                self._kept.move_to_end(sha256)
            return found

    def put(self, sha256: str, made: Picture) -> None:
        with self._lock:
            self._kept[sha256] = made
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
