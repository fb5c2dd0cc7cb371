"""Data parallel training: `torchrun --nproc-per-node 8 -m experts train DATASET --out RUN --device cuda`.

Every rank encodes its part of a batch; the embeddings of all parts are gathered, so that each text meets the negatives
of the whole batch, and every rank computes the same loss. Averaging the gradients then gives those of one process with
the whole batch: gathering multiplies the gradient of a rank's own part by the number of ranks.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from schemas.errors import TrainingError

WAIT = timedelta(minutes=30)  # one rank may encode, mine or write while the others wait


def ranks() -> int:
    """How many processes train together; 1 outside torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0; 0 outside torchrun."""
    return dist.get_rank() if ranks() > 1 else 0


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that torchrun started, and leave them at the end; yields the device of this rank.

    Raises:
        TrainingError: torchrun's variables are there, but the processes do not find each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device
    try:
        if own.startswith("cuda"):
            torch.cuda.set_device(own)
        dist.init_process_group("nccl" if own.startswith("cuda") else "gloo", timeout=WAIT)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"The processes of torchrun cannot join ({str(error).splitlines()[0]}): check MASTER_ADDR and MASTER_PORT, "
            "and that there are as many devices as processes."
        ) from error
    try:
        yield own
        dist.barrier()
    finally:
        dist.destroy_process_group()


def part(rows: Tensor) -> Tensor:
    """This rank's part of a batch that every rank knows; parts differ by one row at most."""
    return rows.tensor_split(ranks())[rank()]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        longest = max(sizes)
        padded = torch.cat([own, own.new_zeros(longest - len(own), *own.shape[1:])]).contiguous()
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([each[:size] for each, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        first = sum(ctx.sizes[: rank()])
        return gradient[first : first + ctx.sizes[rank()]] * len(ctx.sizes), None


def gather(own: Tensor, total: int) -> Tensor:
    """Rows of all ranks in the order of the ranks, float [total, ...], of this rank's `part`; differentiable."""
    if ranks() == 1:
        return own
    sizes = [len(piece) for piece in torch.arange(total).tensor_split(ranks())]
    gathered: Tensor = _Gather.apply(own, sizes)  # type: ignore[no-untyped-call]
    return gathered


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks, in one message."""
    if ranks() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= ranks()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def same_as_first(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0, which rounding may have moved apart."""
    if ranks() > 1:
        for value in [*module.parameters(), *module.buffers()]:
            dist.broadcast(value.detach(), src=0)


def told_by_first(value: Any) -> Any:
    """What rank 0 passed here, on every rank."""
    if ranks() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
