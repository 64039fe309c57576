"""A client of a Redis Cluster for one thread.

redis-py's own connects when it is made, asks the server where the keys of an XREAD are before every XREAD, sends again
what was in a pipeline when a connection broke, and tells of an unreachable cluster by errors that are not its others'.
This one keeps our rule: nothing is ever sent again unless a server said that it did not act on it. It only finds the
server; everything else is that server's plain client.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis
from redis.client import Pipeline
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from vibezen.metrics.address import Address, Node
from vibezen.metrics.slots import HOME, REDIRECTIONS, WAITS, Command, Routes, Slot, slot_of_command

GONE = (ConnectionError, TimeoutError, ClusterDownError)
"""After these, who serves what may have changed."""


class ClusterClient(redis.Redis):
    """Commands, scripts and pipelines as of one server; what one call touches must lie in one slot, but for pipelines
    without a transaction. `options` are those of each server's connections.

    Raises what a plain client does, and ServerReplaced, once, when a slot it used is served by another server now.
    """

    def __init__(self, address: Address, options: Mapping[str, Any]) -> None:
        self._options = {**options, "connection_class": redis.SSLConnection if address.tls else redis.Connection}
        self._routes = Routes(address.nodes, notice=True)
        self._servers: dict[Node, redis.Redis] = {}
        self._last: Node | None = None
        super().__init__(
            connection_pool=self._pool(address.nodes[0])
        )  # for what redis-py reads from a pool; never connected

    def primaries(self) -> list[redis.Redis]:
        """A client of every server that serves any slot, asked for anew: what they fail at, we do not hear of."""
        self._look(anew=True)
        return [self._server(node) for node in self._routes.primaries()]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        slot = slot_of_command(args)
        for _ in range(REDIRECTIONS):
            node = self._find(slot)
            try:
                answer = _execute(self._server(node), args, options)
            except MovedError as moved:
                self._routes.move(moved, node)
            except AskError as ask:
                return self._ask(ask, node, (args, options))
            except GONE:
                self._routes.forget(node)
                raise
            else:
                self._routes.used(slot, node)
                return answer
        raise ClusterDownError("CLUSTERDOWN its servers send us in circles", status_code="CLUSTERDOWN")

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        return _Pipeline(self, transaction)

    def close(self) -> None:
        servers, self._servers = getattr(self, "_servers", {}), {}
        for server in servers.values():
            with suppress(RedisError, OSError):
                server.close()
        super().close()

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, errors of servers among them. Each server gets its commands at once, in their order."""
        answers: list[Any] = [None] * len(commands)
        slots = [slot_of_command(args) for args, _ in commands]
        for node, indexes in self._places(slots).items():
            found = self._run_at(node, [commands[index] for index in indexes])
            again = False
            for index, answer in zip(indexes, found, strict=True):
                args, options = commands[index]
                # What waits for replication belongs to the write before it, wherever that was sent on to.
                again = isinstance(answer, AskError) or (again and args[0] in WAITS)
                answers[index] = self._again(args, options) if again else answer
                if not again:
                    self._routes.used(slots[index], node)
        return answers

    def _places(self, slots: Sequence[Slot | None]) -> dict[Node, list[int]]:
        """Which of some commands go to which server."""
        places: dict[Node, list[int]] = {}
        for index, slot in enumerate(slots):
            places.setdefault(self._find(slot), []).append(index)
        return places

    def run_transaction(self, commands: Sequence[Command]) -> list[Any]:
        """All or none of them: their keys must lie in one slot."""
        slot = slot_of_command(commands[0][0])
        for _ in range(REDIRECTIONS):
            node = self._find(slot)
            try:
                answers = self._run_at(node, commands, transaction=True)
            except MovedError as moved:
                self._routes.move(moved, node)
            except AskError as ask:
                raise TryAgainError(f"TRYAGAIN {ask}", status_code="TRYAGAIN") from None
            else:
                self._routes.used(slot, node)
                return answers
        raise ClusterDownError("CLUSTERDOWN its servers send us in circles", status_code="CLUSTERDOWN")

    def _run_at(self, node: Node, commands: Sequence[Command], *, transaction: bool = False) -> list[Any]:
        pipe = self._server(node).pipeline(transaction=transaction)
        for args, options in commands:
            _execute(pipe, args, options)
        try:
            answers = pipe.execute(raise_on_error=False)
        except GONE:
            self._routes.forget(node)
            raise
        for answer in answers:
            if isinstance(answer, MovedError):
                self._routes.move(answer, node)
            elif isinstance(answer, ClusterDownError):
                self._routes.forget(node)
        return answers

    def _again(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """A command that its server did not act on."""
        try:
            return self.execute_command(*args, **options)
        except GONE:
            raise
        except RedisError as error:
            return error

    def _ask(self, ask: AskError, asked: Node, command: Command) -> Any:
        """The slot is on its way to another server, which takes the command if it is told so."""
        self._last = node = Node(ask.host or asked.host, ask.port)
        _, answer = self._run_at(node, [(("ASKING",), {}), command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _find(self, slot: Slot | None) -> Node:
        if slot is not None or self._last is None:
            self._look()
            self._last = self._routes.find(HOME if slot is None else slot)
        return self._last

    def _look(self, *, anew: bool = False) -> None:
        """Ask for the map, where it is not known or asked for anew; raises the last error when nobody answers."""
        error: Exception | None = None
        for node in self._routes.sources() if anew or not self._routes.are_known else ():
            try:
                told = _execute(self._server(node), ("CLUSTER SLOTS",), {})
            except (ConnectionError, TimeoutError) as failed:
                error = failed
            else:
                self._routes.learn(told, node)
                return
        if error is not None:
            raise error

    def _server(self, node: Node) -> redis.Redis:
        if node not in self._servers:
            self._servers[node] = redis.Redis.from_pool(self._pool(node))
        return self._servers[node]

    def _pool(self, node: Node) -> redis.ConnectionPool:
        return redis.ConnectionPool(**{**self._options, "host": node.host, "port": node.port})


class _Pipeline(Pipeline):
    """Collects commands; `execute` lets the cluster's client send them."""

    def __init__(self, cluster: ClusterClient, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster, self._is_transaction = cluster, transaction

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands, self.command_stack = self.command_stack, []
        if not commands:
            return []
        answers = self._cluster.run_transaction(commands) if self._is_transaction else self._cluster.run(commands)
        if raise_on_error:
            self.raise_first_error(commands, answers)  # type: ignore[no-untyped-call]
        return answers


def _execute(client: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """redis-py leaves it untyped."""
    return client.execute_command(*args, **options)
