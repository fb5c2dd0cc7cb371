"""Corruptions: shape, repetition, order of severity; and the recall they leave."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_experts_examples import write_tiny
from test_experts_trainer import TINY, quiet
from typer.testing import CliRunner

from experts import robustness as module
from experts.robustness import CORRUPTIONS, SEVERITIES, Corruption, Pixels, as_lines, corrupt, plasma, robustness
from experts.trainer import train
from georefine.cli import app
from schemas.errors import TrainingError


def photo(side: int = 224) -> Pixels:
    """Smooth colours, edges and texture."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(40 * x * y), (x > 0.5) * 1.0, np.cos(9 * x)]
    return np.stack([(100 + 90 * wave).astype(np.uint8) for wave in waves], axis=2)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_worse_is_worse_and_the_same_again_is_the_same(corruption: Corruption) -> None:
    pixels = photo()
    before = pixels.copy()
    harm = []
    for severity in SEVERITIES:
        found = corrupt(pixels, corruption, severity, "0839/image-01.jpeg")
        assert (found.shape, found.dtype) == (pixels.shape, np.uint8)
        assert np.array_equal(found, corrupt(pixels, corruption, severity, "0839/image-01.jpeg"))
        harm.append(float(np.square(found.astype(float) - pixels).mean()))
    assert harm == sorted(harm)
    assert len(set(harm)) == 5
    assert np.array_equal(pixels, before)
    other = corrupt(pixels, corruption, 3, "\udcff hostile")
    by_chance = corruption in ("noise", "occlusion", "fog")
    assert np.array_equal(other, corrupt(pixels, corruption, 3, "0839/image-01.jpeg")) != by_chance


@pytest.mark.parametrize("severity", SEVERITIES)
def test_strength_is_what_is_documented(severity: int) -> None:
    grey = np.full((224, 224, 3), 100, np.uint8)
    noisy = corrupt(grey, "noise", severity, "a").astype(float) / 255
    if severity < 3:  # beyond, too much is cut off at black and white
        assert float(noisy.std()) == pytest.approx(module.NOISE[severity - 1], rel=0.05)
    hidden = (corrupt(grey, "occlusion", severity, "a") == module.GREY).all(axis=2)
    assert float(hidden.mean()) == pytest.approx(module.OCCLUSION[severity - 1], abs=0.005)
    rows, columns = hidden.any(axis=1).sum(), hidden.any(axis=0).sum()
    assert rows == columns
    assert int(rows * columns) == int(hidden.sum())  # one square, wholly inside
    thickness = module.FOG[severity - 1][0]
    fog = corrupt(np.zeros_like(grey) + 255, "fog", severity, "a").astype(float) / 255
    cloud = plasma(224, module.FOG[severity - 1][1], _chance("fog/a"))
    assert fog[..., 0] == pytest.approx(np.clip((1 + thickness * cloud) / (1 + thickness), 0, 1), abs=1 / 254)


def _chance(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big"))


def slow_plasma(size: int, decay: float, chance: np.random.Generator) -> list[list[float]]:
    """Diamond-square, one point after the other, as the textbook has it."""
    field = [[0.0] * size for _ in range(size)]
    wobble, step = 100.0, size
    while step >= 2:
        half, cells = step // 2, size // step
        for kind in ("square", "across", "down"):
            moves = chance.uniform(-wobble, wobble, (cells, cells))
            for i in range(cells):
                for j in range(cells):
                    y = i * step + (0 if kind == "across" else half)
                    x = j * step + (0 if kind == "down" else half)
                    if kind == "square":
                        around = [
                            (y - half, x - half),
                            (y - half, x + half),
                            (y + half, x - half),
                            (y + half, x + half),
                        ]
                    else:
                        around = [(y - half, x), (y + half, x), (y, x - half), (y, x + half)]
                    mean = sum(field[a % size][b % size] for a, b in around) / 4
                    field[y][x] = mean + wobble * moves[i][j]
        step, wobble = half, wobble / decay
    return field


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.4, 1.7, 2.0]), st.integers(1, 33))
def test_plasma_is_the_textbook_fractal(seed: int, decay: float, side: int) -> None:
    found = plasma(side, decay, np.random.default_rng(seed))
    size = 2
    while size < side:
        size *= 2
    slow = np.array(slow_plasma(size, decay, np.random.default_rng(seed)))
    slow -= slow.min()
    assert found == pytest.approx((slow / slow.max())[:side, :side], abs=1e-5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(dataset, folder, TINY, progress=quiet)
    return folder


def test_the_form_of_the_answer(run: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, int, int]] = []
    found = robustness(run, dataset, progress=lambda stage, done, total, _: steps.append((stage, done, total)))
    assert list(found) == ["clean", *CORRUPTIONS, "mean"]
    names = ["r1", "r5", "r10", "score"]
    assert list(found["clean"]) == list(found["mean"]) == names
    for corruption in CORRUPTIONS:
        assert list(found[corruption]) == ["1", "2", "3", "4", "5"]
        assert all(list(row) == names for row in found[corruption].values())
    every = [found[corruption][str(severity)]["r1"] for corruption in CORRUPTIONS for severity in SEVERITIES]
    assert found["mean"]["r1"] == pytest.approx(sum(every) / 25)
    assert steps == [(stage, 12, 12) for stage in ("clean", *CORRUPTIONS)]
    assert len(as_lines(found)) == 7
    monkeypatch.setattr(module, "IMAGES_AT_ONCE", 5)
    assert robustness(run, dataset) == found


def test_what_hides_everything_leaves_nothing(run: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OCCLUSION", (1.0,) * 5)
    found = robustness(run, dataset)
    assert {row["r1"] for row in found["occlusion"].values()} == {0.0}  # all alike, and ties count against


def test_nothing_to_score_and_no_run_are_said(run: Path, tmp_path: Path) -> None:
    lone = write_tiny(tmp_path / "lone", train=2)
    with pytest.raises(TrainingError, match="nothing to evaluate"):
        robustness(run, lone)
    with pytest.raises(TrainingError, match=r"no checkpoint\.pt"):
        robustness(Path(shutil.copytree(lone, tmp_path / "copy")), lone)


def test_the_command_adds_a_key_and_nothing_else(run: Path, dataset: Path) -> None:
    plain = CliRunner().invoke(app, ["evaluate", str(run), str(dataset), "--json"])
    added = CliRunner().invoke(app, ["evaluate", str(run), str(dataset), "--json", "--robustness"])
    scores = json.loads(added.stdout)
    assert json.loads(plain.stdout) == {key: value for key, value in scores.items() if key != "robustness"}
    assert scores["robustness"] == robustness(run, dataset)
    table = CliRunner().invoke(app, ["evaluate", str(run), str(dataset), "--robustness"])
    assert "mean of the 25" in table.stdout
