"""Sessions with activity: what `GET /api/sessions` and `/api/sessions/{id}` answer.

A session is what events name in their metadata key `session`. Its numbers are those of its events in the range; who is
active now is known by the aggregator (active_sessions.py), a moment before its events are on disk.
"""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from anyio import to_thread

from vibezen.metrics import session_sql
from vibezen.metrics.active_sessions import SESSION
from vibezen.metrics.catalogue import MetricType
from vibezen.metrics.committed import Snapshot, hours_of
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event import MIN_TS
from vibezen.metrics.event_reader import EventReader, StepRow
from vibezen.metrics.event_sql import Condition, Wanted
from vibezen.metrics.question import (
    MAX_TS,
    Parameters,
    parse_number,
    parse_range,
    parse_where,
    parse_zone,
    single,
)
from vibezen.metrics.session_sql import After
from vibezen.metrics.settings import Width
from vibezen.metrics.steps import plan
from vibezen.metrics.window_reader import Number
from vibezen.metrics.zone import Zone

PARAMETERS: Final = ("from", "to", "tz", "project", "agent", "where", "limit", "cursor")
RANGE: Final = ("from", "to", "tz")
DEFAULT_RANGE: Final = "now-24h"
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
ACTIVE_SECONDS: Final = 900.0
"""A session is active for so long after its newest event: people think between two calls."""
MAX_ID: Final = 1024
"""Characters that the value of a metadata key may have."""
MAX_MODELS: Final = 100
"""Models of a session that are told, those with most events."""
_MAX_CURSOR: Final = 10_000

Seen = Mapping[str, float]
"""Active session → Unix seconds of its newest event."""


class Session(msgspec.Struct):
    """`active`: an event came in the last 15 minutes; null while Redis does not tell. `first` and `last` in Unix
    seconds. `events`: lines. Null is a number of which there is no event. `errors`: model calls and blocks that failed.
    Of providers and the like up to ten are told."""

    id: str
    active: bool | None
    first: float
    last: float
    events: int
    tokens: Number
    cost: Number
    response_time_p95: Number
    errors: Number
    providers: list[str]
    models: list[str]
    projects: list[str]
    agents: list[str]


class Sessions(msgspec.Struct):
    """[from, to) in Unix seconds. `next`: cursor of what follows; null when there is no more."""

    since: float = msgspec.field(name="from")
    to: float = msgspec.field()
    sessions: list[Session] = msgspec.field()
    next: str | None = msgspec.field()


class MetricTotal(msgspec.Struct):
    """One metric of a session. The percentiles are null where lines stand for several samples."""

    count: Number
    sum: Number
    mean: Number
    min: Number
    max: Number
    p50: Number
    p95: Number
    last: float


class ModelTotal(msgspec.Struct):
    """What a session did with one model; null where nothing was recorded."""

    provider: str | None
    model: str | None
    events: int
    tokens: Number
    cost: Number
    errors: Number


class Moment(msgspec.Struct):
    """One step of a session's timeline, from `at` on in Unix seconds."""

    at: int
    events: int
    tokens: Number
    cost: Number
    errors: Number


class Detail(msgspec.Struct):
    """One session. `timeline`: steps of `step` seconds in which something happened. `more_models`: how many models are
    not told."""

    since: float = msgspec.field(name="from")
    to: float = msgspec.field()
    session: Session = msgspec.field()
    metrics: dict[str, MetricTotal] = msgspec.field()
    models: list[ModelTotal] = msgspec.field()
    more_models: int = msgspec.field()
    step: int = msgspec.field()
    timeline: list[Moment] = msgspec.field()


class Asked(msgspec.Struct, frozen=True):
    """`zone`: of the steps of a timeline."""

    wanted: Wanted
    limit: int
    after: After | None
    zone: Zone


def parse_sessions(parameters: Parameters, now: float) -> Asked:
    """Raises BadParameter."""
    texts = single(parameters, PARAMETERS)
    since, until = parse_range(texts, now, DEFAULT_RANGE)
    named = [Condition(key, texts[key]) for key in ("project", "agent") if texts.get(key)]
    for condition in named:
        parse_where(f"{condition.key}={condition.value}", condition.key)
    return Asked(
        wanted=Wanted(since, until, where=(*named, *parse_where(parameters.get("where", ())))),
        limit=parse_number("limit", texts.get("limit"), DEFAULT_LIMIT, MAX_LIMIT),
        after=_after(texts["cursor"]) if texts.get("cursor") else None,
        zone=parse_zone(texts.get("tz")),
    )


def parse_session(session: str, parameters: Parameters, now: float) -> Asked:
    """One session by its name. Raises BadParameter."""
    texts = single(parameters, RANGE)
    since, until = parse_range(texts, now, DEFAULT_RANGE)
    return Asked(Wanted(since, until, where=(Condition(SESSION, session),)), 1, None, parse_zone(texts.get("tz")))


def _cursor(session: Session) -> str:
    told = msgspec.json.encode((bool(session.active), session.last, session.id))
    return base64.urlsafe_b64encode(told).decode().rstrip("=")


def _after(cursor: str) -> After:
    try:
        if len(cursor) > _MAX_CURSOR:
            raise ValueError
        told = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        active, last, session = msgspec.json.decode(told, type=tuple[bool, float, str])
        session.encode()
        if not MIN_TS <= last < MAX_TS:
            raise ValueError
    except (ValueError, msgspec.MsgspecError):
        raise BadParameter("cursor", "expected what an earlier answer gave as `next`") from None
    return After(active, last, session)


