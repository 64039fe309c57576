"""What `GET /api/metrics/history` is asked: parameters into a checked question, or a BadParameter that names one."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from vibezen.metrics.config import Settings
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event import MIN_TS, is_name
from vibezen.metrics.window_reader import AGGREGATES, DEFAULT_AGGREGATE, Plan, plan

PARAMETERS: Final = ("metric", "from", "to", "step", "group_by", "agg")
MAX_TS: Final = 253_402_300_800.0
"""The year 10000 in Unix seconds."""
_MILLISECONDS: Final = 1e11
"""A number above this is milliseconds: as seconds it would be the year 5138."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_RELATIVE = re.compile(r"now(?:-(\d{1,9})([smhdw]))?\Z")
_NUMBER = re.compile(r"\d{1,16}(?:\.\d{1,9})?\Z")
_STEP = re.compile(r"(\d{1,9})([smhdw]?)\Z")
_LOST_PLUS = re.compile(r"(:\d\d(?:\.\d+)?) (\d\d:?\d\d)\Z")
_TIMES: Final = "now, now-1h, ISO 8601 or Unix seconds"


class Question(msgspec.Struct, frozen=True):
    """`until` is where the range asked for ends; `plan` rounds it up to whole steps."""

    metric: str
    plan: Plan
    group_by: tuple[str, ...]
    aggregates: tuple[str, ...]


def parse_question(parameters: Mapping[str, str], settings: Settings, now: float) -> Question:
    """Raises BadParameter."""
    for name in parameters:
        if name not in PARAMETERS:
            raise BadParameter(name, f"unknown parameter; known are {', '.join(PARAMETERS)}")
    metric = _metric(parameters.get("metric"))
    since = parse_time("from", parameters.get("from") or "now-1h", now)
    until = parse_time("to", parameters.get("to") or "now", now)
    if since >= until:
        raise BadParameter("from", "the range is empty: `from` must lie before `to`")
    step = _step(parameters.get("step") or "auto")
    try:
        planned = plan(settings.aggregation.widths, since, until, now, step)
    except ValueError as error:
        raise BadParameter("step", str(error)) from None
    kind = settings.catalogue()[metric].kind
    return Question(
        metric=metric,
        plan=planned,
        group_by=_names("group_by", parameters.get("group_by", ""), settings.aggregation.labels),
        aggregates=_names("agg", parameters.get("agg", ""), AGGREGATES) or (DEFAULT_AGGREGATE[kind],),
    )


def _metric(text: str | None) -> str:
    if not text:
        raise BadParameter("metric", "which metric? For example metric=response_time")
    if not is_name(text):
        raise BadParameter("metric", "not a metric name")
    return text


def parse_time(field: str, text: str, now: float) -> float:
    """Unix seconds of `now-15m`, ISO 8601 (UTC where it names no zone), or epoch seconds or milliseconds."""
    if match := _RELATIVE.match(text):
        amount, unit = match.groups()
        found = now - int(amount) * _UNITS[unit] if unit else now
    elif _NUMBER.match(text):
        found = float(text)
        found = found / 1000 if found >= _MILLISECONDS else found
    else:
        found = _iso(field, text)
    if not MIN_TS <= found < MAX_TS:
        raise BadParameter(field, "expected a time between the years 2000 and 9999")
    return found


def _iso(field: str, text: str) -> float:
    try:
        # A plus sign that was not escaped in the address arrives as a space.
        when = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text))
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
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


def _names(field: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise BadParameter(field, f"unknown: {name[:100]!r}; known are {', '.join(known)}")
    return names
