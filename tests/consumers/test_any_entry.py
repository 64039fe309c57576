"""Whatever stands in a stream: no entry stops a reader, and both groups come to the same of it."""

import random
from collections.abc import Callable
from typing import Any

import redis

from tests.support.feeding import windows
from vibezen.metrics.batch import batch_fields
from vibezen.metrics.consumers.shard import Sink
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.verdict import judge

KEYS = Keys()
Drain = Callable[[Sink], None]
New = Callable[..., Sink]

NOW_MS = 1_763_930_000_000
IDS = [
    0,
    1,
    946_684_799_999,
    946_684_800_000,
    *range(NOW_MS, NOW_MS + 600),
    10**14,
    253_402_300_799_999,
    10**15,
    2**63,
    2**64 - 2,
]
"""Milliseconds of entry IDs, in order: a clock that was never set, a clock of today, and IDs given by hand."""

LINES = [
    *[
        b'{"metric":"response_time","value":%d,"ts":1763929990.5,"metadata":{"provider":"openai"}}' % n
        for n in range(9)
    ],
    b'{"metric":"response_time","value":1.7e308,"ts":1763929990}',
    b'{"metric":"response_time","value":-1.7e308,"ts":1763929990}',
    b'{"metric":"response_time","value":5e-324,"ts":1763929990}',
    b'{"metric":"concurrency","value":1.7e308}',
    b'{"metric":"tokens","value":1e300,"count":4294967296,"sample_rate":1e-9}',
    b'{"metric":"tokens","value":1,"count":4294967296,"ts":1763929990}',
    b'{"metric":"tokens","value":1,"count":18446744073709551616,"ts":1763929990}',
    b'{"metric":"tokens","value":1,"sample_rate":5e-324,"ts":1763929990}',
    b'{"metric":"tokens","value":0,"sample_rate":1e-9,"ts":1763929990}',
    b'{"metric":"m","value":1,"metadata":{"model":99999999999999999999999999,"phase":true,"tool":1.5,"type":null}}',
    b'{"metric":"m","value":1,"ts":1,"metadata":{"k":',
    b'{"metric":"m","value":1,"ts":1,"metadata":{"k":"\xff"}}',
    b'{"metric":"m","value":1,"ts":946684800}',
    b'{"metric":"m","value":1,"ts":253402300799}',
    b'{"metric":"m","value":1,"ts":1e18}',
    b'{"metric":"m\\n","value":NaN}',
    b'{"metric":"m","value":1}{"metric":"m","value":2}',
    b"[" * 20_000,
    b"",
    b"\xff\x00",
]


def entries(source: random.Random) -> list[dict[Any, Any]]:
    """Fields of batches, plain events and rubbish; as many as there are IDs."""
    made: list[dict[Any, Any]] = []
    seq = {"p1": 1, "p2": 1}
    for _ in IDS:
        shape = source.random()
        lines = source.choices(LINES, k=source.randint(1, 6))
        if shape < 0.7:
            producer = source.choice(["p1", "p2"])
            flat = batch_fields(producer, seq[producer], len(lines), b"\n".join(lines) + b"\n", b"{}")
            seq[producer] += len(lines)
            made.append(dict(zip(flat[::2], flat[1::2], strict=True)))
        elif shape < 0.9:
            value = source.choice(["1", "1.7e308", "nan", "one", "1_0", "", b"\xff"])
            made.append({"metric": source.choice(["m", "concurrency", "M", b"\xff"]), "value": value, "provider": "x"})
        else:
            made.append(
                source.choice([{"x": "y"}, {"events": b"\xff"}, {"v": "2", "events": "{}"}, {b"\xff": b"\xff"}])
            )
    return made


def test_no_entry_stops_a_reader_and_both_groups_agree(
    client: redis.Redis, new_archiver: New, new_aggregator: New, drain: Drain, layout: Layout
) -> None:
    source = random.Random(20261123)
    archiver, aggregator = new_archiver(), new_aggregator()
    for ms, fields in zip(IDS, entries(source), strict=True):
        client.xadd(KEYS.events(0), fields, id=f"{ms}-1")
    drain(archiver)
    drain(aggregator)

    stored: Any = client.hgetall(KEYS.books(0))
    books = {name.decode(): value.decode() for name, value in stored.items()}
    assert books["archive.position"] == books["aggregate.position"] == f"{IDS[-1]}-1"
    assert books["archive.rejected"] == books["aggregate.rejected"]
    assert int(books["archive.events"]) == int(books["aggregate.events"]) + int(books["aggregate.too_old"])
    assert int(books["archive.events"]) > 500

    lines = b"".join(path.read_bytes() for path in layout.segments())
    assert lines.count(b"\n") == int(books["archive.events"])
    assert not judge(lines, 1e12).rejected, "what is stored can be read again"
    assert all(window.count > 0 for _, _, blobs in windows(client, 10) for window in blobs.values())
