"""Rollups say the same as the events they were made of, and are there only where they are much smaller."""

import json
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import duckdb
import pytest

from tests.support.segments import commit
from vibezen.metrics.clock import HOUR
from vibezen.metrics.consumers import rollup_writer
from vibezen.metrics.consumers.compactor import Compactor
from vibezen.metrics.consumers.holdings import Holdings
from vibezen.metrics.event import Event
from vibezen.metrics.histogram import bucket_of
from vibezen.metrics.layout import Layout
from vibezen.metrics.parts import KEY
from vibezen.metrics.rollups import RollupFooter, decode_footer, rollup_path
from vibezen.metrics.settings import Compaction, Settings

DATE = 1_763_942_400
LABELS = ("provider", "model")
Key = tuple[int, str, str | None]


def compact(layout: Layout) -> Compactor:
    policy = Compaction(after_seconds=1, grace_seconds=0.001)
    settings = Settings(retention_days=100_000, storage_dir=layout.root, compaction=policy)
    one = Compactor(layout, settings, Holdings(layout, lambda shard: 1), 1, lambda: None, lambda: 4e9)
    while one.round():
        pass
    one.close()
    return one


def read(layout: Layout, generation: int = 1) -> tuple[RollupFooter, list[dict[str, Any]]]:
    path = str(rollup_path(layout, DATE, generation))
    rows = duckdb.execute(
        "SELECT * REPLACE (epoch_us(ts) AS ts, epoch_us(last_ts) AS last_ts) FROM read_parquet($1)", [path]
    )
    names = [column[0] for column in rows.description]
    found = [dict(zip(names, row, strict=True)) for row in rows.fetchall()]
    told = duckdb.execute("SELECT key, value FROM parquet_kv_metadata($1)", [path]).fetchall()
    return decode_footer(dict(told)[KEY.encode()]), found


def many(count: int, seed: int = 1, minutes: int = 3) -> list[Event]:
    chance = random.Random(seed)
    events = []
    for _ in range(count):
        metadata: dict[str, Any] = {"provider": chance.choice(["a", 'b"\\é', None]), "other": chance.random()}
        if chance.random() < 0.3:
            metadata["model"] = chance.choice([7, True, "x"])
        metric = chance.choice(["response_time", "queue_depth"])
        if metric == "queue_depth":
            metadata["producer"] = chance.choice(["p1", "p2"])
        ts = DATE + 5 * HOUR + round(chance.random() * minutes * 60, 6)
        rate, samples = chance.choice([(1.0, 1), (0.25, 1), (1.0, 3)])
        value = chance.choice([0.0, chance.uniform(-50, 50), chance.uniform(1, 1e6), 5.0])
        events.append(Event(metric, value, ts, rate, samples, metadata))
    return events


