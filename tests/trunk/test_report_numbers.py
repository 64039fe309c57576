"""Every number of every built-in report, held against a plain reading of the events that were recorded."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import anyio
import pytest
import redis
import yaml

from tests.support.feeding import event
from tests.support.pipeline import Pipeline
from tests.support.servers import free_port
from tests.support.stores import Store
from vibezen.metrics import MetricsReporter, MetricsStorage
from vibezen.metrics.catalogue import BUILT_IN
from vibezen.metrics.config import load
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event import Event
from vibezen.metrics.producers.simulator import events as simulated
from vibezen.metrics.reports import library, savings
from vibezen.metrics.settings import Settings
from vibezen.metrics.window_reader import DEFAULT_AGGREGATE

DAY: Final = 86_400
NOW: Final = 1_700_157_000.0
"""2023-11-16T17:50:00Z."""
TYPES: Final = ("system_performance", "quality_trends", "cost_analysis", "weekly_summary")
SETTINGS: Final = Settings()
Report = dict[str, Any]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def report(store: Store | Pipeline, type: str, now: float = NOW, url: str | None = None, **asked: Any) -> Report:
    """Without a `url` there is no server: files answer alone."""
    root = store.layout.root
    settings = load(redis_url=url or f"redis://127.0.0.1:{free_port()}", storage_dir=root, environ={})
    reporter = MetricsReporter(MetricsStorage(root), settings=settings, clock=lambda: now)

    async def ask() -> Report:
        return await reporter.generate_report(type, **asked)

    return anyio.run(ask)


class Truth:
    """The events themselves, and the plainest way to add them up."""

    def __init__(self, events: Sequence[Event]) -> None:
        ordered = sorted(events, key=lambda one: one.metric)
        self._events = {metric: list(found) for metric, found in groupby(ordered, key=lambda one: one.metric)}

    def number(self, asked: Mapping[str, Any], agg: str, span: tuple[float, float], group: Mapping[str, Any]) -> Any:
        own = self._of(asked, agg, span, group)
        if "per" not in asked:
            return own
        under = self._of(asked["per"], None, span, group)
        return own / under if own is not None and under else None

    def _of(
        self, asked: Mapping[str, Any], agg: str | None, span: tuple[float, float], group: Mapping[str, Any]
    ) -> Any:
        metric = asked["metric"]
        if metric == savings.METRIC:
            return self._saved(span, group)
        conditions = [*_several(asked.get("where", ())), *(f"{key}={value}" for key, value in group.items())]
        values = [
            one.value
            for one in self._events.get(metric, ())
            if span[0] <= (one.ts or 0) < span[1] and all(_holds(one, text) for text in conditions)
        ]
        return _added(values, agg or DEFAULT_AGGREGATE[BUILT_IN[metric].kind])

    def _saved(self, span: tuple[float, float], group: Mapping[str, Any]) -> Any:
        conditions = ["type=cache_read", *(f"{key}={value}" for key, value in group.items())]
        cached = [
            one.value * price(None, str((one.metadata or {})["model"]), 0)
            for one in self._events["tokens"]
            if span[0] <= (one.ts or 0) < span[1] and all(_holds(one, text) for text in conditions)
        ]
        return math.fsum(cached) if cached else None

    def groups(
        self, asked: Mapping[str, Any], labels: Sequence[str], span: tuple[float, float]
    ) -> set[tuple[Any, ...]]:
        return {
            tuple((one.metadata or {}).get(label) for label in labels)
            for one in self._events.get(asked["metric"], ())
            if span[0] <= (one.ts or 0) < span[1]
            and all(_holds(one, text) for text in _several(asked.get("where", ())))
        }


def price(provider: str | None, model: str | None, at: int) -> float:
    """What a token from the cache saves in these tests."""
    return 1e-6 * len(model or "")


def _several(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _holds(one: Event, condition: str) -> bool:
    key, _, value = condition.partition("=")
    found = (one.metadata or {}).get(key.removesuffix("!"))
    return (found == value or (found is None and value == "None")) is not key.endswith("!")


def _added(values: list[float], agg: str) -> float | None:
    if not values:
        return None
    if agg in ("sum", "count"):
        return math.fsum(values) if agg == "sum" else len(values)
    if agg == "mean":
        return math.fsum(values) / len(values)
    at = float(agg[1:]) / 100 * (len(values) - 1)  # linear between neighbours, as numpy and DuckDB have it
    ordered = sorted(values)
    low, high = ordered[math.floor(at)], ordered[math.ceil(at)]
    return low + (high - low) * (at - math.floor(at))


def close(value: Any) -> Any:
    return None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)


class Told(NamedTuple):
    """A number of a report, where it stands, and what it should be."""

    place: str
    found: Any
    expected: Any


def _numbers(section: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for asked in section["numbers"]:
        spec = BUILT_IN.get(asked["metric"], savings.SPEC)
        for agg in _several(asked.get("agg", DEFAULT_AGGREGATE[spec.kind])):
            yield asked, agg


def every_number(made: Report, definition: Mapping[str, Any], truth: Truth) -> Iterator[Told]:
    period = made["period"]
    now, before = (period["from"], period["to"]), (period["previous_from"], period["previous_to"])
    for section, asked in zip(made["sections"], definition["sections"], strict=True):
        numbers, labels = list(_numbers(asked)), _several(asked.get("group_by", ()))
        place = f"{made['type']}: {section['title']}"

        def figures(
            found: Sequence[Report], group: Mapping[str, Any], place: str = place, numbers: Any = numbers
        ) -> Any:
            for figure, (number, agg) in zip(found, numbers, strict=True):
                yield Told(f"{place}: {figure['name']}", figure["value"], truth.number(number, agg, now, group))
                yield Told(
                    f"{place}: {figure['name']} before", figure["previous"], truth.number(number, agg, before, group)
                )

        if "figures" in section:
            yield from figures(section["figures"], {})
        if table := section.get("table"):
            yield from figures(table["total"], {})
            for row in table["rows"]:
                yield from figures(row["figures"], dict(zip(labels, row["labels"], strict=True)))
            groups = set().union(*(truth.groups(number, labels, now) for number, _ in numbers))
            yield Told(f"{place}: groups", len(table["rows"]) + table["omitted"], len(groups))
        if days := section.get("days"):
            yield from figures([row["figure"] for row in days["rows"]], {})
            ends = [*days["starts"][1:], period["to"]]
            for row, (number, agg) in zip(days["rows"], numbers, strict=True):
                for value, start, stop in zip(row["values"], days["starts"], ends, strict=True):
                    yield Told(f"{place}: {start}", value, truth.number(number, agg, (start, stop), {}))
        if chart := section.get("chart"):
            yield from _lines(chart, numbers, labels, place, truth)


def _lines(
    chart: Report, numbers: list[tuple[dict[str, Any], str]], labels: list[str], place: str, truth: Truth
) -> Iterator[Told]:
    for index, line in enumerate(chart["lines"]):
        number, agg = numbers[0 if labels else index]
        if line["name"].endswith(" others"):
            continue
        group = (
            {
                label: None if name == "(none)" else name
                for label, name in zip(labels, line["name"].split(" / "), strict=True)
            }
            if labels
            else {}
        )
        for value, start, stop in zip(line["values"], chart["starts"], chart["stops"], strict=True):
            yield Told(f"{place}: {line['name']} {start}", value, truth.number(number, agg, (start, stop), group))


def test_every_number_of_every_built_in_report_is_what_the_events_add_up_to(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(savings, "saved", price)
    past = simulated(3, NOW - 15 * DAY, NOW + DAY / 4, 0.03)
    recorded = [one for one in past if (one.ts or 0) // 3600 % 5 == 0]  # in every fifth hour: each hour is a file
    store.add(recorded)
    truth = Truth(recorded)
    for type, tz, period in (
        ("system_performance", "UTC", "24h"),
        ("quality_trends", "UTC", "2d"),
        ("cost_analysis", "Asia/Kolkata", "2023-11-13..2023-11-16"),
        ("weekly_summary", "America/New_York", ""),
    ):
        made = report(store, type, period=period, tz=tz)
        definition = yaml.safe_load(library.find(type, SETTINGS).read_text())
        told = list(every_number(made, definition, truth))
        assert len(told) > 100, type
        for one in told:
            assert one.found == close(one.expected), one.place
        assert (made["exact"], made["empty"], {source["source"] for source in made["sources"]}) == (
            True,
            False,
            {"events"},
        )


def test_period_is_empty_whatever_was_before(store: Store) -> None:
    store.add([event(1.0, NOW - 10 * DAY, "cost"), event(2.0, NOW - 10 * DAY, "cost")])
    made = report(store, "cost_analysis")
    cost = made["sections"][0]["figures"][0]
    assert (made["empty"], cost["value"], cost["previous"], cost["verdict"]) == (True, None, 3.0, "too little data")


def test_days_are_those_of_the_zone(store: Store) -> None:
    zone = ZoneInfo("Europe/Berlin")  # the clock is put back on 2023-10-29
    at = [datetime(2023, 10, day, 23, 30, tzinfo=zone).timestamp() for day in (28, 29, 30)]
    store.add([event(1.0, ts, "cost") for ts in at])
    made = report(store, "cost_analysis", period="2023-10-28..2023-10-31", tz="Europe/Berlin")
    days = next(section["days"] for section in made["sections"] if "days" in section)
    assert days["labels"] == ["Sat Oct 28", "Sun Oct 29", "Mon Oct 30"]
    assert [stop - start for start, stop in zip(days["starts"], days["starts"][1:], strict=False)] == [DAY, 25 * 3600]
    assert days["rows"][0]["values"] == [1, 1, 1]
    assert days["rows"][0]["figure"]["value"] == 3


@pytest.mark.parametrize("type", TYPES)
def test_empty_period_says_so(store: Store, type: str) -> None:
    made = report(store, type)
    assert (made["empty"], made["as_of"], made["sources"]) == (True, None, [])
    figures = next(section["figures"] for section in made["sections"] if "figures" in section)
    assert {figure["verdict"] for figure in figures} == {"too little data"}
    assert {figure["value"] for figure in figures} == {None}
    assert all(section["chart"]["lines"] == [] for section in made["sections"] if "chart" in section)


@pytest.mark.parametrize("type", TYPES)
def test_one_event_is_told_and_judged_by_nobody(store: Store, type: str) -> None:
    store.add([event(7.5, NOW - 60, metric, provider="openai") for metric in ("cost", "response_time", "violations")])
    made = report(store, type)
    assert not made["empty"]
    every = [figure for section in made["sections"] for figure in section.get("figures", [])]
    assert {figure["value"] for figure in every} <= {7.5, None}
    assert 7.5 in {figure["value"] for figure in every}
    assert {figure["verdict"] for figure in every} == {"too little data"}


def test_groups_beyond_the_top_are_counted_and_in_the_total(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "title: Mine\nsections:\n"
        "  - {title: By project, show: table, group_by: project, top: 2, numbers: [{metric: cost}]}\n"
        "  - {title: Over time, show: columns, group_by: project, top: 2, numbers: [{metric: cost}]}\n"
    )
    store.add(
        [event(float(n), NOW - 60, "cost", project=f"p{n}") for n in range(1, 5)] + [event(0.5, NOW - 60, "cost")]
    )
    table, chart = report(store, "", definition=path)["sections"]
    assert [row["labels"] for row in table["table"]["rows"]] == [["p4"], ["p3"]]
    assert (table["table"]["omitted"], table["table"]["total"][0]["value"]) == (3, 10.5)
    assert table["table"]["rows"][0]["figures"][0]["share"] == pytest.approx(4 / 10.5)
    assert [line["name"] for line in chart["chart"]["lines"]] == ["p4", "4 others"]
    assert sum(value or 0 for line in chart["chart"]["lines"] for value in line["values"]) == 10.5


@pytest.mark.server
def test_windows_and_events_tell_the_same(client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    pipeline = Pipeline(client, redis_url, tmp_path / "store")
    now = math.floor(datetime.now().timestamp())  # noqa: DTZ005 - a moment, whatever the zone
    pipeline.take_in([event(100.0 + n, now - 5400 + n * 10, provider="xy"[n % 2]) for n in range(500)])
    cheap, exact = (
        report(pipeline, "system_performance", now, redis_url, period="2h", exact=exact) for exact in (False, True)
    )
    assert exact["exact"]
    assert "windows" in {source["source"] for source in cheap["sources"]}
    assert not cheap["exact"]
    for one, other in zip(cheap["sections"][0]["figures"], exact["sections"][0]["figures"], strict=True):
        assert one["value"] == (None if other["value"] is None else pytest.approx(other["value"], rel=0.011)), one[
            "name"
        ]


def test_periods_of_unequal_length_are_compared_by_the_day(store: Store) -> None:
    """November has 30 days, October 31: a dollar a day is as much in both."""
    days = [datetime(2023, 10, 1, 12, tzinfo=ZoneInfo("UTC")).timestamp() + DAY * n for n in range(61)]
    store.add([event(1.0, ts, "cost") for ts in days])
    made = report(store, "cost_analysis", now=days[-1] + DAY, period="last-month")
    cost = made["sections"][0]["figures"][0]
    assert (cost["value"], cost["previous"]) == (30, pytest.approx(30))
    assert cost["verdict"] == "unchanged"
    assert any("multiplied by 0.968" in note for note in made["notes"])


def test_events_leave_as_text_or_bytes(store: Store) -> None:
    store.add([event(float(n), NOW - n, ("cost", "tokens")[n % 2], provider="=a") for n in range(6)])
    reporter = MetricsReporter(MetricsStorage(store.layout.root), settings=SETTINGS, clock=lambda: NOW)

    async def export(**asked: Any) -> Any:
        return await reporter.export_metrics(**asked)

    whole = anyio.run(export)
    assert whole.splitlines()[0].startswith("time,ts,metric,value")
    assert len(whole.splitlines()) == 7
    assert ",'=a," in whole
    some = anyio.run(lambda: export(format="jsonl", metric=["cost"], since="now-3s", where="provider==a"))
    assert [json.loads(line)["value"] for line in some.splitlines()] == [2, 0]
    assert anyio.run(lambda: export(format="parquet"))[:4] == b"PAR1"
    with pytest.raises(BadParameter, match="format"):
        anyio.run(lambda: export(format="xml"))
