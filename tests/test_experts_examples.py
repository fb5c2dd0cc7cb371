"""Reading a split into memory, and the tiny data set that the tests of the trainer share."""

import hashlib
import io
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageDraw

from data.shards import atomic_write, open_version, shard_path, write_table
from experts.examples import building_codes, decode, load_captions, load_images, platform_codes
from schemas.errors import DatasetError
from schemas.manifest import FORMAT_VERSION, Manifest, Shard
from schemas.records import PLATFORMS, SPLITS
from schemas.tables import CAPTIONS, IMAGES

COLOURS = {"red": (200, 40, 30), "green": (40, 160, 60), "blue": (40, 60, 200), "white": (230, 230, 230)}
SHAPES = {"round": "ellipse", "square": "rectangle"}


def picture(colour: str, shape: str, platform: str, seed: int) -> bytes:
    """A PNG of 32 px: a coloured shape on a noisy ground that differs by platform."""
    noise = np.random.default_rng(seed).integers(0, 40, (32, 32, 3), dtype=np.uint8)
    image = Image.fromarray(noise + np.uint8(40 * PLATFORMS.index(platform)))
    draw = ImageDraw.Draw(image)
    getattr(draw, SHAPES[shape])((8, 8, 24, 24), fill=COLOURS[colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def tiny_rows(buildings: dict[str, int]) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Image and caption rows: for every split so many buildings, each with one image and caption per platform.

    Train satellite tiles have an augmented copy with its caption, test images a query-folder twin.
    """
    images: list[dict[str, object]] = []
    captions: list[dict[str, object]] = []
    looks = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    number = 0
    for split in SPLITS:
        for _ in range(buildings.get(split, 0)):
            colour, shape = looks[number % len(looks)]
            building = f"{number:04}"
            number += 1
            for platform in PLATFORMS:
                parent = f"{split}/{platform}/{building}.png"
                role = "gallery" if split == "test" else "train"
                copies: list[tuple[str, str, str | None]] = [(parent, role, None)]
                if split == "train" and platform == "satellite":
                    copies.append((f"{parent}~aug0", role, parent))
                if split == "test":
                    copies.append((f"{split}/query_{platform}/{building}.png", "query", None))
                for image_id, its_role, of in copies:
                    data = picture(colour, shape, platform, number)
                    images.append(
                        {
                            "image_id": image_id,
                            "building_id": building,
                            "platform": platform,
                            "split": split,
                            "role": its_role,
                            "image": {"bytes": data, "path": Path(image_id).name},
                            "width": 32,
                            "height": 32,
                            "sha256": hashlib.sha256(data).hexdigest(),
                            "parent_image_id": of,
                            "transform": "{}" if of else None,
                        }
                    )
                    if its_role == "query":
                        continue
                    text = f"A {colour} {shape} roof seen here. The {shape} building stands on rough ground."
                    captions.append(
                        {
                            "caption_id": f"{image_id}#0",
                            "image_id": image_id,
                            "building_id": building,
                            "platform": platform,
                            "split": split,
                            **dict.fromkeys(("raw", "stripped", "refined", "final"), text),
                            "edits": [],
                            "queries": [f"A {colour} roof.", f"A {shape} building."] if split == "train" else [],
                            "status": "refined" if split == "train" else "kept",
                            "gates": [],
                            **dict.fromkeys(("refiner", "prompt_version", "reply_key", "reply"), ""),
                        }
                    )
    return images, captions


def write_dataset(
    dataset: Path, images: list[dict[str, object]], captions: list[dict[str, object]], *, parts: int = 1
) -> Path:
    """Write rows as version v0001, dealt to `parts` shards per split and platform."""
    version = dataset / "v0001"
    shards = []
    for name, rows, schema in (("images", images, IMAGES), ("captions", captions, CAPTIONS)):
        for split in SPLITS:
            for platform in PLATFORMS:
                own = [row for row in rows if row["split"] == split and row["platform"] == platform]
                for part in range(parts if own else 0):
                    path = shard_path(name, split, platform, part)
                    written = write_table(version / path, pa.Table.from_pylist(own[part::parts], schema=schema))
                    shards.append(Shard(path, name, split, platform, written.rows, written.bytes, written.sha256))
    manifest = Manifest(FORMAT_VERSION, "v0001", "0", {"sha256": "00"}, {}, tuple(shards), {}, {}, {})
    atomic_write(version / "manifest.json", manifest.to_json().encode())
    atomic_write(dataset / "latest", b"v0001\n")
    return dataset


def write_tiny(dataset: Path, *, parts: int = 1, **buildings: int) -> Path:
    """The tiny data set, by default with 8 train, 3 val and 4 test buildings."""
    return write_dataset(dataset, *tiny_rows(buildings or {"train": 8, "val": 3, "test": 4}), parts=parts)


def test_images_are_sorted_without_queries_and_augmented_ones_only_on_request(tmp_path: Path) -> None:
    version = open_version(write_tiny(tmp_path))
    test = load_images(version, "test", 16, augmented=False)
    assert len(test) == 4 * 3
    assert not any("query" in image_id for image_id in test.ids)
    assert list(test.ids) == sorted(test.ids)
    assert test.pixels.shape == (12, 3, 16, 16)
    assert test.pixels.dtype == torch.uint8
    assert len(load_images(version, "train", 16, augmented=False)) == 8 * 3
    assert len(load_images(version, "train", 16, augmented=True)) == 8 * 4
    assert len(load_images(version, None, 16, augmented=False)) == 15 * 3


def test_the_layout_of_shards_changes_nothing(tmp_path: Path) -> None:
    one = open_version(write_tiny(tmp_path / "one"))
    three = open_version(write_tiny(tmp_path / "three", parts=3))
    a, b = (load_images(v, "train", 16, augmented=True) for v in (one, three))
    assert a.ids == b.ids
    assert torch.equal(a.pixels, b.pixels)
    assert load_captions(one, "train") == load_captions(three, "train")


def test_captions_that_were_only_orientation_are_left_out(tmp_path: Path) -> None:
    images, captions = tiny_rows({"train": 2})
    captions[0]["status"] = "empty"
    captions[1]["final"] = " \n"
    found = load_captions(open_version(write_dataset(tmp_path, images, captions)), "train")
    assert len(found) == len(captions) - 2


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_of_image_becomes_rgb(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB" if mode == "I;16" else mode, (40, 20)).convert("L" if mode == "I;16" else mode).save(
        buffer, "TIFF" if mode == "CMYK" else "PNG"
    )
    assert decode(buffer.getvalue(), 16, "x").shape == (3, 16, 16)


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_damaged_image_is_named(data: bytes) -> None:
    with pytest.raises(DatasetError, match=r"test/0001\.png"):
        decode(data, 16, "test/0001.png")


def test_an_image_of_a_kind_that_pillow_knows_and_cannot_read_is_named() -> None:
    header = struct.pack("<4s7I44x2I", b"DDS ", 124, 0x1007, 16, 16, 0, 0, 0, 32, 0x800) + b"\0" * 128
    with pytest.raises(NotImplementedError), Image.open(io.BytesIO(header)) as image:
        image.load()
    with pytest.raises(DatasetError, match=r"test/0001\.png"):
        decode(header, 16, "test/0001.png")


def test_codes_agree_across_groups() -> None:
    a, b = building_codes(["x", "y", "x"], ["y", "z"])
    assert a.tolist() == [0, 1, 0]
    assert b.tolist() == [1, 2]
    assert platform_codes(["ground", "satellite"]).tolist() == [2, 0]