async def sessions(reader: EventReader, asked: Asked, seen: Seen | None) -> Sessions:
    """`seen`: None where nobody can tell. Raises StoreError when files cannot be read."""
    ask = partial(_sessions, reader, asked, seen)
    found = await to_thread.run_sync(reader.ask, ask, hours_of(asked.wanted.since, asked.wanted.until))
    more = len(found) > asked.limit
    page = found[: asked.limit]
    return Sessions(asked.wanted.since, asked.wanted.until, page, _cursor(page[-1]) if more else None)


def _sessions(reader: EventReader, asked: Asked, seen: Seen | None, snapshot: Snapshot) -> list[Session]:
    """One more than are asked for, where there are as many."""
    wanted = asked.wanted
    active, unstored = dict(seen or {}), not wanted.where
    if wanted.where and (name := _named(wanted)) is not None:
        active = {name: active[name]} if name in active else {}
        unstored = bool(active)
    files = snapshot.files(snapshot.hours())
    rows = reader.rows(
        files,
        lambda reading: session_sql.sessions(reading, wanted, active, asked.after, asked.limit + 1, unstored=unstored),
    )
    odd = [row[0] for row in rows if row[8]]
    exact: dict[str, float] = {}
    if odd:
        exact = dict(reader.rows(files, lambda reading: session_sql.weighted_p95(reading, wanted, odd)))
    return [_session(row, exact, seen is not None) for row in rows]


def _named(wanted: Wanted) -> str | None:
    """The one session that is asked for."""
    conditions = list(wanted.where)
    is_one = len(conditions) == 1 and conditions[0].key == SESSION and not conditions[0].negated
    return conditions[0].value if is_one else None


def _session(row: Sequence[Any], exact: Mapping[str, float], known: bool) -> Session:
    session, active, first, last, lines, tokens, cost, p95, _, errors, *names = row
    providers, models, projects, agents = (list(one or ()) for one in names)
    return Session(
        id=session,
        active=active if known else None,
        first=first,
        last=last,
        events=lines,
        tokens=tokens,
        cost=cost,
        response_time_p95=exact.get(session, p95),
        errors=errors,
        providers=providers,
        models=models,
        projects=projects,
        agents=agents,
    )


async def session(
    reader: EventReader, asked: Asked, seen: Seen | None, widths: Sequence[Width], now: float
) -> Detail | None:
    """None where the range has no event of it, and it is not active. Raises StoreError when files cannot be read."""
    ask = partial(_detail, reader, asked, seen, widths, now)
    return await to_thread.run_sync(reader.ask, ask, hours_of(asked.wanted.since, asked.wanted.until))


def _detail(
    reader: EventReader, asked: Asked, seen: Seen | None, widths: Sequence[Width], now: float, snapshot: Snapshot
) -> Detail | None:
    found = _sessions(reader, asked, seen, snapshot)
    if not found:
        return None
    one = found[0]
    hours = hours_of(one.first, math.nextafter(one.last, math.inf))
    files = snapshot.files([hour for hour in snapshot.hours() if hour in hours])
    steps = plan(widths, one.first, math.nextafter(one.last, math.inf), now, None, asked.zone)
    by_metric = reader.steps(files, asked.wanted, None, (), (0.5, 0.95))
    by_model = reader.steps(files, asked.wanted, None, ("provider", "model"), lasts=False)
    by_step = reader.steps(files, asked.wanted._replace(since=max(asked.wanted.since, steps.start)), steps, lasts=False)
    models = _by(by_model, lambda row: row.labels)
    models.pop((None, None), None)
    shown = sorted(models.items(), key=lambda item: (-_lines(item[1]), item[0][0] or "", item[0][1] or ""))
    return Detail(
        since=asked.wanted.since,
        to=asked.wanted.until,
        session=one,
        metrics={row.metric: _total(row) for row in sorted(by_metric, key=lambda row: row.metric)},
        models=[
            ModelTotal(provider, model, _lines(rows), *_sums(rows)) for (provider, model), rows in shown[:MAX_MODELS]
        ],
        more_models=max(0, len(shown) - MAX_MODELS),
        step=steps.step,
        timeline=[Moment(at, _lines(rows), *_sums(rows)) for at, rows in sorted(_by(by_step, _start).items())],
    )


def _start(row: StepRow) -> int:
    return row.start


def _by(rows: Sequence[StepRow], key: Callable[[StepRow], Any]) -> dict[Any, list[StepRow]]:
    found: dict[Any, list[StepRow]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _lines(rows: Sequence[StepRow]) -> int:
    return sum(row.lines for row in rows)


def _sums(rows: Sequence[StepRow]) -> tuple[Number, Number, Number]:
    """Tokens, cost and errors."""
    sums = {row.metric: row.window.sum for row in rows}
    return sums.get(MetricType.TOKENS), sums.get(MetricType.COST), sums.get(MetricType.ERROR_RATE)


def _total(row: StepRow) -> MetricTotal:
    window = row.window
    p50, p95 = row.quantiles or (None, None)
    return MetricTotal(window.count, window.sum, window.mean, window.min, window.max, p50, p95, window.last_ts)