def expected(events: Sequence[Event]) -> dict[Key, list[Event]]:
    found: dict[Key, list[Event]] = defaultdict(list)
    for event in events:
        assert event.ts is not None
        minute = int(event.ts // 60) * 60
        keys = sorted([*LABELS, *(["producer"] if event.metric == "queue_depth" else [])])
        labels = {}
        for key in keys:
            value = event.metadata.get(key)
            if value is not None:
                labels[key] = value if isinstance(value, str) else json.dumps(value)
        found[minute, event.metric, None].append(event)
        found[minute, event.metric, json.dumps(labels, sort_keys=True)].append(event)
    return found


def test_windows_are_those_of_the_events(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollup_writer, "SHARE", 1)
    monkeypatch.setattr(rollup_writer, "FEWEST", 1)
    monkeypatch.setattr(rollup_writer, "SLICE_LINES", 1000)
    events = [*many(6000), *(Event(e.metric, e.value, (e.ts or 0) + HOUR, metadata=e.metadata) for e in many(2000, 2))]
    commit(layout, events, at=DATE)
    compact(layout)
    footer, rows = read(layout)
    assert (footer.metrics, footer.gauges, footer.totals) == (["queue_depth", "response_time"], ["queue_depth"], [])
    wanted = expected(events)
    assert {key(row) for row in rows} == set(wanted)
    for row in rows:
        assert_same(row, wanted[key(row)])
    order = [(row["metric"], row["labels"] is not None, row["labels"] or "", row["ts"]) for row in rows]
    assert order == sorted(order)


def key(row: dict[str, Any]) -> Key:
    labels = None if row["labels"] is None else json.dumps(json.loads(row["labels"]), sort_keys=True)
    return row["ts"] // 1_000_000, row["metric"], labels


def assert_same(row: dict[str, Any], events: Sequence[Event]) -> None:
    weights = [event.count / event.sample_rate for event in events]
    assert row["lines"] == len(events)
    assert math.isclose(row["count"], math.fsum(weights))
    total = math.fsum(event.value * weight for event, weight in zip(events, weights, strict=True))
    size = math.fsum(abs(event.value) * weight for event, weight in zip(events, weights, strict=True))
    assert abs(row["sum"] - total) <= 1e-9 * size
    assert (row["min"], row["max"]) == (min(e.value for e in events), max(e.value for e in events))
    last_ts, last = max((event.ts or 0, event.value) for event in events)
    assert (row["last"], row["last_ts"]) == (last, round(last_ts * 1e6))
    buckets: dict[tuple[int, int], float] = defaultdict(float)
    for event, weight in zip(events, weights, strict=True):
        if event.value:
            buckets[int(math.copysign(1, event.value)), bucket_of(abs(event.value))] += weight
    found = {(1, bucket): weight for bucket, weight in zip(row["buckets"], row["weights"], strict=True)}
    found |= {(-1, b): w for b, w in zip(row["negative_buckets"], row["negative_weights"], strict=True)}
    assert found == buckets
    assert (row["buckets"], row["negative_buckets"]) == (sorted(row["buckets"]), sorted(row["negative_buckets"]))
    assert row["zero"] == sum(weight for event, weight in zip(events, weights, strict=True) if event.value == 0)


def test_only_metrics_are_rolled_up_for_which_that_pays(layout: Layout) -> None:
    """A tenth of the bytes or less: whole, or at least the totals."""
    chance = random.Random(1)
    events = []
    for number in range(20_000):
        ts = DATE + number * 0.05
        other = {"other": f"{chance.random():.9f}"}
        events.append(Event("dense", 5.0, ts, metadata={"provider": "a", **other}))
        events.append(Event("wide", float(number % 2), ts, metadata={"model": f"m{number % 5000}", **other}))
    events += [Event("rare", chance.random(), DATE + 60.0 * number) for number in range(50)]
    commit(layout, events, at=DATE)
    compact(layout)
    footer, rows = read(layout)
    assert (footer.metrics, footer.totals) == (["dense"], ["wide"])
    assert {row["metric"] for row in rows} == {"dense", "wide"}
    part = layout.events / footer.part
    assert rollup_path(layout, DATE, 1).stat().st_size <= part.stat().st_size / 10


def test_a_day_for_which_nothing_pays_is_tried_once(layout: Layout) -> None:
    commit(layout, [Event("m", 1.0, DATE + 5.0)], at=DATE)
    one = compact(layout)
    footer, rows = read(layout)
    assert (footer.metrics, footer.totals, rows) == ([], [], [])
    assert not any(one.rollups.is_due(held.view.day) for held in one.look()[0] if held.view.day)


def test_the_next_generation_of_a_day_has_a_rollup_of_its_own_and_the_former_goes(layout: Layout) -> None:
    commit(layout, [Event("m", 1.0, DATE + 5.0)], at=DATE)
    compact(layout)
    before, _ = read(layout)
    commit(layout, [Event("m", 1.0, DATE + 6.0)], at=DATE)
    compact(layout)
    footer, _ = read(layout, 2)
    (held,) = Holdings(layout, lambda shard: 1).look()
    assert held.view.day is not None
    assert footer.stands_for(held.view.day)
    assert not before.stands_for(held.view.day)
    assert not rollup_path(layout, DATE, 1).exists()
