"""The Track 4 file: its form, its order, hostile names and files, and what is said of them."""

import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_experts_examples import write_tiny
from test_experts_trainer import TINY, quiet
from typer.testing import CliRunner

from experts import submit as module
from experts.checkpoint import load_checkpoint
from experts.embed import fused_images, fused_texts, image_features, text_bags, text_features
from experts.examples import decode
from experts.submit import list_images, read_queries, submit
from experts.trainer import train
from georefine.cli import app
from schemas.errors import SourceError, TrainingError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(write_tiny(tmp_path_factory.mktemp("dataset")), folder, TINY, progress=quiet)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve images of different colours, two of them in a folder of their own."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for i in range(12):
        place = folder / "more" if i > 9 else folder
        Image.new("RGB", (32, 24), (20 * i, 255 - 20 * i, 120)).save(place / f"image_{i:08x}.jpeg")
    return folder


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    file = tmp_path / "queries.txt"
    file.write_text("q_00002\tA red roof.\nq_00001\tA lawn\twith trees.\n\nq_00010\t???\n", encoding="utf-8")
    return file


def test_a_line_per_query_and_ten_images_per_line(run: Path, images: Path, queries: Path, tmp_path: Path) -> None:
    done = submit(run, queries, images, tmp_path / "out" / "submission.txt")
    assert (done.queries, done.images, done.refused) == (3, 12, ())
    text = (tmp_path / "out" / "submission.txt").read_text(encoding="utf-8")
    assert text.endswith("\n")
    rows = [line.split(" ") for line in text.splitlines()]
    assert [row[0] for row in rows] == ["q2", "q1", "q10"]
    for row in rows:
        assert len(row) == 11
        assert len(set(row)) == 11
        assert all(re.fullmatch(r"image_[0-9a-f]{8}", name) for name in row[1:])


def test_the_order_is_that_of_the_fused_score(run: Path, images: Path, queries: Path, tmp_path: Path) -> None:
    submit(run, queries, images, tmp_path / "submission.txt")
    cpu = torch.device("cpu")
    checkpoint = load_checkpoint(run, cpu)
    files = sorted(images.rglob("*.jpeg"), key=lambda path: path.stem)
    pixels = torch.stack([torch.from_numpy(decode(path.read_bytes(), TINY.image_size, path.name)) for path in files])
    gallery = fused_images(checkpoint.model, image_features(checkpoint.model, pixels, cpu))
    bags = text_bags(checkpoint.vocabulary, [query.text for query in read_queries(queries)])
    scores = fused_texts(checkpoint.model, text_features(checkpoint.model, bags, cpu)) @ gallery.T
    known = {path.stem: row for row, path in enumerate(files)}
    for row, line in zip(scores, (tmp_path / "submission.txt").read_text().splitlines(), strict=True):
        given = row[[known[name] for name in line.split(" ")[1:]]]
        torch.testing.assert_close(given, row.sort(descending=True).values[:10])


