"""A TCP proxy that loses replies."""

import random
import socket
import threading
from contextlib import suppress
from typing import Protocol

from tests.support.waiting import DEADLINE


class StartProxy(Protocol):
    def __call__(self, url: str) -> "Proxy": ...


class Proxy:
    """A TCP proxy in front of a server, which can lose replies: the server has acted, the client never hears of it."""

    def __init__(self, url: str) -> None:
        self._target = _place(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.cuts = 0
        self._lock = threading.Lock()
        self._match, self._times = b"", 0
        self._last_words = b""
        self._share, self._random = 0.0, random.Random(0)
        self._down = False
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name="proxy")]
        self._threads[0].start()

    def cut(self, match: bytes, times: int = 1) -> None:
        """Lose the replies to the next `times` requests that contain `match`."""
        with self._lock:
            self._match, self._times = match, times

    def end_after(self, match: bytes) -> None:
        """Deliver the reply to the next request that contains `match`, and end its connection."""
        with self._lock:
            self._last_words = match

    def cut_share(self, share: float, seed: int = 0) -> None:
        """Lose this share of all replies from now on."""
        with self._lock:
            self._share, self._random = share, random.Random(seed)

    def go_down(self) -> None:
        """Drop every connection, and each new one at once, until `come_back`."""
        self._down = True
        self._drop_all()

    def come_back(self) -> None:
        self._down = False

    def lead_to(self, url: str) -> None:
        """Each new connection goes there; those there are break."""
        self._target = _place(url)
        self._drop_all()

    def close(self) -> None:
        self._down = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(DEADLINE)
        self._drop_all()
        for thread in self._threads:
            thread.join(DEADLINE)

    def _drop_all(self) -> None:
        with self._lock:
            for one in self._open:
                _shut(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._down:
                client.close()
                continue
            thread = threading.Thread(target=self._serve, args=(client,), name="proxy-connection")
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        last = bytearray()
        try:
            upstream = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        with client, upstream:
            with self._lock:
                self._open |= {client, upstream}
            requests = threading.Thread(target=self._requests, args=(client, upstream, last), name="proxy-requests")
            requests.start()
            self._replies(client, upstream, last)
            _shut(client)
            _shut(upstream)
            requests.join(DEADLINE)
            with self._lock:
                self._open -= {client, upstream}

    def _requests(self, client: socket.socket, upstream: socket.socket, last: bytearray) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                last += data
                upstream.sendall(data)
        _shut(upstream)

    def _replies(self, client: socket.socket, upstream: socket.socket, last: bytearray) -> None:
        with suppress(OSError):
            while data := upstream.recv(65536):
                if self._loses(bytes(last)):
                    return
                ends = self._ends(bytes(last))
                last.clear()
                client.sendall(data)
                if ends:
                    return

    def _ends(self, request: bytes) -> bool:
        with self._lock:
            ends = bool(self._last_words) and self._last_words in request
            self._last_words = b"" if ends else self._last_words
            return ends

    def _loses(self, request: bytes) -> bool:
        with self._lock:
            matched = self._times > 0 and self._match in request
            self._times -= matched
            lost = matched or self._random.random() < self._share
            self.cuts += lost
            return lost


def _place(url: str) -> tuple[str, int]:
    host, _, port = url.partition("://")[2].partition("/")[0].rpartition(":")
    return host, int(port)


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
