"""The log of decisions: append-only, undo as an event, no lost update, and what a rebuild makes of it."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from review.decisions import (
    REVIEWS,
    Decision,
    DecisionLog,
    Draft,
    Event,
    Kind,
    apply,
    fold,
    source_hash,
    standing_decisions,
)
from schemas.errors import DatasetError

RAW = "A red building. It stands on the left of a pond."


def draft(caption_id: str, kind: Kind, new: str = "", revision: int = 0) -> Draft:
    return Draft(caption_id, kind, "old", new, "v0001", source_hash(RAW), revision)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    opened = DecisionLog(tmp_path / REVIEWS)
    yield opened
    opened.close()


def test_a_decision_stands_and_survives_a_restart(log: DecisionLog, tmp_path: Path) -> None:
    saved = log.save([draft("a#0", "edit", "A green roof.")], "ann")
    assert (saved.conflicts, saved.events[0].revision) == ((), 1)
    log.close()
    stands = standing_decisions(tmp_path / REVIEWS)
    assert stands["a#0"].text == "A green roof."
    assert stands["a#0"].reviewer == "ann"


def test_no_log_means_no_decisions_and_makes_no_file(tmp_path: Path) -> None:
    assert standing_decisions(tmp_path / REVIEWS) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_save_on_an_old_revision_is_a_conflict_and_changes_nothing(log: DecisionLog) -> None:
    log.save([draft("a#0", "accept", "old")], "ann")
    saved = log.save([draft("a#0", "reject"), draft("b#0", "reject")], "bob")
    assert saved.conflicts == ("a#0",)
    assert [e.caption_id for e in saved.events] == ["b#0"]
    assert log.standing("a#0").kind == "accept"  # type: ignore[union-attr]


def test_copies_are_saved_only_where_their_original_is(log: DecisionLog) -> None:
    log.save([draft("a#0", "accept", "old")], "ann")
    saved = log.save([draft("a#0", "reject")], "bob", copies=[draft("a~aug0#0", "reject")])
    assert (saved.events, saved.conflicts) == ((), ("a#0",))
    log.save([draft("a~aug0#0", "accept", "old")], "ann")
    saved = log.save([draft("a#0", "reject", "", 1)], "bob", copies=[draft("a~aug0#0", "reject")])
    assert ([e.caption_id for e in saved.events], saved.conflicts) == (["a#0"], ("a~aug0#0",))


def test_undo_is_an_event_and_brings_back_what_stood_before(log: DecisionLog) -> None:
    log.save([draft("a#0", "accept", "old")], "ann")
    second = log.save([draft("a#0", "edit", "new", 1)], "ann")
    undone = log.undo(second.batch, "ann")
    assert [(e.kind, e.undoes) for e in undone.events] == [("undo", second.events[0].seq)]
    assert log.standing("a#0").kind == "accept"  # type: ignore[union-attr]
    assert [e.kind for e in log.history("a#0")] == ["accept", "edit", "undo"]
    assert log.undo(second.batch, "ann").events == ()


def test_undo_takes_back_a_whole_batch_but_not_what_somebody_decided_since(log: DecisionLog, tmp_path: Path) -> None:
    bulk = log.save([draft(f"{i}#0", "accept", "old") for i in range(5)], "ann")
    log.save([draft("3#0", "reject", "", 1)], "bob")
    log.close()
    again = DecisionLog(tmp_path / REVIEWS)
    undone = again.undo(bulk.batch, "ann")
    assert len(undone.events) == 4
    assert undone.conflicts == ("3#0",)
    assert {c: d.kind for c, d in fold(again.events()).items()} == {"3#0": "reject"}
    assert (again.batches(10)[-1][1].count, again.batches(10)[-1][1].standing) == (5, 0)


def test_undo_takes_back_part_of_a_batch_and_the_rest_later(log: DecisionLog) -> None:
    bulk = log.save([draft(f"{i}#0", "accept", "old") for i in range(5)], "ann")
    undone = log.undo(bulk.batch, "bob", ["1#0", "3#0", "9#0"])
    assert ([e.caption_id for e in undone.events], undone.conflicts) == (["1#0", "3#0"], ())
    assert [e.caption_id for e in log.undo(bulk.batch, "ann").events] == ["0#0", "2#0", "4#0"]


def test_the_log_refuses_to_be_rewritten(log: DecisionLog, tmp_path: Path) -> None:
    log.save([draft("a#0", "accept", "old")], "ann")
    with sqlite3.connect(tmp_path / REVIEWS) as db:
        for statement in ("UPDATE events SET new_text = 'x'", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)
    db.close()


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    def write(name: str) -> None:
        own = DecisionLog(tmp_path / REVIEWS)
        for i in range(20):
            own.save([draft(f"{name}{i}#0", "accept", "old")], name)
        own.close()

    DecisionLog(tmp_path / REVIEWS).close()
    threads = [threading.Thread(target=write, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(standing_decisions(tmp_path / REVIEWS)) == 80


def test_export_gives_every_event_as_json(log: DecisionLog) -> None:
    saved = log.save([draft("ä\n#0", "edit", 'say "hi"')], "ann")
    log.undo(saved.batch, "bob")
    lines = [json.loads(line) for line in log.export()]
    assert [line["kind"] for line in lines] == ["edit", "undo"]
    assert lines[0]["caption_id"] == "ä\n#0"
    assert Event(**lines[1]) == list(log.events())[1]


def test_a_damaged_log_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / REVIEWS).write_bytes(b"not a database" * 1000)
    with pytest.raises(DatasetError, match=r"reviews\.sqlite cannot be used"):
        standing_decisions(tmp_path / REVIEWS)


def test_a_log_of_the_future_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / REVIEWS) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(DatasetError, match="newer georefine"):
        DecisionLog(tmp_path / REVIEWS)


def decision(kind: Kind, text: str = "") -> Decision:
    return Decision("a#0", kind, text, "ann", "2026-01-01T00:00:00Z", "v0001", source_hash(RAW), "b", 1)


def outcome(kind: Kind, text: str = "", raw: str = RAW) -> tuple[str, str, tuple[str, ...]] | None:
    found = apply(
        decision(kind, text),
        raw=raw,
        refined="A red building with a fountain.",
        queries=["A red building with a fountain."],
        fallback="A red building.",
        platform="satellite",
    )
    return (found.final, found.status, found.queries) if found else None


def test_an_edited_text_wins_and_its_queries_speak_of_it() -> None:
    found = outcome("edit", "A red building beside a pond.")
    assert found is not None
    assert found[:2] == ("A red building beside a pond.", "edited")
    assert found[2]
    assert not any("fountain" in query for query in found[2])


def test_a_rejected_rewrite_falls_back() -> None:
    found = outcome("reject")
    assert found is not None
    assert found[:2] == ("A red building.", "rejected")
    assert not any("fountain" in query for query in found[2])


def test_an_accepted_rewrite_stays_and_outlives_a_new_refiner() -> None:
    same = outcome("accept", "A red building with a fountain.")
    assert same == ("A red building with a fountain.", "refined", ("A red building with a fountain.",))
    kept = outcome("accept", "A red building beside a pond.")
    assert kept is not None
    assert kept[:2] == ("A red building beside a pond.", "edited")


@pytest.mark.parametrize("kind", ["accept", "edit", "reject"])
def test_a_decision_on_another_source_text_is_stale(kind: Kind) -> None:
    assert outcome(kind, "anything", raw=RAW + " It is tall.") is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["accept", "edit", "undo"])), max_size=12))
def test_standing_is_the_top_of_a_stack_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    log = DecisionLog(tmp_path_factory.mktemp("log") / REVIEWS)
    stacks: dict[str, list[str]] = {"a": [], "b": []}
    for i, (caption, what) in enumerate(steps):
        if what == "undo":
            standing = log.standing(caption)
            assert (standing.text if standing else None) == (stacks[caption][-1] if stacks[caption] else None)
            if standing:
                log.undo(standing.batch, "ann")
                stacks[caption].pop()
        else:
            kind: Kind = "accept" if what == "accept" else "edit"
            saved = log.save([draft(caption, kind, str(i), len(log.history(caption)))], "ann")
            assert not saved.conflicts
            stacks[caption].append(str(i))
    assert {c: d.text for c, d in fold(log.events()).items()} == {c: s[-1] for c, s in stacks.items() if s}
    standing_batches = {b.caption_id: b.standing for _, b in log.batches(100) if b.standing}
    assert sum(standing_batches.values()) <= 2
    log.close()


def test_a_log_that_cannot_be_looked_at_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / REVIEWS).symlink_to(tmp_path / REVIEWS)
    with pytest.raises(DatasetError, match=r"reviews\.sqlite cannot be looked at \(Too many levels"):
        standing_decisions(tmp_path / REVIEWS)
