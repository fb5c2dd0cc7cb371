"""The rebuild as a flow against a real Prefect server: versions, reuse, every reader, the scheduled run."""

import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from data.shards import open_version
from data.verify import verify
from data.versions import Published
from flows.rebuild import HELD_BACK, rebuild, summary
from flows.server import prefect_api
from schemas.config import Config, config_dict
from schemas.errors import SourceError

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with prefect_api() as url:
        yield url


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    records = []
    for split, prefix in (("train", ""), ("test", "gallery_")):
        for building in range(12):
            number = f"{building + 100 * (split == 'test'):04d}"
            for folder, name in (("satellite", f"{number}.jpg"), ("drone", "image-01.jpeg"), ("street", "1.jpg")):
                path = root / split / f"{prefix}{folder}" / number / name
                path.parent.mkdir(parents=True)
                buffer = io.BytesIO()
                colour = (building * 20, 100 if split == "test" else 0, {"s": 30, "d": 120}.get(folder[0], 200))
                image = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
                Image.blend(image, Image.new("RGB", (64, 64), colour), 0.6).rotate(building * 7).save(buffer, "JPEG")
                path.write_bytes(buffer.getvalue())
                text = f"On the left, there is a building with a red roof and {building} cars."
                records.append({"image": path.relative_to(root).as_posix(), "caption": text})
    (root / "train.json").write_text(json.dumps(records[:36]), encoding="utf-8")
    (root / "test.json").write_text(json.dumps(records[36:]), encoding="utf-8")
    return root


def checksums(dataset: Path) -> dict[str, str]:
    return {shard.path: shard.sha256 for shard in open_version(dataset).manifest.shards}


def sound(dataset: Path) -> bool:
    """Whether verify finds nothing but that the drawn pictures of both splits look alike."""
    return {finding.check for finding in verify(dataset)} <= {"leak"}


