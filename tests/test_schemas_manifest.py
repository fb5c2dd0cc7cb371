"""The manifest: what is written reads back; what is no manifest is one sentence."""

import json
from dataclasses import replace

import pytest

from schemas.errors import DatasetError
from schemas.manifest import FORMAT_VERSION, Account, Card, Manifest, Shard

MANIFEST = Manifest(
    format_version=FORMAT_VERSION,
    version="v0001",
    code_version="0",
    source={"sha256": "", "files": 1, "bytes": 1, "ignored": {}},
    config={"seed": 0},
    shards=(Shard("images/split=train/platform=drone/part-00000.parquet", "images", "train", "drone", 1, 2, "aa"),),
    accounts={"images": Account(2, 1, 1, 0)},
    counts={},
    gates={},
    notes=("a note",),
    card=Card(3, "bb"),
)


def test_reads_back() -> None:
    assert Manifest.from_json(MANIFEST.to_json(), "manifest.json") == MANIFEST


def test_same_manifest_same_text() -> None:
    assert MANIFEST.to_json() == Manifest.from_json(MANIFEST.to_json(), "x").to_json()


def test_one_of_before_the_card_was_noted_and_one_of_a_later_georefine_are_read() -> None:
    values = json.loads(MANIFEST.to_json())
    del values["card"]
    assert Manifest.from_json(json.dumps(values | {"more": 1}), "x") == replace(MANIFEST, card=None)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"format_version": 1}', '{"format_version": 99}'])
def test_anything_else_is_one_sentence(text: str) -> None:
    with pytest.raises(DatasetError) as error:
        Manifest.from_json(text, "DATASET/v0001/manifest.json")
    assert "DATASET/v0001/manifest.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("account", "balanced"), [(Account(3, 2, 1, 9), True), (Account(3, 2, 0, 1), False)])
def test_balance(account: Account, balanced: bool) -> None:
    assert account.balanced is balanced
