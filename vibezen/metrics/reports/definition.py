"""What a report is made of, as its YAML file says it: sections, each a query and how it is shown."""

from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from vibezen.metrics.catalogue import Better
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.question import parse_where
from vibezen.metrics.reports import savings
from vibezen.metrics.reports.units import unit_of
from vibezen.metrics.settings import Settings
from vibezen.metrics.window_reader import AGGREGATES, DEFAULT_AGGREGATE, HISTOGRAM

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
SPEAKING: Final = ("sum", "mean")
"""Aggregates that need no mention: a metric's name alone says what the number is."""


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
        return several(section.group_by)


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


def numbers(section: Section, settings: Settings) -> tuple[Number, ...]:
    """The section's numbers, one per aggregate. The definition has been checked."""
    return tuple(
        _number(section, asked, agg, settings)
        for asked in section.numbers
        for agg in aggs_of(asked.agg, asked.metric, settings)
    )


def _number(section: Section, asked: Asked, agg: str, settings: Settings) -> Number:
    catalogue, everywhere = savings.catalogue(settings), conditions(section.where)
    of, per = Reading(asked.metric, agg, conditions(asked.where) + everywhere), None
    if asked.per is not None:
        under = asked.per
        per_agg = aggs_of(under.agg, under.metric, settings)[0]
        per = Reading(under.metric, per_agg, conditions(under.where) + everywhere)
    several_aggs = len(aggs_of(asked.agg, asked.metric, settings)) > 1
    name = asked.name or _name(asked.metric)
    if several_aggs or (asked.name is None and agg not in SPEAKING):
        name = f"{name}, {agg}"
    better = asked.better if asked.better is not None else catalogue[asked.metric].better
    return Number(name, of, per, unit_of(of, per, catalogue), better)


def unknown_metrics(definition: Definition, settings: Settings) -> list[str]:
    """Metrics that nothing declares: they may be recorded all the same, or be misspelt."""
    catalogue = savings.catalogue(settings)
    asked = [number for section in definition.sections for number in section.numbers]
    named = [one.metric for one in asked] + [one.per.metric for one in asked if one.per is not None]
    return [metric for metric in dict.fromkeys(named) if metric not in catalogue]


def unknown_labels(definition: Definition, settings: Settings) -> list[str]:
    """Keys to group by that are no labels: only events know them, or they are misspelt."""
    named = [key for section in definition.sections for key in several(section.group_by)]
    return [key for key in dict.fromkeys(named) if key not in settings.aggregation.labels]


def _name(metric: str) -> str:
    words = metric.replace("_", " ").replace(".", " ")
    return words[:1].upper() + words[1:]


def several(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


def aggs_of(given: str | tuple[str, ...] | None, metric: str, settings: Settings) -> tuple[str, ...]:
    return several(given) if given else (DEFAULT_AGGREGATE[savings.catalogue(settings)[metric].kind],)


def conditions(given: str | tuple[str, ...]) -> tuple[Condition, ...]:
    return parse_where(list(several(given)))
