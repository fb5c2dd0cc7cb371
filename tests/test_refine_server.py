"""vLLM servers: found, started, waited for, refused in words, and ended whatever happens.

The fast tests run a stand-in with vLLM's command line that starts a child of its own, as vLLM does. The slow ones run
the real vLLM of `make vllm`, all in this file so that they share its starts.
"""

import contextlib
import dataclasses
import http.server
import itertools
import json
import os
import shutil
import signal
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import unittest.mock
import urllib.error
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest
from stand_in_vllm import stand_in_environment

from data.campus import write_world
from refine import server as server_module
from refine import tiny_rewriter
from refine.orientation import strip
from refine.replies import ReplyStore
from refine.server import (
    Model,
    base_url,
    engine_arguments,
    environment,
    folder_revision,
    last_words,
    model_of,
    serving,
    vllm_python,
)
from refine.vllm import Ask, Tally, refine_all
from schemas.config import RefineConfig, ServerConfig
from schemas.errors import ConfigError, RefinerError
from schemas.records import PLATFORMS, Platform, Refined, Stripped

ROOT = Path(__file__).resolve().parents[1]

STAND_IN = """
import http.server, json, os, subprocess, sys, time
from pathlib import Path
options = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:] if "=" in a)
plan = json.loads((Path(options["model"]) / "config.json").read_text())
child = subprocess.Popen([sys.executable, "-c", plan.get("child", "import time; time.sleep(600)")])
(Path(options["model"]) / "pids").write_text(f"{os.getpid()} {child.pid}")
(Path(options["model"]) / "environment").write_text(json.dumps(dict(os.environ)))
print("(APIServer pid=7) INFO 11-23 21:03:32 [a.py:1] reading weights", flush=True)
if "dies" in plan:
    print(plan["dies"], flush=True)
    sys.exit(3)
time.sleep(plan.get("slow", 0))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"data": [{"id": options["served-model-name"], "root": options["model"]}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer((options["host"], int(options["port"])), Answer).serve_forever()
"""

HOLD = """
import os, sys, time
from pathlib import Path
from refine.server import Model, serving
from schemas.config import ServerConfig
folder, python, log = sys.argv[1:4]
with serving(Model("stand-in", "r", folder), ServerConfig(python=python), Path(log), lambda *a: None) as urls:
    print(urls[0], flush=True)
    if sys.argv[4:] == ["fork"] and os.fork() == 0:
        os.close(1), os.close(2)
        Path(log).with_name("worker").write_text(str(os.getpid()))
    time.sleep(600)
"""


def silent(step: str, done: int, total: int, detail: str) -> None:
    """A report that nobody reads."""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Interpreter of an environment whose `vllm` is the stand-in."""
    return stand_in_environment(tmp_path_factory.mktemp("stand-in") / "venv", "api_server", STAND_IN)


def folder_with(tmp_path: Path, **plan: object) -> Path:
    """A model folder whose config.json tells the stand-in how to behave."""
    folder = tmp_path / "stand-in"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(plan))
    return folder


def pids(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def gone(*numbers: int, seconds: float = 20) -> bool:
    """Whether none of the processes is left within the seconds; a zombie is gone."""

    def alive(number: int) -> bool:
        try:
            return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + seconds
    while any(map(alive, numbers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(map(alive, numbers))


def test_a_started_server_answers_reports_and_is_ended_with_its_children(tmp_path: Path, stand_in: str) -> None:
    folder = folder_with(tmp_path, slow=2.5)
    told: list[tuple[str, int, int, str]] = []
    config = ServerConfig(python=stand_in, start_timeout=60)
    model = model_of(RefineConfig(model=str(folder)), [])
    with serving(model, config, tmp_path / "logs" / "vllm.log", lambda *told_now: told.append(told_now)) as urls:
        assert model_of(RefineConfig(), urls) == Model("stand-in", "stand-in", str(folder))
        renamed = model_of(RefineConfig(model=str(folder), revision="r"), urls)
        assert renamed == Model("stand-in", "r", str(folder)), "a server that is given knows it by its folder"
        processes = pids(folder)
        assert not gone(*processes, seconds=0)
    assert gone(*processes, seconds=0), "the block is left when the server and its child are gone"
    assert {step for step, *_ in told} == {"server"}
    assert any(detail == "reading weights" for *_, detail in told), told
    assert told[-1][1:] == (1, 1, f"vLLM serves stand-in at {urls[0]}")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_in_the_block_ends_the_server(tmp_path: Path, stand_in: str, error: type[BaseException]) -> None:
    folder = folder_with(tmp_path)
    model = Model("stand-in", "r", str(folder))
    with (
        pytest.raises(error),
        serving(model, ServerConfig(python=stand_in), tmp_path / "log", silent),
    ):
        raise error
    assert gone(*pids(folder), seconds=0)


@pytest.mark.slow
def test_children_that_ignore_sigterm_are_killed(tmp_path: Path, stand_in: str) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    folder = folder_with(tmp_path, child=deaf, slow=0.5)
    with serving(Model("stand-in", "r", str(folder)), ServerConfig(python=stand_in), tmp_path / "log", silent):
        pass
    assert gone(*pids(folder), seconds=0)


def hold(folder: Path, python: str, log: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    """A process that serves the folder until it is ended, and the server's URL."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), python, str(log), *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert holder.stdout is not None
    url = holder.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), url + holder.stdout.read()
    return holder, url


