"""Trunk features on disk: encoded once by content hash, then memory-mapped by every later run.

    table = cached(folder, identity, keys, encode, width=1024)
    batch = table[rows]                                      # float32 [B, 1024], rows counted in the order of `keys`

FOLDER/<encoder>-<digest of the identity>/ holds `rows.bin` (features one after the other, no header) and `index.jsonl`:
a line that says whose they are, then one line per block with its keys and the SHA-256 of keys and bytes. A block's line
is written after its bytes are on the disk, so whatever has no line was never finished, and is cut off. Missing keys are
encoded in the order of the keys, in blocks that no interruption shifts: the same set gives the same bytes.
"""

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from schemas.errors import TrainingError

ROWS, INDEX, LOCK = "rows.bin", "index.jsonl", "lock"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
BLOCK = 512  # keys per call of `encode` at most; also what a kill can cost
BLOCK_BYTES = 64 << 20  # and no more than these, so that memory stays bounded whatever the width

Encode = Callable[[Sequence[str]], Tensor]
Say = Callable[[str], None]


@dataclass(frozen=True)
class EncoderIdentity:
    """All that a cached feature depends on beside the content it encodes.

    Attributes:
        model: the architecture, for people and for the folder's name.
        weights: hash of the encoder's weights (and of its tokenizer).
        size: pixels of an image's side, or tokens of a text.
        split: how many last layers are left out.
        feature: what is kept of the trunk's output, "cls" or "tokens" for example.
        precision: float32 or bfloat16, that the trunk computes in.
        dtype: float16, bfloat16 or float32, that the features are stored in.
    """

    model: str
    weights: str
    size: int
    split: int
    feature: str
    precision: str
    dtype: str

    def digest(self, width: int) -> str:
        """16 hexadecimal digits that name the folder."""
        return hashlib.sha256(json.dumps([asdict(self), width], sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class FeatureTable:
    """Features of the keys that were asked for, in that order; memory-mapped, so only rows that are read are loaded.

    Attributes:
        stored: [N, W] in the stored type, mapped privately from the file.
        row: int64 [K], the row of every key.
    """

    stored: Tensor
    row: Tensor

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Features of the keys numbered `rows`, int64 [B] in 0..K-1, as float32 [B, W] on the CPU."""
        return self.stored[self.row[rows]].float()


def say(message: str) -> None:
    """The default for messages: one line to stderr."""
    print(message, file=sys.stderr, flush=True)


def cached(
    folder: Path, identity: EncoderIdentity, keys: Sequence[str], encode: Encode, width: int, *, say: Say = say
) -> FeatureTable:
    """Features of every key; those that are not on the disk yet are encoded and kept there.

    Args:
        folder: of all caches; made if it is absent.
        keys: content hashes; a key may come more than once.
        encode: some missing keys, in order -> their features, [len(keys), width], finite, on any device.
        say: told, in one sentence, when a damaged cache is cut or made anew.

    Raises:
        TrainingError: the folder cannot be written, or `encode` gave another shape or something that is not finite.
    """
    place = Path(folder) / f"{identity.model}-{identity.digest(width)}"
    dtype = DTYPES[identity.dtype]
    size = max(1, min(BLOCK, BLOCK_BYTES // (width * dtype.itemsize)))
    with ExitStack() as stack:
        with _disk(place):
            place.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(place / LOCK))
            rows = _sound(place, identity, width, say)
        missing = sorted(set(keys) - rows.keys())
        for start in range(0, len(missing), size):
            block = missing[start : start + size]
            features = _checked(encode(block), block, width, dtype)
            with _disk(place):
                _append(place, block, features)
            rows.update(zip(block, range(len(rows), len(rows) + len(block)), strict=True))
    stored = torch.empty(0, width, dtype=dtype)
    if rows:
        # MAP_PRIVATE: the pages are the file's until somebody writes into the tensor, which changes no file.
        flat = torch.from_file(str(place / ROWS), shared=False, size=len(rows) * width, dtype=dtype)
        stored = flat.view(len(rows), width)
    return FeatureTable(stored, torch.tensor([rows[key] for key in keys], dtype=torch.int64))


@contextmanager
def _disk(place: Path) -> Iterator[None]:
    """Turn what the file system refuses into a sentence."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"Feature cache {place} cannot be used ({error.strerror or error}): free space or choose another folder."
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time: the others wait, then find the features made."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _checked(features: Tensor, keys: Sequence[str], width: int, dtype: torch.dtype) -> Tensor:
    if features.shape != (len(keys), width):
        raise TrainingError(f"The encoder gave features of shape {tuple(features.shape)} for {len(keys)} x {width}.")
    stored = features.detach().to(dtype).cpu().contiguous()
    if not stored.isfinite().all():
        bad = keys[int((~stored.isfinite()).any(dim=1).nonzero()[0])]
        raise TrainingError(
            f"The feature of {bad} is not finite in {dtype}: check the encoder's weights, or use float32."
        )
    return stored


def _header(identity: EncoderIdentity, width: int) -> bytes:
    return json.dumps({**asdict(identity), "width": width}, sort_keys=True).encode() + b"\n"


def _block_hash(keys: Sequence[str], data: memoryview | bytes) -> str:
    digest = hashlib.sha256(json.dumps(list(keys)).encode())
    digest.update(data)
    return digest.hexdigest()


def _append(place: Path, keys: Sequence[str], features: Tensor) -> None:
    raw = features.view(torch.uint8).numpy().data
    line = {"keys": list(keys), "sha256": _block_hash(keys, raw.cast("B"))}
    for name, content in ((ROWS, raw), (INDEX, json.dumps(line).encode() + b"\n")):
        with (place / name).open("ab") as file:
            file.write(content)
            _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sound(place: Path, identity: EncoderIdentity, width: int, say: Say) -> dict[str, int]:
    """Row of every key of the blocks that are whole; what follows the first that is not is cut from both files."""
    header, row_bytes = _header(identity, width), width * DTYPES[identity.dtype].itemsize
    rows: dict[str, int] = {}
    (place / ROWS).touch()
    (place / INDEX).touch()
    with (place / ROWS).open("r+b") as data, (place / INDEX).open("r+b") as index:
        good = 0
        if index.readline() == header:
            good = index.tell()
            while (block := _read_block(index.readline(), data, row_bytes)) and not rows.keys() & set(block):
                rows.update(zip(block, range(len(rows), len(rows) + len(block)), strict=True))
                good = index.tell()
        ends = os.fstat(index.fileno()).st_size, os.fstat(data.fileno()).st_size
        if ends != (good, len(rows) * row_bytes):
            say(f"The feature cache {place} is damaged or broken off after {len(rows)} rows: the rest is made anew.")
            index.truncate(good)
            data.truncate(len(rows) * row_bytes)
        if not good:
            index.seek(0)
            index.write(header)
        _sync(index)
        _sync(data)
    return rows


def _read_block(line: bytes, data: BinaryIO, row_bytes: int) -> list[str] | None:
    """The keys of one index line if the line is whole and the bytes that follow in `data` are the block's."""
    try:
        block = json.loads(line)
        keys, expected = block["keys"], block["sha256"]
        sound = line.endswith(b"\n") and keys and len(set(keys)) == len(keys) and all(isinstance(k, str) for k in keys)
    except (ValueError, TypeError, KeyError):
        return None
    if not sound:
        return None
    raw = data.read(len(keys) * row_bytes)
    found: list[str] = keys
    return found if len(raw) == len(keys) * row_bytes and _block_hash(keys, raw) == expected else None
