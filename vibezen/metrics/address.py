"""Where the server is: what `redis.url` may say.

    redis://[[user]:password@]host[:port][/db]                    one server; rediss:// with TLS
    unix://path?db=0                                              one server on this machine
    redis+cluster://[[user]:password@]host[:port][,…]             a Redis Cluster, by some of its nodes
    redis+sentinel://[[user]:password@]host[:port][,…]/name[/db]  the primary that Sentinels know by this name

The last two begin with rediss+ for TLS. Options follow `?` as redis-py names them; user and password are the
servers', a Sentinel's own are the options `sentinel_username` and `sentinel_password`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

import redis
from redis.connection import parse_url

SERVER: Final = "server"
CLUSTER: Final = "cluster"
SENTINEL: Final = "sentinel"
SCHEMES: Final = ("redis", "rediss", "unix")
SPREAD_SCHEMES: Final = tuple(f"{base}+{kind}" for base in ("redis", "rediss") for kind in (CLUSTER, SENTINEL))
FORMS: Final = "redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://"
CLUSTER_PORT: Final = 6379
SENTINEL_PORT: Final = 26379


class Node(NamedTuple):
    """One server's address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Address(NamedTuple):
    """`nodes`: of a cluster, or the Sentinels. `options`: for connections to the servers, as redis-py takes them;
    `sentinel_options`: what differs for those to Sentinels. `service`: the name Sentinels know the primary by. Of one
    server only the kind is told: redis-py reads its address itself."""

    kind: str
    nodes: tuple[Node, ...] = ()
    tls: bool = False
    options: Mapping[str, Any] = {}
    service: str = ""
    sentinel_options: Mapping[str, Any] = {}


def parse_address(url: str) -> Address:
    """Raises ValueError, TypeError or RedisError for what can be no address; asks nobody."""
    scheme, _, rest = url.partition("://")
    if scheme not in (*SCHEMES, *SPREAD_SCHEMES):
        raise ValueError(f"expected {FORMS}")
    place, path, query = _parts(rest)
    if scheme != "unix" and ":" in place and "@" not in place and "@" in rest:
        raise ValueError("what user and password hold of / ? and # must be percent-encoded")  # and not shown as a port
    if scheme in SCHEMES:
        _options(url)
        return Address(SERVER)
    base, _, kind = scheme.partition("+")
    tls = base == "rediss"
    login, at, hosts = place.rpartition("@")
    one = f"{base}://{login}{at}localhost"
    if kind == CLUSTER:
        options = _options(f"{one}?{query}")
        if options.pop("db", 0) or path.strip("/") not in ("", "0"):
            raise ValueError("a cluster has no databases")
        return Address(kind, _nodes(hosts, CLUSTER_PORT), tls, options)
    service, _, db = path.strip("/").partition("/")
    if not service:
        raise ValueError("the name of the primary is missing: redis+sentinel://host/name")
    if not re.fullmatch("[0-9]*", db):
        raise ValueError(f"/{db} is no number of a database")
    query, own = _sentinel_login(query)
    options = _options(f"{one}/{db}?{query}")
    return Address(kind, _nodes(hosts, SENTINEL_PORT), tls, options, unquote(service), own)


def _parts(rest: str) -> tuple[str, str, str]:
    """Login and hosts, path, query."""
    found = re.fullmatch(r"([^/?#]*)([^?#]*)\??([^#]*).*", rest, re.DOTALL)
    assert found is not None
    return found[1], found[2], found[3]


def _options(url: str) -> dict[str, Any]:
    """What redis-py reads from the address of one server but for where it is. Sees that a connection can be made."""
    options: dict[str, Any] = {**parse_url(url)}  # type: ignore[no-untyped-call]
    # Building one connects to nothing; a pool would fail on a misspelt option only when it is first used.
    options.pop("connection_class", redis.Connection)(**options)
    return {name: value for name, value in options.items() if name not in ("host", "port")}


def _nodes(hosts: str, port: int) -> tuple[Node, ...]:
    nodes = []
    for host in hosts.split(","):
        told: dict[str, Any] = {**parse_url(f"redis://{host}")}  # type: ignore[no-untyped-call]
        if "host" not in told:
            raise ValueError("a host is missing")
        nodes.append(Node(told["host"], told.get("port", port)))
    return tuple(nodes)


def _sentinel_login(query: str) -> tuple[str, dict[str, str]]:
    """The query without the login of the Sentinels, and that login."""
    options = parse_qsl(query, keep_blank_values=True)
    own = {name.partition("_")[2]: value for name, value in options if name.startswith("sentinel_")}
    if unknown := own.keys() - {"username", "password"}:
        raise ValueError(f"sentinel_{min(unknown)} is no option")
    return urlencode([pair for pair in options if not pair[0].startswith("sentinel_")]), own
