"""What the producers' tests share: collectors that end with their test, and what arrived in the stream."""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
import redis

from tests.support.gateways import Door, StartGateway, gateway_in_thread
from tests.support.waiting import WaitUntil
from vibezen.metrics import MetricType
from vibezen.metrics.batch import Entry, read_entry
from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.event import Event
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers.collector import MetricsCollector
from vibezen.metrics.producers.instruments import Instruments
from vibezen.metrics.producers.measure import Sample
from vibezen.metrics.settings import Settings


class MakeCollector(Protocol):
    def __call__(self, url: str, **settings: Any) -> MetricsCollector: ...


class Recorder(Instruments):
    """The part of a collector that measures, with a list in place of the buffer."""

    def __init__(self, now: float = 1_763_985_600.0) -> None:
        super().__init__(lambda: now, enabled=True)
        self.samples: list[tuple[str, float, dict[str, Any]]] = []

    def record_samples(self, samples: Iterator[Sample]) -> None:
        self.samples += [(str(metric), value, dict(metadata)) for metric, value, metadata in samples]

    def of(self, metric: str) -> list[tuple[float, dict[str, Any]]]:
        return [(value, metadata) for name, value, metadata in self.samples if name == metric]

    def values(self, metric: str) -> list[float]:
        return [value for value, _ in self.of(metric)]

    def tokens(self) -> dict[str, float]:
        """By type; adds up what is told twice, so that it is seen."""
        found: Counter[str] = Counter()
        for value, metadata in self.of("tokens"):
            found[metadata["type"]] += int(value)
        return dict(found)


class Arrived:
    """Reads what is in the stream of a shard."""

    def __init__(self, client: redis.Redis, shard: int = 0) -> None:
        self.client = client
        self._stream = Keys().events(shard)

    def entries(self) -> list[Entry]:
        found: Any = self.client.xrange(self._stream)
        return [read_entry(entry_id, fields) for entry_id, fields in found]

    def events(self) -> list[Event]:
        decoder = msgspec.json.Decoder(Event)
        return [event for entry in self.entries() for event in decoder.decode_lines(entry.payload)]

    def values(self, metric: str | None = None) -> list[float]:
        return [event.value for event in self.events() if metric is None or event.metric == metric]

    def drops(self) -> Counter[str]:
        """What events about dropped ones tell, by reason."""
        found: Counter[str] = Counter()
        for event in self.events():
            if event.metric == MetricType.EVENTS_DROPPED:
                found[str(event.metadata["reason"])] += int(event.value)
        return found

    def stats(self) -> list[dict[str, Any]]:
        found: Any = self.client.xrange(self._stream)
        return [msgspec.json.decode(fields[b"stats"]) for _, fields in found]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.end_measuring()


@pytest.fixture
def arrived(client: redis.Redis) -> Arrived:
    return Arrived(client)


@pytest.fixture
def make_collector() -> Iterator[MakeCollector]:
    """`make_collector(url, buffer_size=10)`: a collector that is closed, quickly, when the test ends."""
    with ExitStack() as made:

        def make(url: str, **settings: Any) -> MetricsCollector:
            collector = MetricsCollector(settings=Settings(**settings), redis_url=url)
            made.callback(collector.close_sync, 0.5)
            return collector

        yield make


@pytest.fixture
def collector(make_collector: MakeCollector, redis_url: str) -> MetricsCollector:
    """Sends on `flush` only, or when the test ends."""
    return make_collector(redis_url, buffer_size=100_000, flush_interval_seconds=3600.0)


@pytest.fixture
def start_gateway(tmp_path: Path, wait_until: WaitUntil) -> Iterator[StartGateway]:
    """`start_gateway(redis_url)`: a gateway of its own, ready, until the test ends."""
    with ExitStack() as started:
        numbers = count()

        def start(redis_url: str, *, clock: Clock = wall, ready: bool = True, **settings: Any) -> Door:
            folder = tmp_path / f"gateway-{next(numbers)}"
            door = started.enter_context(gateway_in_thread(redis_url, folder, clock, **settings))
            if ready:
                wait_until(door.is_ready)
            return door

        yield start


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def door(redis_url: str, start_gateway: StartGateway) -> Door:
    """A gateway before the emptied server."""
    return start_gateway(redis_url)
