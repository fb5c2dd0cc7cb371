"""The feature cache: every key once, the same bytes whatever happened on the way, damage found and mended."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from experts import features
from experts.features import INDEX, ROWS, EncoderIdentity, FeatureTable, cached
from schemas.errors import TrainingError

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 6
IDENTITY = EncoderIdentity("eva02-clip-24x1024-14", "ab" * 32, 224, 4, "cls", "float32", "bfloat16")
KEYS = st.lists(st.text(min_size=1, max_size=8), max_size=40)


def feature(key: str, width: int = WIDTH) -> Tensor:
    """What the test's encoder gives for a key: values that bfloat16 holds exactly."""
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).digest()
    return torch.tensor(list(digest[:width]), dtype=torch.float32) - 128


class Encoder:
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, keys: Sequence[str]) -> Tensor:
        self.asked.append(list(keys))
        return torch.stack([feature(key) for key in keys])


def refuse(keys: Sequence[str]) -> Tensor:
    raise AssertionError(f"asked to encode {keys}")


def fill(folder: Path, keys: Sequence[str], identity: EncoderIdentity = IDENTITY) -> tuple[FeatureTable, list[str]]:
    said: list[str] = []
    return cached(folder, identity, keys, Encoder(), WIDTH, say=said.append), said


def place(folder: Path) -> Path:
    [found] = folder.iterdir()
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place(folder).iterdir()}


@settings(max_examples=40, deadline=None)  # every example waits for the disk
@given(KEYS)
def test_rows_come_in_the_order_of_the_keys_and_a_second_run_encodes_nothing(keys: list[str]) -> None:
    with TemporaryDirectory() as name:
        encoder = Encoder()
        first = cached(Path(name), IDENTITY, keys, encoder, WIDTH)
        assert sorted(key for block in encoder.asked for key in block) == sorted(set(keys))
        second = cached(Path(name), IDENTITY, keys, refuse, WIDTH)
        for table in (first, second):
            assert len(table) == len(keys)
            rows = torch.arange(len(keys))
            expected = torch.stack([feature(key) for key in keys]) if keys else torch.zeros(0, WIDTH)
            assert torch.equal(table[rows], expected)
            assert torch.equal(table[rows.flip(0)], expected.flip(0))


@settings(max_examples=40, deadline=None)  # every example waits for the disk
@given(KEYS, st.randoms(use_true_random=False))
def test_the_same_set_gives_the_same_bytes(keys: list[str], random: object) -> None:
    shuffled = [*keys, *keys[:3]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        fill(Path(one), keys)
        fill(Path(other), shuffled)
        assert contents(Path(one)) == contents(Path(other))


@settings(max_examples=40, deadline=None)  # every example waits for the disk
@given(KEYS, KEYS)
def test_only_what_is_new_is_encoded(old: list[str], new: list[str]) -> None:
    with TemporaryDirectory() as name:
        kept, _ = fill(Path(name), old)
        encoder = Encoder()
        table = cached(Path(name), IDENTITY, new, encoder, WIDTH)
        assert [key for block in encoder.asked for key in block] == sorted(set(new) - set(old))
        assert all(torch.equal(table[torch.tensor([i])][0], feature(key)) for i, key in enumerate(new))
        # A table that was open meanwhile still reads its own rows.
        assert all(torch.equal(kept[torch.tensor([i])][0], feature(key)) for i, key in enumerate(old))


def keys_of(n: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]


@settings(max_examples=40, deadline=None)  # every example waits for the disk
@given(st.sampled_from([ROWS, INDEX]), st.floats(0, 1, exclude_max=True), st.booleans())
def test_damage_is_found_told_and_mended_to_the_same_bytes(file: str, where: float, cut: bool) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "BLOCK", 4)
        folder, keys = Path(name), keys_of(18)
        fill(folder, keys)
        whole = contents(folder)
        path = place(folder) / file
        data = bytearray(whole[file])
        at = int(where * len(data))
        if cut:
            del data[at:]
        else:
            data[at] ^= 0x40
        path.write_bytes(data)
        table, said = fill(folder, keys)
        assert len(said) == 1
        assert "damaged or broken off" in said[0]
        assert torch.equal(table[torch.arange(18)], torch.stack([feature(key) for key in keys]))
        assert contents(folder) == whole