def sees_end(holder: subprocess.Popen[str], seconds: float) -> bool:
    """Whether a reader of the process's output gets to its end: nobody else holds the pipe open."""
    assert holder.stdout is not None
    reader = threading.Thread(target=holder.stdout.read, daemon=True)
    reader.start()
    reader.join(seconds)
    if not reader.is_alive():
        holder.stdout.close()
    return not reader.is_alive()


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_the_server_goes_when_georefine_is_ended_by(name: str, tmp_path: Path, stand_in: str) -> None:
    folder = folder_with(tmp_path)
    holder, _ = hold(folder, stand_in, tmp_path / "log")
    processes = pids(folder)
    holder.send_signal(getattr(signal, name))
    assert sees_end(holder, 10), "something still holds our output open"
    holder.wait(timeout=20)
    assert gone(*processes)


def test_a_forked_worker_that_holds_our_pipes_keeps_no_server_alive(tmp_path: Path, stand_in: str) -> None:
    folder = folder_with(tmp_path)
    holder, _ = hold(folder, stand_in, tmp_path / "log", "fork")
    worker = tmp_path / "worker"
    while not worker.exists() or not worker.read_text():
        time.sleep(0.05)
    holder.kill()
    holder.wait()
    assert gone(*pids(folder))
    os.kill(int(worker.read_text()), signal.SIGKILL)
    assert sees_end(holder, 10)


def test_the_server_goes_when_its_watcher_is_killed_too(tmp_path: Path, stand_in: str) -> None:
    folder = folder_with(tmp_path)
    holder, _ = hold(folder, stand_in, tmp_path / "log")
    main, child = pids(folder)
    watcher = psutil.Process(main).parent()
    assert watcher is not None
    assert "watch.py" in " ".join(watcher.cmdline())
    watcher.kill()
    assert gone(main), "told by the kernel that its watcher died"
    psutil.Process(child).kill()  # the stand-in, unlike vLLM, does not end its child when it is asked to stop
    holder.kill()
    holder.wait()
    assert holder.stdout is not None
    holder.stdout.close()


def test_a_server_that_dies_while_starting_is_quoted(tmp_path: Path, stand_in: str) -> None:
    cause = "(Worker pid=9) ERROR 11-23 21:07:22 [a.py:9] RuntimeError: Cannot find any model weights"
    follows = "RuntimeError: Engine core initialization failed. See root cause above."
    folder = folder_with(tmp_path, dies=f"{cause}\n{follows}")
    log = tmp_path / "log"
    with (
        pytest.raises(
            RefinerError, match=r"ended while starting \(exit status 3\).* RuntimeError: Cannot find"
        ) as told,
        serving(Model("stand-in", "r", str(folder)), ServerConfig(python=stand_in), log, silent),
    ):
        pass
    assert "initialization failed" not in str(told.value)
    assert str(log) in str(told.value)
    assert gone(*pids(folder), seconds=0), "its child goes too"


def test_a_server_that_never_gets_ready_is_ended(tmp_path: Path, stand_in: str) -> None:
    folder = folder_with(tmp_path, slow=600)
    config = ServerConfig(python=stand_in, start_timeout=2)
    with (
        pytest.raises(RefinerError, match=r"not ready after 2 s \(server.start_timeout\).*reading weights"),
        serving(Model("stand-in", "r", str(folder)), config, tmp_path / "log", silent),
    ):
        pass
    assert gone(*pids(folder), seconds=0)


