"""Events tell the same as lines, in parts of hours, in parts of days, and in any mixture; and what the lines themselves
give when they are read one by one.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.support.stored import archive, compact_day, compact_hour, roll_up, sweep
from vibezen.metrics import config
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.event_reader import EventReader, connect
from vibezen.metrics.gathering import Gatherer
from vibezen.metrics.histogram import MAX_RELATIVE_ERROR
from vibezen.metrics.history import History, history
from vibezen.metrics.inventory import inventory
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.question import parse_question
from vibezen.metrics.search import Found, parse_search, search
from vibezen.metrics.settings import Settings
from vibezen.metrics.summary import parse_summary, summary

MIDNIGHT: Final = 1_764_028_800
"""2025-11-25T00:00:00Z"""
HOURS: Final = (MIDNIGHT - 2 * HOUR, MIDNIGHT - HOUR, MIDNIGHT, MIDNIGHT + HOUR)
NOW: Final = MIDNIGHT + 30 * DAY
METRICS: Final = ("response_time", "tokens", "concurrency", "novel.metric")
"""A distribution, a counter, a gauge, and one that nobody declared."""
GAUGE: Final = "concurrency"
AGGREGATES: Final = "count,sum,mean,min,max,last,rate,p50,p95,p99"
EDGES: Final = (0.0, 1e-7, 4e-7, 6e-7, 1.0608408, 59.9999998, 60.0, 299.9999996, 1800.5, 3599.9999993, 3599.9999998)
SPELLINGS: Final = (
    ('"openai"', "openai"),
    ('"a\\u006ethropic"', "anthropic"),
    ('"\\ud83d\\ude00 \\"it\'s\\" \\\\ \\u0000"', '😀 "it\'s" \\ \0'),
    ('""', ""),
    ("null", None),
    ("true", "true"),
    ("12", "12"),
    ("-0", None),
    ("1.50", "1.5"),
    ("1E2", "100.0"),
    ("1e22", "1e+22"),
    ("123456789012345678901234567890", "123456789012345678901234567890"),
)
"""How a value may stand on a line, and its text; None for what is only compared between forms, or is no value."""


class Told(NamedTuple):
    """One line, and what it says."""

    line: bytes
    ts: float
    metric: str
    value: float
    weight: float
    labels: Mapping[str, str]

    @property
    def time(self) -> float:
        """In whole microseconds, rounded down."""
        micros = round(self.ts * 1e6)
        return (micros - (micros / 1e6 > self.ts)) / 1e6


@st.composite
def lines(draw: st.DrawFn) -> Told:
    offset = draw(st.sampled_from(EDGES) | st.floats(0, 3599.999))
    ts = draw(st.sampled_from(HOURS)) + offset
    metric = draw(st.sampled_from(METRICS))
    value = draw(
        st.sampled_from((1.0, 2.5, 100.0))
        | st.floats(1e-3, 1e6)
        | st.floats(allow_nan=False, allow_infinity=False, width=32)
    )
    keys = draw(st.lists(st.sampled_from(("provider", "phase", "producer", "session.id")), unique=True, max_size=4))
    metadata = {key: draw(st.sampled_from(SPELLINGS)) for key in keys}
    samples, rate = draw(st.sampled_from(((1, 1.0),) * 8 + ((3, 1.0), (1, 0.25), (2, 0.3))))
    fields = [f'"metric":"{metric}"', f'"value":{json.dumps(value)}', f'"ts":{ts!r}']
    fields += [f'"count":{samples}'] if samples != 1 or draw(st.sampled_from((True, False))) else []
    fields += [f'"sample_rate":{rate}'] if rate != 1 else []
    with_metadata: bool = bool(metadata) or draw(st.sampled_from((True, False)))
    if with_metadata:
        pairs = ",".join(f'"{key}":{spelling}' for key, (spelling, _) in metadata.items())
        fields.append(f'"metadata":{{{pairs}}}')
    line = ("{" + ",".join(draw(st.permutations(fields))) + "}\n").encode()
    labels = {
        key: text if spelling != "-0" else "0" for key, (spelling, text) in metadata.items() if spelling != "null"
    }
    return Told(
        line, ts, metric, value, samples / rate, {key: text for key, text in labels.items() if text is not None}
    )


class Waves(NamedTuple):
    """What comes early, late, and last of all; on two shards."""

    early: list[Told]
    late: list[Told]
    last: list[Told]

    def all(self) -> list[Told]:
        return [*self.early, *self.late, *self.last]


WAVES = st.builds(
    Waves, st.lists(lines(), min_size=1, max_size=25), st.lists(lines(), max_size=8), st.lists(lines(), max_size=8)
)


def put(layout: Layout, told: Sequence[Told], *, closed: bool = True) -> None:
    half = len(told) // 2
    for shard, some in ((0, told[:half]), (1, told[half:])):
        if some:
            archive(layout, [one.line for one in some], shard=shard, closed=closed)


def hours_of(told: Sequence[Told]) -> list[int]:
    return sorted({int(one.ts // HOUR) * HOUR for one in told})


def segments(layout: Layout, waves: Waves) -> None:
    put(layout, waves.early)
    put(layout, waves.late)
    put(layout, waves.last, closed=False)


def of_hours(layout: Layout, waves: Waves) -> None:
    for wave in waves:
        put(layout, wave)
        for hour in hours_of(wave):
            compact_hour(layout, hour)
    sweep(layout)


def of_days(layout: Layout, waves: Waves) -> None:
    put(layout, waves.early)
    for hour in hours_of(waves.early):
        compact_hour(layout, hour)
    put(layout, [*waves.late, *waves.last])
    for date in {hour // DAY * DAY for hour in hours_of(waves.all())}:
        compact_day(layout, date)
    sweep(layout)


def mixed(layout: Layout, waves: Waves) -> None:
    """The first date is a part of its own, with a later one for an hour of it; some hours have parts; what came last is
    still open; and what parts have replaced is still there."""
    put(layout, waves.early)
    if set(hours_of(waves.early)) & {HOURS[0], HOURS[1]}:
        compact_day(layout, HOURS[0] // DAY * DAY)
    put(layout, waves.late)
    for hour in hours_of(waves.late)[::2]:
        compact_hour(layout, hour)
    put(layout, waves.last, closed=False)


Form = Callable[[Layout, Waves], None]
FORMS: Final[tuple[Form, ...]] = (segments, of_hours, of_days, mixed)
SETTINGS: Final = config.load(environ={})
FOUND: Final = (Phase.explicit, Phase.reuse, Phase.generate)
"""To make an example smaller would take minutes."""
NOTHING: Final = (0, None, None)
numbers = count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forms")


@cache
def database() -> Any:
    """To open one takes longer than most questions."""
    return connect("1GB")


def readers(folder: Path, waves: Waves) -> list[EventReader]:
    return [reader_of(folder, form, waves) for form in FORMS]


def reader_of(folder: Path, form: Form, waves: Waves) -> EventReader:
    layout = Layout(folder / f"{next(numbers)}-{form.__name__}")
    layout.create()
    form(layout, waves)
    reader = EventReader(layout)
    reader._connection = database()
    return reader


def settings_with(labels: Sequence[str]) -> Settings:
    return replace(SETTINGS, aggregation=replace(SETTINGS.aggregation, labels=tuple(labels)))


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    step = draw(st.sampled_from((1, 60, 300, 3600, 86_400)))
    since = draw(st.sampled_from(HOURS)) + draw(st.sampled_from((0, 60, 1800)))
    until = min(since + draw(st.sampled_from((60, 1800, HOUR, 3 * HOUR))), since + 1400 * step)
    asked: dict[str, Any] = {"metric": draw(st.sampled_from(METRICS)), "from": str(since), "to": str(until)}
    asked |= {"step": str(step), "agg": AGGREGATES}
    if draw(st.booleans()):
        asked["group_by"] = draw(st.sampled_from(("provider", "provider,phase")))
    if draw(st.booleans()):
        text = draw(st.sampled_from([text for _, text in SPELLINGS if text is not None]))
        sign = draw(st.sampled_from(("=", "!=")))
        asked["where"] = [f"{draw(st.sampled_from(('provider', 'session.id')))}{sign}{text}"]
    return asked


def ask(reader: EventReader, asked: Mapping[str, Any], ours: Settings = SETTINGS) -> History:
    return anyio.run(history, Gatherer(reader, None, Keys(), ours), parse_question(asked, ours, NOW), NOW)


@settings(max_examples=10, phases=FOUND)
@given(WAVES, st.lists(questions(), min_size=6, max_size=6))
def test_history_is_the_same_in_every_form(folder: Path, waves: Waves, asked: list[dict[str, Any]]) -> None:
    found = readers(folder, waves)
    for question in asked:
        first, *others = (ask(reader, question) for reader in found)
        assert_as_read(first, question, waves.all())
        for other in others:
            assert (other.exact, other.sources, other.as_of) == (first.exact, first.sources, first.as_of)
            assert len(other.series) == len(first.series)
            for one, another in zip(first.series, other.series, strict=True):
                assert (one.agg, one.labels) == (another.agg, another.labels)
                assert [ts for ts, _ in one.points] == [ts for ts, _ in another.points]
                for (_, value), (_, same) in zip(one.points, another.points, strict=True):
                    assert is_close(value, same), (one.agg, value, same)


def is_close(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-22 if abs(one) < 1e-13 else 0.0)


def assert_as_read(answer: History, asked: Mapping[str, Any], told: list[Told]) -> None:
    """What each point says is what its own lines give."""
    step, group_by = int(asked["step"]), [key for key in asked.get("group_by", "").split(",") if key]
    wanted: dict[tuple[tuple[tuple[str, str], ...], int], list[Told]] = {}
    for one in told:
        start = math.floor(one.ts / step) * step
        if one.metric == asked["metric"] and answer.since <= one.ts < answer.to and holds(one, asked.get("where", ())):
            group = tuple((key, one.labels[key]) for key in group_by if key in one.labels)
            wanted.setdefault((group, start), []).append(one)
    seen = {(tuple(line.labels.items()), start) for line in answer.series for start, v in line.points if v is not None}
    assert seen == set(wanted)
    for line in answer.series:
        for start, value in line.points:
            some = wanted.get((tuple(line.labels.items()), start))
            if some is not None:
                assert_told(line.agg, value, some, exact=answer.exact)


def holds(one: Told, where: Sequence[str]) -> bool:
    for condition in where:
        key, _, text = condition.partition("=")
        if (one.labels.get(key.removesuffix("!")) == text) is key.endswith("!"):
            return False
    return True


def assert_told(agg: str, value: Any, some: list[Told], *, exact: bool) -> None:
    weight = math.fsum(one.weight for one in some)
    total = math.fsum(one.value * one.weight for one in some)
    added = math.fsum(abs(one.value) * one.weight for one in some)
    if agg == "count":
        assert math.isclose(value, weight, rel_tol=1e-12)
    elif agg in ("sum", "mean"):
        whole, size = (total, added) if agg == "sum" else (total / weight, added / weight)
        assert math.isclose(value, whole, rel_tol=1e-9, abs_tol=1e-15 * size)
    elif agg in ("min", "max"):
        assert value == {"min": min, "max": max}[agg](one.value for one in some)
    elif agg == "last":
        assert math.isclose(value, last(some), rel_tol=1e-12, abs_tol=1e-15 * added)
    elif agg.startswith("p") and all(one.weight == 1 for one in some) and (exact or min(o.value for o in some) > 0):
        values = sorted(one.value for one in some)
        assert math.isclose(
            value,
            quantile(values, float(agg[1:]) / 100),
            rel_tol=1e-12 if exact else MAX_RELATIVE_ERROR * 1.001,
            abs_tol=1e-15 * added,
        )


def last(some: list[Told]) -> float:
    """Of a gauge the sum of each series' newest."""
    series: dict[Any, Told] = {}
    keys = (*SETTINGS.aggregation.labels, "producer")
    for one in sorted(some, key=lambda one: (one.time, one.value)):
        series[tuple(one.labels.get(key) for key in keys) if one.metric == GAUGE else ()] = one
    return math.fsum(one.value for one in series.values())


def quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    low, high = math.floor(position), math.ceil(position)
    return ordered[low] * (1 - position + low) + ordered[high] * (position - low)


WHOLE: Final = ("response_time", GAUGE)
TOTALS: Final = ("tokens",)
"""Of `novel.metric` rollups have nothing."""
LABELS: Final = ("provider", "phase")


def rolled(layout: Layout, waves: Waves) -> None:
    """Closed days with rollups, and what came after."""
    of_days(layout, waves._replace(last=[]))
    for date in {hour // DAY * DAY for hour in hours_of([*waves.early, *waves.late])}:
        roll_up(layout, date, LABELS, WHOLE, TOTALS)
    put(layout, waves.last, closed=False)


@settings(max_examples=10, phases=FOUND)
@given(WAVES, st.lists(questions(), min_size=6, max_size=6))
def test_rollups_tell_what_events_do(folder: Path, waves: Waves, asked: list[dict[str, Any]]) -> None:
    ours = settings_with(LABELS)
    plain, with_rollups = reader_of(folder, segments, waves), reader_of(folder, rolled, waves)
    for question in asked:
        if int(question["step"]) >= 60:
            answer, events = ask(with_rollups, question, ours), ask(plain, question, ours)
            compacted = set(hours_of([*waves.early, *waves.late])) - set(hours_of(waves.last))
            told = told_by_rollups(question) and any(hour in compacted for hour in hours_asked(question))
            assert told <= any(one.source == "rollups" for one in answer.sources)
            assert_as_read(answer, question, waves.all())
            for one, other in zip(answer.series, events.series, strict=True):
                assert (one.agg, one.labels) == (other.agg, other.labels)
                assert one.agg.startswith("p") or all(
                    is_close(value, same) for (_, value), (_, same) in zip(one.points, other.points, strict=True)
                ), one.agg
            assert ask(with_rollups, question | {"exact": "true"}, ours).exact is events.exact
    summaries = [
        anyio.run(summarise, reader, {"from": str(HOURS[0]), "to": str(HOURS[-1] + HOUR)}, ours)
        for reader in (plain, with_rollups)
    ]
    assert summaries[0].keys() == summaries[1].keys()


def hours_asked(question: Mapping[str, Any]) -> range:
    plan = parse_question(question, SETTINGS, NOW).plan
    return range(plan.start // HOUR * HOUR, plan.stop, HOUR)


def told_by_rollups(question: Mapping[str, Any]) -> bool:
    keys = {
        *question.get("group_by", "").split(","),
        *(one.partition("=")[0].strip("!") for one in question.get("where", ())),
    }
    keys -= {""}
    metric = question["metric"]
    return metric in WHOLE and keys <= {*LABELS} if keys else metric in (*WHOLE, *TOTALS)


def pages(readers: Iterator[EventReader], asked: Mapping[str, Any]) -> list[Found]:
    """All that is found, each page by the next reader."""
    found: list[Found] = []
    cursor = ""
    while True:
        told = anyio.run(search, next(readers), parse_search({**asked, "cursor": cursor}, NOW))
        found += told.events
        if told.next is None:
            return found
        cursor = told.next


@settings(max_examples=5, phases=FOUND)
@given(WAVES, st.sampled_from(("newest", "oldest")), st.integers(1, 7))
def test_search_goes_on_where_it_was_when_lines_have_become_parts(
    folder: Path, waves: Waves, order: str, limit: int
) -> None:
    found = readers(folder, waves)
    asked = {"from": str(HOURS[0]), "to": str(HOURS[-1] + HOUR), "order": order, "limit": str(limit)}
    whole = pages(iter([found[0]] * 1000), asked | {"limit": "1000"})
    assert sorted(one.ts for one in whole) == sorted(one.time for one in waves.all())
    assert [one.ts for one in whole] == sorted((one.ts for one in whole), reverse=order == "newest")
    for first in range(len(found)):
        assert pages((found[(first + turn) % len(found)] for turn in count()), asked) == whole


@settings(max_examples=5, phases=FOUND)
@given(WAVES)
def test_inventory_and_summary_are_the_same_in_every_form(folder: Path, waves: Waves) -> None:
    found = readers(folder, waves)
    asked = {"from": str(HOURS[0]), "to": str(HOURS[-1] + HOUR)}
    told = [inventory_of(reader) for reader in found]
    for metric in METRICS:
        some = [one for one in waves.all() if one.metric == metric]
        times = [one.time for one in some]
        assert told[0].get(metric, NOTHING)[:3] == (len(some), min(times, default=None), max(times, default=None))
    assert told == [told[0]] * len(found)
    summaries = [anyio.run(summarise, reader, asked) for reader in found]
    for one in summaries[1:]:
        assert one.keys() == summaries[0].keys()
        for metric, values in one.items():
            assert all(map(is_close, values, summaries[0][metric])), metric


def inventory_of(reader: EventReader) -> dict[str, tuple[Any, ...]]:
    labels = SETTINGS.aggregation.labels
    catalogue = SETTINGS.catalogue()
    hours = range(HOURS[0], HOURS[-1] + HOUR, HOUR)
    told = anyio.run(inventory, reader, catalogue, labels, hours)
    return {
        one.metric: (
            one.events,
            one.first,
            one.last,
            {key: sorted(values) for key, values in one.labels.items()},
            one.metadata,
        )
        for one in told.metrics
    }


async def summarise(reader: EventReader, asked: Mapping[str, Any], ours: Settings = SETTINGS) -> dict[str, list[Any]]:
    told = await summary(Gatherer(reader, None, Keys(), ours), parse_summary(asked, ours, NOW), NOW)
    return {
        metric: [getattr(numbers, name) for name in numbers.__struct_fields__ if is_number(getattr(numbers, name))]
        for metric, numbers in told.metrics.items()
    }


def is_number(value: object) -> bool:
    return value is None or isinstance(value, int | float)
