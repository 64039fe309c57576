"""What may be asked about the past: parameters into a checked question, or a BadParameter that names one."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from vibezen.metrics.config import Settings
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event import MIN_TS, is_name
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.steps import Plan, plan
from vibezen.metrics.window_reader import AGGREGATES, DEFAULT_AGGREGATE

PARAMETERS: Final = ("metric", "from", "to", "step", "group_by", "agg", "where", "exact")
MAX_CONDITIONS: Final = 32
"""As many as an event may have metadata keys."""
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
    """`plan` is the range asked for, rounded out to whole steps. `exact`: from the events themselves, whatever it
    costs."""

    metric: str
    plan: Plan
    group_by: tuple[str, ...]
    aggregates: tuple[str, ...]
    where: tuple[Condition, ...] = ()
    exact: bool = False


Parameters = Mapping[str, str | Sequence[str]]
"""As in an address; only `where` may be there more than once."""


def parse_question(parameters: Parameters, settings: Settings, now: float) -> Question:
    """Raises BadParameter."""
    texts = single(parameters, PARAMETERS)
    metric = parse_metric(texts.get("metric"))
    since, until = parse_range(texts, now, "now-1h")
    try:
        planned = plan(settings.aggregation.widths, since, until, now, _step(texts.get("step") or "auto"))
    except ValueError as error:
        raise BadParameter("step", str(error)) from None
    kind = settings.catalogue()[metric].kind
    return Question(
        metric=metric,
        plan=planned,
        group_by=_names("group_by", texts.get("group_by", ""), settings.aggregation.labels),
        aggregates=_names("agg", texts.get("agg", ""), AGGREGATES) or (DEFAULT_AGGREGATE[kind],),
        where=parse_where(parameters.get("where", ())),
        exact=parse_switch("exact", texts.get("exact", "false")),
    )


def single(parameters: Parameters, known: Sequence[str]) -> dict[str, str]:
    """The parameters that are given once; BadParameter for one that is not known or given twice."""
    texts: dict[str, str] = {}
    for name, given in parameters.items():
        if name not in known:
            raise BadParameter(name, f"unknown parameter; known are {', '.join(known)}")
        if name == "where":
            continue
        if not isinstance(given, str):
            if len(given) > 1:
                raise BadParameter(name, "given more than once")
            given = given[0] if given else ""
        texts[name] = given
    return texts


def parse_range(texts: Mapping[str, str], now: float, otherwise: str) -> tuple[float, float]:
    """`from` and `to` in Unix seconds. `otherwise`: where a range without `from` begins."""
    return parse_span({"from": texts.get("from") or otherwise, "to": texts.get("to") or "now"}, now)


def parse_span(texts: Mapping[str, str], now: float) -> tuple[float, float]:
    """`from` and `to` in Unix seconds; without them, everything that can be stored."""
    since = parse_time("from", texts["from"], now) if texts.get("from") else MIN_TS
    until = parse_time("to", texts["to"], now) if texts.get("to") else MAX_TS
    if since >= until:
        raise BadParameter("from", "the range is empty: `from` must lie before `to`")
    return since, until


def parse_where(given: str | Sequence[str]) -> tuple[Condition, ...]:
    """Conditions `key=value` and `key!=value`, all of which must hold."""
    texts = [given] if isinstance(given, str) else given
    if len(texts) > MAX_CONDITIONS:
        raise BadParameter("where", f"at most {MAX_CONDITIONS} conditions")
    return tuple(_condition(text) for text in texts if text)


def _condition(text: str) -> Condition:
    key, equals, value = text.partition("=")
    negated = key.endswith("!")
    key = key.removesuffix("!")
    if not equals or not is_name(key) or not _is_text(value):
        raise BadParameter("where", f"{text[:100]!r}: expected key=value or key!=value, with a metadata key")
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