def test_a_server_that_dies_under_the_work_is_quoted(tmp_path: Path, stand_in: str) -> None:
    folder = folder_with(tmp_path)
    serve = serving(Model("stand-in", "r", str(folder)), ServerConfig(python=stand_in), tmp_path / "log", silent)

    def work() -> None:
        with serve:
            os.kill(pids(folder)[0], signal.SIGKILL)
            assert gone(*pids(folder)), "what is left of it is ended at once"
            raise RefinerError("No server answers.")

    with pytest.raises(RefinerError, match=r"^No server answers\. The vLLM server had ended \(killed by signal 9\)"):
        work()


def test_the_environment_is_quiet_offline_and_free_of_ours(
    tmp_path: Path, stand_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONPATH", "VLLM_API_KEY", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/x")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "WARNING")
    folder = folder_with(tmp_path)
    with serving(Model("stand-in", "r", str(folder)), ServerConfig(python=stand_in), tmp_path / "log", silent):
        seen = json.loads((folder / "environment").read_text())
    wanted = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    assert wanted.items() <= seen.items()
    assert "georefine" in seen["VLLM_CACHE_ROOT"]
    assert not {"PYTHONPATH", "VLLM_API_KEY", "VIRTUAL_ENV"} & seen.keys()
    assert "HF_HUB_OFFLINE" not in environment(Model("org/name", "main", "org/name"), ServerConfig())


def arguments(folder: Path, *more: str) -> list[str]:
    return engine_arguments(Model("m", "r", str(folder)), ServerConfig(arguments=more))


def test_length_is_the_models_up_to_a_cap_and_configured_arguments_win(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 131072}')
    assert "--max-model-len=8192" in arguments(tmp_path)
    (tmp_path / "config.json").write_text('{"text_config": {"max_position_embeddings": 1024}}')
    given = arguments(tmp_path, "--max-model-len=512")
    assert given.index("--max-model-len=1024") < given.index("--max-model-len=512"), "vLLM takes the last"
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(RefinerError, match=r"config.json is no JSON object"):
        arguments(tmp_path)
    hub = engine_arguments(Model("org/name", "v1.2", "org/name"), ServerConfig())
    assert {"--model=org/name", "--max-model-len=-1", "--revision=v1.2"} <= set(hub)


def test_flags_for_the_cpu_only_where_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "has_gpu", lambda: True)
    assert "--enforce-eager" not in arguments(tmp_path)
    monkeypatch.setattr(server_module, "has_gpu", lambda: False)
    assert {"--dtype=float32", "--enforce-eager", "--no-enable-chunked-prefill"} <= set(arguments(tmp_path))


