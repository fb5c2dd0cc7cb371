"""Batch mode: the requests a server would get, the runner's output read whatever it is, rounds until all is said.

The fast tests run a stand-in with the command line of vLLM's batch runner; the slow one runs vLLM's own.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stand_in_vllm import stand_in_environment

from refine import batch, tiny_rewriter
from refine.batch import BatchTally, answer_in_batches, read_replies, wanted, write_requests
from refine.prompts import body, reply_key
from refine.refinement import refine_stripped
from refine.replies import Answer, ReplyStore
from refine.server import Model, model_of, vllm_python
from refine.vllm import Ask, refine_all
from schemas.config import RefineConfig, ServerConfig
from schemas.errors import ConfigError, RefinerError
from schemas.records import Platform, Refined, Stripped

CAPTIONS = [
    "The large building has a grey roof. A parking lot with white lines is next to it.",
    "A red brick building with a flat roof is surrounded by trees.",
    "Two white buildings stand around a small courtyard with a green lawn.",
    "A curved road passes a brown building with a dark roof.",
]
CONFIG = RefineConfig(refiner="vllm", attempts=3)
MODEL = Model("stand-in", "revision", "")

# Replies by caption and number of refusals; the plan says what becomes of the output. It counts its runs.
STAND_IN = """
import json, os, sys
from pathlib import Path
given = dict(zip(sys.argv[1:5:2], sys.argv[2:5:2]))
options = dict(a.lstrip("-").split("=", 1) for a in sys.argv[5:] if "=" in a)
folder = Path(options["model"])
plan = json.loads((folder / "config.json").read_text())
runs = folder / "runs"
lines = Path(given["-i"]).read_bytes().splitlines(keepends=True)
runs.write_text((runs.read_text() if runs.exists() else "") + f"{len(lines)} ")
print("Running batch:  50% Completed | 2/4 [00:00<00:00, 54.09req/s]", flush=True)
out = []
for number, line in enumerate(lines):
    row = json.loads(line)
    last = row["body"]["messages"][-1]["content"].splitlines()
    caption = last[1].removeprefix("Caption: ")
    said = plan["replies"][caption][any(text.startswith("Refused: ") for text in last)]
    answer = {"choices": [{"message": {"content": said}, "finish_reason": "stop"}],
              "usage": {"prompt_tokens": 9, "completion_tokens": 5}}
    response, error = {"status_code": 200, "request_id": "x", "body": answer}, None
    if caption in plan.get("hiccups", [])[len(runs.read_text().split()) - 1 :][:1]:
        response, error = {"status_code": 500, "request_id": "x", "body": None}, "engine hiccup"
    if number == plan.get("refuses"):
        response, error = {"status_code": 400, "request_id": "x", "body": None}, {"error": {"message": "too long"}}
    out.append(json.dumps({"id": "x", "custom_id": row["custom_id"], "response": response, "error": error}).encode())
text = b"".join(line + b"\\n" for line in reversed(out))
if len(runs.read_text().split()) == 1:
    text = text[: plan.get("cut", len(text))]
Path(given["-o"]).write_bytes(text)
if len(runs.read_text().split()) == plan.get("dies"):
    print("RuntimeError: out of memory", flush=True)
    sys.exit(1)
"""


def silent(step: str, done: int, total: int, detail: str) -> None:
    """A report that nobody reads."""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Interpreter of an environment whose `vllm` is the stand-in."""
    return stand_in_environment(tmp_path_factory.mktemp("stand-in") / "venv", "run_batch", STAND_IN)


def good(caption: str, platform: Platform = "satellite") -> str:
    """A reply that passes every gate: the rules' own."""
    return refine_stripped(Stripped(caption), platform).reply


def bad(caption: str) -> str:
    """A reply that no gate lets pass: it invents."""
    return json.dumps({"caption": f"{caption} A purple fountain stands there.", "queries": ["A purple fountain."]})


def folder_with(tmp_path: Path, **plan: object) -> Path:
    """A model folder that tells the stand-in how to behave: refused first replies for every second caption."""
    folder = tmp_path / "model"
    folder.mkdir()
    replies = {text: [bad(text) if n % 2 else good(text), good(text)] for n, text in enumerate(CAPTIONS)}
    (folder / "config.json").write_text(json.dumps({"replies": replies} | plan))
    return folder


def asks(captions: Sequence[str] = CAPTIONS) -> list[Ask]:
    return [Ask(Stripped(text), "satellite", None, number) for number, text in enumerate(captions)]


