"""`vibezen-metrics gateway`"""

import logging

from vibezen.metrics.commands.options import Config, Host, Port, RedisUrl, StorageDir, load_settings, need
from vibezen.metrics.commands.process import log_to_stderr


def gateway(
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Take events in over HTTP, from programs without the collector. Any number of these may run."""
    need("server", "gateway")
    settings = load_settings(config, redis_url, storage_dir, host, port, server="gateway")
    log_to_stderr()
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it would tell each start and end a second time
    from vibezen.metrics.producers.gateway import serve

    serve(settings)