def test_publishes_a_sound_version_and_nothing_changed_makes_no_other(api: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    first = rebuild(str(source), str(out))
    assert (first["version"], first["new"], first["reused"]) == ("v0001", True, 0)
    assert first["accounts"]["images"] == {
        "read": 72,
        "written": 72,
        "rejected": 0,
        "derived": first["accounts"]["images"]["derived"],
    }
    shown = summary(Published(open_version(out), new=True))
    assert "published v0001" in shown
    assert "| train | satellite |" in shown
    assert "| images | 72 | 72 | 0 |" in shown
    again = rebuild(str(source), str(out))
    assert (again["version"], again["new"]) == ("v0001", False)
    assert again["reused"] == again["shards"]
    assert not (out / "v0002").exists()


def test_threads_and_processes_and_a_fresh_start_write_the_same_bytes(api: str, source: Path, tmp_path: Path) -> None:
    rebuild(str(source), str(tmp_path / "a"), None, "processes")
    rebuild(str(source), str(tmp_path / "b"), None, "threads")
    assert checksums(tmp_path / "a") == checksums(tmp_path / "b")


def test_training_follows_a_new_version_only(api: str, source: Path, tmp_path: Path) -> None:
    epochs = {"stage0_epochs": 1, "stage1_epochs": 1, "stage2_epochs": 1}
    arguments = (str(source), str(tmp_path / "dataset"), {"train": epochs}, "threads", str(tmp_path / "runs"))
    first = rebuild(*arguments)
    assert (tmp_path / "runs" / "v0001" / "checkpoint.pt").is_file()
    assert first["train"]["queries"] == 36
    assert "train" not in rebuild(*arguments)
    other = rebuild(str(source), str(tmp_path / "dataset"), {"train": {**epochs, "seed": 5}}, "threads")
    assert not other["new"], "how training is configured changes no shard"


def test_a_change_makes_a_version_that_shares_what_did_not_change(api: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    rebuild(str(source), str(out))
    records = json.loads((source / "test.json").read_text(encoding="utf-8"))
    records[0]["caption"] = "Another caption."
    (source / "test.json").write_text(json.dumps(records), encoding="utf-8")
    shutil.rmtree(out / ".work")
    result = rebuild(str(source), str(out))
    assert (result["version"], result["new"]) == ("v0002", True)
    before, after = checksums(out / "v0001"), checksums(out / "v0002")
    changed = [path for path in after if before.get(path) != after[path]]
    assert len(changed) == 1
    for path in after.keys() - set(changed):
        assert (out / "v0001" / path).stat().st_ino == (out / "v0002" / path).stat().st_ino, f"{path} is not shared"


def test_an_unusable_source_publishes_nothing(api: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError):
        rebuild(str(tmp_path / "empty"), str(tmp_path / "dataset"))
    assert not list(tmp_path.glob("dataset/v*"))


def test_a_source_whose_images_were_all_lost_takes_nothing_with_it(api: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    rebuild(str(source), str(out))
    before = checksums(out)
    for path in source.rglob("*.jp*g"):
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(
        SourceError, match=r"Not one of the 72 images of the source can be used \(test/gallery_drone/0100"
    ):
        rebuild(str(source), str(out), keep=1)
    assert [entry.name for entry in sorted(out.iterdir())] == [".work", "latest", "v0001"]
    assert checksums(out) == before


def test_nothing_is_removed_or_trained_while_an_annotation_file_is_broken(
    api: str, source: Path, tmp_path: Path
) -> None:
    out, runs = tmp_path / "dataset", str(tmp_path / "runs")
    epochs = {"train": {"stage0_epochs": 1, "stage1_epochs": 1, "stage2_epochs": 1}}
    whole = (source / "train.json").read_text(encoding="utf-8")
    rebuild(str(source), str(out), epochs)
    (source / "train.json").write_text(whole[: len(whole) // 2], encoding="utf-8")
    result = rebuild(str(source), str(out), epochs, "threads", runs, keep=1)
    assert (result["version"], result["removed"]) == ("v0002", [])
    assert "train" not in result
    assert any(note.startswith("train.json is no readable annotation file") for note in result["notes"])
    assert HELD_BACK in result["notes"]
    (source / "train.json").write_text(whole, encoding="utf-8")
    result = rebuild(str(source), str(out), epochs, "threads", runs, keep=1)
    assert (result["version"], result["removed"]) == ("v0003", ["v0001", "v0002"])
    assert result["train"]["queries"] == 36
    assert HELD_BACK not in result["notes"]


def test_real_images_every_row_accounted_and_every_byte_kept(api: str, mini: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    result = rebuild(str(mini), str(out), config_dict(Config()))
    assert all(a["read"] == a["written"] + a["rejected"] for a in result["accounts"].values())
    files = {p.relative_to(mini).as_posix(): p.read_bytes() for p in mini.rglob("*.jp*g")}
    images = open_version(out).read("images", columns=["image_id", "image", "parent_image_id"]).to_pylist()
    originals = {i["image_id"]: i["image"]["bytes"] for i in images if i["parent_image_id"] is None}
    assert originals == files
    captions = open_version(out).read("captions").to_pylist()
    annotated = [
        r for name in ("train.json", "test.json") for r in json.loads((mini / name).read_text(encoding="utf-8"))
    ]
    raws = sorted(c["raw"] for c in captions if "~aug" not in c["image_id"])
    assert raws == sorted(
        c for r in annotated for c in ([r["caption"]] if isinstance(r["caption"], str) else r["caption"])
    )
    direction = re.compile(
        r"\b(left(?! parked)|right(?![ -]angle)|north|south|east|west|upper|lower|bottom|foreground)\b", re.I
    )
    satellite = [c["final"] for c in captions if c["split"] == "train" and c["platform"] == "satellite"]
    assert satellite
    assert [final for final in satellite if direction.search(final)] == []
    assert verify(out) == []


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_hostile_input_loses_no_row_and_ends_in_a_sound_version(api: str, source: Path, tmp_path: Path) -> None:
    good = (source / "train/drone/0001/image-01.jpeg").read_bytes()
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb += chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    for name, data in {
        "truncated": good[:-200],
        "text": b"no image at all",
        "empty": b"",
        "bomb": bomb,
        "name with spaces and \u00fcml\u00e4uts\n": good,
    }.items():
        folder = source / "train" / "drone" / name
        folder.mkdir()
        (folder / "image-01.jpeg").write_bytes(data)
    image = "train/drone/0001/image-01.jpeg"
    records = json.loads((source / "train.json").read_text(encoding="utf-8"))
    records += [
        {"image": "train/drone/gone/image-01.jpeg", "caption": "A roof."},
        {"image": "../../etc/passwd", "caption": "A roof."},
        {"image": "/etc/passwd", "caption": "A roof."},
        {
            "image": "train/drone/truncated/image-01.jpeg",
            "caption": ["One.", "Two."],
            "sentences": ["a"],
            "bboxes": None,
        },
        {"image": image, "caption": None},
        {"image": image, "caption": ""},
        {"image": image, "caption": "x" * 20_000},
        {"image": image, "caption": [None, 7, "A fine roof.", "A fine roof."]},
        {
            "image": image,
            "caption": [],
            "sentences": ["a", "b", None],
            "bboxes": [[0.5, 0.5, 9, 9], [1, 2], [0, 0, 0, 0], 3],
        },
        {"image": image, "caption": "<script>alert(1)</script> '; DROP TABLE captions; -- \u202e \x00 \ud800"},
        {"image": None},
        "no object",
        7,
        None,
    ]
    (source / "train.json").write_text(json.dumps(records), encoding="utf-8")
    result = rebuild(str(source), str(tmp_path / "dataset"))
    assert all(a["read"] == a["written"] + a["rejected"] for a in result["accounts"].values())
    rejects = open_version(tmp_path / "dataset").read("rejects").to_pylist()
    assert len(rejects) == sum(a["rejected"] for a in result["accounts"].values())
    assert all(row["reason"] for row in rejects)
    reasons = {row["reason"] for row in rejects}
    assert {"truncated", "not_an_image", "empty_file", "too_large", "outside", "missing_image", "parent"} <= reasons
    assert sound(tmp_path / "dataset")


def test_a_scheduled_rebuild_fires(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    command = [sys.executable, "-m", "georefine", "serve", str(source), "--out", str(out), "--cron", "* * * * *"]
    log = (tmp_path / "serve.log").open("wb")
    server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=os.environ)
    try:
        deadline = time.monotonic() + 300
        while not (out / "latest").exists() and server.poll() is None and time.monotonic() < deadline:
            time.sleep(1)
        said = (tmp_path / "serve.log").read_text(errors="replace")
        assert (out / "latest").exists(), said[-3000:]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
        log.close()
    assert sound(out)
