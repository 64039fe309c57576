"""What a report is made of, as its YAML file says it: sections, each a query and how it is shown."""

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import yaml
from msgspec import Meta

from vibezen.metrics.catalogue import Better
from vibezen.metrics.config import Settings
from vibezen.metrics.errors import BadParameter, ConfigError
from vibezen.metrics.event import is_name
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.question import MAX_GROUP_KEYS, parse_where
from vibezen.metrics.reports import period, savings
from vibezen.metrics.reports.units import unit_of
from vibezen.metrics.window_reader import AGGREGATES, DEFAULT_AGGREGATE, HISTOGRAM

MAX_BYTES: Final = 256 * 1024
"""Of a definition's file: the largest built-in one has 5 KB."""
MAX_SECTIONS: Final = 50
MAX_NUMBERS: Final = 30
AGGS: Final = tuple(name for name in AGGREGATES if name != HISTOGRAM)
"""Those that are a number each."""

Text = Annotated[str, Meta(max_length=2000)]
Name = Annotated[str, Meta(min_length=1, max_length=120)]


class Show(StrEnum):
    """How a section is shown."""

    TEXT = "text"
    FIGURES = "figures"
    """One number each, large, against the period before."""
    LINES = "lines"
    """A chart over time, a line per number or group."""
    COLUMNS = "columns"
    """A chart over time, stacked: numbers or groups that add up."""
    BARS = "bars"
    """A bar per group, the largest first."""
    TABLE = "table"
    """A row per group, a column per number."""
    DAYS = "days"
    """A row per number, a column per day; per week or month where the period is long."""
    CHANGES = "changes"
    """In words: what got better, worse, or stayed as it was."""


OVER_TIME: Final = (Show.LINES, Show.COLUMNS)
GROUPED: Final = (Show.BARS, Show.TABLE)
ADDITIVE: Final = ("sum", "count")


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the file. Unknown keys are errors, since a misspelt one would silently do nothing."""


class Per(_Part, frozen=True, kw_only=True):
    """What a number is divided by: cost per call is the sum of `cost` per sum of `api_calls`."""

    metric: str
    agg: str | None = None
    where: str | tuple[str, ...] = ()


class Asked(_Part, frozen=True, kw_only=True):
    """One number; several where `agg` names several. Without `agg` what suits the metric's kind."""

    metric: str
    agg: str | tuple[str, ...] | None = None
    name: Name | None = None
    where: str | tuple[str, ...] = ()
    per: Per | None = None
    better: Better | None = None


class Section(_Part, frozen=True, kw_only=True):
    """`top`: groups shown at most. `where` holds for every number of the section."""

    title: Name
    text: Text = ""
    show: Show = Show.TEXT
    numbers: Annotated[tuple[Asked, ...], Meta(max_length=MAX_NUMBERS)] = ()
    group_by: str | tuple[str, ...] = ()
    where: str | tuple[str, ...] = ()
    top: Annotated[int, Meta(ge=1, le=100)] = 10


class Definition(_Part, frozen=True, kw_only=True):
    """`period`: taken where none is asked for."""

    title: Name
    text: Text = ""
    period: str = "7d"
    sections: Annotated[tuple[Section, ...], Meta(min_length=1, max_length=MAX_SECTIONS)]

    def group_by(self, section: Section) -> tuple[str, ...]:
        return _several(section.group_by)


class Reading(msgspec.Struct, frozen=True):
    """An aggregate of one metric, under conditions."""

    metric: str
    agg: str
    where: tuple[Condition, ...] = ()


class Number(msgspec.Struct, frozen=True):
    """A number as it is shown. `per`: what it is divided by. `unit`: see units.py."""

    name: str
    of: Reading
    per: Reading | None
    unit: str
    better: Better

    @property
    def adds_up(self) -> bool:
        """Whether the numbers of groups, or of days, make the number of all."""
        return self.per is None and self.of.agg in ADDITIVE


