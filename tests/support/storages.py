"""External storages for tests: an S3 server on loopback, with its protocol and nothing of the cloud."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import fsspec
import httpx
import pytest

from tests.support.waiting import wait_until

SECRET: Final = "wJalrXUtnFEMI-never-shown"
KEY: Final = "AKIAIOSFODNN7EXAMPLE"


class S3Server:
    """moto's server; `url` answers S3 requests of anybody who has keys, whichever."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/moto-api/").status_code < 500
        except httpx.TransportError:
            return False

    def use(self, monkeypatch: pytest.MonkeyPatch, bucket: str) -> str:
        """Make it this process's S3; answers the URL of a new bucket."""
        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # they keep the address they were made with
        fsspec.filesystem("s3").mkdir(bucket)
        return f"s3://{bucket}/archive"

    def environment(self) -> dict[str, str]:
        """What the storage's clients take from there."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextmanager
def s3_server() -> Iterator[S3Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = S3Server(port)
    server.start()
    try:
        yield server
    finally:
        server.stop()
