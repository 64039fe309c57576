"""A small reverse proxy: it takes requests under a path prefix, says for whom, and passes the bytes on both ways."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from tests.support.waiting import DEADLINE

HEAD_END: Final = b"\r\n\r\n"


class Forwarder:
    """`strips`: whether it takes the prefix off. `said`: the X-Forwarded headers it adds, those of the client before
    them, as careless proxies leave them."""

    def __init__(self, target: int, prefix: str, *, strips: bool, **said: str) -> None:
        self._target, self._prefix, self._strips, self._said = target, prefix, strips, said
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port: int = self._listening.getsockname()[1]

    def run(self) -> None:
        with suppress(OSError):  # the end
            while True:
                client, _ = self._listening.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def close(self) -> None:
        for one in (self._listening, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            self._open.append(server)
            head = b""
            while HEAD_END not in head:
                if not (chunk := client.recv(65536)):
                    return
                head += chunk
            server.sendall(self._changed(head))
            threading.Thread(target=_pass_on, args=(client, server), daemon=True).start()
            _pass_on(server, client)

    def _changed(self, head: bytes) -> bytes:
        top, _, body = head.partition(HEAD_END)
        request, *headers = top.decode().split("\r\n")
        method, path, version = request.split(" ")
        if self._strips:
            path = path.removeprefix(self._prefix) or "/"
        kept = [line for line in headers if not line.lower().startswith(("connection: keep", "connection: close"))]
        is_socket = any(line.lower().startswith("upgrade:") for line in kept)
        added = [f"X-Forwarded-{name.title()}: {value}" for name, value in self._said.items()]
        added += [] if is_socket else ["Connection: close"]
        return "\r\n".join([f"{method} {path} {version}", *kept, *added]).encode() + HEAD_END + body


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def forwarding(target: int, prefix: str, *, strips: bool, **said: str) -> Iterator[int]:
    """The port of a proxy that lives as long as the block."""
    forwarder = Forwarder(target, prefix, strips=strips, **said)
    thread = threading.Thread(target=forwarder.run)
    thread.start()
    try:
        yield forwarder.port
    finally:
        forwarder.close()
        thread.join(DEADLINE)
