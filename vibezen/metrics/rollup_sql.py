"""The SQL over rollups: windows of whole steps, made of those of a minute."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from vibezen.metrics.event_sql import Spans, Sql, Wanted, start_of_step
from vibezen.metrics.histogram import value_of
from vibezen.metrics.steps import Plan

_MICROS: Final = 1_000_000
_ABOVE: Final = 100_000
"""More than any bucket's number, either way."""


class Rows(NamedTuple):
    """Which rows: of these files, in [since, until) of any span. `by_series`: those of series; else those of metrics as
    a whole."""

    places: Sequence[str]
    spans: Spans
    by_series: bool


def _chosen(rows: Rows, wanted: Wanted, keys: Sequence[str], columns: str) -> Sql:
    parameters: dict[str, Any] = {"rollups": list(rows.places)}
    runs = (
        f"ts >= make_timestamp({since * _MICROS}) AND ts < make_timestamp({until * _MICROS})"
        for since, until in rows.spans
    )
    clauses = [f"({' OR '.join(runs)})", f"labels IS {'NOT ' if rows.by_series else ''}NULL"]
    if wanted.metric is not None:
        parameters["metric"] = wanted.metric
        clauses.append("metric = $metric")
    held = sorted({*keys, *(condition.key for condition in wanted.where)})
    shape = ", ".join(f'"{key}": "VARCHAR"' for key in held)
    named = f", from_json(labels, '{{{shape}}}') AS of_series" if held else ""
    text = (
        f"SELECT epoch_us(ts) / 1e6 AS ts, metric{named}, {columns} FROM read_parquet($rollups,"
        f" hive_partitioning=false) WHERE {' AND '.join(clauses)}"
    )
    conditions = []
    for number, condition in enumerate(wanted.where):
        parameters[f"where{number}"] = condition.value
        equals = "IS DISTINCT FROM" if condition.negated else "="
        conditions.append(f'of_series."{condition.key}" {equals} $where{number}')
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return Sql(f"({text}){where}", parameters)


def _groups(plan: Plan | None, keys: Sequence[str]) -> tuple[str, str]:
    """The columns start, metric, k0, k1, … and their names."""
    start = "0" if plan is None else start_of_step(plan)
    named = "".join(f', of_series."{key}" AS k{number}' for number, key in enumerate(keys))
    return f"{start} AS start, metric{named}", ", ".join(["start", "metric", *(f"k{n}" for n in range(len(keys)))])


def steps(rows: Rows, wanted: Wanted, plan: Plan | None, keys: Sequence[str], limit: int) -> Sql:
    """A row per start of a step, metric and values of `keys`: start, metric, keys…, lines, count, sum, min, max, last,
    its time in Unix seconds, zeros."""
    text, parameters = _chosen(rows, wanted, keys, '"count", lines, sum, min, max, last, last_ts, zero')
    columns, by = _groups(plan, keys)
    return Sql(
        f'SELECT {columns}, sum(lines)::BIGINT, sum("count"), fsum(sum), min(min), max(max),'
        f" arg_max(last, (last_ts, last)), epoch_us(max(last_ts)) / 1e6, sum(zero) FROM {text} GROUP BY {by}"
        f" LIMIT {int(limit)}",
        parameters,
    )


def buckets(rows: Rows, wanted: Wanted, plan: Plan | None, keys: Sequence[str], *, whole: bool) -> Sql:
    """A row per start, metric and values of `keys`: start, metric, keys…, and the histogram in four lists: buckets and
    their weights of values above 0, and of those below. `whole`: each row of the files is a step of its own."""
    sides = {"positive": ("buckets", "weights"), "negative": ("negative_buckets", "negative_weights")}
    listed = ", ".join(name for side in sides.values() for name in side)
    text, parameters = _chosen(rows, wanted, keys, listed)
    columns, by = _groups(plan, keys)
    if whole:
        return Sql(f"SELECT {columns}, {listed} FROM {text}", parameters)
    pieces = " UNION ALL ".join(
        f"SELECT {columns}, '{side}' AS side, unnest({names}) AS bucket, unnest({weights}) AS weight FROM {text}"
        for side, (names, weights) in sides.items()
    )
    made = ", ".join(
        f"list({what} ORDER BY bucket) FILTER (side = '{side}')" for side in sides for what in ("bucket", "weight")
    )
    return Sql(
        f"SELECT {by}, {made} FROM (SELECT {by}, side, bucket, sum(weight) AS weight FROM ({pieces})"
        f" GROUP BY {by}, side, bucket) GROUP BY {by}",
        parameters,
    )


def quantiles(
    rows: Rows,
    wanted: Wanted,
    plan: Plan | None,
    keys: Sequence[str],
    shares: Sequence[float],
    *,
    signs: bool,
    whole: bool,
) -> Sql:
    """A row per start, metric and values of `keys`: start, metric, keys…, samples, and for each share the places (see
    `value_at`) of the sample it falls on and of the next one. `signs`: some values may be 0 or below. `whole`: as of
    `buckets`."""
    text, parameters = _chosen(rows, wanted, keys, "zero, buckets, weights, negative_buckets, negative_weights")
    columns, by = _groups(plan, keys)
    placed = f"SELECT {columns}, unnest(buckets) + {_ABOVE} AS place, unnest(weights) AS weight FROM {text}"
    if signs:
        placed += (
            f" UNION ALL SELECT {columns}, -{_ABOVE} - unnest(negative_buckets), unnest(negative_weights) FROM {text}"
            f" UNION ALL SELECT {columns}, 0, zero FROM (SELECT * FROM {text}) WHERE zero > 0"
        )
    if not whole:
        placed = f"SELECT {by}, place, sum(weight) AS weight FROM ({placed}) GROUP BY {by}, place"
    # Of one metric its name, a text, need not be compared row by row.
    apart = by if wanted.metric is None else by.replace(", metric", "", 1)
    running = (
        f"SELECT {by}, place,"
        f" sum(weight) OVER (PARTITION BY {apart} ORDER BY place ROWS UNBOUNDED PRECEDING) AS running,"
        f" sum(weight) OVER (PARTITION BY {apart}) AS samples FROM ({placed})"
    )
    told = []
    for share in shares:
        number = f"floor({share!r} * greatest(samples - 1, 0))"
        told.append(f"coalesce(min(place) FILTER (running > {number}), max(place))")
        told.append(f"coalesce(min(place) FILTER (running > {number} + 1), max(place))")
    shown = by if wanted.metric is None else by.replace("metric", "any_value(metric)", 1)
    return Sql(f"SELECT {shown}, any_value(samples), {', '.join(told)} FROM ({running}) GROUP BY {apart}", parameters)


def value_at(place: int) -> float:
    """The value that a bucket stands for, by its place among all: those below 0, 0, those above."""
    if not place:
        return 0.0
    return value_of(place - _ABOVE) if place > 0 else -value_of(-place - _ABOVE)
