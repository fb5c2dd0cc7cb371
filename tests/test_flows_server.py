"""The embedded Prefect server lives and dies with the process that started it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows.server import prefect_api
from schemas.errors import GeorefineError

ROOT = Path(__file__).resolve().parents[1]
HOLD = """
import flows, sys, time
from flows.server import prefect_api
with prefect_api() as url:
    print(url, flush=True)
    time.sleep(300)
"""


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.slow
def test_kill_9_takes_the_server_along_and_closes_our_output() -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert holder.stdout is not None
    url = holder.stdout.readline().decode().strip()
    assert url.startswith("http://127.0.0.1:"), url
    assert answers(url)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(timeout=10)
    holder.stdout.read()  # hangs here if anything still holds our output open
    holder.stdout.close()
    deadline = time.monotonic() + 20
    while answers(url) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not answers(url)


@pytest.mark.slow
def test_a_configured_server_is_used() -> None:
    code = "import flows\nfrom flows.server import prefect_api\nwith prefect_api() as url: print(url)"
    environment = os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "http://127.0.0.1:9/api"


def test_a_home_of_prefect_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    home = tmp_path / "file" / "home"
    with (
        temporary_settings({PREFECT_HOME: home, PREFECT_API_URL: None}),
        pytest.raises(
            GeorefineError, match=r"Prefect cannot keep its runs in .*/file/home \(Not a directory\): set PREF"
        ),
        prefect_api(),
    ):
        pass


@pytest.mark.slow
def test_the_page_of_a_server_with_a_scheduler_asks_that_server() -> None:
    with prefect_api(scheduler=True) as url:
        page = url.removesuffix("/api")
        with urllib.request.urlopen(f"{page}/ui-settings", timeout=30) as answer:
            assert json.load(answer)["api_url"] == url
        with urllib.request.urlopen(f"{page}/", timeout=30) as answer:
            assert "<html" in answer.read().decode().lower()
