"""`up` at a real terminal: Ctrl-C and a closed window end it in order."""

import fcntl
import os
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.feeding import values_on_disk
from tests.support.waiting import WaitUntil
from vibezen.metrics.connection import connect, running_endpoint

EVENTS = 2000


class Terminal:
    """A pseudo terminal with one command in front."""

    def __init__(self, *command: str) -> None:
        self._ours, theirs = os.openpty()
        os.set_blocking(self._ours, False)
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.shown = ""

    def shows(self, text: str) -> bool:
        self.read()
        return text in self.shown

    def read(self) -> None:
        try:
            self.shown += os.read(self._ours, 65536).decode(errors="replace")
        except (BlockingIOError, OSError):  # nothing new, or nobody there any more
            return

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def close(self) -> None:
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1

    def ended(self) -> bool:
        if self._ours >= 0:
            self.read()  # a full terminal would hold it up
        return self.process.poll() is not None


@pytest.fixture
def terminal(tmp_path: Path, free_port: int, wait_until: WaitUntil) -> Iterator[Terminal]:
    """`up` in front of a terminal, with events in the stream that nobody may have read yet."""
    up = ["-m", "vibezen.metrics", "up", "--storage-dir", str(tmp_path / "store"), "--port", str(free_port)]
    terminal = Terminal(sys.executable, *up)
    wait_until(lambda: terminal.shows("Ctrl-C ends everything"))
    endpoint = running_endpoint()
    assert endpoint is not None
    with connect(endpoint.url) as client, client.pipeline(transaction=False) as pipe:
        for number in range(EVENTS):
            pipe.execute_command("XADD", "vibezen:{0}:events", "*", "metric", "response_time", "value", number)
        pipe.execute()
    yield terminal
    terminal.process.kill()
    terminal.process.wait()
    terminal.close()


def test_ctrl_c_drains_and_ends_with_0(terminal: Terminal, tmp_path: Path, wait_until: WaitUntil) -> None:
    terminal.type(b"\x03")
    wait_until(terminal.ended)
    assert terminal.process.returncode == 0
    assert "Traceback" not in terminal.shown
    assert "started again" not in terminal.shown
    assert values_on_disk(tmp_path / "store") == dict.fromkeys(range(EVENTS), 1)


def test_closed_terminal_drains_and_ends_too(terminal: Terminal, tmp_path: Path, wait_until: WaitUntil) -> None:
    terminal.close()
    wait_until(terminal.ended)
    assert terminal.process.returncode == 0
    assert values_on_disk(tmp_path / "store") == dict.fromkeys(range(EVENTS), 1)
