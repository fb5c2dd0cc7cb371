"""BGE-M3 and EVA02-CLIP-L at their real size, random weights: trunk and tail beside the libraries' own forward.

Run: python benchmarks/encoders.py [--device cuda] [--batch 32] [--sizes 224 384]     A table, then one JSON line.

Columns: milliseconds per item of the library's whole forward; of trunk and tail; of trunk, tail and the tail's
backward; what an item's way through one tail keeps for its backward (MB); millions of parameters of a tail. On the CPU
it is the processor's time, of one thread, and takes about a minute of it and 5 GB. On CUDA it is the clock's, in
bfloat16 autocast, and the peak of the device's memory is added.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from experts.device import precision
from experts.pretrained import ImageEncoder, TextEncoder, Tokens, weights_hash

WORDS, LENGTHS, SEED = 250_002, (32, 128), 0
Row = dict[str, float | int | str]


def operators() -> Any:
    """Makes timm importable beside a CPU build of torch, by declaring two of torchvision's operators: keep the result.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        return import_module("torchvision")
    except RuntimeError:
        declare: Any = torch.library.Library
        library = declare("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library


def milliseconds(run: Callable[[], object], items: int, device: torch.device) -> float:
    """Per item, the better of two runs; the first one warms up on CUDA."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    spent = []
    for _ in range(3 if device.type == "cuda" else 2):
        start = clock()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.append(clock() - start)
    return 1e3 * min(spent) / items


def kept_megabytes(run: Callable[[], object], weights: nn.Module, items: int) -> float:
    """What autograd keeps for the backward pass, without the weights themselves."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    own = {p.untyped_storage().data_ptr() for p in weights.parameters()}
    return sum(size for place, size in kept.items() if place not in own) / items / 1e6


def millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def measure(
    name: str, library_ms: float, trunk: Callable[[], Tensor], tail: nn.Module, extra: tuple[Tensor, ...], items: int
) -> Row:
    hidden = trunk()
    device = hidden.device

    def forward() -> Tensor:
        with precision(device):
            out: Tensor = tail(hidden, *extra)
        return out.float()

    def whole() -> None:
        with torch.no_grad(), precision(device):
            tail(trunk(), *extra)

    def learn() -> None:
        trunk()
        tail.zero_grad()
        loss: Any = forward().square().mean()
        loss.backward()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    row: Row = {
        "encoder": name,
        "library_ms": round(library_ms, 2),
        "ours_ms": round(milliseconds(whole, items, device), 2),
        "learning_ms": round(milliseconds(learn, items, device), 2),
        "kept_MB": round(kept_megabytes(forward, tail, items), 1),
        "tail_M": round(millions(tail), 1),
    }
    if device.type == "cuda":
        row["peak_GB"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 1)
    return row


class NoWords:
    """Stands where a tokenizer would: ids are drawn at random."""

    padding_side = truncation_side = "right"


def texts(device: torch.device, batch: int) -> list[Row]:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config: Any = XLMRobertaConfig(
        vocab_size=WORDS,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=8194,
        type_vocab_size=1,
    )
    model: Any = XLMRobertaModel(config, add_pooling_layer=False)
    model.eval().to(device)
    batches = [
        Tokens(torch.randint(5, WORDS, (batch, n)), torch.ones(batch, n, dtype=torch.bool)).to(device) for n in LENGTHS
    ]

    def library(tokens: Tokens) -> None:
        with torch.no_grad(), precision(device):
            model(input_ids=tokens.ids, attention_mask=tokens.mask.long())

    before = [milliseconds(lambda tokens=tokens: library(tokens), batch, device) for tokens in batches]  # type: ignore[misc]
    encoder = TextEncoder(model, NoWords(), layers=2, max_length=512).to(device)
    tail = encoder.tail()
    start = time.process_time()
    weights_hash(encoder.body)
    print(f"hash of the text trunk's weights ({millions(encoder.body):.0f} M): {time.process_time() - start:.1f} s")
    return [
        measure(
            f"BGE-M3, {tokens.ids.shape[1]} tokens",
            ms,
            lambda tokens=tokens: encoder.trunk(tokens),  # type: ignore[misc]
            tail,
            (tokens.mask,),
            batch,
        )
        for tokens, ms in zip(batches, before, strict=True)
    ]


def images(device: torch.device, batch: int, size: int) -> Row:
    import timm

    model: Any = timm.create_model("eva02_large_patch14_clip_224", img_size=size // 14 * 14, num_classes=0)
    model.eval().to(device)
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    seen = torch.randn(batch, 3, size // 14 * 14, size // 14 * 14, device=device)

    def library() -> None:
        with torch.no_grad(), precision(device):
            model(seen)

    before = milliseconds(library, batch, device)
    encoder = ImageEncoder(model, size, blocks=4).to(device)
    name = f"EVA02-CLIP-L, {size} px, {encoder.tokens} tokens"
    return measure(name, before, lambda: encoder.trunk(pixels), encoder.tail(), (), batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=2, help="items per batch")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224], help="pixels of an image's side")
    options = parser.parse_args()
    try:
        kept = operators()
        import_module("timm")
        import_module("transformers")
    except ImportError as error:
        print(f"nothing measured: {error} (pip install 'georefine[encoders]')")
        return
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    device = torch.device(options.device)
    rows = [*texts(device, options.batch), *(images(device, options.batch, size) for size in options.sizes)]
    columns = list(rows[0])
    print(" | ".join(columns))
    for row in rows:
        print(" | ".join(str(row[column]) for column in columns))
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else "one CPU thread"
    print(json.dumps({"benchmark": "encoders", "device": on, "torch": torch.__version__, "rows": rows}))
    del kept


if __name__ == "__main__":
    main()