def test_equal_images_come_in_the_order_of_their_ids(run: Path, images: Path, queries: Path, tmp_path: Path) -> None:
    for path in images.rglob("*.jpeg"):
        Image.new("RGB", (8, 8), "red").save(path)
    submit(run, queries, images, tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text().splitlines()[0].split(" ")[1:] == [f"image_{i:08x}" for i in range(10)]


def test_the_same_again_is_the_same_file_and_parts_change_no_line(
    run: Path, images: Path, queries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.txt", "b.txt"):
        submit(run, queries, images, tmp_path / name)
    monkeypatch.setattr(module, "ROWS_IN_FLIGHT", 5)
    submit(run, queries, images, tmp_path / "c.txt")
    assert len({(tmp_path / name).read_bytes() for name in ("a.txt", "b.txt", "c.txt")}) == 1


def test_what_cannot_be_ranked_is_named(run: Path, images: Path, queries: Path, tmp_path: Path) -> None:
    (images / "image_torn.jpeg").write_bytes(next(images.glob("*.jpeg")).read_bytes()[:200])
    (images / "image_text.PNG").write_text("no image")
    (images / "image_empty.webp").touch()
    (images / "image two.jpeg").write_bytes(next(images.glob("*.jpeg")).read_bytes())
    (images / "image_\x1b[31m.jpeg").touch()
    (images / "image_gone.jpeg").symlink_to(images / "nowhere.jpeg")
    os.mkfifo(images / "image_pipe.jpeg")
    (images / "notes.txt").write_text("not an image by its name")
    done = submit(run, queries, images, tmp_path / "submission.txt")
    assert done.images == 12
    reasons = {refused.path.name: refused.reason for refused in done.refused}
    assert list(reasons) == [
        *("image two.jpeg", "image_\x1b[31m.jpeg", "image_gone.jpeg", "image_pipe.jpeg"),
        *("image_empty.webp", "image_text.PNG", "image_torn.jpeg"),
    ]
    assert "truncated" in reasons["image_torn.jpeg"].lower()
    assert "no regular file" in reasons["image_pipe.jpeg"]
    assert "blanks" in reasons["image two.jpeg"]
    assert not any(" at 0x" in reason for reason in reasons.values())


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_image_without_permission_is_named(run: Path, images: Path, queries: Path, tmp_path: Path) -> None:
    (images / "image_00000000.jpeg").chmod(0)
    done = submit(run, queries, images, tmp_path / "submission.txt")
    assert [refused.reason for refused in done.refused] == ["Permission denied"]


def test_fewer_than_ten_images_are_too_few(run: Path, images: Path, queries: Path, tmp_path: Path) -> None:
    for path in sorted(images.rglob("*.jpeg"))[:3]:
        path.write_bytes(b"\xff\xd8 torn")
    with pytest.raises(SourceError, match=r"holds 9 images .* refused: 'image_00000000.jpeg'"):
        submit(run, queries, images, tmp_path / "submission.txt")
    assert not (tmp_path / "submission.txt").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds 0 images"):
        submit(run, queries, tmp_path / "empty", tmp_path / "submission.txt")


def test_folders_that_are_none_and_ids_that_come_twice(tmp_path: Path, images: Path) -> None:
    with pytest.raises(SourceError, match="nowhere cannot be listed"):
        list_images(tmp_path / "nowhere")
    (images / "more" / "image_00000001.png").touch()
    with pytest.raises(SourceError, match="Two images have the id 'image_00000001'"):
        list_images(images)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"q_00001\tA roof.\n", [("q1", "A roof.")]),
        (b"\xef\xbb\xbfq_00001\tA roof.\r\nq_00020\tA lawn. \r\n", [("q1", "A roof."), ("q20", "A lawn.")]),
        (b"q7\ta\n12\tb\tc\n\n  \nq_00000\td", [("q7", "a"), ("q12", "b\tc"), ("q0", "d")]),
        ("q_1\tcafé\u2028terrace".encode(), [("q1", "café\u2028terrace")]),
    ],
)
def test_queries_are_read_in_their_order(tmp_path: Path, data: bytes, expected: list[tuple[str, str]]) -> None:
    (tmp_path / "queries.txt").write_bytes(data)
    assert [(query.id, query.text) for query in read_queries(tmp_path / "queries.txt")] == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no queries"),
        (b"\n \n", "holds no queries"),
        (b"q_1\ta\nq_00001\tb\n", "Line 2 .* asks q1 again"),
        (b"q_1 A roof\n", "Line 1 .* is not a query"),
        (b"q_1\ta\nq_2\t \n", "Line 2"),
        (b"q_1\ta\n\tA roof\n", "Line 2"),
        (b"image_1\ta\n", "Line 1"),
        (b"q_1\ta\nq_2\t\xff\n", "Line 2 .* not UTF-8"),
        ("q_\u0661\ta\n".encode(), "Line 1"),
    ],
)
def test_a_line_that_is_no_query_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "queries.txt").write_bytes(data)
    with pytest.raises(SourceError, match=words):
        read_queries(tmp_path / "queries.txt")


def test_a_file_that_is_none_and_a_run_that_is_none(tmp_path: Path, images: Path, queries: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        read_queries(tmp_path / "nowhere.txt")
    with pytest.raises(TrainingError, match=r"no checkpoint\.pt"):
        submit(tmp_path, queries, images, tmp_path / "submission.txt")


def test_the_published_samples(real: Path, run: Path, images: Path, tmp_path: Path) -> None:
    asked = read_queries(real / "track4_test_queries_sample.txt")
    sample = (real / "track4_submission_sample.txt").read_text().splitlines()
    assert [query.id for query in asked] == [line.split(" ")[0] for line in sample]
    submit(run, real / "track4_test_queries_sample.txt", images, tmp_path / "submission.txt")
    ours = (tmp_path / "submission.txt").read_text().splitlines()
    shape = re.compile(r"q\d+( image_[0-9a-f]{8}){10}")
    assert all(shape.fullmatch(line.strip()) for line in [*sample, *ours])


def test_the_command_says_what_it_left_out(run: Path, images: Path, queries: Path, tmp_path: Path) -> None:
    (images / "image_\x1b[31m.jpeg").touch()
    out = tmp_path / "submission.txt"
    arguments = ["submit", str(run), "--queries", str(queries), "--images", str(images), "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (0, f"{out}: 3 queries, 12 images ranked, 1 refused\n")
    assert "image_\\x1b[31m.jpeg': its name holds blanks or control characters" in done.stderr
    assert len(out.read_text().splitlines()) == 3
    assert CliRunner().invoke(app, arguments[:-2]).exit_code == 2
