"""Edits: applied in order they give the text; what does not fit is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import Edit, apply_edits


@given(st.text(), st.data())
def test_edits_give_what_a_slow_rewrite_gives(raw: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    pairs = list(zip(cuts[::2], cuts[1::2], strict=False))
    edits = [Edit(a, b, raw[a:b], data.draw(st.text(max_size=3))) for a, b in pairs]
    expected = raw
    for edit in reversed(edits):
        expected = expected[: edit.start] + edit.new + expected[edit.end :]
    assert apply_edits(raw, edits) == expected


@pytest.mark.parametrize(
    "edits", [[Edit(0, 2, "xx", "")], [Edit(0, 2, "ab", ""), Edit(1, 3, "bc", "")], [Edit(5, 6, "g", "")]]
)
def test_edits_that_do_not_fit_are_refused(edits: list[Edit]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        apply_edits("abc", edits)
