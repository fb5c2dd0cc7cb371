"""The rows of a source on disk: what goes in comes out by shard, duplicates are refused, a broken part is none."""

import json
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import readers
from data.hashes import FileHash
from data.readers import _items_of, _Text, read_source
from data.spill import SPILL, Spill, open_spill, read_rows, spilled
from schemas.config import PartitionConfig
from schemas.errors import DatasetError
from schemas.records import Reject, SourceCaption, SourceImage, SourceRegion

CONFIG = PartitionConfig(val_fraction=0.0)


def image(building: str, name: str = "image-01.jpeg") -> SourceImage:
    return SourceImage(f"train/drone/{building}/{name}", building, "drone", "train", "train", 5)


def filled(spill: Spill, *images: SourceImage) -> list[int]:
    for one in images:
        spill.add_image(one)
    spill.images_are_in()
    return [number for number, _ in spill.paths()]


def test_rows_come_back_by_shard_sorted_with_their_ordinals(tmp_path: Path) -> None:
    strange = "a \x01b\n'\"[,]\U0001f3e0"
    with spilled(tmp_path / SPILL) as spill:
        two, one, other = filled(spill, image("2"), image("1"), image(strange))
        spill.add_caption(two, "first of two", "train.json", 0)
        spill.add_caption(one, None, "train.json", 1)
        spill.add_caption(one, "second\0 of one", "train.json", 2)
        spill.add_region(one, "a roof", (0.1, 0.25, 1e-9, 1 / 3), "train.json", 2)
        spill.add_digest(one, FileHash("f" * 64, (5, -(2**60), 2**64 - 1)))
        spill.add_digest(two, FileHash("e" * 64, None))
        spill.add_digest(other, "no such file")
        spill.refuse_duplicates("captions", "caption", 200)
        spill.refuse_duplicates("regions", "sentences", 200)
        spill.commit()
        rows = read_rows(tmp_path / SPILL, "train", "drone", ["1", "2"])
        assert rows.images == (image("1"), image("2"))
        assert rows.captions == (
            SourceCaption(image("1").path, 1, "second\0 of one", "train.json", 2),
            SourceCaption(image("2").path, 0, "first of two", "train.json", 0),
        )
        assert rows.regions == (SourceRegion(image("1").path, 0, "a roof", (0.1, 0.25, 1e-9, 1 / 3), "train.json", 2),)
        assert rows.digests == {
            image("1").path: FileHash("f" * 64, (5, -(2**60), 2**64 - 1)),
            image("2").path: FileHash("e" * 64, None),
        }
        assert read_rows(tmp_path / SPILL, "train", "drone", [strange]).images == (image(strange),)
        assert read_rows(tmp_path / SPILL, "train", "satellite", ["1", "2"]).images == ()
        assert spill.captioned(f"{image('1').path}#1") == image("1")
        for absent in (f"{image('1').path}#0", f"{image('1').path}#2", "x", "train/\ud800#0", ""):
            assert spill.captioned(absent) is None
        assert spill.record("captions", image("1").path, 0) == ("train.json", 1)
    assert list(tmp_path.iterdir()) == []


def test_duplicates_are_refused_once_per_repetition_and_keep_their_places() -> None:
    spill = open_spill(None)
    (one, two) = filled(spill, image("1"), image("2"))
    for row, (where, text) in enumerate([(one, "a"), (two, "a"), (one, "b" * 9), (one, "a"), (one, "b" * 9)]):
        spill.add_caption(where, text, "train.json", row)
    for row, x in enumerate((0.5, 0.25, 0.5)):
        spill.add_region(one, "a", (x, 0.5, 0.5, 0.5), "train.json", row)
    spill.refuse_duplicates("captions", "caption", 4)
    spill.refuse_duplicates("regions", "sentences", 4)
    assert list(spill.every_reject()) == [
        Reject("captions", "train.json", 3, "caption", "duplicate", "a"),
        Reject("captions", "train.json", 4, "caption", "duplicate", "bbbb…"),
        Reject("regions", "train.json", 2, "sentences", "duplicate", "a"),
    ]
    assert [(c.caption_id, c.raw) for c in spill.every_caption()] == [
        (f"{image('1').path}#0", "a"),
        (f"{image('1').path}#1", "b" * 9),
        (f"{image('2').path}#0", "a"),
    ]
    assert [region.region_id for region in spill.every_region()] == [f"{image('1').path}@{n}" for n in (0, 1)]
    assert spill.refused == {"captions": 2, "regions": 1}