def test_one_process_for_engine_and_worker_only_where_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, executor = Model("m", "r", str(tmp_path)), "--distributed-executor-backend=uni"
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    monkeypatch.setattr(server_module, "has_gpu", lambda: True)
    assert executor not in arguments(tmp_path)
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in environment(model, ServerConfig())
    monkeypatch.setattr(server_module, "has_gpu", lambda: False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert executor in arguments(tmp_path)
    assert environment(model, ServerConfig())["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert environment(model, ServerConfig())["OMP_NUM_THREADS"] == "7", "the user's own setting wins"


def test_cache_memory_grows_with_the_model_within_the_machine() -> None:
    tiny = {"num_attention_heads": 2, "hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 2048}
    wide = {"num_attention_heads": 64, "hidden_size": 8192, "num_hidden_layers": 80, "max_position_embeddings": 131072}
    memory = psutil.virtual_memory().total // 2**30
    assert server_module._cache_gib(tiny, 16) == 1
    assert 1 <= server_module._cache_gib(wide, 4096) <= max(1, memory // 4 + 1)
    assert 1 <= server_module._cache_gib(None, 16) <= 4


def test_an_interpreter_is_found_or_asked_for(tmp_path: Path, stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server_module, "__file__", str(tmp_path / "package" / "refine" / "server.py"))
    with pytest.raises(RefinerError, match="run `make vllm`, or give --vllm-python"):
        vllm_python(ServerConfig())
    with pytest.raises(RefinerError, match="/no/such is no interpreter"):
        vllm_python(ServerConfig(python="/no/such"))
    with pytest.raises(RefinerError, match="has no vLLM: run `make vllm`"):
        vllm_python(ServerConfig(python=sys.executable))
    for home in (tmp_path / "package", tmp_path):  # beside the package first, so that the working directory wins later
        home.mkdir(exist_ok=True)
        (home / ".venv-vllm").symlink_to(Path(stand_in).parents[1])
        assert vllm_python(ServerConfig()) == str(home / ".venv-vllm" / "bin" / "python")


def test_a_folders_revision_follows_names_and_contents(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, names in ((first, ("x", "y")), (second, ("y", "x"))):
        (folder / "deep").mkdir(parents=True)
        for name in names:
            (folder / "deep" / name).write_text(name)
    assert folder_revision(first) == folder_revision(second)
    (second / ".cache").mkdir()
    (second / ".cache" / "downloaded").write_text("today")
    assert folder_revision(first) == folder_revision(second), "hidden files are no part of a model"
    (second / "deep" / "x").rename(second / "deep" / "z")
    assert folder_revision(first) != folder_revision(second)
    (second / "deep" / "z").rename(second / "deep" / "x")
    (second / "deep" / "x").write_text("X")
    assert folder_revision(first) != folder_revision(second)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("", "name the model"),
        ("./no/such/folder", "neither a folder here nor a name on the hub"),
        ("a/b/c", "neither a folder here nor a name on the hub"),
        (".", "has no config.json"),
    ],
)
def test_what_is_no_model_is_refused(
    model: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=sentence):
        model_of(RefineConfig(model=model), [])


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Qwen2.5-7B", "Qwen2.5-7B"),
        ("tiny_rewriter/model", "tiny_rewriter"),
        ("hub/models--Qwen--Qwen2.5-7B/snapshots/0a1b2c", "Qwen/Qwen2.5-7B"),
    ],
)
def test_a_folder_names_its_model(folder: str, name: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "config.json").write_text("{}")
    assert model_of(RefineConfig(model=str(tmp_path / folder)), []).name == name


def test_a_hub_name_has_the_revision_that_is_configured_or_its_name() -> None:
    name = "Qwen/Qwen2.5-7B-Instruct"
    assert model_of(RefineConfig(model=name), []) == Model(name, name, name)
    assert model_of(RefineConfig(model=name, revision="a09a354"), []) == Model(name, "a09a354", name)


@contextlib.contextmanager
def listing(*models: str, body: bytes | None = None) -> Iterator[str]:
    """A server that lists the models, or says something else."""
    answer = json.dumps({"data": [{"id": name} for name in models]}).encode() if body is None else body

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_port}"
        finally:
            served.shutdown()
            thread.join()


DEAD = "http://127.0.0.1:9"


def test_given_servers_must_serve_one_model() -> None:
    with listing("a") as one, listing("a") as two, listing("b") as other, listing("a", "b") as many:
        assert model_of(RefineConfig(), [one, f"{two}/v1/"]) == Model("a", "a", "")
        assert model_of(RefineConfig(revision="r"), [one, DEAD]) == Model("a", "r", "")
        assert model_of(RefineConfig(model="b"), [other, many]).name == "b"
        for urls, model, sentence in (
            ([one, other], "", r"different models \(a, b\)"),
            ([many], "", "serves a, b: say which one"),
            ([one], "b", "serves a, not b"),
            ([DEAD], "", f"No vLLM server answers at {DEAD}"),
        ):
            with pytest.raises(RefinerError, match=sentence):
                model_of(RefineConfig(model=model), urls)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"data": [{}]}', b'{"data": ["a"]}', b'{"data":' + b"[" * 100_000]
)
def test_what_is_no_openai_server_is_named_and_left_out(body: bytes) -> None:
    with listing(body=body) as url, listing("a") as good:
        with pytest.raises(RefinerError, match="not as an OpenAI-compatible server"):
            model_of(RefineConfig(), [url])
        assert model_of(RefineConfig(), [url, good]).name == "a"


