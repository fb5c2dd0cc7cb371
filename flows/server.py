"""A Prefect API to talk to: the configured one, or an embedded server that lives and dies with this process.

Prefect's own embedded server survives a `kill -9` of the flow and keeps its inherited pipes open, so that whatever
reads our output hangs. Ours writes to a log file and watches a pipe that only the parent holds: when the parent is
gone, however it went, the pipe ends and the server with it.

`python -m flows.server SOCKET FOLDER [scheduler]` is that server; SOCKET is the number of a bound socket that it
inherits, so that nobody can take the port before it is up; FOLDER holds its log and goes with it.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import GeorefineError

START_SECONDS = 180  # a cold start with a database migration takes 10-25 s on two cores


def _url(bound: socket.socket) -> str:
    return f"http://127.0.0.1:{bound.getsockname()[1]}/api"


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def _embedded(scheduler: bool) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="georefine-prefect-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as stream, socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            url = _url(bound)
            number = str(bound.fileno())
            server = subprocess.Popen(
                [sys.executable, "-m", "flows.server", number, folder, *(["scheduler"] if scheduler else [])],
                pass_fds=[bound.fileno()],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                cwd=Path(__file__).parent.parent,
                start_new_session=True,  # a Ctrl-C is ours to handle; the server ends after our last call to it
            )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _healthy(url):
                if server.poll() is not None or time.monotonic() > deadline:
                    tail = log.read_text(errors="replace")[-2000:]
                    raise GeorefineError(
                        "The embedded Prefect server did not start; set PREFECT_API_URL to use a server of your own. "
                        f"Its last words: {tail}"
                    )
                time.sleep(0.1)
            yield url
        finally:
            assert server.stdin is not None
            server.stdin.close()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _check_home(home: Path) -> None:
    """Prefect's server keeps its runs in there, and says little of a folder that it cannot write."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise GeorefineError(
            f"Prefect cannot keep its runs in {home} ({error.strerror}): set PREFECT_HOME to another folder."
        ) from error


@contextlib.contextmanager
def prefect_api(scheduler: bool = False) -> Iterator[str]:
    """Yield the address of a Prefect API and make it the current one: the configured one, else an embedded server.

    Args:
        scheduler: let the embedded server fire schedules and show Prefect's own page; it starts ten seconds later.

    Raises:
        GeorefineError: the embedded server did not start, or has no folder that it can write.
    """
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    configured = get_current_settings().api.url
    if configured:
        yield configured
        return
    _check_home(get_current_settings().home)
    with _embedded(scheduler) as url, temporary_settings({PREFECT_API_URL: url}):
        try:
            yield url
        finally:
            _deliver()


def _deliver() -> None:
    """Send what Prefect still holds of logs and events; once the server is gone it could only complain."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=10)


def _serve(bound: socket.socket, folder: str, scheduler: bool) -> None:
    def end_with_parent() -> None:
        os.read(0, 1)  # not through sys.stdin: its lock would be held when the interpreter ends for another reason
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ["PREFECT__SERVER_FINAL"] = "1"
    os.environ["PREFECT_UI_API_URL"] = _url(bound)  # else its page asks at Prefect's usual port
    if not scheduler:
        os.environ.update({"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"})
    import uvicorn

    config = uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    inherited = socket.socket(fileno=int(sys.argv[1]))
    inherited.set_inheritable(False)
    _serve(inherited, sys.argv[2], "scheduler" in sys.argv[3:])
