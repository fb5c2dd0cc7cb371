"""`georefine review` as a process: prints an address that works once, ends on Ctrl-C, names a port that is taken."""

import os
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

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


def test_prints_the_address_serves_and_ends_on_interrupt(tmp_path: Path) -> None:
    write_version(tmp_path / "ds")
    code = "import sys; from pathlib import Path; from review.server import serve; serve(Path(sys.argv[1]), port=0)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "ds")],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().strip())
        assert address.port
        assert address.query.startswith("token=")
        for status in (303, 403):
            connection = HTTPConnection("127.0.0.1", address.port, timeout=20)
            connection.request("GET", f"/?{address.query}")
            assert connection.getresponse().status == status
            connection.close()
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
        assert process.returncode == 0, errors
        assert "For another browser: http://127.0.0.1" in errors
        assert "Traceback" not in errors
