"""The SQL over committed segments: what to read, which events of it, and what is made of them.

Names of metadata keys are checked before they come here (`is_name`); every value travels as a parameter.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from vibezen.metrics.histogram import PER_OCTAVE
from vibezen.metrics.steps import Plan

_COLUMNS: Final = "ts: 'DOUBLE', metric: 'VARCHAR', value: 'DOUBLE', sample_rate: 'DOUBLE', \"count\": 'BIGINT'"
_MICROS: Final = 1_000_000
_FAR: Final = 9e12
"""Seconds that are still a time in microseconds."""
TS_OF_PART: Final = "epoch_us(ts) / 1e6"
"""A part's time as Unix seconds: the double that is nearest to its microseconds, which is what a line's number is."""
_MICROS_OF_LINE: Final = "(round(ts * 1e6) - CASE WHEN round(ts * 1e6) / 1e6 > ts THEN 1 ELSE 0 END)"
TS_OF_LINE: Final = f"{_MICROS_OF_LINE} / 1e6"
"""A line's time as its part would tell it, rounded down to microseconds: answers and cursors stay what they are when
lines become a part. An event stays in the second, and the hour, it was in."""
WEIGHT: Final = '(coalesce("count", 1) / coalesce(sample_rate, 1.0))'
_BUCKET: Final = f"CASE WHEN value <> 0 THEN ceil(log2(abs(value)) * {PER_OCTAVE})::BIGINT - 1 END"
"""As `histogram.bucket_of`."""
_NOTHING: Final = (
    "SELECT NULL::DOUBLE AS ts, NULL::VARCHAR AS metric, NULL::DOUBLE AS value, NULL::DOUBLE AS sample_rate,"
    ' NULL::BIGINT AS "count", NULL::JSON AS metadata WHERE false'
)


class Sql(NamedTuple):
    text: str
    parameters: dict[str, Any]


class Condition(NamedTuple):
    """An event's metadata `key`, in its text form, is `value`; or, `negated`, is anything else or not there."""

    key: str
    value: str
    negated: bool = False

    def holds(self, found: str | None) -> bool:
        return (found == self.value) is not self.negated


Spans = tuple[tuple[int, int], ...]
"""[since, until) in Unix seconds each."""


class Wanted(NamedTuple):
    """Which events: those in [since, until), Unix seconds. `metric`: None for every metric."""

    since: float
    until: float
    metric: str | None = None
    where: Sequence[Condition] = ()
    metrics: Sequence[str] = ()
    """Several metrics, where `metric` is None; none of them: every metric."""


class Reading(NamedTuple):
    """What to read: whole files, and the first lines of files that may have more, torn even; and parts.

    `parts`: where a part's rows lie, and which of them are meant: those in [since, until) of any span, all for None.
    With `forgiving`, a line that is no event is a row of nulls rather than an error.
    """

    whole: Sequence[Path] = ()
    begun: Sequence[tuple[Path, int]] = ()
    parts: Sequence[tuple[str, Spans | None]] = ()
    forgiving: bool = False

    def paths(self) -> list[str]:
        """All that is read."""
        return [*map(str, self.whole), *(str(path) for path, _ in self.begun), *(place for place, _ in self.parts)]

    def relation(self, keys: Iterable[str] | None, wanted: Wanted | None = None) -> Sql:
        """A row per event, with these metadata keys as text; None: all metadata, as JSON. `wanted`: events that are not
        wanted may be left out already."""
        parameters: dict[str, Any] = {}
        pieces: list[str] = []
        keys = None if keys is None else sorted(set(keys))
        if self.whole:
            parameters["whole"] = list(map(str, self.whole))
            pieces.append(f"SELECT {_of_lines(keys)} FROM {_read('whole', keys, forgiving=self.forgiving)}")
        for number, (path, lines) in enumerate(self.begun):
            parameters[f"begun{number}"] = [str(path)]
            # Rows come in the order of the lines.
            read = _read(f"begun{number}", keys, forgiving=True)
            pieces.append(f"SELECT {_of_lines(keys)} FROM (SELECT * FROM {read} LIMIT {int(lines)})")
        by_spans: dict[Spans | None, list[str]] = {}
        for place, spans in self.parts:
            by_spans.setdefault(spans, []).append(place)
        for number, (spans, places) in enumerate(by_spans.items()):
            parameters[f"parts{number}"] = places
            pieces.append(_read_parts(f"parts{number}", keys, spans, wanted, parameters))
        return Sql(" UNION ALL ".join(pieces) or _NOTHING, parameters)


