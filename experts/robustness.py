"""Recall when the gallery's images are worse than they should be: `georefine evaluate RUN DATASET --robustness`.

Five corruptions at five severities, applied to every gallery image; the queries stay. Parameters are ImageNet-C's
(Hendrycks and Dietterich 2019, arXiv 1903.12261) for Gaussian blur, Gaussian noise, fog and JPEG; occlusion is not one
of its corruptions: a grey square over 10 to 50 % of the area. They are meant for images of 224 x 224, so an image is
brought to that size first (to the model's own if that is larger; blur in proportion), corrupted, then brought to the
model's. Noise, fog and the square's place come from a hash of the image id: a result can be repeated to the bit.
"""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from data.shards import open_version
from experts.checkpoint import Checkpoint, load_checkpoint
from experts.device import memory_errors, open_device
from experts.embed import fused_images, image_features
from experts.evaluate import Progress, query_vectors, refuse_empty, silent, text_to_image
from experts.examples import DECODING_THREADS, Pictures, decode, load_captions, load_pictures
from schemas.records import Split

Corruption = Literal["blur", "noise", "occlusion", "fog", "jpeg"]
Pixels = npt.NDArray[np.uint8]

CORRUPTIONS: tuple[Corruption, ...] = ("blur", "noise", "occlusion", "fog", "jpeg")
SEVERITIES = (1, 2, 3, 4, 5)
SIDE = 224
IMAGES_AT_ONCE = 128
BLUR = (1.0, 2.0, 3.0, 4.0, 6.0)  # standard deviation, pixels of 224
NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation, of a range of 0..1
OCCLUSION = (0.1, 0.2, 0.3, 0.4, 0.5)  # share of the area
FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))  # thickness, decay of the fractal
JPEG = (25, 18, 15, 10, 7)  # quality
GREY = 128


def corrupt(pixels: Pixels, corruption: Corruption, severity: int, image_id: str) -> Pixels:
    """One corrupted image: uint8 [H, W, 3], RGB, the same shape. severity: 1..5; image_id: what chance hangs on."""
    step = severity - 1
    if corruption == "blur":
        radius = BLUR[step] * len(pixels) / SIDE
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))
    if corruption == "jpeg":
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG[step])
        with Image.open(buffer) as image:
            return np.asarray(image.convert("RGB"))
    digest = hashlib.blake2b(f"{corruption}/{image_id}".encode(errors="surrogatepass"), digest_size=8).digest()
    chance = np.random.default_rng(int.from_bytes(digest, "big"))
    if corruption == "occlusion":
        return occlude(pixels, OCCLUSION[step], chance)
    shares = pixels.astype(np.float32) / 255
    if corruption == "noise":
        shares += NOISE[step] * chance.standard_normal(shares.shape, dtype=np.float32)
    else:
        thickness, decay = FOG[step]
        brightest = shares.max()
        shares += thickness * plasma(len(pixels), decay, chance)[..., None]
        shares *= brightest / (brightest + thickness)
    return np.asarray(shares.clip(0, 1) * 255, dtype=np.uint8)


