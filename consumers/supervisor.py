"""One consumer process: owns its fair share of the shards of one group, each in a thread of its own.

Correctness rests on fences alone; what happens here only decides how soon a shard finds an owner.
"""

import logging
import os
import random
import secrets
import socket
import threading
from typing import Final, NoReturn

from redis import Redis
from redis.exceptions import RedisError

from vibezen.metrics import scripts
from vibezen.metrics.clock import monotonic
from vibezen.metrics.connection import UNREACHABLE, check_server, connect, primaries, redacted, redis_url
from vibezen.metrics.consumers.lease import LEASE_MS, PACKAGE
from vibezen.metrics.consumers.roles import ROLES
from vibezen.metrics.consumers.worker import Job, Worker, is_gone, passes
from vibezen.metrics.errors import ConfigError, Fenced, ServerUnavailable, StoreError, StoreFull, StreamMoved
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import is_full, why_full
from vibezen.metrics.settings import Settings

log = logging.getLogger(__name__)

TICK: Final = 0.5
"""Seconds between looks at who owns what."""
MEMBER_MS: Final = 5000
"""A process silent for this long no longer gets a share."""
RETRY_MAX: Final = 5.0
"""Seconds between attempts to reach a server that is away, at most."""
FULL_PAUSE: Final = 2.0
"""Seconds until a shard whose files found no space is taken over again."""


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
        self._job = Job(group, self.keys, self.url, self.role, self.owner, stop, once)
        self._configured_shards = settings.streams.shards
        self._workers: dict[int, Worker] = {}
        self._not_before: dict[int, float] = {}
        self._run_ids: set[str] | None = None
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
            if not passes(error):
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
                if not passes(error):
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
            worker = Worker(self._job, shard)
            worker.run()
            if worker.failure is not None:
                self._raise(shard, worker.failure)
        return 0

    def _shards(self, client: Redis) -> int:
        known = client.get(self.keys.shards)
        return max(self._configured_shards, int(known) if isinstance(known, bytes) else 1)

    def _balance(self, client: Redis) -> None:
        """Start and stop workers so that this process holds its fair share, rounded up."""
        self._see_same_server(client)
        shards = self._shards(client)
        share = -(-shards // max(self._members(client), 1))
        for worker in list(self._workers.values())[share:]:
            worker.asked.set()
        now = monotonic()
        free = [
            shard for shard in range(shards) if shard not in self._workers and self._not_before.get(shard, now) <= now
        ]
        random.shuffle(free)
        for shard in free:
            if len(self._workers) >= share:
                return
            lease = self.keys.lease(shard, self.group)
            if client.get(lease) in (None, self.owner.encode()) or int(client.pttl(lease)) > LEASE_MS:
                self._workers[shard] = worker = Worker(self._job, shard)
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
            if isinstance(failure, Fenced | StreamMoved):
                log.warning("%s", failure)
            elif failure is not None and passes(failure):
                self._away(failure, TICK)
            elif failure is not None and is_gone(failure):
                log.warning("%s: shard %d: stream or group is gone; starting anew", self.group, shard)
            elif isinstance(failure, StoreFull) or (failure is not None and is_full(failure)):
                self._job.note_full(shard, str(failure) if isinstance(failure, StoreFull) else why_full(failure))
                self._not_before[shard] = monotonic() + FULL_PAUSE
            elif failure is not None:
                self._raise(shard, failure)

    def _raise(self, shard: int, failure: BaseException) -> NoReturn:
        """End the process for what it cannot mend."""
        if isinstance(failure, OSError) and not isinstance(failure, UNREACHABLE):
            # After a failed fsync the kernel may have dropped the pages: only a new process, reading from what is
            # committed, can be right.
            raise StoreError(f"{self.group}: shard {shard}: storage folder: {failure}") from failure
        raise failure

    def _see_same_server(self, client: Redis) -> None:
        """A lost connection makes workers start anew. In a cluster, or behind a proxy, the server can change without
        one, and then entries may come under IDs that were read already."""
        run_ids = {str(each.info("server")["run_id"]) for each in primaries(client)}
        if self._run_ids not in (None, run_ids):
            for worker in self._workers.values():
                worker.distrusted.set()
        self._run_ids = run_ids

    def _away(self, error: BaseException, delay: float) -> float:
        if not self._warned:
            log.warning("%s: %s does not answer (%s); trying again", self.group, redacted(self.url), error)
            self._warned = True
        return min(delay * 2, RETRY_MAX) * random.uniform(0.7, 1.0)


def run(group: str, settings: Settings, *, once: bool = False, stop: threading.Event | None = None) -> int:
    """Consume `group` until `stop` is set; the process's exit code.

    Raises MetricsError for what a person must settle: configuration, an unsuitable server, another store's folder.
    A server that is away at the start is refused with one line; one that goes away later is waited for.
    """
    return ConsumerProcess(group, settings, stop or threading.Event(), once=once).run()
