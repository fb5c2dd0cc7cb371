"""Places of things: what a rewrite puts elsewhere than its source does, and that honest rewrites are left alone."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refine.places import Place, misplaced
from refine.remap import remap
from refine.rules import rewrite
from schemas.symmetry import Symmetry

REAL = Path(__file__).parents[2] / "shared" / "real"

HONEST = [
    (
        "A pond lies on the left of the image; a road runs along the right.",
        "Left is a pond, with the road to the right.",
    ),
    (
        "On the left side of the building, there is a car park. On the right side, a lawn.",
        "A lawn lies right of the building and a car park left of it.",
    ),
    ("The upper left corner holds a pond.", "A pond fills the north-west corner."),
    ("A tower can be seen at the upper middle.", "A tower stands at the top."),
    ("A road leads from the lower left to the upper right.", "A road runs to the upper right."),
    ("A car park is on the left and another on the right.", "A car park lies on the right."),
    ("A car park lies on the left. Another is on the right.", "A car park lies on the right."),
    ("To the right of the pond is a tower.", "To the left of the tower is a pond."),
    ("On the left stands a tower. To its right is a pond.", "A pond lies to the right of the tower."),
    ("A pond with a statue on the left. It fills the right.", "On the right lies a pond, a statue on its left."),
    ("On the left is a car park. Cars are parked next to the building.", "Cars stand on the left."),
    ("A street comes in from the left. Trees line it.", "A street leads off to the right."),
    ("The road on the left is wide. The road on the right is narrow.", "A narrow road lies on the right."),
    ("A lower left building has a court. A pool is on the right side of the building.", "A pool lies on the left."),
    ("There are trees around the building. A tree stands on the left.", "A tree stands on the right."),
]
FALSE = [
    (
        "On the lower left there is a canal.",
        "A canal runs at the upper right.",
        ("canal: upper right, the source says lower left",),
    ),
    (
        "A pond lies in the upper part. A car park is in the lower part.",
        "At the top is a car park, and at the bottom is a pond.",
        ("car park: top, the source says bottom", "pond: bottom, the source says top"),
    ),
    ("In the north there is a lake.", "A lake lies to the south.", ("lake: bottom, the source says top",)),
    (
        "There is a palm tree at the middle right.",
        "A palm tree stands at the lower right.",
        ("palm tree: lower right, the source says middle right",),
    ),
    (
        "In the center of the image is a building. On the right side of the building is a pool.",
        "A pool lies on the left.",
        ("pool: left, the source says right",),
    ),
    (
        "On the left side of the image, there is a road. Next to the building, there is a tower.",
        "A tower stands on the left.",
        ("tower: left, where the source has road",),
    ),
]


@pytest.mark.parametrize(("source", "reply"), HONEST)
def test_an_honest_rewrite_misplaces_nothing(source: str, reply: str) -> None:
    assert misplaced(source, reply) == ()


@pytest.mark.parametrize(("source", "reply", "told"), FALSE)
def test_a_thing_in_another_place_is_named(source: str, reply: str, told: tuple[str, ...]) -> None:
    assert misplaced(source, reply) == told


@pytest.mark.parametrize("text", ["", "A pond.", "On the left", "left right left", "\x00 on the left of \ud7ff", "左"])
def test_any_text_is_read(text: str) -> None:
    assert misplaced(text, text) == ()


VOCABULARY = "a the pond tower road on at left right upper lower is stands and . , building with of to"
WORDS = st.lists(st.sampled_from(sorted(VOCABULARY.split())), max_size=25).map(" ".join)


@given(WORDS)
@settings(max_examples=150)
def test_no_text_contradicts_itself(text: str) -> None:
    assert misplaced(text, text) == ()


CELLS = st.builds(
    Place, st.sampled_from(("left", "middle", "right", "")), st.sampled_from(("top", "middle", "bottom", ""))
)


@given(CELLS, CELLS)
def test_contradiction_is_symmetric_and_a_place_agrees_with_itself(one: Place, other: Place) -> None:
    assert one.contradicts(other) == other.contradicts(one)
    assert not one.contradicts(one)


@pytest.mark.parametrize("noun", ["pond", "tower", "car park", "canal", "tennis court", "bus stop"])
@pytest.mark.parametrize("place", ["upper left", "lower right", "left", "upper right", "lower left", "right"])
def test_a_turned_place_contradicts_its_source(noun: str, place: str) -> None:
    source = f"In the center of the image is a house. On the {place} side of the image, there is a {noun}."
    turned = remap(source, Symmetry.R180).text
    assert len(misplaced(source, turned)) == 1
    assert misplaced(source, source) == ()


def captions() -> list[str]:
    names = ("geotext_captions", "orientation_dev", "related_cvgtext_street_captions")
    files = [REAL / f"{name}.jsonl" for name in names]
    if not all(file.exists() for file in files):
        pytest.skip("no ../shared/real here")
    return [json.loads(line)["text"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def test_real_captions_do_not_contradict_themselves_in_another_order_or_cut() -> None:
    for caption in captions():
        sentences = caption.split(". ")
        assert misplaced(caption, ". ".join(reversed(sentences))) == ()
        assert misplaced(caption, rewrite(caption, "drone").caption) == ()


def test_good_rewrites_of_others_are_left_alone() -> None:
    file = REAL / "rewrites_dev.jsonl"
    if not file.exists():
        pytest.skip("no ../shared/real here")
    for line in file.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        if case["label"] == "good":
            texts = [case["reply"]["caption"], *case["reply"]["queries"]]
            assert not any(misplaced(case["source"], text) for text in texts), case["id"]
