"""Captions per second through one vLLM server: georefine with gates and store, a bare client, and three peers.

Run: python benchmarks/refine.py                      starts a vLLM server with the tiny rewriting model
     python benchmarks/refine.py --url http://127.0.0.1:8000 --datatrove PYTHON --curator PYTHON --distilabel PYTHON

The bare client is asyncio streams that send ready-made bytes: no gates, no store, no retries. Everyone sends each
caption once (`attempts: 1`), as the same JSON (distilabel adds fields at their defaults), and has at most --in-flight
requests under way. All clients run once in every round, the order turned from round to round, and no run profits from
another's prefix cache: each shuffles the sentences of the same captions in its own way.

Inside of the clock, for all but the bare client: making requests from what is asked, sending, reading, keeping every
reply in a new store, and the end of the work. Outside: starting interpreters, imports, the captions, and, for
georefine, whose process lives through all runs, the word lists of its gates. georefine judges in processes beside its
own, at low priority: their processor time stands in a column of its own. distilabel waits for all of a batch before it
sends the next, as its pipelines do; its store is left out.

A peer's PYTHON is the interpreter of an environment that has it (datatrove 0.10.1 with aiofiles, httpx and aiosqlite;
bespokelabs-curator 0.1.31; distilabel 1.5.3 with requests). Prints a table, then one JSON line.
"""

import argparse
import asyncio
import contextlib
import json
import math
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

from data.campus import write_world
from refine.orientation import strip
from refine.prompts import body
from refine.server import Model, model_of, serving
from refine.vllm import Ask, Tally, refine_all
from schemas.config import RefineConfig, ServerConfig
from schemas.errors import GeorefineError
from schemas.records import PLATFORMS, Platform, Stripped

FOLDERS: dict[str, Platform] = {"satellite": "satellite", "drone": "drone", "street": "ground"}
PEERS = Path(__file__).parent / "peers"
WORLD_SEED = 12


@dataclass(frozen=True)
class Run:
    """What one client did.

    Attributes:
        seconds: wall time for all captions.
        cpu: processor seconds of the process that sends.
        beside: processor seconds of the processes that it started.
        finished: replies that came to an end.
    """

    captions: int
    seconds: float
    cpu: float
    beside: float
    finished: int

    @property
    def rate(self) -> float:
        return self.captions / self.seconds


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self._start = self._now()

    def run(self, captions: int, finished: int) -> Run:
        wall, cpu, beside = (now - then for now, then in zip(self._now(), self._start, strict=True))
        return Run(captions, wall, cpu, beside, finished)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.perf_counter(), time.process_time(), children.ru_utime + children.ru_stime


class PeerError(Exception):
    """A peer did not do its work; its last words."""


Client = Callable[[Sequence[Ask]], Run]


