"""`python -m vibezen.metrics.dashboard`: `vibezen-metrics up`, or with a configured redis.url API and page alone."""

import typer

from vibezen.metrics.cli import run
from vibezen.metrics.commands.api import api
from vibezen.metrics.commands.options import Config, Host, Port, RedisUrl, StorageDir, load_settings
from vibezen.metrics.commands.up import up

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def dashboard(
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Serve the dashboard: over the Redis that is configured, or else with a server and consumers of our own."""
    settings = load_settings(config, redis_url, storage_dir)
    command = api if settings.redis.url else up
    command(config, redis_url, storage_dir, host, port)


if __name__ == "__main__":
    run(app)
