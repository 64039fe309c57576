"""A Redis Cluster and a Sentinel on loopback, made by hand: no program but the server's own is needed."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import redis
from redis.crc import key_slot

from tests.support.servers import Server, free_port
from tests.support.waiting import wait_until

PRIMARIES: Final = 3
NODE_TIMEOUT_MS: Final = 1000
"""Until a silent server is taken for dead: a fail-over then takes some 2 s."""
SLOTS: Final = 16384


class StartCluster(Protocol):
    def __call__(self, kind: str | None = None, replicas: int = 1) -> "Cluster": ...


class StartSentinel(Protocol):
    def __call__(self, kind: str | None = None) -> "Watched": ...


class Cluster:
    """Three primaries with as many replicas each; `url` names them all."""

    def __init__(self, kind: str, new_folder: Callable[[], Path], replicas: int = 1) -> None:
        self.servers = [_node(kind, new_folder()) for _ in range(PRIMARIES * (1 + replicas))]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def start(self) -> None:
        for server in self.servers:
            server.start()
        first = self.servers[0]
        for number, server in enumerate(self.servers):
            _ask(server, "SET-CONFIG-EPOCH", number + 1)  # else two would claim one, and settle that for seconds
            if server is not first:
                _ask(server, "MEET", "127.0.0.1", first.port, first.bus_port)
        for number, server in enumerate(self.servers[:PRIMARIES]):
            _ask(server, "ADDSLOTSRANGE", number * SLOTS // PRIMARIES, (number + 1) * SLOTS // PRIMARIES - 1)
        wait_until(self._all_have_met)
        for number, server in enumerate(self.servers[PRIMARIES:]):
            _ask(server, "REPLICATE", _ask(self.servers[number % PRIMARIES], "MYID"))
        wait_until(self.is_whole)

    def _all_have_met(self) -> bool:
        return all(_about(server)["cluster_known_nodes"] == str(len(self.servers)) for server in self.servers)

    def is_whole(self) -> bool:
        """Whether every running server finds all slots served, and every running replica is connected."""
        running = [server for server in self.servers if server.is_running]
        return all(_about(server)["cluster_state"] == "ok" for server in running) and all(
            role[0] == b"master" or role[3] == b"connected" for role in map(_role, running)
        )

    def primary_of(self, key: str) -> Server:
        """Who serves this key now, as the cluster says."""
        slot = key_slot(key.encode())
        for server in self.servers:
            if not server.is_running:
                continue
            for first, last, primary, *_ in _ask(server, "SLOTS"):
                if first <= slot <= last:
                    return next(server for server in self.servers if server.port == primary[1])
        raise AssertionError(f"slot {slot} is served by nobody")

    def names(self, port: int) -> bool:
        """Whether all tell clients of a server at this port."""
        return all(port in {told[2][1] for told in _ask(server, "SLOTS")} for server in self.servers)

    def begin_move(self, key: str) -> tuple[Server, Server]:
        """Let the slot of `key` be on its way to another primary: from where, and whither."""
        slot, source = key_slot(key.encode()), self.primary_of(key)
        target = next(server for server in self.servers[:PRIMARIES] if server is not source)
        _ask(target, "SETSLOT", slot, "IMPORTING", _ask(source, "MYID"))
        _ask(source, "SETSLOT", slot, "MIGRATING", _ask(target, "MYID"))
        return source, target

    def move(self, key: str) -> tuple[Server, Server]:
        """Hand the slot of `key` over to another primary, with the keys in it."""
        slot = key_slot(key.encode())
        source, target = self.begin_move(key)
        if keys := _ask(source, "GETKEYSINSLOT", slot, 1000):
            with source.client() as client:
                client.migrate("127.0.0.1", target.port, keys, 0, 5000)
        for server in (target, source):
            _ask(server, "SETSLOT", slot, "NODE", _ask(target, "MYID"))
        return source, target

    def kill(self) -> None:
        for server in self.servers:
            server.kill()


class Watched:
    """A primary with one replica, and one Sentinel who watches them; `url` is how a client finds the primary."""

    NAME: Final = "metrics"

    def __init__(self, kind: str, new_folder: Callable[[], Path], password: str = "") -> None:
        self.one, self.other = Server(kind, new_folder()), Server(kind, new_folder())
        asks = ("--requirepass", password) if password else ()
        self._sentinel = Server(kind, new_folder(), asks, sentinel=True)
        login = f"?sentinel_password={password}" if password else ""
        self.url = f"redis+sentinel://127.0.0.1:{self._sentinel.port}/{self.NAME}{login}"
        self._password = password

    def start(self) -> None:
        for server in (self.one, self.other):
            server.start()
        with self.other.client() as client:
            client.replicaof("127.0.0.1", self.one.port)
        wait_until(lambda: _role(self.other)[3] == b"connected")
        self._sentinel.start()
        with self.ask() as client:
            client.execute_command("SENTINEL", "MONITOR", self.NAME, "127.0.0.1", self.one.port, 1)
            for name, value in (("down-after-milliseconds", 1000), ("failover-timeout", 3000)):
                client.execute_command("SENTINEL", "SET", self.NAME, name, value)
            wait_until(lambda: client.execute_command("SENTINEL", "REPLICAS", self.NAME))

    def ask(self) -> redis.Redis:
        """A client of the Sentinel."""
        return redis.Redis(port=self._sentinel.port, password=self._password or None, protocol=2)

    def primary(self) -> int:
        """The port of the server that the Sentinel names."""
        with self.ask() as client:
            return int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)[1])

    def kill(self) -> None:
        for server in (self._sentinel, self.one, self.other):
            server.kill()


def _node(kind: str, folder: Path) -> Server:
    bus = free_port()  # by default 10,000 above the port, which may be no port at all
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-replica-validity-factor", "0")
    server = Server(kind, folder, (*options, "--cluster-node-timeout", str(NODE_TIMEOUT_MS)))
    server.bus_port = bus
    return server


def _ask(server: Server, *words: Any) -> Any:
    with server.client() as client:
        return client.execute_command("CLUSTER", *words)


def _about(server: Server) -> dict[str, str]:
    told = _ask(server, "INFO")
    if isinstance(told, dict):
        return {str(name): str(value) for name, value in told.items()}
    lines = (told.decode() if isinstance(told, bytes) else str(told)).split()
    return dict(line.split(":", 1) for line in lines)


def _role(server: Server) -> Any:
    with server.client() as client, suppress(redis.ConnectionError):
        return client.execute_command("ROLE")
    return [b"", b"", b"", b""]
