"""Captions per second through one vLLM server: georefine with gates and store, a bare client, and three peers.

Run: python benchmarks/refine.py                      starts a vLLM server with the tiny rewriting model
     python benchmarks/refine.py --url http://127.0.0.1:8000 --datatrove PYTHON --curator PYTHON --distilabel PYTHON

The bare client is asyncio streams that send ready-made bytes: no gates, no store, no retries. Runs are interleaved, and
no run profits from another's prefix cache: each shuffles the sentences of the same captions in its own way. Everyone
sends each caption once (`attempts: 1`). A peer's PYTHON is the interpreter of an environment that has it
(datatrove 0.10.1 with aiofiles, httpx and aiosqlite; bespokelabs-curator 0.1.31; distilabel 1.5.3 with requests).
Prints a table, then one JSON line.
"""

import argparse
import asyncio
import contextlib
import json
import math
import random
import re
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
    """What one client did: wall and processor seconds for so many captions, and the share that came to an end."""

    captions: int
    seconds: float
    cpu: float
    finished: int

    @property
    def rate(self) -> float:
        return self.captions / self.seconds


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
        start, cpu = time.perf_counter(), time.process_time()
        finished = asyncio.run(work(bodies))
        return Run(len(asks), time.perf_counter() - start, time.process_time() - cpu, finished)

    return run


def ours(url: str, model: Model, config: RefineConfig, in_flight: int, tallies: list[Tally]) -> Client:
    """georefine: every reply judged by the gates and kept in a store of its own."""

    def run(asks: Sequence[Ask]) -> Run:
        with tempfile.TemporaryDirectory() as folder:
            tallies.append(Tally())
            start, cpu = time.perf_counter(), time.process_time()
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
            finished = sum(row.reply.endswith("}") for _, row in rows)
            return Run(len(asks), time.perf_counter() - start, time.process_time() - cpu, finished)

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
            return Run(len(asks), said["seconds"], said["cpu"], said["finished"])

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
    runs: dict[str, list[Run]] = {name: [] for name in clients}
    salt = 0
    for pair in range(options.pairs):
        names = list(clients)[:2] if pair % 2 else list(clients)[1::-1]
        names += list(clients)[2:] if pair < options.peer_rounds else []
        for name in names:
            salt += 1
            try:
                runs[name].append(clients[name](salted(asks, salt)))
            except (PeerError, subprocess.TimeoutExpired) as error:
                print(f"{name}: failed: {error}")
                continue
            done = runs[name][-1]
            print(f"  {pair + 1} {name:<14}{done.rate:>7.1f} captions/s {done.cpu:>6.2f} s CPU", flush=True)
    show(options, model, runs, tallies)


def show(options: argparse.Namespace, model: Model, runs: dict[str, list[Run]], tallies: Sequence[Tally]) -> None:
    ratios = [a.rate / b.rate for a, b in zip(runs["georefine"], runs["bare sockets"], strict=True)]
    low, high, coverage = interval(ratios)
    accepted = sum(t.accepted for t in tallies) / sum(t.captions for t in tallies)
    title = f"{options.captions} captions, {options.in_flight} in flight"
    print(f"{title:<34}{'captions/s':>12}{'CPU s/400':>11}{'finished':>10}{'runs':>6}")
    table = {}
    for name, done in runs.items():
        if not done:
            continue
        rate = statistics.median(run.rate for run in done)
        cpu = statistics.median(run.cpu / run.captions * 400 for run in done)
        finished = sum(run.finished for run in done) / sum(run.captions for run in done)
        table[name] = {"captions_per_second": round(rate, 2), "cpu_seconds_per_400": round(cpu, 2), "runs": len(done)}
        print(f"{name:<34}{rate:>12.1f}{cpu:>11.2f}{finished:>10.0%}{len(done):>6}")
    median = statistics.median(ratios)
    print(
        f"georefine / bare sockets: median {median:.3f} of {len(ratios)} interleaved pairs, "
        f"{coverage:.0%} interval {low:.3f} .. {high:.3f}; {accepted:.0%} of {model.name}'s replies accepted"
    )
    found = {"median": round(median, 4), "low": round(low, 4), "high": round(high, 4), "coverage": round(coverage, 4)}
    print(json.dumps({"benchmark": "refine", "clients": table, "ratio": found, "accepted": round(accepted, 4)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server; default: start one")
    parser.add_argument("--model", default="", help="folder of the model to serve; default: the tiny rewriting model")
    parser.add_argument("--vllm-python", default="", help="interpreter that has vLLM; default: .venv-vllm")
    parser.add_argument("--captions", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--peer-rounds", type=int, default=3, help="pairs after which the peers run too")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=512)
    for name in ("datatrove", "curator", "distilabel"):
        parser.add_argument(f"--{name}", metavar="PYTHON", default="", help=f"interpreter that has {name}")
    options = parser.parse_args()
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
