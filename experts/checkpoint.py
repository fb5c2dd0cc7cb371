"""One file per run: weights, configuration, vocabulary, and the data set version and shards it was trained on."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.shards import atomic_write
from experts.encoders import Vocabulary
from experts.model import CompactMixture, MixtureOfExperts
from experts.tails import pretrained_mixture, trunk_hashes
from schemas.config import TrainConfig, build, config_dict
from schemas.errors import GeorefineError, TrainingError

CHECKPOINT = "checkpoint.pt"
PRETRAINED = ("text_trunk.encoder.", "image_trunk.encoder.", "image_trunk.norm.")  # names of frozen weights
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and where it comes from.

    Attributes:
        vocabulary: of the compact encoders; None where the text encoder has a tokenizer of its own.
        dataset: {"version": name, "shards": {path: sha256}} of the data set version it was trained on.
        result: what `train` returned: the chosen epoch with its recall on val, number of epochs, remarks.
    """

    model: MixtureOfExperts
    config: TrainConfig
    vocabulary: Vocabulary | None
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


def make_model(config: TrainConfig, terms: int) -> MixtureOfExperts:
    """An untrained mixture of the kind that the configuration names, on the CPU.

    Raises:
        TrainingError: pretrained weights are not there, or do not fit. ConfigError: none are named.
    """
    if config.encoder == "compact":
        return CompactMixture(terms, config)
    return pretrained_mixture(config)


def own_weights(model: MixtureOfExperts) -> dict[str, Tensor]:
    """What training makes: all weights but those of pretrained trunks, which are the user's files and stay there."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith(PRETRAINED)}


def load_own_weights(model: MixtureOfExperts, weights: dict[str, Tensor]) -> None:
    """Put back what own_weights gave.

    Raises:
        RuntimeError: names or shapes are not those of the model.
    """
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if lacking := [name for name in missing if not name.startswith(PRETRAINED)]:
        raise RuntimeError(f"no weights for {lacking[0]}")
    if unexpected:
        raise RuntimeError(f"the model has no {unexpected[0]}")


def encoder_hashes(model: MixtureOfExperts) -> dict[str, str]:
    """SHA-256 of the weights of pretrained trunks; empty where there are none."""
    return {} if isinstance(model, CompactMixture) else trunk_hashes(model)


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write RUN/checkpoint.pt in one step. Equal weights give equal bytes (same torch)."""
    write_tensors(
        run / CHECKPOINT,
        {
            "format": FORMAT,
            "config": config_dict(checkpoint.config),
            "vocabulary": None if checkpoint.vocabulary is None else list(checkpoint.vocabulary.terms),
            "weights": {name: value.cpu() for name, value in own_weights(checkpoint.model).items()},
            "encoders": encoder_hashes(checkpoint.model),
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
        vocabulary = None if values["vocabulary"] is None else Vocabulary(tuple(values["vocabulary"]))
    except (GeorefineError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} does not fit this georefine ({type(error).__name__}): {advice}") from error
    model = make_model(config, len(vocabulary or ()))
    if encoder_hashes(model) != values.get("encoders", {}):
        raise TrainingError(
            f"{path} was trained over other weights than {config.text_model} and {config.image_model} hold now: put "
            "those back, or train again."
        )
    try:
        load_own_weights(model, values["weights"])
        model.to(device).eval()
        return Checkpoint(model, config, vocabulary, values["dataset"], values["result"])
    except (GeorefineError, KeyError, TypeError, RuntimeError) as error:
        raise TrainingError(f"{path} does not fit this georefine ({type(error).__name__}): {advice}") from error