class Work:
    """A data set's work folder with everything a batch run needs."""

    def __init__(self, tmp_path: Path, python: str, folder: Path) -> None:
        self.folder = folder
        self.store = tmp_path / "replies.sqlite"
        self.work = tmp_path / "batch"
        self.model = Model("stand-in", "revision", str(folder))
        self.server = ServerConfig(python=python)
        self.told: list[tuple[str, int, int, str]] = []

    def fill(self, captions: Sequence[str] = CAPTIONS, config: RefineConfig = CONFIG) -> BatchTally:
        return answer_in_batches(
            lambda: asks(captions),
            model=self.model,
            config=config,
            server=self.server,
            store=self.store,
            folder=self.work,
            report=lambda *told: self.told.append(told),
        )

    def rows(self, captions: Sequence[str] = CAPTIONS) -> list[Refined]:
        done = refine_all(
            asks(captions),
            model=self.model,
            config=CONFIG,
            server=self.server,
            urls=(),
            store=self.store,
            report=silent,
            only_stored=True,
        )
        return [row for _, row in sorted(done, key=lambda pair: str(pair[0].tag))]

    def runs(self) -> list[int]:
        """Requests of every run of the stand-in."""
        return [int(number) for number in (self.folder / "runs").read_text().split()]


def test_refused_replies_get_their_retry_and_a_second_run_sends_nothing(tmp_path: Path, stand_in: str) -> None:
    work = Work(tmp_path, stand_in, folder_with(tmp_path))
    assert asdict(work.fill()) == {"rounds": 2, "asked": 6, "answered": 6, "failed": 0, "malformed": 0, "unknown": 0}
    assert work.runs() == [4, 2]
    assert [row.status for row in work.rows()] == ["refined"] * 4
    assert [json.loads(row.reply)["caption"] == row.final for row in work.rows()] == [True] * 4
    assert {step for step, *_ in work.told} == {"batch"}
    assert (4, 4) in {told[1:3] for told in work.told}
    assert work.fill().asked == 0
    assert work.runs() == [4, 2]
    assert not list(work.work.glob("*.jsonl"))


def test_equal_captions_are_asked_once_and_parts_are_bounded(
    tmp_path: Path, stand_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "PART_REQUESTS", 3)
    work = Work(tmp_path, stand_in, folder_with(tmp_path))
    assert work.fill(CAPTIONS * 2).asked == 6
    assert work.runs() == [3, 2, 1], "the second half's retries need not wait for a round of their own"
    assert [row.status for row in work.rows(CAPTIONS * 2)] == ["refined"] * 8


def test_a_line_is_the_request_of_a_server_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    with ReplyStore(tmp_path / "store") as store:
        pending = wanted([*asks(), *asks(["  ", "lone \ud800 half"])], model=MODEL, config=CONFIG, store=store)
        assert write_requests(pending, path) == 5
    for text, line in zip([*CAPTIONS, "lone \ufffd half"], path.read_bytes().splitlines(), strict=True):
        request = body("stand-in", "satellite", text, CONFIG)
        row = json.loads(line)
        assert row["custom_id"] == reply_key(request, "revision")
        assert (row["method"], row["url"]) == ("POST", "/v1/chat/completions")
        assert request in line
        assert row["body"] == json.loads(request)


def test_a_request_that_the_runner_refuses_falls_back_with_the_reason(tmp_path: Path, stand_in: str) -> None:
    work = Work(tmp_path, stand_in, folder_with(tmp_path, refuses=0))
    work.fill(CAPTIONS[:1])
    row = work.rows(CAPTIONS[:1])[0]
    assert row.status == "fallback"
    assert row.gates[-1].gate == "answered"
    assert "HTTP 400" in row.gates[-1].detail
    assert "too long" in row.gates[-1].detail


def test_a_request_that_failed_keeps_its_attempts(tmp_path: Path, stand_in: str) -> None:
    work = Work(tmp_path, stand_in, folder_with(tmp_path, hiccups=[CAPTIONS[1]]))
    work.fill(config=RefineConfig(refiner="vllm", attempts=2))
    assert work.runs() == [4, 2, 1], "its first attempt, made up for in the second round, was refused"
    assert [row.status for row in work.rows()] == ["refined"] * 4


