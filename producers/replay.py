"""Our own history again: recorded events from the files into another prefix, or out as lines.

A replay is an import whose source is the store: its events are numbered in the order of their times, so that one that
was cut off goes on where it was, and one that is run twice adds nothing. Never the live stream again: every event would
count twice there.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from vibezen.metrics.clock import Clock, floor_to, wall
from vibezen.metrics.connection import check_server, connect, redis_url
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.event_reader import EventReader, Wanted
from vibezen.metrics.export import Export, Exporter
from vibezen.metrics.export_format import Format
from vibezen.metrics.keys import Keys
from vibezen.metrics.pace import Pace
from vibezen.metrics.producers.append import Batch
from vibezen.metrics.producers.importer_delivery import Delivery, Say, producer_of
from vibezen.metrics.producers.importer_report import Balance
from vibezen.metrics.producers.importer_source import Interrupted
from vibezen.metrics.settings import Settings

NOW: Final = "now"
BATCH_EVENTS: Final = 500
BATCH_BYTES: Final = 512 * 1024
TICK: Final = 0.25
"""Seconds between two deliveries of a replay with a pace."""
GRAIN: Final = 60
"""Seconds that times are moved by a multiple of, so that windows hold together what they held."""

Take = Callable[[bytes], None]
Progress = Callable[[int, int | None], None]
"""Called with the events that are behind, and how many there are in all."""


class Order(NamedTuple):
    """`wanted`: which events. `speed`: seconds of the recording in one of ours; None: as fast as they are taken.
    `shift`: seconds that times are moved by; NOW: so that they end now, or begin now where `speed` is 1. `key`: names
    the replay; None: the range and the conditions do."""

    wanted: Wanted
    speed: float | None = None
    shift: int | str = 0
    key: str | None = None


class Replayer:
    """Carries one order out. `stop` ends it, with nothing lost."""

    def __init__(
        self, reader: EventReader, order: Order, stop: threading.Event, progress: Progress, now: Clock = wall
    ) -> None:
        self._reader, self._order, self._stop = reader, order, stop
        self._progress, self._now = progress, now

    def show(self, take: Take) -> bool:
        """Hand all events over as lines. False when asked to stop before the end."""
        try:
            for batch in self._batches(self._shift()):
                take(batch.payload)
        except Interrupted:
            return False
        return True

    def append(self, settings: Settings, prefix: str, say: Say) -> Balance:
        """Append all events under `prefix`; `complete` in the balance tells whether the end was reached. Raises
        BadParameter where that is the store's own, ImportStopped when what is there differs."""
        into = replace(settings, redis=replace(settings.redis, prefix=prefix))
        key = self._order.key or self._name()
        balance = Balance(prefix, key, producer_of(key))
        shift = self._agreed(into, settings, balance.producer)
        with closing(Delivery(into, balance, self._stop, say)) as delivery:
            try:
                for batch in self._batches(shift):
                    balance.rows += batch.n
                    balance.events += batch.n
                    delivery.add([batch])
                    if self._order.speed is not None:
                        delivery.flush()
                delivery.finish(whole=True)
                balance.complete = True
            except Interrupted:
                pass
        return balance

    def _name(self) -> str:
        """What makes two replays the same one."""
        wanted, shift = self._order.wanted, self._order.shift
        told = (self._reader.store_id(), wanted.since, wanted.until, wanted.metrics, wanted.where, shift)
        return f"replay {told!r}"

    def _agreed(self, into: Settings, settings: Settings, producer: str) -> int:
        """See that the prefix is another one, and settle how times are moved: once for as often as it is run."""
        keys, url = Keys(into.redis.prefix), redis_url(into)
        with closing(connect(url)) as client:
            check_server(client, url)
            known = client.get(keys.store)
            ours = isinstance(known, bytes) and known.decode(errors="replace") == self._reader.store_id()
            if ours or into.redis.prefix == settings.redis.prefix:
                raise BadParameter(
                    "--into-prefix",
                    f"{into.redis.prefix!r} is the one of the store itself: its events would count twice",
                )
            if self._order.shift != NOW:
                return self._shift()
            client.set(keys.shifted(producer), self._shift(), nx=True)
            return int(client.get(keys.shifted(producer)) or 0)

    def _shift(self) -> int:
        if isinstance(self._order.shift, int):
            return self._order.shift
        since, until = self._order.wanted.since, self._order.wanted.until
        return floor_to(self._now() - (since if self._order.speed == 1 else until), GRAIN)

    def _batches(self, shift: int) -> Iterator[Batch]:
        """Each when it is due. Raises Interrupted, StoreError."""
        exporter = Exporter(self._reader, Export(Format.JSONL, self._order.wanted))
        pace = Pace(self._order.wanted.since, self._order.speed)
        with closing(exporter.blocks()) as blocks:
            for block in blocks:
                for events in _together(_decoder.decode_lines(block), self._order.speed):
                    self._wait(pace, events[-1].ts or 0.0)
                    yield Batch(len(events), encode_lines(_moved(events, shift)))
                self._progress(exporter.done, exporter.total)

    def _wait(self, pace: Pace, until: float) -> None:
        while left := pace.wait(until):
            if self._stop.wait(left):
                break
        if self._stop.is_set():
            raise Interrupted


_decoder: Final = msgspec.json.Decoder(Event)


def _together(events: list[Event], speed: float | None) -> Iterator[list[Event]]:
    """Events that are delivered at once."""
    some: list[Event] = []
    size = 0
    for event in events:
        length = len(encode_lines([event]))
        late = speed is not None and some and (event.ts or 0.0) > (some[0].ts or 0.0) + speed * TICK
        if some and (late or len(some) >= BATCH_EVENTS or size + length > BATCH_BYTES):
            yield some
            some, size = [], 0
        some.append(event)
        size += length
    if some:
        yield some


def _moved(events: list[Event], shift: int) -> list[Event]:
    if not shift:
        return events
    return [
        Event(one.metric, one.value, (one.ts or 0.0) + shift, one.sample_rate, one.count, one.metadata)
        for one in events
    ]
