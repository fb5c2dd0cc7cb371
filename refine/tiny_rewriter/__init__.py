"""A rewriting model of a few MB for tests and the demo: it lets a real vLLM give replies that pass the gates.

`train.py` makes the files in `model/`, `paraphrase.py` is what it is taught; docs/tiny_rewriter.md says what it is not.
"""

import shutil
from pathlib import Path

import numpy as np

MODEL = Path(__file__).parent / "model"


def prompt(platform: str, stripped: str) -> str:
    """The only message that reaches the model."""
    return f"Platform: {platform}\nCaption: {stripped}"


def write_random_weights(folder: Path, seed: int = 0) -> None:
    """Write the same architecture and tokenizer with random weights: a model whose replies never pass the gates.

    Args:
        folder: created where it is missing; files of the same names in it are replaced.
    """
    shutil.copytree(MODEL, folder, dirs_exist_ok=True)
    weights = (MODEL / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(weights[:8], "little")  # the header's length, the header, then half-precision numbers
    noise = np.random.default_rng(seed).normal(0, 0.05, (len(weights) - start) // 2).astype("<f2")
    (folder / "model.safetensors").write_bytes(weights[:start] + noise.tobytes())
    (folder / "README.md").write_text("Random weights, for tests of what happens when every reply fails.\n", "utf-8")
