"""`vibezen-metrics up`"""

from typing import Annotated

import typer

from vibezen.metrics.commands.options import Config, Host, Port, RedisUrl, StorageDir, load_settings, need
from vibezen.metrics.commands.simulate import Incident, Rate, Seed, arguments, check_incidents


def up(
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    host: Host = None,
    port: Port = None,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo", help="Simulated traffic, in a store of its own: metrics_demo beside the storage folder."
        ),
    ] = False,
    rate: Rate = None,
    seed: Seed = None,
    incident: Incident = None,
) -> None:
    """Run everything in one process tree: server, gateway, archiver, aggregator, compactor and API. Ctrl-C ends it."""
    traffic = arguments(rate, seed, incident)
    if traffic and not demo:
        raise typer.BadParameter("--rate, --seed and --incident belong to --demo")
    need("server", "up")
    settings = load_settings(config, redis_url, storage_dir, host, port)
    check_incidents(incident or ())
    from vibezen.metrics.commands.screen import TerminalScreen
    from vibezen.metrics.up import run

    run(settings, TerminalScreen(), traffic if demo else None)
