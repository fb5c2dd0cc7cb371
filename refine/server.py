"""vLLM servers: those that are given, or one that georefine starts, waits for and always stops.

vLLM lives in an environment of its own (`make vllm`) and is never imported here: its interpreter runs
`-m vllm.entrypoints.openai.api_server`, and everything else is HTTP.

georefine rebuild SOURCE --out DATASET --refiner vllm --model MODEL [--vllm-python EXE | --vllm-url URL ...]
"""

import contextlib
import hashlib
import http.client
import json
import math
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from schemas.config import RefineConfig, ServerConfig
from schemas.errors import ConfigError, RefinerError

Report = Callable[[str, int, int, str], None]  # step, done, total, detail

LENGTH_CAP = 8192  # tokens: prompt with few shots is below 2,000, and an image takes a few thousand
ANSWER_SECONDS = 10.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy knows nothing of our port
_PREFIX = re.compile(r"^(?:\([\w ]+ pid=\d+\) )?(?:(?:DEBUG|INFO|WARNING|ERROR) [\d-]+ [\d:]+ \[[^]]*\] ?)?")
_TELLING = re.compile(r"^(?:[\w.]*(?:Error|Exception)\b|[\w.]+\.py: error): *\S")
_FOLLOWS = re.compile(r"[Ss]ee (?:root cause|stack trace)|EngineDeadError")  # says only that something else failed


@dataclass(frozen=True, slots=True)
class Model:
    """A model behind a server: the name requests ask for, the revision replies are stored under, where it lies.

    `path` is an absolute folder, a hub name, or, for a server that is given, what that server says.
    """

    name: str
    revision: str
    path: str


def _fetch(url: str) -> bytes | str:
    """The body of a 200 answer, or why there is none."""
    try:
        with _DIRECT.open(url, timeout=ANSWER_SECONDS) as answer:
            return bytes(answer.read()) if answer.status == 200 else f"HTTP {answer.status}"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}{': it wants an API key, and requests carry none' * (error.code == 401)}"
    except OSError as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        return "no answer in time" if isinstance(cause, TimeoutError) else getattr(cause, "strerror", "") or str(cause)
    except http.client.IncompleteRead:
        return "its answer breaks off"
    except (http.client.HTTPException, ValueError):
        return "it does not speak HTTP"


def base_url(url: str) -> str:
    """http://host:port without a trailing slash or /v1, which people paste along.

    Raises:
        ConfigError: the URL is no http or https address, or holds a user's name and password.
    """
    if "@" in url:  # not shown: a password shall not get into a log
        raise ConfigError("server.urls", "an address with a user's name is not supported; write http://HOST:PORT.")
    try:
        is_address = re.fullmatch(r"https?://[^\s/]+(/\S*)?", url) and urlsplit(url).port != 0
    except ValueError:  # of the port, or of an IPv6 address
        is_address = False
    if not is_address:
        raise ConfigError("server.urls", f"{url!r} is no address; write http://HOST:PORT.")
    return url.rstrip("/").removesuffix("/v1")


def _served(url: str) -> list[dict[str, Any]] | str:
    """The models that a server lists ({id, root, …}), or why it lists none."""
    body = _fetch(f"{url}/v1/models")
    if isinstance(body, str):
        return body
    try:
        models = json.loads(body)["data"]
        return [{"id": str(model["id"]), "root": str(model.get("root") or "")} for model in models]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "it answers /v1/models, but not as an OpenAI-compatible server"


def _answering(urls: Sequence[str], report: Report | None = None) -> list[tuple[str, list[dict[str, Any]]]]:
    """The given servers that answer, with the models they list.

    Raises:
        RefinerError: none of them answers.
    """
    answering = []
    silent = []
    for number, url in enumerate(map(base_url, urls), start=1):
        models = _served(url)
        if isinstance(models, str):
            silent.append(f"{url} ({models})")
        else:
            answering.append((url, models))
        if report:
            said = f"does not answer ({models})" if isinstance(models, str) else "answers"
            report("server", number, len(urls), f"{url} {said}")
    if not answering:
        raise RefinerError(f"No vLLM server answers at {', '.join(silent)}: start it, or correct --vllm-url.")
    return answering


