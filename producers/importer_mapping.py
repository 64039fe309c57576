"""Which events a row gives: as options say it (`--event 'tokens={Generated},type=output'`), or a YAML file."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import yaml

from vibezen.metrics.errors import BadParameter, ConfigError, InvalidEvent
from vibezen.metrics.event import MAX_METADATA_KEYS, check_metadata, check_metric, check_value, is_name, shown
from vibezen.metrics.producers.importer_times import TIME_COLUMNS

Constant = str | int | float | bool

_CELL: Final = re.compile(r"\{([^{}]+)\}\Z")
_SCALED: Final = re.compile(r"(\{[^{}]+\})\s*(?:([*/])\s*([0-9.eE+-]+)\s*)?\Z", re.ASCII)
_PARTS: Final = re.compile(r"(?:\{[^{}]*\}|[^,{}])+")
"""Commas part; inside braces they belong to a column's name."""
_GRAMMAR: Final = "expected METRIC=VALUE[,key=value…], where {Column} stands for a column"
EVENT_FIELDS: Final = ("count", "sample_rate")
"""Keys of `--event` that are fields of the event, not metadata."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class EventMap(_Part, frozen=True):
    """One event per row. `{Column}` stands for a column, in `value` also `{Column}*1000` or `{Column}/1000`; anything
    else is a constant. Metadata here wins over that of `Mapping.set`."""

    metric: str
    value: Constant
    count: Constant | None = None
    sample_rate: Constant | None = None
    metadata: dict[str, Constant] = {}


class Mapping(_Part, frozen=True):
    """How a file is read, and what its rows become. Without `events` its rows are events of our own format."""

    time: str | None = None
    time_format: str = "auto"
    timezone: str = "UTC"
    ambiguous: str = "reject"
    delimiter: str | None = None
    encoding: str = "utf-8"
    columns: tuple[str, ...] = ()
    set: dict[str, Constant] = {}
    events: tuple[EventMap, ...] = ()


class Cell(NamedTuple):
    """A column, whose number is multiplied and divided by these, or, without one, a constant."""

    column: str | None
    constant: Constant = ""
    times: float = 1.0
    by: float = 1.0


class EventPlan(NamedTuple):
    """An `EventMap`, parsed. `fields`: those of EVENT_FIELDS that were given."""

    metric: Cell
    value: Cell
    fields: dict[str, Cell]
    metadata: dict[str, Cell]

    def cells(self) -> Iterator[Cell]:
        yield from (self.metric, self.value, *self.fields.values(), *self.metadata.values())


def parse_event(text: str) -> EventMap:
    """`METRIC=VALUE[,key=value…]`; raises BadParameter."""
    parts = _PARTS.findall(text)
    if ",".join(parts) != text or not parts:
        raise BadParameter("--event", f"{shown(text)}: {_GRAMMAR}")
    (metric, value), *rest = (_assignment("--event", part, text) for part in parts)
    given = dict(rest)
    fields: dict[str, Any] = {name: given.pop(name) for name in EVENT_FIELDS if name in given}
    return EventMap(metric, value, metadata={**given}, **fields)


def parse_set(texts: Iterable[str]) -> dict[str, Constant]:
    """`key=value` of `--set`; raises BadParameter."""
    return dict(_assignment("--set", text, text) for text in texts)


def _assignment(option: str, part: str, whole: str) -> tuple[str, str]:
    name, sign, value = part.partition("=")
    if part.startswith("{") and "}" in part:  # a column's name may hold "="
        name, sign, value = part[: part.index("}") + 1], part[part.index("}") + 1 :][:1], part[part.index("}") + 2 :]
    if sign != "=" or not name.strip():
        expected = _GRAMMAR if option == "--event" else "expected key=value"
        raise BadParameter(option, f"{shown(whole)}: {expected}")
    return name.strip(), value.strip()


def read_map(path: Path) -> Mapping:
    """The mapping in a YAML file; raises ConfigError naming file, key, value and what was expected."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{path}: {where}not valid YAML: {getattr(error, 'problem', None) or error}") from None
    try:
        mapping = msgspec.convert(tree, Mapping)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_explained(str(error), tree)}") from None
    try:
        plans(mapping)
    except BadParameter as bad:
        raise ConfigError(f"{path}: {bad}") from None
    return mapping


def _explained(message: str, tree: object) -> str:
    """msgspec's words, after the key and the value that stands there."""
    reason, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    value: Any = tree
    for part in filter(None, re.split(r"\.|\[|\]", path)):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
    if unknown := re.search(r"unknown field `(.+)`", reason):
        known = EventMap.__struct_fields__ if path.startswith("events") else Mapping.__struct_fields__
        return f"{path + '.' if path else ''}{unknown[1]}: unknown key; expected one of {', '.join(known)}"
    return f"{path or 'the file'} = {shown(value)}: {reason[:1].lower()}{reason[1:]}"


