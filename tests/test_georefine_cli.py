"""The command line: help, exit codes, one sentence per error, filters, the whole chain on real images."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_in_vllm import stand_in_environment

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [
    *("demo", "sample", "rebuild", "verify", "diff", "inspect", "review", "train", "evaluate", "search", "submit"),
    *("strip", "refine-text", "check-replies", "serve", "config"),
]


def run(*arguments: object, text: str | None = None, limit: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "georefine", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, timeout=limit, check=False)


def test_help_lists_every_command_and_imports_no_room() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout
    code = (
        "import sys; sys.argv = ['georefine', '--help']\n"
        "from georefine.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = set('torch spacy prefect pyarrow numpy albumentations PIL'.split()) & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "Usage: georefine" in done.stdout
    assert "--help" in done.stdout


@pytest.mark.parametrize("arguments", [["--version"], ["rebuild", "--version"]])
def test_version(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout.split()[0]) == (0, "georefine")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nonsense"], 2, "nonsense"),
        (["rebuild"], 2, "SOURCE"),
        (["rebuild", "nowhere"], 2, "--out"),
        (["rebuild", "nowhere", "--out", "x", "--model", "y"], 2, "--refiner vllm"),
        (["rebuild", "nowhere", "--out", "x", "--keep", "0"], 2, "--keep"),
        (["rebuild", "nowhere", "--out", ""], 2, "The destination is empty"),
        (["rebuild", "", "--out", "x", "--plan"], 2, "The source is empty"),
        (["rebuild", "nowhere", "--out", os.fsdecode(b"\xff"), "--plan"], 2, "is no UTF-8"),
        (["serve", "nowhere", "--out", ""], 2, "The destination is empty"),
        (["serve", "nowhere", "--out", "x", "--cron", "at night"], 2, '"0 3 * * *" is three at night'),
        (["diff", "nowhere", "v0001", "v0002"], 1, "nowhere"),
        (["train", "x", "--out", "y", "--device", "tpu"], 2, "tpu"),
        (["rebuild", "x", "--out", "y", "--config", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["refine-text", "--platform", "submarine"], 2, "submarine"),
        (["evaluate", "nowhere", "nowhere"], 1, "nowhere"),
        (["search", "nowhere", "nowhere", "a roof"], 1, "nowhere"),
    ],
)
def test_errors_are_a_sentence_and_an_exit_code(arguments: list[str], code: int, words: str) -> None:
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rebuild", "nowhere", "--out", "{tmp}/d"], "nowhere"),
        (["rebuild", "{tmp}", "--out", "{tmp}/d"], "train/"),
        (["rebuild", "tests", "--out", "/proc/d"], "/proc/d"),
        (["rebuild", "{tmp}", "--out", "{tmp}/train/d"], "outside"),
        (["train", "nowhere", "--out", "{tmp}/r"], "nowhere"),
    ],
)
def test_a_flow_that_fails_says_one_sentence(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = run(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == (2 if words == "outside" else 1), done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("read source")]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("georefine: ")
    assert words in said[0]


def test_a_virtual_environment_with_vllm_is_used_through_its_link(tmp_path: Path) -> None:
    python = stand_in_environment(tmp_path / "venv", "api_server", "raise SystemExit('the stand-in was started')")
    assert Path(python).is_symlink()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    options = ("--platform", "drone", "--refiner", "vllm", "--model", tmp_path / "model", "--vllm-python", python)
    done = run("refine-text", *options, text="A roof.\n")
    assert done.returncode == 1
    assert "the stand-in was started" in done.stderr


def test_verify_lists_what_is_wrong() -> None:
    done = run("verify", "nowhere")
    assert (done.returncode, done.stderr) == (1, "")
    assert "nowhere" in done.stdout


def test_debug_adds_the_traceback() -> None:
    done = run("evaluate", "nowhere", "nowhere", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_configuration_prints_and_reads_back(tmp_path: Path) -> None:
    printed = run("config", "--print").stdout
    (tmp_path / "my.yaml").write_text(printed.replace("variants: 2", "variants: 7"), encoding="utf-8")
    again = run("config", "--config", tmp_path / "my.yaml").stdout
    assert again == printed.replace("variants: 2", "variants: 7")


@pytest.mark.slow
def test_a_caption_of_a_million_characters_is_one_line() -> None:
    text = "A red building stands on the left side of the road. " * 20_000
    done = run("strip", text=f"{text}\nA lawn.\n")
    assert done.returncode == 0, done.stderr
    assert [len(line) > 100_000 for line in done.stdout.splitlines()] == [True, False]
    assert "left" not in done.stdout


def test_strip_is_a_filter_line_by_line() -> None:
    lines = "A red roof stands on the left side.\n\nA lawn.\n\u00fcber \u2028 caf\u00e9\n"
    done = run("strip", text=lines)
    assert done.returncode == 0, done.stderr
    out = done.stdout.split("\n")
    assert len(out) == 5
    assert "left" not in out[0]
    assert out[1:] == ["", "A lawn.", "\u00fcber \u2028 caf\u00e9", ""]


def test_refine_text_prints_one_object_per_line() -> None:
    text = "The building on the left has a red roof.\n\nA parking lot with many cars lies next to the building.\n"
    done = run("refine-text", "--platform", "satellite", text=text)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [set(row) for row in rows] == [{"raw", "stripped", "refined", "queries", "status", "gates"}] * 3
    assert rows[1]["status"] == "empty"
    assert "left" not in rows[0]["refined"]


def test_check_replies_answers_every_line() -> None:
    good = {"caption": "A building with a red roof.", "queries": ["A red roof."]}
    rows = [
        {"platform": "satellite", "source": "The building has a red roof.", "reply": good},
        {"platform": "satellite", "source": "The building has a red roof.", "reply": "I cannot"},
    ]
    done = run("check-replies", text="".join(json.dumps(row) + "\n" for row in rows))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["passed"] for line in done.stdout.splitlines()] == [True, False]


def test_bytes_that_are_no_text_leave_every_line_json() -> None:
    command = [sys.executable, "-m", "georefine", "refine-text", "--platform", "drone"]
    done = subprocess.run(command, cwd=ROOT, input=b"A bad \xff hall\n", capture_output=True, check=True, timeout=300)
    assert json.loads(done.stdout.decode("utf-8"))["raw"] == "A bad \udcff hall"


@pytest.mark.slow
@pytest.mark.parametrize("moment", [2, 9])
def test_an_interrupt_is_one_sentence_and_leaves_nothing_running(moment: int, tmp_path: Path) -> None:
    assert run("sample", tmp_path / "source", "--buildings", 96).returncode == 0
    child = subprocess.Popen(
        [sys.executable, "-m", "georefine", "rebuild", str(tmp_path / "source"), "--out", str(tmp_path / "dataset")],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    time.sleep(moment)
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)  # hangs if anything that it started still holds its output
    assert "Traceback" not in said, said
    assert child.returncode == 130, said
    assert said.splitlines()[-1].startswith("georefine: interrupted"), said
    assert not list((tmp_path / "dataset").glob("v*"))


def test_an_interrupt_is_one_in_the_midst_of_a_serializer_too() -> None:
    code = """
