"""The partition: which folder and file name is which platform, role and split; shards and splits by hash."""

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.partition import Place, differences, gaps, part_of, place_of, split_of
from schemas.config import PartitionConfig
from schemas.records import Platform, Role

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
CONFIG = PartitionConfig(val_fraction=0.0)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("train/satellite/0839/0839.jpg", Place("0839", "satellite", "train", "train")),
        ("train/drone/0839/image-01.jpeg", Place("0839", "drone", "train", "train")),
        ("train/street/0839/1.jpg", Place("0839", "ground", "train", "train")),
        ("train/google/0839/x y.jpg", Place("0839", "ground", "train", "train")),
        ("test/gallery_drone/0001/image-01.jpeg", Place("0001", "drone", "test", "gallery")),
        ("test/query_satellite/0001/0001.jpg", Place("0001", "satellite", "test", "query")),
        ("test/gallery_street/0001/3.jpg", Place("0001", "ground", "test", "gallery")),
        ("test/street/0001/3.jpg", Place("0001", "ground", "test", "gallery")),
        ("train/0839/image-43.jpeg", Place("0839", "drone", "train", "train")),
        ("train/0839/IMAGE-43.JPEG", Place("0839", "drone", "train", "train")),
        ("train/0839/0839.jpg", Place("0839", "satellite", "train", "train")),
        ("train/0839/0840.jpg", Place("0839", "ground", "train", "train")),
        ("test/0001/image-1x.jpeg", Place("0001", "ground", "test", "gallery")),
        ("test/a+b/a+b.png", Place("a+b", "satellite", "test", "gallery")),
        ("test/new\nline/no extension", Place("new\nline", "ground", "test", "gallery")),
    ],
)
def test_place_of(path: str, place: Place) -> None:
    assert place_of(path, CONFIG) == place


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("image.jpg", "outside train/ and test/"),
        ("other/satellite/0839/0839.jpg", "outside train/ and test/"),
        ("train/x.jpg", "not directly in a building's folder"),
        ("train/satellite/0839.jpg", "not directly in a building's folder"),
        ("test/query_drone/0839.jpg", "not directly in a building's folder"),
        ("train/satellite/0839/more/0839.jpg", "not directly in a building's folder"),
        ("train/aerial/0839/0839.jpg", "folder 'aerial' is none of satellite, drone, street, google"),
    ],
)
def test_files_that_belong_nowhere_say_why(path: str, why: str) -> None:
    place = place_of(path, CONFIG)
    assert isinstance(place, str)
    assert why in place


def test_folders_and_patterns_come_from_the_config() -> None:
    config = PartitionConfig(folders={"uav": "drone"}, flat_patterns={r"sat_.*": "satellite"}, val_fraction=0)
    assert place_of("train/uav/1/a.jpg", config) == Place("1", "drone", "train", "train")
    assert place_of("train/1/sat_3.jpg", config) == Place("1", "satellite", "train", "train")
    assert "matches no pattern" in str(place_of("train/1/other.jpg", config))


def test_official_names_of_the_test_split() -> None:
    names = REAL / "university1652_gallery_name.txt.gz"
    if not names.exists():
        pytest.skip("no real file names here (../shared/real)")
    places = [
        place_of("test/gallery_drone/" + line.strip().rpartition("gallery_drone/")[2], CONFIG)
        for line in gzip.decompress(names.read_bytes()).decode().splitlines()
    ]
    assert len(places) == 51_355
    assert len({place.building_id for place in places if isinstance(place, Place)}) == 951
    assert {type(place) for place in places} == {Place}


@given(st.text(), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_larger_validation_share_keeps_the_smaller(building: str, one: float, other: float) -> None:
    low, high = sorted([one, other])
    assert split_of(building, high) == "val" or split_of(building, low) == "train"


@given(st.text(), st.integers(1, 1000))
def test_every_building_has_one_shard(building: str, parts: int) -> None:
    assert 0 <= part_of(building, parts) < parts
    assert part_of(building, 1) == 0


def test_splits_and_shards_are_pinned_even_and_independent() -> None:
    """Pinned: another hash would move buildings between train and val of people's data sets."""
    ids = [f"{n:04d}" for n in range(1652)]
    val = [i for i in ids if split_of(i, 0.1) == "val"]
    assert 0.08 < len(val) / len(ids) < 0.12
    assert val[:5] == ["0000", "0003", "0038", "0039", "0067"]
    shares = Counter(part_of(i, 4) for i in val)
    assert set(shares) == {0, 1, 2, 3}
    assert min(shares.values()) > len(val) / 8
    assert split_of("\udcff", 0.5) in ("train", "val")


def test_differences_from_the_official_tables() -> None:
    folders: Counter[str] = Counter({"train/drone": 1, "test/gallery_drone": 1})
    counts: dict[tuple[Role, Platform], tuple[int, int, int]] = {
        ("train", "drone"): (1, 3, 0),
        ("query", "drone"): (1, 0, 0),
    }

    def told(**config: Any) -> list[str]:
        return differences(folders, lambda: counts, PartitionConfig(**config))

    assert told() == []
    university = told(official_counts="university-1652")
    assert "train/drone: 1 images, university-1652 has 37,854." in university
    assert len(university) == 10
    geotext = told(official_counts="geotext-1652")
    assert "train/drone: 3 captions, geotext-1652 has 113,562." in geotext
    assert "gallery/drone: 0 images, geotext-1652 has 51,355." in geotext
    assert len(geotext) == 18


def test_gaps_name_lacking_platforms_and_buildings_in_both_parts() -> None:
    notes = gaps(
        {("train", "drone"): ["1"], ("val", "drone"): ["2"], ("train", "satellite"): ["1"], ("test", "drone"): ["1"]}
    )
    assert "train: 1 of 2 buildings have no satellite image (2)." in notes
    assert notes[-1] == "1 buildings are in train and in test (1): test scores will be too good."


def test_a_building_s_name_cannot_break_a_note_into_lines() -> None:
    notes = gaps({("train", "drone"): ["a\nb", "c"], ("train", "satellite"): ["c"]})
    assert notes[0] == r"train: 1 of 2 buildings have no satellite image ('a\nb')."
