"""`vibezen-metrics simulate`"""

from collections.abc import Sequence
from contextlib import closing
from typing import Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings
from vibezen.metrics.commands.process import log_to_stderr, stop_event
from vibezen.metrics.keys import Keys

Rate = Annotated[
    float | None, typer.Option(min=0.1, metavar="N", help="Events per second, day and night. Without: follows the day.")
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="The same seed simulates the same traffic.")]
Incident = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[@START[+SECONDS]]",
        help="Let something go wrong: latency, errors, cache or cost; may be repeated.",
    ),
]


def simulate(
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    rate: Rate = None,
    seed: Seed = None,
    duration: Annotated[float | None, typer.Option(min=0.1, metavar="SECONDS", help="End after this time.")] = None,
    incident: Incident = None,
    history: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Into an empty store: traffic of this time before now, too.")
    ] = 0.0,
) -> None:
    """Record simulated traffic: AI coding sessions over several providers and models."""
    stop = stop_event()  # before the imports: asked to end meanwhile, it ends as it should
    settings = load_settings(config, redis_url, storage_dir)
    check_incidents(incident or ())
    log_to_stderr()
    from vibezen.metrics import connection
    from vibezen.metrics.following import has_events
    from vibezen.metrics.producers.simulator import run

    url = connection.redis_url(settings)
    with closing(connection.connect(url)) as client:
        connection.check_server(client, url)
        # A past recorded twice would be a past that never was.
        past = 0.0 if has_events(client, Keys(settings.redis.prefix), settings.streams.shards) else history
    print(f"{run(settings, rate, seed, duration, incident or (), stop, past)} events recorded")


def check_incidents(incidents: Sequence[str]) -> None:
    """Raises ConfigError for one that is not known."""
    from vibezen.metrics.producers.simulator_world import parse_incident

    for text in incidents:
        parse_incident(text)


def arguments(rate: float | None, seed: int | None, incidents: Sequence[str] | None) -> list[str]:
    """These options as arguments of another `simulate`."""
    given = {"--rate": rate, "--seed": seed}
    found = [part for name, value in given.items() if value is not None for part in (name, str(value))]
    return [*found, *(part for name in incidents or () for part in ("--incident", name))]