def test_blocks_before_the_damage_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BLOCK", 4)
    keys = keys_of(12)
    fill(tmp_path, keys)
    path = place(tmp_path) / ROWS
    data = bytearray(path.read_bytes())
    data[5 * WIDTH * 2] ^= 1  # of the second block
    path.write_bytes(data)
    encoder = Encoder()
    cached(tmp_path, IDENTITY, keys, encoder, WIDTH, say=lambda _: None)
    assert encoder.asked == [sorted(keys)[4:8], sorted(keys)[8:]]


def test_what_another_encoder_left_under_our_name_is_not_used(tmp_path: Path) -> None:
    fill(tmp_path / "ours", ["a"])
    fill(tmp_path / "theirs", ["a"], replace(IDENTITY, weights="cd" * 32))
    ours, theirs = place(tmp_path / "ours"), place(tmp_path / "theirs")
    for file in (ROWS, INDEX):
        (ours / file).write_bytes((theirs / file).read_bytes())
    encoder = Encoder()
    said: list[str] = []
    cached(tmp_path / "ours", IDENTITY, ["a"], encoder, WIDTH, say=said.append)
    assert encoder.asked == [["a"]]
    assert len(said) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"model": "xlm-roberta-24x1024"},
        {"weights": "cd" * 32},
        {"size": 336},
        {"split": 2},
        {"feature": "tokens"},
        {"precision": "bfloat16"},
        {"dtype": "float16"},
    ],
)
def test_every_part_of_the_identity_makes_another_cache(tmp_path: Path, change: dict[str, object]) -> None:
    fill(tmp_path, ["a"])
    encoder = Encoder()
    cached(tmp_path, replace(IDENTITY, **change), ["a"], encoder, WIDTH)  # type: ignore[arg-type]
    assert encoder.asked == [["a"]]
    cached(tmp_path, IDENTITY, ["a"], refuse, WIDTH)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_features_are_rounded_to_the_stored_type_once(tmp_path: Path, dtype: str) -> None:
    exact = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    identity = replace(IDENTITY, dtype=dtype)
    table = cached(tmp_path, identity, ["a", "b", "c"], lambda keys: exact, WIDTH)
    got = table[torch.arange(3)]
    assert got.dtype == torch.float32
    assert torch.equal(got, exact.to(features.DTYPES[dtype]).float())
    assert (place(tmp_path) / ROWS).stat().st_size == 3 * WIDTH * (4 if dtype == "float32" else 2)


def test_writing_into_a_table_does_not_reach_the_disk(tmp_path: Path) -> None:
    table, _ = fill(tmp_path, ["a"])
    table.stored.zero_()
    again = cached(tmp_path, IDENTITY, ["a"], refuse, WIDTH)
    assert torch.equal(again[torch.tensor([0])][0], feature("a"))


@pytest.mark.parametrize("wrong", [torch.zeros(2, WIDTH), torch.zeros(1, WIDTH + 1), torch.zeros(WIDTH)])
def test_features_of_another_shape_are_refused(tmp_path: Path, wrong: Tensor) -> None:
    with pytest.raises(TrainingError, match="shape"):
        cached(tmp_path, IDENTITY, ["a"], lambda keys: wrong, WIDTH)
    fill(tmp_path, ["a"])  # nothing of it stayed


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), "bfloat16"), (float("inf"), "bfloat16"), (1e6, "float16")])
def test_features_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float, dtype: str) -> None:
    bad = torch.zeros(2, WIDTH)
    bad[1, 3] = value
    with pytest.raises(TrainingError, match="feature of the-second is not finite"):
        cached(tmp_path, replace(IDENTITY, dtype=dtype), ["the-first", "the-second"], lambda keys: bad, WIDTH)


