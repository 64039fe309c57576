"""`vibezen-metrics verify`"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings
from vibezen.metrics.errors import BadParameter, ServerUnavailable

if TYPE_CHECKING:
    from vibezen.metrics.doctor import Finding
    from vibezen.metrics.settings import Settings
    from vibezen.metrics.verify import Progress


def verify(
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only the files, without a server.")] = False,
    rebuild_windows: Annotated[
        bool, typer.Option("--rebuild-windows", help="First make all windows anew from the files.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
) -> None:
    """Hold files, windows and books against each other. Exit code 1 when something differs."""
    if offline and rebuild_windows:
        raise BadParameter("--rebuild-windows", "windows are the server's: not together with --offline")
    settings = load_settings(config, redis_url, storage_dir)
    from vibezen.metrics.commands.doctor import show
    from vibezen.metrics.commands.query import see_the_store
    from vibezen.metrics.doctor import Status
    from vibezen.metrics.layout import Layout
    from vibezen.metrics.verify import examine, size

    see_the_store(Layout(settings.storage_dir))
    found: list[Finding] = []
    with _bars(as_json=as_json) as bar:
        if rebuild_windows:
            found += _rebuild(settings, bar("windows from files", None))
        found += examine(settings, bar("segments", size(settings)), offline=offline)
    if as_json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        show(found)
    if any(finding.status is Status.FAIL for finding in found):
        raise typer.Exit(1)


def _rebuild(settings: "Settings", progress: "Progress") -> "list[Finding]":
    """Raises MetricsError when it cannot be done; what was begun is marked as incomplete then."""
    from redis.exceptions import RedisError

    from vibezen.metrics import connection
    from vibezen.metrics.consumers.rebuild import rebuild
    from vibezen.metrics.doctor.finding import ok, warn
    from vibezen.metrics.keys import Keys
    from vibezen.metrics.layout import Layout
    from vibezen.metrics.storage import check_same_store
    from vibezen.metrics.verify import shards_of

    url, keys, layout = connection.redis_url(settings), Keys(settings.redis.prefix), Layout(settings.storage_dir)
    found: list[Finding] = []
    with closing(connection.connect(url)) as client:
        connection.check_server(client, url)
        try:
            check_same_store(layout, client.get(keys.store))
            for shard in shards_of(client, keys, settings, layout):
                if not layout.logs(shard) and not client.exists(keys.events(shard)):
                    continue  # nothing ever came to it
                made = rebuild(client, keys, layout, settings, shard, progress)
                seen = f"shard {shard}: made anew of {made.events} events, up to entry {made.position}"
                if made.complete:
                    found.append(ok("rebuilt windows", seen))
                else:
                    seen += "; the server lost something meanwhile"
                    found.append(warn("rebuilt windows", seen, "run it again: they count as incomplete"))
        except RedisError as error:
            raise ServerUnavailable(f"{connection.redacted(url)}: {error}; run it again") from None
    return found


@contextmanager
def _bars(*, as_json: bool) -> "Iterator[Callable[[str, int | None], Progress]]":
    """Makes bars over the bytes of files, on a terminal: `bar(what, bytes in all)`."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield lambda what, total: lambda read: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:

        def bar(what: str, total: int | None) -> "Callable[[int], None]":
            task = bars.add_task(what, total=total)
            return lambda read: bars.advance(task, read)

        yield bar