@contextlib.contextmanager
def saying(said: bytes) -> Iterator[str]:
    """A server that says the same to everybody and hangs up."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(said)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_address[1]}"
        finally:
            served.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", "it does not speak HTTP"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"da', "its answer breaks off"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "HTTP 401: it wants an API key"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "HTTP 503"),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", "HTTP 204"),
    ],
)
def test_why_a_server_is_of_no_use_is_told_and_another_is_used(said: bytes, why: str) -> None:
    with saying(said) as url, listing("a") as good:
        with pytest.raises(RefinerError, match=rf"No vLLM server answers at {url} \({why}"):
            model_of(RefineConfig(), [url])
        assert model_of(RefineConfig(), [url, good]).name == "a"


def test_given_servers_are_used_while_one_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", DEAD)  # is not asked
    with (
        listing("a") as url,
        serving(Model("a", "a", ""), ServerConfig(urls=(DEAD, f"{url}/")), tmp_path / "log", silent) as urls,
    ):
        assert urls == [url]
    assert not (tmp_path / "log").exists()


def test_a_certificate_that_is_not_trusted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate"
    monkeypatch.setattr(server_module._DIRECT, "open", unittest.mock.Mock(side_effect=urllib.error.URLError(error)))
    with pytest.raises(RefinerError, match=r"its certificate is not trusted: self-signed certificate\)"):
        model_of(RefineConfig(), ["https://host"])


def test_a_password_in_an_address_is_refused_unseen() -> None:
    for url in ("http://user:secret@host:80", "user:secret@host"):
        with pytest.raises(ConfigError, match="user's name is not supported") as told:
            base_url(url)
        assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://x", "http://", "http://a b", "http://a:b", "http://a:0", "http://a:70000", "http://[::1"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.urls"):
        base_url(url)


def test_last_words_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_words(log) == "(nothing)"
    log.write_bytes(b"\xff\n(APIServer pid=1) INFO 11-23 21:03:32 [x.py:1] one\n\ntwo\nthree\n")
    assert last_words(log) == "one / two / three"
    log.write_text("x" * 100_000 + "\npydantic.ValidationError: 1 validation error for ModelConfig\n  no such type\n")
    assert last_words(log) == "pydantic.ValidationError: 1 validation error for ModelConfig no such type"
    log.write_text("usage: …\napi_server.py: error: unrecognized arguments: --nonsense\n")
    assert "unrecognized arguments" in last_words(log)


# ---- the real vLLM ---------------------------------------------------------------------------------------------------

FOLDERS: dict[str, Platform] = {"satellite": "satellite", "drone": "drone", "street": "ground"}
CONFIG = RefineConfig(refiner="vllm", attempts=2, max_tokens=300)


@pytest.fixture(scope="module")
def real_python() -> str:
    """The interpreter that has vLLM; its absence is a failure in CI."""
    try:
        return vllm_python(ServerConfig())
    except RefinerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> list[Ask]:
    """Captions of a sample world that the tiny model was not trained on, 14 per platform, platforms together."""
    world = tmp_path_factory.mktemp("campus") / "world"
    write_world(world, buildings=20, seed=11, workers=1)
    found: dict[Platform, list[Stripped]] = {platform: [] for platform in PLATFORMS}
    for record in json.loads((world / "train.json").read_text(encoding="utf-8")):
        platform, raw = FOLDERS[record["image"].split("/")[1]], record["caption"]
        found[platform].append(strip(raw) if platform == "satellite" else Stripped(raw))
    return [
        Ask(one, platform, None, (platform, n)) for platform in PLATFORMS for n, one in enumerate(found[platform][:14])
    ]


class TinyServer:
    """The tiny rewriting model behind a real vLLM, always on the same port, killed and started again at will."""

    def __init__(self, python: str, log: Path) -> None:
        self.model = Model("stand-in", "r", str(tiny_rewriter.MODEL))
        self.server = ServerConfig(python=python, patience=20)
        self.log = log
        self.stack = contextlib.ExitStack()
        self.url = f"http://127.0.0.1:{server_module._free_port()}"

    def urls(self) -> list[str]:
        """Start the server if it does not run."""
        if isinstance(server_module._fetch(f"{self.url}/health"), str):
            port = int(self.url.rpartition(":")[2])
            with unittest.mock.patch.object(server_module, "_free_port", return_value=port):
                assert self.stack.enter_context(serving(self.model, self.server, self.log, silent)) == [self.url]
        return [self.url]

    def kill(self) -> None:
        """kill -9 of vLLM's first process, the other two have to follow."""
        processes = vllm_processes(psutil.Process())
        assert len(processes) >= 3, processes
        processes[0].kill()
        assert gone(*[process.pid for process in processes])
        self.stack.close()


def vllm_processes(parent: psutil.Process) -> list[psutil.Process]:
    """vLLM's own processes below a process of ours, the first one first."""
    below = [process for process in parent.children(recursive=True) if "watch.py" not in " ".join(process.cmdline())]
    return sorted((p for p in below if "vllm" in " ".join(p.cmdline()).lower()), key=lambda p: (p.create_time(), p.pid))


