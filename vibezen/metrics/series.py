"""Series: a metric together with the labels it is aggregated by.

Labels are those metadata keys the configuration names. A label's value is its string form; a null is no label; an
absent label differs from an empty one.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.event import Event, MetadataValue

DEFAULT_LABELS: Final = ("provider", "model", "phase", "operation", "agent", "project", "type", "tool", "status")
PRODUCER: Final = "producer"
"""Gauges carry their producer, so that the current total is the sum of each producer's newest value."""
OVERFLOW: Final = "overflow"
"""The label of the one series that takes in all series beyond a metric's bound."""

SeriesKey = str
"""Canonical JSON of metric and labels: sorted keys, no spaces."""

_CACHE_BOUND = 50_000
_encoder = msgspec.json.Encoder(order="sorted")


class Series(NamedTuple):
    metric: str
    labels: Mapping[str, str]


class _Stored(msgspec.Struct):
    metric: str
    labels: dict[str, str] = {}


_decoder = msgspec.json.Decoder(_Stored)


def series_key(metric: str, labels: Mapping[str, str]) -> SeriesKey:
    return _encoder.encode({"metric": metric, "labels": dict(labels)}).decode()


def parse_series(key: SeriesKey | bytes) -> Series:
    stored = _decoder.decode(key)
    return Series(stored.metric, stored.labels)


@lru_cache(maxsize=_CACHE_BOUND)
def metric_of(key: SeriesKey) -> str:
    """The metric of a series key; remembered, since a series comes back in every window."""
    return parse_series(key).metric


def overflow_key(metric: str) -> SeriesKey:
    return series_key(metric, {OVERFLOW: "true"})


def label_text(value: MetadataValue) -> str | None:
    """The string form of a metadata value; None for null."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


class SeriesTable:
    """Finds an event's series key; remembers keys whose label values are all text, which is nearly all of them.

    `known` maps (metric, label values…) to the key of every remembered series that carries no producer: the hot path
    looks there first, and asks `key` for all others.
    """

    def __init__(self, labels: Sequence[str] = DEFAULT_LABELS, gauges: Collection[str] = ()) -> None:
        self.labels = tuple(labels)
        self.gauges = frozenset(gauges)
        self.known: dict[tuple[object, ...], SeriesKey] = {}

    def key(self, event: Event, producer: str | None) -> SeriesKey:
        values = tuple(map(event.metadata.get, self.labels))
        if event.metric in self.gauges:
            return self._make(event.metric, values, label_text(event.metadata.get(PRODUCER)) or producer)
        identity = (event.metric, *values)
        known = self.known.get(identity)
        if known is None:
            known = self._make(event.metric, values, None)
            # Numbers stay out: 1, 1.0 and True are one dictionary key but three label values.
            if all(value is None or type(value) is str for value in values):
                if len(self.known) >= _CACHE_BOUND:
                    self.known.clear()
                self.known[identity] = known
        return known

    def _make(self, metric: str, values: tuple[MetadataValue, ...], producer: str | None) -> SeriesKey:
        texts = map(label_text, values)
        labels = {name: text for name, text in zip(self.labels, texts, strict=True) if text is not None}
        if producer is not None:
            labels[PRODUCER] = producer
        return series_key(metric, labels)
