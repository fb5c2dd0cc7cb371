"""Refinement of whole captions: statuses, keys, the kept splits and the filter."""

import hashlib
import json
from collections.abc import Iterator

import pytest

from refine.refinement import keep_captions, refine_captions, refine_lines, reply_key
from refine.registers import version
from schemas.records import PLATFORMS, apply_edits

RAW = "A white building with a blue roof stands on the left side of a road. A lawn with two ponds lies to the north."


def test_strip_then_rewrite_then_judge() -> None:
    [row] = refine_captions([RAW], "satellite", mode="strip")
    assert row.status == "refined"
    assert row.final == row.refined == json.loads(row.reply)["caption"]
    assert list(row.queries) == json.loads(row.reply)["queries"]
    assert "left" not in row.final
    assert "north" not in row.final
    assert apply_edits(RAW, row.stripped.edits) == row.stripped.text
    assert all(gate.passed for gate in row.gates)
    assert row.prompt_version == version()
    assert row.reply_key == reply_key(version(), "satellite", row.stripped.text)


def test_keep_leaves_orientation_alone() -> None:
    [row] = refine_captions([RAW], "drone", mode="keep")
    assert row.stripped.text == RAW
    assert row.stripped.edits == ()
    assert "on the left side of a road" in row.final
    assert row.status == "refined"


def test_where_the_rules_fail_a_gate_the_stripped_caption_stands() -> None:
    text = "The sky is blue."
    [row] = refine_captions([text], "satellite", mode="strip")
    assert (row.status, row.refined, row.final, row.queries) == ("refined", text, text, (text,))
    assert [gate.gate for gate in row.gates if not gate.passed] == ["register"]
    assert row.reply != ""


@pytest.mark.parametrize(
    "raw",
    ["", "   ", "\t", "  left  ", "In the top-right corner.", "On the left and right.", "North of it.", "Upper left"],
)
def test_nothing_left_is_empty(raw: str) -> None:
    [row] = refine_captions([raw], "satellite", mode="strip")
    assert (row.status, row.final, row.queries, row.gates) == ("empty", "", (), ())


def test_rows_keep_their_order_and_do_not_depend_on_their_neighbours() -> None:
    raws = [RAW, "", "A red roof.", RAW.replace("blue", "green")]
    together = refine_captions(raws, "satellite", mode="strip")
    assert together == [refine_captions([raw], "satellite", mode="strip")[0] for raw in raws]


def test_evidence_is_untouched() -> None:
    [row] = keep_captions([RAW])
    assert (row.stripped.text, row.refined, row.queries, row.final, row.status) == (RAW, "", (), RAW, "kept")
    assert (row.gates, row.refiner, row.reply) == ((), "", "")


def test_the_key_covers_everything_that_determines_a_reply() -> None:
    keys = {reply_key(v, p, t) for v in ("1", "2") for p in PLATFORMS[:2] for t in ("a", "b")}
    assert len(keys) == 8
    assert reply_key("1", "drone", "a") == hashlib.sha256(b'["1", "drone", "a"]').hexdigest()


def test_the_filter_answers_line_by_line() -> None:
    consumed: list[str] = []

    def feed() -> Iterator[str]:
        for line in (RAW + "\n", "\n", "A red roof.\r\n"):
            consumed.append(line)
            yield line

    answers = refine_lines(feed(), "satellite")
    first = json.loads(next(answers))
    assert len(consumed) == 1
    rest = [json.loads(line) for line in answers]
    assert set(first) == {"raw", "stripped", "refined", "queries", "status", "gates"}
    assert [row["status"] for row in (first, *rest)] == ["refined", "empty", "refined"]
    assert rest[1]["raw"] == "A red roof."
