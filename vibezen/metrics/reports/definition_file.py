"""The file of a definition: read and checked before anything is asked.

A mistake is one line with file, place, value and what was expected.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from vibezen.metrics.catalogue import Better
from vibezen.metrics.errors import BadParameter, ConfigError
from vibezen.metrics.event import is_name
from vibezen.metrics.question import MAX_GROUP_KEYS
from vibezen.metrics.reports import period, savings
from vibezen.metrics.reports.definition import (
    AGGS,
    GROUPED,
    MAX_NUMBERS,
    OVER_TIME,
    Asked,
    Definition,
    Per,
    Section,
    Show,
    aggs_of,
    conditions,
    numbers,
    several,
)
from vibezen.metrics.settings import Settings

MAX_BYTES: Final = 256 * 1024
"""Of a definition's file: the largest built-in one has 5 KB."""


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
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also: a date that no calendar has
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


def _check(definition: Definition, where: str, settings: Settings) -> None:
    """What types cannot say."""
    if not period.is_period(definition.period):
        raise ConfigError(f"{where}: period = {definition.period[:50]!r}: expected {period.EXPECTED}")
    for index, section in enumerate(definition.sections):
        _check_section(section, f"{where}: sections[{index}]", settings)


def _check_section(section: Section, where: str, settings: Settings) -> None:
    labels = several(section.group_by)
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
    show, grouped = section.show, bool(several(section.group_by))
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
    for agg in aggs_of(asked.agg, asked.metric, settings):
        _check_agg(agg, f"{where}.agg")
        if asked.metric == savings.METRIC and agg != "sum":
            raise ConfigError(f"{where}.agg = {agg!r}: {savings.METRIC} has a sum alone")
    _check_condition(asked.where, where)
    if asked.per is not None:
        _check_metric(asked.per.metric, f"{where}.per")
        _check_agg(aggs_of(asked.per.agg, asked.per.metric, settings)[0], f"{where}.per.agg")
        _check_condition(asked.per.where, f"{where}.per")


def _check_metric(metric: str, where: str) -> None:
    if not is_name(metric):
        raise ConfigError(f"{where}.metric = {metric[:100]!r}: expected a metric's name, such as response_time")


def _check_agg(agg: str, where: str) -> None:
    if agg not in AGGS:
        raise ConfigError(f"{where} = {agg[:100]!r}: expected one of {', '.join(AGGS)}")


def _check_condition(given: str | tuple[str, ...], where: str) -> None:
    try:
        conditions(given)
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