def test_a_request_that_fails_for_ever_is_left_to_the_rules(
    tmp_path: Path, stand_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(tmp_path, stand_in, folder_with(tmp_path, hiccups=CAPTIONS[:1] * 9))
    for asked in (8, 1):
        assert work.fill().asked == asked
        assert [(row.status, row.is_settled) for row in work.rows()][:2] == [("fallback", False), ("refined", True)]
    monkeypatch.setattr(batch, "STORM", 1)
    with pytest.raises(RefinerError, match="answered none of 1 requests"):
        work.fill()


@pytest.mark.parametrize(
    ("response", "error", "kept"),
    [
        ('{"status_code": 1e999, "body": null}', '"x"', None),
        ('{"status_code": 400, "body": null}', '"bad \\ud800"', Answer('HTTP 400: "bad \ufffd"', "rejected")),
        ('{"status_code": 404, "body": null}', '"x"', Answer('HTTP 404: "x"', "failed")),
    ],
)
def test_odd_lines_of_the_runner_stop_nothing(response: str, error: str, kept: Answer | None, tmp_path: Path) -> None:
    requests, replies = tmp_path / "requests.jsonl", tmp_path / "replies.jsonl"
    with ReplyStore(tmp_path / "store") as store:
        write_requests(wanted(asks(CAPTIONS[:1]), model=MODEL, config=CONFIG, store=store), requests)
        key = json.loads(requests.read_bytes())["custom_id"]
        replies.write_text(f'{{"custom_id": "{key}", "response": {response}, "error": {error}}}\n')
        read_replies(replies, requests, store, "revision", tally := BatchTally())
        assert store.get(key) == kept
        assert tally.malformed == (kept is None)


@pytest.mark.parametrize("cut", [1000, 1500])
def test_a_runner_that_dies_costs_what_it_had_not_written(cut: int, tmp_path: Path, stand_in: str) -> None:
    (tmp_path / "calm").mkdir()
    calm = Work(tmp_path / "calm", stand_in, folder_with(tmp_path / "calm"))
    calm.fill()
    work = Work(tmp_path, stand_in, folder_with(tmp_path, dies=1, cut=cut))
    with pytest.raises(RefinerError, match=r"batch runner failed \(exit status 1\).*RuntimeError: out of memory"):
        work.fill()
    assert asdict(work.fill())["malformed"] == 1, "the line where the output was cut off"
    assert work.runs()[0] == 4
    assert work.runs()[1] < 4, "what it had written is not asked again"
    assert work.rows() == calm.rows()


def test_a_runner_that_answers_nothing_is_an_error(tmp_path: Path, stand_in: str) -> None:
    work = Work(tmp_path, stand_in, folder_with(tmp_path, cut=20))
    with pytest.raises(RefinerError, match=r"answered none of 4 requests \(1 lines of its output could not be read\)"):
        work.fill()


def test_given_servers_and_a_batch_contradict_each_other(tmp_path: Path) -> None:
    work = Work(tmp_path, "", tmp_path)
    work.server = ServerConfig(urls=("http://127.0.0.1:9",), batch=True)
    with pytest.raises(ConfigError, match=r"server\.batch"):
        work.fill()


def lines_for(requests: Path) -> bytes:
    """Good output for a part."""
    lines = []
    for line, text in zip(requests.read_bytes().splitlines(), CAPTIONS, strict=True):
        answer = {"choices": [{"message": {"content": good(text)}, "finish_reason": "stop"}]}
        row = {"id": "x", "custom_id": json.loads(line)["custom_id"], "response": {"body": answer}, "error": None}
        lines.append(json.dumps(row).encode() + b"\n")
    return b"".join(lines)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(cut=st.integers(0, 5000), junk=st.binary(max_size=200), at=st.integers(0, 5000))
def test_any_output_gives_only_replies_that_were_asked_for(tmp_path: Path, cut: int, junk: bytes, at: int) -> None:
    requests, replies, path = tmp_path / "requests.jsonl", tmp_path / "replies.jsonl", tmp_path / "store"
    for file in tmp_path.glob("store*"):
        file.unlink()
    with ReplyStore(path) as store:
        write_requests(wanted(asks(), model=MODEL, config=CONFIG, store=store), requests)
        whole = lines_for(requests)
        broken = (whole[:at] + junk + whole[at:])[: max(0, len(whole) - cut)]
        replies.write_bytes(broken)
        tally = BatchTally()
        read_replies(replies, requests, store, "revision", tally)
        intact = {line for line in whole.splitlines() if line in broken.splitlines()}
        assert tally.answered >= len(intact), "junk costs no more than the lines that it touches"
        assert len(store) <= 4
        left = list(wanted(asks(), model=MODEL, config=CONFIG, store=store))
        assert len(left) == 4 - len(store), "what is missing is asked again"


def test_replies_to_other_requests_and_of_other_models_are_counted_not_kept(tmp_path: Path) -> None:
    requests, replies = tmp_path / "requests.jsonl", tmp_path / "replies.jsonl"
    with ReplyStore(tmp_path / "store") as store:
        write_requests(wanted(asks(), model=MODEL, config=CONFIG, store=store), requests)
        replies.write_bytes(lines_for(requests))
        tally = BatchTally()
        read_replies(replies, requests, store, "another revision", tally)
        assert (tally.answered, tally.unknown, len(store)) == (0, 4, 0)
        read_replies(tmp_path / "absent", requests, store, "revision", tally)
        read_replies(replies, tmp_path / "absent", store, "revision", tally)
        assert len(store) == 0


@pytest.mark.slow
def test_vllms_own_batch_runner_fills_the_store(tmp_path: Path) -> None:
    try:
        vllm_python(ServerConfig())
    except RefinerError as error:
        assert not os.environ.get("CI"), "CI must have run `make vllm`"
        pytest.skip(str(error))
    config = RefineConfig(refiner="vllm", model=str(tiny_rewriter.MODEL), attempts=1)
    work = Work(tmp_path, "", tiny_rewriter.MODEL)
    work.model = model_of(config, [])
    tally = work.fill(config=config)
    assert asdict(tally) == {"rounds": 1, "asked": 4, "answered": 4, "failed": 0, "malformed": 0, "unknown": 0}
    with ReplyStore(work.store) as store:
        for text in CAPTIONS:
            key = reply_key(body(work.model.name, "satellite", text, config), work.model.revision)
            answer = store.get(key)
            assert answer is not None
            assert answer.is_reply, answer
            assert answer.completion_tokens > 0
    assert work.fill(config=config).asked == 0
