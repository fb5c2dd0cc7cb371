"""Hashes of files that are remembered: never a wrong one, and nothing read twice without need."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from data import hashes as module
from data.hashes import Hashes, remembered
from data.shards import sha256_file


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths of the files that were read."""
    seen: list[Path] = []

    def counted(path: Path) -> str:
        seen.append(path)
        return sha256_file(path)

    monkeypatch.setattr(module, "sha256_file", counted)
    return seen


def old_file(path: Path, data: bytes = b"one") -> Path:
    path.write_bytes(data)
    os.utime(path, ns=(10**18, 10**18))
    return path


def test_an_unchanged_file_is_read_once(tmp_path: Path, reads: list[Path]) -> None:
    file, memory = old_file(tmp_path / "a"), tmp_path / "hashes.sqlite"
    for _ in range(3):
        with remembered(memory) as hashes:
            assert hashes.of(file) == sha256_file(file)
    assert reads == [file]
    with remembered(memory, rehash=True) as hashes:
        hashes.of(file)
    assert reads == [file, file]


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_changed_file_is_read_again(tmp_path: Path, change: str) -> None:
    file, memory = old_file(tmp_path / "a"), tmp_path / "hashes.sqlite"
    with remembered(memory) as hashes:
        hashes.of(file)
    if change == "size":
        old_file(file, b"longer")
    elif change == "time":
        file.write_bytes(b"two")
    else:
        old_file(tmp_path / "b", b"two").replace(file)
    with remembered(memory) as hashes:
        assert hashes.of(file) == sha256_file(file)


def test_a_file_of_this_moment_is_not_remembered(tmp_path: Path, reads: list[Path]) -> None:
    file, memory = tmp_path / "a", tmp_path / "hashes.sqlite"
    file.write_bytes(b"one")
    for _ in range(2):
        with remembered(memory) as hashes:
            hashes.of(file)
    assert len(reads) == 2


def test_what_we_wrote_ourselves_is_not_read(tmp_path: Path, reads: list[Path]) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    hashes = Hashes()
    hashes.learn(file, "its hash")
    assert hashes.of(file) == "its hash"
    assert reads == []


@pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\0" + bytes(500), b""])
def test_a_damaged_memory_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    file, memory = old_file(tmp_path / "a"), tmp_path / "hashes.sqlite"
    memory.write_bytes(damage)
    with remembered(memory) as hashes:
        hashes.of(file)
    with closing(sqlite3.connect(memory)) as found:
        assert found.execute("SELECT path FROM hashes").fetchall() == [(str(file),)]


def test_files_that_cannot_be_read_come_with_the_reason(tmp_path: Path) -> None:
    file = old_file(tmp_path / "a")
    found = dict(Hashes().of_all([file, tmp_path / "missing"]))
    assert found[file] == sha256_file(file)
    assert isinstance(found[tmp_path / "missing"], FileNotFoundError)
