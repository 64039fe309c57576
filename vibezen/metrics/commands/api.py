"""`vibezen-metrics api`"""

import logging

from vibezen.metrics.commands.options import Config, Host, Port, RedisUrl, StorageDir, load_settings, need
from vibezen.metrics.commands.process import log_to_stderr


def api(
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Serve the HTTP API, the live feed and the dashboard page. Any number of these may run."""
    need("server", "api")
    settings = load_settings(config, redis_url, storage_dir, host, port)
    log_to_stderr()
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it would tell each start and end a second time
    from vibezen.metrics.api.web import serve

    serve(settings)
