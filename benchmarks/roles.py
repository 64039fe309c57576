"""The product's own processes, started as a user would start them, and what they weigh."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from vibezen.metrics.config import ENVIRONMENT_PREFIX
from vibezen.metrics.embedded import end_with_parent

DEADLINE: Final = 60.0
"""Seconds until a state that must come is given up."""
STOP_SECONDS: Final = 30.0


class Failed(RuntimeError):
    """What was measured did not work; the text says what."""


@contextmanager
def role(folder: Path, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `vibezen-metrics <arguments>` in `folder`; keyword arguments are settings, as in the environment
    (`REDIS__URL=…`). Ended as by `kill`, and it must end well."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    environ |= {ENVIRONMENT_PREFIX + name: value for name, value in settings.items()}
    environ["XDG_STATE_HOME"] = str(folder / "state")
    log_path = folder / f"{'-'.join(arguments[:2])}.log"
    command = [sys.executable, "-P", "-m", "vibezen.metrics", *arguments]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=log, stderr=log, preexec_fn=end_with_parent()
        )
    try:
        yield process
        if process.poll() is not None:
            raise Failed(f"`{' '.join(arguments)}` ended early: {log_path.read_text()[-500:]}")
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], object], what: str, deadline: float = DEADLINE, poll: float = 0.02) -> None:
    """Raises Failed when `condition` does not become true within `deadline` seconds."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"not within {deadline:g} s: {what}")
        time.sleep(poll)


def answers(url: str) -> bool:
    """Whether a GET is answered by 200."""
    try:
        with urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def weights(parent: int) -> Mapping[str, float]:
    """Resident memory in MB of a process and its children, by what they were started as."""
    listing = subprocess.run(["ps", "-axo", "pid=,ppid=,rss=,args="], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in listing.splitlines():
        pid, ppid, kilobytes, args = line.split(None, 3)
        if parent in (int(pid), int(ppid)):
            found[_role_of(args)] = int(kilobytes) / 1024
    return found


def _role_of(args: str) -> str:
    _, ours, after = args.partition("vibezen.metrics ")
    if not ours:
        return "server"
    return next((word for word in after.split() if word in ("archive", "aggregate", "api", "gateway", "up")), after)
