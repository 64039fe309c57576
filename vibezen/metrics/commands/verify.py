"""`vibezen-metrics verify`"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings

if TYPE_CHECKING:
    from vibezen.metrics.verify import Progress


def verify(
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only the files, without a server.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
) -> None:
    """Hold files, windows and books against each other. Exit code 1 when something differs; changes nothing."""
    settings = load_settings(config, redis_url, storage_dir)
    from vibezen.metrics.commands.doctor import show
    from vibezen.metrics.commands.query import see_the_store
    from vibezen.metrics.doctor import Status
    from vibezen.metrics.layout import Layout
    from vibezen.metrics.verify import examine, size

    see_the_store(Layout(settings.storage_dir))
    with _bar(size(settings), as_json=as_json) as progress:
        found = list(examine(settings, progress, offline=offline))
    if as_json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        show(found)
    if any(finding.status is Status.FAIL for finding in found):
        raise typer.Exit(1)


@contextmanager
def _bar(total: int, *, as_json: bool) -> "Iterator[Progress]":
    """A bar over the bytes of files, on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("segments", total=total)
        yield lambda read: bar.advance(task, read)
