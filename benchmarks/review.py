"""The review page at 200,000 captions: time to start, time of each page on the server, memory.

python benchmarks/review.py [--captions 200000]

Every page is asked for over HTTP from a server in a process of its own, as a browser would; each search is a new one.
Target: started at most 3 s after the imports, the median of every page under 100 ms. CPU time is that of all threads of
the server: on a busy machine it says what the clock would on a free one.
"""

import argparse
import itertools
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote, urlencode

import psutil
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.shards import shard_path, write_table
from data.versions import publish
from refine.gates import check
from schemas.manifest import FORMAT_VERSION, Account, Manifest, Shard
from schemas.records import Platform
from schemas.tables import CAPTIONS, IMAGES

START_TARGET, PAGE_TARGET = 3.0, 100.0  # seconds; milliseconds
REPEATS = 15
SHARD = 10_000
SHARES: dict[Platform, float] = {"satellite": 0.15, "drone": 0.75, "ground": 0.10}
NOUNS = ("roof", "courtyard", "tower", "dome", "annex", "entrance", "facade", "lawn", "road", "fountain", "plaza")
WORDS = ("red", "grey", "white", "brown", "flat", "gabled", "large", "small", "narrow", "modern", "brick", "arched")
SERVER = """
import sys, time
from pathlib import Path
from review import app, server
import uvicorn
began, spent = time.perf_counter(), time.process_time()
made = app.create_app(Path(sys.argv[1]), "bench")
started = time.perf_counter() - began
listening = server._listen("127.0.0.1", 0)
print(started, time.process_time() - spent, listening.getsockname()[1], flush=True)
made.state.desk.captions.wait()
print(time.perf_counter() - began, flush=True)
uvicorn.Server(uvicorn.Config(made, log_level="error", access_log=False)).run(sockets=[listening])
"""


def sentences(rng: random.Random) -> Iterator[str]:
    while True:
        one, two = rng.choices(NOUNS, k=2)
        yield f"There is a {rng.choice(WORDS)} {rng.choice(WORDS)} {one} next to the {rng.choice(WORDS)} {two}."


def rows(platform: Platform, count: int, rng: random.Random) -> Iterator[dict[str, object]]:
    """Captions of about 130 words, as GeoText's; a fifth fails a gate."""
    gates = [{"gate": g.gate, "passed": g.passed, "detail": g.detail} for g in check(platform, "A roof.", "{}")]
    passed = [{**gate, "passed": True, "detail": ""} for gate in gates]
    for n in range(count):
        parts = list(itertools.islice(sentences(rng), 11))
        final = " ".join(parts) + f" Block {rng.randrange(1_000_000)} stands here."
        raw = "The image shows the following. " + " ".join([*parts, "The mood is calm."])
        image_id = f"train/{platform}/{n // 150:04d}/image-{n // 3:06d}.jpeg"
        failed = rng.random() < 0.2
        yield {
            "caption_id": f"{image_id}#{n % 3}",
            "image_id": image_id,
            "building_id": f"{n // 150:04d}",
            "platform": platform,
            "split": "train",
            "raw": raw,
            "edits": [],
            "stripped": raw,
            "refined": final,
            "queries": parts[:3],
            "final": final,
            "status": "fallback" if failed else "refined",
            "gates": rng.sample(gates, 1) + passed[1:] if failed else passed,
            "refiner": "rules",
            "prompt_version": "bench",
            "reply_key": f"{n:064x}",
            "reply": json.dumps({"caption": final, "queries": parts[:3]}),
        }


def write_captions(dataset: Path, captions: int) -> None:
    """A data set of that many captions, without images (thumbnails are not what is measured)."""
    rng = random.Random(0)
    files: dict[str, Path] = {}
    shards: list[Shard] = []

    def add(table: str, platform: Platform, part: int, found: list[dict[str, object]]) -> None:
        path = shard_path(table, "train", platform, part)
        files[path] = dataset / ".work" / path
        written = write_table(files[path], pa.Table.from_pylist(found, CAPTIONS if table == "captions" else IMAGES))
        shards.append(Shard(path, table, "train", platform, written.rows, written.bytes, written.sha256))

    for platform, share in SHARES.items():
        made = rows(platform, round(captions * share), rng)
        for part in itertools.count():
            found = list(itertools.islice(made, SHARD))
            if not found:
                break
            add("captions", platform, part, found)
            ids = dict.fromkeys((str(row["image_id"]), str(row["building_id"])) for row in found)
            add("images", platform, part, [image_row(image_id, building, platform) for image_id, building in ids])
    account = Account(captions, captions, 0, 0)
    publish(
        dataset,
        files,
        Manifest(FORMAT_VERSION, "", "bench", {}, {}, tuple(shards), {"captions": account}, {}, {}),
    )


def image_row(image_id: str, building: str, platform: Platform) -> dict[str, object]:
    return {
        "image_id": image_id,
        "building_id": building,
        "platform": platform,
        "split": "train",
        "role": "train",
        "image": {"bytes": b"", "path": image_id},
        "width": 1,
        "height": 1,
        "sha256": "",
        "parent_image_id": None,
        "transform": None,
    }


