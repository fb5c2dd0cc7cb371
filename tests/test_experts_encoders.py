"""Words to ids, bags, and the trunks."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from experts.encoders import (
    BUCKETS,
    MAX_TEXT_WORDS,
    Bags,
    ImageTrunk,
    TextTrunk,
    Vocabulary,
    build_vocabulary,
    sentences,
    words,
)

TEXTS = [["A red roof.", "It has a red roof."], ["A blue roof"], ["The blue roof is flat"]]


def test_words_and_sentences_of_captions_as_they_are_published() -> None:
    assert words("A flat-topped buildingThe road") == ["a", "flat", "topped", "building", "the", "road"]
    assert sentences("A white building.The road is wide. ") == ["A white building", "The road is wide"]
    assert sentences("lower-cased without full stops") == ["lower-cased without full stops"]
    assert sentences("...") == sentences("") == []


def test_the_vocabulary_ranks_by_number_of_captions_and_does_not_depend_on_their_order() -> None:
    vocabulary = build_vocabulary(TEXTS)
    assert vocabulary.terms[0] == "roof"
    assert set(vocabulary.terms) == {"roof", "a", "blue"}  # "red" twice, but in one caption
    assert build_vocabulary(TEXTS[::-1]) == vocabulary


def test_known_words_have_ids_of_their_own_and_unknown_ones_share_buckets() -> None:
    vocabulary = Vocabulary(("roof", "red", "red roof"))
    assert vocabulary.encode("Red roof") == [BUCKETS + 1, BUCKETS, BUCKETS + 2]
    assert vocabulary.encode("magenta") == vocabulary.encode("MAGENTA")
    assert vocabulary.encode("magenta")[0] < BUCKETS
    assert len(vocabulary) == BUCKETS + 3


@given(st.text(max_size=300))
def test_any_text_has_ids_within_the_vocabulary(text: str) -> None:
    vocabulary = build_vocabulary(TEXTS)
    found = [i for part in sentences(text) for i in vocabulary.encode(part)]
    assert all(0 <= i < len(vocabulary) for i in found)
    assert bool(found) == bool(words(text))


def test_an_endless_text_is_cut() -> None:
    assert len(words("roof " * 100_000)) == MAX_TEXT_WORDS


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=6), st.data())
def test_picked_bags_are_joined_slices(lists: list[list[int]], data: st.DataObject) -> None:
    bags = Bags.of(lists)
    spans = data.draw(
        st.lists(st.tuples(st.integers(0, len(lists)), st.integers(0, len(lists))).map(sorted), max_size=5)
    )
    picked = bags.pick(
        torch.tensor([a for a, _ in spans], dtype=torch.int64), torch.tensor([b for _, b in spans], dtype=torch.int64)
    )
    expected = [[i for one in lists[a:b] for i in one] for a, b in spans]
    assert len(picked) == len(spans)
    cut = [
        picked.ids[a:b].tolist() for a, b in zip(picked.offsets[:-1].tolist(), picked.offsets[1:].tolist(), strict=True)
    ]
    assert cut == expected


def test_a_text_feature_ignores_the_order_of_terms_and_the_other_texts_of_the_batch() -> None:
    torch.manual_seed(0)
    trunk = TextTrunk(10, 8, dropout=0.5).eval()
    together = trunk(Bags.of([[1, 2, 3], [], [3, 1, 2]]))
    alone = trunk(Bags.of([[1, 2, 3]]))
    torch.testing.assert_close(together[0], together[2])
    torch.testing.assert_close(together[:1], alone)
    assert torch.isfinite(together).all()


def test_image_features_do_not_depend_on_the_batch_and_take_any_size() -> None:
    torch.manual_seed(0)
    trunk = ImageTrunk().eval()
    for size in (16, 64, 40):
        pixels = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
        features = trunk(pixels)
        assert features.shape == (3, trunk.width)
        torch.testing.assert_close(features[1:2], trunk(pixels[1:2]), rtol=1e-4, atol=1e-4)
