"""Clients of the primary that Sentinels name. Each new connection asks them anew; nothing is sent again by itself."""

from collections.abc import Mapping
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.exceptions import ConnectionError, TimeoutError
from redis.sentinel import MasterNotFoundError, Sentinel

from vibezen.metrics.address import Address, Node
from vibezen.metrics.slots import ServerReplaced


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
    found: redis.asyncio.Redis = sentinels.master_for(address.service)
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
        is_there = False
        for sentinel in self.sentinels:
            try:
                known: Any = sentinel.sentinel_masters()
            except (ConnectionError, TimeoutError):
                continue
            finally:
                sentinel.connection_pool.disconnect()  # they are rarely asked, and nobody would close it
            is_there = True
            state = known.get(service_name)
            if state and self.check_master_state(state, service_name):  # type: ignore[no-untyped-call]
                return self._noticed(Node(state["ip"], state["port"]))
        raise _not_found(service_name, is_there=is_there)

    def _noticed(self, primary: Node) -> Node:
        before, self._used = self._used or primary, primary
        if before != primary:
            raise ServerReplaced(f"{primary} has taken the place of {before}")
        return primary


class _AsyncSentinels(AsyncSentinel):
    def __init__(self, address: Address, own: dict[str, Any], told: dict[str, Any]) -> None:
        super().__init__(address.nodes, sentinel_kwargs=own, **told)  # type: ignore[no-untyped-call]

    async def discover_master(self, service_name: str) -> Node:
        is_there = False
        for sentinel in self.sentinels:
            try:
                known: Any = await sentinel.sentinel_masters()
            except (ConnectionError, TimeoutError):
                continue
            finally:
                await sentinel.connection_pool.disconnect()
            is_there = True
            state = known.get(service_name)
            if state and self.check_master_state(state, service_name):
                return Node(state["ip"], state["port"])
        raise _not_found(service_name, is_there=is_there)


def _not_found(service: str, *, is_there: bool) -> MasterNotFoundError:
    what = f"no primary by the name {service!r} is up, say the Sentinels" if is_there else "no Sentinel answers"
    return MasterNotFoundError(what)
