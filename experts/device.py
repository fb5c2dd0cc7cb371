"""Where tensors live: the CPU or a CUDA device, in the precision that suits it, with errors a person can act on."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from schemas.errors import TrainingError


def open_device(name: str) -> torch.device:
    """The device called `name`: cpu, cuda or cuda:N.

    Raises:
        TrainingError: the name is unknown, or torch cannot use the device.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"There is no device {name!r}: use --device cpu or --device cuda.") from error
    if device.type not in ("cpu", "cuda"):
        raise TrainingError(f"The experts run on cpu or cuda, not on {name!r}: use --device cpu or --device cuda.")
    if device.type == "cpu":
        return torch.device("cpu")  # cpu:0 is no place that a checkpoint can be loaded to
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "torch sees no CUDA device here: use --device cpu, or install a CUDA build of torch and a driver."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(f"There is no {name}; torch sees {torch.cuda.device_count()} CUDA device(s).")
    return device


def precision(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 autocast on CUDA; plain float32 on the CPU, where bfloat16 is several times slower."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turn running out of memory into a TrainingError that says what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError(
            f"Out of memory while {what}: lower train.batch, train.image_size or train.width."
        ) from error
    except RuntimeError as error:  # torch's CPU allocator raises a plain RuntimeError
        if "allocate memory" not in str(error):
            raise
        raise TrainingError(
            f"Out of memory while {what}: lower train.batch, train.image_size or train.width."
        ) from error
