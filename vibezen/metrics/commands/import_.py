"""`vibezen-metrics import FILE…`"""

import threading
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings
from vibezen.metrics.commands.process import stop_event
from vibezen.metrics.errors import MetricsError

if TYPE_CHECKING:
    from vibezen.metrics.producers.importer_mapping import Mapping
    from vibezen.metrics.producers.importer_order import Order
    from vibezen.metrics.settings import Settings


class Format(StrEnum):
    csv = "csv"
    ndjson = "ndjson"


class Ambiguous(StrEnum):
    reject = "reject"
    earlier = "earlier"
    later = "later"


def import_(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="CSV or NDJSON, also .gz; - for standard input.")],
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    event: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=VALUE[,KEY=VALUE…]",
            help="One event per row; {Column} stands for a column, also {Column}*1000 or /1000; may be repeated.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Metadata of every event; may be repeated."),
    ] = None,
    map_: Annotated[
        Path | None, typer.Option("--map", metavar="FILE", help="The mapping as YAML; options here add to it or win.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Where the time is; without, ts, timestamp, time or date.")
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="auto, iso, unix, unix_ms, unix_us, unix_ns or like '%d.%m.%Y %H:%M'."),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Of times that name none, like Europe/Berlin. Without: UTC.")
    ] = None,
    ambiguous: Annotated[
        Ambiguous | None, typer.Option(help="Local times that happen twice when clocks go back. Without: reject.")
    ] = None,
    format_: Annotated[Format | None, typer.Option("--format", help="Without: by the file's name or content.")] = None,
    delimiter: Annotated[str | None, typer.Option(metavar="SIGN", help="Of CSV: one character, or tab.")] = None,
    encoding: Annotated[str | None, typer.Option(metavar="NAME", help="Of CSV. Without: utf-8.")] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Names of the columns of a CSV file without a header.")
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Takes rows that give no events, with line and reason.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 when any row was rejected.")] = False,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Names the import. Without: by mapping, header and first row."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge and describe everything, append nothing.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Rows per file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Append history from files, each row once however often it is run; Ctrl-C, and the same command goes on."""
    stop = stop_event()  # before the imports: asked to end meanwhile, it ends as it should
    settings = load_settings(config, redis_url, storage_dir)
    from msgspec.structs import replace

    from vibezen.metrics.producers.importer_mapping import Mapping, parse_event, parse_set, read_map
    from vibezen.metrics.producers.importer_order import Order

    mapping = read_map(map_) if map_ else Mapping()
    mapping = _with(
        replace(
            mapping,
            events=(*mapping.events, *map(parse_event, event or ())),
            set={**mapping.set, **parse_set(set_ or ())},
        ),
        {"time": time, "time_format": time_format, "timezone": timezone, "ambiguous": ambiguous and ambiguous.value}
        | {"delimiter": delimiter, "encoding": encoding, "columns": columns and tuple(columns.split(","))},
    )
    file_format = format_.value if format_ else None
    order = Order(files, mapping, file_format, idempotency_key, rejects, limit, dry_run)
    raise typer.Exit(_carry_out(settings, order, stop, strict=strict, as_json=json))


def _with(mapping: "Mapping", given: dict[str, object]) -> "Mapping":
    from msgspec.structs import replace

    return replace(mapping, **{name: value for name, value in given.items() if value is not None})


def _carry_out(settings: "Settings", order: "Order", stop: threading.Event, *, strict: bool, as_json: bool) -> int:
    """The exit code. What came of it is told in any case, before an error is."""
    from vibezen.metrics.commands.import_screen import Screen
    from vibezen.metrics.producers.importer import Importer

    with Screen(settings, as_json=as_json) as screen:
        importer = Importer(settings, order, stop, screen.say, screen.progress)
        error: MetricsError | None = None
        finished = False
        try:
            finished = importer.run()
        except MetricsError as bad:
            error = bad
        screen.end(importer.balances, finished=finished, error=error)
    if error is not None:
        raise error
    rejected = any(balance.rejected for balance in importer.balances)
    return 1 if not finished or (strict and rejected) else 0
