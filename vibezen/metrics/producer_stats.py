"""What producers say of themselves, and what the server keeps of it.

At any time: recorded = appended + buffered + in_flight + spooled + refused (all reasons) + dropped (all reasons).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

SILENT: Final = 180.0
"""Seconds after which a producer that did not say goodbye is taken to have ended; a living one is heard more often."""
TOLD: Final = 20
"""Producers told one by one, those heard of last."""


class Stats(msgspec.Struct, frozen=True):
    """A producer's counters since its process began, or forked. They travel in every entry's `stats`.

    `recorded`: events that passed the checks of the call. `sampled_out`: left out on purpose, not in `recorded`.
    `appended`: known to be in the stream. `buffered`: waiting for the sender. `in_flight`: with the server, not yet
    confirmed. `spooled`: on disk, not yet confirmed. `refused`: found by the sender to break the contract, by field.
    `dropped`: lost here, by reason. `bound`: how many the buffer holds at most. `closed`: these are the last ones.
    """

    recorded: int = 0
    sampled_out: int = 0
    appended: int = 0
    buffered: int = 0
    in_flight: int = 0
    spooled: int = 0
    refused: dict[str, int] = {}
    dropped: dict[str, int] = {}
    bound: int = 0
    closed: bool = False

    @property
    def waiting(self) -> int:
        """Events that the producer still had to bring to the stream."""
        return self.buffered + self.in_flight + self.spooled

    @property
    def difference(self) -> int:
        """Events recorded that are in no other count; 0 when the books balance."""
        gone = sum(self.refused.values()) + sum(self.dropped.values())
        return self.recorded - self.appended - self.waiting - gone


class Producer(NamedTuple):
    """One producer as the server knows it. `last`: number of its last event; `heard`: when it last sent anything (Unix
    seconds, the server's clock); `stats`: None where it tells none, as a gateway's clients do."""

    name: str
    last: int
    heard: float
    stats: Stats | None

    def ended_silently(self, now: float) -> bool:
        """Whether it seems to have ended without closing: what it had not sent is unknown, at most its buffer."""
        return self.stats is not None and not self.stats.closed and self.heard < now - SILENT


def read_producer(name: bytes, stored: bytes) -> Producer:
    """From its field in the producers hash, `<last number> <server milliseconds> <its counters as JSON>`."""
    last, _, rest = stored.partition(b" ")
    ms, _, told = rest.partition(b" ")
    try:
        stats = msgspec.json.decode(told, type=Stats) if told not in (b"", b"{}") else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        stats = None
    number, heard = (int(text) if text.isdigit() else 0 for text in (last, ms))
    return Producer(name.decode(errors="replace"), number, heard / 1000, stats)


class ProducerView(msgspec.Struct):
    """One producer: when it was last heard of, whether it `ended` (closed, or silent for long), and its counters."""

    producer: str
    heard: float
    ended: bool
    stats: Stats


class Producers(msgspec.Struct):
    """All producers of a shard that tell their counters, added up by them.

    `known`: how many the server knows, `counted`: how many of those tell counters. `difference`: events that no count
    has, 0 when all books balance. `silent`: producers that ended without closing; what they had not sent is unknown, at
    most `unknown_at_most` events. `newest`: those heard of last.
    """

    known: int = 0
    counted: int = 0
    recorded: int = 0
    sampled_out: int = 0
    appended: int = 0
    buffered: int = 0
    in_flight: int = 0
    spooled: int = 0
    refused: dict[str, int] = {}
    dropped: dict[str, int] = {}
    difference: int = 0
    silent: int = 0
    unknown_at_most: int = 0
    newest: list[ProducerView] = []


def producers_of(stored: Mapping[bytes, bytes], now: float) -> Producers:
    """The producers of one shard, from its producers hash. `now`: the server's clock, Unix seconds."""
    all_of_them = [read_producer(name, value) for name, value in stored.items()]
    telling = [(one, one.stats) for one in all_of_them if one.stats is not None]
    silent = [(one, stats) for one, stats in telling if one.ended_silently(now)]
    newest = sorted(telling, key=lambda pair: -pair[0].heard)[:TOLD]

    def total(what: str) -> int:
        return sum(getattr(stats, what) for _, stats in telling)

    return Producers(
        known=len(all_of_them),
        counted=len(telling),
        recorded=total("recorded"),
        sampled_out=total("sampled_out"),
        appended=total("appended"),
        buffered=total("buffered"),
        in_flight=total("in_flight"),
        spooled=total("spooled"),
        refused=_added(stats.refused for _, stats in telling),
        dropped=_added(stats.dropped for _, stats in telling),
        difference=sum(abs(stats.difference) for _, stats in telling),
        silent=len(silent),
        unknown_at_most=sum(stats.bound for _, stats in silent),
        newest=[
            ProducerView(one.name, one.heard, stats.closed or one.ended_silently(now), stats) for one, stats in newest
        ],
    )


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
