"""Refinement by a scripted model: attempts, fallbacks, the store, replays; every caption in comes out once."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import Said, Script, ScriptedServer, caption_of, completion, echo, rewritten

from refine import client as client_module
from refine import vllm
from refine.prompts import body, prompt_version, reply_key
from refine.refinement import refine_lines, refine_stripped
from refine.replies import ReplyStore
from refine.server import Model
from refine.vllm import Ask, Tally, in_order, refine_all
from schemas.config import RefineConfig, ServerConfig
from schemas.errors import RefinerError
from schemas.records import Refined, Stripped

MODEL = Model("tiny", "0123456789abcdef", "/models/tiny")
CONFIG = RefineConfig(refiner="vllm")
SERVER = ServerConfig(in_flight=4, timeout=5, patience=2)
SOURCE = "A white building with a blue roof stands next to a road. A lawn with two ponds lies beside the building."


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.002)
    monkeypatch.setattr(client_module, "WATCH_SECONDS", 0.02)


def asks(*texts: str) -> list[Ask]:
    return [Ask(Stripped(text), "satellite", None, number) for number, text in enumerate(texts)]


def some(count: int) -> list[Ask]:
    return asks(*(f"A building with {number + 2} chimneys stands next to a road." for number in range(count)))


def run(
    todo: Sequence[Ask] | Iterator[Ask],
    urls: Sequence[str],
    store: Path,
    *,
    config: RefineConfig = CONFIG,
    server: ServerConfig = SERVER,
    only_stored: bool = False,
) -> tuple[dict[Any, Refined], Tally]:
    """The rows by tag, each seen once, and the tally."""
    tally = Tally()
    rows: dict[Any, Refined] = {}
    done = refine_all(
        todo,
        model=MODEL,
        config=config,
        server=server,
        urls=urls,
        store=store,
        report=lambda *_: None,
        only_stored=only_stored,
        tally=tally,
    )
    for ask, row in done:
        assert ask.tag not in rows
        assert row.stripped == ask.stripped
        rows[ask.tag] = row
    assert tally.captions == len(rows) == tally.accepted + tally.empty + sum(tally.fallbacks.values())
    return rows, tally


def one(script: Script, store: Path, source: str = SOURCE, config: RefineConfig = CONFIG) -> tuple[Refined, list[Any]]:
    """What becomes of one caption, and the requests it took."""
    with ScriptedServer(script) as server:
        rows, _ = run(asks(source), [server.url], store, config=config)
    return rows[0], server.requests


def then(*said: Said) -> Script:
    return lambda _request, number: said[min(number, len(said) - 1)]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "replies.sqlite"


def failed(row: Refined) -> list[str]:
    return [gate.gate for gate in row.gates if not gate.passed]


GOOD = rewritten(
    "Next to a road stands a white building with a blue roof; beside it lies a lawn with two ponds.",
    "A white building has a blue roof.",
    "A lawn has two ponds.",
)
RED = rewritten(SOURCE.replace("blue", "red"), "A white building has a red roof.")
LEFT = rewritten(SOURCE.replace("stands", "stands on the left side"), "A white building has a blue roof.")


def test_an_accepted_reply_is_the_caption_with_its_lineage(store: Path) -> None:
    row, [request] = one(then(GOOD), store)
    assert row.status == "refined"
    assert row.final == row.refined == json.loads(row.reply)["caption"]
    assert row.queries == ("A white building has a blue roof.", "A lawn has two ponds.")
    assert row.refiner == "vllm:tiny@0123456789ab"
    assert row.prompt_version == prompt_version("satellite")
    sent = body("tiny", "satellite", SOURCE, CONFIG)
    assert json.loads(sent) == request
    assert row.reply_key == reply_key(sent, MODEL.revision)
    with ReplyStore(store) as kept:
        assert kept.request(row.reply_key) == sent


@pytest.mark.parametrize(
    ("bad", "gate", "said"),
    [
        (RED, "colour", "red"),
        (LEFT, "orientation", "left"),
        (completion('{"caption": "A white bui', "length"), "finished", "stopped by 'length'"),
        (completion("Sure! Here you are."), "well-formed", "no JSON object"),
        (completion(None), "well-formed", "no JSON object"),
    ],
)
def test_a_refused_reply_is_asked_again_with_the_reason(store: Path, bad: Said, gate: str, said: str) -> None:
    row, (first, second) = one(then(bad, GOOD), store)
    assert row.status == "refined"
    assert "Refused:" not in first["messages"][-1]["content"]
    assert re.search(rf"\nRefused: .*{gate}: .*{said}", second["messages"][-1]["content"])
    assert (first["temperature"], second["temperature"], second["seed"]) == (0.0, 0.7, 1)


def test_after_the_last_attempt_the_rules_take_over(store: Path) -> None:
    row, requests = one(then(RED, LEFT, RED), store)
    rules = refine_stripped(Stripped(SOURCE), "satellite")
    assert len(requests) == CONFIG.attempts == 3
    assert (row.status, row.refined, row.final, row.queries) == ("fallback", rules.refined, rules.final, rules.queries)
    assert failed(row) == ["colour"]
    assert json.loads(row.reply)["queries"] == ["A white building has a red roof."]
    assert row.refiner == "vllm:tiny@0123456789ab"
    with ReplyStore(store) as kept:
        assert len(kept) == 3
        stored = kept.get(row.reply_key)
        assert stored is not None
        assert stored.refused[0].startswith("colour: ")


def test_a_request_the_server_refuses_falls_back_at_once(store: Path) -> None:
    row, requests = one(then(Said(status=400, body=b"too long"), GOOD), store)
    assert (row.status, row.reply, len(requests)) == ("fallback", "", 1)
    assert [(gate.gate, gate.passed, gate.detail) for gate in row.gates] == [("answered", False, "HTTP 400: too long")]


def test_a_reply_before_the_failure_keeps_its_gates(store: Path) -> None:
    row, _ = one(then(RED, Said(status=400, body=b"too long")), store)
    assert failed(row) == ["colour", "answered"]
    assert json.loads(row.reply)["queries"] == ["A white building has a red roof."]


def test_troubles_on_the_way_are_kept_with_the_reply(store: Path) -> None:
    row, requests = one(then(Said(status=500), completion("", drop=10), Said(b"<"), GOOD), store)
    assert (row.status, len(requests)) == ("refined", 4)
    with ReplyStore(store) as kept:
        stored = kept.get(row.reply_key)
    assert stored is not None
    assert [why[:12] for why in stored.retries] == ["HTTP 500: ", "the connecti", "the server's"]


def test_a_blank_caption_is_empty_and_not_sent(store: Path) -> None:
    row, requests = one(then(GOOD), store, "  ")
    assert (row.status, row.final, requests) == ("empty", "", [])


def test_a_caption_that_is_no_unicode_text_is_asked_about_like_any_other(store: Path) -> None:
    source = "A white building \ud800 stands next to a road."
    row, [request] = one(echo, store, source)
    assert caption_of(request) == source.replace("\ud800", "\ufffd")
    assert (row.status, row.stripped.text) == ("refined", source)
    row, _ = one(then(Said(status=400)), store.with_name("other.sqlite"), source)
    assert row.status == "fallback"


def test_a_picture_goes_along(store: Path) -> None:
    todo = [Ask(Stripped("A red roof."), "satellite", b"\x89PNG", "tag")]
    with ScriptedServer() as server:
        rows, _ = run(todo, [server.url], store, config=replace(CONFIG, images=True))
    assert rows["tag"].status == "refined"
    assert server.requests[0]["messages"][-1]["content"][0]["image_url"]["url"] == "data:image/png;base64,iVBORw=="


def test_the_second_run_sends_nothing_and_gives_the_same(store: Path) -> None:
    def script(request: Mapping[str, Any], number: int) -> Said:
        source = caption_of(request)
        if "7" in source:
            return RED
        if "3" in source and "Refused" not in request["messages"][-1]["content"]:
            return completion("{", "length")
        return Said(status=400) if "9" in source else echo(request, number)

    todo = [*some(12), Ask(Stripped(""), "satellite", None, "blank")]
    with ScriptedServer(script) as server:
        first, tally = run(todo, [server.url], store)
        sent = len(server.requests)
    again, second = run(todo, [server.url], store)  # the server is gone
    only, third = run(todo, [], store, only_stored=True)
    assert first == again == only
    assert {row.status for row in first.values()} == {"refined", "fallback", "empty"}
    assert (tally.sent, second.sent, third.sent) == (sent, 0, 0)
    assert second.stored == third.stored == sent
    assert (tally.accepted, tally.empty) == (10, 1)
    assert tally.fallbacks == {"colour": 1, "answered": 1}


def test_what_a_broken_server_left_is_asked_again_by_the_next_run(store: Path) -> None:
    with ScriptedServer(lambda request, number: Said(status=500)) as server:
        first, _ = run(asks(SOURCE), [server.url], store, server=replace(SERVER, patience=60))
    assert failed(first[0]) == ["answered"]
    only, _ = run(asks(SOURCE), [], store, only_stored=True)
    assert only == first
    row, _ = one(then(GOOD), store)
    assert row.status == "refined"


def test_only_stored_marks_what_is_missing(store: Path) -> None:
    other = asks(SOURCE, "A red roof.", "A green lawn.")
    with ScriptedServer(then(GOOD)) as server:
        run(other[:1], [server.url], store)
    with ScriptedServer(lambda request, number: completion("no")) as server:
        run(other[1:2], [server.url], store, config=replace(CONFIG, attempts=1))
    rows, tally = run(other, [], store, only_stored=True)
    assert [rows[n].status for n in range(3)] == ["refined", "fallback", "fallback"]
    assert [failed(rows[n]) for n in (1, 2)] == [["well-formed", "answered"], ["answered"]]
    assert rows[2].gates[0].detail == "only stored replies were wanted"
    assert (tally.sent, tally.stored) == (0, 2)


def test_identical_captions_are_sent_once(store: Path) -> None:
    with ScriptedServer(lambda request, number: replace(echo(request, number), delay=0.1)) as server:
        rows, _ = run(asks(*["A red roof."] * 10), [server.url], store)
    assert len(server.requests) == 1
    assert len(rows) == 10
    assert len(set(rows.values())) == 1


def test_several_servers_share_the_load(store: Path) -> None:
    def paced(request: Mapping[str, Any], number: int) -> Said:
        return replace(echo(request, number), delay=0.02)

    with ScriptedServer(paced) as a, ScriptedServer(paced) as b:
        rows, tally = run(some(60), [a.url, b.url], store)
    assert len(rows) == tally.accepted == 60
    assert min(len(a.requests), len(b.requests)) > 20


def test_a_server_killed_and_started_again_costs_nothing(store: Path) -> None:
    with ScriptedServer(lambda request, number: replace(echo(request, number), delay=0.02)) as server:

        def restart() -> None:
            while len(server.requests) < 10:
                time.sleep(0.01)
            server.stop()
            time.sleep(0.3)
            server.start()

        killer = threading.Thread(target=restart)
        killer.start()
        rows, tally = run(some(60), [server.url], store, server=replace(SERVER, patience=20))
        killer.join()
    assert len(rows) == tally.accepted == 60
    assert tally.retries >= 1


def test_a_server_gone_for_good_is_one_sentence_and_the_replies_are_kept(store: Path) -> None:
    todo = some(60)
    with ScriptedServer(lambda request, number: replace(echo(request, number), delay=0.02)) as server:

        def kill() -> None:
            while len(server.requests) < 20:
                time.sleep(0.01)
            server.stop()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(RefinerError, match=r"No vLLM server has answered since .*; the \d+ replies in .* are kept"):
            run(todo, [server.url], store, server=replace(SERVER, patience=1))
        killer.join()
        with ReplyStore(store) as kept:
            done = len(kept)
        assert 10 <= done < 60
        server.start()
        rows, tally = run(todo, [server.url], store)
    assert len(rows) == 60
    assert (tally.stored, tally.sent) == (done, 60 - done)


REFINER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_refine_vllm import run, some
run(some(60), [sys.argv[1]], Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_after_kill_9_only_what_was_under_way_is_asked_again(store: Path) -> None:
    with ScriptedServer(lambda request, number: replace(echo(request, number), delay=0.02)) as server:
        killed = subprocess.Popen([sys.executable, "-c", REFINER, server.url, str(store), str(Path(__file__).parent)])
        while len(server.requests) < 20 and killed.poll() is None:
            time.sleep(0.01)
        killed.kill()
        assert killed.wait() == -9
        rows, tally = run(some(60), [server.url], store)
        undisturbed, _ = run(some(60), [server.url], store.with_name("other.sqlite"))
    assert rows == undisturbed
    assert tally.stored >= 20 - SERVER.in_flight
    assert tally.stored + tally.sent == 60


def test_captions_are_read_as_they_are_wanted(store: Path) -> None:
    read = 0

    def feed() -> Iterator[Ask]:
        nonlocal read
        for ask in some(500):
            read += 1
            yield ask

    with ScriptedServer() as server:
        done = refine_all(
            feed(), model=MODEL, config=CONFIG, server=SERVER, urls=[server.url], store=store, report=lambda *_: None
        )
        for _ in range(5):
            next(done)
        time.sleep(0.3)
        window = vllm.WINDOW * SERVER.in_flight + vllm.BACKLOG
        assert read <= 5 + window + 1
        done.close()  # type: ignore[attr-defined]
        time.sleep(0.1)
        assert read <= 5 + window + 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vllm")]


def test_an_error_of_the_source_comes_through(store: Path) -> None:
    def feed() -> Iterator[Ask]:
        yield from some(3)
        raise ZeroDivisionError("the source broke")

    with ScriptedServer() as server, pytest.raises(ZeroDivisionError, match="the source broke"):
        run(feed(), [server.url], store)


def test_no_server_and_a_damaged_store_are_said(store: Path) -> None:
    with pytest.raises(RefinerError, match="No vLLM server is named"):
        run(some(1), [], store)
    store.write_bytes(b"no database" * 1000)
    with pytest.raises(RefinerError, match="damaged"):
        run(some(1), ["http://127.0.0.1:9"], store)


def test_progress_and_the_prefix_cache_are_told(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "REPORT_SECONDS", 0.0)
    said: list[tuple[str, int, int, str]] = []
    tally = Tally()
    counters = "vllm:prefix_cache_hits_total{{}} {}\nvllm:prefix_cache_queries_total{{}} {}\n"
    with ScriptedServer() as server:

        def script(request: Mapping[str, Any], number: int) -> Said:
            server.metrics = counters.format(90, 150)
            return echo(request, number)

        server.metrics = counters.format(10, 50)
        server.script = script
        done = refine_all(
            some(5),
            model=MODEL,
            config=CONFIG,
            server=SERVER,
            urls=[server.url],
            store=store,
            report=lambda *told: said.append(told),
            tally=tally,
            total=5,
        )
        assert len(list(done)) == 5
    assert tally.prefix_hit_rate == 0.8
    assert (tally.prompt_tokens, tally.completion_tokens) == (500, 50)
    assert [(step, total) for step, _, total, _ in said] == [("refine", 5)] * 6
    assert re.fullmatch(r"[\d.]+ captions/s, [\d,]+ tokens/s, 100% accepted", said[-1][3])


def verdicts(faithful: object) -> Script:
    def script(request: Mapping[str, Any], _number: int) -> Said:
        if "faithful" in request["response_format"]["json_schema"]["schema"]["properties"]:
            return completion(json.dumps({"faithful": faithful, "reason": "the roof\nis new"}))
        return GOOD

    return script


def test_the_judge_is_asked_about_replies_that_passed(store: Path) -> None:
    config = replace(CONFIG, judge=True)
    row, requests = one(verdicts(True), store, config=config)
    assert (row.status, len(requests)) == ("refined", 2)
    assert row.gates[-1].gate == "judge"
    assert f"Source: {SOURCE}" in requests[1]["messages"][-1]["content"]
    assert run(asks(SOURCE), [], store, config=config, only_stored=True)[0][0] == row


@pytest.mark.parametrize(("verdict", "why"), [(False, "the roof is new"), ("yes", "no verdict: not the JSON")])
def test_what_the_judge_refuses_is_asked_again(store: Path, verdict: object, why: str) -> None:
    row, requests = one(verdicts(verdict), store, config=replace(CONFIG, judge=True))
    assert row.status == "fallback"
    assert failed(row) == ["judge"]
    assert row.gates[-1].detail.startswith(why)
    assert f"Refused: judge: {why}" in requests[2]["messages"][-1]["content"]


def test_rows_come_in_order_and_as_soon_as_they_can(store: Path) -> None:
    def script(request: Mapping[str, Any], number: int) -> Said:
        return replace(echo(request, number), delay=0.3 if " 2 " in caption_of(request) else 0.0)

    asked = threading.Event()

    def feed() -> Iterator[Stripped]:
        yield from (ask.stripped for ask in some(20))
        asked.wait()  # as a terminal does, whose user wants to see the answers first

    with ScriptedServer(script) as server:
        rows = in_order(
            feed(),
            "satellite",
            model=MODEL,
            config=CONFIG,
            server=SERVER,
            urls=[server.url],
            store=store,
            report=lambda *_: None,
        )
        first = [next(rows) for _ in range(20)]
        asked.set()
        assert list(rows) == []
    assert [row.stripped for row in first] == [ask.stripped for ask in some(20)]


def test_the_filter_takes_a_model_as_its_refiner(store: Path) -> None:
    with ScriptedServer() as server:
        refiner = partial(
            in_order,
            platform="satellite",
            model=MODEL,
            config=CONFIG,
            server=SERVER,
            urls=[server.url],
            store=store,
            report=lambda *_: None,
        )
        lines = ["A red roof on the left.\n", "\n", *(f"{ask.stripped.text}\r\n" for ask in some(30))]
        rows = [json.loads(line) for line in refine_lines(lines, "satellite", refiner=refiner)]
    assert [row["raw"] for row in rows] == [line.strip() for line in lines]
    assert [row["status"] for row in rows] == ["refined", "empty", *["refined"] * 30]
    assert rows[0]["stripped"] == rows[0]["refined"] == "A red roof."
    assert len(server.requests) == 31


TROUBLE = st.sampled_from(["good", "red", "cut", "500", "drop", "429", "400", "nonsense", "surrogate"])
SAID = {
    "red": RED,
    "cut": completion("{", "length"),
    "500": Said(status=500),
    "drop": completion("", drop=20),
    "429": Said(status=429),
    "400": Said(status=400),
    "nonsense": Said(b"\xff"),
    "surrogate": completion('{"caption": "\ud800", "queries": ["a\u0000"]}'),
}


@settings(max_examples=15, deadline=None)
@given(st.lists(TROUBLE, min_size=1, max_size=40), st.integers(1, 30), st.integers(1, 5))
def test_no_caption_is_ever_lost(troubles: list[str], captions: int, in_flight: int) -> None:
    import tempfile

    def script(request: Mapping[str, Any], number: int) -> Said:
        trouble = troubles[number] if number < len(troubles) else "good"
        return SAID.get(trouble) or echo(request, number)

    with ScriptedServer(script) as server, tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "r.sqlite"
        todo = some(captions)
        rows, _ = run(todo, [server.url], store, server=ServerConfig(in_flight=in_flight, timeout=5, patience=30))
        assert set(rows) == set(range(captions))
        assert run(todo, [], store, only_stored=True)[0] == rows