def _read_parts(
    files: str, keys: Sequence[str] | None, spans: Spans | None, wanted: Wanted | None, parameters: dict[str, Any]
) -> str:
    """Rows of parts in the form in which lines are read. What is compared is the stored column itself: then row groups
    that hold nothing wanted are not read."""
    clauses = [] if wanted is None else _roughly(wanted, parameters)
    if spans is not None:
        runs = (
            f"ts >= make_timestamp({since * _MICROS}) AND ts < make_timestamp({until * _MICROS})"
            for since, until in spans
        )
        clauses.append(f"({' OR '.join(runs)})")
    columns = f'{TS_OF_PART} AS ts, metric, value, sample_rate, "count"{_metadata_of_part(keys)}'
    where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
    return f"SELECT {columns} FROM read_parquet(${files}, hive_partitioning=false){where}"


def _roughly(wanted: Wanted, parameters: dict[str, Any]) -> list[str]:
    clauses = _of_metrics(wanted, parameters)
    if wanted.since > 0:
        clauses.append(f"ts >= make_timestamp({math.floor(wanted.since * _MICROS) - 1})")
    if wanted.until < _FAR:
        clauses.append(f"ts < make_timestamp({math.ceil(wanted.until * _MICROS) + 1})")
    return clauses


def _of_metrics(wanted: Wanted, parameters: dict[str, Any]) -> list[str]:
    if wanted.metric is not None:
        parameters["metric"] = wanted.metric
        return ["metric = $metric"]
    if not wanted.metrics:
        return []
    named = {f"metric{number}": metric for number, metric in enumerate(wanted.metrics)}
    parameters |= named
    return [f"metric IN ({', '.join(f'${name}' for name in named)})"]


def _metadata_of_part(keys: Sequence[str] | None) -> str:
    if keys is None:
        return ", metadata::JSON AS metadata"
    if not keys:
        return ""
    # As when a key is read as text in the first place: a number's own spelling does not matter.
    shape = ", ".join(f'"{key}": "VARCHAR"' for key in keys)
    return f", from_json(metadata, '{{{shape}}}') AS metadata"


def _of_lines(keys: Sequence[str] | None) -> str:
    metadata = ", metadata" if keys is None or keys else ""
    return f'{TS_OF_LINE} AS ts, metric, value, sample_rate, "count"{metadata}'


def _read(files: str, keys: Sequence[str] | None, *, forgiving: bool) -> str:
    metadata = "JSON" if keys is None else ", ".join(f'"{key}" VARCHAR' for key in keys)
    if keys is not None and metadata:
        metadata = f"STRUCT({metadata})"
    columns = f"{_COLUMNS}, metadata: '{metadata}'" if metadata else _COLUMNS
    options = f"format='newline_delimited', hive_partitioning=false, ignore_errors={str(forgiving).lower()}"
    return f"read_json(${files}, {options}, columns={{{columns}}})"


def chosen(reading: Reading, wanted: Wanted, keys: Sequence[str] | None) -> Sql:
    """The events wanted, with `keys` and those that conditions are about."""
    held = None if keys is None else {*keys, *(condition.key for condition in wanted.where)}
    text, parameters = reading.relation(held, wanted)
    parameters |= {"since": wanted.since, "until": wanted.until}
    clauses = ["metric IS NOT NULL", "value IS NOT NULL", "ts >= $since", "ts < $until"]
    clauses += _of_metrics(wanted, parameters)
    for number, condition in enumerate(wanted.where):
        parameters[f"where{number}"] = condition.value
        # As when a key is read as text in the first place: a number's own spelling does not matter.
        metadata = f'from_json(metadata, \'{{"{condition.key}": "VARCHAR"}}\')' if keys is None else "metadata"
        found = f'{metadata}."{condition.key}"'
        clauses.append(f"{found} {'IS DISTINCT FROM' if condition.negated else '='} $where{number}")
    return Sql(f"({text}) WHERE {' AND '.join(clauses)}", parameters)


def _grouped(reading: Reading, wanted: Wanted, plan: Plan | None, keys: Sequence[str], made: str, by: str = "") -> Sql:
    text, parameters = chosen(reading, wanted, keys)
    names = "".join(f', metadata."{key}" AS k{number}' for number, key in enumerate(keys))
    groups = "".join(f", k{number}" for number in range(len(keys)))
    start = "0" if plan is None else start_of_step(plan)
    # Of one metric its name, a text, need not be compared row by row.
    metric, groups = (
        ("metric", f", metric{groups}") if wanted.metric is None else ("$metric::VARCHAR AS metric", groups)
    )
    return Sql(f"SELECT {start} AS start, {metric}{names}, {made} FROM {text} GROUP BY start{groups}{by}", parameters)


