"""Which thing has which attributes, what goes around what, what rests on what; and that no text raises."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refine.registers.instances import holds, instances, relations, reversals, swapped, unrested

TWINS = "A tall mill with a red roof stands beside a low one with a green roof. Two grey sheds face three white sheds."
YARD = (
    "A ring road encircles the castle. A chapel with a small belfry stands on a mound, a boy on a horse rides round "
    "the well, and nets are tied to a jetty. Beyond the field, a path crosses the orchard."
)


def test_two_things_of_a_kind_are_two_instances() -> None:
    mills = [one for one in instances(TWINS) if one.concepts == ("object:factory",)]
    assert [one.traits["height"] for one in mills] == [{"0"}, {"1"}]
    assert [one.traits["object:roof/colour"] for one in mills] == [{"colour:red"}, {"colour:green"}]


@pytest.mark.parametrize(
    "says",
    [
        "A tall mill has a green roof.",
        "There is a low mill with a red roof.",
        "Three grey sheds stand there.",
        "A red-roofed mill is low.",
    ],
)
def test_an_attribute_of_the_other_twin_is_found(says: str) -> None:
    assert list(swapped(TWINS, says, says))


@pytest.mark.parametrize(
    "says",
    [
        "A tall mill has a red roof.",
        "Beside the low mill, whose roof is green, rises a high one roofed in red.",
        "Two sheds are grey.",
        "Three white sheds are there.",
        "A mill has a green roof.",
    ],
)
def test_the_right_twin_is_believed(says: str) -> None:
    assert list(swapped(TWINS, says, says)) == []


@pytest.mark.parametrize(
    ("says", "wrong"),
    [
        ("The castle encircles a ring road.", True),
        ("A road goes around the castle.", False),
        ("A ring road surrounds houses.", False),
        ("The orchard is crossed by a path.", False),
    ],
)
def test_relations_go_one_way(says: str, wrong: bool) -> None:
    assert bool(list(reversals(YARD, says))) == wrong


@pytest.mark.parametrize(
    ("says", "wrong"),
    [
        ("The nets hang on the chapel.", True),
        ("The nets are tied to the jetty.", False),
        ("A chapel stands on the mound.", False),
        ("A horse stands on the jetty.", True),
        ("A kite lies on the jetty.", False),  # an invention, for another gate
    ],
)
def test_things_rest_where_the_source_has_them_together(says: str, wrong: bool) -> None:
    assert bool(list(unrested(YARD, says))) == wrong


def test_a_whole_with_its_part() -> None:
    assert holds(YARD, ("object:church",), ("object:belfry",))
    assert not holds(YARD, ("object:belfry",), ("object:church",))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.text(alphabet="aeo -,.whitered ofroundby", max_size=80))
def test_no_text_raises(one: str, other: str) -> None:
    for text in (one, other):
        assert all(0 <= thing.first <= thing.at for thing in instances(text))
        assert all(r.one or r.other for r in relations(text))
    assert list(reversals(one, one)) == [] or relations(one)
    assert isinstance(list(swapped(one, other, other)), list)
    assert isinstance(list(unrested(one, other)), list)


def test_several_things_may_surround_one() -> None:
    source = "The open ground around the building is brick paving. There are blossom trees around the building."
    assert not list(reversals(source, "Brick paving surrounds the building."))
    assert not list(reversals(source, "Blossom trees surround the building."))


def test_the_near_one_and_the_other_one_do_not_change_places() -> None:
    source = "The near wing has a clock and small windows. The other wing has a red door under the roof."
    assert list(swapped(source, "The near wing has a red door.", source))
    assert not list(swapped(source, "The far wing has a red door.", source))
    assert not list(swapped(source, "The other wing has a red door.", source))
    assert not list(swapped(source, "A wing has a red door.", source))
