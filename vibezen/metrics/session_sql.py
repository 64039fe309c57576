"""The SQL over events that tells sessions: what each did, and in what order they are told."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from vibezen.metrics.active_sessions import SESSION
from vibezen.metrics.catalogue import MetricType
from vibezen.metrics.event_sql import WEIGHT, Reading, Sql, Wanted, chosen

NAMED: Final = ("provider", "model", "project", "agent")
"""Metadata of which a session's values are told."""
MAX_NAMES: Final = 10
"""Values of each that are told, the first of the alphabet."""
_P95: Final = 0.95
_HERE: Final = f'metadata."{SESSION}"'


class After(NamedTuple):
    """The last session that was told."""

    active: bool
    last: float
    session: str


def sessions(
    reading: Reading,
    wanted: Wanted,
    seen: Mapping[str, float],
    after: After | None,
    limit: int,
    *,
    unstored: bool,
) -> Sql:
    """A row per session: its name, whether it is active, first and last time, lines, tokens, cost, p95 of the response
    time, whether that is of lines that stand for several samples, errors, and a list for each of NAMED. Active ones
    come first, then those seen last.

    `seen`: the active ones, with the time of their newest event. `unstored`: tell those of which there is no event,
    too, if they were seen in the range.
    """
    text, parameters = chosen(reading, wanted, (SESSION, *NAMED))
    parameters |= {"ids": list(seen), "times": list(seen.values())}
    names = "".join(
        f', list_sort(list(DISTINCT metadata."{key}") FILTER (metadata."{key}" IS NOT NULL))[:{MAX_NAMES}] AS {key}'
        for key in NAMED
    )
    events = (
        f"SELECT {_HERE} AS session, min(ts) AS first, max(ts) AS last, count(*) AS lines,"
        f" {_sum(MetricType.TOKENS)} AS tokens, {_sum(MetricType.COST)} AS cost,"
        f" quantile_cont(value, {_P95}) FILTER (metric = '{MetricType.RESPONSE_TIME}') AS p95,"
        f" coalesce(bool_or({WEIGHT} <> 1) FILTER (metric = '{MetricType.RESPONSE_TIME}'), false) AS weighted,"
        f" {_sum(MetricType.ERROR_RATE)} AS errors{names} FROM {text} AND {_HERE} IS NOT NULL GROUP BY session"
    )
    join, kept = "LEFT", "true"
    if unstored:
        join, kept = "FULL", "(lines IS NOT NULL OR (seen >= $since AND seen < $until))"
    told = (
        "SELECT session, seen IS NOT NULL AS active, coalesce(first, seen) AS first,"
        # What was seen is ahead of what is stored, but is nothing of a range that ended before.
        " CASE WHEN last IS NULL OR (seen > last AND seen < $until) THEN seen ELSE last END AS last,"
        " coalesce(lines, 0) AS lines, tokens, cost, p95, coalesce(weighted, false) AS weighted, errors,"
        f" {', '.join(NAMED)} FROM events {join} JOIN active USING (session) WHERE {kept}"
    )
    behind = ""
    if after is not None:
        parameters |= {"active": after.active, "last": after.last, "session": after.session}
        behind = (
            " WHERE active < $active OR (active = $active AND (last < $last OR (last = $last AND session > $session)))"
        )
    return Sql(
        f"WITH events AS ({events}),"
        " active AS (SELECT unnest($ids::VARCHAR[]) AS session, unnest($times::DOUBLE[]) AS seen),"
        f" told AS ({told})"
        f" SELECT * FROM told{behind} ORDER BY active DESC, last DESC, session LIMIT {int(limit)}",
        parameters,
    )


def _sum(metric: str) -> str:
    return f"fsum(value * {WEIGHT}) FILTER (metric = '{metric}')"


def weighted_p95(reading: Reading, wanted: Wanted, sessions: Sequence[str]) -> Sql:
    """A row per session of these: its name, and the response time that 95 % of its samples do not exceed, where lines
    stand for several samples."""
    text, parameters = chosen(reading, wanted._replace(metric=MetricType.RESPONSE_TIME, metrics=()), (SESSION,))
    parameters["sessions"] = list(sessions)
    return Sql(
        f"SELECT session, min(value) FILTER (upto >= {_P95} * whole) FROM (SELECT session, value,"
        " sum(weight) OVER (PARTITION BY session ORDER BY value) AS upto,"
        " sum(weight) OVER (PARTITION BY session) AS whole"
        f" FROM (SELECT {_HERE} AS session, value, {WEIGHT} AS weight FROM {text}"
        f" AND list_contains($sessions::VARCHAR[], {_HERE}))) GROUP BY session",
        parameters,
    )
