"""The SQL that makes the rows of a rollup from those of a day part."""

from collections.abc import Sequence
from typing import Final

from vibezen.metrics.event_sql import Sql
from vibezen.metrics.histogram import PER_OCTAVE
from vibezen.metrics.rollups import COLUMNS, WIDTH
from vibezen.metrics.series import PRODUCER

_MICROS: Final = 1_000_000
_WEIGHT: Final = '("count" / sample_rate)'
_BUCKET: Final = f"CASE WHEN value <> 0 THEN ceil(log2(abs(value)) * {PER_OCTAVE})::INTEGER - 1 END"
_MINUTE: Final = f"epoch_us(ts) // {WIDTH * _MICROS}"
NONE: Final = (
    'SELECT NULL::TIMESTAMP AS ts, NULL::VARCHAR AS metric, NULL::VARCHAR AS labels, NULL::DOUBLE AS "count",'
    " NULL::BIGINT AS lines, NULL::DOUBLE AS sum, NULL::DOUBLE AS min, NULL::DOUBLE AS max, NULL::DOUBLE AS last,"
    " NULL::TIMESTAMP AS last_ts, NULL::DOUBLE AS zero, NULL::INTEGER[] AS buckets, NULL::DOUBLE[] AS weights,"
    " NULL::INTEGER[] AS negative_buckets, NULL::DOUBLE[] AS negative_weights WHERE false"
)
"""No row, with all columns."""


def by_metric(file: str) -> Sql:
    """A row per metric of a part: its name, lines, time of its first and its last line in Unix microseconds."""
    return Sql(
        "SELECT metric, count(*), min(epoch_us(ts)), max(epoch_us(ts)) FROM read_parquet($part) GROUP BY metric"
        " ORDER BY metric",
        {"part": file},
    )


def series_minutes(file: str, metric: str, since: int, until: int, labels: Sequence[str]) -> Sql:
    """One row: about how many rows `rows` will have, totals left out."""
    names = ", ".join(f'metadata."{label}"' for label in labels)
    chosen = _chosen(file, metric, since, until, labels)
    counted = f"hash({_MINUTE}{', ' + names if names else ''})"
    return Sql(f"SELECT approx_count_distinct({counted}) FROM ({chosen.text})", chosen.parameters)


def rows(file: str, metric: str, since: int, until: int, labels: Sequence[str] | None) -> Sql:
    """The rows of one metric in [since, until), whole minutes in Unix microseconds, in any order. `labels`: of its
    series; None for totals alone."""
    keys = [] if labels is None else sorted(labels)
    chosen = _chosen(file, metric, since, until, keys)
    by = "".join(f", k{number}" for number in range(len(keys)))
    named = "".join(f', metadata."{key}" AS k{number}' for number, key in enumerate(keys))
    text = (
        # By bucket first: a window is then made of few rows, and no list is longer than it must be.
        f"WITH by_bucket AS MATERIALIZED (SELECT {_MINUTE} AS minute{named}, sign(value)::INTEGER AS way,"
        f" {_BUCKET} AS bucket, count(*) AS lines, sum({_WEIGHT}) AS weight, fsum(value * {_WEIGHT}) AS sum,"
        " min(value) AS min, max(value) AS max, arg_max(value, (ts, value)) AS last, max(ts) AS last_ts"
        f" FROM ({chosen.text}) GROUP BY ALL)"
        f", of_all AS (SELECT minute, way, bucket, sum(lines) AS lines, sum(weight) AS weight, fsum(sum) AS sum,"
        " min(min) AS min, max(max) AS max, arg_max(last, (last_ts, last)) AS last, max(last_ts) AS last_ts"
        " FROM by_bucket GROUP BY minute, way, bucket)"
        f" SELECT {COLUMNS} FROM ({_windows('of_all', '', 'NULL')}"
    )
    if labels is not None:
        text += f" UNION ALL {_windows('by_bucket', by, _json(keys))}"
    return Sql(text + ")", {**chosen.parameters, "metric": metric})


def _windows(of: str, by: str, labels: str) -> str:
    def listed(what: str, sign: str) -> str:
        return f"coalesce(list({what} ORDER BY bucket) FILTER (way {sign} 0), [])"

    return (
        f"SELECT make_timestamp(minute * {WIDTH * _MICROS}) AS ts, $metric AS metric, {labels}::VARCHAR AS labels,"
        ' sum(weight)::DOUBLE AS "count", sum(lines)::BIGINT AS lines, fsum(sum) AS sum, min(min) AS min,'
        " max(max) AS max, arg_max(last, (last_ts, last)) AS last, max(last_ts) AS last_ts,"
        " coalesce(sum(weight) FILTER (way = 0), 0)::DOUBLE AS zero,"
        f" {listed('bucket', '>')}::INTEGER[] AS buckets, {listed('weight', '>')}::DOUBLE[] AS weights,"
        f" {listed('bucket', '<')}::INTEGER[] AS negative_buckets,"
        f" {listed('weight', '<')}::DOUBLE[] AS negative_weights FROM {of} GROUP BY minute{by}"
    )


def _json(keys: Sequence[str]) -> str:
    """The labels of k0, k1, … as sorted JSON text, without those that are NULL."""
    pairs = "".join(f", '\"{key}\":' || to_json(k{number})" for number, key in enumerate(keys))
    return f"'{{' || concat_ws(','{pairs}) || '}}'" if keys else "'{}'"


def _chosen(file: str, metric: str, since: int, until: int, labels: Sequence[str]) -> Sql:
    shape = ", ".join(f'"{label}": "VARCHAR"' for label in labels)
    # As questions about events read a key: a number's own spelling does not matter.
    metadata = f", from_json(metadata, '{{{shape}}}') AS metadata" if labels else ""
    return Sql(
        f'SELECT ts, value, sample_rate, "count"{metadata} FROM read_parquet($part) WHERE metric = $metric'
        f" AND ts >= make_timestamp({int(since)}) AND ts < make_timestamp({int(until)})",
        {"part": file, "metric": metric},
    )


def labels_of(labels: Sequence[str], *, gauge: bool) -> list[str]:
    """The keys of a metric's series."""
    return sorted({*labels, PRODUCER} if gauge else {*labels})
