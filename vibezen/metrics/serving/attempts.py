"""Guesses at tokens: an address that shows too many wrong ones has to wait, each time twice as long."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from vibezen.metrics.clock import monotonic
from vibezen.metrics.serving.network import network

FREE: Final = 10
"""Wrong tokens that an address may show in WINDOW seconds."""
WINDOW: Final = 60.0
LONGEST: Final = 3600.0
"""Seconds: the longest wait, and how long after its last wait an address begins anew."""
ADDRESSES: Final = 10_000
"""How many are remembered; beyond it the one that was quiet for the longest is forgotten."""


class _Guesser:
    __slots__ = ("count", "since", "until", "waits")

    def __init__(self, now: float) -> None:
        self.count, self.since, self.until, self.waits = 0, now, 0.0, 0


class Attempts:
    """Bounded memory, whatever comes.

    A token that an address showed rightly before goes on to be taken from it while it has to wait: one program with an
    old token must not lock out its neighbours behind the same address.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._guessers: OrderedDict[str, _Guesser] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds until the address may try again; 0 when it may now."""
        guesser = self._guessers.get(network(address))
        return max(0.0, guesser.until - self._now()) if guesser else 0.0

    def failed(self, address: str) -> None:
        name, now = network(address), self._now()
        guesser = self._guessers.pop(name, None) or _Guesser(now)
        self._guessers[name] = guesser  # the newest last
        _trim(self._guessers)
        if now - guesser.since > WINDOW:
            guesser.count, guesser.since = 0, now
        if now - guesser.until > LONGEST:
            guesser.waits = 0
        guesser.count += 1
        if guesser.count >= FREE:
            guesser.until = now + min(LONGEST, WINDOW * 2**guesser.waits)
            guesser.waits = min(guesser.waits + 1, 10)
            guesser.count, guesser.since = 0, guesser.until

    def succeeded(self, address: str, sha256: str) -> None:
        """Remember a right token; a digest of it."""
        key = (network(address), sha256)
        self._known[key] = None
        self._known.move_to_end(key)
        _trim(self._known)

    def is_known(self, address: str, sha256: str) -> bool:
        return (network(address), sha256) in self._known


def _trim(remembered: "OrderedDict[str, _Guesser] | OrderedDict[tuple[str, str], None]") -> None:
    while len(remembered) > ADDRESSES:
        remembered.popitem(last=False)
