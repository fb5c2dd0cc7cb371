"""Schedules: what prefect.yaml deploys really fires on a running Prefect server, and launches the training."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import yaml
from PIL import Image
from prefect import State, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.flows import load_flow_from_entrypoint
from prefect.states import Pending

from flows.rebuild import UNTRAINED, rebuild
from flows.schedule import ON_FAILURE, deployment_name, end_what_was_left, scheduled_rebuild, tell
from flows.server import _healthy, prefect_api

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 540  # seconds; a loaded machine takes minutes for a server, two workers, a rebuild and a training
QUICK = {"train": {"stage0_epochs": 1, "stage1_epochs": 1, "stage2_epochs": 1}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    noise = np.random.default_rng(3)
    for split, prefix in (("train", ""), ("test", "gallery_")):
        records = []
        for building in range(12):
            number = f"{building + 100 * (split == 'test'):04d}"
            for folder, name in (("satellite", f"{number}.jpg"), ("drone", "image-01.jpeg"), ("street", "1.jpg")):
                path = root / split / f"{prefix}{folder}" / number / name
                path.parent.mkdir(parents=True)
                Image.fromarray(noise.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(path)
                records.append({"image": path.relative_to(root).as_posix(), "caption": f"A hall with {building} cars."})
        (root / f"{split}.json").write_text(json.dumps(records), encoding="utf-8")
    return root


def test_prefect_yaml_deploys_flows_that_are_there_with_parameters_they_take() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    flows = {}
    for deployment in deployments:
        flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
        assert deployment["parameters"].keys() <= flow.parameters.properties.keys()
        assert deployment["concurrency_limit"]["limit"] == 1, "two rebuilds of one data set never overlap"
        assert flow.retries > 0
        assert tell in flow.on_failure_hooks
        assert tell in flow.on_crashed_hooks
        flows[f"{flow.name}/{deployment['name']}"] = deployment
    rebuilds, training = flows["rebuild/dataset"], flows["train/dataset"]
    assert rebuilds["parameters"]["train_deployment"] == "train/dataset"
    assert rebuilds["work_pool"]["name"] != training["work_pool"]["name"], "a GPU machine takes training only"
    assert rebuilds["schedules"]
    assert "schedules" not in training, "a rebuild launches it"


def test_a_failure_is_told_to_the_command_and_no_shell_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = FlowRun(flow_id=uuid4(), name="rebuild /data/x")
    state: State[Any] = State(type=StateType.FAILED, name="Failed", message="$(touch gone); no \udcff space left")
    monkeypatch.setenv(
        ON_FAILURE, f"{sys.executable} -c \"import sys; open('told', 'wb').write(sys.stdin.buffer.read())\""
    )
    monkeypatch.chdir(tmp_path)
    tell(scheduled_rebuild, run, state)
    said = (tmp_path / "told").read_text(encoding="utf-8")
    assert said == "georefine: rebuild run 'rebuild /data/x' ended as Failed: $(touch gone); no ? space left\n"
    assert [path.name for path in tmp_path.iterdir()] == ["told"]
    assert "ended as Failed" in capsys.readouterr().err


def test_data_sets_of_one_folder_name_have_deployments_of_their_own() -> None:
    assert deployment_name("/a/dataset") != deployment_name("/b/dataset")
    assert deployment_name("/a/dataset") == deployment_name("/a/dataset")
    assert deployment_name("s3://bucket/dataset").startswith("dataset-")


@pytest.mark.slow
def test_a_run_whose_process_was_killed_does_not_hold_the_place_of_the_next() -> None:
    with prefect_api(), get_client(sync_client=True) as client:
        flow_id = client.create_flow(scheduled_rebuild)
        ids = {}
        for name in ("here", "elsewhere"):
            ids[name] = client.create_deployment(flow_id, name, concurrency_limit=1)
            run = client.create_flow_run_from_deployment(ids[name])
            client.set_flow_run_state(run.id, Pending())
        assert [client.read_deployment(one).global_concurrency_limit.active_slots for one in ids.values()] == [1, 1]
        assert len(end_what_was_left("here")) == 1
        assert end_what_was_left("here") == []
        assert [client.read_deployment(one).global_concurrency_limit.active_slots for one in ids.values()] == [0, 1]


@pytest.mark.slow
def test_a_training_that_was_missed_is_made_up_for(source: Path, tmp_path: Path) -> None:
    out, runs = tmp_path / "dataset", tmp_path / "runs"
    with prefect_api():
        first = rebuild(str(source), str(out), QUICK, "threads")
        assert "train" not in rebuild(str(source), str(out), QUICK, "threads", str(runs)), "nothing changed"
        (out / ".work" / UNTRAINED).touch()  # as a rebuild leaves it that dies between publishing and training
        result = rebuild(str(source), str(out), QUICK, "threads", str(runs))
        assert (first["version"], result["new"], result["train"]["queries"]) == ("v0001", False, 36)
        assert not (out / ".work" / UNTRAINED).exists()


@contextmanager
def running(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is stopped, and waited for, at the end: a worker outlives SIGTERM if its server goes first."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def flow_runs(url: str) -> list[dict[str, Any]]:
    """Every flow run that the server knows of, without the dates still to come."""
    body = json.dumps({"sort": "EXPECTED_START_TIME_ASC", "limit": 200}).encode()
    request = urllib.request.Request(f"{url}/flow_runs/filter", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return [run for run in found if run["state_type"] != "SCHEDULED" or not run["auto_scheduled"]]


def deployments_of(source: Path, out: Path, runs: Path) -> str:
    """prefect.yaml of this project with the places of a test in it, and a rebuild every minute."""
    text = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    rebuilds, training = text["deployments"]
    rebuilds["parameters"] |= {"source": str(source), "out": str(out), "train_run": str(runs), "config": QUICK}
    rebuilds["parameters"]["runner"] = "threads"
    rebuilds["schedules"] = [{"cron": "* * * * *", "timezone": "UTC"}]
    training["parameters"] |= {"dataset": str(out), "run": str(runs / "by-hand")}
    return yaml.safe_dump(text)


@pytest.mark.slow
def test_a_schedule_fires_on_a_running_server_and_its_rebuild_launches_training_once(
    source: Path, tmp_path: Path
) -> None:
    out, runs = tmp_path / "dataset", tmp_path / "runs"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {"PREFECT_API_URL": url, "PREFECT_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    environment |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_LOGGING_LEVEL": "WARNING"}
    prefect = [sys.executable, "-m", "prefect"]
    deadline = time.monotonic() + PATIENCE

    def command(*arguments: str) -> None:
        done = subprocess.run(
            [*prefect, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    with ExitStack() as stack:
        start = [*prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        server = stack.enter_context(running(start, tmp_path / "server.log", environment))
        while not _healthy(url):
            assert server.poll() is None, (tmp_path / "server.log").read_text()[-3000:]
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.5)
        for pool in ("rebuilds", "training"):
            command("work-pool", "create", pool, "--type", "process")
        (tmp_path / "prefect.yaml").write_text(deployments_of(source, out, runs), encoding="utf-8")
        command("--no-prompt", "deploy", "--all", "--prefect-file", str(tmp_path / "prefect.yaml"))
        for pool in ("rebuilds", "training"):
            worker = [*prefect, "worker", "start", "--pool", pool, "--name", pool]
            stack.enter_context(running(worker, tmp_path / f"{pool}.log", environment))

        def finished(kind: str) -> list[dict[str, Any]]:
            done = [run for run in flow_runs(url) if run["name"].startswith(kind) and run["state_type"] == "COMPLETED"]
            failed = [run for run in flow_runs(url) if run["state_type"] in ("FAILED", "CRASHED")]
            assert not failed, [(run["name"], run["state"]["message"]) for run in failed]
            return done

        # The second rebuild finds nothing changed: it may finish before or after the training that the first launched.
        while not (finished("train") and len(finished("rebuild")) >= 2):
            assert time.monotonic() < deadline, [
                *((run["name"], run["state_name"]) for run in flow_runs(url)),
                *((tmp_path / f"{pool}.log").read_text()[-2000:] for pool in ("rebuilds", "training")),
            ]
            time.sleep(1)
        rebuilds, trainings = finished("rebuild"), [r for r in flow_runs(url) if r["name"].startswith("train")]

    assert all(run["auto_scheduled"] and run["work_pool_name"] == "rebuilds" for run in rebuilds)
    assert len(trainings) == 1, "only a rebuild that changed something is followed by training"
    assert trainings[0]["work_pool_name"] == "training"
    assert trainings[0]["parent_task_run_id"], "the page shows it under the rebuild that launched it"
    assert trainings[0]["parameters"]["dataset"] == str(out / "v0001")
    assert (runs / "v0001" / "checkpoint.pt").is_file()
    assert [path.name for path in out.glob("v0*")] == ["v0001"]


@pytest.mark.slow
def test_serve_trains_on_what_it_rebuilt_and_ends_at_ctrl_c(source: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "dataset", tmp_path / "quick.yaml"
    config.write_text(json.dumps(QUICK), encoding="utf-8")
    command = [sys.executable, "-m", "georefine", "serve", str(source), "--out", str(out), "--cron", "* * * * *"]
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen([*command, "--train", "--config", str(config)], cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "dataset-runs" / "v0001" / "checkpoint.pt").exists():
            said = (tmp_path / "serve.log").read_text(encoding="utf-8", errors="replace")[-3000:]
            assert server.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(1)
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=90) in (0, 130)
    assert [path.name for path in out.glob("v0*")] == ["v0001"]


def heeds(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return bool(int(re.findall(r"SigCgt:\s*(\w+)", status)[0], 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to ask who heeds a signal")
def test_serve_ends_quietly_when_the_system_stops_it(source: Path, tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    command = [sys.executable, "-m", "georefine", "serve", str(source), "--out", str(tmp_path / "dataset")]
    with running(command, log, dict(os.environ)) as server:
        deadline = time.monotonic() + PATIENCE
        while "own page" not in log.read_text(encoding="utf-8") or not heeds(server, signal.SIGTERM):
            assert server.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        time.sleep(2)  # into its loop
        server.terminate()
        assert server.wait(timeout=90) == 0
    said = log.read_text(encoding="utf-8").splitlines()
    assert [line.partition(" ")[0] for line in said] == ["Rebuilding", "Prefect's"], "no traceback, no warning"
