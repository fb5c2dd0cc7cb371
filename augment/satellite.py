"""Augmented satellite tiles: a recipe is drawn from (seed, image, variant), written down as JSON, and applied.

The parameters of every tile stand in the `transform` column of the images table; `replay` makes the same bytes from
the original and that text. Measured by `python benchmarks/augment.py`; what each parameter means: docs/augmentation.md.
"""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from augment.boxes import corners, move_box
from schemas.config import AugmentConfig
from schemas.errors import DatasetError, SourceError
from schemas.records import Box
from schemas.symmetry import Symmetry

Pixels = NDArray[np.uint8]

MIN_BOX_SHARE = 0.5  # of an object's area; with less than half of it in sight its sentence is no longer evidence
MIN_INSCRIBED = math.sqrt(0.5)  # side share of the largest upright square in a square turned by 45 degrees
TOP_QUALITY = 95  # above it JPEG files grow quickly and look no better
HAZE_COLOUR = (226, 230, 235)  # RGB of sky light scattered by dust and water
MAX_SIDE = 32_766  # pixels; OpenCV addresses them in 16 bits
MASK_SIDE = 64  # shadows are soft: their outline is drawn small and enlarged, which costs nothing

# One process augments one tile; OpenCV's own threads only fight with the other processes of a rebuild.
cv2.setNumThreads(1)

_D4 = A.D4(p=1.0)
# The window lies inside the tile, so that the border only feeds the cubic kernel's outer taps. It is no reflection:
# OpenCV 5.0 never returns from reflecting a side of one pixel.
_WARP = A.Affine(interpolation=cv2.INTER_CUBIC, border_mode=cv2.BORDER_REPLICATE, p=1.0)
_LIGHT = A.RandomBrightnessContrast(p=1.0)


@dataclass(frozen=True)
class Recipe:
    """The exact parameters of one augmented tile, in the order in which they are applied.

    Attributes:
        d4: turn or mirror image, the value of a Symmetry, which is also albumentations' name.
        angle: further rotation, degrees, counter-clockwise.
        crop: side of the window that is kept, as a share of the tile's side; it is enlarged to the tile's size.
        centre: centre of the window, 0..1 of width and height of the tile after `d4`.
        shadow: corners of a cast shadow, 0..1 of the new tile, or none.
        darkness: share of the light that the shadow takes.
        haze: share of sky light at the four corners of the new tile (top left, top right, bottom left, bottom right),
            or none.
        brightness: relative change of the mean.
        contrast: relative change of every pixel's distance from the mean.
        quality: of the JPEG file.
    """

    d4: str
    angle: float
    crop: float
    centre: tuple[float, float]
    shadow: tuple[tuple[float, float], ...]
    darkness: float
    haze: tuple[float, ...]
    brightness: float
    contrast: float
    quality: int

    @property
    def symmetry(self) -> Symmetry | None:
        """The symmetry of the square that the tile was moved by; None where a free angle or a crop moved it further."""
        return Symmetry(self.d4) if self.angle == 0 and self.crop == 1 else None

    def to_json(self) -> str:
        """Compact JSON with sorted keys; from_json reads it back without loss."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read the `transform` column.

        Raises:
            DatasetError: not the parameters of an augmented tile.
        """
        try:
            values = json.loads(text)
            x, y = values["centre"]
            points = tuple((float(px), float(py)) for px, py in values["shadow"])
            Symmetry(values["d4"])
            return cls(**{**values, "centre": (x, y), "shadow": points, "haze": tuple(values["haze"])})
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(
                f"The transform {text[:80]!r} does not describe an augmented tile: rebuild the data set."
            ) from error


@dataclass(frozen=True)
class AugmentedTile:
    """An augmented tile: JPEG bytes without EXIF, its size, the JSON that made it, and its boxes in the order given.

    A box is None when less than half (MIN_BOX_SHARE) of its area is still inside.
    """

    data: bytes
    width: int
    height: int
    transform: str
    boxes: tuple[Box | None, ...]


def augment_tile(
    data: bytes,
    boxes: Sequence[Box],
    *,
    image_id: str,
    variant: int,
    seed: int,
    config: AugmentConfig,
    symmetries_only: bool = False,
) -> AugmentedTile:
    """Make one augmented copy of a satellite tile.

    A function of its arguments alone: neither the order of calls nor the process changes a byte. Every parameter has
    a random number of its own, so that switching one off leaves the others as they were.

    Args:
        data: an image file of any kind and mode that Pillow reads; its first frame is taken as RGB, as it is stored
            (EXIF orientation is ignored: boxes, width and height refer to the stored pixels).
        boxes: region boxes of the tile, (cx, cy, w, h) in 0..1.
        image_id: of the original.
        variant: number of the copy.
        seed: of the rebuild.
        config: what may be changed, and how far.
        symmetries_only: no free angle and no crop, so that captions can be remapped: see `draw`.

    Raises:
        SourceError: the image cannot be decoded.
    """
    image = _decode(data, image_id)
    height, width = image.shape[:2]
    recipe = draw(
        width,
        height,
        image_id=image_id,
        variant=variant,
        seed=seed,
        config=config,
        symmetries_only=symmetries_only,
    )
    return _apply(image, recipe, boxes)


