"""The tiny rewriting model: what it is taught, its files, and that it rewrites captions of an unseen world."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.campus import write_world
from refine.gates import check, passed
from refine.orientation import strip
from refine.rules import rewrite as rules_rewrite
from refine.tiny_rewriter import MODEL, prompt, write_random_weights
from refine.tiny_rewriter.paraphrase import read_facts, rewrite, taught
from refine.tiny_rewriter.scores import as_json, changed, score
from schemas.records import PLATFORMS, Platform, Reply

ROOT = Path(__file__).parents[1]
VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
UNSEEN_SEED = 11  # train.py learns from others
FOLDERS: dict[str, Platform] = {"satellite": "satellite", "drone": "drone", "street": "ground"}
# Runs where transformers is installed: one greedy answer per line of JSON {"caption", "queries"} on standard output.
GREEDY = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], padding_side="left")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
chats = [[{"role": "system", "content": "ignored"}, {"role": "user", "content": text}] for text in json.load(sys.stdin)]
inputs = tokenizer.apply_chat_template(
    chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
)
made = model.generate(**inputs, do_sample=False, max_new_tokens=300)[:, inputs["input_ids"].shape[1] :]
print(json.dumps(tokenizer.batch_decode(made, skip_special_tokens=True)))
"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Platform, str]]:
    """Captions of an unseen sample world as refinement sees them, twenty per platform."""
    world = tmp_path_factory.mktemp("tiny") / "world"
    write_world(world, buildings=20, seed=UNSEEN_SEED, workers=1)
    found: dict[Platform, list[str]] = {platform: [] for platform in PLATFORMS}
    for record in json.loads((world / "train.json").read_text(encoding="utf-8")):
        platform, raw = FOLDERS[record["image"].split("/")[1]], record["caption"]
        found[platform].append(strip(raw).text if platform == "satellite" else raw)
    return [(platform, source) for platform in PLATFORMS for source in found[platform][:20]]


def test_the_grammar_reads_campus_captions_and_its_rewrites_pass_the_gates(cases: list[tuple[Platform, str]]) -> None:
    assert all(read_facts(source) for _, source in cases)
    for again in (False, True):
        targets = [taught(source, platform, again=again) for platform, source in cases]
        assert sum(target is not None for target in targets) >= 0.9 * len(cases)


def test_what_is_taught_is_no_copy_and_no_cutting(cases: list[tuple[Platform, str]]) -> None:
    for platform, source in cases:
        target = taught(source, platform)
        if target is None:
            continue
        assert target != rules_rewrite(source, platform)
        assert target.caption not in source
        assert changed(source, target.caption) > 0.5
        assert 1 <= len(target.queries) <= 4


def test_a_rewrite_merges_the_facts_of_several_sentences() -> None:
    source = (
        "In the center of the image is a large two-storey building with a hipped roof. The building has green roof "
        "surfaces. On the lower left side of the image, there is small lake.The walls of the building are red brick."
    )
    reply = rewrite(source, "drone")
    assert reply is not None
    assert reply.caption == (
        "A hipped green roof covers a large two-storey red brick structure in the middle. Next to the building is a "
        "small lake."
    )
    assert reply.queries == (
        "A two-storey red brick building with a hipped green roof.",
        "A building close to a small lake.",
    )


def test_a_rewrite_says_no_place_in_the_image(cases: list[tuple[Platform, str]]) -> None:
    place = re.compile(r"\b(?:upper|lower|left|right|foreground|corner|side)\b")
    told = 0
    for platform, source in cases:
        target = taught(source, platform)
        if target is not None:
            told += place.search(source) is not None
            assert not place.search(" ".join((target.caption, *target.queries)))
    assert told > 10


def test_a_rewrite_says_nothing_of_the_surroundings_twice() -> None:
    source = (
        "In the center of the image is a large building with a flat roof. On the lower left side of the image, a palm "
        "tree can be seen. In the foreground, there is a canal. Several palms grow around the building. There is a "
        "canal on the middle right side of the image. There is a tower next to the building."
    )
    reply = rewrite(source, "drone")
    assert reply is not None
    assert reply.caption == (
        "A flat roof covers a large structure in the middle. Next to the building are a canal and a tower. Palms "
        "surround the building."
    )


def test_a_rewrite_leaves_out_what_the_platform_cannot_see() -> None:
    source = (
        "In the center of the image is a large two-storey T-shaped red brick building with a flat roof. The facade has "
        "arched windows. There are skylights on the roof of the building."
    )
    seen = {platform: rewrite(source, platform) for platform in PLATFORMS}
    captions = {platform: reply.caption for platform, reply in seen.items() if reply}
    assert "windows" not in captions["satellite"]
    assert "storey" not in captions["satellite"]
    assert "roof lights" in captions["satellite"]
    assert "T-shaped" not in captions["ground"]
    assert "roof lights" not in captions["ground"]
    assert "arched windows" in captions["ground"]


@given(st.text())
@settings(max_examples=200)
def test_any_other_text_is_not_rewritten(text: str) -> None:
    assert all(rewrite(text, platform) is None for platform in PLATFORMS)


def test_the_prompt_is_the_agreed_message() -> None:
    assert prompt("drone", "A house.") == "Platform: drone\nCaption: A house."


def test_change_is_a_word_edit_distance() -> None:
    assert changed("a b c", "a b c") == 0
    assert changed("a b c", "x y z") == 1
    assert changed("a b c d", "a c d") == 0.25
    assert changed("", "") == 0


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_change_is_symmetric_and_within_zero_and_one(one: list[str], other: list[str]) -> None:
    there, back = changed(" ".join(one), " ".join(other)), changed(" ".join(other), " ".join(one))
    assert there == back
    assert 0 <= there <= 1
    assert (there == 0) == (one == other)


def test_score_counts_accepted_replies_and_their_change() -> None:
    source = "The building has a red roof. There is a pond."
    copied = as_json(Reply(source, ("A building with a red roof.",)))
    assert score([("drone", source)] * 2, [copied, "no reply"]).accepted == 0.5
    assert score([("drone", source)] * 2, [copied, "no reply"]).changed == 0


def test_the_model_is_small_and_of_a_known_architecture() -> None:
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert config["tie_word_embeddings"] is True
    assert (MODEL / "model.safetensors").stat().st_size < 6_000_000
    weights = hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest()
    assert weights in (MODEL / "README.md").read_text(encoding="utf-8")


def chat_template() -> jinja2.Template:
    config: dict[str, str] = json.loads((MODEL / "tokenizer_config.json").read_text(encoding="utf-8"))
    return jinja2.Environment(autoescape=False).from_string(config["chat_template"])


def test_only_the_last_user_message_reaches_the_model() -> None:
    messages = [
        {"role": "system", "content": "Be faithful."},
        {"role": "user", "content": prompt("ground", "An example.")},
        {"role": "assistant", "content": "{}"},
        {"role": "user", "content": prompt("ground", "A house.")},
    ]
    shown = chat_template().render(messages=messages)
    assert shown == "<|user|>Platform: ground\nCaption: A house.<|assistant|>"


def test_a_retry_is_shown_without_its_reasons() -> None:
    messages = [{"role": "user", "content": prompt("ground", "A house.") + "\nRefused: colour: red is new"}]
    shown = chat_template().render(messages=messages)
    assert shown == "<|user|>Platform: ground\nCaption: A house.\nRefused.<|assistant|>"


def test_random_weights_have_the_same_shapes_and_other_numbers(tmp_path: Path) -> None:
    write_random_weights(tmp_path / "a", seed=1)
    write_random_weights(tmp_path / "b", seed=1)
    write_random_weights(tmp_path / "c", seed=2)
    first, second, third = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    trained = (MODEL / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(trained[:8], "little")
    tensors = json.loads(trained[8:header])
    assert {tensor["dtype"] for name, tensor in tensors.items() if name != "__metadata__"} == {"F16"}
    assert first == second != third
    assert first[:header] == trained[:header]
    assert len(first) == len(trained)
    assert first[header:] != trained[header:]
    assert {file.name for file in (tmp_path / "a").iterdir()} == {file.name for file in MODEL.iterdir()}


def greedy(folder: Path, cases: list[tuple[Platform, str]]) -> list[str]:
    if not VLLM_PYTHON.exists():
        pytest.skip("no .venv-vllm here: `make vllm` builds it")
    asked = json.dumps([prompt(platform, source) for platform, source in cases])
    command = [str(VLLM_PYTHON), "-c", GREEDY, str(folder)]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True, timeout=300)
    answers: list[str] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.slow
def test_the_model_rewrites_captions_of_an_unseen_world(cases: list[tuple[Platform, str]]) -> None:
    answers = greedy(MODEL, cases)
    for platform in PLATFORMS:
        own = [(case, answer) for case, answer in zip(cases, answers, strict=True) if case[0] == platform]
        result = score([case for case, _ in own], [answer for _, answer in own])
        assert result.accepted >= 0.8, platform
        assert result.changed > 0.5, platform


@pytest.mark.slow
def test_random_weights_never_pass(cases: list[tuple[Platform, str]], tmp_path: Path) -> None:
    write_random_weights(tmp_path)
    some = cases[::10]
    answers = greedy(tmp_path, some)
    assert not any(passed(check(p, source, answer)) for (p, source), answer in zip(some, answers, strict=True))
