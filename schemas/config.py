"""The configuration: one documented dataclass per room, validated when built, the offending key named in the error.

Standard library only (PyYAML when a file is read), because the trainer reads it on machines that have little else.
`georefine config` prints the effective configuration with these comments.
"""

import dataclasses
import json
import re
import sys
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from schemas.errors import ConfigError, UsageError
from schemas.records import PLATFORMS, Platform

T = typing.TypeVar("T")
OrientationMode = Literal["strip", "keep", "remap"]


def _note(text: str, **limits: float) -> dict[str, Any]:
    """Field metadata: the comment that stands above the key in a printed configuration, and the limits of its value."""
    return {"note": text, **limits}


@dataclass(frozen=True)
class PartitionConfig:
    """How files of the source become images of a building, a platform and a split."""

    folders: dict[str, str] = field(
        default_factory=lambda: {"satellite": "satellite", "drone": "drone", "street": "ground", "google": "ground"},
        metadata=_note("University-1652 folder (without query_/gallery_) -> platform"),
    )
    flat_patterns: dict[str, str] = field(
        default_factory=lambda: {r"image-\d+": "drone", r"{building}": "satellite", r".*": "ground"},
        metadata=_note(
            "flat GeoText folders: regular expression for the whole file stem -> platform, first match wins; "
            "{building} stands for the folder's name"
        ),
    )
    official_counts: Literal["none", "university-1652", "geotext-1652"] = field(
        default="none", metadata=_note("compare image counts with this official table and print the differences")
    )
    val_fraction: float = field(
        default=0.1,
        metadata=_note("share of the train buildings kept for validation, by hash of id", low=0, high=0.5),
    )
    max_pixels: int = field(
        default=50_000_000, metadata=_note("a larger image is refused as a decompression bomb", low=1)
    )
    max_caption_chars: int = field(
        default=10_000, metadata=_note("a longer caption or region sentence is refused", low=1)
    )


@dataclass(frozen=True)
class OrientationConfig:
    """What happens to orientation words in the train split, per platform."""

    satellite: OrientationMode = field(
        default="strip",
        metadata=_note(
            "strip | keep | remap. remap keeps the words and turns them with each augmented tile, whose transform is "
            "then a quarter turn or a mirror image without a crop; under keep, augmented tiles are stripped"
        ),
    )
    drone: OrientationMode = field(default="keep", metadata=_note("strip | keep"))
    ground: OrientationMode = field(default="keep", metadata=_note("strip | keep"))

    def mode(self, platform: Platform) -> OrientationMode:
        return typing.cast(OrientationMode, getattr(self, platform))


@dataclass(frozen=True)
class AugmentConfig:
    """Augmented copies of every satellite tile of the train split."""

    variants: int = field(default=2, metadata=_note("augmented copies per tile; 0 switches it off", low=0, high=64))
    rotate: bool = field(default=True, metadata=_note("quarter turns and a free angle in +-45 degrees"))
    flip: bool = field(default=True, metadata=_note("mirror images"))
    min_scale: float = field(
        default=0.8,
        metadata=_note(
            "the smallest part of the side that a crop keeps; a free angle may cut to 0.71", low=0.3, high=1
        ),
    )
    brightness: float = field(default=0.2, metadata=_note("largest relative change of brightness", low=0, high=0.9))
    contrast: float = field(default=0.2, metadata=_note("largest relative change of contrast", low=0, high=0.9))
    weather: float = field(default=0.3, metadata=_note("probability of a cast shadow or of haze", low=0, high=1))
    jpeg_quality: int = field(
        default=90, metadata=_note("the lowest JPEG quality an augmented tile is stored with", low=30, high=100)
    )


