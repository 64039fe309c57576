"""The keeper: relieves the buffer while the sender's call hangs.

A server that is gone refuses at once, and the sender itself brings to disk what waits. One that does not answer, or a
network that swallows everything, holds the sender for up to ten seconds: long enough for a busy buffer to overflow.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from vibezen.metrics import clock

HANGS: Final = 0.3
"""Seconds from which on a call is taken to hang."""
LOOK_SECONDS: Final = 0.1
QUIET_SECONDS: Final = 5.0
"""Without a call that hangs: how long it is waited for another."""


class Keeper:
    """A daemon thread that is there only while calls hang or fail. `relieve` brings what waits to disk; it is called
    from this thread."""

    def __init__(self, relieve: Callable[[], None]) -> None:
        self._relieve = relieve
        self._since: float | None = None
        self._quiet_at = 0.0
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around each call of the sender."""
        self._since = clock.monotonic()
        try:
            yield
        finally:
            self._since = None

    def start_if_hanging(self) -> None:
        """Cheap enough for `record()` to ask now and then."""
        since = self._since
        if since is not None and clock.monotonic() - since > HANGS:
            self.start()

    def start(self) -> None:
        """Look after the sender for a while; never blocks."""
        self._quiet_at = clock.monotonic() + QUIET_SECONDS
        if self._thread is None and self._starting.acquire(blocking=False):
            try:
                thread = threading.Thread(target=self._run, name="vibezen-metrics-keeper", daemon=True)
                self._thread = thread
                thread.start()
            except RuntimeError:  # no thread to be had, or the interpreter is ending
                self._thread = None
            finally:
                self._starting.release()

    def end(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            since, now = self._since, clock.monotonic()
            if since is not None and now - since > HANGS:
                self._quiet_at = now + QUIET_SECONDS
                self._relieve()
            elif now > self._quiet_at:
                break
        self._thread = None
