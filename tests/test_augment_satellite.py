"""Satellite augmentation: same bytes always, boxes that follow their pixels, no invented borders, any kind of image."""

import dataclasses
import hashlib
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from albumentations.augmentations.geometric.functional import bboxes_affine_largest_box
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from augment.satellite import MIN_BOX_SHARE, Recipe, _window, augment_tile, draw, replay
from schemas.config import AugmentConfig
from schemas.errors import DatasetError, SourceError
from schemas.records import Box
from schemas.symmetry import Symmetry

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "real" / "university1652-mini" / "train" / "satellite"
PLAIN = AugmentConfig(rotate=False, flip=False, min_scale=1, brightness=0, contrast=0, weather=0, jpeg_quality=95)
STILL = Recipe("e", 0.0, 1.0, (0.5, 0.5), (), 0.0, (), 0.0, 0.0, 95)
ELEMENTS = ("e", "r90", "r180", "r270", "h", "v", "t", "hvt")

# Each in plain numpy: the twin of what albumentations does.
TWINS = {
    "e": lambda a: a,
    "r90": lambda a: np.rot90(a, 1),
    "r180": lambda a: np.rot90(a, 2),
    "r270": lambda a: np.rot90(a, 3),
    "h": lambda a: a[:, ::-1],
    "v": lambda a: a[::-1],
    "t": lambda a: a.transpose(1, 0, 2),
    "hvt": lambda a: np.rot90(a, 2).transpose(1, 0, 2),
}


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(data: bytes) -> NDArray[np.float64]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image).astype(np.float64)


def scene(width: int = 96, height: int = 96, seed: int = 0) -> Image.Image:
    """Smooth coloured blotches: what a photograph is to JPEG, without being one."""
    coarse = np.random.default_rng(seed).integers(40, 216, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def drawn(config: AugmentConfig, count: int = 300, width: int = 512, height: int = 512) -> list[Recipe]:
    return [draw(width, height, image_id=f"{i}.jpg", variant=0, seed=0, config=config) for i in range(count)]


# Determinism


def test_same_arguments_give_same_bytes_in_any_order() -> None:
    tiles = {f"train/{i:04}.jpg": encode(scene(seed=i)) for i in range(5)}
    config = AugmentConfig(weather=0.7)

    def run(names: list[str]) -> dict[str, tuple[bytes, str]]:
        made = {n: augment_tile(tiles[n], [], image_id=n, variant=1, seed=7, config=config) for n in names}
        return {n: (tile.data, tile.transform) for n, tile in made.items()}

    assert run(sorted(tiles)) == run(sorted(tiles, reverse=True))


def test_another_process_makes_the_same_bytes() -> None:
    code = """
import hashlib, sys
from augment.satellite import augment_tile
from schemas.config import AugmentConfig
data = sys.stdin.buffer.read()
for variant in range(4):
    tile = augment_tile(data, [(0.5, 0.5, 0.2, 0.3)], image_id="a", variant=variant, seed=1, config=AugmentConfig())
    print(hashlib.sha256(tile.data + repr((tile.transform, tile.boxes)).encode()).hexdigest())
"""
    data = encode(scene())
    tiles = [
        augment_tile(data, [(0.5, 0.5, 0.2, 0.3)], image_id="a", variant=v, seed=1, config=AugmentConfig())
        for v in range(4)
    ]
    here = [hashlib.sha256(t.data + repr((t.transform, t.boxes)).encode()).hexdigest() for t in tiles]
    there = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, cwd=ROOT, check=True)
    assert there.stdout.decode().split() == here


def test_seed_image_and_variant_each_change_the_tile() -> None:
    made = {
        draw(512, 512, image_id=i, variant=v, seed=s, config=AugmentConfig()).to_json()
        for i in ("a", "b", "a\udcff")
        for v in (0, 1)
        for s in (0, 1)
    }
    assert len(made) == 12