@dataclass(frozen=True)
class RefineConfig:
    """Who rewrites the captions of the train split."""

    refiner: Literal["rules", "vllm"] = field(
        default="rules",
        metadata=_note("rules: built in, deterministic, no model | vllm: a model behind a vLLM server, rules after it"),
    )
    model: str = field(
        default="",
        metadata=_note("vllm: folder or hub name of the model; empty: the one model that the servers given serve"),
    )
    revision: str = field(
        default="",
        metadata=_note(
            "vllm: the model's revision, which replies are stored under; empty: hash of its folder, or its name"
        ),
    )
    attempts: int = field(
        default=3,
        metadata=_note("vllm: requests for one caption, the later ones with the reasons of refusal", low=1, high=10),
    )
    temperature: float = field(
        default=0.0, metadata=_note("vllm: of the first request; later ones use at least 0.7", low=0, high=2)
    )
    max_tokens: int = field(default=512, metadata=_note("vllm: a longer reply is refused as unfinished", low=16))
    images: bool = field(
        default=False, metadata=_note("vllm: show the image too, for models that see (Qwen2.5-VL and the like)")
    )
    judge: bool = field(
        default=False, metadata=_note("vllm: ask the model itself whether a reply that passed the gates is faithful")
    )


@dataclass(frozen=True)
class ServerConfig:
    """Where vLLM runs. Nothing here reaches a shard: the same replies come from any server."""

    urls: tuple[str, ...] = field(
        default=(), metadata=_note("servers to use, several for replicas; none: georefine starts one and stops it")
    )
    python: str = field(
        default="",
        metadata=_note("interpreter of the environment that has vLLM; empty: .venv-vllm, as `make vllm` builds it"),
    )
    arguments: tuple[str, ...] = field(
        default=(), metadata=_note("more arguments for a server that is started, such as --tensor-parallel-size=2")
    )
    batch: bool = field(
        default=False,
        metadata=_note("one big offline run by vLLM's own batch runner, without a server; fills the same reply store"),
    )
    in_flight: int = field(default=16, metadata=_note("requests under way at one server", low=1, high=4096))
    timeout: float = field(default=120.0, metadata=_note("seconds for one request", low=1))
    patience: float = field(
        default=45.0, metadata=_note("seconds without any server answering before the work is given up", low=1)
    )
    start_timeout: float = field(default=600.0, metadata=_note("seconds for a started server to get ready", low=1))


@dataclass(frozen=True)
class ShardConfig:
    """How rows are dealt to Parquet files."""

    buildings: int = field(
        default=64, metadata=_note("buildings per shard, about; rows are dealt by a hash of the building", low=1)
    )


@dataclass(frozen=True)
class TextMix:
    """Which text of a caption training reads: weights, of which at least one is above 0."""

    final: float = field(default=1.0, metadata=_note("what the rebuild and people settled on, with its queries", low=0))
    refined: float = field(
        default=0.0, metadata=_note("the refiner's words, with their queries; final where it gave none", low=0)
    )
    raw: float = field(default=0.0, metadata=_note("the caption as it came; it has no queries", low=0))

    def __post_init__(self) -> None:
        if self.final + self.refined + self.raw == 0:
            raise ConfigError("train.texts", "all weights are 0: give final, refined or raw a weight above 0.")


