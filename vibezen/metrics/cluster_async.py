"""A client of a Redis Cluster for an event loop; see cluster.py for why it is ours.

It follows a slot to another server without a word: who reads through it looks for itself whether a stream is still the
one it knew.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.exceptions import AskError, ClusterDownError, ConnectionError, MovedError, RedisError, TimeoutError

from vibezen.metrics.address import Address, Node
from vibezen.metrics.async_pool import Pool
from vibezen.metrics.cluster import GONE
from vibezen.metrics.slots import REDIRECTIONS, Command, Routes, Slot, slot_of_command


class AsyncClusterClient(redis.asyncio.Redis):
    """Commands and pipelines as of one server, for many tasks at once. Its pipelines are never transactions."""

    def __init__(self, address: Address, options: Mapping[str, Any]) -> None:
        self._options = {
            **options,
            "connection_class": redis.asyncio.SSLConnection if address.tls else redis.asyncio.Connection,
        }
        self._routes = Routes(address.nodes, notice=False)
        self._servers: dict[Node, redis.asyncio.Redis] = {}
        self._looking = asyncio.Lock()
        super().__init__(
            connection_pool=self._pool(address.nodes[0])
        )  # for what redis-py reads from a pool; never connected

    async def primaries(self) -> list[redis.asyncio.Redis]:
        """A client of every server that serves any slot, asked for anew: what they fail at, we do not hear of."""
        await self._look(anew=True)
        return [self._server(node) for node in self._routes.primaries()]

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        slot = _slot(args)
        for _ in range(REDIRECTIONS):
            node = await self._find(slot)
            try:
                return await _execute(self._server(node), args, options)
            except MovedError as moved:
                self._moved(moved, node)
            except AskError as ask:
                return await self._ask(ask, node, (args, options))
            except GONE:
                self._routes.forget(node)
                raise
        raise ClusterDownError("CLUSTERDOWN its servers send us in circles", status_code="CLUSTERDOWN")

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        assert not transaction, "not needed so far"
        return _Pipeline(self)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        servers, self._servers = self._servers, {}
        for server in servers.values():
            with suppress(RedisError, OSError):
                await server.aclose()
        await super().aclose(close_connection_pool)

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, errors of servers among them. The servers work at the same time."""
        places: dict[Node, list[int]] = {}
        for index, (args, _) in enumerate(commands):
            places.setdefault(await self._find(_slot(args)), []).append(index)
        parts = [[commands[index] for index in indexes] for indexes in places.values()]
        found = await asyncio.gather(*map(self._run_at, places, parts))
        answers: list[Any] = [None] * len(commands)
        for indexes, part in zip(places.values(), found, strict=True):
            for index, answer in zip(indexes, part, strict=True):
                answers[index] = await self._again(commands[index]) if isinstance(answer, AskError) else answer
        return answers

    async def _run_at(self, node: Node, commands: Sequence[Command]) -> list[Any]:
        pipe = self._server(node).pipeline(transaction=False)
        for args, options in commands:
            pipe.execute_command(*args, **options)
        try:
            answers = await pipe.execute(raise_on_error=False)
        except GONE:
            self._routes.forget(node)
            raise
        for answer in answers:
            if isinstance(answer, MovedError):
                self._moved(answer, node)
            elif isinstance(answer, ClusterDownError):
                self._routes.forget(node)
        return answers

    async def _again(self, command: Command) -> Any:
        """A command that its server did not act on."""
        args, options = command
        try:
            return await self.execute_command(*args, **options)
        except GONE:
            raise
        except RedisError as error:
            return error

    async def _ask(self, ask: AskError, asked: Node, command: Command) -> Any:
        """The slot is on its way to another server, which takes the command if it is told so."""
        _, answer = await self._run_at(Node(ask.host or asked.host, ask.port), [(("ASKING",), {}), command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _moved(self, moved: MovedError, asked: Node) -> None:
        if self._routes.are_known:  # another task may have met a dead server meanwhile
            self._routes.move(moved, asked)

    async def _find(self, slot: Slot) -> Node:
        await self._look()
        return self._routes.find(slot)

    async def _look(self, *, anew: bool = False) -> None:
        """Ask for the map, where it is not known or asked for anew; raises the last error when nobody answers."""
        async with self._looking:
            error: Exception | None = None
            for node in self._routes.sources() if anew or not self._routes.are_known else ():
                try:
                    told = await _execute(self._server(node), ("CLUSTER SLOTS",), {})
                except (ConnectionError, TimeoutError) as failed:
                    error = failed
                else:
                    self._routes.learn(told, node)
                    return
            if error is not None:
                raise error

    def _server(self, node: Node) -> redis.asyncio.Redis:
        if node not in self._servers:
            self._servers[node] = redis.asyncio.Redis.from_pool(self._pool(node))
        return self._servers[node]

    def _pool(self, node: Node) -> redis.asyncio.ConnectionPool:
        return Pool(**{**self._options, "host": node.host, "port": node.port})


class _Pipeline(Pipeline):
    """Collects commands; `execute` lets the cluster's client send them."""

    def __init__(self, cluster: AsyncClusterClient) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, False, None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands: Any = self.command_stack
        self.command_stack = []
        if not commands:
            return []
        answers = await self._cluster.run(commands)
        if raise_on_error:
            self.raise_first_error(commands, answers)
        return answers


def _slot(args: Sequence[Any]) -> Slot:
    slot = slot_of_command(args)
    if slot is None:
        raise ValueError(f"{args[0]} speaks of one connection, and tasks share them")
    return slot


def _execute(client: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """redis-py leaves it untyped."""
    return client.execute_command(*args, **options)
