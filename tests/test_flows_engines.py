"""Where shards are made: the same bytes whichever engine made them, and one sentence when an engine cannot be used."""

import json
import os
import pickle
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.shards import open_version
from data.verify import verify
from flows.engines import CONNECTIONS, _shard_elsewhere, check, engine
from flows.jobs import ShardJob
from flows.plan import step_version
from flows.progress import listening
from schemas.config import Config
from schemas.errors import GeorefineError, UsageError

ROOT = Path(__file__).resolve().parents[1]
# A loaded machine stalls for half a minute: whoever waits for another process waits that long, and then fails as ever.
PATIENT = os.environ | {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "300s",  # the client to the scheduler, a worker and its nanny to both
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "300s",
    "PREFECT_API_REQUEST_TIMEOUT": "300",
    "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "120",
    "GRPC_ENABLE_FORK_SUPPORT": "0",  # else what a Ray head forks for a client may die: docs/schedules.md
    "RAY_AUTH_MODE": "token",  # as newer versions do by themselves, with a token in the home folder
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
# Every engine in a process of its own, as the command runs it: clusters leave threads, sockets and signal handlers.
REBUILD = """
import json, sys, flows
from flows.rebuild import rebuild
from flows.server import prefect_api
if __name__ == "__main__":
    source, out, runner, cluster = sys.argv[1:]
    with prefect_api():
        result = rebuild(source, out, {"shards": {"buildings": 3}}, runner, cluster=cluster or None)
    json.dump({"shards": result["shards"], "reused": result["reused"], "accounts": result["accounts"]}, sys.stdout)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world of three platforms, with a file that is no image and captions full of orientation."""
    root = tmp_path_factory.mktemp("source")
    noise = np.random.default_rng(5)
    records: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    for split, prefix in (("train", ""), ("test", "gallery_")):
        for building in range(10):
            number = f"{building + 100 * (split == 'test'):04d}"
            for folder, name in (("satellite", f"{number}.jpg"), ("drone", "image-01.jpeg"), ("street", "1.jpg")):
                path = root / split / f"{prefix}{folder}" / number / name
                path.parent.mkdir(parents=True)
                Image.fromarray(noise.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(path)
                text = f"On the left, there is a building with {building} cars in the upper right corner."
                records[split].append({"image": path.relative_to(root).as_posix(), "caption": [text, "A grey roof."]})
        (root / f"{split}.json").write_text(json.dumps(records[split]), encoding="utf-8")
    (root / "train" / "drone" / "0003" / "image-02.jpeg").write_bytes(b"no image at all")
    return root


def build(source: Path, out: Path, runner: str, cluster: str = "") -> subprocess.CompletedProcess[str]:
    script = out.with_suffix(".py")
    script.write_text(REBUILD, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(script), str(source), str(out), runner, cluster],
        cwd=ROOT,
        env=PATIENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def checksums(dataset: Path) -> dict[str, str]:
    return {shard.path: shard.sha256 for shard in open_version(dataset).manifest.shards}


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What threads of one process make."""
    out = tmp_path_factory.mktemp("threads") / "dataset"
    done = build(source, out, "threads")
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def same(dataset: Path, expected: Path) -> bool:
    """Whether two data sets hold the same bytes, manifests included."""
    version, other = dataset / "v0001", expected / "v0001"
    return (version / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes() and checksums(
        dataset
    ) == checksums(expected)


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["processes", "dask", "ray"])
def test_every_engine_writes_the_same_bytes(runner: str, source: Path, expected: Path, tmp_path: Path) -> None:
    if runner in ("dask", "ray"):
        pytest.importorskip(f"prefect_{runner}", reason=f"prefect-{runner} is not installed")
    out = tmp_path / "dataset"
    done = build(source, out, runner)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["shards"] == len(list((out / ".work" / "shards").iterdir())) > 6
    assert result["accounts"]["images"]["rejected"] == 1
    assert same(out, expected)
    assert [finding for finding in verify(out) if finding.check != "leak"] == []


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """Address of a Dask scheduler with one worker, both processes of their own."""
    pytest.importorskip("prefect_dask", reason="prefect-dask is not installed")
    log = (tmp_path / "dask.log").open("wb")
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    command += ["--host", "127.0.0.1", "--scheduler-file", str(tmp_path / "scheduler.json")]
    head = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=PATIENT)
    worker = subprocess.Popen(
        [
            *(sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard"),
            *("--scheduler-file", str(tmp_path / "scheduler.json")),
        ],
        stdout=log,
        stderr=log,
        cwd=ROOT,
        env=PATIENT,
    )
    try:
        said = tmp_path / "scheduler.json"
        while not (address := said.exists() and re.search(r"tcp://[\d.:]+", said.read_text(encoding="utf-8"))):
            assert head.poll() is None, (tmp_path / "dask.log").read_text()
            time.sleep(0.05)
        yield address[0]
    finally:
        for process in (worker, head):
            process.kill()  # a Dask worker may outlive SIGTERM while it looks for its scheduler
            process.wait(timeout=30)
        log.close()


@pytest.mark.slow
def test_a_running_dask_cluster_is_used(scheduler: str, source: Path, expected: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    done = build(source, out, "dask", scheduler)
    assert done.returncode == 0, done.stderr[-3000:]
    assert same(out, expected)


@pytest.fixture(scope="module")
def ray_head() -> Iterator[dict[str, str]]:
    """Addresses of a Ray cluster of this machine alone, its processes of their own: as its nodes and as clients ask."""
    pytest.importorskip("prefect_ray", reason="prefect-ray is not installed")
    with tempfile.TemporaryDirectory(prefix="gr-") as folder, socket.socket() as free:  # sockets need short paths
        free.bind(("127.0.0.1", 0))
        clients = free.getsockname()[1]
        free.close()
        log = Path(folder) / "log"
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port", "0"]
        command += ["--ray-client-server-port", str(clients), "--num-cpus", "1"]
        command += ["--include-dashboard", "false", "--disable-usage-stats", "--object-store-memory", "80000000"]
        with log.open("wb") as stream:
            head = subprocess.Popen(
                [*command, "--temp-dir", folder],
                stdout=stream,
                stderr=stream,
                cwd=ROOT,
                env=PATIENT | {"PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )
        try:
            while not (found := re.search(r"--address='([\d.]+:\d+)'", log.read_text())):
                assert head.poll() is None, log.read_text()
                time.sleep(0.1)
            yield {"node": found[1], "client": f"ray://127.0.0.1:{clients}"}
        finally:
            head.terminate()
            head.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["node", "client"])
def test_a_running_ray_cluster_is_used(
    kind: str, ray_head: dict[str, str], source: Path, expected: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dataset"
    done = build(source, out, "ray", ray_head[kind])
    assert done.returncode == 0, done.stderr[-3000:]
    assert same(out, expected)


def job(folder: Path) -> bytes:
    return pickle.dumps(ShardJob(str(folder), str(folder), "train", "satellite", 0, (), Config()))


def test_a_worker_with_other_code_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(GeorefineError, match="another version of georefine"):
        _shard_elsewhere.fn("part", "train", job(tmp_path), "key", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_sees_other_folders_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(GeorefineError, match="does not see"):
        _shard_elsewhere.fn("part", "train", job(tmp_path / "elsewhere"), "key", step_version("train"))


@pytest.mark.parametrize(
    ("runner", "cluster", "said"),
    [
        ("spark", None, "unknown: use one of threads, processes, dask, ray"),
        ("threads", "tcp://head:8786", "--cluster is for"),
        ("dask", "head:8786", "no address for --runner dask: give one such as tcp://head:8786"),
        ("dask", "tcp://head", "no address for --runner dask"),
        ("ray", "auto", "no address for --runner ray: give one such as head:6379, or ray://"),
        ("ray", "tcp://head:6379", "no address for --runner ray"),
        ("ray", "head:many", "no address for --runner ray"),
    ],
)
def test_wrong_use_is_told_before_any_work(
    runner: str, cluster: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.engines.find_spec", lambda name: True)
    with pytest.raises(UsageError, match=said):
        check(runner, cluster)


class Cluster:
    """Stands for a task runner whose cluster refuses a number of connections before it takes one."""

    def __init__(self, refusals: int, error: Exception) -> None:
        self.refusals = refusals
        self.error = error
        self.asked = 0
        self.left = False

    def __enter__(self) -> "Cluster":
        self.asked += 1
        if self.asked <= self.refusals:
            raise self.error
        return self

    def __exit__(self, *error: object) -> None:
        self.left = True


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Exception], Cluster]:
    """Make the next Ray cluster one that refuses."""

    def refuse(refusals: int, error: Exception) -> Cluster:
        cluster = Cluster(refusals, error)
        monkeypatch.setattr("flows.engines._ray", lambda address, number: cluster)
        monkeypatch.setattr("flows.engines._knock", lambda runner, address: None)
        monkeypatch.setattr("flows.engines.find_spec", lambda name: True)
        monkeypatch.setattr("flows.engines.PAUSE_SECONDS", 0.0)
        return cluster

    return refuse


@pytest.mark.parametrize("refusals", range(CONNECTIONS + 1))
def test_a_connection_that_fails_is_tried_again(refusals: int, refuse: Callable[[int, Exception], Cluster]) -> None:
    cluster = refuse(refusals, ConnectionAbortedError("Starting Ray client server failed."))
    told: list[tuple[str, int, int]] = []
    kept = refusals < CONNECTIONS
    with (
        listening(lambda stage, done, total, message: told.append((stage, done, total))),
        nullcontext() if kept else pytest.raises(GeorefineError, match=r"\(Starting .* failed\): is it a Ray head"),
        engine("ray", "ray://head:10001", 1),
    ):
        assert not cluster.left
    assert cluster.asked == min(refusals + 1, CONNECTIONS)
    assert cluster.left == kept
    assert told == [("connections", tried + 1, CONNECTIONS) for tried in range(min(refusals, CONNECTIONS - 1))]


def test_a_client_that_gave_up_waiting_is_not_started_again(refuse: Callable[[int, Exception], Cluster]) -> None:
    cluster = refuse(CONNECTIONS, ConnectionError("ray client connection timeout"))
    with pytest.raises(GeorefineError, match="timeout"), engine("ray", "ray://head:10001", 1):
        pytest.fail("it cannot be used")
    assert cluster.asked == 1


@pytest.mark.parametrize(("runner", "address"), [("dask", "tcp://127.0.0.1:{}"), ("ray", "127.0.0.1:{}")])
def test_an_address_where_nobody_listens_is_told_at_once(
    runner: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.engines.find_spec", lambda name: True)
    with socket.socket() as bound:  # bound, but not listening
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(GeorefineError, match=r"Nobody answers at .* start the") as error:
            check(runner, address.format(bound.getsockname()[1]))
    assert error.value.exit_code == 1


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.engines.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=re.escape("pip install 'georefine[ray]'")):
        check("ray", None)
