"""The HTTP client against a scripted server: what is tried again, what is not, where requests go, when it gives up."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import Said, Script, ScriptedServer, completion, echo, rewritten

from refine import client as client_module
from refine.client import Client, ServersGoneError, read_answer
from refine.replies import Answer
from schemas.config import ServerConfig

CONFIG = ServerConfig(in_flight=4, timeout=5, patience=1)
FINE = completion("fine")
REQUEST = b'{"messages":[{"role":"user","content":"Platform: drone\\nCaption: A roof."}]}'


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(client_module, "WATCH_SECONDS", 0.05)


def use(urls: Sequence[str], what: Callable[[Client], Awaitable[Any]], config: ServerConfig = CONFIG) -> Any:
    async def run() -> Any:
        async with Client(urls, config) as client:
            return await what(client)

    return asyncio.run(run())


def ask(script: Script, config: ServerConfig = CONFIG) -> tuple[Answer, ScriptedServer]:
    with ScriptedServer(script) as server:
        return use([server.url], lambda client: client.ask(REQUEST), config), server


def then(*said: Said) -> Script:
    """A script: these responses one after the other, the last for ever."""
    return lambda _request, number: said[min(number, len(said) - 1)]


def test_an_answer_comes_back_as_it_was_said() -> None:
    answer, server = ask(then(FINE))
    assert answer == Answer("fine", "stop", 100, 10)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (Said(status=500, body=b"oh\nno"), "HTTP 500: oh no"),
        (Said(status=503), "HTTP 503: "),
        (Said(status=408), "HTTP 408: "),
        (Said(status=425), "HTTP 425: "),
        (Said(status=409, body=b"later"), "HTTP 409: later"),
        (Said(status=202), "HTTP 202: "),
        (completion("body", drop=150), "the connection was dropped"),
        (completion("head", drop=30), "the connection was dropped"),
        (completion("none", drop=0), "the connection was dropped"),
        (Said(b"<html>"), "the server's answer is no chat completion"),
        (Said(b'{"choices": []}'), "the server's answer is no chat completion"),
        (Said(b'{"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}'), "the server's answer is no"),
        (Said(b'{"choices": [{"message": {"content": "a"}}]}'), "the server's answer is no chat completion"),
        (Said(b"\xff\xfe"), "the server's answer is no chat completion"),
        (Said(b"[" * 100_000), "the server's answer is no chat completion"),
        (Said(FINE.body.replace(b": 100,", b": 1e999,")), "the server's answer is no chat completion"),
    ],
)
def test_what_may_be_better_next_time_is_tried_again(trouble: Said, why: str) -> None:
    answer, server = ask(then(trouble, FINE))
    assert (answer.text, answer.finish, len(server.requests)) == ("fine", "stop", 2)
    assert len(answer.retries) == 1
    assert answer.retries[0].startswith(why)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_not_tried_again(status: int) -> None:
    answer, server = ask(then(Said(status=status, body=b'{"message": "too long"}'), FINE))
    assert answer == Answer(f'HTTP {status}: {{"message": "too long"}}', "rejected")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410])
def test_what_no_request_will_get_ends_the_work(status: int) -> None:
    with pytest.raises(ServersGoneError, match=f"HTTP {status}"):
        ask(then(Said(status=status)))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_named(status: int) -> None:
    with ScriptedServer(then(Said(status=status, headers={"Location": "https://elsewhere/v1"}))) as server:
        with pytest.raises(ServersGoneError, match=f"sends us on to https://elsewhere/v1 .HTTP {status}"):
            use([server.url], lambda client: client.ask(REQUEST))
        assert len(server.requests) == 1


def test_a_server_that_is_slow_to_answer_is_asked_again() -> None:
    answer, server = ask(then(completion("late", delay=5), FINE), ServerConfig(timeout=1, patience=30))
    assert (answer.text, answer.retries, len(server.requests)) == ("fine", ("no answer in time",), 2)


def test_retry_after_is_honoured() -> None:
    start = time.monotonic()
    answer, _ = ask(then(Said(status=429, headers={"Retry-After": "1"}), FINE))
    assert time.monotonic() - start >= 1
    assert answer.retries == ("HTTP 429",)


def test_retry_after_may_be_a_date_or_nonsense() -> None:
    wait = client_module._wait_asked
    assert 50 < wait(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)) <= 60
    values = ("0", "-5", "nan", "soon", "", None, "Mon, 01 Jan 2024 00:00:00 GMT")
    assert [wait(value) for value in values] == [0.0] * 7


def test_a_busy_server_is_waited_for_longer_than_a_failing_one() -> None:
    busy = [Said(status=429)] * (client_module.TRIES + 2)
    answer, _ = ask(then(*busy, FINE))
    assert (answer.text, len(answer.retries)) == ("fine", client_module.TRIES + 2)


def test_a_request_that_always_fails_is_given_up_alone() -> None:
    def poison(request: Mapping[str, Any], _number: int) -> Said:
        return Said(status=500) if "poison" in request["messages"][-1]["content"] else FINE

    with ScriptedServer(poison) as server:

        async def both(client: Client) -> list[Answer]:
            return list(await asyncio.gather(client.ask(REQUEST.replace(b"A roof", b"poison")), client.ask(REQUEST)))

        bad, good = use([server.url], both)
    assert good.text == "fine"
    assert (bad.finish, len(bad.retries)) == ("failed", client_module.TRIES)
    assert bad.text.startswith(f"no answer in {client_module.TRIES} tries, the last: HTTP 500")


def test_never_more_in_flight_than_wanted_and_connections_are_reused() -> None:
    def slow(request: Mapping[str, Any], number: int) -> Said:
        return completion("x", delay=0.01)

    with ScriptedServer(slow) as server:

        async def many(client: Client) -> list[Answer]:
            return list(await asyncio.gather(*(client.ask(REQUEST) for _ in range(60))))

        answers = use([server.url], many)
    assert len(answers) == len(server.requests) == 60
    assert server.most_at_once == CONFIG.in_flight
    assert server.connections <= CONFIG.in_flight + 1


def test_load_goes_where_there_is_room() -> None:
    def paced(seconds: float) -> Script:
        return lambda request, number: completion("x", delay=seconds)

    with ScriptedServer(paced(0.01)) as fast, ScriptedServer(paced(0.1)) as slow:

        async def many(client: Client) -> None:
            await asyncio.gather(*(client.ask(REQUEST) for _ in range(120)))

        use([fast.url, f"{slow.url}/v1/"], many)
    assert len(fast.requests) + len(slow.requests) == 120
    assert len(fast.requests) > 3 * len(slow.requests) > 0


def test_a_dead_replica_is_left_alone_and_used_again_when_it_is_back() -> None:
    with ScriptedServer() as one, ScriptedServer() as two:

        async def story(client: Client) -> None:
            await asyncio.gather(*(client.ask(REQUEST) for _ in range(8)))
            await asyncio.to_thread(two.stop)
            before = len(one.requests)
            await asyncio.gather(*(client.ask(REQUEST) for _ in range(20)))
            assert len(one.requests) == before + 20
            await asyncio.to_thread(two.start)
            seen = len(two.requests)
            for _ in range(100):
                await asyncio.gather(*(client.ask(REQUEST) for _ in range(4)))
                if len(two.requests) > seen:
                    return
                await asyncio.sleep(0.05)
            raise AssertionError("the second server was never used again")

        use([one.url, two.url], story)


def test_a_server_that_comes_back_in_time_loses_nothing() -> None:
    with ScriptedServer(lambda request, number: completion("x", delay=0.2)) as server:

        async def story(client: Client) -> list[Answer]:
            asked = [asyncio.create_task(client.ask(REQUEST)) for _ in range(12)]
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.stop)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.start)
            return list(await asyncio.gather(*asked))

        answers = use([server.url], story, ServerConfig(in_flight=4, timeout=5, patience=10))
    assert [answer.text for answer in answers] == ["x"] * 12
    assert sum(bool(answer.retries) for answer in answers) == 4


def test_a_server_that_is_gone_for_good_ends_every_ask_with_one_sentence() -> None:
    with ScriptedServer() as server:
        url = server.url
    start = time.monotonic()

    async def many(client: Client) -> list[object]:
        return list(await asyncio.gather(*(client.ask(REQUEST) for _ in range(9)), return_exceptions=True))

    errors = use([url], many)
    assert 1 <= time.monotonic() - start < 10
    assert {type(error) for error in errors} == {ServersGoneError}
    assert f"({url}: Connection refused): start it and repeat the command" in str(errors[0])
    assert "No vLLM server has answered since" in str(errors[0])


def test_a_server_that_hangs_is_noticed_before_its_requests_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(client_module, "PROBE", client_module.aiohttp.ClientTimeout(total=0.2))
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections, and never says a word
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(ServersGoneError, match="no answer in time"):
            use([url], lambda client: client.ask(REQUEST), ServerConfig(timeout=60, patience=1))
    assert time.monotonic() - start < 15


def test_a_slow_but_healthy_server_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "QUIET_SECONDS", 0.2)
    answer, server = ask(then(completion("late", delay=2)))
    assert (answer.text, answer.retries) == ("late", ())
    assert server.probes >= 3


@pytest.mark.parametrize(
    ("said", "told"),
    [(Said(status=500), "HTTP 500"), (Said(status=429), "HTTP 429"), (Said(b"<"), "the server's answer")],
)
def test_a_healthy_server_that_fails_everything_ends_the_work(said: Said, told: str) -> None:
    with ScriptedServer(then(said)) as server:

        async def keep_on(client: Client) -> None:
            while True:
                await asyncio.gather(*(client.ask(REQUEST) for _ in range(60)))

        with pytest.raises(ServersGoneError, match=rf"Every request has failed since .* \({server.url}: {told}"):
            use([server.url], keep_on, ServerConfig(in_flight=4, timeout=1, patience=1))


def test_counters_of_several_servers_are_summed() -> None:
    with ScriptedServer() as one, ScriptedServer() as two:
        one.metrics = '# HELP\nvllm:prefix_cache_hits_total{engine="0",model_name="m"} 1.5e+02\nother 3\nv 1.2.3\n'
        two.metrics = 'vllm:prefix_cache_hits_total{engine="0"} 50\n'
        counters = use([one.url, two.url], lambda client: client.metrics())
    assert counters == {"vllm:prefix_cache_hits_total": 200.0, "other": 3.0}
    assert use([one.url], lambda client: client.metrics()) == {}


def test_counters_are_read_from_an_answer_only() -> None:
    with ScriptedServer() as server:
        server.metrics, server.metrics_status = "retries 3\n", 404
        assert use([server.url], lambda client: client.metrics()) == {}


def test_lone_surrogates_and_our_own_words_are_taken_out() -> None:
    assert read_answer(completion("a\ud800b").body).text == "a\ufffdb"
    assert read_answer(completion("a", "st\ud800p").body).finish == "st\ufffdp"
    assert read_answer(completion(None, "failed").body) == Answer("", "server: failed", 100, 10)


@pytest.mark.parametrize(("said", "kept"), [(b"99999999999999999999", 2**63 - 1), (b"1e300", 2**63 - 1), (b"-1", 0)])
def test_counts_of_tokens_fit_the_store(said: bytes, kept: int) -> None:
    assert read_answer(FINE.body.replace(b": 100,", b": %s," % said)).prompt_tokens == kept


@given(
    st.binary() | st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5).map(repr).map(str.encode)
)
def test_any_bytes_are_an_answer_or_a_reason(payload: bytes) -> None:
    try:
        assert isinstance(read_answer(payload), Answer)
    except ValueError as error:
        assert "no chat completion" in str(error)


def test_the_honest_script_rewrites() -> None:
    with ScriptedServer(echo) as server:
        answer = use([server.url], lambda client: client.ask(REQUEST))
    assert answer.text == read_answer(rewritten("A roof.").body).text
