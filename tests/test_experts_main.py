"""`python -m experts` on a bare machine: torch, numpy, pyarrow, pillow, the standard library, and nothing else."""

import json
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_experts_examples import write_tiny
from test_experts_trainer import TINY

from experts.__main__ import main
from schemas.config import config_dict

ROOT = Path(__file__).resolve().parents[1]

BLOCKED = """
import importlib.machinery, sys
blocked = set({blocked!r})
finders = list(sys.meta_path)
class Bare:
    find_distributions = staticmethod(importlib.machinery.PathFinder.find_distributions)
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            return None  # as if it were not installed, for torch asks whether some packages are
        return next((spec for finder in finders if (spec := finder.find_spec(name, path, target))), None)
sys.meta_path[:] = [Bare()]
import runpy
sys.argv = ["experts", *sys.argv[1:]]
runpy.run_module("experts", run_name="__main__")
"""


def other_modules() -> set[str]:
    """Installed top-level modules that belong neither to the four packages nor to what these require, nor to us."""
    wanted, done = ["torch", "numpy", "pyarrow", "pillow"], set[str]()
    while wanted:
        name = wanted.pop().lower().replace("_", "-")
        if name in done:
            continue
        done.add(name)
        for line in distribution(name).requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return {
        module
        for module, names in packages_distributions().items()
        if not any(name.lower().replace("_", "-") in {*done, "georefine"} for name in names)
    }


def bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = BLOCKED.format(blocked=sorted(other_modules()))
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("dataset"))


@pytest.mark.slow
def test_train_evaluate_and_search_with_everything_else_blocked(dataset: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"train": {**config_dict(TINY), "stage0_epochs": 1}}))
    run = tmp_path / "run"
    trained = bare("train", str(dataset), "--out", str(run), "--config", str(config), "--seed", "3")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == ""
    assert "val recall@1" in trained.stderr
    scored = bare("evaluate", str(run), str(dataset), "--json", "--cues")
    assert scored.returncode == 0, scored.stderr
    assert list(json.loads(scored.stdout)) == ["t2i", "i2t", "per_platform", "chance", "queries", "gallery", "cues"]
    found = bare("search", str(run), str(dataset), "a red roof", "--top", "3", "--json")
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["results"]) == 3
    no_yaml = bare("train", str(dataset), "--out", str(run), "--config", str(ROOT / "pyproject.toml"))
    assert no_yaml.returncode == 2
    assert "pyyaml" in no_yaml.stderr


def test_the_block_blocks() -> None:
    assert {"prefect", "spacy", "yaml", "pandas", "rich"} <= other_modules()
    assert not {"torch", "numpy", "pyarrow", "PIL", "experts"} & other_modules()


def test_exit_codes_and_sentences(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path), str(dataset)]) == 1
    assert main(["train", str(dataset), "--out", str(tmp_path), "--seed", "-1"]) == 2
    assert main(["train", str(tmp_path), "--out", str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("Error: ") for line in lines)
    with pytest.raises(SystemExit) as wrong:
        main(["evaluate"])
    assert wrong.value.code == 2


def test_a_reader_that_has_seen_enough_and_an_interrupt_are_no_tracebacks(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"train": {**config_dict(TINY), "stage1_epochs": 0, "stage2_epochs": 0}}))
    run = tmp_path / "run"
    assert main(["train", str(dataset), "--out", str(run), "--config", str(config)]) == 0
    command = f"set -o pipefail; {sys.executable} -W error -m experts evaluate {run} {dataset} | true"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("experts.trainer.train", interrupted)
    capsys.readouterr()
    assert main(["train", str(dataset), "--out", str(run)]) == 130
    assert capsys.readouterr().err == "Interrupted: nothing unfinished is visible; train goes on with --resume.\n"


def test_the_table_for_a_person(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"train": {**config_dict(TINY), "stage1_epochs": 0, "stage2_epochs": 0}}))
    assert main(["train", str(dataset), "--out", str(tmp_path), "--config", str(config)]) == 0
    assert main(["evaluate", str(tmp_path), str(dataset)]) == 0
    table = capsys.readouterr().out
    assert "12 queries, 12 gallery images" in table
    assert "chance                 25.00" in table
    assert main(["evaluate", str(tmp_path), str(dataset), "--robustness"]) == 0
    assert capsys.readouterr().out.startswith(table)
    assert main(["evaluate", str(tmp_path), str(dataset), "--robustness", "--json"]) == 0
    worse = json.loads(capsys.readouterr().out)["robustness"]
    assert {"clean", "blur", "jpeg", "mean"} <= worse.keys()
    assert main(["evaluate", str(tmp_path), str(dataset), "--cues"]) == 0
    steadied = capsys.readouterr().out
    assert steadied.startswith(table)
    assert [line.split()[0] for line in steadied.splitlines()[-4:]] == ["plain", "crops", "flight", "crops+flight"]
    again = tmp_path / "again"
    config.write_text(json.dumps({"train": {**config_dict(TINY), "stage1_epochs": 1, "stage2_epochs": 0}}))
    trained = ["train", str(dataset), "--out", str(again), "--config", str(config), "--trunks", str(tmp_path)]
    assert main(trained) == 0
    assert len((again / "metrics.jsonl").read_text().splitlines()) == 1
    assert main(["search", str(tmp_path), str(dataset), "a blue roof", "--top", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3  # training speaks to stderr alone
