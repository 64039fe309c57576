"""The way to the server: one connection, when to try again after trouble, and the two lines the log has about it."""

import logging
import random
from contextlib import suppress
from typing import Final

from redis import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from vibezen.metrics import clock
from vibezen.metrics.connection import UNREACHABLE, connect, is_refusal, redacted, redis_url
from vibezen.metrics.errors import MetricsError
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers.append import append, prepare, raise_shards
from vibezen.metrics.producers.append_call import AppendCall
from vibezen.metrics.settings import Settings

FIRST_PAUSE: Final = 0.05
"""Seconds before the first retry; doubled up to LONGEST_PAUSE. Jitter keeps many producers from returning as one."""
LONGEST_PAUSE: Final = 2.0

_TROUBLE: Final = (RedisError, OSError, MetricsError)
"""Server away, reply lost, or refused (OOM, READONLY, LOADING, MISCONF, NOREPLICAS, wrong password, …)."""

log = logging.getLogger("vibezen.metrics.collector")


class Uplink:
    """For one thread at a time. `keeping`: what happens to events meanwhile, as the log puts it.

    `away`: the last call did not get through. `store`: the id of the store the server belongs to, where that is known.
    `last`: the number that the server has of the producer whose call it took last.
    """

    def __init__(self, settings: Settings, keeping: str) -> None:
        self.address = redacted(redis_url(settings))
        connect(redis_url(settings)).close()  # connects to nothing, but an impossible address is an error here and now
        self.away = False
        self.store: str | None = None
        self.last = 0
        self._settings = settings
        self._keeping = keeping
        self._keys = Keys(settings.redis.prefix)
        self._client: Redis | None = None
        self._inherited: list[Redis] = []
        self._pause = FIRST_PAUSE
        self._next_try = 0.0

    def start_anew(self) -> None:
        """After fork, in the child."""
        if self._client is not None:
            # The parent's. Never closed here: its locks may be held by a thread that does not exist in this process.
            self._inherited.append(self._client)
            self._client = None
        self.away = False
        self._pause, self._next_try = FIRST_PAUSE, 0.0

    def pause_left(self) -> float:
        """Seconds until it is time to try again; 0 when it is."""
        return max(0.0, self._next_try - clock.monotonic()) if self.away else 0.0

    def send(self, call: AppendCall) -> bool:
        """Append; True once the events are where `durability` asks for them. False on any trouble: the same call must
        be sent again."""
        try:
            return self.send_for_other(call)
        except ResponseError as error:
            self.failed(error)
            return False

    def send_for_other(self, call: AppendCall) -> bool:
        """`send` for another producer, whose trouble need not be ours: raises ResponseError when the server is there
        and takes writes, but not this call."""
        if not self.reach():
            return False
        try:
            self._append(call)
        except _TROUBLE as error:
            if isinstance(error, ResponseError) and not (is_refusal(error) or isinstance(error, UNREACHABLE)):
                raise
            self.failed(error)
            return False
        self._worked()
        return True

    def reach(self) -> bool:
        """Whether there is a connection; tries to make one."""
        if self._client is None:
            try:
                self._connect()
            except _TROUBLE as error:
                self.failed(error)
                return False
        return True

    def failed(self, error: Exception) -> None:
        """Nothing can be sent now, for this reason; a later try may do better."""
        self.close()
        self._next_try = clock.monotonic() + self._pause * random.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if not self.away:
            self.away = True
            reason = str(error).partition("\n")[0].removeprefix(f"{self.address}: ")
            log.warning("metrics cannot be sent to %s (%s); keeping %s", self.address, reason, self._keeping)

    def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            with suppress(RedisError, OSError):
                client.close()

    def _append(self, call: AppendCall) -> None:
        client = self._client or self._connect()
        replicas = self._settings.replicas_asked
        done = append(
            *(client, self._keys, call.shard, call.producer, call.first, call.batches, call.stats), replicas=replicas
        )
        self.last = done.last
        if done.created:  # perhaps the server was emptied, and the number of shards with it
            raise_shards(client, self._keys, max(self._settings.streams.shards, call.shard + 1))

    def _connect(self) -> Redis:
        url = redis_url(self._settings)  # asked again each time: a `vibezen-metrics up` may have come or moved
        self.address = redacted(url)
        self._client = client = connect(url)
        prepare(client, url, self._keys, self._settings.streams.shards)
        with suppress(NoPermissionError):
            store = client.get(self._keys.store)
            self.store = store.decode(errors="replace") if isinstance(store, bytes) else None
        return client

    def _worked(self) -> None:
        self._pause = FIRST_PAUSE
        if self.away:
            self.away = False
            log.info("metrics are sent to %s again", self.address)