def replay(data: bytes, transform: str, boxes: Sequence[Box] = ()) -> AugmentedTile:
    """Make an augmented tile again from its original and its `transform`.

    Raises:
        SourceError: the image cannot be decoded.
        DatasetError: `transform` is not one of ours.
    """
    return _apply(_decode(data, "the original"), Recipe.from_json(transform), boxes)


def draw(
    width: int,
    height: int,
    *,
    image_id: str,
    variant: int,
    seed: int,
    config: AugmentConfig,
    symmetries_only: bool = False,
) -> Recipe:
    """Draw the parameters of one copy of a tile of `width` x `height` pixels.

    With `symmetries_only` the tile is moved by exactly one symmetry that the configuration allows. The copies of a
    tile take different ones until all are used, and none stays as it was unless the configuration allows nothing else.
    """

    def chance(name: str) -> float:
        """A number in [0, 1) that depends on the tile, the variant and the parameter's name, and on nothing else."""
        return _hash(seed, image_id, variant, name) / 2**48

    def between(name: str, low: float, high: float) -> float:
        return round(low + (high - low) * chance(name), 6)

    # 180 degrees is a rotation, so that mirror images alone are these two.
    elements = {
        (False, False): ("e",),
        (True, False): ("e", "r90", "r180", "r270"),
        (False, True): ("e", "h", "v"),
        (True, True): ("e", "r90", "r180", "r270", "h", "v", "t", "hvt"),
    }[config.rotate, config.flip]
    d4 = elements[int(chance("d4") * len(elements))]
    if symmetries_only:
        order = sorted(elements[1:] or elements, key=lambda element: _hash(seed, image_id, "d4", element))
        d4 = order[variant % len(order)]
    if Symmetry(d4).swaps_axes:
        width, height = height, width

    limit = _angle_limit(width, height) if config.rotate and not symmetries_only else 0.0
    angle = between("angle", -limit, limit)
    cos, sin = math.cos(math.radians(angle)), abs(math.sin(math.radians(angle)))
    # Width and height of the turned window of side share 1, as shares of the tile's; a window must fit in both.
    spread_x, spread_y = cos + sin * height / width, cos + sin * width / height
    scale = 1.0 if symmetries_only else between("scale", config.min_scale, 1.0)
    crop = round(min(scale, 1 / spread_x, 1 / spread_y), 6)
    room_x, room_y = max(0.0, 1 - crop * spread_x) / 2, max(0.0, 1 - crop * spread_y) / 2
    centre = (between("x", 0.5 - room_x, 0.5 + room_x), between("y", 0.5 - room_y, 0.5 + room_y))

    weather = chance("weather")
    is_shadow = weather < config.weather / 2
    is_haze = config.weather / 2 <= weather < config.weather
    shadow: tuple[tuple[float, float], ...] = ()
    if is_shadow:
        count = 4 + int(chance("shadow corners") * 3)
        x, y, turn = between("shadow x", 0.1, 0.9), between("shadow y", 0.1, 0.9), chance("shadow turn")
        around = [math.tau * (turn + (i + 0.6 * chance(f"shadow corner {i}")) / count) for i in range(count)]
        reach = [between(f"shadow reach {i}", 0.2, 0.55) for i in range(count)]
        shadow = tuple(
            (round(x + r * math.cos(a), 4), round(y + r * math.sin(a), 4)) for a, r in zip(around, reach, strict=True)
        )
    return Recipe(
        d4=d4,
        angle=angle,
        crop=crop,
        centre=centre,
        shadow=shadow,
        darkness=between("darkness", 0.25, 0.55) if is_shadow else 0.0,
        haze=tuple(between(f"haze {i}", 0.08, 0.4) for i in range(4)) if is_haze else (),
        brightness=between("brightness", -config.brightness, config.brightness),
        contrast=between("contrast", -config.contrast, config.contrast),
        quality=config.jpeg_quality + int(chance("quality") * (max(TOP_QUALITY - config.jpeg_quality, 0) + 1)),
    )


def _hash(*names: str | int) -> int:
    """48 bits that depend on the names and on nothing else."""
    return int.from_bytes(blake2b(json.dumps(names).encode(), digest_size=6).digest(), "big")


def _angle_limit(width: int, height: int) -> float:
    """Largest free angle, degrees, at which a window of 0.71 of the tile's side still fits: 45 for a square.

    For sides a >= b it solves a sin(x) + b cos(x) = b / MIN_INSCRIBED. A tile twice as long as wide gets 12.7 degrees:
    turned further, it would show little but its middle.
    """
    long, short = max(width, height), min(width, height)
    top = min(1.0, short / MIN_INSCRIBED / math.hypot(long, short))
    return math.degrees(math.asin(top) - math.atan2(short, long))


