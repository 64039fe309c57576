"""Roles as real processes, started the way a user starts them, and ended by their own process id."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from tests.support.waiting import DEADLINE


class StartRole(Protocol):
    def __call__(self, *arguments: str, **environment: str) -> "RoleProcess": ...


class PythonProcess:
    """`python <arguments>` with its output in a file."""

    def __init__(self, output: Path, *arguments: str, **environment: str) -> None:
        self.output = output
        command = [sys.executable, *arguments]
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: no chance to finish anything."""
        self._process.kill()
        self._process.wait(DEADLINE)

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def stop(self, deadline: float = DEADLINE) -> int:
        """SIGTERM, and the exit code."""
        self.terminate()
        return self.wait(deadline)

    def wait(self, deadline: float = DEADLINE) -> int:
        return self._process.wait(deadline)

    def end(self) -> None:
        """Whatever state it is in: gone."""
        if self.running():
            self.resume()
            self.kill()


class RoleProcess(PythonProcess):
    """`vibezen-metrics <arguments>` with its output in a file."""

    def __init__(self, output: Path, *arguments: str, **environment: str) -> None:
        super().__init__(output, "-m", "vibezen.metrics", *arguments, **environment)