@dataclass(frozen=True)
class TrainConfig:
    """The mixture of three platform experts and how it is trained. Times are those of the compact encoders."""

    encoder: Literal["compact", "bge-m3+eva-clip"] = field(
        default="compact",
        metadata=_note("compact: built in, starts from nothing | bge-m3+eva-clip: pretrained, the weights are yours"),
    )
    text_model: str = field(default="", metadata=_note("bge-m3+eva-clip: folder or hub name of the text encoder"))
    image_model: str = field(
        default="", metadata=_note("bge-m3+eva-clip: file, folder or hub name of the image encoder")
    )
    tails: Literal["layers", "adapters"] = field(
        default="layers",
        metadata=_note(
            "bge-m3+eva-clip: layers: experts own copies of the last layers, as in the paper | adapters: a head on "
            "each side, over features that are computed once"
        ),
    )
    text_layers: int = field(default=2, metadata=_note("layers: last text layers that an expert owns", low=0))
    image_blocks: int = field(default=4, metadata=_note("layers: last image blocks that an expert owns", low=0))
    text_length: int = field(
        default=512, metadata=_note("bge-m3+eva-clip: tokens of a text, the rest is cut off", low=2)
    )
    trunks: str = field(
        default="",
        metadata=_note(
            "compact: folder of a run to start from, in place of stage 0: its trunks, vocabulary, experts and gate"
        ),
    )
    experts: Literal["platforms", "unified"] = field(
        default="platforms",
        metadata=_note("platforms: one expert per platform | unified: one for all, trained as long (ablation)"),
    )
    router: Literal["softmax", "top1", "top2", "sparsemax", "uniform"] = field(
        default="softmax",
        metadata=_note("how gate scores become weights; uniform: no gate, every expert counts alike (static experts)"),
    )
    image_size: int = field(default=64, metadata=_note("side of the square that is seen, pixels", low=16, high=1024))
    width: int = field(
        default=256, metadata=_note("dimensions of an expert's vectors; with layers, the text encoder's", low=8)
    )
    batch: int = field(default=64, metadata=_note("pairs per step; no two of one building are negatives", low=2))
    stage0_epochs: int = field(default=14, metadata=_note("contrastive on all platforms, trunk and heads", low=0))
    stage1_epochs: int = field(default=4, metadata=_note("contrastive, one expert per platform, trunk frozen", low=0))
    stage2_epochs: int = field(default=3, metadata=_note("with mined hard negatives", low=0))
    learning_rate: float = field(default=2e-3, metadata=_note("AdamW, everything else in stage 0; one-cycle", low=0))
    filter_learning_rate: float = field(
        default=0.05, metadata=_note("Muon, the image trunk's filters in stage 0; one-cycle", low=0)
    )
    expert_learning_rate: float = field(default=1e-3, metadata=_note("AdamW, stages 1 and 2", low=0))
    weight_decay: float = field(default=1e-4, metadata=_note("AdamW", low=0))
    temperature: float = field(default=0.07, metadata=_note("start of the learned softmax temperature", low=0.001))
    gate_loss: float = field(
        default=0.5,
        metadata=_note("weight of teaching the gate which platform a text was written for; 0 leaves it out", low=0),
    )
    end_to_end: bool = field(
        default=False, metadata=_note("compact: trunks learn on in stages 1 and 2, together with experts and gate")
    )
    hard_negatives: int = field(default=4, metadata=_note("mined images per caption in stage 2", low=0))
    relative_margin: float = field(
        default=0.05,
        metadata=_note("mined images above (1 - margin) x the positive are taken for false negatives", low=0, high=1),
    )
    query_share: float = field(
        default=0.5,
        metadata=_note("share of training texts drawn from the queries column", low=0, high=1),
    )
    seed: int = field(default=0, metadata=_note("of weights, batches and image jitter", low=0))
    texts: TextMix = field(default_factory=TextMix)

    def __post_init__(self) -> None:
        if self.end_to_end and self.encoder != "compact":
            raise ConfigError("train.end_to_end", "is for the compact encoders: pretrained trunks stay frozen.")
        if self.trunks and self.encoder != "compact":
            raise ConfigError("train.trunks", "is for the compact encoders: others have text_model and image_model.")


@dataclass(frozen=True)
class Config:
    """Everything a rebuild and a training run read."""

    seed: int = field(default=0, metadata=_note("of augmentation", low=0))
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    orientation: OrientationConfig = field(default_factory=OrientationConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    shards: ShardConfig = field(default_factory=ShardConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        for platform in ("drone", "ground"):
            if getattr(self.orientation, platform) == "remap":
                raise ConfigError(f"orientation.{platform}", "only satellite tiles are turned: use strip or keep.")
        for key in ("folders", "flat_patterns"):
            for name, platform in getattr(self.partition, key).items():
                where = f"partition.{key}.{name}"
                if platform not in PLATFORMS:
                    raise ConfigError(where, f"{platform!r} is not a platform; use one of {', '.join(PLATFORMS)}.")
                if key == "flat_patterns":
                    try:
                        re.compile(name.replace("{building}", "x"))
                    except re.error as error:
                        raise ConfigError(where, f"not a regular expression: {error}.") from error


def _expect(ok: bool, key: str, value: object, wanted: str) -> None:
    if not ok:
        raise ConfigError(key, f"{value!r} is not {wanted}.")


def _build_value(kind: Any, value: Any, key: str, metadata: Mapping[str, Any]) -> Any:
    if dataclasses.is_dataclass(kind):
        return build(typing.cast(type, kind), value, key)
    origin = typing.get_origin(kind)
    if origin is Literal:
        choices = typing.get_args(kind)
        _expect(value in choices, key, value, "one of " + ", ".join(map(str, choices)))
    elif origin is dict:
        ok = isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())
        _expect(ok, key, value, "a mapping of text to text")
    elif origin is tuple:
        _expect(
            isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value), key, value, "a list of texts"
        )
        value = tuple(value)
    elif kind is str:
        _expect(isinstance(value, str), key, value, "a text")
    elif kind is bool:
        _expect(isinstance(value, bool), key, value, "true or false")
    elif kind is int:
        _expect(isinstance(value, int) and not isinstance(value, bool), key, value, "a whole number")
    elif kind is float:
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
            value = float(value)  # YAML 1.1 takes 2e-3 for text
        _expect(isinstance(value, (int, float)) and not isinstance(value, bool), key, value, "a number")
        with suppress(OverflowError):  # a whole number of hundreds of digits is refused below
            value = float(value)
    else:
        raise TypeError(f"configuration field {key} has the unsupported type {kind}")
    if kind in (int, float):
        low, high = metadata.get("low"), metadata.get("high")
        _expect(abs(value) <= sys.float_info.max, key, value, "a finite number")
        _expect(low is None or value >= low, key, value, f"at least {low}")
        _expect(high is None or value <= high, key, value, f"at most {high}")
    return value


