"""One consumer process: owns its fair share of the shards of one group, each in a thread of its own.

Correctness rests on fences alone; what happens here only decides how soon a shard finds an owner.
"""

import logging
import os
import random
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from vibezen.metrics import scripts
from vibezen.metrics.config import Settings
from vibezen.metrics.connection import (
    UNREACHABLE,
    check_server,
    connect,
    is_missing_group,
    is_refusal,
    redacted,
    redis_url,
)
from vibezen.metrics.consumers.aggregator import Aggregator
from vibezen.metrics.consumers.archiver import Archiver
from vibezen.metrics.consumers.lease import PACKAGE, Taken, release, take
from vibezen.metrics.consumers.shard import Reader, Sink, run_shard
from vibezen.metrics.consumers.takeover import highest_epoch
from vibezen.metrics.errors import ConfigError, Fenced, ServerUnavailable, StoreError
from vibezen.metrics.keys import AGGREGATE, ARCHIVE, Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.series import SeriesTable
from vibezen.metrics.storage import check_same_store

log = logging.getLogger(__name__)

TICK: Final = 0.5
"""Seconds between looks at who owns what."""
MEMBER_MS: Final = 5000
"""A process silent for this long no longer gets a share."""
RETRY_MAX: Final = 5.0
"""Seconds between attempts to reach a server that is away, at most."""


class Role(Protocol):
    """What makes a group's sinks. `prepare` sees once per process that it can work; `epoch_seen` is per shard."""

    def prepare(self, client: Redis) -> None: ...

    def epoch_seen(self, shard: int) -> int: ...

    def sink(self, client: Redis, taken: Taken) -> Sink: ...


class ArchiveRole:
    def __init__(self, settings: Settings, keys: Keys) -> None:
        self._settings, self._keys = settings, keys
        self._layout = Layout(settings.storage_dir)

    def prepare(self, client: Redis) -> None:
        """One store, one folder: refuse to write events of one server into the folder of another."""
        store = self._layout.create()
        known = client.get(self._keys.store)
        if known is None:  # asked first: a full server takes no write, and must be drained all the same
            client.set(self._keys.store, store.id, nx=True)
            known = client.get(self._keys.store)
        check_same_store(self._layout, known)

    def epoch_seen(self, shard: int) -> int:
        return highest_epoch(self._layout, shard)

    def sink(self, client: Redis, taken: Taken) -> Sink:
        max_bytes = self._settings.streams.max_bytes
        return Archiver(client, self._keys, taken, self._layout, self._settings.archive, max_bytes=max_bytes)


class AggregateRole:
    def __init__(self, settings: Settings, keys: Keys) -> None:
        self._settings, self._keys = settings, keys

    def prepare(self, client: Redis) -> None:
        """Windows live in Redis alone."""

    def epoch_seen(self, shard: int) -> int:
        return 0

    def sink(self, client: Redis, taken: Taken) -> Sink:
        policy = self._settings.aggregation
        series = SeriesTable(policy.labels, self._settings.catalogue().gauges())
        return Aggregator(client, self._keys, taken, policy, series)


ROLES: Final[dict[str, Callable[[Settings, Keys], Role]]] = {ARCHIVE: ArchiveRole, AGGREGATE: AggregateRole}


class _Worker(threading.Thread):
    """One shard, from taking it over to letting it go. `failure` is what ended it, unless it was asked to stop."""

    def __init__(self, process: "ConsumerProcess", shard: int) -> None:
        super().__init__(name=f"{process.group}-{shard}", daemon=True)
        self._process = process
        self.shard = shard
        self.asked = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._own()
        except BaseException as failure:  # whatever it is, the process decides what to do about it
            self.failure = failure

    def _own(self) -> None:
        process = self._process
        client = connect(process.url)
        try:
            seen = process.role.epoch_seen(self.shard)
            taken = take(client, process.keys, self.shard, process.group, process.owner, seen)
            if taken is None:
                log.info("%s: shard %d has an owner", process.group, self.shard)
                return
            try:
                self._work(client, taken)
            finally:
                # Whatever ended it: a successor need not wait for the lease. The fence keeps the rest safe.
                with suppress(RedisError):
                    release(client, process.keys, taken)
        finally:
            client.close()

    def _work(self, client: Redis, taken: Taken) -> None:
        process = self._process
        sink = process.role.sink(client, taken)
        log.info("%s: shard %d is ours (epoch %d)", process.group, self.shard, taken.epoch)
        try:
            reader = Reader(client, process.keys.events(self.shard))
            run_shard(reader, sink, self._stopping, once=process.once)
        finally:
            sink.close()

    def _stopping(self) -> bool:
        return self.asked.is_set() or self._process.stop.is_set()


