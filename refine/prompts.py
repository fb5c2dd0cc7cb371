"""The requests that a model gets: one template per platform in refine/prompts/, made into a chat-completions body.

The body is the exact bytes that are sent; a reply is stored under their hash and the model's revision. System message
and examples come first and are the same for every caption of a platform, so that the server's prefix cache holds them.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from schemas.config import RefineConfig
from schemas.records import GateResult, Platform

HERE = Path(__file__).parent / "prompts"
RETRY_TEMPERATURE = 0.7  # a refused reply comes back word for word at temperature 0
MAX_REASONS = 600  # characters of reasons that a retry quotes
# What a reply must be; servers enforce it while they generate.
REPLY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "caption": {"type": "string"},
        "queries": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 4},
    },
    "required": ["caption", "queries"],
    "additionalProperties": False,
}
MAGIC = ((b"\x89PNG", "png"), (b"GIF8", "gif"), (b"RIFF", "webp"))


@dataclass(frozen=True)
class Template:
    """What every request of one platform starts with.

    Attributes:
        system: what the platform sees and cannot see, and what is asked for.
        examples: pairs of a caption and its reply, the reply as JSON text.
    """

    version: str
    system: str
    examples: tuple[tuple[str, str], ...]


def canonical(value: object) -> str:
    """JSON text with sorted keys and no blanks: the same value is always the same text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def sendable(text: str) -> str:
    """The text as UTF-8 can carry it: surrogate pairs put together, half of one replaced by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@cache
def template(platform: Platform) -> Template:
    """The template of a platform, read once."""
    raw = yaml.safe_load((HERE / f"{platform}.yaml").read_text(encoding="utf-8"))
    examples = tuple((one["caption"], json.dumps(one["reply"], ensure_ascii=False)) for one in raw["examples"])
    return Template(raw["version"], raw["system"].strip(), examples)


@cache
def prompt_version(platform: Platform) -> str:
    """Version of the platform's template and the hash of everything that it puts into a request."""
    used = template(platform)
    content = canonical([used.system, used.examples, REPLY_SCHEMA, user_text(platform, "{caption}", ("{reason}",))])
    return f"{platform}-{used.version}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def user_text(platform: Platform, caption: str, refused: Sequence[str] = ()) -> str:
    """The last message of a request: platform, caption, and on a retry why earlier replies were refused."""
    text = f"Platform: {platform}\nCaption: {caption}"
    return f"{text}\nRefused: {' '.join('; '.join(refused).split())[:MAX_REASONS]}" if refused else text


def reasons(gates: Iterable[GateResult]) -> tuple[str, ...]:
    """Why a reply was refused, in the gates' words."""
    return tuple(f"{gate.gate}: {gate.detail}" for gate in gates if not gate.passed)


def _image_url(image: bytes) -> str:
    kind = next((name for magic, name in MAGIC if image.startswith(magic)), "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


@cache
def _opening(platform: Platform) -> tuple[dict[str, Any], ...]:
    used = template(platform)
    turns = [
        turn
        for caption, reply in used.examples
        for turn in (
            {"role": "user", "content": user_text(platform, caption)},
            {"role": "assistant", "content": reply},
        )
    ]
    return ({"role": "system", "content": used.system}, *turns)


def chat(
    model_name: str,
    messages: Sequence[dict[str, Any]],
    config: RefineConfig,
    *,
    schema: dict[str, Any],
    temperature: float,
    seed: int,
) -> bytes:
    """The canonical bytes of a chat-completions request whose answer must fit a JSON schema."""
    request = {
        "model": model_name,
        "messages": messages,
        "temperature": temperature,
        "max_tokens": config.max_tokens,
        "response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}},
    }
    if temperature > 0:
        request["seed"] = seed
    return sendable(canonical(request)).encode()


def body(
    model_name: str,
    platform: Platform,
    caption: str,
    config: RefineConfig,
    *,
    attempt: int = 0,
    refused: Sequence[str] = (),
    image: bytes | None = None,
) -> bytes:
    """The request for one caption, as it is sent.

    Args:
        caption: the stripped caption, which the request contains verbatim (lone surrogates aside: `sendable`).
        attempt: 0 for the first; later ones sample, each with a seed of its own.
        refused: why earlier replies were refused.
        image: the encoded image, shown beside the caption.
    """
    text = user_text(platform, caption, refused)
    content: str | list[dict[str, Any]] = text
    if image is not None:
        content = [
            {"type": "image_url", "image_url": {"url": _image_url(image)}},
            {"type": "text", "text": text},
        ]
    temperature = max(RETRY_TEMPERATURE, config.temperature) if attempt else config.temperature
    messages = [*_opening(platform), {"role": "user", "content": content}]
    return chat(model_name, messages, config, schema=REPLY_SCHEMA, temperature=temperature, seed=attempt)


def reply_key(body: bytes, revision: str) -> str:
    """The key a reply is stored under: sha256 of the request and the model's revision, hexadecimal."""
    return hashlib.sha256(body + b"\0" + revision.encode()).hexdigest()
