"""Forty days of simulated work and a stranger's trace: the same answers before and after compaction, and as the
original events give; small on disk; whole by `verify`."""

import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.support.feeding import lag
from tests.support.pipeline import Pipeline
from tests.support.processes import StartRole
from tests.support.servers import StartServer
from tests.support.waiting import WaitUntil
from tests.test_real_data import MAPPING, TRACE
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.keys import GROUPS
from vibezen.metrics.layout import Layout
from vibezen.metrics.producers.simulator import events as simulated
from vibezen.metrics.series import label_text
from vibezen.metrics.window import sum_of

pytestmark = [pytest.mark.server, pytest.mark.soak]

DAYS: Final = 40
EVENTS: Final = 2_000_000
LATE: Final = 20_000
QUESTIONS: Final = 40
BYTES_PER_EVENT: Final = 15.0
"""Goal 7, at some 2,000 events an hour."""
AGGREGATES: Final = {"count": None, "sum": None, "min": None, "max": None, "p50": 0.5, "p95": 0.95, "p99": 0.99}
METRICS: Final = ("response_time", "tokens", "cost", "error_rate", "confidence_score", "api_calls", "concurrency")
SHAPES: Final = ((), ("provider",), ("provider", "model"))
FILTERS: Final = ((), ("phase=testing",), ("phase!=testing",), ("phase=implementation", "provider=openai"))


class Asked(NamedTuple):
    metric: str
    since: int
    until: int
    step: int
    group_by: tuple[str, ...]
    where: tuple[str, ...]


Answer = dict[tuple[tuple[tuple[str, str], ...], int], dict[str, float]]


def questions(dice: random.Random, first: int) -> Iterator[Asked]:
    for _ in range(QUESTIONS):
        step = dice.choice((60, 300, HOUR, 6 * HOUR, DAY))
        since = first + dice.randrange(DAYS * DAY // step) * step
        until = min(since + dice.randrange(1, 300) * step, first + DAYS * DAY)
        yield Asked(
            dice.choice(METRICS), since, max(until, since + step), step, dice.choice(SHAPES), dice.choice(FILTERS)
        )


def truth(by_metric: dict[str, list[Event]], asked: Asked) -> Answer:
    """By reading every event."""
    values: dict[Any, list[float]] = defaultdict(list)
    conditions = [
        (key.removesuffix("!"), value, key.endswith("!"))
        for key, _, value in (text.partition("=") for text in asked.where)
    ]
    for event in by_metric[asked.metric]:
        assert event.ts is not None
        if not asked.since <= event.ts < asked.until:
            continue
        texts = {key: label_text(value) for key, value in event.metadata.items()}
        if any((texts.get(key) == value) is negated for key, value, negated in conditions):
            continue
        group = tuple((key, text) for key in asked.group_by if (text := texts.get(key)) is not None)
        values[group, int(event.ts // asked.step) * asked.step].append(event.value)
    return {place: numbers(some) for place, some in values.items()}


def numbers(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)

    def quantile(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = math.floor(place)
        high = ordered[min(low + 1, len(ordered) - 1)]
        return ordered[low] + (high - ordered[low]) * (place - low)

    told = {name: quantile(share) for name, share in AGGREGATES.items() if share is not None}
    return {"count": len(values), "sum": sum_of(values), "min": ordered[0], "max": ordered[-1], **told}


def answered(pipeline: Pipeline, asked: Asked, *, exact: bool) -> tuple[Answer, bool]:
    answer = pipeline.history(
        asked.metric,
        server=False,
        since=str(asked.since),
        until=str(asked.until),
        step=str(asked.step),
        group_by=",".join(asked.group_by),
        where=list(asked.where),
        agg=",".join(AGGREGATES),
        exact="true" if exact else "false",
    )
    found: Answer = defaultdict(dict)
    for line in answer.series:
        for start, value in line.points:
            if value is not None:
                found[tuple(line.labels.items()), start][line.agg] = value
    return dict(found), answer.exact


def see_same(pipeline: Pipeline, by_metric: dict[str, list[Event]], asked: list[Asked]) -> None:
    for one in asked:
        expected = truth(by_metric, one)
        for exact in (True, False):
            found, is_exact = answered(pipeline, one, exact=exact)
            assert found.keys() == expected.keys(), one
            for place, told in expected.items():
                for name, value in told.items():
                    percentile = AGGREGATES[name] is not None
                    rel = 1.1e-2 if percentile and not is_exact else 1e-9
                    assert found[place][name] == pytest.approx(value, rel=rel, abs=1e-12), (one, place, name)


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_forty_days_are_small_and_answer_as_before(
    start_server: StartServer,
    tmp_path: Path,
    start_role: StartRole,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, store = start_server(), tmp_path / "store"
    settings = {"REDIS__URL": server.url, "STORAGE_DIR": str(store), "RETENTION_DAYS": "36500"}
    settings |= {"COMPACTION__AFTER_SECONDS": "0.01", "COMPACTION__GRACE_SECONDS": "0.01"}
    for name, value in settings.items():
        monkeypatch.setenv(f"VIBEZEN_METRICS__{name}", value)
    first = int(datetime.now(UTC).timestamp()) // DAY * DAY - (DAYS + 1) * DAY
    rate = EVENTS / DAYS / DAY
    work = list(simulated(5, first, first + DAYS * DAY, rate, day_rhythm=False))
    late = list(simulated(6, first, first + DAYS * DAY, LATE / DAYS / DAY, day_rhythm=False))
    by_metric: dict[str, list[Event]] = defaultdict(list)

    def take_in(some: list[Event], name: str, *mapping: str) -> None:
        file = tmp_path / name
        if some:
            file.write_bytes(encode_lines(some))
        roles = [start_role("consume", group) for group in GROUPS]
        process = start_role("import", str(file if some else TRACE), "--idempotency-key", name, *mapping)
        assert process.wait(600) == 0, process.said[-2000:]
        with server.client() as client:
            wait_until(lambda: all(lag(client, group) == 0 for group in GROUPS), 300)
        assert [role.stop() for role in roles] == [0, 0]
        for one in some:
            by_metric[one.metric].append(one)

    def compact() -> None:
        process = start_role("consume", "compact", "--once")
        assert process.wait(900) == 0, process.said[-2000:]

    take_in(work, "work.ndjson")
    take_in([], "trace", *MAPPING)
    with server.client() as client:
        pipeline = Pipeline(client, server.url, store)
        asked = list(questions(random.Random(11), first))
        see_same(pipeline, by_metric, asked)
        archive = start_role("consume", "archive", "--once")  # the next owner closes what the last one left open
        assert archive.wait(60) == 0
        compact()
        see_same(pipeline, by_metric, asked)
        take_in(late, "late.ndjson")
        see_same(pipeline, by_metric, asked)
        assert start_role("consume", "archive", "--once").wait(60) == 0
        compact()
        compact()
        see_same(pipeline, by_metric, asked)
    layout = Layout(store)
    events = sum(map(len, by_metric.values()))
    size = bytes_of(layout.events)
    rollups = bytes_of(store / "rollups")
    print(f"{events} events, {size / events:.1f} bytes each, rollups {rollups / events:.2f}")
    assert size / events <= BYTES_PER_EVENT
    assert rollups <= size / 10
    assert len(list(layout.segments())) <= 3  # begun since
    verify = start_role("verify", "--json")
    assert verify.wait(300) == 0, verify.said[-3000:]
    assert not [one for one in json.loads(verify.said[verify.said.index("[") :]) if one.get("state") == "fail"]
