"""`vibezen-metrics sql`"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings, need
from vibezen.metrics.commands.query import see_the_store
from vibezen.metrics.errors import BadParameter, SqlError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vibezen.metrics.event_reader import EventReader
    from vibezen.metrics.sandbox import Question


class Format(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"
    jsonl = "jsonl"


def sql(
    statement: Annotated[
        str | None,
        typer.Argument(metavar="[SELECT]", help="Without: from -f or standard input; on a terminal, a prompt."),
    ] = None,
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", metavar="FILE", help="Where the statement is.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="How the answer looks.")] = Format.table,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Rows that a table shows; others are counted.")] = 100,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Only events from then on: now-7d, ISO 8601 (UTC).")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only events before then.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How long it may take.")] = 300.0,
) -> None:
    """Ask the files in SQL (DuckDB's), read-only, over the tables `events` and `rollups`. Needs no server."""
    if statement is not None and file is not None:
        raise typer.BadParameter("a statement and -f exclude each other")
    need("server", "sql")
    settings = load_settings(config, redis_url, storage_dir)
    from vibezen.metrics.clock import wall
    from vibezen.metrics.event_reader import EventReader, Wanted
    from vibezen.metrics.layout import Layout
    from vibezen.metrics.question import parse_span
    from vibezen.metrics.sandbox import Question

    wanted = Wanted(*parse_span({"from": since or "", "to": until or ""}, wall()))
    layout = Layout(settings.storage_dir)
    see_the_store(layout)
    reader = EventReader(layout)

    def ask(text: str) -> None:
        _show(reader, Question(text, wanted, settings.aggregation.labels, timeout), format_, limit)

    if statement is None and file is None and sys.stdin.isatty():
        _prompt(ask)
    else:
        ask(statement if statement is not None else _read(file))


def _read(file: Path | None) -> str:
    try:
        return sys.stdin.read() if file is None else file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadParameter("file", f"{file}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise BadParameter("file", f"{file or 'standard input'}: not UTF-8 text") from None


def _show(reader: "EventReader", question: "Question", format_: Format, limit: int) -> None:
    from vibezen.metrics.commands import sql_answer
    from vibezen.metrics.sandbox import answered

    with answered(reader, question) as answer:
        if format_ is Format.table:
            sql_answer.print_table(answer, limit)
        elif format_ is Format.csv:
            sql_answer.print_csv(answer)
        else:
            sql_answer.print_json(answer, lines=format_ is Format.jsonl)


_ENDS: Final = ("exit", "quit", "\\q")


def _prompt(ask: "Callable[[str], None]") -> None:
    """Statement after statement, each ended by a semicolon, until `exit` or the end of the input."""
    import readline  # noqa: F401  # gives `input` its editing

    print("Tables: events, rollups. A statement ends with ; and may have several lines; exit ends.", file=sys.stderr)
    lines: list[str] = []
    while True:
        try:
            lines.append(input("  ... " if lines else "sql> "))
        except EOFError:
            return
        except KeyboardInterrupt:
            print()
            lines.clear()
            continue
        if len(lines) == 1 and lines[0].strip().rstrip(";").lower() in _ENDS:
            return
        if not lines[-1].rstrip().endswith(";"):
            lines = [line for line in lines if line.strip()]
            continue
        try:
            ask("\n".join(lines))
        except SqlError as error:
            print(error, file=sys.stderr)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
        lines.clear()
