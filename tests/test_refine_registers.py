"""Reading's quick ways beside their slow, obvious twins: what they pass over is never there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refine.gates.contradictions import _negations
from refine.gates.meta import ORDER, TALKING, WRITER
from refine.registers import Phrases, _raw, _split, lexicon, register
from refine.registers.reading import read, words_of
from schemas.records import PLATFORMS

LISTS = [
    lexicon().hedges,
    lexicon().meta,
    lexicon().refusals,
    ORDER,
    TALKING,
    WRITER,
    *(register(platform).foreign_views for platform in PLATFORMS),
]
PIECES = sorted(
    words_of(
        "I you let's let us don't don’t can't cant it's it’s may might perhaps as if looks like please note that "
        "describe the image shows sorry cannot bird's-eye birds eye view from above street level caption here is "
        "not s' o'clock ſhown İmage ımage a roof is red Write use only no LIST, . ! ? ; - _ ' ’ \u212aind 9 café"
    )
)
TEXTS = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(["", " ", " ", " ", "\n", "-"])), max_size=14).map(
    lambda parts: "".join(piece + gap for piece, gap in parts)
)


@pytest.mark.parametrize("phrases", LISTS)
@given(text=TEXTS)
def test_phrases_are_found_where_a_plain_search_finds_them(phrases: Phrases, text: str) -> None:
    reading = read(text)
    expected = [match.span() for match in phrases.pattern.finditer(text)]
    assert [match.span() for match in reading.find(phrases)] == expected
    assert reading.has(phrases) == bool(expected)


@pytest.mark.parametrize("name", ["hedges", "meta", "refusals"])
def test_every_phrase_of_a_list_is_found(name: str) -> None:
    phrases: Phrases = getattr(lexicon(), name)
    for words in _split(_raw("lexicon")[name]):
        for text in (words, f"There, {words.upper()}, it stands", words.replace("'", "’").replace(" ", "-")):
            assert read(text).has(phrases), text


def negates(word: str, other: str) -> bool:
    """Whether a word is another one with a negating prefix or ending."""
    return word in {f"un{other}", f"in{other}", f"non{other}", f"dis{other}"} or (
        word.endswith("less") and other in {word[:-4] + "y", word[:-4] + "ed", word[:-4] + "ful"}
    )


WORDS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "un", "in", "non", "dis", "under"]),
        st.sampled_from(["paved", "leaf", "tree", "in", "un", ""]),
        st.sampled_from(["", "less", "y", "ed", "ful"]),
    ),
)


@given(WORDS, WORDS)
def test_negations_are_the_words_that_differ_by_a_prefix_or_an_ending(word: str, other: str) -> None:
    assert (other in _negations(word)) == (negates(word, other) or negates(other, word))


@pytest.mark.parametrize("text", ["A red roof. No cars stand there, and two of three sheds are bare of leaves.", ""])
def test_mentions_of_a_kind_are_those_of_the_text_in_order(text: str) -> None:
    reading = read(text)
    for kind in ("object", "colour", "number", "fraction", "none"):
        found = reading.of(kind)
        assert found == [mention for mention in reading.mentions if mention.kind == kind]
        found.clear()  # the caller's own
    assert reading.of("object") == [mention for mention in reading.mentions if mention.kind == "object"]
