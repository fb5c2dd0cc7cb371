"""Prompts: what is sent, word for word, and that our own examples obey what they teach."""

import base64
import hashlib
import json
from typing import Any

import pytest

from refine.gates import check, passed
from refine.orientation import contains_orientation
from refine.prompts import REPLY_SCHEMA, body, prompt_version, reasons, reply_key, template, user_text
from schemas.config import RefineConfig
from schemas.records import PLATFORMS, GateResult, Platform

CONFIG = RefineConfig(refiner="vllm", model="m")
CAPTION = 'A "white" façade\nwith 3 windows \u2028 and more.'


def sent(request: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(request)
    return loaded


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_request_is_system_then_examples_then_the_caption(platform: Platform) -> None:
    request = sent(body("name", platform, CAPTION, CONFIG))
    system, *turns, last = request["messages"]
    assert (system["role"], system["content"]) == ("system", template(platform).system)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * len(template(platform).examples)
    for user, assistant in zip(turns[::2], turns[1::2], strict=True):
        assert user["content"].startswith(f"Platform: {platform}\nCaption: ")
        assert set(json.loads(assistant["content"])) == {"caption", "queries"}
    assert last == {"role": "user", "content": f"Platform: {platform}\nCaption: {CAPTION}"}
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("name", 512, 0.0)
    assert request["response_format"]["json_schema"]["schema"] == REPLY_SCHEMA


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_examples_pass_the_gates(platform: Platform) -> None:
    for caption, reply in template(platform).examples:
        results = check(platform, caption, reply)
        assert passed(results), [r for r in results if not r.passed]


def test_satellite_examples_have_no_orientation() -> None:
    for caption, reply in template("satellite").examples:
        answer = json.loads(reply)
        for text in (answer["caption"], *answer["queries"]):
            assert list(contains_orientation(text)) == [], caption


def test_only_the_user_message_differs_between_captions_of_a_platform() -> None:
    one, two = (sent(body("m", "drone", text, CONFIG)) for text in ("A red roof.", "A green dome."))
    assert one["messages"][:-1] == two["messages"][:-1]
    assert one["messages"][0] != sent(body("m", "ground", "A red roof.", CONFIG))["messages"][0]


def test_later_attempts_sample_with_a_seed_and_the_reasons() -> None:
    gates = (GateResult("meta", True), GateResult("colour", False, "new:\n red"), GateResult("length", False, "x"))
    request = sent(body("m", "drone", "A roof.", CONFIG, attempt=2, refused=reasons(gates)))
    assert (request["temperature"], request["seed"]) == (0.7, 2)
    assert request["messages"][-1]["content"] == (
        "Platform: drone\nCaption: A roof.\nRefused: colour: new: red; length: x"
    )
    assert "seed" not in sent(body("m", "drone", "A roof.", CONFIG))
    warm = RefineConfig(refiner="vllm", temperature=0.9)
    assert [sent(body("m", "drone", "A roof.", warm, attempt=n))["temperature"] for n in (0, 1)] == [0.9, 0.9]


def test_reasons_stay_on_one_line_and_short() -> None:
    text = user_text("drone", "A roof.", ("x\ny " * 1000,))
    assert text.count("\n") == 2
    assert len(text) < 700


@pytest.mark.parametrize(
    ("data", "kind"), [(b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n", "png"), (b"RIFF....WEBP", "webp")]
)
def test_an_image_stands_before_the_text(data: bytes, kind: str) -> None:
    shown, text = sent(body("m", "drone", "A roof.", CONFIG, image=data))["messages"][-1]["content"]
    assert shown["image_url"]["url"] == f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    assert text == {"type": "text", "text": "Platform: drone\nCaption: A roof."}


def test_the_key_covers_every_byte_and_the_revision() -> None:
    request = body("m", "drone", "A roof.", CONFIG)
    assert request == body("m", "drone", "A roof.", CONFIG)
    others = [
        body("n", "drone", "A roof.", CONFIG),
        body("m", "ground", "A roof.", CONFIG),
        body("m", "drone", "A roof", CONFIG),
        body("m", "drone", "A roof.", RefineConfig(max_tokens=100)),
        body("m", "drone", "A roof.", CONFIG, attempt=1),
        body("m", "drone", "A roof.", CONFIG, image=b"i"),
    ]
    keys = {reply_key(one, "r") for one in (request, *others)} | {reply_key(request, "s")}
    assert len(keys) == 8
    assert reply_key(request, "r") == hashlib.sha256(request + b"\0r").hexdigest()


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("A \ud800 roof.", "A \ufffd roof."),
        ("\udc00\ud800", "\ufffd\ufffd"),
        ("A \ud83c\udfe0.", "A \U0001f3e0."),
        ("A façade.", "A façade."),
    ],
)
def test_a_caption_that_is_no_text_makes_a_request_all_the_same(caption: str, said: str) -> None:
    request = sent(body("m", "drone", caption, CONFIG))
    assert request["messages"][-1]["content"] == f"Platform: drone\nCaption: {said}"


def test_the_prompt_version_names_platform_version_and_content() -> None:
    versions = [prompt_version(platform) for platform in PLATFORMS]
    assert len({version.rsplit("-", 1)[1] for version in versions}) == 3
    assert versions[0].startswith("satellite-1-")
