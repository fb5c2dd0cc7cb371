"""Hashes of files that are remembered: never a wrong one, and nothing read twice without need."""

import os
import sqlite3
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import pytest

from data import hashes as module
from data.hashes import FileHash, Hashes, mark_of, remembered
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


def test_memory_is_written_in_pieces_and_still_knows_all(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_BACK", 3)
    monkeypatch.setattr(module, "PIECE", 4)
    files, memory = [old_file(tmp_path / f"{n:02d}", b"%d" % n) for n in range(10)], tmp_path / "hashes.sqlite"
    with remembered(memory) as hashes:
        for _ in range(2):
            found = list(hashes.of_all(iter(files)))
            assert [path for path, _ in found] == files
            assert found == [(file, FileHash(sha256_file(file), mark_of(file.stat()))) for file in files]
        assert len(hashes.learnt) < 3
    assert sorted(reads) == files


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
        assert found.execute("SELECT path FROM files").fetchall() == [(os.fsencode(file),)]


def test_files_that_cannot_be_read_come_with_the_reason(tmp_path: Path) -> None:
    file = old_file(tmp_path / "a")
    found = dict(Hashes().of_all([file, tmp_path / "missing"]))
    assert found[file] == FileHash(sha256_file(file), mark_of(file.stat()))
    assert isinstance(found[tmp_path / "missing"], FileNotFoundError)


def test_a_damaged_row_is_forgotten_alone(tmp_path: Path, reads: list[Path]) -> None:
    files, memory = [old_file(tmp_path / name) for name in "abcd"], tmp_path / "hashes.sqlite"
    with remembered(memory) as hashes:
        list(hashes.of_all(files))
    reads.clear()
    with closing(sqlite3.connect(memory)) as found, found:
        for number, change in enumerate(("sha256 = 'f' || substr(sha256, 2)", "mark = 'x'", "sha256 = NULL")):
            found.execute(f"UPDATE files SET {change} WHERE path = ?", (os.fsencode(files[number]),))
    with remembered(memory) as hashes:
        found = [(digest.sha256, digest.mark) for _, digest in hashes.of_all(files) if isinstance(digest, FileHash)]
        assert found == [(sha256_file(file), mark_of(file.stat())) for file in files]
    assert sorted(reads) == files[:3]


def test_any_name_and_any_inode_can_be_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "hashes.sqlite"
    name = os.fsdecode(b"/source/\xff\xfe.jpg")
    mark = 2**40, -1, 2**64 - 1
    with remembered(memory) as hashes:
        hashes.learnt[name] = mark, "f" * 64
    monkeypatch.setattr(module, "mark_of", lambda status: mark)
    monkeypatch.setattr(Path, "stat", lambda path: os.stat_result(range(10)))
    with remembered(memory) as hashes:
        assert hashes.of(Path(name)) == "f" * 64


@pytest.mark.parametrize("place", ["a folder", "no folder", "a file in the way", "another table", "locked"])
def test_a_memory_that_cannot_be_kept_fails_nothing(tmp_path: Path, place: str) -> None:
    file, memory = old_file(tmp_path / "a"), tmp_path / "hashes.sqlite"
    held = None
    if place == "a folder":
        memory.mkdir()
    elif place == "no folder":
        memory = tmp_path / "gone" / "hashes.sqlite"
    elif place == "a file in the way":
        memory = file / "hashes.sqlite"
    else:
        held = sqlite3.connect(memory)
        held.execute("CREATE TABLE files (other TEXT)")
        if place == "locked":
            held.execute("BEGIN EXCLUSIVE")
    with closing(held) if held else nullcontext(), remembered(memory) as hashes:
        assert hashes.of(file) == sha256_file(file)


def test_what_was_learnt_before_an_error_is_kept(tmp_path: Path, reads: list[Path]) -> None:
    file, memory = old_file(tmp_path / "a"), tmp_path / "hashes.sqlite"
    with suppress(FileNotFoundError), remembered(memory) as hashes:
        hashes.of(file)
        hashes.of(tmp_path / "gone")
    with remembered(memory) as hashes:
        hashes.of(file)
    assert reads == [file]


def test_a_file_that_vanishes_before_it_is_learnt_is_not(tmp_path: Path) -> None:
    hashes = Hashes()
    hashes.learn(tmp_path / "gone", "its hash")
    assert hashes.learnt == {}
