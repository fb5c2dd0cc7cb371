"""One file per run: weights, configuration, vocabulary, and the data set version and shards it was trained on."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data.shards import atomic_write
from experts.encoders import Vocabulary
from experts.model import MixtureOfExperts
from schemas.config import TrainConfig, build, config_dict
from schemas.errors import GeorefineError, TrainingError

CHECKPOINT = "checkpoint.pt"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and where it comes from.

    Attributes:
        dataset: {"version": name, "shards": {path: sha256}} of the data set version it was trained on.
        result: what `train` returned: the chosen epoch with its recall on val, number of epochs, remarks.
    """

    model: MixtureOfExperts
    config: TrainConfig
    vocabulary: Vocabulary
    dataset: dict[str, Any]
    result: dict[str, Any]


def write_tensors(path: Path, values: dict[str, Any]) -> None:
    """Write tensors and plain values in one step, so that a kill leaves the old file or the new one.

    Raises:
        DatasetError: the file cannot be written.
    """
    buffer = io.BytesIO()  # to a buffer, because torch.save puts the name of a file into the file
    torch.save(values, buffer)
    atomic_write(path, buffer.getvalue())


def read_tensors(path: Path, device: torch.device, advice: str) -> dict[str, Any]:
    """Read what write_tensors wrote; never unpickles code (weights_only).

    Raises:
        TrainingError: the file is absent, damaged or of another format; ends with `advice`.
    """
    try:
        values = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"There is no {path.name} in {path.parent}: {advice}") from error
    except Exception as error:  # torch.load raises whatever a damaged archive provokes
        raise TrainingError(f"{path} cannot be read ({type(error).__name__}): {advice}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise TrainingError(f"{path} was not written by this georefine: {advice}")
    return values


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write RUN/checkpoint.pt in one step. Equal weights give equal bytes (same torch)."""
    write_tensors(
        run / CHECKPOINT,
        {
            "format": FORMAT,
            "config": config_dict(checkpoint.config),
            "vocabulary": list(checkpoint.vocabulary.terms),
            "weights": {name: value.cpu() for name, value in checkpoint.model.state_dict().items()},
            "dataset": checkpoint.dataset,
            "result": checkpoint.result,
        },
    )


def load_checkpoint(run: Path, device: torch.device) -> Checkpoint:
    """Read RUN/checkpoint.pt; the model is on `device`, in evaluation mode.

    Raises:
        TrainingError: there is none, or it cannot be read by this georefine.
    """
    path = Path(run) / CHECKPOINT
    advice = "train with `georefine train DATASET --out RUN`."
    values = read_tensors(path, device, advice)
    try:
        config = build(TrainConfig, values["config"], "train")
        vocabulary = Vocabulary(tuple(values["vocabulary"]))
        model = MixtureOfExperts(len(vocabulary), config).to(device)
        model.load_state_dict(values["weights"])
        model.eval()
        return Checkpoint(model, config, vocabulary, values["dataset"], values["result"])
    except (GeorefineError, KeyError, TypeError, RuntimeError) as error:
        raise TrainingError(f"{path} does not fit this georefine ({type(error).__name__}): {advice}") from error
