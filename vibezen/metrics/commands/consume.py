"""`vibezen-metrics consume archive|aggregate|compact`"""

from enum import StrEnum
from threading import Event
from typing import Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings
from vibezen.metrics.commands.process import log_to_stderr, stop_event
from vibezen.metrics.settings import Settings


class Group(StrEnum):
    archive = "archive"
    aggregate = "aggregate"
    compact = "compact"


_GROUPS = "archive: events to files. aggregate: events to windows. compact: files of closed hours to Parquet."


def consume(
    group: Annotated[Group, typer.Argument(help=_GROUPS)],
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    once: Annotated[bool, typer.Option("--once", help="Do what is due, then exit.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="compact: say what is due, and change nothing.")] = False,
) -> None:
    """Read the stream for one group, or compact what was read. Any number of these may run: each takes its share of the
    shards; of those that compact, one is at work."""
    stop = stop_event()  # before the imports: asked to end meanwhile, it ends as it should
    settings = load_settings(config, redis_url, storage_dir)
    log_to_stderr()
    if group is Group.compact:
        raise typer.Exit(_compact(settings, stop, once=once, dry_run=dry_run))
    if dry_run:
        raise typer.BadParameter("only `consume compact` has a dry run", param_hint="--dry-run")
    from vibezen.metrics.consumers.supervisor import run

    raise typer.Exit(run(group.value, settings, once=once, stop=stop))


def _compact(settings: Settings, stop: Event, *, once: bool, dry_run: bool) -> int:
    from vibezen.metrics.consumers import compactor_process

    if not dry_run:
        return compactor_process.run(settings, once=once, stop=stop)
    for line in compactor_process.plan(settings) or ["nothing is due"]:
        typer.echo(line)
    return 0
