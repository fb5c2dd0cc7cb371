"""The reply store: what is acknowledged is kept, whatever happens to the process or its neighbours."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from refine.replies import CREATE, SCHEMA_VERSION, Answer, ReplyStore
from schemas.errors import RefinerError

ANSWER = Answer("a", "stop", 5, 7, ("HTTP 500",), ("colour: red",))
# Writes rows as fast as it can and says each one that was acknowledged.
WRITER = """
import sys
from pathlib import Path
from refine.replies import Answer, ReplyStore
store = ReplyStore(Path(sys.argv[1]))
for i in range(int(sys.argv[3])):
    key = f"{sys.argv[2]}-{i}"
    store.put(key, key.encode(), Answer(key * 20, "stop"))
    print(key, flush=True)
"""


def writer(path: Path, name: str, rows: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(rows)], stdout=subprocess.PIPE, text=True
    )


def test_what_was_put_is_got_by_another_connection(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "replies.sqlite"
    with ReplyStore(path) as store, ReplyStore(path) as other:
        assert store.get("k") is None
        assert store.request("k") is None
        assert store.put("k", b'{"a": 1}', ANSWER) is ANSWER
        assert other.get("k") == ANSWER
        assert other.request("k") == b'{"a": 1}'
        assert len(other) == 1


def test_the_first_answer_stays_but_a_failure_gives_way(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "r.sqlite") as store:
        assert store.put("k", b"r", Answer("no answer", "failed")).finish == "failed"
        assert len(store) == 0
        assert store.put("k", b"r", ANSWER) == ANSWER
        assert store.put("k", b"r", Answer("b", "stop")) == ANSWER
        assert store.put("k", b"r", Answer("b", "failed")) == ANSWER
        assert store.get("k") == ANSWER
        assert len(store) == 1


@pytest.mark.parametrize("text", ["", "\0", "ü\u2028\U0001f600", '{"caption"' * 10_000])
def test_any_text_comes_back_as_it_was(tmp_path: Path, text: str) -> None:
    with ReplyStore(tmp_path / "r.sqlite") as store:
        store.put("k", text.encode(), Answer(text, "length"))
        assert store.get("k") == Answer(text, "length")
        assert store.request("k") == text.encode()


def test_pictures_are_left_out_of_the_request(tmp_path: Path) -> None:
    url = "data:image/jpeg;base64," + "A" * 50_000
    request = json.dumps({"url": url, "text": "a roof"}).encode()
    with ReplyStore(tmp_path / "r.sqlite") as store:
        store.put("k", request, ANSWER)
        kept = store.request("k")
    assert kept is not None
    assert json.loads(kept)["text"] == "a roof"
    assert len(kept) < 200
    assert b"50000 characters" in kept


def test_every_acknowledged_reply_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    process = writer(path, "a", 1_000_000)
    assert process.stdout is not None
    said = [process.stdout.readline().strip() for _ in range(300)]
    process.send_signal(signal.SIGKILL)
    said += process.stdout.read().splitlines()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    assert said[-1]
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
    with ReplyStore(path) as store:
        complete = [key for key in said if "-" in key and key[2:].isdigit()]
        assert len(complete) >= 300
        # The last line may be torn in the pipe; a torn key is a shorter number, which is in the store as well.
        assert [key for key in complete if store.get(key) != Answer(key * 20, "stop")] == []


def test_several_processes_write_one_store(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    writers = [writer(path, name, 200) for name in ("a", "b", "c")]
    for process in writers:
        process.communicate(timeout=60)
        assert process.returncode == 0
    with ReplyStore(path) as store:
        assert len(store) == 600


def test_a_new_store_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        other.execute(CREATE)
        other.execute("BEGIN IMMEDIATE")  # lets others read, and refuses them the change to a write-ahead log
        threading.Timer(0.5, other.execute, ("COMMIT",)).start()
        with ReplyStore(path) as store:
            assert store.put("k", b"r", ANSWER) == ANSWER


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    path.write_bytes(b"this is no database, and long enough to be looked at" * 100)
    with pytest.raises(RefinerError, match=r"r\.sqlite is damaged .* move it aside"):
        ReplyStore(path)
    assert path.read_bytes().startswith(b"this is no")


def test_damage_inside_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with ReplyStore(path) as store:
        for i in range(500):
            store.put(f"{i:064}", os.urandom(500), ANSWER)
    data = bytearray(path.read_bytes())
    data[4096 : len(data) - 4096] = b"\xa5" * (len(data) - 8192)
    path.write_bytes(data)
    with ReplyStore(path) as store, pytest.raises(RefinerError, match="damaged"):
        [store.get(f"{i:064}") for i in range(500)]


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(RefinerError, match="newer georefine"):
        ReplyStore(path)


def test_a_full_disk_is_said_and_costs_nothing_kept(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "r.sqlite") as store:
        store.put("kept", b"", ANSWER)
        store._db.execute("PRAGMA max_page_count = 3")
        with pytest.raises(RefinerError, match=r"cannot be used .*full.* what it holds is kept"):
            [store.put(str(i), os.urandom(5000), ANSWER) for i in range(100)]
        assert store.get("kept") == ANSWER


def test_a_put_is_cheap(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "r.sqlite") as store:
        start = time.process_time()
        for i in range(200):
            store.put(str(i), b"a request of some length " * 100, ANSWER)
        assert (time.process_time() - start) / 200 < 0.005