class ConsumerProcess:
    """See `run`."""

    def __init__(self, group: str, settings: Settings, stop: threading.Event, *, once: bool) -> None:
        if group not in ROLES:
            raise ConfigError(f"group {group!r}: expected one of {', '.join(ROLES)}")
        self.group, self.once, self.stop = group, once, stop
        self.keys = Keys(settings.redis.prefix)
        self.url = redis_url(settings)
        self.role = ROLES[group](settings, self.keys)
        # Two processes must never share a name: who holds a lease may take it again.
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._configured_shards = settings.streams.shards
        self._workers: dict[int, _Worker] = {}
        self._warned = False

    def run(self) -> int:
        client = connect(self.url)
        try:
            check_server(client, self.url)
            self._prepare(client)
            if self.once:
                return self._run_once(client)
            self._run(client)
            return 0
        finally:
            self.stop.set()
            for worker in self._workers.values():
                worker.join()
            client.close()

    def _prepare(self, client: Redis) -> None:
        try:
            self.role.prepare(client)
        except RedisError as error:
            if not _passes(error):
                raise
            raise ServerUnavailable(f"{redacted(self.url)}: takes no writes now: {error}") from None

    def _run(self, client: Redis) -> None:
        delay = TICK
        while not self.stop.is_set():
            self._gather_ended()
            try:
                self._balance(client)
                delay = TICK
                if self._warned:
                    log.warning("%s: %s answers again", self.group, redacted(self.url))
                    self._warned = False
            except RedisError as error:
                if not _passes(error):
                    raise
                delay = self._away(error, delay)
            self.stop.wait(delay)
        for worker in self._workers.values():
            worker.join()
        self._gather_ended()
        self._leave(client)

    def _run_once(self, client: Redis) -> int:
        """Do what is due in every shard that nobody owns, and end."""
        for shard in range(self._shards(client)):
            worker = _Worker(self, shard)
            worker.run()
            if worker.failure is not None:
                raise worker.failure
        return 0

    def _shards(self, client: Redis) -> int:
        known = client.get(self.keys.shards)
        return max(self._configured_shards, int(known) if isinstance(known, bytes) else 1)

    def _balance(self, client: Redis) -> None:
        """Start and stop workers so that this process holds its fair share, rounded up."""
        shards = self._shards(client)
        share = -(-shards // max(self._members(client), 1))
        for worker in list(self._workers.values())[share:]:
            worker.asked.set()
        free = [shard for shard in range(shards) if shard not in self._workers]
        random.shuffle(free)
        for shard in free:
            if len(self._workers) >= share:
                return
            holder = client.get(self.keys.lease(shard, self.group))
            if holder is None or holder == self.owner.encode():
                self._workers[shard] = worker = _Worker(self, shard)
                worker.start()

    def _members(self, client: Redis, *, leave: bool = False) -> int:
        key, member = self.keys.members(self.group), scripts.load(PACKAGE, "member")
        return int(scripts.run(client, member, [key], [self.owner, MEMBER_MS, int(leave)]))

    def _leave(self, client: Redis) -> None:
        try:
            self._members(client, leave=True)
        except RedisError as error:
            log.info("%s: cannot say goodbye (%s); this process will be forgotten by itself", self.group, error)

    def _gather_ended(self) -> None:
        """Forget workers that ended; what they could not expect ends the process."""
        for shard, worker in list(self._workers.items()):
            if worker.is_alive():
                continue
            del self._workers[shard]
            failure = worker.failure
            if isinstance(failure, Fenced):
                log.warning("%s", failure)
            elif failure is not None and _passes(failure):
                self._away(failure, TICK)
            elif isinstance(failure, ResponseError) and is_missing_group(failure):
                log.warning("%s: shard %d: stream or group is gone; starting anew", self.group, shard)
            elif isinstance(failure, OSError):
                # After a failed fsync the kernel may have dropped the pages: only a new process, reading from what is
                # committed, can be right.
                raise StoreError(f"{self.group}: shard {shard}: storage folder: {failure}") from failure
            elif failure is not None:
                raise failure

    def _away(self, error: BaseException, delay: float) -> float:
        if not self._warned:
            log.warning("%s: %s does not answer (%s); trying again", self.group, redacted(self.url), error)
            self._warned = True
        return min(delay * 2, RETRY_MAX) * random.uniform(0.7, 1.0)


def _passes(error: BaseException) -> bool:
    """Whether it is right to wait for the server and try again: it is away, or takes no writes for now."""
    return isinstance(error, UNREACHABLE) or is_refusal(error)


def run(group: str, settings: Settings, *, once: bool = False, stop: threading.Event | None = None) -> int:
    """Consume `group` until `stop` is set; the process's exit code.

    Raises MetricsError for what a person must settle: configuration, an unsuitable server, another store's folder.
    A server that is away at the start is refused with one line; one that goes away later is waited for.
    """
    return ConsumerProcess(group, settings, stop or threading.Event(), once=once).run()
