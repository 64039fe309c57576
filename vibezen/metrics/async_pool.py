"""Connection pools for event loops, which tell of a broken connection as the ones for threads do: by an error of
redis-py's own. Who waits for a server to come back must not take it for a broken disk, or for a mistake of ours."""

from collections.abc import Iterable

import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError


class Pool(redis.asyncio.ConnectionPool):
    """redis-py looks twice at a connection before it lends it out, and lets an error of the second look through as the
    OSError that it is."""

    def make_connection(self) -> AbstractConnection:
        self.connection_class = _telling(self.connection_class)
        made: AbstractConnection = super().make_connection()  # type: ignore[no-untyped-call]
        return made

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        try:
            await super().ensure_connection(connection)
        except OSError as error:
            raise ConnectionError(f"Connection closed while it was made: {error}") from None


class SentinelPool(Pool, SentinelConnectionPool):
    """The same for the primary that Sentinels name."""


class _Telling(AbstractConnection):
    """uvloop has a RuntimeError for who writes to what was closed meanwhile; asyncio's own loop an OSError, which
    redis-py knows."""

    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        try:
            await super()._send_packed_command(command)
        except RuntimeError as error:
            raise ConnectionResetError(str(error)) from None


_made: dict[type[AbstractConnection], type[AbstractConnection]] = {}


def _telling(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """The same kind of connection, which tells."""
    if issubclass(kind, _Telling):
        return kind
    return _made.setdefault(kind, type(kind.__name__, (_Telling, kind), {}))
