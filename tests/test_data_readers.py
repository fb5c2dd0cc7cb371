"""The reader: the real mini set, every kind of hostile input, and the accounting law over arbitrary annotations."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.readers import Source, read_source
from schemas.config import PartitionConfig
from schemas.errors import SourceError
from schemas.records import TABLES, SourceCaption, SourceRegion

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
MINI = REAL / "university1652-mini"
CONFIG = PartitionConfig(val_fraction=0.0)
TILE = "train/satellite/0839/0839.jpg"
VIEW = "train/drone/0839/image-01.jpeg"


def put(root: Path, path: str, content: bytes | str = b"bytes") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def world(root: Path, records: Any, name: str = "train.json", images: tuple[str, ...] = (TILE, VIEW)) -> Source:
    for path in images:
        put(root, path)
    put(root, name, records if isinstance(records, (bytes, str)) else json.dumps(records))
    return read_source(root, CONFIG)


def check_accounts(source: Source) -> None:
    rejected = Counter(reject.table for reject in source.rejects)
    for table in TABLES:
        assert source.read[table] == len(getattr(source, table)) + rejected[table], table
    images = {image.path for image in source.images}
    assert len(images) == len(source.images)
    rows: list[SourceCaption | SourceRegion] = [*source.captions, *source.regions]
    for row in rows:
        assert row.image_id in images
    assert len({caption.caption_id for caption in source.captions}) == len(source.captions)
    assert len({region.region_id for region in source.regions}) == len(source.regions)
    for text in (json.dumps([str(row) for row in source.rejects], ensure_ascii=False), *source.ignored, *source.notes):
        text.encode("utf-8")


def reasons(source: Source, table: str = "captions") -> list[tuple[str, str]]:
    check_accounts(source)
    return [(reject.field, reject.reason) for reject in source.rejects if reject.table == table]


def test_the_real_mini_set() -> None:
    if not MINI.exists():
        pytest.skip("no real mini set here (../shared/real)")
    source = read_source(MINI, PartitionConfig())
    check_accounts(source)
    assert (len(source.images), len(source.captions), len(source.regions)) == (285, 210, 606)
    assert source.rejects == ()
    assert source.ignored == {}
    assert len({building for found in source.buildings.values() for building in found}) == 136
    assert Counter(image.platform for image in source.images) == {"satellite": 120, "drone": 125, "ground": 40}
    assert {image.split for image in source.images} == {"train", "val", "test"}
    assert "75 of 285 images have no caption (query images aside)." in source.notes
    assert read_source(MINI, PartitionConfig()) == source


def test_the_published_record_is_read_with_its_nested_list(tmp_path: Path) -> None:
    example = REAL / "geotext_train_example.json"
    if not example.exists():
        pytest.skip("no published record here (../shared/real)")
    source = world(tmp_path, example.read_bytes(), images=("train/0839/image-43.jpeg",))
    check_accounts(source)
    assert [c.caption_id for c in source.captions] == ["train/0839/image-43.jpeg#0"]
    assert source.captions[0].raw.startswith("In the center of the image is a large, modern office building")
    assert len(source.regions) == 3
    assert source.images[0].platform == "drone"


def test_train_repeats_an_image_per_caption_and_test_lists_its_captions(tmp_path: Path) -> None:
    region = {"sentences": ["a roof", None], "bboxes": [[0.5, 0.5, 0.2, 0.2], None]}
    source = world(
        tmp_path,
        [
            {"image": TILE, "caption": "one", **region},
            {"image": VIEW, "caption": ["first", "second"], "sentences": None, "bboxes": None},
            {"image": TILE, "caption": "two", **region},
            {"image": TILE, "caption": "one", **region},
        ],
    )
    assert [(c.caption_id, c.raw) for c in source.captions] == [
        (f"{VIEW}#0", "first"),
        (f"{VIEW}#1", "second"),
        (f"{TILE}#0", "one"),
        (f"{TILE}#1", "two"),
    ]
    assert reasons(source) == [("caption", "duplicate")]
    assert [r.region_id for r in source.regions] == [f"{TILE}@0"]
    assert Counter(reasons(source, "regions")) == {("sentences", "null"): 3, ("sentences", "duplicate"): 2}


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ({"image": TILE}, TILE),
        ({"image": "./train//satellite/0839/../0839/0839.jpg"}, TILE),
        ({"image": "satellite/0839/0839.jpg"}, TILE),
        ({"image": None, "image_id": "satellite/0839/0839.jpg"}, TILE),
        ({"image_id": "0839/flat.jpg"}, "train/0839/flat.jpg"),
    ],
)
def test_images_are_found_relative_to_the_source_or_to_train_and_test(
    tmp_path: Path, image: dict[str, Any], found: str
) -> None:
    source = world(tmp_path, [image | {"caption": "a roof"}], images=(TILE, "train/0839/flat.jpg"))
    assert [caption.image_id for caption in source.captions] == [found]


def test_the_annotation_file_of_test_looks_in_test_first(tmp_path: Path) -> None:
    images = ("train/0839/a.jpg", "test/0839/a.jpg")
    source = world(tmp_path, [{"image": "0839/a.jpg", "caption": "a roof"}], "test.json", images)
    assert [caption.image_id for caption in source.captions] == ["test/0839/a.jpg"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (7, [("", "not_an_object")]),
        ("text", [("", "not_an_object")]),
        (None, [("", "not_an_object")]),
        ({}, [("image", "no_image")]),
        ({"image": None, "caption": "x"}, [("image", "no_image")]),
        ({"image": 7, "caption": ["x", "y"]}, [("image", "no_image")] * 2),
        ({"image": " ", "caption": "x"}, [("image", "no_image")]),
        ({"image": "train/drone/0839/absent.jpeg", "caption": ["x", "y"]}, [("image", "missing_image")] * 2),
        ({"image": "train/drone/0839/image-01.jpeg\0", "caption": "x"}, [("image", "missing_image")]),
        ({"image": "../train/secret.jpg", "caption": "x"}, [("image", "outside")]),
        ({"image": "train/../../secret.jpg", "caption": "x"}, [("image", "outside")]),
        ({"image": "/etc/passwd", "caption": "x"}, [("image", "outside")]),
        ({"image_id": "../secret.jpg", "caption": "x"}, [("image_id", "outside")]),
        ({"image": TILE}, [("caption", "null")]),
        ({"image": TILE, "caption": None}, [("caption", "null")]),
        ({"image": TILE, "caption": []}, [("caption", "null")]),
        ({"image": TILE, "caption": [None, "fine"]}, [("caption", "null")]),
        ({"image": TILE, "caption": {"a": 1}}, [("caption", "not_text")]),
        ({"image": TILE, "caption": [["nested"]]}, [("caption", "not_text")]),
        ({"image": TILE, "caption": ""}, [("caption", "empty")]),
        ({"image": TILE, "caption": " \n.\u200b"}, [("caption", "empty")]),
        ({"image": TILE, "caption": "a" * 10_001}, [("caption", "too_long")]),
        ({"image": TILE, "caption": "a lone \ud800 surrogate"}, [("caption", "not_utf8")]),
        ({"image": TILE, "caption": ["same", "same"]}, [("caption", "duplicate")]),
    ],
)
def test_hostile_records_are_refused_with_a_reason(
    tmp_path: Path, record: Any, expected: list[tuple[str, str]]
) -> None:
    source = world(tmp_path, [{"image": VIEW, "caption": "goes on"}, record])
    assert reasons(source) == expected
    assert {reject.row for reject in source.rejects} == {1}
    assert f"{VIEW}#0" in {caption.caption_id for caption in source.captions}


def test_control_characters_are_kept_as_they_came(tmp_path: Path) -> None:
    text = "a\x00 roof\x1b[31m \u202e and\ttab"
    source = world(tmp_path, [{"image": TILE, "caption": text}])
    assert [caption.raw for caption in source.captions] == [text]


@pytest.mark.parametrize(
    ("sentences", "boxes", "expected"),
    [
        (None, None, []),
        ([], [], []),
        (["a"], [[0.5, 0.5, 1, 1]], []),
        (["a"], [[0.739, 0.5, 0.5219, 0.3]], []),
        (["a"], [[1.0004, 0.5, 0.01, 0.3]], []),
        (["a"], [[0.9, 0.5, 0.5, 0.3]], [("bboxes", "box_range")]),
        (["a"], [[1.7, 0.5, 0.2, 0.2]], [("bboxes", "box_range")]),
        (["a"], [[-0.2, 0.5, 0.2, 0.2]], [("bboxes", "box_range")]),
        (["a"], [[0.5, 0.5, 0, 0.2]], [("bboxes", "box_range")]),
        (["a"], [[120, 80, 40, 40]], [("bboxes", "box_range")]),
        (["a"], [[float("nan"), 0.5, 0.2, 0.2]], [("bboxes", "box_range")]),
        (["a"], [[float("inf"), 0.5, 0.2, 0.2]], [("bboxes", "box_range")]),
        (["a"], [[10**400, 0.5, 0.2, 0.2]], [("bboxes", "box_range")]),
        (["a"], [[0.5, 0.5, 0.2]], [("bboxes", "box_shape")]),
        (["a"], [[0.5, 0.5, 0.2, "0.2"]], [("bboxes", "box_shape")]),
        (["a"], [[True, 0.5, 0.2, 0.2]], [("bboxes", "box_shape")]),
        (["a"], [[[0.5, 0.5, 0.2, 0.2]]], [("bboxes", "box_shape")]),
        (["a"], ["box"], [("bboxes", "box_shape")]),
        (["a", "b"], [[0.5, 0.5, 0.2, 0.2]], [("bboxes", "null")]),
        (["a"], None, [("bboxes", "null")]),
        (None, [[0.5, 0.5, 0.2, 0.2]], [("sentences", "null")]),
        ([None], [None], [("sentences", "null")]),
        ([7], [[0.5, 0.5, 0.2, 0.2]], [("sentences", "not_text")]),
        ("text", {"x": 1}, [("bboxes", "box_shape")]),
    ],
)
def test_boxes_and_sentences(tmp_path: Path, sentences: Any, boxes: Any, expected: list[tuple[str, str]]) -> None:
    source = world(tmp_path, [{"image": TILE, "caption": "c", "sentences": sentences, "bboxes": boxes}])
    assert reasons(source, "regions") == expected
    assert all(0 <= value <= 1 for region in source.regions for value in region.bbox)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{not json", "unreadable"),
        (b"", "unreadable"),
        (b'["\xff"]', "unreadable"),
        (b"[" * 200_000, "unreadable"),
        (b"[" + b"9" * 5000 + b"]", "unreadable"),
        (b'{"image": "x", "caption": "y"}', "not_a_list"),
        (b"null", "not_a_list"),
    ],
)
def test_an_annotation_file_that_cannot_be_read_is_one_reject_and_the_rest_goes_on(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    put(tmp_path, "test.json", json.dumps([{"image": TILE, "caption": "fine"}]))
    source = world(tmp_path, content)
    assert reasons(source) == [("", reason)]
    assert [caption.raw for caption in source.captions] == ["fine"]
    assert source.notes[0].startswith(f"train.json is no readable annotation file ({reason}: ")
    assert "\n" not in source.notes[0]


def test_byte_order_mark_nested_lists_and_files_within_train(tmp_path: Path) -> None:
    records = [[{"image": TILE, "caption": "one"}, [[]]], {"image": TILE, "caption": "two"}]
    source = world(tmp_path, b"\xef\xbb\xbf" + json.dumps(records).encode(), "train/captions.json")
    assert [(c.raw, c.source, c.row) for c in source.captions] == [
        ("one", "train/captions.json", 0),
        ("two", "train/captions.json", 1),
    ]
    assert reasons(source) == []


def test_files_that_are_no_data_are_listed_with_why(tmp_path: Path) -> None:
    put(tmp_path, "campus.json", '{"buildings": []}')
    put(tmp_path, "list.json", "[1, 2]")
    put(tmp_path, "README.md")
    put(tmp_path, "train/notes.txt")
    put(tmp_path, "train/drone/0839/.DS_Store")
    put(tmp_path, "train/drone/0839/._image-01.jpeg")
    source = world(tmp_path, [])
    assert set(source.ignored) == {
        "campus.json",
        "list.json",
        "README.md",
        "train/notes.txt",
        "train/drone/0839/.DS_Store",
        "train/drone/0839/._image-01.jpeg",
    }
    assert reasons(source, "images") == []


def test_hostile_file_names(tmp_path: Path) -> None:
    good = ("train/drone/a b/ü\n🏠.JPG", "train/satellite/.hidden/.hidden.PNG", "test/gallery_drone/#/'\"<b>.webp")
    put(tmp_path, "train/drone/0839/clip.gif")
    put(tmp_path, "train/stray.jpg")
    bad = os.fsencode(tmp_path) + b"/train/drone/0839/\xff.jpg"
    world(tmp_path, [])
    Path(os.fsdecode(bad)).write_bytes(b"bytes")
    source = world(tmp_path, [{"image": good[0], "caption": "roof"}], images=good)
    assert {image.path for image in source.images} == {*good, TILE, VIEW}
    assert [caption.image_id for caption in source.captions] == [good[0]]
    assert sorted(reasons(source, "images")) == [("path", "bad_name"), ("path", "no_place"), ("path", "not_an_image")]
    assert "train/drone/0839/\\udcff.jpg" in {reject.source for reject in source.rejects}


def test_links_out_of_the_source_are_refused_and_loops_end(tmp_path: Path) -> None:
    root = tmp_path / "source"
    secret = put(tmp_path, "secret/image-01.jpeg")
    put(root, "pool/image-02.jpeg")
    put(root, TILE)
    folder = root / "train/drone/0839"
    folder.mkdir(parents=True)
    (folder / "image-01.jpeg").symlink_to(secret)
    (folder / "image-02.jpeg").symlink_to(root / "pool/image-02.jpeg")
    (folder / "image-03.jpeg").symlink_to(folder / "image-03.jpeg")
    (folder / "loop").symlink_to(root / "train")
    (root / "train/drone/0840").symlink_to(secret.parent)
    (root / "train/drone/0841").symlink_to(root / "pool")
    (root / "leak.json").symlink_to(put(tmp_path, "leak.json", "[]"))
    records = [{"image": f"train/drone/0839/image-0{n}.jpeg", "caption": "a roof"} for n in (1, 2)]
    source = world(root, records, images=())
    assert {image.path for image in source.images} == {
        TILE,
        "train/drone/0839/image-02.jpeg",
        "train/drone/0841/image-02.jpeg",
    }
    refused = {reject.source: reject.reason for reject in source.rejects if reject.table == "images"}
    assert refused == {
        "train/drone/0839/image-01.jpeg": "outside",
        "train/drone/0839/image-03.jpeg": "unreadable",
        "train/drone/0840": "outside",
    }
    assert "train/drone/0839/loop" in source.ignored
    assert sorted(reasons(source)) == [("", "outside"), ("image", "parent")]


def test_things_that_are_no_files_are_refused(tmp_path: Path) -> None:
    put(tmp_path, VIEW)
    os.mkfifo(tmp_path / "train/drone/0839/image-02.jpeg")
    os.mkfifo(tmp_path / "pipe.json")
    source = world(tmp_path, [])
    assert reasons(source, "images") == [("path", "unreadable")]
    assert reasons(source) == [("", "unreadable")]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (None, r"There is no folder .*: expected a folder with train/ and test/"),
        ([], r"is empty: expected a folder with train/ and test/"),
        (["photos/1.jpg", "notes.txt"], r"holds notes\.txt, photos/, but neither train/ nor test/: expected"),
        (["University-Release/train/drone/1/a.jpg"], r"perhaps you mean .*source/University-Release"),
        (["train"], r"holds train, but neither"),
        (["train/readme.txt"], r"holds no image that can be placed: expected files like train/drone"),
        (["train/1.jpg"], r"1 files were refused \(train/1\.jpg: no_place\): expected files like"),
        ([f"file{n}" for n in range(20)], r"file0, file1, .* and 12 more, but neither"),
    ],
)
def test_a_source_that_is_none_says_what_was_found_and_expected(
    tmp_path: Path, paths: list[str] | None, message: str
) -> None:
    root = tmp_path / "source"
    if paths is not None:
        root.mkdir()
    for path in paths or []:
        put(root, path)
    with pytest.raises(SourceError, match=message) as caught:
        read_source(root, CONFIG)
    assert "\n" not in str(caught.value)


def test_a_source_that_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is a file: expected a folder"):
        read_source(put(tmp_path, "file"), CONFIG)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from([TILE, VIEW, "a roof", "../x", "0839/image-01.jpeg"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
BOX = st.lists(st.floats(-0.1, 1.1) | st.floats() | st.integers(-1, 2), min_size=3, max_size=5)
RECORD = st.fixed_dictionaries(
    {},
    optional={
        "image": st.sampled_from([TILE, VIEW]) | JSON,
        "image_id": JSON,
        "caption": st.lists(st.sampled_from(["a", "b"]) | JSON, max_size=4) | JSON,
        "sentences": st.lists(st.sampled_from(["a", "b"]) | JSON, max_size=4) | JSON,
        "bboxes": st.lists(BOX | JSON, max_size=4) | JSON,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(records=st.lists(RECORD | JSON, max_size=6) | JSON)
def test_accounts_balance_for_any_annotations(tmp_path: Path, records: Any) -> None:
    source = world(tmp_path, json.dumps(records))
    check_accounts(source)
    assert source == read_source(tmp_path, CONFIG)
    for region in source.regions:
        assert all(0 <= value <= 1 for value in region.bbox)