def folder_revision(folder: Path) -> str:
    """sha256 over the sorted relative names and the contents of a folder's files, hexadecimal; hidden ones left out."""
    total = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name in sorted(name for name in files if not any(part.startswith(".") for part in name.split("/"))):
        with files[name].open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(json.dumps([name, content]).encode())
    return total.hexdigest()


def _folder_name(folder: Path) -> str:
    """What to call the model in a folder: its hub name in the hub's cache, else the folder's, which `model` is not."""
    for part in folder.parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
    return folder.parent.name if folder.name == "model" else folder.name


def _named_model(config: RefineConfig) -> Model:
    """The model that the configuration names: a folder here, or one of the hub.

    Raises:
        ConfigError: it is neither.
    """
    folder = Path(config.model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError("refine.model", f"the folder {folder} has no config.json, so it holds no model.")
        folder = folder.resolve()
        return Model(_folder_name(folder), config.revision or folder_revision(folder), str(folder))
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", config.model):
        raise ConfigError("refine.model", f"{config.model!r} is neither a folder here nor a name on the hub.")
    return Model(config.model, config.revision or config.model, config.model)


def model_of(config: RefineConfig, urls: Sequence[str]) -> Model:
    """The model to ask, its name as the servers know it.

    Args:
        urls: the servers that are given; none where georefine will start its own.

    Raises:
        ConfigError: no model is named and no server given, or what is named is no model.
        RefinerError: no given server answers, they serve different models, several, or another one.
    """
    if not urls:
        if not config.model:
            raise ConfigError("refine.model", "name the model that vLLM should serve, or give a server (--vllm-url).")
        return _named_model(config)
    answering = _answering(urls)
    if config.model:
        model = _named_model(config)
        names = {_name_there(model, url, models) for url, models in answering}
    else:
        names = {_only_name(url, models) for url, models in answering}
    if len(names) > 1:
        raise RefinerError(f"The servers serve different models ({', '.join(sorted(names))}): give replicas of one.")
    name = names.pop()
    if config.model:
        return Model(name, model.revision, model.path)
    return Model(name, config.revision or name, answering[0][1][0]["root"])


def _name_there(model: Model, url: str, models: Sequence[Mapping[str, str]]) -> str:
    for served in models:
        if served["id"] in (model.name, model.path) or served["root"] == model.path:
            return served["id"]
    listed = ", ".join(served["id"] for served in models) or "no model"
    raise RefinerError(f"{url} serves {listed}, not {model.path}: correct refine.model, or leave it empty.")


def _only_name(url: str, models: Sequence[Mapping[str, str]]) -> str:
    if len(models) != 1:
        listed = ", ".join(served["id"] for served in models) or "no model"
        raise RefinerError(f"{url} serves {listed}: say which one to use with refine.model (--model).")
    return models[0]["id"]


def has_gpu() -> bool:
    """Whether vLLM will find an NVIDIA GPU, by the same sign as `make vllm`."""
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()


def vllm_python(server: ServerConfig) -> str:
    """The interpreter that has vLLM: the configured one, else .venv-vllm here or beside the package.

    Raises:
        RefinerError: there is none, or it lacks vLLM.
    """
    if server.python:
        found = shutil.which(str(Path(server.python).expanduser()))
        if found is None:
            raise RefinerError(f"{server.python} is no interpreter that can be run; correct --vllm-python.")
        python = Path(found).absolute()  # not resolved: the link is what makes it a virtual environment
    else:
        homes = (Path.cwd(), Path(__file__).absolute().parents[1])
        candidates = [home / ".venv-vllm" / "bin" / "python" for home in homes]
        python = next((path for path in candidates if path.exists()), candidates[0])
        if not python.exists():
            raise RefinerError("There is no environment with vLLM here: run `make vllm`, or give --vllm-python.")
    probe = [str(python), "-I", "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('vllm') is None)"]
    if subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode:
        raise RefinerError(f"{python} has no vLLM: run `make vllm`, or give another --vllm-python.")
    return str(python)


def _model_config(model: Model) -> dict[str, Any] | None:
    """The model's config.json, or None for a model of the hub.

    Raises:
        RefinerError: it is no JSON object.
    """
    file = Path(model.path) / "config.json"
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise RefinerError(f"{file} is no JSON object: the model folder is damaged, fetch it again.")
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _length(config: dict[str, Any] | None) -> int:
    """--max-model-len: what the model can read, at most LENGTH_CAP; -1 (vLLM's "what fits") where that is unknown."""
    longest = (config or {}).get("max_position_embeddings")
    return min(longest, LENGTH_CAP) if isinstance(longest, int) and longest > 0 else -1


def _cache_gib(config: dict[str, Any] | None, in_flight: int) -> int:
    """Whole GiB for keys and values on a CPU: room for all requests in flight, at most a quarter of the memory."""
    most = max(1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**32)
    wanted = 4
    with contextlib.suppress(KeyError, TypeError, ZeroDivisionError):  # not every architecture has these keys
        known = config or {}
        heads = known.get("num_key_value_heads") or known["num_attention_heads"]
        size = known.get("head_dim") or known["hidden_size"] // known["num_attention_heads"]
        token = 2 * known["num_hidden_layers"] * heads * size * 4  # bytes of key and value, float32
        wanted = math.ceil(token * in_flight * max(_length(config), 1) / 2**30)
    return min(max(wanted, 1), most)


def engine_arguments(model: Model, server: ServerConfig) -> list[str]:
    """What a server and the batch runner are both told of the model; the configured arguments come last and win."""
    arguments = [
        f"--model={model.path}",
        f"--served-model-name={model.name}",
        f"--max-model-len={_length(_model_config(model))}",
        # A weak model pads JSON with blanks up to the length limit if the grammar lets it.
        '--structured-outputs-config={"backend":"xgrammar","disable_any_whitespace":true}',
    ]
    if not Path(model.path).is_dir() and model.revision != model.name:
        arguments.append(f"--revision={model.revision}")
    if not has_gpu():
        # Blocks of 32: the CPU's default of 128 hides prefix-cache hits of short prompts. A request's seed kills the
        # CPU engine when prefill is chunked. One process for engine and worker: two would spin while they wait for
        # each other, on the cores that server and client need.
        arguments += ["--dtype=float32", "--enforce-eager", "--block-size=32", "--no-enable-chunked-prefill"]
        arguments.append("--distributed-executor-backend=uni")
    return [*arguments, "--enable-prompt-tokens-details", *server.arguments]


def environment(model: Model, server: ServerConfig) -> dict[str, str]:
    """The environment of a vLLM process: quiet, offline where the model lies here, nothing of ours in its path."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "georefine" / "vllm"
    added = {
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": str(cache),
        "VLLM_CPU_KVCACHE_SPACE": str(_cache_gib(_model_config(model), server.in_flight)),
        "PYTHONUNBUFFERED": "1",
    }
    if not has_gpu():
        # vLLM would put "mp" in the place of the executor "uni" otherwise; one core is left to server and client.
        added |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) - 1))}
    if Path(model.path).is_dir():
        added["HF_HUB_OFFLINE"] = "1"
    # VLLM_API_KEY would make the server ask for a key that requests do not carry.
    dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "VLLM_API_KEY"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    # PYTHONSAFEPATH: `-m` would else look for vLLM's imports in the working directory first.
    return added | kept | {"PYTHONSAFEPATH": "1"}


def log_lines(log: Path, limit: int = 65536) -> list[str]:
    """The last lines of a vLLM log without process names, times and blank lines."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - limit))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in (_PREFIX.sub("", raw).rstrip() for raw in text.splitlines()) if line.strip()]


def last_words(log: Path) -> str:
    """What a dead vLLM said of its end: its exceptions, the cause before what follows from it; else its last lines."""
    lines = log_lines(log)
    told = []
    for number, line in enumerate(lines):
        if _TELLING.match(line) and not _FOLLOWS.search(line):
            # "1 validation error for ModelConfig" says nothing without the line below it.
            more = lines[number + 1].strip() if "validation error" in line and number + 1 < len(lines) else ""
            told.append(f"{line} {more}".strip()[:400])
    return " / ".join(list(dict.fromkeys(told))[-2:] or [line[:400] for line in lines[-3:]]) or "(nothing)"


@contextlib.contextmanager
def running(command: Sequence[str], variables: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a vLLM command with its output in `log`; when the block is left, or this process is gone, it is ended.

    Yields the process that watches over it (refine/watch.py), whose exit status is the command's.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    watch = [sys.executable, "-I", str(Path(__file__).with_name("watch.py")), str(os.getpid()), *command]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            watch,
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=stream,
            env=dict(variables),
            start_new_session=True,  # a Ctrl-C is ours to handle: we end it when the requests under way are stored
        )
    assert process.stdin is not None
    try:
        yield process
    finally:
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            process.stdin.write(b"\n")  # closing says nothing while a forked worker of ours holds the pipe too
            process.stdin.close()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ended(process: subprocess.Popen[bytes]) -> str:
    """How a process that has ended did so, in words."""
    status = process.wait()
    return f"killed by signal {status - 128}" if status > 128 else f"exit status {status}"


def _free_port() -> int:
    """A port that nobody listens at, below those that outgoing connections take: vLLM binds it ten seconds later."""
    for port in random.sample(range(20_000, 32_000), 100):
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RefinerError("No port of 127.0.0.1 between 20000 and 32000 is free for a vLLM server: end what holds them.")


def _wait_ready(process: subprocess.Popen[bytes], url: str, seconds: float, log: Path, report: Report) -> None:
    started = time.monotonic()
    told = -1
    while True:
        passed = time.monotonic() - started
        if process.poll() is not None:
            raise RefinerError(
                f"The vLLM server ended while starting ({ended(process)}); its last words: {last_words(log)}; "
                f"the whole log is {log}."
            )
        if isinstance(_fetch(f"{url}/health"), bytes):
            return
        if passed > seconds:
            raise RefinerError(
                f"The vLLM server was not ready after {seconds:.0f} s (server.start_timeout); its last words: "
                f"{last_words(log)}; the whole log is {log}."
            )
        if int(passed) > told:
            told = int(passed)
            report("server", told, round(seconds), (log_lines(log, 4096) or ["starting vLLM"])[-1][:200])
        time.sleep(0.2)


@contextlib.contextmanager
def serving(model: Model, server: ServerConfig, log: Path, report: Report) -> Iterator[list[str]]:
    """Base URLs of servers that serve the model: the configured ones that answer, or one started here and always ended.

    Args:
        log: file for the output of a server that is started; it is written anew.
        report: gets the step "server" with the seconds waited, of how many, and the server's last log line.

    Raises:
        RefinerError: no configured server answers; vLLM is not installed, or ended or stalled while starting. When a
            server started here dies under the block and the block gives up, its last words are added.
    """
    if server.urls:
        yield [url for url, _ in _answering(server.urls, report)]
        return
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *(vllm_python(server), "-m", "vllm.entrypoints.openai.api_server"),
        *engine_arguments(model, server),
        *("--disable-uvicorn-access-log", "--host=127.0.0.1", f"--port={port}"),  # last: the address is ours to know
    ]
    with running(command, environment(model, server), log) as process:
        _wait_ready(process, url, server.start_timeout, log, report)
        report("server", 1, 1, f"vLLM serves {model.name} at {url}")
        try:
            yield [url]
        except RefinerError as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)  # a server that is dead has a watcher that soon will be
            if process.poll() is None:
                raise
            raise RefinerError(
                f"{error} The vLLM server had ended ({ended(process)}); its last words: {last_words(log)}; "
                f"the whole log is {log}."
            ) from error
