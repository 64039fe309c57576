"""A plain client of the live feed: how many samples can be seen, and since when."""

import http.client
import threading
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

TIMEOUT: Final = 20.0
"""Longer than the feed is ever silent."""


class Watcher(threading.Thread):
    """Follows `<address>/api/stream` on a thread of its own. `seen` grows by (Unix seconds, samples visible): values in
    frames are absolute, so the newest count of every window adds up to all that was recorded so far."""

    def __init__(self, address: str) -> None:
        super().__init__(name="sse", daemon=True)
        self._netloc = urlsplit(address).netloc
        self._windows: dict[tuple[int, str], float] = {}
        self.seen: list[tuple[float, int]] = []
        self.connected = threading.Event()
        self.failure: Exception | None = None

    def visible(self) -> int:
        return self.seen[-1][1] if self.seen else 0

    def run(self) -> None:
        try:
            for kind, data in self._messages():
                self._take(kind, data, time.time())
        except Exception as failure:  # told to whoever waits, on the main thread
            self.failure = failure
            self.connected.set()

    def _messages(self) -> Iterator[tuple[str, bytes]]:
        connection = http.client.HTTPConnection(self._netloc, timeout=TIMEOUT)
        connection.request("GET", "/api/stream")
        response = connection.getresponse()
        if response.status != 200:
            raise ConnectionError(f"/api/stream answers {response.status}")
        kind = ""
        for line in response:
            name, _, value = line.rstrip(b"\r\n").partition(b": ")
            if name == b"event":
                kind = value.decode()
            elif name == b"data":
                yield kind, value

    def _take(self, kind: str, data: bytes, now: float) -> None:
        if kind == "gap":
            raise ConnectionError("the feed had a gap")
        if kind in ("snapshot", "frame"):
            message: dict[str, Any] = msgspec.json.decode(data)
            for window in message["windows"]:
                # A frame names the metrics that changed; the others of its window stand.
                for metric, cell in window["metrics"].items():
                    self._windows[window["start"], metric] = cell["count"]
            self.seen.append((now, round(sum(self._windows.values()))))
            self.connected.set()
