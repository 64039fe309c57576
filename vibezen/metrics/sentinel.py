"""Clients of the primary that Sentinels name. Each new connection asks them anew; nothing is sent again by itself.

redis-py finds the primary in the list of all that a Sentinel watches, which names the old one until a fail-over is
over to its last step; the question that is meant for clients is answered as soon as there is a new one.
"""

from collections.abc import Mapping
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.exceptions import AuthenticationError, ConnectionError, TimeoutError
from redis.sentinel import MasterNotFoundError, Sentinel

from vibezen.metrics.address import Address, Node
from vibezen.metrics.async_pool import SentinelPool
from vibezen.metrics.slots import ServerReplaced

_NOBODY: Final = "no Sentinel answers"
_REFUSED: Final = "a Sentinel refuses sentinel_username or sentinel_password"
_UNKNOWN: Final = "no Sentinel knows a primary by the name {!r}"


def sentinel_client(address: Address, options: Mapping[str, Any]) -> redis.Redis:
    """For one thread. Raises ServerReplaced, once, when a new connection goes to another server than the ones before.

    `options` are those of the connections to the primary.
    """
    sentinels: Any = _Sentinels(*_arguments(address, options))  # redis-py leaves it untyped
    found: redis.Redis = sentinels.master_for(address.service)
    return found


def async_sentinel_client(address: Address, options: Mapping[str, Any]) -> redis.asyncio.Redis:
    """For an event loop. It goes over to another primary without a word, as the client of a cluster does."""
    sentinels: Any = _AsyncSentinels(*_arguments(address, options))
    found: redis.asyncio.Redis = sentinels.master_for(address.service, connection_pool_class=SentinelPool)
    return found


def _arguments(address: Address, options: Mapping[str, Any]) -> tuple[Address, dict[str, Any], dict[str, Any]]:
    """For connections to Sentinels and to the primary, in redis-py's names."""
    told = {**options, "ssl": True} if address.tls else dict(options)
    shared = ("socket_timeout", "socket_connect_timeout", "retry")
    own = {name: value for name, value in told.items() if name in shared or name.startswith("ssl")}
    return address, {**own, "protocol": 2, **address.sentinel_options}, told


class _Sentinels(Sentinel):
    def __init__(self, address: Address, own: dict[str, Any], told: dict[str, Any]) -> None:
        super().__init__(address.nodes, sentinel_kwargs=own, **told)  # type: ignore[no-untyped-call]
        self._used: Node | None = None

    def discover_master(self, service_name: str) -> Node:
        trouble = ConnectionError(_NOBODY)
        for sentinel in self.sentinels:
            try:
                told: Any = sentinel.sentinel_get_master_addr_by_name(service_name)
            except AuthenticationError:
                trouble = AuthenticationError(_REFUSED)
            except (ConnectionError, TimeoutError):
                continue
            else:
                if told:
                    return self._noticed(_node(told))
                trouble = MasterNotFoundError(_UNKNOWN.format(service_name))
            finally:
                sentinel.connection_pool.disconnect()  # they are rarely asked, and nobody would close it
        raise trouble

    def _noticed(self, primary: Node) -> Node:
        before, self._used = self._used or primary, primary
        if before != primary:
            raise ServerReplaced(f"{primary} has taken the place of {before}")
        return primary


class _AsyncSentinels(AsyncSentinel):
    def __init__(self, address: Address, own: dict[str, Any], told: dict[str, Any]) -> None:
        super().__init__(address.nodes, sentinel_kwargs=own, **told)  # type: ignore[no-untyped-call]

    async def discover_master(self, service_name: str) -> Node:
        trouble = ConnectionError(_NOBODY)
        for sentinel in self.sentinels:
            try:
                told: Any = await sentinel.sentinel_get_master_addr_by_name(service_name)
            except AuthenticationError:
                trouble = AuthenticationError(_REFUSED)
            except (ConnectionError, TimeoutError):
                continue
            else:
                if told:
                    return _node(told)
                trouble = MasterNotFoundError(_UNKNOWN.format(service_name))
            finally:
                await sentinel.connection_pool.disconnect()
        raise trouble


def _node(told: tuple[bytes, int]) -> Node:
    return Node(told[0].decode(), int(told[1]))