def read(path: Path, settings: Settings) -> Definition:
    """The definition in a file. Raises ConfigError: one line with file, place, value and what was expected."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{path}: more than {MAX_BYTES // 1024} KB; a definition is short")
    return parse(text, str(path), settings)


def parse(text: str | bytes, where: str, settings: Settings) -> Definition:
    """The definition in `text`; `where` names it in errors. Raises ConfigError."""
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise ConfigError(f"{where}: {at}not valid YAML: {reason}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected a mapping with `title` and `sections`")
    try:
        definition = msgspec.convert(tree, Definition)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_explain(str(error), tree)}") from None
    _check(definition, where, settings)
    return definition


def numbers(section: Section, settings: Settings) -> tuple[Number, ...]:
    """The section's numbers, one per aggregate. The definition has been checked."""
    found = []
    for asked in section.numbers:
        aggs = _aggs(asked.agg, asked.metric, settings)
        for agg in aggs:
            of = Reading(asked.metric, agg, _where(asked.where) + _where(section.where))
            per = None
            if asked.per is not None:
                per_agg = _aggs(asked.per.agg, asked.per.metric, settings)[0]
                per = Reading(asked.per.metric, per_agg, _where(asked.per.where) + _where(section.where))
            spec = savings.catalogue(settings)[asked.metric]
            better = asked.better if asked.better is not None else spec.better
            named = asked.name or _name(asked.metric)
            name = f"{named}, {agg}" if len(aggs) > 1 or (asked.name is None and not _speaks(agg)) else named
            found.append(Number(name, of, per, unit_of(of, per, savings.catalogue(settings)), better))
    return tuple(found)


def unknown_metrics(definition: Definition, settings: Settings) -> list[str]:
    """Metrics that nothing declares: they may be recorded all the same, or be misspelt."""
    catalogue = savings.catalogue(settings)
    asked = [number for section in definition.sections for number in section.numbers]
    named = [one.metric for one in asked] + [one.per.metric for one in asked if one.per is not None]
    return [metric for metric in dict.fromkeys(named) if metric not in catalogue]


def unknown_labels(definition: Definition, settings: Settings) -> list[str]:
    """Keys to group by that are no labels: only events know them, or they are misspelt."""
    named = [key for section in definition.sections for key in _several(section.group_by)]
    return [key for key in dict.fromkeys(named) if key not in settings.aggregation.labels]


def _speaks(agg: str) -> bool:
    """Whether a metric's name alone says what the number is."""
    return agg in ("sum", "mean")


def _name(metric: str) -> str:
    words = metric.replace("_", " ").replace(".", " ")
    return words[:1].upper() + words[1:]


