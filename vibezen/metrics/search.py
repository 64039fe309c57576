"""Single events: what `GET /api/events` and `vibezen-metrics tail` find."""

import math
import re
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Final

import msgspec
from anyio import to_thread

from vibezen.metrics.clock import HOUR, monotonic
from vibezen.metrics.committed import Snapshot, hours_of
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event import WHOLE
from vibezen.metrics.event_reader import EventReader, Line, Wanted
from vibezen.metrics.question import Parameters, parse_metric, parse_number, parse_range, parse_where, single

PARAMETERS: Final = ("metric", "from", "to", "tz", "where", "limit", "order", "cursor", "live")
MAX_EVENTS: Final = 1000
DEFAULT_EVENTS: Final = 100
SECONDS: Final = 5.0
"""After this long a search says how far it came; its cursor goes on from there."""
_CURSOR = re.compile(r"(\d{9,12}(?:\.\d{1,9})?):(\d{1,7})\Z")


JsonObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]


class Found(msgspec.Struct, omit_defaults=True):
    """An event as it stands on its line."""

    ts: float
    metric: str
    value: float
    sample_rate: float = WHOLE
    count: int = 1
    metadata: JsonObject = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))


class Events(msgspec.Struct):
    """`next`: cursor of what follows in the same order; null when there is no more."""

    events: list[Found]
    next: str | None


class Search(msgspec.Struct, frozen=True):
    """What is looked for, in order of time. `skip`: events at the very first time that were given before."""

    wanted: Wanted
    limit: int
    newest_first: bool = True
    skip: int = 0


def parse_search(parameters: Parameters, now: float) -> Search:
    """Raises BadParameter."""
    texts = single(parameters, PARAMETERS)
    since, until = parse_range(texts, now, "now-1h")
    metric = texts.get("metric")
    order = texts.get("order") or "newest"
    if order not in ("newest", "oldest"):
        raise BadParameter("order", "expected newest or oldest")
    wanted = Wanted(since, until, parse_metric(metric) if metric else None, parse_where(parameters.get("where", ())))
    limit = parse_number("limit", texts.get("limit"), DEFAULT_EVENTS, MAX_EVENTS)
    asked = Search(wanted, limit, order == "newest")
    return _from_cursor(asked, texts["cursor"]) if texts.get("cursor") else asked


def _from_cursor(asked: Search, cursor: str) -> Search:
    match = _CURSOR.match(cursor)
    if not match:
        raise BadParameter("cursor", "expected what an earlier answer gave as `next`")
    ts, wanted = float(match[1]), asked.wanted
    reached = (
        wanted._replace(until=min(wanted.until, math.nextafter(ts, math.inf)))
        if asked.newest_first
        else wanted._replace(since=max(wanted.since, ts))
    )
    return msgspec.structs.replace(asked, wanted=reached, skip=int(match[2]))


async def search(reader: EventReader, asked: Search) -> Events:
    """Raises StoreError when files cannot be read."""
    return await to_thread.run_sync(
        reader.ask, partial(_search, reader, asked), hours_of(asked.wanted.since, asked.wanted.until)
    )


def look(reader: EventReader, asked: Search) -> tuple[list[Found], Snapshot]:
    """What is found, for as long as it takes, and the state of the files it was found in. Raises StoreError."""

    def find(snapshot: Snapshot) -> tuple[list[Found], Snapshot]:
        found: list[Line] = []
        for _ in _hour_by_hour(reader, snapshot, asked, found) if asked.limit else ():
            pass
        return [_shown(line) for line in found], snapshot

    return reader.ask(find, hours_of(asked.wanted.since, asked.wanted.until))


def _hour_by_hour(reader: EventReader, snapshot: Snapshot, asked: Search, found: list[Line]) -> Iterator[int]:
    """Add events to `found` until there are enough, so that the newest hundred of a year cost one hour's reading;
    yields each hour that is read through."""
    skip = asked.skip  # what was given before lies at the very beginning
    for hour in _hours(snapshot, asked):
        left = asked.limit - len(found)
        found += reader.lines(snapshot.files([hour]), asked.wanted, left, skip, newest_first=asked.newest_first)
        skip = 0
        if len(found) == asked.limit:
            return
        yield hour


def _search(reader: EventReader, asked: Search, snapshot: Snapshot) -> Events:
    deadline = monotonic() + SECONDS
    found: list[Line] = []
    following = None
    for hour in _hour_by_hour(reader, snapshot, asked, found):
        if monotonic() > deadline:
            edge = math.nextafter(hour, -math.inf) if asked.newest_first else float(hour + HOUR)
            following = f"{edge!r}:0"
            break
    if len(found) == asked.limit:
        following = _cursor(found, asked)
    return Events(list(map(_shown, found)), following)


def _hours(snapshot: Snapshot, asked: Search) -> list[int]:
    hours = [hour for hour in snapshot.hours() if asked.wanted.since - HOUR < hour < asked.wanted.until]
    return hours[::-1] if asked.newest_first else hours


def _cursor(found: list[Line], asked: Search) -> str:
    """The last event's time, and how many of that time have been given."""
    ts = found[-1].ts
    given = sum(line.ts == ts for line in found)
    first = asked.wanted.until if asked.newest_first else asked.wanted.since
    if given == len(found) and (ts == first or math.nextafter(ts, math.inf) == first):
        given += asked.skip  # the same time as where this search began
    return f"{ts!r}:{given}"


def _shown(line: Line) -> Found:
    metadata = msgspec.Raw(line.metadata.encode() if line.metadata else b"{}")
    rate = WHOLE if line.sample_rate == WHOLE else line.sample_rate  # the encoder leaves out this very object only
    return Found(line.ts, line.metric, line.value, rate, line.samples, metadata)
