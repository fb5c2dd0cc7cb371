"""An S3-compatible server on this machine (moto), with one bucket, for tests; they are skipped where it is missing."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import pytest

BUCKET = "bucket"
SETTINGS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server() -> Iterator[Any]:
    """Yield the file system of a fresh server, which the environment names to us and to our children."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (pip install 's3fs')")
    server = pytest.importorskip(
        "moto.server", reason="moto is not installed (pip install 'moto[s3]' flask flask-cors)"
    )
    from s3fs import S3FileSystem

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    with urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")):  # one state for the whole process
        pass
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in (SETTINGS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # of another server
        try:
            files = S3FileSystem()
            files.mkdir(BUCKET)
            yield files
        finally:
            S3FileSystem.clear_instance_cache()
            moto.stop()
