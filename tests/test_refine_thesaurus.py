"""The thesaurus: the relations the gates rely on, and that no word raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refine.thesaurus import (
    above,
    akin,
    bases,
    is_animal,
    is_kind_of,
    is_person,
    is_word,
    linked,
    mostly,
    names_thing,
    near,
    opposites,
    same_head,
    senses,
    uses,
)

WORDS = st.sampled_from(
    ["car", "vehicle", "kerb", "curb", "glass", "glazed", "old", "young", "swan", "paved", "unpaved"]
)


@pytest.mark.parametrize(
    ("word", "part", "base"),
    [
        ("roofs", "n", "roof"),
        ("people", "n", "people"),
        ("leaves", "n", "leaf"),
        ("bent", "v", "bend"),
        ("tiniest", "a", "tiny"),
    ],
)
def test_bases(word: str, part: str, base: str) -> None:
    assert base in bases(word, part)


@pytest.mark.parametrize("word", ["swan", "bench", "obelisk", "lighthouses", "yurt", "escalator"])
def test_things_are_things(word: str) -> None:
    assert names_thing(word)


@pytest.mark.parametrize("word", ["hue", "row", "score", "proximity", "gigantic", "terminates", "xyzzy"])
def test_other_words_name_no_thing(word: str) -> None:
    assert not names_thing(word)


def test_kinds_go_one_way() -> None:
    assert is_kind_of("car", "vehicle")
    assert is_kind_of("ferries", "boat")
    assert not is_kind_of("vehicle", "car")
    assert not is_kind_of("tree", "oak")


def test_a_plural_means_what_its_singular_means_more_often() -> None:
    assert bases("barrels", "n")[0] == "barrel"
    assert akin("barrels", "casks")


def test_kin_and_opposites() -> None:
    assert akin("curb", "kerb")
    assert akin("glass", "glazed")
    assert not akin("viewed", "spectators")
    assert opposites("paved", "unpaved")
    assert opposites("young", "old")
    assert opposites("gigantic", "little")
    assert not opposites("wide", "tall")


@pytest.mark.parametrize(("own", "word"), [("florist", "flowers"), ("tree", "branch")])
def test_links(own: str, word: str) -> None:
    assert linked(own, word)


@pytest.mark.parametrize(
    ("own", "word"),
    [
        ("park", "fountain"),
        ("garden", "bench"),
        ("cyclist", "jogger"),
        ("tree", "oak"),
        ("house", "door"),
        ("snow", "sledge"),
    ],
)
def test_what_may_stand_beside_a_thing_is_not_linked_to_it(own: str, word: str) -> None:
    assert not linked(own, word)


def test_compounds_and_kinds() -> None:
    assert same_head("gravestone", "headstones")
    assert not same_head("stand", "stand")
    assert near("bridge", "viaduct")
    assert not near("bench", "tree")
    assert is_person("jogger")
    assert is_animal("horses")


@given(WORDS, WORDS)
def test_kin_and_opposites_are_symmetric(one: str, other: str) -> None:
    assert akin(one, other) == akin(other, one)
    assert opposites(one, other) == opposites(other, one)


@given(st.text(max_size=20))
def test_no_word_raises(word: str) -> None:
    assert is_word(word) == any(bases(word, part) for part in "nvar")
    for part in "nvar":
        assert (uses(word, part) > 0) == bool(senses(word, part))
        assert all(sense in above(sense) for sense in senses(word, part))
    assert mostly(word, "n") in (True, False)
