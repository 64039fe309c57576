"""`vibezen-metrics simulate`"""

from typing import Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings
from vibezen.metrics.commands.process import log_to_stderr, stop_event

Rate = Annotated[float | None, typer.Option(min=0.1, metavar="N", help="Simulated events per second.")]
Seed = Annotated[int | None, typer.Option(help="The same seed simulates the same traffic.")]
Incident = Annotated[list[str] | None, typer.Option(metavar="NAME", help="Let this go wrong; may be repeated.")]


def simulate(
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    rate: Rate = None,
    seed: Seed = None,
    duration: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="End after this time.")] = None,
    incident: Incident = None,
) -> None:
    """Record simulated traffic: AI coding sessions over several providers and models."""
    settings = load_settings(config, redis_url, storage_dir)
    log_to_stderr()
    from vibezen.metrics.producers.simulator import run

    run(settings, rate, seed, duration, incident or [], stop_event())


def arguments(rate: float | None, seed: int | None, incidents: list[str] | None) -> list[str]:
    """These options as arguments of another `simulate`."""
    given = {"--rate": rate, "--seed": seed}
    found = [part for name, value in given.items() if value is not None for part in (name, str(value))]
    return [*found, *(part for name in incidents or [] for part in ("--incident", name))]
