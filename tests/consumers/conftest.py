from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from vibezen.metrics.consumers.aggregator import Aggregator
from vibezen.metrics.consumers.archiver import Archiver
from vibezen.metrics.consumers.lease import Taken, take
from vibezen.metrics.consumers.marks import Marks
from vibezen.metrics.consumers.shard import Reader, Sink, run_shard
from vibezen.metrics.consumers.takeover import highest_epoch
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.series import SeriesTable
from vibezen.metrics.settings import Aggregation, Archive

KEYS = Keys()
NOBODY = Taken(0, "none", "nobody", "0:0")

Drain = Callable[[Sink], None]
NewArchiver = Callable[..., Archiver]
NewAggregator = Callable[..., Aggregator]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "store")
    layout.create()
    return layout


@pytest.fixture
def drain(client: redis.Redis) -> Drain:
    """Feed a sink everything its stream holds, and commit."""

    def run(sink: Sink) -> None:
        marks = Marks(client, KEYS, NOBODY, careful=False)
        run_shard(Reader(client, KEYS.events(0)), sink, marks, lambda: False, once=True)

    return run


@pytest.fixture
def new_archiver(client: redis.Redis, layout: Layout) -> Iterator[NewArchiver]:
    """Take shard 0's archive over, however alive its owner is."""
    with ExitStack() as opened:

        def make(policy: Archive | None = None) -> Archiver:
            client.delete(KEYS.lease(0, "archive"))
            taken = take(client, KEYS, 0, "archive", "test", highest_epoch(layout, 0))
            assert taken is not None
            archiver = Archiver(client, KEYS, taken, layout, policy or Archive())
            opened.callback(archiver.close)
            return archiver

        yield make


@pytest.fixture
def new_aggregator(client: redis.Redis) -> NewAggregator:
    """Take shard 0's windows over, however alive their owner is."""

    def make(policy: Aggregation | None = None) -> Aggregator:
        client.delete(KEYS.lease(0, "aggregate"))
        taken = take(client, KEYS, 0, "aggregate", "test")
        assert taken is not None
        policy = policy or Aggregation()
        series = SeriesTable(policy.labels, {"concurrency", "queue_depth"})
        return Aggregator(client, KEYS, taken, policy, series)

    return make
