"""`vibezen-metrics query`"""

from typing import TYPE_CHECKING, Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings, need
from vibezen.metrics.errors import MetricsError

if TYPE_CHECKING:
    from vibezen.metrics.history import History
    from vibezen.metrics.layout import Layout
    from vibezen.metrics.question import Parameters
    from vibezen.metrics.settings import Settings

Since = Annotated[
    str,
    typer.Option("--from", metavar="TIME", help="now-1h, now-1d/d, today, yesterday, ISO 8601 or Unix seconds."),
]
Until = Annotated[str, typer.Option("--to", metavar="TIME", help="Where the range ends.")]
Where = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Only events with this metadata; KEY!=VALUE: without it. May be repeated."),
]


def query(
    metric: Annotated[str, typer.Argument(help="Which metric, for example response_time.")],
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    since: Since = "now-1h",
    until: Until = "now",
    step: Annotated[str, typer.Option(metavar="LENGTH", help="auto, 60, 5m, 1h, 1d.")] = "auto",
    tz: Annotated[str, typer.Option(metavar="ZONE", help="Of days and times: Europe/Berlin, +05:30.")] = "UTC",
    group_by: Annotated[str, typer.Option(metavar="KEY,…", help="Labels or other metadata to tell apart.")] = "",
    top: Annotated[str, typer.Option(metavar="N", help="Only the N groups with the largest sum or count.")] = "",
    agg: Annotated[
        str,
        typer.Option(metavar="NAME,…", help="count sum mean min max last rate p50 p75 p90 p95 p99 p99.9 histogram."),
    ] = "",
    where: Where = None,
    exact: Annotated[bool, typer.Option("--exact", help="From the events themselves, percentiles too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The answer of GET /api/metrics/history.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma separated values.")] = False,
) -> None:
    """Ask for one metric over time, from windows and files. Works without a running API, and without a server too."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    need("server", "query")
    settings = load_settings(config, redis_url, storage_dir)
    parameters: Parameters = {
        **{"metric": metric, "from": since, "to": until, "tz": tz, "step": step, "group_by": group_by, "agg": agg},
        **({"top": top} if top else {}),
        **{"where": where or [], "exact": "true" if exact else "false"},
    }
    if not as_json and "histogram" in agg:
        raise typer.BadParameter("a histogram is no number for a table; ask with --json")
    answer = _ask(settings, parameters)
    if as_json:
        import msgspec

        print(msgspec.json.encode(answer).decode())
    if not answer.known:
        raise MetricsError(_unknown(answer))
    if as_json:
        return
    from vibezen.metrics.commands import table

    columns, rows = table.of_history(answer)
    if as_csv:
        table.print_csv(columns, rows)
    else:
        table.print_table(columns, rows, table.about(answer))


def _unknown(answer: "History") -> str:
    meant = f"; did you mean {' or '.join(answer.similar)}?" if answer.similar else ""
    return f"no metric {answer.metric!r} is declared, and none was recorded in this range{meant}"


def see_the_store(layout: "Layout") -> None:
    """Raises StoreError, which says what is wrong with the folder and where the events may be."""
    from vibezen.metrics.connection import running_endpoint
    from vibezen.metrics.errors import StoreError

    try:
        layout.read()
    except StoreError as error:
        running = running_endpoint()
        if running is None or layout.store_file.exists():
            raise
        raise StoreError(
            f"{error}; the running `up` keeps its events in {running.storage_dir} (--storage-dir)"
        ) from None


def _ask(settings: "Settings", parameters: "Parameters") -> "History":
    from contextlib import suppress

    import anyio
    from redis.exceptions import RedisError

    from vibezen.metrics import connection
    from vibezen.metrics.asking import answered
    from vibezen.metrics.clock import wall
    from vibezen.metrics.event_reader import EventReader
    from vibezen.metrics.gathering import Gatherer
    from vibezen.metrics.history import history
    from vibezen.metrics.keys import Keys
    from vibezen.metrics.layout import Layout
    from vibezen.metrics.question import parse_question
    from vibezen.metrics.storage import check_same_store

    layout = Layout(settings.storage_dir)
    see_the_store(layout)
    now = wall()
    question = parse_question(parameters, settings, now)

    async def ask() -> "History":
        async with connection.connect_async(connection.redis_url(settings)) as client:
            reader, keys = EventReader(layout), Keys(settings.redis.prefix)
            with suppress(RedisError):  # it is away: files answer alone
                check_same_store(layout, await client.get(keys.store))
            gatherer = Gatherer(reader, client, keys, settings)
            return await answered(lambda: history(gatherer, question, now), settings.queries.seconds)

    return anyio.run(ask)
