"""Who compacts: one process at a time, by a lease in Redis, as long as it shows signs of life.

What is right does not rest on it (see compactor.py): it saves two processes from doing the same work, and a process
that slept from doing more of it.
"""

import logging
import secrets
import threading
from collections.abc import Callable
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from vibezen.metrics import scripts
from vibezen.metrics.connection import connect
from vibezen.metrics.consumers.lease import LEASE_MS, PACKAGE
from vibezen.metrics.errors import Fenced
from vibezen.metrics.keys import COMPACT, Keys

log = logging.getLogger(__name__)

RENEW_SECONDS: Final = LEASE_MS / 1000 / 4


class Lease:
    """Held: renewed by a thread, since what DuckDB is asked to do takes longer than a lease. `lost` is called from that
    thread, once, when another process has taken over."""

    def __init__(self, url: str, keys: Keys, owner: str, fence: str, lost: Callable[[], None]) -> None:
        self._url, self._keys, self._owner, self._fence, self._lost = url, keys, owner, fence, lost
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="compact-lease", daemon=True)
        self._thread.start()

    @property
    def epoch(self) -> int:
        return int(self._fence.partition(":")[0])

    def keep(self, client: Redis, **books: str) -> None:
        """Renew it, and write these in the books. Raises Fenced when another process has taken over."""
        args: list[str | int] = [self._fence, self._owner, LEASE_MS, *(word for pair in books.items() for word in pair)]
        if scripts.run(client, scripts.load(PACKAGE, "keep"), self._names(), args) != 1:
            raise Fenced(f"compactor: another process has taken over from {self._fence}")

    def release(self, client: Redis) -> None:
        """Let another process begin at once."""
        self._ended.set()
        self._thread.join()
        scripts.run(client, scripts.load(PACKAGE, "release"), self._names(), [self._owner, self._fence, COMPACT, 0])

    def _names(self) -> list[str]:
        return [self._keys.compact_lease, self._keys.compact_fence, self._keys.compact_books]

    def _renew(self) -> None:
        client = connect(self._url)
        try:
            while not self._ended.wait(RENEW_SECONDS):
                try:
                    self.keep(client)
                except RedisError as error:
                    log.debug("compactor: the lease was not renewed: %s", error)
                except Fenced:
                    self._lost()
                    return
        finally:
            client.close()


def take(client: Redis, url: str, keys: Keys, owner: str, epoch_seen: int, lost: Callable[[], None]) -> Lease | None:
    """The lease, or None while another process holds it. `epoch_seen`: the highest epoch on disk."""
    answer = scripts.run(
        client,
        scripts.load(PACKAGE, "take"),
        [keys.compact_lease, keys.compact_fence],
        [owner, LEASE_MS, epoch_seen, secrets.token_hex(8), 0],
    )
    return Lease(url, keys, owner, answer[1].decode(), lost) if answer[0] == 1 else None
