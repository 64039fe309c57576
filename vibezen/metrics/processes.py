"""Child processes of one tree: started, watched, started again when they crash, ended in order.

One thread does all of it by calling `pump`. Children live in sessions of their own, so that Ctrl-C reaches only the
parent, which still has to drain. The parent may die in any way: each Python child holds the reading end of a pipe
whose other end only the parent has, and ends when that closes (`tether`).
"""

import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final

from vibezen.metrics.clock import monotonic
from vibezen.metrics.errors import MetricsError

TETHER_VARIABLE: Final = "VIBEZEN_METRICS_TETHER"
"""Names the file descriptor that a child watches."""
RETRY_FIRST: Final = 0.5
"""Seconds until a crashed child is started again; doubled with every crash in a row."""
RETRY_MAX: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""A child that ran this long starts a new row of crashes."""
ORPHAN_SECONDS: Final = 15.0
"""What a child has to end by itself once its parent is gone."""
LINE_MAX: Final = 64 * 1024
TICK: Final = 0.1

Say = Callable[[str, str], None]
"""Gets the name of a child (or of the tree's owner) and one line."""
Launch = Callable[[], subprocess.Popen[bytes]]


@dataclass
class Child:
    """`due`: when it is to be started again; `failures`: crashes in a row; `retry_max`: seconds, see `adopt`."""

    name: str
    launch: Launch
    process: subprocess.Popen[bytes]
    started: float
    output: bytes = b""
    failures: int = 0
    due: float | None = None
    wanted: bool = True
    retry_max: float = RETRY_MAX
    refused: str = ""
    """Why it could not be started the last time."""

    @property
    def running(self) -> bool:
        return self.due is None and self.process.returncode is None


class Tree:
    """The children of this process. `owner` is the name under which the tree itself speaks."""

    def __init__(self, owner: str, say: Say) -> None:
        self._owner, self._say = owner, say
        self._selector = selectors.DefaultSelector()
        self._children: dict[str, Child] = {}
        self._watched, self._held = os.pipe()

    def say(self, text: str) -> None:
        """Say something in the owner's name."""
        self._say(self._owner, text)

    def start_python(self, name: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start `vibezen-metrics <arguments>` as a child."""

        def launch() -> subprocess.Popen[bytes]:
            return subprocess.Popen(  # noqa: S603 - this Python and arguments of our own
                [sys.executable, "-P", "-m", "vibezen.metrics", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**environ, TETHER_VARIABLE: str(self._watched)},
                pass_fds=(self._watched,),
                start_new_session=True,
            )

        self.adopt(name, launch(), launch)

    def adopt(self, name: str, process: subprocess.Popen[bytes], launch: Launch, retry_max: float = RETRY_MAX) -> None:
        """Watch a running process from now on; `launch` starts it again, at the latest after `retry_max` seconds."""
        self._children[name] = child = Child(name, launch, process, monotonic(), retry_max=retry_max)
        self._listen(child)

    def pump(self, seconds: float = TICK) -> None:
        """Wait up to `seconds` for output, pass it on, and start again what has crashed."""
        for key, _ in self._selector.select(seconds):
            self._read(key.data)
        for child in list(self._children.values()):
            if child.running and child.process.poll() is not None:
                self._ended(child)
            elif child.wanted and child.due is not None and child.due <= monotonic():
                self._restart(child)

    def stop(self, *names: str, seconds: float) -> None:
        """Ask these children to end and wait; those that do not end in time are killed."""
        children = [child for name in names if (child := self._children.get(name))]
        for child in children:
            child.wanted = False
            if child.running:
                child.process.terminate()
        deadline = monotonic() + seconds
        while any(child.running for child in children) and monotonic() < deadline:
            self.pump()
        self._kill(children)
        while any(child.running for child in children):
            self.pump()
        for child in children:
            del self._children[child.name]

    def close(self) -> None:
        """Kill what is left, and let go."""
        self._kill(list(self._children.values()))
        for child in self._children.values():
            child.process.wait()
        self._selector.close()
        os.close(self._watched)
        os.close(self._held)

    def _kill(self, children: list[Child]) -> None:
        for child in children:
            if child.running:
                self.say(f"{child.name} does not end and is killed")
                child.process.kill()

    def _listen(self, child: Child) -> None:
        if child.process.stdout is not None:
            os.set_blocking(child.process.stdout.fileno(), False)
            self._selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def _read(self, child: Child) -> bool:
        """Pass on what the child wrote; False when there is nothing more now."""
        stdout = child.process.stdout
        assert stdout is not None
        try:
            data = os.read(stdout.fileno(), LINE_MAX)
        except BlockingIOError:
            return False
        *lines, child.output = (child.output + data).split(b"\n")
        if len(child.output) > LINE_MAX:
            lines, child.output = [*lines, child.output], b""
        for line in lines:
            self._say(child.name, line.decode(errors="replace").rstrip())
        if not data:  # it closed its output, most likely by ending
            self._deaf(child)
        return bool(data)

    def _deaf(self, child: Child) -> None:
        stdout = child.process.stdout
        if stdout is not None and not stdout.closed:
            self._selector.unregister(stdout)
            stdout.close()

    def _ended(self, child: Child) -> None:
        stdout = child.process.stdout
        while stdout is not None and not stdout.closed and self._read(child):
            pass
        self._deaf(child)  # a grandchild may still hold the other end
        if child.output:
            self._say(child.name, child.output.decode(errors="replace"))
            child.output = b""
        if child.wanted:
            if monotonic() - child.started > STEADY_SECONDS:
                child.failures = 0
            delay = self._schedule(child)
            self.say(f"{child.name} {_how_it_ended(child.process.returncode)}; it is started again in {delay:g} s")

    def _schedule(self, child: Child) -> float:
        """Seconds until it is started again."""
        child.failures += 1
        delay: float = min(RETRY_FIRST * 2 ** (child.failures - 1), child.retry_max)
        child.due = monotonic() + delay
        return delay

    def _restart(self, child: Child) -> None:
        try:
            child.process = child.launch()
        except (OSError, MetricsError) as error:
            self._schedule(child)
            if child.refused != str(error):  # once: this may last for hours
                child.refused = str(error)
                self.say(f"{child.name} cannot be started: {error}; it is tried every {child.retry_max:g} s")
            return
        child.started, child.due, child.refused = monotonic(), None, ""
        self._listen(child)


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def tether(environ: MutableMapping[str, str] = os.environ) -> None:
    """End this process when the one that started it is gone, if it was started as a child of a tree."""
    watched = environ.pop(TETHER_VARIABLE, None)
    if watched is not None:
        threading.Thread(target=_watch, args=(int(watched),), name="tether", daemon=True).start()


def _watch(watched: int) -> None:
    os.read(watched, 1)  # nobody ever writes: it returns when the parent's end is closed
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)
