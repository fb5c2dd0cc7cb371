"""The terminal view: the chain with word diffs, pipeable, and no control character of a caption gets through."""

import io
import re
from pathlib import Path

import pytest
from review_dataset import write_version
from rich.console import Console

from georefine.inspect import show
from review.decisions import REVIEWS, DecisionLog, Draft, source_hash
from schemas.errors import DatasetError, UsageError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect") / "ds"
    write_version(folder)
    return folder


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_a_pipe_gets_plain_text_with_marked_differences(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(dataset, "drone", n=2) == 2
    text = printed(capsys)
    assert "[- on the left-]" in re.sub(r"\s+", " ", text)
    assert "\x1b" not in text
    assert text.count("gates: 3 passed, 0 failed (rules)") == 2


def test_filters(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(dataset, status="fallback", n=100) == 4
    assert "✕ colour" in printed(capsys)
    assert show(dataset, "ground", "kept", 100) == 4
    assert show(dataset, "ground", "empty") == 0
    assert "No caption" in printed(capsys)


def test_control_characters_of_captions_are_written_out(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(dataset, "satellite", n=1000)
    text = printed(capsys)
    assert "⟨U+202E⟩" in text
    assert "\u202e" not in text
    assert "<script>window.pwned" in text


def test_a_terminal_gets_colours_and_escapes_stay_ours(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("pydoc.pager", out.write)
    console = Console(file=out, force_terminal=True, width=80, color_system="standard")
    assert show(dataset, "satellite", split="train", n=3, console=console) == 3
    assert "\x1b[9;31m on the left" in out.getvalue()


def test_decisions_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_version(tmp_path / "ds")
    log = DecisionLog(tmp_path / "ds" / REVIEWS)
    raw = "A grey roof, 1 trees."
    log.save([Draft("train/drone/0001/view 1.jpeg#1", "edit", raw, "New.", "v0001", source_hash(raw), 0)], "ann\x1b[2J")
    log.save([Draft("train/drone/0002/view 2.jpeg#1", "accept", raw, raw, "v0001", source_hash(raw), 0)], "bob")
    log.close()
    show(tmp_path / "ds", "drone", n=100)
    text = printed(capsys)
    assert "decision: edit by ann⟨U+001B⟩[2J" in text
    assert "decision: accept by bob" in text
    assert text.count("stale: the source text") == 1


@pytest.mark.parametrize("wrong", [{"platform": "moon"}, {"status": "nice"}, {"n": 0}, {"split": "x"}])
def test_wrong_usage_is_one_sentence(dataset: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        show(dataset, **wrong)  # type: ignore[arg-type]


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no data set"):
        show(tmp_path / "none")
