"""The compactor as a process: under its lease, until it is told to end."""

import logging
import os
import random
import secrets
import socket
import threading
from contextlib import suppress
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from vibezen.metrics.clock import iso
from vibezen.metrics.connection import check_server, connect, redacted, redis_url
from vibezen.metrics.consumers import compact_lease
from vibezen.metrics.consumers.compact_lease import Lease
from vibezen.metrics.consumers.compacting import Job
from vibezen.metrics.consumers.compactor import Compactor, made_by
from vibezen.metrics.consumers.engine import Engine
from vibezen.metrics.consumers.holdings import Holdings
from vibezen.metrics.consumers.roles import ArchiveRole
from vibezen.metrics.consumers.supervisor import RETRY_MAX, TICK
from vibezen.metrics.consumers.worker import passes
from vibezen.metrics.errors import Fenced, StoreFull
from vibezen.metrics.keys import ARCHIVE, Keys
from vibezen.metrics.layout import Layout, is_full, why_full
from vibezen.metrics.settings import Settings

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 30.0
"""Between two looks at what is due."""


class CompactorProcess:
    """See `run`."""

    def __init__(self, settings: Settings, stop: threading.Event, *, once: bool) -> None:
        self._settings, self._stop, self._once = settings, stop, once
        self._keys = Keys(settings.redis.prefix)
        self._url = redis_url(settings)
        self._layout = Layout(settings.storage_dir)
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._warned = self._full = False

    def run(self) -> int:
        client = connect(self._url)
        try:
            check_server(client, self._url)
            ArchiveRole(self._settings, self._keys).prepare(client)
            delay = TICK
            while not self._stop.is_set():
                try:
                    led = self._lead(client)
                    delay = TICK
                    if self._once:
                        if not led:
                            log.warning("compactor: another process is at work")
                        return 0
                except Fenced as fenced:
                    log.warning("%s", fenced)
                except RedisError as error:
                    if not passes(error) or self._once:
                        raise
                    delay = self._away(error, delay)
                self._stop.wait(delay)
            return 0
        finally:
            client.close()

    def _lead(self, client: Redis) -> bool:
        """Compact for as long as the lease is ours; False when another process holds it."""
        seen = max((int(path.name) for path in made_by(self._layout)), default=0)
        engines: list[Engine] = []

        def interrupt() -> None:
            for engine in engines:
                engine.interrupt()

        lease = compact_lease.take(client, self._url, self._keys, self._owner, seen, interrupt)
        if lease is None:
            return False
        if self._warned:
            log.warning("compactor: %s answers again", redacted(self._url))
            self._warned = False
        holdings = Holdings(self._layout, lambda shard: _epoch(client, self._keys.fence(shard, ARCHIVE)))
        compactor = Compactor(self._layout, self._settings, holdings, lease.epoch, lambda: lease.keep(client))
        engines.append(compactor.engine)
        try:
            compactor.clear()
            compactor.keeper.check()
            self._work(client, lease, compactor)
        finally:
            compactor.close()
            with suppress(RedisError):
                lease.release(client)
        return True

    def _work(self, client: Redis, lease: Lease, compactor: Compactor) -> None:
        while not self._stop.is_set():
            more = self._round(client, lease, compactor)
            if more:
                continue
            if self._once:
                return
            self._stop.wait(EVERY_SECONDS)

    def _round(self, client: Redis, lease: Lease, compactor: Compactor) -> bool:
        try:
            more = compactor.round(self._stop.is_set)
        except (StoreFull, OSError) as error:
            if not (isinstance(error, StoreFull) or is_full(error)) or self._once:
                raise
            why = str(error) if isinstance(error, StoreFull) else why_full(error)
            if not self._full:
                log.warning("compactor: %s; nothing is compacted until there is space", why)
            self._full = True
            lease.keep(client, **{**compactor.books(), "trouble": why})
            return False
        if self._full:
            log.warning("compactor: there is space again")
            self._full = False
        lease.keep(client, **compactor.books())
        return more

    def _away(self, error: BaseException, delay: float) -> float:
        if not self._warned:
            log.warning("compactor: %s does not answer (%s); trying again", redacted(self._url), error)
            self._warned = True
        return min(delay * 2, RETRY_MAX) * random.uniform(0.7, 1.0)


def _epoch(client: Redis, fence: str) -> int | None:
    told = client.get(fence)
    return int(told.partition(b":")[0]) if isinstance(told, bytes) else None


def plan(settings: Settings) -> list[str]:
    """What would be made now, a line each. Changes nothing, and asks the server for the owners of shards alone.

    Raises StoreError, ServerUnavailable.
    """
    layout = Layout(settings.storage_dir)
    layout.read()
    url = redis_url(settings)
    client = connect(url)
    try:
        check_server(client, url)
        keys = Keys(settings.redis.prefix)
        holdings = Holdings(layout, lambda shard: _epoch(client, keys.fence(shard, ARCHIVE)))
        compactor = Compactor(layout, settings, holdings, 0, lambda: None)
        found, jobs = compactor.look()
        dropped = compactor.keeper.to_drop(found)
        jobs = [job for job in jobs if job.date not in dropped]
        changed = dropped.keys() | {job.date for job in jobs}
        moved = compactor.keeper.to_move(one for one in found if one.date not in changed)
        return [
            *map(_told, jobs),
            *(f"drop {one}" for one in dropped.values()),
            *(f"move {one}" for one in moved),
        ]
    finally:
        client.close()


def _told(job: Job) -> str:
    what = f"day {iso(job.date)[:10]}" if job.hour is None else f"hour {iso(job.hour)[:13]}"
    parts = f" and {len(job.sources)} parts" if job.sources else ""
    return f"{what}: {len(job.segments)} segments ({job.lines} events, {job.bytes} bytes){parts} → events/{job.path}"


def run(settings: Settings, *, once: bool = False, stop: threading.Event | None = None) -> int:
    """Compact until `stop` is set; the process's exit code. With `once`: what is due, then end.

    Raises MetricsError for what a person must settle: configuration, an unsuitable server, another store's folder,
    DuckDB that is not installed.
    """
    return CompactorProcess(settings, stop or threading.Event(), once=once).run()
