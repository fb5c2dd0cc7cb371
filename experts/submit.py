"""The submission file of RoboSense 2025 Track 4: `georefine submit RUN --queries FILE --images DIR --out FILE`.

Queries come one per line, `q_00001<tab>text`; images are the files of a folder, `image_7e591aa3.jpeg`. What goes out is
a line per query in the order of the queries: its id without underscore and zeros, then the ten best images without
extension, `q1 image_7e591aa3 image_df1ee1e1 ...` (Method/generate_sub.py of robosense2025/track4).
"""

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.shards import atomic_write
from experts.checkpoint import Checkpoint, load_checkpoint
from experts.device import memory_errors, open_device
from experts.embed import fused_images, fused_texts, image_features, text_bags, text_features
from experts.examples import DECODING_THREADS, ROWS_IN_FLIGHT, decode
from experts.search import check_finite, nearest
from schemas.errors import DatasetError, SourceError

Progress = Callable[[str, int, int, str], None]

ANSWERS = 10
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
QUERY_ID = re.compile(r"(?:q_?)?0*(\d+)", re.ASCII)


@dataclass(frozen=True)
class Query:
    """id: as in the submission, q1."""

    id: str
    text: str


@dataclass(frozen=True)
class Refused:
    """An image file that is not ranked, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Submission:
    """What was written: queries answered, images ranked; and what was left out."""

    queries: int
    images: int
    refused: tuple[Refused, ...]


def silent(stage: str, done: int, total: int, message: str) -> None:
    """The default progress: none."""


def read_queries(file: Path) -> tuple[Query, ...]:
    """The queries of a Track 4 file, in its order; blank lines are passed over.

    Raises:
        SourceError: the file cannot be read or holds no queries; a line is not id, tab and text; an id comes twice.
    """
    try:
        lines = Path(file).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise SourceError(f"{file} cannot be read ({error.strerror}): name the file of queries.") from error
    found: dict[str, Query] = {}
    for number, line in enumerate(lines, start=1):
        try:
            name, tab, text = line.decode("utf-8").strip().partition("\t")
        except UnicodeDecodeError as error:
            raise SourceError(f"Line {number} of {file} is not UTF-8: convert the file.") from error
        if not name and not tab:
            continue
        match = QUERY_ID.fullmatch(name)
        if match is None or not text.strip():
            raise SourceError(
                f"Line {number} of {file} ({line[:40].decode('utf-8', 'replace')!r}) is not a query: "
                "it must be an id such as q_00001, a tab and a text."
            )
        query = Query(f"q{match[1]}", text.strip())
        if query.id in found:
            raise SourceError(f"Line {number} of {file} asks {query.id} again: every query needs an id of its own.")
        found[query.id] = query
    if not found:
        raise SourceError(f"{file} holds no queries: each line must be an id such as q_00001, a tab and a text.")
    return tuple(found.values())


def list_images(folder: Path) -> tuple[tuple[Path, ...], tuple[Refused, ...]]:
    """Image files in a folder and the folders in it, by extension, sorted by id (the name without extension).

    Returns:
        Files, and those that are none or whose name cannot stand in a submission.

    Raises:
        SourceError: the folder cannot be read, or two files have one id.
    """

    def unlisted(error: OSError) -> None:
        raise SourceError(f"{error.filename} cannot be listed ({error.strerror}): mend it, or name another folder.")

    kept, refused = [], []
    for place, _, names in os.walk(folder, onerror=unlisted):
        for path in (Path(place, name) for name in sorted(names)):
            if path.suffix.lower() not in EXTENSIONS:
                continue
            if not path.is_file():
                refused.append(Refused(path, "it is no regular file"))
            elif not path.stem.isprintable() or re.search(r"\s", path.stem):
                refused.append(Refused(path, "its name holds blanks or control characters, which no submission can"))
            else:
                kept.append(path)
    kept.sort(key=lambda path: (path.stem, path))
    for one, other in pairwise(kept):
        if one.stem == other.stem:
            raise SourceError(
                f"Two images have the id {one.stem!r} ({str(one)!r}, {str(other)!r}): take one of them away."
            )
    return tuple(kept), tuple(sorted(refused, key=lambda one: one.path))


def submit(
    run: Path, queries: Path, images: Path, out: Path, *, device: str = "cpu", progress: Progress = silent
) -> Submission:
    """Rank the images of a folder for every query and write the submission; equal scores go by image id.

    Images that cannot be read are left out of the ranking and stated in the result.

    Raises:
        SourceError: the queries or the folder cannot be used, or fewer than ten images can be read.
        TrainingError: the run holds no checkpoint, or a score is NaN. DatasetError: `out` cannot be written.
    """
    asked = read_queries(queries)
    files, unnamed = list_images(images)
    where = open_device(device)
    checkpoint = load_checkpoint(run, where)
    kept, features, unread = _encode(checkpoint, files, where, progress)
    refused = (*unnamed, *unread)
    if len(kept) < ANSWERS:
        first = f"; refused: {refused[0].path.name!r}, {refused[0].reason}" if refused else ""
        raise SourceError(
            f"{images} holds {len(kept)} images that can be read, and every query needs {ANSWERS}{first}."
        )
    with memory_errors("ranking"):
        bags = text_bags(checkpoint.vocabulary, [query.text for query in asked])
        texts = fused_texts(checkpoint.model, text_features(checkpoint.model, bags, where))
        rows, _ = nearest(texts, features, ANSWERS)
    lines = [
        " ".join([query.id, *(kept[row].stem for row in best)]) + "\n"
        for query, best in zip(asked, rows.tolist(), strict=True)
    ]
    atomic_write(out, "".join(lines).encode())
    return Submission(len(asked), len(kept), refused)


def _encode(
    checkpoint: Checkpoint, files: tuple[Path, ...], device: torch.device, progress: Progress
) -> tuple[list[Path], Tensor, list[Refused]]:
    """Files that can be read, their fused features float32 [N, E] on `device`, and the files that cannot."""
    kept: list[Path] = []
    refused: list[Refused] = []
    parts: list[Tensor] = []

    def pixels_of(path: Path) -> np.ndarray | Refused:
        try:
            return decode(path.read_bytes(), checkpoint.config.image_size, path.name)
        except OSError as error:
            return Refused(path, error.strerror or type(error).__name__)
        except DatasetError as error:
            return Refused(path, re.sub(r" <.*>", "", str(error.__cause__)))  # without the address of an object

    with ThreadPoolExecutor(DECODING_THREADS) as pool, memory_errors("encoding the images"):
        for start in range(0, len(files), ROWS_IN_FLIGHT):
            some = files[start : start + ROWS_IN_FLIGHT]
            decoded = list(zip(some, pool.map(pixels_of, some), strict=True))
            refused += [answer for _, answer in decoded if isinstance(answer, Refused)]
            good = [(path, pixels) for path, pixels in decoded if not isinstance(pixels, Refused)]
            kept += [path for path, _ in good]
            if good:
                batch = torch.from_numpy(np.stack([pixels for _, pixels in good]))
                parts.append(fused_images(checkpoint.model, image_features(checkpoint.model, batch, device)))
            progress("images", start + len(some), len(files), "")
    features = torch.cat(parts) if parts else torch.zeros(0, 1, device=device)
    check_finite(features)
    return kept, features, refused
