"""Image inspection never raises and always says why; the perceptual descriptor finds copies and nothing else."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.images import ImageInfo, Looks, inspect, looks, near_duplicates, whole_jpeg
from data.shards import sha256_bytes

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
LIMIT = 1_000_000


def picture(seed: int = 0, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Smooth random colours: like a photo, not like noise."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be enormous."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


JPEG = encode(picture(), "JPEG")
PNG = encode(picture(), "PNG")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_whole_images_are_described(kind: str, mode: str) -> None:
    data = encode(picture().convert(mode), kind)
    assert inspect(data, LIMIT) == ImageInfo(96, 64, kind, sha256_bytes(data))


def test_colour_models_of_real_photos_are_accepted() -> None:
    for mode, kind in (("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("1", "PNG"), ("I;16", "PNG")):
        assert isinstance(inspect(encode(picture().convert("L").convert(mode), kind), LIMIT), ImageInfo), mode
    mpo = encode(picture(), "MPO", save_all=True, append_images=[picture(1)])
    assert isinstance(inspect(mpo, LIMIT), ImageInfo)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty_file"),
        (b"\0" * 100, "not_an_image"),
        (b"<html>not found</html>", "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
        (encode(picture(), "GIF"), "not_an_image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (JPEG[:30], "not_an_image"),
        (bomb(1001, 1000), "too_large"),
        (bomb(100_000, 100_000), "too_large"),
        (bomb(2**31 - 1, 2**31 - 1), "too_large"),
        (bomb(0, 10), "not_an_image"),
        (encode(picture(), "PNG", save_all=True, append_images=[picture(1)]), "animated"),
        (encode(picture(), "WEBP", save_all=True, append_images=[picture(1)]), "animated"),
        (encode(picture(), "TIFF", save_all=True, append_images=[picture(1)]), "animated"),
    ],
)
def test_files_that_are_no_whole_image_say_why(data: bytes, reason: str) -> None:
    found = inspect(data, LIMIT)
    assert isinstance(found, str)
    assert found.partition(":")[0] == reason
    assert "0x" not in found
    assert found.isprintable()


def test_the_limit_counts_pixels_and_allows_itself() -> None:
    assert isinstance(inspect(PNG, 96 * 64), ImageInfo)
    assert inspect(PNG, 96 * 64 - 1) == "too_large: 96 x 64 pixels, at most 6,143 in all"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_never_raise_or_warn(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([JPEG, PNG, encode(picture(), "TIFF"), encode(picture(), "WEBP")]))
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + data.draw(st.binary(max_size=20)) + whole[at + data.draw(st.integers(0, 20)) :]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(inspect(damaged, LIMIT), (ImageInfo, str))
        vector = looks(damaged)
        assert vector is None or np.isfinite(vector).all()


def decodes(data: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Image.open(io.BytesIO(data), formats=("JPEG",)).load()
        except Exception:
            return False
    return True


WHOLE = [
    *(encode(picture(), "JPEG", **how) for how in ({}, {"optimize": True}, {"quality": 96}, {"subsampling": 0})),
    encode(picture().convert("L"), "JPEG"),
    encode(picture(), "JPEG", comment=b"\xff\xd9 an end marker in a comment", exif=b"Exif\0\0\xff\xd9"),
]


def test_the_structure_of_ordinary_jpegs_is_enough() -> None:
    real = [path.read_bytes() for path in sorted((REAL / "university1652-mini").rglob("*.jp*g"))]  # none: public clone
    assert all(whole_jpeg(data) for data in [*WHOLE, *real])
    left_to_the_decoder = [
        encode(picture(), "JPEG", progressive=True),
        encode(picture(), "JPEG", restart_marker_blocks=2),
        encode(picture().convert("CMYK"), "JPEG"),
        JPEG + b"trailing bytes",
        PNG,
    ]
    for data in left_to_the_decoder:
        assert not whole_jpeg(data)
        assert isinstance(inspect(data, LIMIT), ImageInfo)


@pytest.mark.parametrize("whole", WHOLE)
def test_no_part_of_a_jpeg_is_whole(whole: bytes) -> None:
    """A file that was cut off ends in 0xFFD9 only inside of a segment, which says that it is longer."""
    for length in range(len(whole)):
        assert not whole_jpeg(whole[:length])
        assert not whole_jpeg(whole[:length] + b"\xff\xd9") or decodes(whole[:length] + b"\xff\xd9")


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(WHOLE), st.data())
def test_what_the_structure_calls_whole_decodes(whole: bytes, data: st.DataObject) -> None:
    header = whole.index(b"\xff\xda") + 14
    at = data.draw(st.integers(2, header) | st.integers(2, len(whole) - 1))
    put, cut = data.draw(st.binary(max_size=4)), data.draw(st.integers(0, 4))
    damaged = whole[:at] + put + whole[at + cut :]
    seen = whole_jpeg(damaged)
    if seen and seen.width * seen.height <= LIMIT:
        assert decodes(damaged)
        with Image.open(io.BytesIO(damaged)) as image:
            assert image.size == (seen.width, seen.height)
            assert image.format == "JPEG" or not seen.is_plain


VARIANTS: dict[str, Callable[[Image.Image], bytes]] = {
    "re-encoded": lambda image: encode(image, "JPEG", quality=35),
    "halved": lambda image: encode(image.resize((image.width // 2, image.height // 2)), "JPEG"),
    "enlarged": lambda image: encode(image.resize((image.width * 2, image.height * 2)), "PNG"),
    "other format": lambda image: encode(image, "WEBP", quality=50),
    "grey": lambda image: encode(image.convert("L"), "PNG"),
    "brighter": lambda image: encode(image.point(lambda value: min(255, int(value * 1.1))), "PNG"),
}


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_copies_are_found_and_only_they(variant: str) -> None:
    files = sorted((REAL / "university1652-mini").rglob("*.jp*g"))  # empty in a public clone: made-up pictures serve
    whole = [path.read_bytes() for path in files] or [encode(picture(seed), "PNG") for seed in range(60)]
    originals = seen(whole)
    copies = seen([VARIANTS[variant](Image.open(io.BytesIO(data)).convert("RGB")) for data in whole[::12]])
    assert near_duplicates(copies, originals) == [(n, 12 * n) for n in range(len(copies))]
    assert near_duplicates(originals[:30], originals[30:]) == []


def seen(files: list[bytes]) -> Looks:
    vectors = [vector for data in files if (vector := looks(data)) is not None]
    assert len(vectors) == len(files)
    return np.stack(vectors)


def test_decoding_in_threads_keeps_warnings_as_they_were() -> None:
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda data: inspect(data, 10**9), [JPEG, bomb(12_000, 9_000), PNG] * 30))
    assert all(isinstance(info, ImageInfo) for info in found[::3])
    assert {str(info).partition(":")[0] for info in found[1::3]} == {"truncated"}
    assert list(warnings.filters) == before


def test_images_of_one_colour_are_no_duplicates_of_each_other() -> None:
    flat = seen([encode(Image.new("RGB", (64, 64), colour), "PNG") for colour in ("red", "white")])
    assert near_duplicates(flat[:1], flat[1:]) == []
    assert near_duplicates(flat, flat[:0]) == near_duplicates(flat[:0], flat) == []


def test_blocks_agree_with_the_obvious_loop() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=(1500, 256)).astype(np.float32)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    other = (one[::100] + rng.normal(size=(15, 256)) / 60).astype(np.float32)
    slow = [(a, b) for a, x in enumerate(one) for b, y in enumerate(other) if float(x @ y) >= 0.88]
    assert near_duplicates(one, other) == slow
    assert len(slow) == 15