def start_of_step(plan: Plan) -> str:
    """Where the step begins that an event is in."""
    runs = [
        (run.stop, f"floor((ts - {run.start}) / {run.step})::BIGINT * {run.step} + {run.start}") for run in plan.runs()
    ]
    *first, (_, last) = runs
    return (
        f"CASE {' '.join(f'WHEN ts < {stop} THEN {start}' for stop, start in first)} ELSE {last} END" if first else last
    )


def steps(
    reading: Reading,
    wanted: Wanted,
    plan: Plan | None,
    keys: Sequence[str],
    quantiles: Sequence[float],
    limit: int,
    *,
    sums: bool = True,
    lasts: bool = True,
) -> Sql:
    """A row per start of a step, metric and values of `keys`: start, metric, keys…, lines, weight, whether any was
    sampled, sum, min, max, last, its time, quantiles (a list, or null). `plan`: None for one step at 0.

    `sums`, `lasts`: without them those two are 0: they are half of the work that adding up costs.
    """
    made = (
        f"count(*), sum({WEIGHT}), coalesce(bool_or(sample_rate <> 1.0), false)",
        f"fsum(value * {WEIGHT})" if sums else "0::DOUBLE",
        "min(value), max(value)",
        "arg_max(value, (ts, value))" if lasts else "0::DOUBLE",  # of one time the largest: files have no order
        "max(ts)",
        f"quantile_cont(value, [{', '.join(map(repr, quantiles))}])" if quantiles else "NULL",
    )
    text, parameters = _grouped(reading, wanted, plan, keys, ", ".join(made))
    return Sql(f"{text} LIMIT {int(limit)}", parameters)


def buckets(reading: Reading, wanted: Wanted, plan: Plan | None, keys: Sequence[str]) -> Sql:
    """A row per start, metric, values of `keys` and bucket of the histogram: start, metric, keys…, sign (-1, 0, 1),
    bucket (null for zeros), weight."""
    made = f"sign(value)::INTEGER AS way, {_BUCKET} AS bucket, sum({WEIGHT})"
    return _grouped(reading, wanted, plan, keys, made, ", way, bucket")


def lines(reading: Reading, wanted: Wanted, limit: int, skip: int, *, newest_first: bool) -> Sql:
    """The events themselves: ts, metric, value, sample_rate, count, metadata (JSON or null), in order of time.

    Events of one time are in the order of their content, so that the same question has the same answer.
    """
    text, parameters = chosen(reading, wanted, None)
    way = "DESC" if newest_first else "ASC"
    return Sql(
        f'SELECT ts, metric, value, coalesce(sample_rate, 1.0), coalesce("count", 1), metadata FROM {text}'
        f' ORDER BY ts {way}, metric, value, metadata, sample_rate, "count" LIMIT {int(limit)} OFFSET {int(skip)}',
        parameters,
    )


def inventory(reading: Reading, wanted: Wanted, labels: Sequence[str], values: int) -> Sql:
    """What there is, in two kinds of rows: metric, null, lines, first time, last time, null; and metric, key, lines,
    null, null, up to `values` values of the key, the most frequent first (null where the key is no label)."""
    text, parameters = chosen(reading, wanted, None)
    parameters["labels"] = list(labels)
    return Sql(
        f"WITH events AS MATERIALIZED (SELECT ts, metric, metadata FROM {text}),"
        " pairs AS (SELECT metric, key,"
        " CASE WHEN list_contains($labels, key) THEN metadata ->> ('$.\"' || key || '\"') END AS value, count(*) AS n"
        " FROM (SELECT metric, metadata, unnest(json_keys(metadata)) AS key FROM events) GROUP BY ALL)"
        " SELECT metric, NULL AS key, count(*), min(ts), max(ts), NULL FROM events GROUP BY metric UNION ALL"
        " SELECT metric, key, sum(n)::BIGINT, NULL, NULL,"
        f" list(value ORDER BY n DESC, value) FILTER (value IS NOT NULL)[:{int(values)}]"
        " FROM pairs GROUP BY metric, key",
        parameters,
    )


def damage(reading: Reading) -> Sql:
    """How many lines are no events."""
    text, parameters = reading.relation(())
    return Sql(f"SELECT count(*) FROM ({text}) WHERE metric IS NULL OR ts IS NULL OR value IS NULL", parameters)