def test_wide_features_are_encoded_in_smaller_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BLOCK_BYTES", 3 * WIDTH * 2)
    encoder = Encoder()
    cached(tmp_path, IDENTITY, keys_of(7), encoder, WIDTH)
    assert [len(block) for block in encoder.asked] == [3, 3, 1]


def test_an_encoder_that_fails_midway_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BLOCK", 4)
    keys, encoder = keys_of(12), Encoder()

    def failing(block: Sequence[str]) -> Tensor:
        if len(encoder.asked) == 2:
            raise RuntimeError("out of memory")
        return encoder(block)

    with pytest.raises(RuntimeError, match="out of memory"):
        cached(tmp_path / "failed", IDENTITY, keys, failing, WIDTH)
    rest = Encoder()
    cached(tmp_path / "failed", IDENTITY, keys, rest, WIDTH, say=refuse)  # type: ignore[arg-type]
    assert rest.asked == [sorted(keys)[8:]]
    fill(tmp_path / "undisturbed", keys)
    assert contents(tmp_path / "failed") == contents(tmp_path / "undisturbed")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"file.*choose another folder"):
        cached(tmp_path / "file", IDENTITY, ["a"], Encoder(), WIDTH)


FULL = textwrap.dedent("""
    import resource, signal, sys
    from pathlib import Path
    sys.path[:0] = ["tests"]
    from test_experts_features import IDENTITY, WIDTH, Encoder, features, keys_of
    from schemas.errors import TrainingError
    features.BLOCK = 4
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        features.cached(Path(sys.argv[1]), IDENTITY, keys_of(18), Encoder(), WIDTH)
    except TrainingError as error:
        print(error)
""")


@pytest.mark.slow
@pytest.mark.parametrize("limit", [10, 700])
def test_where_the_disk_takes_no_more_it_says_so_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(features, "BLOCK", 4)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "full"), str(limit)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "free space or choose another folder" in done.stdout
    assert not done.stderr
    fill(tmp_path / "full", keys_of(18))
    fill(tmp_path / "undisturbed", keys_of(18))
    assert contents(tmp_path / "full") == contents(tmp_path / "undisturbed")


KILLED = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    sys.path[:0] = ["tests"]
    from test_experts_features import IDENTITY, WIDTH, Encoder, features, keys_of
    features.BLOCK = 4
    os_fsync, left = os.fsync, int(sys.argv[2])
    def fsync(descriptor):
        global left
        if left == 0:
            os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - 3))  # the last bytes did not reach the disk
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        os_fsync(descriptor)
    os.fsync = fsync
    features.cached(Path(sys.argv[1]), IDENTITY, keys_of(18), Encoder(), WIDTH)
""")


@pytest.mark.slow
@pytest.mark.parametrize("syncs", [0, 2, 3, 6, 11])
def test_killed_at_any_write_it_ends_with_the_bytes_of_an_undisturbed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syncs: int
) -> None:
    monkeypatch.setattr(features, "BLOCK", 4)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(syncs)], cwd=ROOT, env=os.environ, check=False
    )
    assert done.returncode == -signal.SIGKILL
    table, _ = fill(tmp_path / "killed", keys_of(18))
    assert torch.equal(table[torch.arange(18)], torch.stack([feature(key) for key in keys_of(18)]))
    fill(tmp_path / "undisturbed", keys_of(18))
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


@pytest.mark.slow
def test_two_processes_encode_every_key_once(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        sys.path[:0] = ["tests"]
        from test_experts_features import IDENTITY, WIDTH, Encoder, features, keys_of
        class Slow(Encoder):
            def __call__(self, keys):
                time.sleep(0.3)
                return super().__call__(keys)
        encoder = Slow()
        features.cached(Path(sys.argv[1]), IDENTITY, keys_of(4), encoder, WIDTH)
        print(sum(map(len, encoder.asked)))
    """)
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert sorted(int(process.communicate()[0]) for process in both) == [0, 4]
