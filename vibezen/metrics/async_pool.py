"""Connection pools for event loops, which tell of a broken connection as the ones for threads do."""

import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError


class Pool(redis.asyncio.ConnectionPool):
    """redis-py looks twice at a connection before it lends it out, and lets an error of the second look through as it
    is: a plain OSError, which who waits for a server to come back takes for a broken disk."""

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        try:
            await super().ensure_connection(connection)
        except OSError as error:
            raise ConnectionError(f"Connection closed while it was made: {error}") from None


class SentinelPool(Pool, SentinelConnectionPool):
    """The same for the primary that Sentinels name."""
