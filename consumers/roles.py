"""What makes the sinks of each group."""

from collections.abc import Callable
from typing import Final, Protocol

from redis import Redis

from vibezen.metrics import scripts
from vibezen.metrics.consumers.aggregator import Aggregator
from vibezen.metrics.consumers.archiver import Archiver
from vibezen.metrics.consumers.lease import PACKAGE, Taken
from vibezen.metrics.consumers.shard import Sink
from vibezen.metrics.consumers.takeover import highest_epoch
from vibezen.metrics.keys import AGGREGATE, ARCHIVE, Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.series import SeriesTable
from vibezen.metrics.settings import Settings
from vibezen.metrics.storage import check_same_store


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
        # A server that lost its data knows of fewer shards than there were. What the others left must be closed all the
        # same: until then none of it may be compacted, or dropped.
        found = max(self._layout.shards(), default=0) + 1
        if int(client.get(self._keys.shards) or 1) < found:
            scripts.run(client, scripts.load(PACKAGE, "raise_shards"), [self._keys.shards], [found])

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
