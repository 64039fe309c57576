"""The answer of a SQL statement on standard output."""

import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from vibezen.metrics.commands import table
from vibezen.metrics.sandbox import Answer, Value
from vibezen.metrics.spreadsheet import csv_lines

_encoder: Final = msgspec.json.Encoder()


def print_table(answer: Answer, limit: int) -> None:
    """At most `limit` rows; how many more there are is said."""
    if not answer.count:
        print("no rows")
        return
    rows: list[table.Row] = []
    for some in answer.rows():
        rows += [list(map(_plain, row)) for row in some]
        if len(rows) >= limit:
            break
    table.print_table([table.printable(column.name) for column in answer.columns], rows[:limit], _about(answer))
    if answer.count > limit:
        print(f"… {answer.count - limit:,} more (--limit, or --format csv)")


def _about(answer: Answer) -> str:
    return "1 row" if answer.count == 1 else f"{answer.count:,} rows"


def print_csv(answer: Answer) -> None:
    sys.stdout.write(csv_lines([[column.name for column in answer.columns]]))
    for rows in answer.rows():
        sys.stdout.write(csv_lines([_plain(value) for value in row] for row in rows))


def print_json(answer: Answer, *, lines: bool) -> None:
    """A list of objects, or an object per line."""
    names = [column.name for column in answer.columns]
    is_json = [column.is_json for column in answer.columns]
    between = "\n" if lines else ",\n"
    begun = False
    if not lines:
        sys.stdout.write("[")
    for rows in answer.rows():
        objects = (_encoder.encode(dict(zip(names, _raw(row, is_json), strict=True))).decode() for row in rows)
        sys.stdout.write((between if begun else "") + between.join(objects))
        begun = True
    sys.stdout.write(("\n" if begun else "") if lines else "]\n")


def _raw(row: Sequence[Value], is_json: Sequence[bool]) -> list[Value | msgspec.Raw]:
    return [
        msgspec.Raw(value.encode()) if nested and isinstance(value, str) else value
        for value, nested in zip(row, is_json, strict=True)
    ]


def _plain(value: Value) -> str | int | float | None:
    """A truth value as text: among numbers it would be one."""
    return str(value).lower() if isinstance(value, bool) else value
