"""`vibezen-metrics tail`"""

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings, need
from vibezen.metrics.commands.process import stop_event
from vibezen.metrics.commands.query import Where, see_the_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis import Redis

    from vibezen.metrics.batch import EntryId
    from vibezen.metrics.keys import Keys
    from vibezen.metrics.settings import Settings


def tail(
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    metric: Annotated[str | None, typer.Option(metavar="NAME", help="Only this metric.")] = None,
    where: Where = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, max=1000, help="Past events to begin with.")] = 10,
    follow: Annotated[bool, typer.Option(help="Go on with what arrives, until Ctrl-C.")] = True,
    rate: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Events per second at most; others are counted.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Events as lines of JSON.")] = False,
) -> None:
    """Show single events: the newest in the files, then each as it arrives."""
    need("server", "tail")
    stop = stop_event()
    settings = load_settings(config, redis_url, storage_dir)
    from vibezen.metrics import connection
    from vibezen.metrics.commands.lines import LinePrinter
    from vibezen.metrics.event_reader import EventReader, Wanted
    from vibezen.metrics.following import Following, matches
    from vibezen.metrics.keys import Keys
    from vibezen.metrics.layout import Layout
    from vibezen.metrics.question import MAX_TS, parse_metric, parse_where
    from vibezen.metrics.search import Search, look
    from vibezen.metrics.storage import check_same_store

    chosen, conditions = parse_metric(metric) if metric else None, parse_where(where or [])
    printer = LinePrinter(as_json=as_json, rate=rate)
    layout = Layout(settings.storage_dir)
    if not follow:
        see_the_store(layout)
    reader = EventReader(layout)
    # One look at the files tells both the past and where it ends in the streams: nothing is shown twice or left out.
    archived: Mapping[int, EntryId] = {}
    if layout.store_file.exists():
        found, snapshot = look(reader, Search(Wanted(0.0, MAX_TS, chosen, conditions), lines))
        archived = snapshot.positions
        printer.past(found[::-1])
    if not follow:
        return
    url = connection.redis_url(settings)
    with closing(connection.connect(url)) as client:
        connection.check_server(client, url)
        keys = Keys(settings.redis.prefix)
        if layout.store_file.exists():
            check_same_store(layout, client.get(keys.store))
        following = Following(client, keys, _positions(client, keys, settings, archived))
        while not stop.is_set():
            following.wait()
            events = [event for event in following.take() if matches(event, chosen, conditions)]
            printer.arrived(events, following.missed)


def _positions(
    client: "Redis", keys: "Keys", settings: "Settings", archived: "Mapping[int, EntryId]"
) -> "dict[int, EntryId]":
    """Where the files end; for a shard that was never archived here, the present."""
    from vibezen.metrics.following import newest

    used = client.get(keys.shards)
    shards = max(settings.streams.shards, int(used) if isinstance(used, bytes) else 1)
    return {**newest(client, keys, shards), **archived}