def campus_captions(count: int) -> list[Ask]:
    """Captions of a sample world, those of one platform together, stripped where a rebuild strips them."""
    with tempfile.TemporaryDirectory() as folder:
        write_world(Path(folder) / "world", buildings=max(24, count // 6), seed=WORLD_SEED)
        records = json.loads((Path(folder) / "world" / "train.json").read_text(encoding="utf-8"))
    found: dict[Platform, list[Stripped]] = {platform: [] for platform in PLATFORMS}
    for record in records:
        platform, raw = FOLDERS[record["image"].split("/")[1]], record["caption"]
        found[platform].append(strip(raw) if platform == "satellite" else Stripped(raw))
    share = math.ceil(count / len(PLATFORMS))
    asks = [Ask(one, platform, None, n) for platform in PLATFORMS for n, one in enumerate(found[platform][:share])]
    if len(asks) < count:
        raise SystemExit(f"the sample world has {len(asks)} captions only: ask for fewer with --captions.")
    return asks[:count]


def salted(asks: Sequence[Ask], run: int) -> list[Ask]:
    """The same captions with their sentences in another order."""
    shuffle = random.Random(run).shuffle
    out = []
    for number, ask in enumerate(asks):
        sentences = re.split(r"(?<=\.)\s+", ask.stripped.text)
        shuffle(sentences)
        out.append(Ask(Stripped(" ".join(sentences)), ask.platform, None, number))
    return out


def bare(url: str, model: Model, config: RefineConfig, in_flight: int) -> Client:
    """The least a client can do: keep-alive connections, ready-made bytes, one caption after the other on each."""
    where = urlsplit(url)
    assert where.hostname
    assert where.port

    async def connection(bodies: Iterator[bytes]) -> int:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        finished = 0
        for content in bodies:
            writer.write(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(content)}\r\n\r\n".encode()
                + content
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            if not head.startswith(b"HTTP/1.1 200") or length is None:
                raise SystemExit(f"the server said {head.splitlines()[0].decode()}")
            payload = await reader.readexactly(int(length[1]))
            finished += json.loads(payload)["choices"][0]["finish_reason"] == "stop"
        writer.close()
        await writer.wait_closed()
        return finished

    async def work(bodies: Sequence[bytes]) -> int:
        shared = iter(bodies)
        return sum(await asyncio.gather(*(connection(shared) for _ in range(in_flight))))

    def run(asks: Sequence[Ask]) -> Run:
        bodies = [body(model.name, ask.platform, ask.stripped.text, config) for ask in asks]
        clock = Clock()
        return clock.run(len(asks), asyncio.run(work(bodies)))

    return run


def ours(url: str, model: Model, config: RefineConfig, in_flight: int, tallies: list[Tally]) -> Client:
    """georefine: every reply judged by the gates and kept in a store of its own."""

    def run(asks: Sequence[Ask]) -> Run:
        with tempfile.TemporaryDirectory() as folder:
            tallies.append(Tally())
            clock = Clock()
            rows = refine_all(
                asks,
                model=model,
                config=config,
                server=ServerConfig(in_flight=in_flight),
                urls=[url],
                store=Path(folder) / "replies.sqlite",
                report=lambda *_: None,
                tally=tallies[-1],
            )
            return clock.run(len(asks), sum(row.reply.endswith("}") for _, row in rows))

    return run


def peer(name: str, python: str, url: str, model: Model, config: RefineConfig, in_flight: int) -> Client:
    """Another project's client in its own environment; its time is that of the work, without imports."""

    def run(asks: Sequence[Ask]) -> Run:
        with tempfile.TemporaryDirectory() as folder:
            requests = [json.loads(body(model.name, ask.platform, ask.stripped.text, config)) for ask in asks]
            job = Path(folder) / "job.json"
            job.write_text(json.dumps({"url": url, "in_flight": in_flight, "requests": requests, "folder": folder}))
            done = subprocess.run(
                [python, str(PEERS / f"{name}_client.py"), str(job)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=900,
                cwd=folder,
            )
            lines = done.stdout.strip().splitlines()
            if done.returncode or not lines:
                raise PeerError((done.stderr.strip().splitlines() or ["no word"])[-1])
            said = json.loads(lines[-1])
            return Run(len(asks), said["seconds"], said["cpu"], 0.0, said["finished"])

    return run


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """A confidence interval of the median from order statistics: its ends and its coverage (0.95 from six on)."""
    ordered, n = sorted(values), len(values)
    tail, below = 0.5**n, 0
    while below + 1 < n // 2 and 2 * (tail + math.comb(n, below + 1) * 0.5**n) <= 0.05:
        below += 1
        tail += math.comb(n, below) * 0.5**n
    return ordered[below], ordered[n - 1 - below], 1 - 2 * tail


def measure(options: argparse.Namespace, url: str, model: Model) -> None:
    config = RefineConfig(refiner="vllm", attempts=1, max_tokens=options.max_tokens)
    asks = campus_captions(options.captions)
    tallies: list[Tally] = []
    clients: dict[str, Client] = {
        "bare sockets": bare(url, model, config, options.in_flight),
        "georefine": ours(url, model, config, options.in_flight, tallies),
    }
    for name in ("datatrove", "curator", "distilabel"):
        if python := getattr(options, name):
            clients[name] = peer(name, python, url, model, config, options.in_flight)
        else:
            print(f"{name}: not measured (give --{name} PYTHON)")
    for number, client in enumerate(clients.values()):
        if number < 2:  # word lists are read, the platforms' prompts get into the prefix cache
            client(salted(asks, -1 - number)[:: max(1, len(asks) // 60)])
    tallies.clear()
    runs: dict[str, dict[int, Run]] = {name: {} for name in clients}
    salt = 0
    for number in range(options.pairs):
        for name in in_turn(list(clients) if number < options.peer_rounds else list(clients)[:2], number):
            salt += 1
            try:
                done = runs[name][number] = clients[name](salted(asks, salt))
            except (PeerError, subprocess.TimeoutExpired) as error:
                print(f"{name}: failed: {error}")
                continue
            print(
                f"  {number + 1} {name:<14}{done.rate:>7.1f} captions/s {done.cpu:>6.2f} + {done.beside:.2f} s CPU",
                flush=True,
            )
    show(options, model, runs, tallies)


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """The names in the order of one round: each comes first, and before and after each other, about as often."""
    first = number // 2 % len(names)
    turned = [*names[first:], *names[:first]]
    return turned[::-1] if number % 2 else turned


def show(options: argparse.Namespace, model: Model, runs: dict[str, dict[int, Run]], tallies: Sequence[Tally]) -> None:
    accepted = sum(t.accepted for t in tallies) / sum(t.captions for t in tallies)
    title = f"{options.captions} captions, {options.in_flight} in flight"
    print(f"{title:<34}{'captions/s':>12}{'CPU s/400':>11}{'beside':>8}{'finished':>10}{'runs':>6}")
    table = {}
    for name, done in runs.items():
        if not done:
            continue
        rate = statistics.median(run.rate for run in done.values())
        cpu, beside = (
            statistics.median(getattr(run, which) / run.captions * 400 for run in done.values())
            for which in ("cpu", "beside")
        )
        finished = sum(run.finished for run in done.values()) / sum(run.captions for run in done.values())
        table[name] = {
            "captions_per_second": round(rate, 2),
            "cpu_seconds_per_400": round(cpu, 2),
            "cpu_seconds_beside": round(beside, 2),
            "runs": len(done),
        }
        print(f"{name:<34}{rate:>12.1f}{cpu:>11.2f}{beside:>8.2f}{finished:>10.0%}{len(done):>6}")
    ratios = {}
    for name, done in runs.items():
        pairs = [runs["georefine"][n].rate / run.rate for n, run in done.items() if n in runs["georefine"]]
        if name == "georefine" or not pairs:
            continue
        low, high, coverage = interval(pairs)
        median = statistics.median(pairs)
        print(
            f"georefine / {name}: median {median:.3f} of {len(pairs)} rounds, "
            f"{coverage:.0%} interval {low:.3f} .. {high:.3f}"
        )
        ratios[name] = {
            "median": round(median, 4), "low": round(low, 4), "high": round(high, 4), "coverage": round(coverage, 4)
        }  # fmt: skip
    print(f"{accepted:.0%} of {model.name}'s replies accepted")
    print(json.dumps({"benchmark": "refine", "clients": table, "ratios": ratios, "accepted": round(accepted, 4)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server; default: start one")
    parser.add_argument("--model", default="", help="folder of the model to serve; default: the tiny rewriting model")
    parser.add_argument("--vllm-python", default="", help="interpreter that has vLLM; default: .venv-vllm")
    parser.add_argument("--captions", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=7, help="rounds")
    parser.add_argument("--peer-rounds", type=int, help="rounds in which the peers run too; default: all")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=512)
    for name in ("datatrove", "curator", "distilabel"):
        parser.add_argument(f"--{name}", metavar="PYTHON", default="", help=f"interpreter that has {name}")
    options = parser.parse_args()
    if options.peer_rounds is None:
        options.peer_rounds = options.pairs
    server = ServerConfig(
        urls=(options.url,) if options.url else (), python=options.vllm_python, in_flight=options.in_flight
    )
    with contextlib.ExitStack() as stack:
        try:
            folder = options.model
            if not folder and not options.url:
                from refine.tiny_rewriter import MODEL

                folder = str(MODEL)
            model = model_of(RefineConfig(refiner="vllm", model=folder), server.urls)
            log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "vllm.log"
            [url, *_] = stack.enter_context(serving(model, server, log, lambda *_: None))
        except GeorefineError as error:
            print(f"not measured: {error}")
            return
        measure(options, url, model)


if __name__ == "__main__":
    main()
