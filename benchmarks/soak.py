"""kill -9 of the whole rebuild command at many moments, an undisturbed run after each: are the bytes always the same?

Run: python benchmarks/soak.py --kills 50        Prints a line per kill, a table, then one JSON line; exit 1 if not.

Every kill is of the whole process group, into a data set of its own. Every other moment is drawn from the whole run,
the rest from the part in which files are written, which is short beside Prefect's start: up to a second after so many
shards are stored, for a clock would miss it on a machine that is now fast, now slow. After the kill everything visible
must be whole; after the run that follows, every visible file must be that of a run which nothing disturbed.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.campus import write_world
from data.shards import sha256_file
from data.verify import verify
from data.versions import list_versions

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Kill:
    """What one kill met and what became of the data set.

    Attributes:
        seconds: after the start of the command.
        found: what there was on disk: nothing, a lock, so many finished shards, or a version.
        whole: nothing unfinished was visible.
        same: the next run ended with the same bytes.
    """

    seconds: float
    found: str
    whole: bool
    same: bool


@contextmanager
def running(source: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The rebuild, started as the leader of a process group of its own, which is killed at the end."""
    arguments = [sys.executable, "-m", "georefine", "rebuild", str(source), "--out", str(out)]
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def finish(source: Path, out: Path) -> None:
    """A run that nothing disturbs."""
    with running(source, out) as process:
        _, said = process.communicate(timeout=600)
    if process.returncode:
        sys.exit(f"an undisturbed rebuild failed: {said.decode(errors='replace')[-500:]}")


def seen(dataset: Path) -> dict[str, str]:
    """SHA-256 of every file outside .work."""
    files = (path for path in sorted(dataset.rglob("*")) if path.is_file() and ".work" not in path.parts)
    return {str(path.relative_to(dataset)): sha256_file(path) for path in files}


def found(dataset: Path) -> str:
    """How far a killed run had come."""
    if list_versions(dataset):
        return "a version"
    if shards := stored(dataset):
        return f"{shards} shards"
    return "a lock" if (dataset / ".work" / "lock").exists() else "nothing"


def whole(dataset: Path) -> bool:
    """Whether every visible version is what its manifest says."""
    return all(sha256_file(v.path / s.path) == s.sha256 for v in list_versions(dataset) for s in v.manifest.shards)


def stored(dataset: Path) -> int:
    """How many shards are finished."""
    return len(list(dataset.glob(".work/shards/*/result.json")))


def kill(source: Path, out: Path, expected: dict[str, str], delay: float, shards: int | None) -> Kill:
    """One rebuild killed `delay` seconds after its start, or after it stored so many shards, and one that is not."""
    started = time.monotonic()
    with running(source, out) as process:
        while shards is not None and process.poll() is None:
            if (out / ".work" / "lock").exists() and stored(out) >= shards:
                break
            time.sleep(0.01)
        time.sleep(delay)
        seconds = time.monotonic() - started
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)  # returns only when nothing holds its output open
    state, sound = found(out), whole(out)
    finish(source, out)
    same = seen(out) == expected
    shutil.rmtree(out)
    return Kill(round(seconds, 2), state, sound, same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other moments")
    parser.add_argument("--buildings", type=int, default=16, help="of the sample world that is rebuilt")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it early finds nothing left
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="georefine-soak-") as name:
        folder = Path(name)
        os.environ["PREFECT_HOME"] = str(folder / "prefect")
        source, calm = folder / "source", folder / "calm"
        write_world(source, buildings=arguments.buildings)
        for out in (folder / "first", calm):  # the first makes Prefect's database
            started = time.monotonic()
            finish(source, out)
            ended = time.monotonic()
        expected, shards = seen(calm), stored(calm)
        print(f"undisturbed: {ended - started:.1f} s, {shards} shards", flush=True)
        kills = []
        for number in range(arguments.kills):
            late = chance.randint(0, shards) if number % 2 else None
            delay = chance.uniform(0, ended - started if late is None else 1)
            kills.append(kill(source, folder / f"killed{number}", expected, delay, late))
            print(f"{number + 1:3} {asdict(kills[-1])}", flush=True)
        problems = verify(calm)
    print("\n| killed when there was | times | nothing unfinished visible | same bytes afterwards |\n|---|--:|--:|--:|")
    for state, times in sorted(Counter(k.found for k in kills).items()):
        mine = [k for k in kills if k.found == state]
        print(f"| {state} | {times} | {sum(k.whole for k in mine)} | {sum(k.same for k in mine)} |")
    good = sum(k.whole and k.same for k in kills)
    digest = hashlib.sha256(json.dumps(expected, sort_keys=True).encode()).hexdigest()
    print(
        json.dumps({"benchmark": "soak", "kills": len(kills), "good": good, "files": len(expected), "sha256": digest})
    )
    sys.exit(0 if good == len(kills) and not problems else 1)


if __name__ == "__main__":
    main()
