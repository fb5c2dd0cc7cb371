"""Two processes of torchrun, on the CPU, against one with the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_experts_examples import write_tiny

from experts.parallel import average_gradients, gather, part, rank, ranks, told_by_first
from experts.trainer import train
from schemas.config import TrainConfig, build

ROOT = Path(__file__).resolve().parents[1]
STAGES = {"image_size": 16, "width": 16, "hard_negatives": 2, "stage0_epochs": 0, "stage1_epochs": 3}


def torchrun(config: dict[str, Any], dataset: Path, run: Path, processes: int) -> "subprocess.CompletedProcess[str]":
    file = run.with_suffix(".json")
    file.write_text(json.dumps({"train": config}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "experts", "train", str(dataset), "--out", str(run), "--config", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, env=environment, check=False)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"batch": 8, "stage2_epochs": 2}, id="a step an epoch, cached features"),
        pytest.param({"batch": 11, "stage2_epochs": 2, "end_to_end": True}, id="odd parts, live"),
    ],
)
def test_two_processes_train_like_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    dataset = write_tiny(tmp_path / "dataset")
    config = {**STAGES, **changes}
    train(dataset, tmp_path / "one", build(TrainConfig, config), progress=lambda *line: None)
    done = torchrun(config, dataset, tmp_path / "two", 2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert len(losses(tmp_path / "two")) == 5
    one, two = (torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("one", "two"))
    for name, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], value, atol=2e-4, rtol=1e-3)
    told = [line for line in done.stderr.splitlines() if line.startswith("experts ")]
    assert len(told) == 3, "one line an epoch, from the first process alone"
    assert done.stderr.count("val recall@1") == 5 + 1


@pytest.mark.slow
def test_the_trunk_trains_in_two_processes_and_too_many_are_refused(tmp_path: Path) -> None:
    dataset = write_tiny(tmp_path / "dataset", train=3, val=2)
    config = {**STAGES, "batch": 4, "stage0_epochs": 2, "stage1_epochs": 1, "stage2_epochs": 1}
    done = torchrun(config, dataset, tmp_path / "run", 2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(loss > 0 for loss in losses(tmp_path / "run"))
    assert len(losses(tmp_path / "run")) == 4
    refused = torchrun({**config, "batch": 2, "stage0_epochs": 1}, dataset, tmp_path / "refused", 3)
    assert refused.returncode != 0
    assert "cannot be dealt to 3 processes" in refused.stderr
    assert not (tmp_path / "refused" / "checkpoint.pt").exists()


def test_outside_torchrun_nothing_is_shared() -> None:
    rows = torch.arange(5.0)
    assert (ranks(), rank()) == (1, 0)
    assert part(rows) is rows or torch.equal(part(rows), rows)
    assert gather(rows, 5) is rows
    assert told_by_first({"a": 1}) == {"a": 1}
    weight = torch.nn.Parameter(rows)
    weight.grad = torch.ones(5)
    average_gradients([weight])
    assert torch.equal(weight.grad, torch.ones(5))
