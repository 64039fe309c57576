"""Which server of a Redis Cluster a command goes to. Shared by the client for threads and the one for event loops.

Nothing here is asked of a server: where a key lives follows from its hash tag, and who serves that slot from the last
answer of CLUSTER SLOTS, corrected by MOVED.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import ClusterDownError, ConnectionError, MovedError

from vibezen.metrics.address import Node

Slot = int
Command = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments and options, as redis-py's pipelines keep them."""

HOME: Final[Slot] = key_slot(b"meta")
"""Commands without a key go to the server of the keys {meta}, so that TIME is the clock their scripts use."""
KEYLESS: Final = frozenset({"INFO", "TIME", "PING", "CONFIG GET", "COMMAND INFO", "ACL WHOAMI"})
WAITS: Final = frozenset({"WAIT", "WAITAOF"})
"""They speak of the writes of their connection, and go where the command before them went."""
CONTAINERS: Final = frozenset({"XINFO", "XGROUP", "MEMORY", "OBJECT"})
"""Their second word is still the command's name."""
REDIRECTIONS: Final = 8
"""How often a command is sent on to another server, before the cluster is taken to be in disorder."""


class ServerReplaced(ConnectionError):
    """Another server serves what this client used before, and may lack what the other had acknowledged.

    Told as a lost connection, because the right answer is the same: start anew from what is committed.
    """


def slot_of(key: str | bytes) -> Slot:
    return key_slot(key.encode() if isinstance(key, str) else key)


def slot_of_command(args: Sequence[Any]) -> Slot | None:
    """None for a command that goes where the one before it went. Raises ValueError where no rule says where it goes."""
    name = str(args[0]).upper()
    if name in WAITS:
        return None
    if name in KEYLESS or (len(args) > 1 and f"{name} {args[1]}".upper() in KEYLESS):
        return HOME
    at = 1
    if name in ("EVAL", "EVALSHA"):
        at = 3
    elif name in ("XREAD", "XREADGROUP"):
        at = next(index for index, part in enumerate(args) if part in (b"STREAMS", "STREAMS")) + 1
    elif name in CONTAINERS:
        at = 2
    elif name.startswith(("SCAN", "SCRIPT", "FLUSH", "DBSIZE", "KEYS", "CLIENT", "CONFIG", "CLUSTER")):
        raise ValueError(f"{name} concerns one server: ask each of primaries()")
    return slot_of(args[at])


def by_slot(streams: Mapping[Any, Any]) -> list[dict[Any, Any]]:
    """Streams apart that one call cannot read together, in their order."""
    parts: dict[Slot, dict[Any, Any]] = {}
    for name, position in streams.items():
        parts.setdefault(slot_of(name), {})[name] = position
    return list(parts.values())


class SlotMap:
    """Who serves what. `told`: the answer of CLUSTER SLOTS; `asked`: who gave it."""

    def __init__(self, told: Iterable[Any], asked: Node) -> None:
        self._ranges: list[tuple[Slot, Slot, Node]] = []
        self._moved: dict[Slot, Node] = {}
        self.nodes: set[Node] = set()
        """Every server there is, replicas among them."""
        for first, last, *servers in told:
            nodes = [_node(server, asked) for server in servers]
            self._ranges.append((int(first), int(last), nodes[0]))
            self.nodes.update(nodes)

    def primary(self, slot: Slot) -> Node | None:
        if slot in self._moved:
            return self._moved[slot]
        return next((node for first, last, node in self._ranges if first <= slot <= last), None)

    def primaries(self) -> list[Node]:
        """Every server that serves anything."""
        return list(dict.fromkeys([*(node for _, _, node in self._ranges), *self._moved.values()]))

    def move(self, slot: Slot, node: Node) -> None:
        self._moved[slot] = node


def _node(told: Sequence[Any], asked: Node) -> Node:
    host = told[0].decode() if isinstance(told[0], bytes) else told[0]
    return Node(host or asked.host, int(told[1]))  # without a name of its own it is where we reached it


class Routes:
    """What one client knows of its cluster. Not for several threads."""

    def __init__(self, seeds: Sequence[Node], *, notice: bool) -> None:
        """`notice`: raise ServerReplaced where a slot that was used is served by another server."""
        self._seeds, self._notice = seeds, notice
        self._map: SlotMap | None = None
        self._known: list[Node] = []
        self._suspect: Node | None = None
        self._used: dict[Slot, Node] = {}

    @property
    def are_known(self) -> bool:
        return self._map is not None

    def sources(self) -> list[Node]:
        """Who may be asked for the map, in this order: any that is known, the one that failed last at the end."""
        known = random.sample(self._known, len(self._known))
        found = dict.fromkeys([*known, *self._seeds])
        return sorted(found, key=lambda node: node == self._suspect)

    def learn(self, told: Iterable[Any], asked: Node) -> None:
        self._map = SlotMap(told, asked)
        self._known = list(self._map.nodes)

    def primaries(self) -> list[Node]:
        assert self._map is not None
        return self._map.primaries()

    def find(self, slot: Slot) -> Node:
        """Who serves it. Raises ClusterDownError when nobody does, ServerReplaced as told above."""
        assert self._map is not None
        node = self._map.primary(slot)
        if node is None:
            self.forget(None)
            raise ClusterDownError(f"CLUSTERDOWN slot {slot} is served by nobody", status_code="CLUSTERDOWN")
        used = self._used.get(slot, node)
        if self._notice and used != node:
            self._used.clear()
            raise ServerReplaced(f"{node} has taken the place of {used}")
        return node

    def used(self, slot: Slot | None, node: Node) -> None:
        """It has answered."""
        if slot is not None:
            self._used[slot] = node

    def move(self, moved: MovedError, asked: Node) -> None:
        assert self._map is not None
        self._map.move(moved.slot_id, Node(moved.host or asked.host, moved.port))

    def forget(self, failed: Node | None) -> None:
        """After an error the map is asked for anew, and nothing is believed of the servers used before: whoever caught
        the error knows."""
        self._map, self._suspect = None, failed
        self._used.clear()
