"""What may be asked about the past: parameters into a checked question, or a BadParameter that names one."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from vibezen.metrics.clock import DAY
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event import MIN_TS, is_name
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.settings import Settings
from vibezen.metrics.steps import Plan, plan
from vibezen.metrics.window_reader import AGGREGATES, DEFAULT_AGGREGATE
from vibezen.metrics.zone import UTC_ZONE, Zone, zone_of

PARAMETERS: Final = ("metric", "from", "to", "tz", "step", "group_by", "top", "agg", "where", "exact")
REPEATED: Final = ("where", "against_where")
"""Conditions, of which all must hold."""
MAX_GROUP_KEYS: Final = 8
MAX_TOP: Final = 1000
MAX_CONDITIONS: Final = 32
"""As many as an event may have metadata keys."""
MAX_TS: Final = 253_402_300_800.0
"""The year 10000 in Unix seconds."""
_MILLISECONDS: Final = 1e11
"""A number above this is milliseconds: as seconds it would be the year 5138."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}
_RELATIVE = re.compile(r"now(?:-(\d{1,9})([smhdw]))?(?:/([mhdw]))?\Z")
_DAYS: Final = {"today": "now/d", "yesterday": "now-1d/d"}
_NUMBER = re.compile(r"\d{1,16}(?:\.\d{1,9})?\Z")
_STEP = re.compile(r"(\d{1,9})([smhdw]?)\Z")
_LOST_PLUS = re.compile(r"(:\d\d(?:\.\d+)?) (\d\d:?\d\d)\Z")
_TIMES: Final = "now, now-1h, now-1d/d, today, yesterday, ISO 8601 or Unix seconds"


class Question(msgspec.Struct, frozen=True):
    """`plan` is the range asked for, rounded out to whole steps. `exact`: from the events themselves, whatever it
    costs. `top`: of so many groups, those that weigh most; None: of all. `tz`: the zone that the steps are of."""

    metric: str
    plan: Plan
    group_by: tuple[str, ...]
    aggregates: tuple[str, ...]
    where: tuple[Condition, ...] = ()
    exact: bool = False
    top: int | None = None
    tz: str = UTC_ZONE.name


Parameters = Mapping[str, str | Sequence[str]]
"""As in an address; only those of REPEATED may be there more than once."""


def parse_question(parameters: Parameters, settings: Settings, now: float) -> Question:
    """Raises BadParameter."""
    texts = single(parameters, PARAMETERS)
    metric = parse_metric(texts.get("metric"))
    zone = parse_zone(texts.get("tz"))
    since, until = parse_range(texts, now, "now-1h")
    group_by = parse_keys(texts.get("group_by", ""))
    top = texts.get("top")
    if top and not group_by:
        raise BadParameter("top", "of which groups? Give group_by, too")
    step = _step(texts.get("step") or "auto")
    try:
        planned = plan(settings.aggregation.widths, since, until, now, step, zone)
    except ValueError as error:
        raise BadParameter("step", str(error)) from None
    kind = settings.catalogue()[metric].kind
    return Question(
        metric=metric,
        plan=planned,
        group_by=group_by,
        aggregates=_aggregates(texts.get("agg", "")) or (DEFAULT_AGGREGATE[kind],),
        where=parse_where(parameters.get("where", ())),
        exact=parse_switch("exact", texts.get("exact", "false")),
        top=parse_number("top", top, MAX_TOP, MAX_TOP) if top else None,
        tz=zone.name,
    )


def single(parameters: Parameters, known: Sequence[str]) -> dict[str, str]:
    """The parameters that are given once; BadParameter for one that is not known or given twice."""
    texts: dict[str, str] = {}
    for name, given in parameters.items():
        if name not in known:
            raise BadParameter(name, f"unknown parameter; known are {', '.join(known)}")
        if name in REPEATED:
            continue
        if not isinstance(given, str):
            if len(given) > 1:
                raise BadParameter(name, "given more than once")
            given = given[0] if given else ""
        texts[name] = given
    return texts


def parse_range(texts: Mapping[str, str], now: float, otherwise: str) -> tuple[float, float]:
    """`from` and `to` in Unix seconds, in the zone `tz`. `otherwise`: where a range without `from` begins."""
    given = {"from": texts.get("from") or otherwise, "to": texts.get("to") or "now"}
    return parse_span({**texts, **given}, now)


def parse_span(texts: Mapping[str, str], now: float) -> tuple[float, float]:
    """`from` and `to` in Unix seconds, in the zone `tz`; without them, everything that can be stored."""
    zone = parse_zone(texts.get("tz"))
    since = parse_time("from", texts["from"], now, zone) if texts.get("from") else MIN_TS
    until = parse_time("to", texts["to"], now, zone) if texts.get("to") else MAX_TS
    if since >= until:
        raise BadParameter("from", "the range is empty: `from` must lie before `to`")
    return since, until


