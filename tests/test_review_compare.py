"""Word diffs give both texts back; what cannot be seen is written out."""

from hypothesis import given, settings
from hypothesis import strategies as st

from review.compare import MOST_WORDS, visible, word_diff

TEXTS = st.text(max_size=40) | st.text(alphabet="ab .,-'\n", max_size=40)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_a_diff_gives_both_texts_back(old: str, new: str) -> None:
    diff = word_diff(old, new)
    assert "".join(text for op, text in diff if op != "ins") == old
    assert "".join(text for op, text in diff if op != "del") == new


def test_a_diff_is_by_words() -> None:
    assert word_diff("A red house on the left.", "A red house.") == (
        ("same", "A red house"),
        ("del", " on the left"),
        ("same", "."),
    )


def test_very_long_texts_are_not_compared() -> None:
    long = "word " * (MOST_WORDS + 1)
    assert word_diff(long, "short") == (("del", long), ("ins", "short"))


@given(st.text())
def test_nothing_invisible_is_left(text: str) -> None:
    assert all(c.isprintable() or c == "\n" or c.isspace() for c in visible(text))


def test_what_reorders_or_controls_is_written_out() -> None:
    assert visible("a\u202eb\x1b[31m\x00\u200b") == "a⟨U+202E⟩b⟨U+001B⟩[31m⟨U+0000⟩⟨U+200B⟩"
    assert visible("Straße — 北京\n") == "Straße — 北京\n"
