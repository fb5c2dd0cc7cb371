"""Serve the review page: `georefine review DATASET [--run RUN] [--host 127.0.0.1] [--port 8652]`."""

import ipaddress
import os
import secrets
import socket
import sys
from contextlib import suppress
from pathlib import Path

import uvicorn

from review.access import in_address
from review.app import create_app
from schemas.errors import UsageError


def serve(dataset: Path, run: Path | None = None, host: str = "127.0.0.1", port: int = 8652) -> None:
    """Serve the page until interrupted; prints its address, which lets one browser in, and the next one when used.

    Raises:
        UsageError: the address is taken, or is none of this machine.
        DatasetError: the data set cannot be read.
    """
    listening = _listen(host, port)
    with listening:
        bound, port = listening.getsockname()[:2]
        name = _name(host, bound)
        address = f"http://{in_address(name)}:{port}/?token="

        def announce(token: str) -> None:
            print(f"signed in. For another browser: {address}{token}", file=sys.stderr, flush=True)

        token = secrets.token_urlsafe(24)
        app = create_app(dataset, token, run, host=name, announce=announce)
        print(f"Reviewing {dataset}. Open this address (it works once; Ctrl-C ends):", file=sys.stderr)
        print(f"{address}{token}", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2
        )
        with suppress(KeyboardInterrupt):  # how a server is ended; every decision was saved when it was made
            uvicorn.Server(config).run(sockets=[listening])


def _name(host: str, bound: str) -> str:
    """What a browser on this machine can call the page: a wildcard is no address to open."""
    address = ipaddress.ip_address(bound)
    if not address.is_unspecified:
        return host
    return "::1" if address.version == 6 else "127.0.0.1"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, so that asyncio sets TCP_NODELAY: without it every page waits 40 ms for an acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        what = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"The page cannot be served at {host}:{port} ({what}): choose another --port, or end what uses this one."
        ) from error
    return listening