def plans(mapping: Mapping) -> list[EventPlan]:
    """The events of a mapping, checked as far as they can be without rows. Raises BadParameter naming the key."""
    return [_plan(f"events[{number}]", event, mapping.set) for number, event in enumerate(mapping.events)]


def _plan(where: str, event: EventMap, shared: dict[str, Constant]) -> EventPlan:
    metric = _cell(f"{where}.metric", event.metric)
    value = _number_cell(f"{where}.value", event.value)
    given = {name: getattr(event, name) for name in EVENT_FIELDS if getattr(event, name) is not None}
    fields = {name: _number_cell(f"{where}.{name}", text) for name, text in given.items()}
    metadata = {key: _cell(f"{where}.metadata.{key}", text) for key, text in {**shared, **event.metadata}.items()}
    try:
        if metric.column is None:
            check_metric(metric.constant)
        if value.column is None:
            check_value(value.constant)
        check_metadata({key: "" if cell.column else cell.constant for key, cell in metadata.items()})
    except InvalidEvent as bad:
        raise BadParameter(f"{where}.{bad.field}", bad.reason) from None
    return EventPlan(metric, value, fields, metadata)


def _cell(where: str, text: Constant) -> Cell:
    if isinstance(text, str) and (found := _CELL.match(text)):
        return Cell(found[1])
    if isinstance(text, str) and ("{" in text or "}" in text):
        raise BadParameter(where, f"{shown(text)}: expected one {{Column}} alone, or a constant without braces")
    return Cell(None, text)


def _number_cell(where: str, text: Constant) -> Cell:
    if isinstance(text, str) and (found := _SCALED.match(text)):
        factor = _number(where, found[3]) if found[3] else 1.0
        if not factor:
            raise BadParameter(where, f"{shown(text)}: scaling by nothing")
        return Cell(found[1][1:-1], "", factor if found[2] == "*" else 1.0, factor if found[2] == "/" else 1.0)
    if isinstance(text, bool):
        raise BadParameter(where, f"{shown(text)}: expected a number or {{Column}}")
    return Cell(None, _number(where, text))


def _number(where: str, text: str | int | float) -> int | float:
    with_fraction = isinstance(text, float) or not re.fullmatch(r"[+-]?[0-9]{1,15}", str(text))
    try:
        number = float(text) if with_fraction else int(text)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadParameter(where, f"{shown(text)}: expected a number, {{Column}}, {{Column}}*1000 or {{Column}}/1000")
    return number


def own_events(columns: Sequence[str], time: str) -> tuple[EventMap, ...]:
    """The mapping of a CSV file that has columns `metric` and `value`: what is no field of an event is metadata."""
    if not {"metric", "value"} <= {*columns}:
        raise BadParameter(
            "--event", f"say which events a row gives, or name columns metric and value; {columns_there_are(columns)}"
        )
    others = [column for column in columns if column not in ("metric", "value", time, *EVENT_FIELDS)]
    if wrong := [column for column in others if not is_name(column)]:
        raise BadParameter(
            "--event", f"column {wrong[0]!r} cannot be a metadata key (a-z, 0-9, _ and .); map columns with --event"
        )
    if len(others) > MAX_METADATA_KEYS:
        raise BadParameter("--event", f"{len(others)} columns would be metadata; at most {MAX_METADATA_KEYS} may be")
    fields: dict[str, Any] = {name: f"{{{name}}}" for name in EVENT_FIELDS if name in columns}
    return (EventMap("{metric}", "{value}", metadata={name: f"{{{name}}}" for name in others}, **fields),)


def time_column(wanted: str | None, columns: Sequence[str]) -> str:
    """The column of the time: the one asked for, else the first of TIME_COLUMNS. Raises BadParameter."""
    if wanted is not None:
        return wanted
    by_name = {column.lower(): column for column in reversed(columns)}
    for name in TIME_COLUMNS:
        if name in by_name:
            return by_name[name]
    raise BadParameter("--time", f"no column is named {', '.join(TIME_COLUMNS)}; {columns_there_are(columns)}")


def columns_there_are(columns: Sequence[str]) -> str:
    told = f"the columns are {', '.join(columns)}"
    if len(columns) == 1 and (found := next((sign for sign in ";\t|" if sign in columns[0]), None)):
        told += f"; is the delimiter {found!r}? (--delimiter)"
    return told