def test_a_part_that_fails_leaves_nothing() -> None:
    spill = open_spill(None)
    (one,) = filled(spill, image("1"))
    spill.add_caption(one, "kept", "train.json", 0)
    before = None
    for rows in (1, 5000):
        with suppress(InterruptedError), spill.all_or_nothing():
            before = spill.fingerprint.hexdigest()
            for row in range(rows):
                spill.add_caption(one, f"text {row}", "test.json", row)
                spill.add_reject(Reject("captions", "test.json", row, "", "null", ""))
            raise InterruptedError
        assert spill.fingerprint.hexdigest() == before
    assert [caption.raw for caption in spill.every_caption()] == ["kept"]
    assert list(spill.every_reject()) == []
    assert not spill.refused["captions"]


def test_what_cannot_be_written_or_read_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"source\.sqlite cannot be written \(unable to open"):
        open_spill(tmp_path / "no folder" / SPILL)
    (tmp_path / SPILL).write_bytes(b"no database, but long enough to be taken for one" * 99)
    with pytest.raises(DatasetError, match=r"cannot be read \(file is not a database\)"):
        read_rows(tmp_path / SPILL, "train", "drone", [])
    with spilled(tmp_path / SPILL) as spill:
        assert filled(spill, image("1")) == [1]


ITEM = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


def flattened(items: list[Any]) -> list[Any]:
    """The slow and obvious twin: all of the file at once."""
    return [leaf for item in items for leaf in (flattened(item) if isinstance(item, list) else [item])]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.lists(ITEM, max_size=5), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_a_list_read_in_chunks_gives_the_same_items(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, items: list[Any], chunk: int, indent: int | None, ascii: bool
) -> None:
    monkeypatch.setattr(readers, "CHUNK", chunk)
    path = tmp_path / "list.json"
    path.write_text(json.dumps(items, indent=indent, ensure_ascii=ascii), encoding="utf-8", errors="surrogatepass")
    with path.open(encoding="utf-8", errors="surrogatepass") as file:
        assert list(_items_of(_Text(file))) == flattened(json.loads(path.read_bytes().decode("utf-8", "surrogatepass")))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.text('[]{},:"\\u0de1.- \nntrue', max_size=24), st.integers(1, 30))
def test_what_json_refuses_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, chunk: int) -> None:
    monkeypatch.setattr(readers, "CHUNK", chunk)
    path = tmp_path / "list.json"
    path.write_text(text, encoding="utf-8")
    try:
        expected = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        expected = None
    with path.open(encoding="utf-8") as file:
        if isinstance(expected, list):
            assert list(_items_of(_Text(file))) == flattened(expected)
        else:
            with pytest.raises((ValueError, readers._RowError)):
                list(_items_of(_Text(file)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", "", None])), max_size=12))
def test_ordinals_and_duplicates_agree_with_counting_in_memory(
    tmp_path: Path, said: list[tuple[int, str | None]]
) -> None:
    paths = [f"train/drone/000{n}/image-01.jpeg" for n in range(3)]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"bytes")
    records = [{"image": paths[n], "caption": text} for n, text in said]
    (tmp_path / "train.json").write_text(json.dumps(records), encoding="utf-8")
    slow: dict[str, list[str | None]] = defaultdict(list)
    expected = set()
    for n, text in said:
        if text and text not in slow[paths[n]]:
            expected.add((paths[n], len(slow[paths[n]]), text))
        slow[paths[n]].append(text)
    source = read_source(tmp_path, CONFIG)
    assert {(c.image_id, c.ordinal, c.raw) for c in source.captions} == expected
