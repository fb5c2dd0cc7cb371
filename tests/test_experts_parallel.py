"""Two processes under torchrun end where one does: the same batches, the negatives of both, the mean gradient."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_experts_examples import write_tiny
from test_experts_trainer import TINY, quiet

from experts.checkpoint import load_checkpoint
from experts.parallel import average_gradients, gather, part, rank, ranks, told_by_first
from experts.trainer import train
from schemas.config import TrainConfig, config_dict

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node 2 -m experts …` on this machine, in a session of its own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command += ["--master-port", str(free_port()), "-m", "experts", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False, env=environment)


def test_alone_nothing_is_gathered_nor_split() -> None:
    rows = torch.arange(5)
    assert (rank(), ranks()) == (0, 1)
    assert torch.equal(part(rows), rows)
    assert gather(rows, 5) is rows
    assert told_by_first("line") == "line"
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    average_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 2.0]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"end_to_end": True, "stage2_epochs": 1}])
def test_two_ranks_train_as_one_process(tmp_path: Path, changes: dict[str, Any]) -> None:
    dataset = write_tiny(tmp_path / "dataset", train=9, val=3)  # batches that do not split evenly
    config: TrainConfig = dataclasses.replace(TINY, stage0_epochs=1, **changes)
    (tmp_path / "config.json").write_text(json.dumps({"train": config_dict(config)}))
    two = torchrun("train", str(dataset), "--out", str(tmp_path / "two"), "--config", str(tmp_path / "config.json"))
    assert two.returncode == 0, two.stderr
    assert two.stderr.count("experts 1/") + two.stderr.count("experts 2/") == 1, "one rank speaks"
    train(dataset, tmp_path / "one", config, progress=quiet)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    one, other = (load_checkpoint(tmp_path / run, torch.device("cpu")).model.state_dict() for run in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-2, atol=2e-3, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.slow
def test_processes_that_do_not_find_each_other_say_so(tmp_path: Path) -> None:
    dataset = write_tiny(tmp_path / "dataset", train=2, val=1)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASTER_")}
    alone = subprocess.run(
        [sys.executable, "-m", "experts", "train", str(dataset), "--out", str(tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**environment, "WORLD_SIZE": "2", "RANK": "1"},
    )
    assert alone.returncode == 1
    assert "processes of torchrun cannot join" in alone.stderr