def _several(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


def _aggs(given: str | tuple[str, ...] | None, metric: str, settings: Settings) -> tuple[str, ...]:
    return _several(given) if given else (DEFAULT_AGGREGATE[savings.catalogue(settings)[metric].kind],)


def _where(given: str | tuple[str, ...]) -> tuple[Condition, ...]:
    return parse_where(list(_several(given)))


def _check(definition: Definition, where: str, settings: Settings) -> None:
    """What types cannot say."""
    if not period.is_period(definition.period):
        raise ConfigError(f"{where}: period = {definition.period[:50]!r}: expected {period.EXPECTED}")
    for index, section in enumerate(definition.sections):
        _check_section(section, f"{where}: sections[{index}]", settings)


def _check_section(section: Section, where: str, settings: Settings) -> None:
    labels = _several(section.group_by)
    if len(labels) > MAX_GROUP_KEYS:
        raise ConfigError(f"{where}.group_by: expected at most {MAX_GROUP_KEYS} keys")
    for label in labels:
        if not is_name(label):
            raise ConfigError(f"{where}.group_by = {label[:100]!r}: expected a metadata key, such as provider")
    if len(set(labels)) != len(labels):
        raise ConfigError(f"{where}.group_by: a key is there twice")
    for index, asked in enumerate(section.numbers):
        _check_number(asked, f"{where}.numbers[{index}]", settings)
    _check_condition(section.where, where)
    _check_shape(section, where, settings)


def _check_shape(section: Section, where: str, settings: Settings) -> None:
    show, grouped = section.show, bool(_several(section.group_by))
    if show is Show.TEXT:
        if section.numbers or not section.text:
            raise ConfigError(f"{where}.show = 'text': expected `text` and no `numbers`")
        return
    if not section.numbers:
        raise ConfigError(f"{where}.numbers: expected at least one number, `show` is {show.value!r}")
    if grouped and show not in (*OVER_TIME, *GROUPED):
        raise ConfigError(
            f"{where}.group_by: {show.value!r} shows no groups; expected show lines, columns, bars or table"
        )
    if not grouped and show in GROUPED:
        raise ConfigError(f"{where}.group_by: expected at least one label, `show` is {show.value!r}")
    found = numbers(section, settings)
    if len(found) > MAX_NUMBERS:
        raise ConfigError(f"{where}.numbers: {len(found)} numbers; expected at most {MAX_NUMBERS}")
    if len(found) > 1 and (show is Show.BARS or (grouped and show in OVER_TIME)):
        raise ConfigError(f"{where}.numbers: expected one number, as each group gets a line or bar of its own")
    if show in OVER_TIME and len({number.unit for number in found}) > 1:
        units = ", ".join(sorted({number.unit for number in found}))
        raise ConfigError(f"{where}.numbers: units {units} in one chart; expected one unit")
    if show is Show.COLUMNS and not all(number.adds_up for number in found):
        raise ConfigError(f"{where}.numbers: columns are stacked; expected agg sum or count, without `per`")


def _check_number(asked: Asked, where: str, settings: Settings) -> None:
    _check_metric(asked.metric, where)
    if asked.agg == ():
        raise ConfigError(f"{where}.agg: expected at least one of {', '.join(AGGS)}")
    for agg in _aggs(asked.agg, asked.metric, settings):
        _check_agg(agg, f"{where}.agg")
        if asked.metric == savings.METRIC and agg != "sum":
            raise ConfigError(f"{where}.agg = {agg!r}: {savings.METRIC} has a sum alone")
    _check_condition(asked.where, where)
    if asked.per is not None:
        _check_metric(asked.per.metric, f"{where}.per")
        _check_agg(_aggs(asked.per.agg, asked.per.metric, settings)[0], f"{where}.per.agg")
        _check_condition(asked.per.where, f"{where}.per")


def _check_metric(metric: str, where: str) -> None:
    if not is_name(metric):
        raise ConfigError(f"{where}.metric = {metric[:100]!r}: expected a metric's name, such as response_time")


def _check_agg(agg: str, where: str) -> None:
    if agg not in AGGS:
        raise ConfigError(f"{where} = {agg[:100]!r}: expected one of {', '.join(AGGS)}")


def _check_condition(given: str | tuple[str, ...], where: str) -> None:
    try:
        _where(given)
    except BadParameter as error:
        raise ConfigError(f"{where}.where: {error.reason}") from None


_KINDS: Final[Sequence[tuple[re.Pattern[str], type]]] = (
    (re.compile(r"sections\[\d+\]\.numbers\[\d+\]\.per\Z"), Per),
    (re.compile(r"sections\[\d+\]\.numbers\[\d+\]\Z"), Asked),
    (re.compile(r"sections\[\d+\]\Z"), Section),
    (re.compile(r"\Z"), Definition),
)


def _explain(message: str, tree: dict[str, Any]) -> str:
    """msgspec's words, with the place, the value that stands there, and what is known."""
    if " - at `key` in `$" in message:
        return "every key must be text; put quotes around it"
    reason, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    place = f"{path}." if path else ""
    if unknown := re.search(r"unknown field `(.+)`", reason):
        kind = next(kind for pattern, kind in _KINDS if pattern.match(path))
        fields = ", ".join(field.name for field in msgspec.structs.fields(kind))
        return f"{place}{unknown[1][:100]}: unknown key; known are {fields}"
    if missing := re.search(r"missing required field `(.+)`", reason):
        return f"{place}{missing[1]}: missing"
    value: Any = tree
    for part in filter(None, re.split(r"\.|\[|\]", path)):
        value = value[int(part)] if isinstance(value, list) else value.get(part) if isinstance(value, dict) else value
    if "enum" in reason:
        known = Better if path.endswith("better") else Show
        reason = f"expected one of {', '.join(known)}"
    shown = "its value" if isinstance(value, dict | list) else repr(value)[:100]
    return f"{path} = {shown}: {reason[:1].lower()}{reason[1:]}"
