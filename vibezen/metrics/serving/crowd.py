"""Who is connected for long: WebSockets and streams, counted per address and in all.

The server's own limit does not see WebSockets, so we count. This machine's own addresses may hold any number: whoever
runs programs here has other ways, and a proxy that is not named would put all its clients under one address.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vibezen.metrics.serving.errors import ApiError
from vibezen.metrics.serving.network import bare, network
from vibezen.metrics.serving.tokens import Token

Cancel = Callable[[], None]


class Crowd:
    """`at_most`: in all, `per_address`: of one address."""

    def __init__(self, at_most: int, per_address: int) -> None:
        self._at_most, self._per_address = at_most, per_address
        self._by_address: Counter[str] = Counter()
        self._members: dict[object, tuple[Token | None, Cancel]] = {}

    def __len__(self) -> int:
        return len(self._members)

    @contextmanager
    def member(self, address: str, token: Token | None, cancel: Cancel) -> Iterator[None]:
        """Be counted for as long as the block lasts. `cancel`: what ends it when the token does. ApiError 503."""
        if len(self._members) >= self._at_most:
            raise ApiError(503, f"{self._at_most} live clients are connected already (live.max_clients)")
        name = network(address)
        if self._by_address[name] >= self._per_address and not _is_here(address):
            raise ApiError(
                503, f"{self._per_address} live clients of this address are connected (live.max_clients_per_address)"
            )
        key = object()
        self._members[key] = (token, cancel)
        self._by_address[name] += 1
        try:
            yield
        finally:
            del self._members[key]
            self._by_address[name] -= 1
            if not self._by_address[name]:
                del self._by_address[name]

    def dismiss(self, holds: Callable[[Token], bool]) -> None:
        """End those whose token does not hold any more."""
        judged: dict[Token, bool] = {}
        for token, cancel in list(self._members.values()):
            if token is None:
                continue
            if token not in judged:
                judged[token] = holds(token)
            if not judged[token]:
                cancel()


def _is_here(address: str) -> bool:
    found = bare(address)
    return address == "" if found is None else found.is_loopback  # a socket of the file system has none