def parse_zone(text: str | None) -> Zone:
    try:
        return zone_of(text) if text else UTC_ZONE
    except ValueError:
        raise BadParameter("tz", "no time zone; expected a name such as Europe/Berlin, or +05:30") from None


def parse_where(given: str | Sequence[str], field: str = "where") -> tuple[Condition, ...]:
    """Conditions `key=value` and `key!=value`, all of which must hold."""
    texts = [given] if isinstance(given, str) else given
    if len(texts) > MAX_CONDITIONS:
        raise BadParameter(field, f"at most {MAX_CONDITIONS} conditions")
    return tuple(_condition(text, field) for text in texts if text)


def _condition(text: str, field: str) -> Condition:
    key, equals, value = text.partition("=")
    negated = key.endswith("!")
    key = key.removesuffix("!")
    if not equals or not is_name(key) or not _is_text(value):
        raise BadParameter(field, f"{text[:100]!r}: expected key=value or key!=value, with a metadata key")
    return Condition(key, value, negated)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes of a command line that are no text
        return False
    return True


def parse_switch(field: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise BadParameter(field, "expected true or false")
    return text == "true"


def parse_number(field: str, text: str | None, otherwise: int, most: int) -> int:
    """A whole number from 1 to `most`."""
    if text is None or text == "":
        return otherwise
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise BadParameter(field, f"expected a whole number from 1 to {most}")
    return int(text)


def parse_metric(text: str | None) -> str:
    if not text:
        raise BadParameter("metric", "which metric? For example metric=response_time")
    if not is_name(text):
        raise BadParameter("metric", "not a metric name")
    return text


def parse_time(field: str, text: str, now: float, zone: Zone = UTC_ZONE) -> float:
    """Unix seconds of `now-15m`, `now-1d/d` (where that day began), ISO 8601 (of `zone` where it names none), or epoch
    seconds or milliseconds."""
    if match := _RELATIVE.match(_DAYS.get(text, text)):
        found = _relative(now, int(match[1] or 0), match[2] or "s", match[3], zone)
    elif _NUMBER.match(text):
        found = float(text)
        found = found / 1000 if found >= _MILLISECONDS else found
    else:
        found = _iso(field, text, zone)
    if not MIN_TS <= found < MAX_TS:
        raise BadParameter(field, "expected a time between the years 2000 and 9999")
    return found


def _relative(now: float, amount: int, unit: str, floor: str | None, zone: Zone) -> float:
    """Days and weeks are those of the calendar: a day before noon is noon, however long the night was."""
    found = now - amount * _UNITS[unit]
    if unit in "dw" and not zone.is_fixed and found >= MIN_TS:
        when = datetime.fromtimestamp(now, zone.rules).replace(tzinfo=None)
        found = zone.moment(when - timedelta(seconds=amount * _UNITS[unit]))
    if floor is None or found < MIN_TS:
        return found
    return plan((), found, math.nextafter(found, math.inf), now, _UNITS[floor], zone).step_of(found)


def _iso(field: str, text: str, zone: Zone) -> float:
    try:
        # A plus sign that was not escaped in the address arrives as a space.
        when = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text))
        return when.timestamp() if when.tzinfo else zone.moment(when)
    except (ValueError, OverflowError):
        raise BadParameter(field, f"not a time; expected {_TIMES}") from None


def _step(text: str) -> int | None:
    if text == "auto":
        return None
    match = _STEP.match(text)
    seconds = int(match[1]) * _UNITS[match[2] or "s"] if match else 0
    if not 1 <= seconds <= MAX_TS or not math.isfinite(seconds):
        raise BadParameter("step", "expected auto, or a length such as 60, 5m or 1h")
    return seconds


def _aggregates(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(_listed(text)))
    for name in names:
        if name not in AGGREGATES:
            raise BadParameter("agg", f"unknown: {name[:100]!r}; known are {', '.join(AGGREGATES)}")
    return names


def parse_keys(text: str) -> tuple[str, ...]:
    """Metadata keys to group by, with commas between them."""
    names = tuple(_listed(text))
    for name in names:
        if not is_name(name):
            raise BadParameter("group_by", f"{name[:100]!r} is no metadata key")
        if names.count(name) > 1:
            raise BadParameter("group_by", f"{name!r} is there more than once")
    if len(names) > MAX_GROUP_KEYS:
        raise BadParameter("group_by", f"at most {MAX_GROUP_KEYS} keys")
    return names


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
