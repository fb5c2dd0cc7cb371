"""Counts, searches and pages against a slow, obvious recount over every row."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from review_dataset import write_version

from review.captions import STATES, Captions, Filters, Row, draft
from review.decisions import REVIEWS, DecisionLog
from schemas.errors import DatasetError


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captions]:
    dataset = tmp_path_factory.mktemp("captions") / "data [set]*?"  # a name that DuckDB could take for a pattern
    write_version(dataset)
    write_version(dataset, changed=" and a canal")
    log = DecisionLog(dataset / REVIEWS)
    opened = Captions(dataset, log)
    rows = opened.page(Filters(split="train"), size=1000).rows
    for i, row in enumerate(rows[:9]):
        log.save([draft(row, ("accept", "reject", "edit")[i % 3], "New text.", "v0002")], "ann")  # type: ignore[arg-type]
    opened.sync()
    yield opened
    opened.close()
    log.close()


def passes(row: Row, filters: Filters, changed: set[str], but: str = "") -> bool:
    mine = {
        "platform": row.platform,
        "split": row.split,
        "status": row.status,
        "decision": row.state,
        "tile": row.tile,
        "change": "changed" if row.caption_id in changed else "",
    }
    return (
        all(
            not getattr(filters, name) or name == but or getattr(filters, name) == value for name, value in mine.items()
        )
        and (not filters.gate or but == "gate" or filters.gate in row.failed)
        and (not filters.building or filters.building == row.building_id)
        and all(word in row.final.lower() for word in filters.q.split())
    )


CHOICES = {
    "platform": ("", "drone", "zz"),
    "split": ("", "train"),
    "decision": ("", "open", "accept", "evidence"),
    "tile": ("", "augmented"),
    "gate": ("", "colour"),
    "q": ("", "number", "red 5"),
    "change": ("", "changed"),
}


def test_counts_of_every_facet_are_those_of_a_recount(captions: Captions) -> None:
    rows = captions.page(Filters(), size=1000).rows
    changed = {row.caption_id for row in rows if "canal" in row.final}
    assert len(changed) == 4
    for values in itertools.product(*CHOICES.values()):
        filters = Filters.read(dict(zip(CHOICES, values, strict=True)))
        found = [row for row in rows if passes(row, filters, changed)]
        assert captions.count(filters) == len(found), filters
        facets = {facet.name: dict(facet.values) for facet in captions.facets(filters)}
        for name, value in (("platform", "platform"), ("status", "status"), ("decision", "state"), ("tile", "tile")):
            truth = Counter(getattr(row, value) for row in rows if passes(row, filters, changed, but=name))
            chosen = getattr(filters, name)
            assert facets[name] == {**({chosen: 0} if chosen else {}), **truth}, (filters, name)
        truth = Counter(gate for row in rows if passes(row, filters, changed, but="gate") for gate in row.failed)
        assert facets["gate"] == {**({filters.gate: 0} if filters.gate else {}), **truth}
        progress = captions.progress(filters)
        mine = [r for r in rows if passes(r, filters, changed, but="decision") and r.split == "train"]
        assert (progress.total, progress.decided) == (len(mine), sum(r.state != "open" for r in mine))


def test_pages_hold_what_passes_in_the_order_of_the_ids(captions: Captions) -> None:
    rows = captions.page(Filters(), size=1000).rows
    assert [row.caption_id for row in rows] == sorted(row.caption_id for row in rows)
    for state in STATES:
        page = captions.page(Filters(decision=state), size=1000)
        assert [r.caption_id for r in page.rows] == [r.caption_id for r in rows if r.state == state]


def test_sorts_put_the_most_first(captions: Captions) -> None:
    gates = [len(row.failed) for row in captions.page(Filters(sort="gates"), size=1000).rows]
    assert gates == sorted(gates, reverse=True)
    edits = [
        len(set(row.raw.lower().split(" ")) ^ set(row.final.lower().split(" ")))
        for row in captions.page(Filters(sort="edit"), size=1000).rows
    ]
    assert edits == sorted(edits, reverse=True)


def test_a_phrase_is_found_as_it_stands_and_raw_texts_by_choice(captions: Captions) -> None:
    assert captions.count(Filters(q='"number 2. it"')) == 4
    assert captions.count(Filters(q='"it number 2."')) == 0
    assert captions.count(Filters(q="left", split="train")) == 0
    assert captions.count(Filters(q="left", within="raw")) == 46
    assert captions.count(Filters(q="drone/0001")) == 2
    assert captions.count(Filters(q="drone/0001 number")) == 1
    assert captions.count(Filters(q='drone/0001 "number 2"')) == 0
    assert captions.count(Filters(q="   ")) == captions.count(Filters())


def test_details_come_from_the_shard(captions: Captions) -> None:
    details = captions.details("train/drone/0005/view 5.jpeg#0")
    assert [gate["gate"] for gate in details["gates"] if not gate["passed"]] == ["colour"]
    assert details["edits"][0]["old"] == " on the left"
    assert captions.details("nothing") == {}


def test_the_same_building_on_the_other_platforms(captions: Captions) -> None:
    found = captions.siblings("0001", "train", "train/drone/0001/view 1.jpeg")
    assert [s["platform"] for s in found] == ["satellite", "ground"]
    assert all(s["caption_id"].endswith("#0") for s in found)


def test_a_damaged_shard_is_one_sentence(tmp_path: Path) -> None:
    name = write_version(tmp_path / "ds")
    shard = next((tmp_path / "ds" / name / "captions").rglob("*.parquet"))
    shard.unlink()
    shard.write_bytes(b"PAR1 this is no table")
    log = DecisionLog(tmp_path / "ds" / REVIEWS)
    with pytest.raises(DatasetError, match="georefine verify"):
        Captions(tmp_path / "ds", log)
    log.close()
