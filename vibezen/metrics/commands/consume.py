"""`vibezen-metrics consume archive|aggregate`"""

from enum import StrEnum
from typing import Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings
from vibezen.metrics.commands.process import log_to_stderr, stop_event


class Group(StrEnum):
    archive = "archive"
    aggregate = "aggregate"


def consume(
    group: Annotated[Group, typer.Argument(help="archive: events to files. aggregate: events to windows.")],
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    once: Annotated[bool, typer.Option("--once", help="Do what is due, then exit.")] = False,
) -> None:
    """Read the stream for one group. Any number of these may run; each takes its share of the shards."""
    stop = stop_event()  # before the imports: asked to end meanwhile, it ends as it should
    settings = load_settings(config, redis_url, storage_dir)
    log_to_stderr()
    from vibezen.metrics.consumers.supervisor import run

    raise typer.Exit(run(group.value, settings, once=once, stop=stop))