def occlude(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    """A grey square over `share` of the area, wholly inside; the same generator state puts it about the same place."""
    height, width = pixels.shape[:2]
    high, wide = round(height * share**0.5), round(width * share**0.5)
    at = chance.random(2)
    top, left = int(at[0] * (height - high + 1)), int(at[1] * (width - wide + 1))
    result = pixels.copy()
    result[top : top + high, left : left + wide] = GREY
    return result


def plasma(side: int, decay: float, chance: np.random.Generator) -> npt.NDArray[np.float32]:
    """A cloud, float32 [side, side] in 0..1: the diamond-square fractal that ImageNet-C takes for fog.

    On a torus of the next power of two: midpoints are the mean of their four neighbours plus a random step, whose range
    starts at 100 * 100 and is divided by decay for one factor each time the grid gets finer.
    """
    size = 1 << max(1, (side - 1).bit_length())
    field = np.zeros((size, size), dtype=np.float64)
    wobble, step = 100.0, size
    while step >= 2:
        half = step // 2

        def middle(total: npt.NDArray[np.float64], wobble: float = wobble) -> npt.NDArray[np.float64]:
            return total / 4 + wobble * chance.uniform(-wobble, wobble, total.shape)

        corners = field[::step, ::step]
        across = corners + np.roll(corners, -1, axis=0)
        field[half::step, half::step] = middle(across + np.roll(across, -1, axis=1))
        centres = field[half::step, half::step]
        field[::step, half::step] = middle(
            centres + np.roll(centres, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        )
        field[half::step, ::step] = middle(
            centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        )
        step, wobble = half, wobble / decay
    field -= field.min()
    field /= max(field.max(), 1e-12)
    return field[:side, :side].astype(np.float32)


def robustness(
    run: Path,
    dataset: Path,
    split: Split = "test",
    *,
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Text-to-image recall of a split, its gallery corrupted in every way.

    Returns:
        {"clean": {"r1", "r5", "r10", "score"}, "blur": {"1": {...}, ..., "5": {...}}, "noise": ..., "occlusion": ...,
        "fog": ..., "jpeg": ..., "mean": {...}} in percent; mean is over the 25, and clean has only changed in size.

    Raises:
        TrainingError: the run holds no checkpoint, the split is empty, or a score is NaN.
        DatasetError: the data set cannot be read.
    """
    where = open_device(device)
    checkpoint = load_checkpoint(run, where)
    version = open_version(dataset)
    captions, gallery = load_captions(version, split), load_pictures(version, split, augmented=False)
    refuse_empty(captions, gallery)

    def recalls(images: Tensor) -> dict[str, float]:
        return text_to_image(texts, images, captions.buildings, gallery.buildings)

    found: dict[str, Any] = {}
    with memory_errors("evaluating"):
        texts = query_vectors(checkpoint, captions, where)
        found["clean"] = recalls(encode(checkpoint, gallery, None, where, progress)[0])
        for corruption in CORRUPTIONS:
            features = encode(checkpoint, gallery, corruption, where, progress)
            found[corruption] = {str(s): recalls(images) for s, images in zip(SEVERITIES, features, strict=True)}
    each = [row for corruption in CORRUPTIONS for row in found[corruption].values()]
    found["mean"] = {name: sum(row[name] for row in each) / len(each) for name in each[0]}
    return found


def encode(
    checkpoint: Checkpoint,
    gallery: Pictures,
    corruption: Corruption | None,
    device: torch.device,
    progress: Progress,
) -> list[Tensor]:
    """Fused features float32 [G, E] of the images at every severity, or once as they are; few pixels at a time."""
    size = checkpoint.config.image_size

    def versions(row: int) -> Pixels:
        """uint8 [severities, 3, size, size]"""
        image_id = gallery.ids[row]
        whole = np.ascontiguousarray(decode(gallery.encoded[row], max(SIDE, size), image_id).transpose(1, 2, 0))
        if corruption is None:
            return _shrink(whole, size)[None]
        return np.stack([_shrink(corrupt(whole, corruption, s, image_id), size) for s in SEVERITIES])

    parts: list[list[Tensor]] = []
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for start in range(0, len(gallery), IMAGES_AT_ONCE):
            some = range(len(gallery))[start : start + IMAGES_AT_ONCE]
            pixels = torch.from_numpy(np.stack(list(pool.map(versions, some)), axis=1))
            trunks = (image_features(checkpoint.model, one, device) for one in pixels)
            parts.append([fused_images(checkpoint.model, trunk) for trunk in trunks])
            progress(corruption or "clean", some.stop, len(gallery), "")
    return [torch.cat(severity) for severity in zip(*parts, strict=True)]


def _shrink(pixels: Pixels, size: int) -> Pixels:
    """uint8 [H, W, 3] -> uint8 [3, size, size], as examples.decode does it."""
    if pixels.shape[:2] == (size, size):
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
    small = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def as_lines(found: dict[str, Any]) -> list[str]:
    """The result for a person: recall@1 by severity, in percent, and the mean of all."""
    lines = [f"{'recall@1 under':<16}" + "".join(f"{severity:>8}" for severity in SEVERITIES)]
    for corruption in CORRUPTIONS:
        rows = found[corruption]
        lines.append(f"{corruption:<16}" + "".join(f"{rows[str(severity)]['r1']:>8.2f}" for severity in SEVERITIES))
    clean, mean = found["clean"], found["mean"]
    return [*lines, f"clean {clean['r1']:.2f}, mean of the 25 {mean['r1']:.2f}"]
