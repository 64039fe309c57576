"""Connections to Redis or Valkey: where the server is, whether it may be used, and clients that never re-send.

redis-py 8 repeats every command up to ten times after a lost reply, which doubles writes; our clients are made with
that turned off. A call that is safe to repeat is repeated by the one who knows that it is.
"""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)
from redis.retry import Retry

from vibezen.metrics.address import CLUSTER, SENTINEL, Address, parse_address
from vibezen.metrics.errors import ConfigError, ServerUnavailable, ServerUnsuitable
from vibezen.metrics.settings import Settings
from vibezen.metrics.slots import by_slot

DEFAULT_URL: Final = "redis://127.0.0.1:6379"
MIN_REDIS: Final = (7, 0)
MIN_VALKEY: Final = (8, 0)
KEEPS_ALL: Final = "noeviction"
READ_TIMEOUT: Final = 10.0
"""Seconds until an answer is given up. Longer than any BLOCK we use."""
MAX_BLOCK: Final = 2.0
"""Seconds a blocking read waits at most, so that stopping and lease renewal are never late."""
CONNECT_TIMEOUT: Final = 5.0

UNREACHABLE: Final = (ConnectionError, TimeoutError, BusyLoadingError, ClusterDownError, TryAgainError)
"""What a call raises when the server is away or its answer is lost, or when a cluster has none for a slot just now.
File errors are not among them."""
REFUSALS: Final = ("OOM", "READONLY", "LOADING", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")
"""How a server begins its answer when it cannot take a write now but will again."""

_PASSWORD = re.compile(r"(://[^:@/]*:).*@")  # up to the last @: a password may hold anything
_PASSWORD_FIELD = re.compile(r"([?&](?:sentinel_)?password=)[^&]*")  # how unix:// carries it


class Endpoint(msgspec.Struct):
    """What a running `up` tells other programs of this user."""

    url: str
    pid: int
    storage_dir: str
    dashboard: str


class ServerInfo(msgspec.Struct, frozen=True):
    """`kind` is "redis" or "valkey"; `run_id` changes whenever the server starts anew or another takes its place.
    `evicts`: when its memory is full, it would throw away keys by this policy instead of refusing to write."""

    kind: str
    version: str
    run_id: str
    used_memory: int
    evicts: str | None = None


def state_folder() -> Path:
    """Where programs of this user find a running `up`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "vibezen-metrics"


def endpoint_file() -> Path:
    return state_folder() / "endpoint.json"


def running_endpoint() -> Endpoint | None:
    """The endpoint of a running `up` of this user; None when there is none alive."""
    try:
        endpoint = msgspec.json.decode(endpoint_file().read_bytes(), type=Endpoint)
        os.kill(endpoint.pid, 0)
    except (OSError, msgspec.MsgspecError):
        return None
    return endpoint


def redis_url(settings: Settings) -> str:
    """The server's address: the setting, else a running `up`, else redis://127.0.0.1:6379."""
    if settings.redis.url:
        return settings.redis.url
    endpoint = running_endpoint()
    return endpoint.url if endpoint else DEFAULT_URL


def redacted(url: str) -> str:
    """`url` without its password, for logs and errors."""
    return _PASSWORD_FIELD.sub(r"\1***", _PASSWORD.sub(r"\1***@", url))


def _address(url: str) -> Address:
    """Raises ConfigError for an address that cannot be one."""
    try:
        return parse_address(url)
    except (ValueError, TypeError, RedisError) as error:
        raise ConfigError(f"redis.url = {redacted(url)!r}: {str(error).rpartition('() ')[2]}") from None


def _options(read_timeout: float, retry: Any) -> dict[str, Any]:
    """What every connection is made with; what the address says wins."""
    return {
        "socket_timeout": read_timeout,
        "socket_connect_timeout": min(CONNECT_TIMEOUT, read_timeout),
        "legacy_responses": False,
        "protocol": 2,
        "retry": retry,
    }


def connect(url: str, *, read_timeout: float = READ_TIMEOUT) -> redis.Redis:
    """A client for one thread's use; connects on first use. Nothing it sends is ever re-sent by itself."""
    address = _address(url)
    options = _options(read_timeout, Retry(NoBackoff(), 0))
    if address.kind == CLUSTER:
        from vibezen.metrics.cluster import ClusterClient

        return ClusterClient(address, {**options, **address.options})
    if address.kind == SENTINEL:
        from vibezen.metrics.sentinel import sentinel_client

        return sentinel_client(address, {**options, **address.options})
    return redis.Redis.from_url(url, **options)


def connect_async(url: str, *, read_timeout: float = READ_TIMEOUT) -> redis.asyncio.Redis:
    """The same for an event loop."""
    from redis.asyncio.retry import Retry as AsyncRetry

    from vibezen.metrics.async_pool import Pool

    address = _address(url)
    options = _options(read_timeout, AsyncRetry(NoBackoff(), 0))
    if address.kind == CLUSTER:
        from vibezen.metrics.cluster_async import AsyncClusterClient

        return AsyncClusterClient(address, {**options, **address.options})
    if address.kind == SENTINEL:
        from vibezen.metrics.sentinel import async_sentinel_client

        return async_sentinel_client(address, {**options, **address.options})
    return redis.asyncio.Redis.from_pool(Pool.from_url(url, **options))


def primaries(client: redis.Redis) -> list[redis.Redis]:
    """Clients of every server that holds some of the keys: of a cluster several, else the one there is."""
    from vibezen.metrics.cluster import ClusterClient

    return client.primaries() if isinstance(client, ClusterClient) else [client]


async def async_primaries(client: redis.asyncio.Redis) -> list[redis.asyncio.Redis]:
    """The same for an event loop."""
    from vibezen.metrics.cluster_async import AsyncClusterClient

    return await client.primaries() if isinstance(client, AsyncClusterClient) else [client]


def readable_together(client: redis.Redis | redis.asyncio.Redis, streams: Mapping[Any, Any]) -> list[dict[Any, Any]]:
    """Streams apart that one XREAD cannot read together, in their order: those of different slots of a cluster."""
    from vibezen.metrics.cluster import ClusterClient
    from vibezen.metrics.cluster_async import AsyncClusterClient

    return by_slot(streams) if isinstance(client, ClusterClient | AsyncClusterClient) else [dict(streams)]


def server_info(info: Mapping[str, Any]) -> ServerInfo:
    """From the answer of INFO."""
    kind = "valkey" if "valkey_version" in info else "redis"
    version = str(info.get("valkey_version") or info.get("redis_version", "0"))
    policy = str(info.get("maxmemory_policy", KEEPS_ALL))
    evicts = policy if int(info.get("maxmemory", 0)) and policy != KEEPS_ALL else None
    return ServerInfo(kind, version, str(info.get("run_id", "")), int(info.get("used_memory", 0)), evicts)


def check_suitable(server: ServerInfo, url: str) -> None:
    """Refuse what would lose data or lacks what we need."""
    floor = MIN_VALKEY if server.kind == "valkey" else MIN_REDIS
    found = tuple(int(part) for part in re.findall(r"\d+", server.version)[:2])
    if found < floor:
        needed = ".".join(map(str, floor))
        raise ServerUnsuitable(
            f"{redacted(url)}: {server.kind.capitalize()} {server.version} is too old; {needed} or newer is needed"
        )
    if server.evicts:
        raise ServerUnsuitable(
            f"{redacted(url)}: maxmemory-policy is {server.evicts}: a full server would throw events away; "
            f"it must be {KEEPS_ALL}"
        )


def check_server(client: redis.Redis, url: str) -> ServerInfo:
    """Reach the server, of a cluster every one that holds keys, and see that it may be used.

    Raises ServerUnavailable or ServerUnsuitable in one line.
    """
    try:
        servers = [server_info(each.info()) for each in primaries(client)]
    except (AuthenticationError, AuthorizationError) as error:
        raise ServerUnsuitable(f"{redacted(url)}: the server refuses this user or password: {error}") from None
    except UNREACHABLE as error:
        raise ServerUnavailable(f"{redacted(url)}: no Redis or Valkey answers: {_reason(error)}") from None
    except RedisError as error:
        raise ServerUnsuitable(f"{redacted(url)}: {error}") from None
    for server in servers:
        check_suitable(server, url)
    return servers[0]


def _reason(error: BaseException) -> str:
    """The innermost cause in few words; never a password, since addresses are not repeated."""
    inner: BaseException = error
    while inner.__cause__ or inner.__context__:
        inner = inner.__cause__ or inner.__context__ or inner
    if isinstance(inner, socket.gaierror):
        return "the host name is not known"
    return (getattr(inner, "strerror", None) or str(inner)).rstrip(".").lower()


def is_missing_group(error: ResponseError) -> bool:
    """Whether the stream or its group has vanished (servers word it differently)."""
    text = str(error)
    return text.startswith(("NOGROUP", "UNBLOCKED")) or "no such key" in text or "requires the key to exist" in text


def is_refusal(error: BaseException) -> bool:
    """Whether the server is there but takes no writes for now: full, a replica, loading, or without its disk."""
    # redis-py cuts the code off the text of those it has a class for.
    return isinstance(error, RedisError) and (error.status_code in REFUSALS or str(error).startswith(REFUSALS))