@pytest.fixture(scope="module")
def tiny(real_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyServer]:
    server = TinyServer(real_python, tmp_path_factory.mktemp("tiny") / "vllm.log")
    with server.stack:
        yield server


def rows_of(
    asks: Iterable[Ask],
    store: Path,
    tally: Tally,
    *,
    model: Model,
    urls: list[str],
    config: RefineConfig = CONFIG,
    patience: float = 20,
) -> Iterator[tuple[Ask, Refined]]:
    server = ServerConfig(patience=patience, in_flight=8)
    return refine_all(
        asks, model=model, config=config, server=server, urls=urls, store=store, report=silent, tally=tally
    )


@pytest.mark.slow
def test_a_real_vllm_gives_replies_that_are_accepted(tiny: TinyServer, asks: list[Ask], tmp_path: Path) -> None:
    tally, again = Tally(), Tally()
    rows = dict(rows_of(asks, tmp_path / "store", tally, model=tiny.model, urls=tiny.urls()))
    assert rows.keys() == set(asks), "none lost"
    print(tally)
    assert tally.accepted >= 0.8 * len(asks)
    assert tally.prefix_hit_rate is not None
    assert all(row.refiner == "vllm:stand-in@r" for row in rows.values())
    assert {row.status for row in rows.values()} <= {"refined", "fallback"}
    changed = [row for row in rows.values() if row.status == "refined" and row.final != row.stripped.text]
    assert len(changed) > 0.5 * len(asks), "it rewrites, it does not copy"
    assert dict(rows_of(asks, tmp_path / "store", again, model=tiny.model, urls=tiny.urls())) == rows
    assert again.sent == 0


@pytest.mark.slow
def test_the_run_goes_on_when_a_killed_server_is_started_again(
    tiny: TinyServer, asks: list[Ask], tmp_path: Path
) -> None:
    tally = Tally()
    done = rows_of(asks, tmp_path / "store", tally, model=tiny.model, urls=tiny.urls(), patience=300)
    rows = dict(itertools.islice(done, 10))
    tiny.kill()
    assert isinstance(server_module._fetch(f"{tiny.url}/health"), str)
    tiny.urls()
    rows |= dict(done)
    assert rows.keys() == set(asks), "none lost"
    assert tally.retries > 0
    assert "answered" not in tally.fallbacks, "every caption got its reply in the end"


@pytest.mark.slow
def test_random_weights_lose_no_caption_and_kill_9_leaves_nothing_but_the_replies(
    real_python: str, tiny: TinyServer, asks: list[Ask], tmp_path: Path
) -> None:
    folder, store = tmp_path / "random", tmp_path / "store"
    tiny_rewriter.write_random_weights(folder)
    holder, url = hold(folder, real_python, tmp_path / "log")
    processes = vllm_processes(psutil.Process(holder.pid))
    assert len(processes) >= 3, processes

    once = dataclasses.replace(CONFIG, attempts=1)  # such a model always talks up to the length limit
    tally = Tally()
    rows = dict(rows_of(asks[:6], store, tally, model=tiny.model, urls=[url], config=once))
    assert rows.keys() == set(asks[:6])
    assert [row.status for row in rows.values()] == ["fallback"] * 6
    assert [row.final == row.refined != "" for row in rows.values()] == [True] * 6
    assert tally.accepted == 0

    done = rows_of(asks, store, Tally(), model=tiny.model, urls=[url], config=once)
    for _ in range(10):
        next(done)
    holder.kill()
    killed = time.monotonic()
    assert sees_end(holder, 10), "something still holds our output open"
    holder.wait()
    with pytest.raises(RefinerError, match="No vLLM server has answered since"):
        list(done)
    assert time.monotonic() - killed < 60
    assert gone(*[process.pid for process in processes])

    with ReplyStore(store) as kept:
        before = len(kept)
    assert before >= 10
    tally = Tally()
    assert dict(rows_of(asks, store, tally, model=tiny.model, urls=tiny.urls())).keys() == set(asks)
    assert tally.stored >= 10, "the next run goes on from there"


@pytest.mark.slow
def test_a_real_vllm_that_cannot_start_is_quoted(real_python: str, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(tiny_rewriter.MODEL, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nosuch", "architectures": ["NoSuch"]}))
    start = serving(
        model_of(RefineConfig(model=str(folder)), []), ServerConfig(python=real_python), tmp_path / "log", silent
    )
    with pytest.raises(RefinerError, match=r"ended while starting \(exit status 1\).*model type `nosuch`"):
        start.__enter__()