class Client:
    """One connection that is kept, as a browser keeps it."""

    def __init__(self, port: int) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self.connection.request("GET", "/?token=bench")
        response = self.connection.getresponse()
        response.read()
        self.cookie = response.headers["Set-Cookie"].partition(";")[0]
        self.csrf = re.findall(r'name="csrf" value="([^"]+)"', self.ask("/")[1])[0]

    def ask(self, path: str, body: str | None = None) -> tuple[float, str]:
        """Milliseconds, and what came."""
        began = time.perf_counter()
        headers = {"Cookie": self.cookie} | ({"HX-Request": "true"} if body else {})
        self.connection.request("POST" if body else "GET", path, body, headers)
        response = self.connection.getresponse()
        text = response.read().decode()
        took = 1000 * (time.perf_counter() - began)
        if response.status != 200:
            raise SystemExit(f"{path} answered {response.status}: {text[:300]}")
        return took, text


def measure(client: Client, server: psutil.Process) -> dict[str, tuple[float, float]]:
    """Median milliseconds and mean CPU milliseconds per page."""
    first = client.ask("/queue?sort=gates&platform=drone")[1]
    place = re.findall(r'id="after"[^>]*href="([^"]+)"', first)[0].replace("&amp;", "&")
    caption_ids = re.findall(r'name="caption" value="([^"]+)"', first)
    seen = re.findall(r'name="seen" value="([^"]+)"', first)
    blocks = iter(random.Random(1).sample(range(100, 1000), 900))
    nouns = itertools.cycle(NOUNS)
    pages = {
        "overview": lambda: "/",
        "queue": lambda: "/queue",
        "next page": lambda: place,
        "sorted by failed gates": lambda: "/queue?sort=gates",
        "sorted by edit size": lambda: "/queue?sort=edit",
        "three facets": lambda: "/queue?platform=drone&status=fallback&decision=open",
        "new search, one word": lambda: f"/queue?q={next(blocks)}",
        "new search, two words": lambda: f"/queue?q={next(nouns)}+{next(blocks)}",
        "new search, phrase": lambda: "/queue?q=" + quote(f'"{next(nouns)}. block {next(blocks)}"'),
        "new search, raw": lambda: f"/queue?within=raw&q=calm+{next(nouns)}",
        "caption": lambda: "/caption/" + quote(random.Random(2).choice(caption_ids), safe=""),
        "history": lambda: "/history",
    }
    shown = iter(dict(zip(caption_ids, seen, strict=True)).items())

    def decide() -> float:
        caption_id, texts = next(shown)
        fields = {"caption": caption_id, "seen": texts, "decision": "accept", "revision": "0", "view": "queue"}
        return client.ask("/decide", urlencode({"csrf": client.csrf, **fields}))[0]

    def page(path: Callable[[], str]) -> float:
        return client.ask(path())[0]

    asks: dict[str, Callable[[], float]] = {
        **{name: partial(page, path) for name, path in pages.items()},
        "decide": decide,
    }
    found = {}
    for name, ask in asks.items():
        before = sum(server.cpu_times()[:2])
        median = statistics.median(ask() for _ in range(REPEATS))
        found[name] = (median, 1000 * (sum(server.cpu_times()[:2]) - before) / REPEATS)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--captions", type=int, default=200_000)
    captions = parser.parse_args().captions
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "dataset"
        write_captions(dataset, captions)
        root = Path(__file__).resolve().parents[1]
        with subprocess.Popen(
            [sys.executable, "-c", SERVER, str(dataset)], cwd=root, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise SystemExit(f"The server did not start: it ended with {process.wait()}.")
                start, start_cpu, port = line.split()
                ready = float(process.stdout.readline())
                memory = psutil.Process(process.pid)
                loaded = memory.memory_info().rss / 2**20
                found = measure(Client(int(port)), memory)
                used = memory.memory_info().rss / 2**20
            finally:
                process.terminate()
    load = os.getloadavg()[0]
    print(f"{captions:,} captions; load of the machine {load:.1f} on {os.cpu_count()} processors")
    print(
        f"started {float(start):.2f} s after the imports, {float(start_cpu):.2f} s of CPU (target {START_TARGET:.0f} s)"
    )
    print(f"search and sizes ready after {ready:.1f} s; {loaded:.0f} MiB then, {used:.0f} MiB after the pages\n")
    print(f"{'page':<26}{'median ms':>10}{'CPU ms':>10}   target {PAGE_TARGET:.0f}")
    for name, (took, cpu) in found.items():
        print(f"{name:<26}{took:>10.1f}{cpu:>10.1f}   {'ok' if took < PAGE_TARGET else 'OVER'}")
    result: dict[str, object] = {
        "captions": captions,
        "load": load,
        "start_s": float(start),
        "start_cpu_s": float(start_cpu),
    }
    result |= {"ready_s": ready, "memory_mib": used, "median_ms": {name: took for name, (took, _) in found.items()}}
    result |= {"cpu_ms": {name: cpu for name, (_, cpu) in found.items()}}
    print(json.dumps({"benchmark": "review", **result}))


if __name__ == "__main__":
    main()