def _decode(data: bytes, name: str) -> Pixels:
    """The first frame as RGB, uint8[H, W, 3].

    Sixteen-bit grey is scaled to eight bits (Pillow would cut everything above 255 to white); transparency is dropped.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > MAX_SIDE:
                raise ValueError(f"{image.width} x {image.height} pixels, the longest side may have {MAX_SIDE}")
            if image.mode == "RGB":
                return np.asarray(image)
            if image.mode == "I" or image.mode.startswith("I;16"):
                grey = (np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            # Palettes with transparency in bytes make Pillow warn unless they pass through RGBA.
            return np.asarray(image.convert("RGBA" if image.mode == "P" else image.mode).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SourceError(
            f"{name} cannot be augmented because it is no readable image ({error}): replace it."
        ) from error


def _apply(image: Pixels, recipe: Recipe, boxes: Sequence[Box]) -> AugmentedTile:
    image = _D4.apply(image, group_element=recipe.d4)
    height, width = image.shape[:2]
    window = _window(recipe, width, height)
    if recipe.angle != 0 or recipe.crop != 1:  # a mere turn or mirror image stays exact to the pixel
        half = _shift(0.5, 0.5)  # OpenCV counts from the middle of the first pixel
        matrix = np.linalg.inv(half) @ window @ half
        image = _WARP.apply(image, matrix=matrix, output_shape=(height, width))
    if recipe.shadow:
        image = _cast_shadow(image, recipe)
    if recipe.haze:
        image = _veil(image, recipe)
    image = _relight(image, recipe)
    size = np.diag([width, height, 1.0])
    return AugmentedTile(
        data=_encode(image, recipe.quality),
        width=width,
        height=height,
        transform=recipe.to_json(),
        boxes=tuple(_move(box, recipe.d4, np.linalg.inv(size) @ window @ size) for box in boxes),
    )


def _shift(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _window(recipe: Recipe, width: int, height: int) -> NDArray[np.float64]:
    """float64[3, 3]: pixels (x right, y down, from the tile's corner) after `d4` to pixels of the new tile."""
    cos, sin = math.cos(math.radians(recipe.angle)), math.sin(math.radians(recipe.angle))
    turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, recipe.crop]]) / recipe.crop
    return _shift(width / 2, height / 2) @ turn @ _shift(-recipe.centre[0] * width, -recipe.centre[1] * height)


def _move(box: Box, d4: str, matrix: NDArray[np.float64]) -> Box | None:
    found = corners(box)
    if found is None:
        return None
    x0, y0, x1, y1 = _D4.apply_to_bboxes(np.array([found]), group_element=d4)[0, :4].tolist()
    return move_box((x0, y0, x1, y1), matrix, MIN_BOX_SHARE)


def _cast_shadow(image: Pixels, recipe: Recipe) -> Pixels:
    """Darken a polygon with soft edges, as a cloud or a tall neighbour does."""
    height, width = image.shape[:2]
    mask = np.full((MASK_SIDE, MASK_SIDE), 255, np.uint8)
    polygon = np.round(np.array(recipe.shadow) * MASK_SIDE).astype(np.int32)
    cv2.fillPoly(mask, [polygon], (round(255 * (1 - recipe.darkness)),))
    light = cv2.resize(cv2.GaussianBlur(mask, (0, 0), 1.5), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.multiply(image, cv2.merge([light] * 3), scale=1 / 255))


def _veil(image: Pixels, recipe: Recipe) -> Pixels:
    """Mix in sky light; its share runs smoothly between the four corners (Koschmieder's law with a smooth depth)."""
    height, width = image.shape[:2]
    veil = np.round(255 * np.array(recipe.haze, np.float32)).astype(np.uint8).reshape(2, 2)
    share = cv2.resize(veil, (width, height), interpolation=cv2.INTER_LINEAR)
    kept = cv2.multiply(image, cv2.merge([255 - share] * 3), scale=1 / 255)
    sky = cv2.merge([cv2.convertScaleAbs(share, alpha=level / 255) for level in HAZE_COLOUR])
    return np.asarray(cv2.add(kept, sky))


def _relight(image: Pixels, recipe: Recipe) -> Pixels:
    """Scale the mean by 1 + brightness and the distances from it by 1 + contrast, clipped to 0..255."""
    if recipe.brightness == 0 and recipe.contrast == 0:
        return image
    mean = sum(cv2.mean(image)[:3]) / 3
    beta = mean * (recipe.brightness - recipe.contrast)
    return np.asarray(_LIGHT.apply(image, alpha=1 + recipe.contrast, beta=beta))


def _encode(image: Pixels, quality: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=quality)
    return out.getvalue()
