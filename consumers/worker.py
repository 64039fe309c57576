"""One shard in a thread: taken over, fed to a sink, let go. And what is known when it ends: whose fault it was."""

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from redis import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from vibezen.metrics.connection import UNREACHABLE, connect, is_missing_group, is_refusal
from vibezen.metrics.consumers.lease import Taken, release, take, tell_trouble
from vibezen.metrics.consumers.marks import Marks
from vibezen.metrics.consumers.roles import Role
from vibezen.metrics.consumers.shard import Reader, Sink, run_shard
from vibezen.metrics.errors import Fenced, MetricsError, StoreFull, StreamMoved
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import is_full, why_full

log = logging.getLogger(__name__)

SPACE_PAUSE: Final = 1.0
"""Seconds between attempts to commit while there is no space."""


@dataclass
class Job:
    """What the workers of one process share. `full`: shards without space for their files; `owed`: leases that could
    not be given back since the server did not answer, by shard."""

    group: str
    keys: Keys
    url: str
    role: Role
    owner: str
    stop: threading.Event
    once: bool
    full: set[int] = field(default_factory=set)
    owed: dict[int, Taken] = field(default_factory=dict)

    def note_full(self, shard: int, reason: str) -> None:
        """Says so once, until there is space."""
        if shard not in self.full:
            self.full.add(shard)
            log.warning("%s: shard %d: %s; nothing is committed until there is space", self.group, shard, reason)

    def note_space(self, shard: int) -> None:
        if shard in self.full:
            self.full.discard(shard)
            log.warning("%s: shard %d: there is space again", self.group, shard)


class Worker(threading.Thread):
    """One shard, from taking it over to letting it go. `failure` is what ended it, unless it was asked to stop."""

    def __init__(self, job: Job, shard: int) -> None:
        super().__init__(name=f"{job.group}-{shard}", daemon=True)
        self._job = job
        self.shard = shard
        self.asked = threading.Event()
        self.distrusted = threading.Event()
        """Set when another server answers under the same address: nothing taken from the old one may be committed."""
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._own()
        except BaseException as failure:  # whatever it is, the process decides what to do about it
            self.failure = failure

    def _own(self) -> None:
        job = self._job
        client = connect(job.url)
        try:
            if (owed := job.owed.get(self.shard)) is not None:
                release(client, job.keys, owed)
                del job.owed[self.shard]
            seen = job.role.epoch_seen(self.shard)
            taken = take(client, job.keys, self.shard, job.group, job.owner, seen)
            if taken is None:
                log.info("%s: shard %d has an owner", job.group, self.shard)
                return
            failure: BaseException | None = None
            try:
                self._work(client, taken)
            except BaseException as error:
                failure = error
                raise
            finally:
                self._let_go(client, taken, failure)
        finally:
            client.close()

    def _work(self, client: Redis, taken: Taken) -> None:
        job = self._job
        sink = job.role.sink(client, taken)
        log.info("%s: shard %d is ours (epoch %d)", job.group, self.shard, taken.epoch)
        try:
            reader = Reader(client, job.keys.events(self.shard))
            marks = Marks(client, job.keys, taken, careful=sink.suspect)
            space = None if job.once else _Space(self, client, taken, sink)
            run_shard(reader, sink, marks, self.stopping, once=job.once, space=space)
        finally:
            sink.close()

    def _let_go(self, client: Redis, taken: Taken, failure: BaseException | None) -> None:
        """Whatever ended it: a successor need not wait for the lease. The fence keeps the rest safe."""
        job = self._job
        with suppress(RedisError, Fenced):
            if failure is not None and is_full(failure):
                tell_trouble(client, job.keys, taken, why_full(failure))
        blameless = failure is None or is_blameless(failure)
        try:
            release(client, job.keys, taken, blameless=blameless)
        except RedisError:
            if blameless:
                job.owed[self.shard] = taken

    def stopping(self) -> bool:
        if self.distrusted.is_set():
            raise StreamMoved(f"{self._job.group}: shard {self.shard}: another server answers now; starting anew")
        return self.asked.is_set() or self._job.stop.is_set()


class _Space:
    """How a worker waits for space: as the owner, with what it has taken kept in memory."""

    def __init__(self, worker: Worker, client: Redis, taken: Taken, sink: Sink) -> None:
        self._worker, self._client, self._taken, self._sink = worker, client, taken, sink

    def wait(self, full: StoreFull) -> bool:
        job = self._worker._job
        job.note_full(self._taken.shard, str(full))
        tell_trouble(self._client, job.keys, self._taken, str(full))
        self._sink.renew()
        return not job.stop.wait(SPACE_PAUSE) and not self._worker.stopping()

    def found(self) -> None:
        self._worker._job.note_space(self._taken.shard)


def passes(error: BaseException) -> bool:
    """Whether it is right to wait for the server and try again: it is away, or takes no writes for now."""
    return isinstance(error, UNREACHABLE) or is_refusal(error)


def is_gone(error: BaseException) -> bool:
    """Whether the stream or its group has vanished."""
    return isinstance(error, ResponseError) and is_missing_group(error)


def is_blameless(error: BaseException) -> bool:
    """Whether a worker ended for a reason that no entry has to do with."""
    return passes(error) or is_gone(error) or isinstance(error, MetricsError | OSError | NoPermissionError)
