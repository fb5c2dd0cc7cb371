"""What a trained run makes of a caption: galleries are those of `georefine search`, kept with the run."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from test_experts_examples import write_tiny
from test_experts_trainer import TINY, quiet

from data.shards import open_version
from experts.checkpoint import load_checkpoint
from experts.search import open_gallery, search
from experts.trainer import train
from review.model import RunIndex

T = TypeVar("T")
CPU = torch.device("cpu")
TEXT = "A red round roof seen here."


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(dataset, folder, TINY, progress=quiet)
    return folder


@pytest.fixture
def index(dataset: Path, run: Path) -> Iterator[RunIndex]:
    found = RunIndex(run, open_version(dataset))
    yield found
    found.close()


def waited(ask: Callable[[], T | None]) -> T:
    """The answer, once the images are embedded."""
    end = time.monotonic() + 60
    while (found := ask()) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def test_it_finds_what_search_finds(index: RunIndex, dataset: Path, run: Path) -> None:
    own = open_version(dataset).read("captions", split="test", columns=["image_id"]).to_pylist()[0]["image_id"]
    look = waited(lambda: index.look(TEXT, own, "test"))
    expected = search(run, dataset, TEXT, 8)
    assert [hit.image_id for hit in look.hits] == [hit.image_id for hit in expected.hits]
    assert [hit.score for hit in look.hits] == pytest.approx([hit.score for hit in expected.hits], abs=1e-5)
    assert look.gate == pytest.approx(expected.gate, abs=1e-6)
    assert look.rank is not None
    assert look.positive is not None
    assert all(not hit.own for hit in look.negatives)
    unknown = waited(lambda: index.look(TEXT, "no such image", "test"))
    assert (unknown.rank, unknown.positive, unknown.negatives) == (None, None, ())


def test_galleries_are_kept_with_the_run_and_read_back(index: RunIndex, dataset: Path, run: Path) -> None:
    tile = "train/satellite/0000.png~aug0"
    look = waited(lambda: index.look(TEXT, tile, "train"))
    assert look.rank is not None  # a tile is judged by the place of its original
    kept = {path: path.stat().st_mtime_ns for path in (run / "gallery").glob("*.arrow")}
    gallery = open_gallery(run, load_checkpoint(run, CPU), open_version(dataset), "train", CPU)
    assert {path: path.stat().st_mtime_ns for path in (run / "gallery").glob("*.arrow")} == kept
    assert len(gallery) == 24


def test_suspects_are_of_other_buildings_and_above_the_margin(index: RunIndex) -> None:
    suspects = waited(index.suspects)
    assert suspects.looked_at == suspects.captions == 24
    for suspect in suspects.found:
        assert not suspect.hit.own
        assert suspect.hit.score > suspect.positive - TINY.relative_margin * abs(suspect.positive)
