"""Run a command that ends with the process that started it, however that one goes.

vLLM is three processes that outlive a `kill -9` of their parent and keep its memory and its port. This small process
stands between: it starts the command in a process group of its own and ends the whole group when its standard input
says something or closes, when its parent is gone, or when the command has ended and left children behind.

`python -I refine/watch.py PARENT_PID COMMAND…` is started by refine.server, never by hand; the standard library is
all it needs. It exits as the command did, with 128 + n where signal n ended it.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

LOOK_SECONDS = 0.2
GRACE_SECONDS = 10.0  # vLLM takes 2-4 s to give back its shared memory after SIGTERM
PR_SET_PDEATHSIG = 1


def _end_with_us() -> None:
    """In the child, before exec: SIGTERM when this process dies by `kill -9`. Only Linux has that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _group_is_gone(child: subprocess.Popen[bytes]) -> bool:
    child.poll()  # a zombie would keep the group alive
    try:
        os.killpg(child.pid, 0)
    except ProcessLookupError:
        return True
    return False


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM to everything the command started, after the grace SIGKILL to what is left."""
    if _group_is_gone(child):
        return
    os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while not _group_is_gone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    if not _group_is_gone(child):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def main(parent: int, command: list[str]) -> int:
    """Run the command until it ends, or until it has to; return its exit status."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=_end_with_us,  # noqa: PLW1509 - this process has no threads
    )
    while child.poll() is None and os.getppid() == parent:
        if select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
            break
    _end_group(child)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
