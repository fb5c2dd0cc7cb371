"""The word index finds exactly what a plain substring search would, and counts the words two texts do not share."""

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from review.words import index_words, lower

TEXT = st.text(alphabet="ab .", max_size=12) | st.sampled_from(["", "Dome", "a red dome", "ÄB é", "red\tdome  a"])


def chunks(lefts: list[str], rights: list[str], size: int) -> list[tuple[pa.Array, pa.Array]]:
    return [
        (pa.array(lefts[i : i + size], pa.string()), pa.array(rights[i : i + size], pa.string()))
        for i in range(0, len(lefts), size)
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=8), st.text(alphabet="ab .", min_size=1, max_size=5), st.integers(1, 4))
@example([("a red dome", "Dome red"), ("", "")], "d d", 1)
def test_finds_what_a_plain_search_finds(texts: list[tuple[str, str]], needle: str, size: int) -> None:
    lefts, rights = [a for a, _ in texts], [b for _, b in texts]
    index = index_words(chunks(lefts, rights, size))
    for side, found in ((lefts, index.left), (rights, index.right)):
        truth = [i for i, text in enumerate(side) if needle in lower(text)]
        rows = [i for i, held in enumerate(index.candidates(found, needle).tolist()) if held]
        assert [row for row in rows if needle in lower(side[row])] == truth
        if " " not in needle:
            assert rows == truth


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=8), st.integers(1, 4))
def test_counts_the_words_that_only_one_text_has(texts: list[tuple[str, str]], size: int) -> None:
    index = index_words(chunks([a for a, _ in texts], [b for _, b in texts], size))
    assert index.edit.tolist() == [len(set(lower(a).split(" ")) ^ set(lower(b).split(" "))) for a, b in texts]
    assert index.length.tolist() == [len(b.split(" ")) for _, b in texts]
