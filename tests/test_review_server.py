"""`georefine review` as a process: prints an address that works once, ends on Ctrl-C, names a port that is taken."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import pytest
from review_dataset import write_version

from review.server import serve
from schemas.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"127\.0\.0\.1:{port} .* choose another --port"):
            serve(tmp_path, None, "127.0.0.1", port)


@pytest.mark.parametrize(("host", "port"), [("203.0.113.7", 0), ("127.0.0.1", 99_999), ("no-such-host.invalid", 0)])
def test_an_address_that_is_not_ours_is_one_sentence(tmp_path: Path, host: str, port: int) -> None:
    with pytest.raises(UsageError, match="cannot be served"):
        serve(tmp_path, None, host, port)


@contextmanager
def reviewing(dataset: Path, host: str) -> Iterator[tuple[subprocess.Popen[str], SplitResult]]:
    """The page as a process, and the address that it prints."""
    code = (
        "import sys; from pathlib import Path; from review.server import serve; "
        "serve(Path(sys.argv[1]), None, sys.argv[2], 0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(dataset), host],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, urlsplit(process.stdout.readline().strip())
        finally:
            process.kill()


def ask(address: SplitResult, host: str = "") -> int:
    """The status of an answer to the address, asked for as a browser would or under another name."""
    assert address.hostname
    connection = HTTPConnection(address.hostname, address.port, timeout=20)
    connection.request("GET", f"/?{address.query}", headers={"Host": host} if host else {})
    status = connection.getresponse().status
    connection.close()
    return status


def test_prints_the_address_serves_and_ends_on_interrupt(tmp_path: Path) -> None:
    write_version(tmp_path / "ds")
    with reviewing(tmp_path / "ds", "127.0.0.1") as (process, address):
        assert address.port
        assert address.query.startswith("token=")
        assert [ask(address), ask(address)] == [303, 403]
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
        assert process.returncode == 0, errors
        assert "For another browser: http://127.0.0.1" in errors
        assert "Traceback" not in errors


@pytest.mark.parametrize(("host", "printed"), [("0.0.0.0", "127.0.0.1"), ("127.1", "127.1")])
def test_the_printed_address_works_and_no_other_name_does(tmp_path: Path, host: str, printed: str) -> None:
    write_version(tmp_path / "ds")
    with reviewing(tmp_path / "ds", host) as (process, address):
        assert address.hostname == printed
        assert ask(address, f"evil.example:{address.port}") == 421
        assert ask(address, f"0.0.0.0:{address.port}") == 421
        assert ask(address) == 303
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
