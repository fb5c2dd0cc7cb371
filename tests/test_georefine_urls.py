"""Sources and data sets by URL on the command line, against an S3-compatible server on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET, s3_server

from data.campus import write_world

ROOT = Path(__file__).resolve().parents[1]
DATASET = f"s3://{BUCKET}/dataset"
SOURCE = f"s3://{BUCKET}/source"


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with s3_server() as files:
        yield files


@pytest.fixture(scope="module")
def world(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample world, which also lies in the store."""
    folder = tmp_path_factory.mktemp("world") / "source"
    write_world(folder, buildings=16, seed=7, progress=lambda done, total: None)
    server.put(f"{folder}/", f"{SOURCE}/", recursive=True)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "georefine", *map(str, arguments)]


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.slow
def test_a_life_in_a_store(server: Any, world: Path, home: Path, tmp_path: Path) -> None:
    first = run("rebuild", f"{SOURCE}/", "--out", DATASET, "--runner", "threads")
    assert f"new version {DATASET}/v0001 (6 shards, 0 reused)" in first.stdout
    run("rebuild", world, "--out", tmp_path / "local", "--runner", "threads")
    manifest = (tmp_path / "local" / "v0001" / "manifest.json").read_bytes()
    assert server.cat_file(f"{DATASET}/v0001/manifest.json") == manifest

    again = run("rebuild", SOURCE, "--out", DATASET, "--runner", "threads")
    assert f"nothing changed: still version {DATASET}/v0001" in again.stdout
    assert " 0 new or changed" in again.stderr

    records = json.loads(server.cat_file(f"{SOURCE}/train.json"))
    records[0]["caption"] += " A fountain stands in front."
    server.pipe_file(f"{SOURCE}/train.json", json.dumps(records).encode())
    planned = run("rebuild", SOURCE, "--out", DATASET, "--plan")
    assert planned.stdout.count("recomputed") == 3
    assert planned.stdout.count("  make ") == 1
    changed = run("rebuild", SOURCE, "--out", DATASET, "--runner", "threads")
    assert f"new version {DATASET}/v0002 (6 shards, 5 reused)" in changed.stdout

    assert f"{DATASET}: every check passed." in run("verify", DATASET).stdout
    differ = json.loads(run("diff", DATASET, "v0001", "v0002", "--json").stdout)
    assert {change["after"]["raw"].endswith("in front.") for change in differ} == {True}
    assert "there are: v0001, v0002" in run("diff", DATASET, "v0001", "v0009", code=1).stderr
    assert "train/" in run("inspect", f"{DATASET}/v0001", "-n", 1).stdout

    shard = next(name for name in server.find(f"{DATASET}/v0002/captions") if name.endswith(".parquet"))
    server.pipe_file(shard, server.cat_file(shard)[:-1] + b"X")
    found = json.loads(run("verify", DATASET, "--json", code=1).stdout)
    assert {f["check"] for f in found} == {"shard"}


@pytest.mark.slow
def test_a_rebuild_killed_while_it_uploads_goes_on(server: Any, world: Path, home: Path, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/killed"
    arguments = ("rebuild", world, "--out", url, "--runner", "threads")
    with (tmp_path / "log").open("wb") as log:
        child = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        while not (begun := [name for name in server.find(url) if name.endswith(".parquet")]):
            server.invalidate_cache()
            assert child.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.001)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    server.invalidate_cache()
    assert begun
    if not server.exists(f"{url}/v0001/manifest.json"):  # else the upload was quicker than we
        assert "There is no data set at" in run("inspect", url, code=1).stderr
    run(*arguments)
    assert "every check passed" in run("verify", url).stdout
    assert server.cat_file(f"{url}/latest") == b"v0001\n"
    server.invalidate_cache()
    assert not server.exists(f"{url}/v0001/.publishing")


@pytest.mark.slow
def test_training_by_url_is_noted_in_the_store(server: Any, world: Path, home: Path, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/trained"
    run("rebuild", world, "--out", url, "--runner", "threads")
    (tmp_path / "short.yaml").write_text(
        "train: {stage0_epochs: 1, stage1_epochs: 1, stage2_epochs: 1}\n", encoding="utf-8"
    )
    run("train", url, "--out", tmp_path / "run", "--config", tmp_path / "short.yaml")
    scores = json.loads(run("evaluate", tmp_path / "run", url, "--json").stdout)
    assert scores["queries"] > 0
    assert json.loads(run("search", tmp_path / "run", f"{url}/v0001", "a roof", "--json").stdout)["results"]
    (note,) = server.find(f"{url}/runs")
    assert json.loads(server.cat_file(note))["version"] == "v0001"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rebuild", "s3://no-such-bucket/x", "--out", "{tmp}/d"], "s3://no-such-bucket/x is not there"),
        (["rebuild", f"s3://{BUCKET}/nothing", "--out", "{tmp}/d"], f"s3://{BUCKET}/nothing holds nothing"),
        (["rebuild", "{tmp}", "--out", "s3://no-such-bucket/x"], "s3://no-such-bucket/x is not there"),
    ],
)
@pytest.mark.slow
def test_a_rebuild_that_cannot_reach_a_store_says_one_sentence(
    server: Any, home: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = run(*(argument.format(tmp=tmp_path) for argument in arguments), code=1)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("read source")]
    assert len(lines) == 1
    assert lines[0].startswith(f"georefine: {said}")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["verify", "s3://no-such-bucket/x"], 1, "s3://no-such-bucket/x is not there"),
        (["inspect", f"s3://{BUCKET}/nothing"], 1, f"There is no data set at s3://{BUCKET}/nothing"),
        (["inspect", f"s3://{BUCKET}/nothing/v0003"], 1, "no complete version v0003; there are: none yet"),
        (["inspect", "http://host/x"], 2, "http://host/x is neither a path nor a URL"),
        (["rebuild", SOURCE, "--out", f"{SOURCE}/train/x", "--plan"], 2, "lies among the images"),
    ],
)
def test_a_url_that_cannot_be_read_is_one_sentence(
    server: Any, home: Path, arguments: list[str], code: int, said: str
) -> None:
    done = run(*arguments, code=code)
    (line,) = done.stderr.splitlines()
    assert line.startswith("georefine: ")
    assert said in line
    assert done.stdout == ""
