"""`vibezen-metrics export`"""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings, need
from vibezen.metrics.commands.query import Where, see_the_store
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.export_format import ENDINGS, Format

if TYPE_CHECKING:
    from vibezen.metrics.export import Exporter
    from vibezen.metrics.question import Parameters


def export(
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    format_: Annotated[
        Format | None, typer.Option("--format", help="Without: by the ending of the file's name, else csv.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this metric. May be repeated.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="now-7d, ISO 8601 (UTC) or Unix seconds.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Where the range ends.")] = None,
    where: Where = None,
    file: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Without: standard output.")
    ] = None,
) -> None:
    """Write the events themselves as CSV, JSONL or Parquet, in order of time. Needs no server."""
    need("server", "export")
    chosen = format_ or _by_name(file)
    if chosen is Format.PARQUET and file is None and sys.stdout.isatty():
        raise BadParameter("output", "Parquet is nothing for a terminal: name a file with -o, or use a pipe")
    settings = load_settings(config, redis_url, storage_dir)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both ways to be ended clean up
    from vibezen.metrics.clock import wall
    from vibezen.metrics.event_reader import EventReader
    from vibezen.metrics.export import Exporter, parse_export
    from vibezen.metrics.layout import Layout

    parameters: Parameters = {
        **{"format": chosen.value, "metric": ",".join(metric or ()), "where": where or []},
        **{"from": since or "", "to": until or ""},
    }
    asked = parse_export(parameters, settings.aggregation.labels, wall())
    layout = Layout(settings.storage_dir)
    see_the_store(layout)
    try:
        _write(Exporter(EventReader(layout), asked), file)
    except KeyboardInterrupt:
        print("interrupted" if file is None else f"interrupted: {file} was not written", file=sys.stderr)
        raise typer.Exit(1) from None


def _by_name(file: Path | None) -> Format:
    if file is None:
        return Format.CSV
    try:
        return ENDINGS[file.suffix.lower()]
    except KeyError:
        raise BadParameter("format", f"{file.name!r} does not tell; name it with --format") from None


def _write(exporter: "Exporter", target: Path | None) -> None:
    from contextlib import closing

    from vibezen.metrics.commands.export_screen import Screen
    from vibezen.metrics.commands.output import output

    # Two things on one terminal would be written over each other.
    with Screen(quiet=target is None and sys.stdout.isatty()) as screen, output(target) as file:
        with closing(exporter.blocks()) as blocks:
            for block in blocks:
                file.write(block)
                screen.progress(exporter.done, exporter.total)
        screen.progress(exporter.done, exporter.total)
        screen.end(exporter.written, target)