def build(cls: type[T], values: Any, key: str = "") -> T:
    """Build a configuration dataclass from nested mappings; keys that are absent take their defaults.

    Raises:
        ConfigError: a key is unknown, or a value is of the wrong type or out of range.
    """
    if values is None:
        values = {}
    _expect(isinstance(values, dict), key or "(top)", values, "a mapping")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in fields(typing.cast(Any, cls))}
    for name in values:
        if name not in known:
            where = f"{key}.{name}" if key else str(name)
            raise ConfigError(where, f"is unknown; known here: {', '.join(known)}.")
    built = {
        name: _build_value(hints[name], value, f"{key}.{name}" if key else name, known[name].metadata)
        for name, value in values.items()
    }
    return cls(**built)


def load_config(path: Path | None) -> Config:
    """Read a YAML configuration file (JSON is YAML); None gives the defaults.

    Raises:
        UsageError: the file cannot be read, or is no mapping.
        ConfigError: a key in it is wrong.
    """
    if path is None:
        return Config()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"The configuration {path} cannot be read ({why}): mend it, or leave out --config.") from error
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        try:
            import yaml
        except ImportError as error:
            raise UsageError(f"{path} is no JSON, and reading YAML needs pyyaml: pip install pyyaml.") from error
        try:
            values = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise UsageError(f"The configuration {path} is not valid YAML ({_where(error)}): mend it.") from error
    if values is not None and not isinstance(values, dict):
        raise UsageError(
            f"The configuration {path} holds a {type(values).__name__}, not keys with values: `georefine config` "
            "prints one to start from."
        )
    return build(Config, values)


def _where(error: Exception) -> str:
    """What is wrong with a YAML text, and where, in a few words."""
    said = " ".join(str(getattr(error, "problem", None) or error).split())
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}" if mark else said


def config_dict(config: object) -> dict[str, Any]:
    """The configuration as plain nested dicts, as the manifest stores it; build(type(config), …) reads it back."""
    return dataclasses.asdict(typing.cast(Any, config))


def _scalar(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def commented(config: object, indent: int = 0) -> str:
    """The configuration as YAML with a comment above every key."""
    lines: list[str] = []
    pad = "  " * indent
    for item in fields(typing.cast(Any, config)):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            doc = (type(value).__doc__ or "").strip().splitlines()[0]
            lines += ["", f"{pad}# {doc}", f"{pad}{item.name}:", commented(value, indent + 1)]
            continue
        lines.append(f"{pad}# {item.metadata['note']}{_limits(item.metadata)}")
        if isinstance(value, dict):
            lines.append(f"{pad}{item.name}:")
            lines += [f"{pad}  {_scalar(k)}: {_scalar(v)}" for k, v in value.items()]
        elif isinstance(value, tuple):
            lines.append(f"{pad}{item.name}: [{', '.join(map(_scalar, value))}]")
        else:
            lines.append(f"{pad}{item.name}: {_scalar(value)}")
    return "\n".join(lines)


def _limits(metadata: types.MappingProxyType[Any, Any] | Mapping[str, Any]) -> str:
    low, high = metadata.get("low"), metadata.get("high")
    if low is not None and high is not None:
        return f" [{low} .. {high}]"
    return f" [>= {low}]" if low is not None else ""