@pytest.mark.parametrize("variant", range(8))
def test_the_recorded_transform_replays_to_the_same_tile(variant: int) -> None:
    data, boxes = encode(scene(97, 61)), [(0.3, 0.4, 0.2, 0.2), (0.02, 0.02, 0.04, 0.04)]
    tile = augment_tile(data, boxes, image_id="x", variant=variant, seed=5, config=AugmentConfig(weather=0.8))
    assert replay(data, tile.transform, boxes) == tile
    assert tile.transform == json.dumps(json.loads(tile.transform), sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", '{"centre":[1]}'])
def test_a_foreign_transform_is_named(text: str) -> None:
    with pytest.raises(DatasetError, match="does not describe"):
        replay(encode(scene()), text)


# Pixels


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_turns_and_mirror_images_are_exact(element: str, size: tuple[int, int]) -> None:
    image = scene(*size)
    tile = replay(encode(image), dataclasses.replace(STILL, d4=element).to_json())
    twin = np.ascontiguousarray(TWINS[element](np.asarray(image)))
    assert tile.data == encode(Image.fromarray(twin), "JPEG", quality=95)
    assert (tile.height, tile.width) == twin.shape[:2]


def test_no_border_is_invented() -> None:
    white = encode(Image.new("RGB", (128, 128), "white"))
    config = dataclasses.replace(PLAIN, rotate=True, flip=True, min_scale=0.6)
    for variant in range(40):
        tile = augment_tile(white, [], image_id="w", variant=variant, seed=0, config=config)
        assert pixels(tile.data).min() >= 250


@given(
    width=st.integers(1, 4000),
    height=st.integers(1, 4000),
    seed=st.integers(0, 10**9),
    scale=st.floats(0.3, 1),
)
@settings(deadline=None, max_examples=200)
def test_the_window_never_leaves_the_tile(width: int, height: int, seed: int, scale: float) -> None:
    recipe = draw(width, height, image_id="x", variant=0, seed=seed, config=AugmentConfig(min_scale=scale))
    if recipe.d4 in {"r90", "r270", "t", "hvt"}:
        width, height = height, width
    corners = np.array([(0, 0, 1), (width, 0, 1), (width, height, 1), (0, height, 1)], float)
    before = corners @ np.linalg.inv(_window(recipe, width, height)).T
    slack = 1e-5 * max(width, height)  # parameters are written with six decimals
    assert before[:, :2].min() >= -slack
    assert (before[:, 0] <= width + slack).all()
    assert (before[:, 1] <= height + slack).all()
    assert recipe.crop >= min(scale, 0.5**0.5) - 1e-5


def test_the_rotation_is_counter_clockwise_by_its_angle() -> None:
    image = Image.new("L", (201, 201))
    ImageDraw.Draw(image).line((100, 100, 180, 100), fill=255, width=3)
    recipe = dataclasses.replace(STILL, angle=30.0, crop=0.73)
    y, x = np.nonzero(pixels(replay(encode(image), recipe.to_json()).data)[:, :, 0] > 128)
    far = np.argmax(np.hypot(x - 100, y - 100))
    assert np.degrees(np.arctan2(100 - y[far], x[far] - 100)) == pytest.approx(30, abs=1)


def test_light_is_changed_as_stated() -> None:
    grey = np.full((64, 64, 3), 100, np.uint8)
    grey[:, 32:] = 140
    data = encode(Image.fromarray(grey))
    brighter = pixels(replay(data, dataclasses.replace(STILL, brightness=0.2).to_json()).data)
    assert brighter.mean() == pytest.approx(144, abs=1.5)
    flatter = pixels(replay(data, dataclasses.replace(STILL, contrast=-0.5).to_json()).data)
    assert flatter.mean() == pytest.approx(120, abs=1.5)
    assert flatter[:, 48].mean() - flatter[:, 16].mean() == pytest.approx(20, abs=2)


def test_a_shadow_darkens_its_polygon_only_and_haze_brightens_all() -> None:
    data = encode(Image.new("RGB", (128, 128), (100, 100, 100)))
    square = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
    shadow = pixels(replay(data, dataclasses.replace(STILL, shadow=square, darkness=0.4).to_json()).data)
    assert shadow[64, 64] == pytest.approx(60, abs=3)
    assert shadow[4, 4] == pytest.approx(100, abs=2)
    haze = pixels(replay(data, dataclasses.replace(STILL, haze=(0.1, 0.1, 0.4, 0.4)).to_json()).data)
    assert haze[2].mean() == pytest.approx(100 + 0.1 * 130, abs=3)
    assert haze[-3].mean() == pytest.approx(100 + 0.4 * 130, abs=3)


# Boxes


def hull(box: Box, recipe: Recipe) -> NDArray[np.float64]:
    """The twin: albumentations' hull of the rotated box, clipped to the tile. (x0, y0, x1, y1) in 0..1."""
    cx, cy, w, h = box
    corners = np.array([[cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]])
    return np.asarray(bboxes_affine_largest_box(corners, _window(recipe, 1, 1))[0]).clip(0, 1)


recipes = st.builds(
    lambda element, seed, scale: dataclasses.replace(
        draw(
            96, 96, image_id="x", variant=0, seed=seed, config=dataclasses.replace(PLAIN, rotate=True, min_scale=scale)
        ),
        d4=element,
        quality=95,
    ),
    st.sampled_from(ELEMENTS),
    st.integers(0, 10**9),
    st.floats(0.4, 1),
)
spans = st.integers(0, 84).flatmap(lambda a: st.tuples(st.just(a), st.integers(a + 10, 96)))


@given(recipe=recipes, x=spans, y=spans)
@settings(deadline=None, max_examples=100)
def test_a_moved_box_covers_its_object_and_little_else(recipe: Recipe, x: tuple[int, int], y: tuple[int, int]) -> None:
    image = Image.new("L", (96, 96))
    ImageDraw.Draw(image).rectangle((x[0], y[0], x[1] - 1, y[1] - 1), fill=255)
    box = (sum(x) / 192, sum(y) / 192, (x[1] - x[0]) / 96, (y[1] - y[0]) / 96)
    tile = replay(encode(image), recipe.to_json(), [box])
    rows, columns = np.nonzero(pixels(tile.data)[:, :, 0] > 128)
    share = len(rows) * recipe.crop**2 / ((x[1] - x[0]) * (y[1] - y[0]))
    moved = tile.boxes[0]
    if moved is None:
        assert share < MIN_BOX_SHARE + 0.1
        return
    assert share > MIN_BOX_SHARE - 0.1
    cx, cy, w, h = (v * 96 for v in moved)
    seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    # The tip that the tile's edge cuts from a turned rectangle is thinner than a pixel, and not painted, for a while.
    unpainted = 1.0 / math.tan(math.radians(abs(recipe.angle))) if recipe.angle else 0.0
    assert (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2) == pytest.approx(seen, abs=2.5 + unpainted)


@given(recipe=recipes, box=st.tuples(*[st.floats(0.2, 0.8)] * 2, *[st.floats(0.01, 0.4)] * 2))
@settings(deadline=None, max_examples=200)
def test_a_moved_box_lies_in_the_clipped_hull_and_equals_it_when_nothing_is_cut(recipe: Recipe, box: Box) -> None:
    recipe = dataclasses.replace(recipe, d4="e")
    moved = replay(ONE_PIXEL, recipe.to_json(), [box]).boxes[0]
    x0, y0, x1, y1 = hull(box, recipe)
    if moved is None:
        assert min(x0, y0, 1 - x1, 1 - y1) == 0
        return
    cx, cy, w, h = moved
    ours = np.array((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
    assert (ours[:2] >= (x0 - 1e-9, y0 - 1e-9)).all()
    assert (ours[2:] <= (x1 + 1e-9, y1 + 1e-9)).all()
    if min(x0, y0, 1 - x1, 1 - y1) > 0:
        assert ours == pytest.approx((x0, y0, x1, y1), abs=1e-9)


@given(element=st.sampled_from(ELEMENTS), x=spans, y=spans)
@settings(deadline=None, max_examples=60)
def test_boxes_of_turns_and_mirror_images_are_exact(element: str, x: tuple[int, int], y: tuple[int, int]) -> None:
    mask = np.zeros((96, 96, 1), bool)
    mask[y[0] : y[1], x[0] : x[1]] = True
    box = (sum(x) / 192, sum(y) / 192, (x[1] - x[0]) / 96, (y[1] - y[0]) / 96)
    moved = replay(ONE_PIXEL, dataclasses.replace(STILL, d4=element).to_json(), [box]).boxes[0]
    rows, columns, _ = np.nonzero(TWINS[element](mask))
    x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert moved == pytest.approx(((x0 + x1) / 192, (y0 + y1) / 192, (x1 - x0) / 96, (y1 - y0) / 96), abs=1e-12)


def test_boxes_keep_their_order_and_those_cut_away_are_none() -> None:
    recipe = dataclasses.replace(STILL, crop=0.5)
    boxes = [(0.1, 0.1, 0.1, 0.1), (0.5, 0.5, 0.2, 0.2), (0.75, 0.5, 0.2, 0.2), (0.77, 0.5, 0.2, 0.2)]
    first, middle, half, less = replay(ONE_PIXEL, recipe.to_json(), boxes).boxes
    assert first is None
    assert middle == pytest.approx((0.5, 0.5, 0.4, 0.4))
    assert half == pytest.approx((0.9, 0.5, 0.2, 0.4))
    assert less is None


@pytest.mark.parametrize(
    "box",
    [
        (float("nan"), 0.5, 0.1, 0.1),
        (0.5, 0.5, float("inf"), 0.1),
        (0.5, 0.5, 0, 0.1),
        (2, 2, 0.1, 0.1),
        (0.5, 0.5, -1, 1),
    ],
)
def test_a_box_that_shows_nothing_is_none(box: Box) -> None:
    assert augment_tile(ONE_PIXEL, [box], image_id="x", variant=0, seed=0, config=PLAIN).boxes == (None,)


def test_a_box_over_the_edge_is_cut_to_the_tile() -> None:
    tile = augment_tile(ONE_PIXEL, [(0.0, 0.5, 0.5, 3.0)], image_id="x", variant=0, seed=0, config=PLAIN)
    assert tile.boxes == ((0.125, 0.5, 0.25, 1.0),)


# Configuration


def test_everything_off_is_the_tile_itself() -> None:
    image = scene()
    tile = augment_tile(encode(image), [(0.5, 0.5, 0.25, 0.5)], image_id="x", variant=0, seed=0, config=PLAIN)
    assert tile.data == encode(image, "JPEG", quality=95)
    assert tile.boxes == ((0.5, 0.5, 0.25, 0.5),)


def test_turns_and_mirror_images_follow_their_switches() -> None:
    for rotate, flip, wanted in (
        (True, True, set(ELEMENTS)),
        (True, False, {"e", "r90", "r180", "r270"}),
        (False, True, {"e", "h", "v"}),
        (False, False, {"e"}),
    ):
        made = drawn(dataclasses.replace(AugmentConfig(), rotate=rotate, flip=flip))
        assert {r.d4 for r in made} == wanted
        assert any(r.angle for r in made) is rotate
    angles = [r.angle for r in drawn(AugmentConfig())]
    assert min(angles) < -40 < 40 < max(angles) <= 45


@pytest.mark.parametrize("switches", [(True, True, 7), (True, False, 3), (False, True, 2), (False, False, 1)])
def test_symmetries_only_moves_a_tile_by_one_symmetry_and_each_copy_by_another(
    switches: tuple[bool, bool, int],
) -> None:
    rotate, flip, count = switches
    config = AugmentConfig(rotate=rotate, flip=flip, min_scale=0.5)
    for tile in range(20):
        made = [
            draw(300, 200, image_id=f"{tile}", variant=i, seed=3, config=config, symmetries_only=True)
            for i in range(2 * count)
        ]
        drawn = [recipe.symmetry for recipe in made]
        assert None not in drawn
        assert len(set(drawn)) == count
        assert drawn[:count] == drawn[count:]
        assert (Symmetry.E in drawn) is (count == 1)
        free = [draw(300, 200, image_id=f"{tile}", variant=i, seed=3, config=config) for i in range(2 * count)]
        light = [(r.shadow, r.darkness, r.haze, r.brightness, r.contrast, r.quality) for r in made]
        assert light == [(r.shadow, r.darkness, r.haze, r.brightness, r.contrast, r.quality) for r in free]


def test_the_symmetry_of_a_tile_is_read_from_its_transform() -> None:
    box, config = (0.3, 0.4, 0.2, 0.1), AugmentConfig()
    data = encode(scene(64, 48))
    for variant in range(7):
        tile = augment_tile(data, [box], image_id="x", variant=variant, seed=0, config=config, symmetries_only=True)
        symmetry = Recipe.from_json(tile.transform).symmetry
        assert symmetry is not None
        assert tile.boxes[0] == pytest.approx(symmetry.box(box), abs=1e-12)
        assert replay(data, tile.transform, [box]) == tile
    assert draw(64, 64, image_id="x", variant=0, seed=0, config=config).symmetry is None
    with pytest.raises(DatasetError):
        Recipe.from_json(dataclasses.replace(STILL, d4="r45").to_json())


@pytest.mark.parametrize("symmetry", Symmetry)
def test_directions_move_with_the_pixels(symmetry: Symmetry) -> None:
    """Paint one side of a square, turn it, and see which side is painted."""
    sides = {"left": np.s_[:, :3], "top": np.s_[:3], "right": np.s_[:, -3:], "bottom": np.s_[-3:]}
    for name, where in sides.items():
        image = np.zeros((16, 16, 1))
        image[where] = 1
        turned = TWINS[symmetry](image)
        assert turned[sides[symmetry.direction(name)]].all()
        assert symmetry.inverse().direction(symmetry.direction(name)) == name
    assert TWINS[symmetry](np.zeros((4, 8, 1))).shape == ((8, 4, 1) if symmetry.swaps_axes else (4, 8, 1))
    for other in Symmetry:
        image = np.arange(12).reshape(3, 4, 1)
        assert (TWINS[symmetry.then(other)](image) == TWINS[other](TWINS[symmetry](image))).all()


def test_amounts_stay_within_the_configuration() -> None:
    config = AugmentConfig(rotate=False, min_scale=0.6, brightness=0.1, contrast=0.3, weather=0.5, jpeg_quality=70)
    made = drawn(config)
    for values, low, high in (
        ([r.crop for r in made], 0.6, 1.0),
        ([r.brightness for r in made], -0.1, 0.1),
        ([r.contrast for r in made], -0.3, 0.3),
        ([r.quality for r in made], 70, 95),
    ):
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(values) <= high
    assert sum(bool(r.shadow) for r in made) == pytest.approx(75, abs=25)
    assert sum(bool(r.haze) for r in made) == pytest.approx(75, abs=25)
    assert not any(r.shadow and r.haze for r in made)
    assert not any(r.shadow or r.haze for r in drawn(dataclasses.replace(config, weather=0)))
    assert all(r.shadow or r.haze for r in drawn(dataclasses.replace(config, weather=1)))
    assert {r.quality for r in drawn(dataclasses.replace(config, jpeg_quality=98))} == {98}


def test_a_switch_leaves_the_other_parameters_alone() -> None:
    with_weather, without = drawn(AugmentConfig(weather=1)), drawn(AugmentConfig(weather=0))
    for a, b in zip(with_weather, without, strict=True):
        assert dataclasses.replace(a, shadow=(), darkness=0.0, haze=()) == b


def test_the_documented_share_of_a_tile_stays_visible() -> None:
    areas = [r.crop**2 for r in drawn(AugmentConfig(), 3000)]
    assert np.mean(areas) == pytest.approx(0.62, abs=0.01)
    assert min(areas) >= 0.4999
    elongated = [r.crop for r in drawn(AugmentConfig(), 300, 4000, 100)]
    assert min(elongated) >= 0.707


# Hostile input

ONE_PIXEL = encode(Image.new("RGB", (1, 1), "red"))


def test_one_pixel_and_slivers_work() -> None:
    for size in ((1, 1), (1, 40), (40, 1), (2, 3)):
        for variant in range(6):
            data = encode(Image.new("RGB", size, (200, 30, 30)))
            tile = augment_tile(data, [], image_id="x", variant=variant, seed=0, config=AugmentConfig(weather=0.6))
            assert sorted((tile.width, tile.height)) == sorted(size)
            assert pixels(tile.data).shape == (tile.height, tile.width, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = scene(40, 30)
    if mode in {"I;16", "I"}:
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "PA":
        image = image.convert("P").convert("PA")
    else:
        image = image.convert(mode)
    data = encode(image, "PNG" if mode in {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"} else "TIFF")
    tile = augment_tile(data, [], image_id="x", variant=0, seed=0, config=PLAIN)
    grey = scene(40, 30) if mode in {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"} else scene(40, 30).convert("L")
    if mode == "1":
        assert pixels(tile.data).mean() == pytest.approx(np.asarray(grey).mean(), abs=12)
        return
    difference = np.abs(pixels(tile.data) - np.asarray(grey.convert("RGB")))
    assert difference.mean() < (12 if mode in {"P", "PA"} else 6)


def test_transparent_palettes_work() -> None:
    image = scene(20, 20).convert("P")
    data = encode(image, transparency=bytes(range(256)))
    tile = augment_tile(data, [], image_id="x", variant=0, seed=0, config=PLAIN)
    assert tile.data == encode(image.convert("RGB"), "JPEG", quality=95)


def test_exif_orientation_is_ignored_and_not_passed_on() -> None:
    image, exif = scene(40, 24), Image.Exif()
    exif[0x0112] = 6  # a viewer would turn it by 90 degrees
    data = encode(image, "JPEG", quality=95, exif=exif)
    tile = augment_tile(data, [(0.25, 0.5, 0.5, 1.0)], image_id="x", variant=0, seed=0, config=PLAIN)
    assert (tile.width, tile.height) == (40, 24)
    assert np.abs(pixels(tile.data) - np.asarray(image)).mean() < 6
    assert tile.boxes == ((0.25, 0.5, 0.5, 1.0),)
    with Image.open(io.BytesIO(tile.data)) as made:
        assert made.format == "JPEG"
        assert not made.getexif()


@pytest.mark.parametrize(
    "data",
    [b"", b"no image", encode(scene())[:200], encode(scene(), "JPEG")[:300], encode(Image.new("1", (40_000, 1)))],
    ids=["empty", "text", "cut PNG", "cut JPEG", "too long"],
)
def test_what_is_no_image_is_named(data: bytes) -> None:
    with pytest.raises(SourceError, match=r"train/0001\.jpg cannot be augmented"):
        augment_tile(data, [], image_id="train/0001.jpg", variant=0, seed=0, config=PLAIN)


def test_real_tiles_keep_their_size_and_never_show_a_border() -> None:
    if not REAL.is_dir():
        pytest.skip("the real sample ../shared/real/university1652-mini is not here")
    paths = sorted(REAL.rglob("*.jp*g"))[:20]
    assert paths
    for path in paths:
        data = path.read_bytes()
        tile = augment_tile(data, [(0.5, 0.5, 0.3, 0.3)], image_id=path.name, variant=0, seed=0, config=AugmentConfig())
        assert pixels(tile.data).shape == pixels(data).shape
        assert tile.boxes[0] is not None
        black = (pixels(data).sum(axis=2) < 12).mean()
        assert (pixels(tile.data).sum(axis=2) < 12).mean() <= black * 4 + 0.02
