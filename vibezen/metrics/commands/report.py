"""`vibezen-metrics report`"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings, need
from vibezen.metrics.commands.output import output
from vibezen.metrics.commands.query import see_the_store
from vibezen.metrics.errors import BadParameter

if TYPE_CHECKING:
    from vibezen.metrics.reports.rendering import Format
    from vibezen.metrics.settings import Settings


def report(
    type: Annotated[
        str, typer.Argument(metavar="TYPE", help="system_performance, quality_trends, cost_analysis, weekly_summary, …")
    ] = "",
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    period: Annotated[
        str,
        typer.Option(
            metavar="PERIOD",
            help="24h, 7d, 4w, today, yesterday, this-week, last-week, this-month, last-month, last-7-days "
            "or 2026-11-01..2026-11-08. Without it the report's own.",
        ),
    ] = "",
    tz: Annotated[str, typer.Option(metavar="ZONE", help="Whose days: UTC, Europe/Berlin, +05:30.")] = "UTC",
    to: Annotated[str, typer.Option(metavar="TIME", help="Taken for the present, to look back from.")] = "",
    format: Annotated[
        str, typer.Option(metavar="NAME", help="html, markdown, csv, json; guessed from the file's name.")
    ] = "",
    path: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write it.")] = None,
    definition: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A report of your own, in YAML; see docs/reports.md.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="From the events themselves, percentiles too.")] = False,
    show_definition: Annotated[
        bool, typer.Option("--show-definition", help="Print the report's definition, to copy from.")
    ] = False,
) -> None:
    """Make a report about a period, compared with the period before. Works without a running API or server."""
    settings = load_settings(config, redis_url, storage_dir)
    if show_definition:
        from vibezen.metrics.reports.library import find

        print(find(type, settings).read_text(encoding="utf-8"), end="")
        return
    need("server", "report")
    chosen = _format(format, path)
    text = _make(settings, chosen, type, period, tz, to, definition, exact=exact)
    with output(path) as file:
        file.write(text.encode())
    if path is not None:
        print(path, file=sys.stderr)


def _format(name: str, path: Path | None) -> "Format":
    from vibezen.metrics.reports.rendering import format_for, format_of

    if name or path is None:
        return format_of(name or "markdown")
    guessed = format_for(path.suffix)
    if guessed is None:
        raise BadParameter("format", f"no format is known by {path.suffix!r}; name it with --format")
    return guessed


def _make(
    settings: "Settings", chosen: "Format", type: str, period: str, tz: str, to: str, file: Path | None, *, exact: bool
) -> str:
    from functools import partial

    import anyio

    from vibezen.metrics.reporter import MetricsReporter
    from vibezen.metrics.storage import MetricsStorage

    storage = MetricsStorage(settings.storage_dir)
    reporter = MetricsReporter(storage, settings=settings)
    make = partial(reporter.render_report, period=period, tz=tz, to=to, definition=file, exact=exact)
    see_the_store(storage.layout)
    return anyio.run(make, type, chosen.name)