import os, pydantic, signal
from georefine import cli
class Model(pydantic.BaseModel):
    @pydantic.model_serializer
    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)
@cli.app.command("serialize")
def serialize():
    Model().model_dump_json()
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.sys.argv = ["georefine", "serialize"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("georefine: interrupted")


@pytest.mark.slow
def test_output_closed_early_is_no_traceback() -> None:
    feed = "A red roof stands on the left side.\n" * 20000
    with subprocess.Popen(
        [sys.executable, "-m", "georefine", "strip"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        child.stdout.close()
        _, said = child.communicate(feed, timeout=120) if child.poll() is None else (None, "")
    assert "Traceback" not in said


@pytest.mark.slow
def test_the_whole_chain_on_real_images(mini: Path, tmp_path: Path) -> None:
    dataset, trained = tmp_path / "dataset", tmp_path / "run"
    assert run("rebuild", mini, "--out", dataset).returncode == 0
    done = run("verify", dataset, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    planned = run("rebuild", mini, "--out", dataset, "--plan")
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.count(" 0 recomputed, 0 dropped") == 3, planned.stdout
    (tmp_path / "bare.yaml").write_text("augment: {variants: 0}\n", encoding="utf-8")
    planned = run("rebuild", mini, "--out", dataset, "--plan", "--config", tmp_path / "bare.yaml")
    assert "configuration: augment.variants 2 -> 0" in planned.stdout
    assert run("rebuild", mini, "--out", dataset, "--config", tmp_path / "bare.yaml").returncode == 0
    lost = json.loads(run("diff", dataset, "v0001", "v0002", "--json").stdout)
    assert {change["kind"] for change in lost} == {"removed"}
    assert all("~aug" in change["caption_id"] for change in lost)
    shown = run("diff", dataset, "v0002", "v0001").stdout
    assert shown.splitlines()[-1] == f"{len(lost)} added, 0 removed, 0 changed"
    dataset = dataset / "v0001"
    (tmp_path / "short.yaml").write_text(
        "train: {stage0_epochs: 2, stage1_epochs: 1, stage2_epochs: 1}\n", encoding="utf-8"
    )
    done = run("train", dataset, "--out", trained, "--config", tmp_path / "short.yaml", "--seed", 3)
    assert done.returncode == 0, done.stderr
    for name in ("metrics.jsonl", "curves.png", "README.md"):
        assert (trained / name).stat().st_size > 0
    done = run("evaluate", trained, dataset, "--json")
    scores = json.loads(done.stdout)
    assert set(scores) == {"t2i", "i2t", "per_platform", "chance", "queries", "gallery"}
    assert set(scores["t2i"]) == {"r1", "r5", "r10", "score"}
    assert set(scores["chance"]) == {"r1", "r10"}
    assert 0 < scores["chance"]["r1"] < scores["chance"]["r10"] < 100
    found = json.loads(run("search", trained, dataset, "a white roof", "--top", 3, "--json").stdout)
    assert len(found["results"]) == 3
    assert abs(sum(found["gate"].values()) - 1) < 1e-4


@pytest.mark.slow
def test_the_demo_runs_twice_and_says_where_everything_is(tmp_path: Path) -> None:
    done = run("demo", "--out", tmp_path / "demo", "--buildings", 24, limit=560)
    assert done.returncode == 0, done.stderr[-3000:]
    for words in ("refined", "read", "fused", "chance", "ceiling", "colour histograms", "Try next", "georefine search"):
        assert words in done.stdout, done.stdout
    for name in ("source/train.json", "dataset/v0001/manifest.json", "run/curves.png"):
        assert (tmp_path / "demo" / name).is_file()
    again = run("demo", "--out", tmp_path / "demo", "--buildings", 24, limit=560)
    assert again.returncode == 0, again.stderr[-3000:]
    assert not (tmp_path / "demo" / "dataset" / "v0002").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["search", "nowhere", "nowhere", "--", "--version"], 1, "checkpoint"),
        (["train", "nowhere-else", "--out", "--debug"], 1, "nowhere-else"),
        (["diff", "--debug", "nowhere", "v0001", "v0002"], 1, "Traceback"),
        (["--debug", "evaluate", "nowhere", "nowhere"], 1, "Traceback"),
    ],
)
def test_version_and_debug_are_options_only_where_options_stand(arguments: list[str], code: int, said: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert ("Traceback" in done.stderr) == (said == "Traceback")


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path: Path) -> None:
    def ended(arguments: str, reader: str = "head -n 1") -> int:
        script = f"set -o pipefail; {sys.executable} -m georefine {arguments} | {reader} >/dev/null"
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        assert "Traceback" not in done.stderr
        assert "BrokenPipe" not in done.stderr
        return done.returncode

    source, dataset = tmp_path / "source", tmp_path / "dataset"
    assert ended(f"sample {source} --buildings 8", "true") == 0
    assert ended(f"rebuild {source} --out {dataset} --runner threads 2>&1") == 0
    assert (dataset / "v0001" / "manifest.json").is_file()  # it has made what it was asked for
    assert ended(f"rebuild {source} --out {dataset} --runner threads", "true") == 0
    assert ended(f"inspect {dataset} -n 200") == 0
    assert ended(f"inspect {dataset} -n 1", "true") == 0
    assert ended("verify nowhere", "true") == 1  # what is wrong stays wrong
