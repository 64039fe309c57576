"""Where the server is, whether it may be used, and that nothing is ever sent twice."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import msgspec
import pytest
import redis

from tests.support.proxy import StartProxy
from tests.support.servers import Server, StartServer
from vibezen.metrics.config import load
from vibezen.metrics.connection import (
    DEFAULT_URL,
    Endpoint,
    check_server,
    check_suitable,
    connect,
    connect_async,
    endpoint_file,
    is_refusal,
    redacted,
    redis_url,
    running_endpoint,
    server_info,
)
from vibezen.metrics.errors import ConfigError, MetricsError, ServerUnavailable, ServerUnsuitable


def announce(pid: int, url: str = "unix:///run/up.sock") -> None:
    endpoint_file().parent.mkdir(parents=True, exist_ok=True)
    endpoint_file().write_bytes(msgspec.json.encode(Endpoint(url, pid, "/store", "http://localhost:8080")))


def line_of(error: pytest.ExceptionInfo[MetricsError]) -> str:
    line = str(error.value)
    assert "\n" not in line
    return line


def refusal(url: str) -> str:
    """The one line for a server that cannot be used."""
    with pytest.raises(MetricsError) as refused, connect(url) as client:
        check_server(client, url)
    return line_of(refused)


def test_setting_wins_over_a_running_up_over_the_usual_port() -> None:
    settings = load(environ={})
    assert redis_url(settings) == DEFAULT_URL
    announce(os.getpid())
    assert redis_url(settings) == "unix:///run/up.sock"
    assert redis_url(load(environ={}, redis_url="redis://elsewhere")) == "redis://elsewhere"


def test_endpoint_of_a_dead_up_is_ignored() -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    announce(dead.pid)
    assert running_endpoint() is None
    endpoint_file().write_text("{")
    assert running_endpoint() is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:secret@host:1/0", "redis://me:***@host:1/0"),
        ("redis://:s@cr/et?@host", "redis://:***@host"),
        ("unix:///a/b.sock?db=0&password=secret", "unix:///a/b.sock?db=0&password=***"),
        ("redis://[::1:secret@x", "redis://[:***@x"),
        ("redis://me@host", "redis://me@host"),
        ("unix:///a:b/c.sock", "unix:///a:b/c.sock"),
    ],
)
def test_password_is_never_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize(
    "url",
    ["", "http://host", "redis://host:port", "redis://[::1", "redis://host?tiemout=1", "rediss://h?ssl_cert_reqs=x"],
)
def test_impossible_address_is_a_configuration_error(url: str) -> None:
    for make in (connect, connect_async):
        with pytest.raises(ConfigError) as refused:
            make(url)
        assert line_of(refused).startswith(f"redis.url = {url!r}: ")


def test_nobody_there_is_one_line() -> None:
    assert refusal("redis://127.0.0.1:1") == "redis://127.0.0.1:1: no Redis or Valkey answers: connection refused"
    assert refusal("redis://no.invalid").endswith("the host name is not known")
    assert refusal("unix:///none.sock").endswith("no such file or directory")


def test_server_is_told_apart_and_accepted(any_server: Server) -> None:
    with connect(any_server.url) as client:
        found = check_server(client, any_server.url)
    assert found.kind == any_server.kind
    assert found.run_id
    assert found.used_memory > 0


@pytest.mark.parametrize(
    ("info", "named"),
    [
        ({"redis_version": "6.2.14"}, "Redis 6.2.14 is too old; 7.0"),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.8"}, "Valkey 7.2.8 is too old; 8.0"),
        ({"redis_version": "7.0.0", "maxmemory": 1, "maxmemory_policy": "allkeys-lru"}, "it must be noeviction"),
    ],
)
def test_old_and_forgetful_servers_are_refused(info: dict[str, object], named: str) -> None:
    with pytest.raises(ServerUnsuitable, match=named) as refused:
        check_suitable(server_info(info), "redis://:secret@host")
    assert "secret" not in line_of(refused)


@pytest.mark.parametrize(
    "info",
    [
        {"redis_version": "7.0.0"},
        {"redis_version": "255.255.255"},
        {"redis_version": "7.2.4", "valkey_version": "8.0.0-rc1"},
        {"redis_version": "7.0.0", "maxmemory": 0, "maxmemory_policy": "allkeys-lru"},
    ],
)
def test_new_enough_servers_are_accepted(info: dict[str, object]) -> None:
    check_suitable(server_info(info), "redis://host")


def test_wrong_password_is_one_line_without_it(start_server: StartServer) -> None:
    server = start_server()
    with server.client() as client:
        client.config_set("requirepass", "right")
    port = server.url.rpartition(":")[2]
    assert "refuses this user or password" in refusal(f"redis://:wrong@127.0.0.1:{port}")
    assert "refuses this user or password" in refusal(f"redis://127.0.0.1:{port}")
    with connect(f"redis://:right@127.0.0.1:{port}") as client:
        check_server(client, "")


def test_unix_socket_serves(start_server: StartServer) -> None:
    with tempfile.TemporaryDirectory() as short:  # a test's own folder is often longer than a socket's name may be
        start_server(None, "--unixsocket", f"{short}/s")
        with connect(f"unix://{short}/s") as client:
            assert client.ping()


def certificate(folder: Path) -> tuple[Path, Path]:
    """Key and certificate of 127.0.0.1, which is its own authority."""
    if shutil.which("openssl") is None:
        pytest.fail("this test makes a certificate: apt install openssl")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*new, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return key, cert


def test_tls_is_used_and_foreign_certificates_are_refused(start_server: StartServer, tmp_path: Path) -> None:
    key, cert = certificate(tmp_path)
    options = ("--tls-auth-clients", "no", "--tls-cert-file", str(cert), "--tls-key-file", str(key))
    server = start_server("redis", "--tls-port", "0", *options)
    with server.client() as client:  # after the start, so that the plain port tells the test when it is ready
        port = free_port()
        client.config_set("tls-port", port)
    trusted = f"rediss://127.0.0.1:{port}?ssl_ca_certs={cert}"
    with connect(trusted) as client:
        check_server(client, trusted)
    assert "certificate" in refusal(f"rediss://127.0.0.1:{port}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_lost_reply_is_told_and_nothing_is_sent_again(
    client: redis.Redis, redis_url: str, start_proxy: StartProxy
) -> None:
    proxy = start_proxy(redis_url)
    proxy.cut(b"INCR")
    with connect(proxy.url) as ours, pytest.raises(redis.ConnectionError):
        ours.incr("n")
    assert client.get("n") == b"1"


def test_lost_reply_in_an_event_loop_too(client: redis.Redis, redis_url: str, start_proxy: StartProxy) -> None:
    proxy = start_proxy(redis_url)
    proxy.cut(b"INCR")

    async def increment() -> None:
        async with connect_async(proxy.url) as ours:
            await ours.incr("n")

    with pytest.raises(redis.ConnectionError):
        asyncio.run(increment())
    assert client.get("n") == b"1"


def test_silent_server_is_unavailable(redis_url: str, start_proxy: StartProxy) -> None:
    proxy = start_proxy(redis_url)
    proxy.go_down()
    with pytest.raises(ServerUnavailable), connect(proxy.url) as client:
        check_server(client, proxy.url)


def test_a_server_that_takes_no_writes_for_now_is_told_from_a_mistake(start_server: StartServer) -> None:
    server = start_server()
    with connect(server.url) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.RedisError) as full:
            client.set("a", 1)
        client.config_set("maxmemory", 0)
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(redis.RedisError) as replica:
            client.set("a", 1)
        client.execute_command("REPLICAOF", "no", "one")
        client.set("a", 1)
        with pytest.raises(redis.RedisError) as mistake:
            client.hget("a", "b")
    assert [is_refusal(found.value) for found in (full, replica, mistake)] == [True, True, False]


async def _closed(self: object) -> bool:
    raise OSError("Buffer is closed.")


async def _closed_for_uvloop(self: object, command: object) -> None:
    raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")


@pytest.mark.parametrize(
    ("broken", "how", "told"),
    [
        ("can_read", _closed, "Buffer is closed"),
        ("_send_packed_command", _closed_for_uvloop, "the handler is closed"),
    ],
    ids=["looking", "writing"],
)
@pytest.mark.parametrize(
    "url", [None, "redis+cluster://{}", "redis+sentinel://{}/main"], ids=["one", "cluster", "sentinel"]
)
def test_a_connection_that_was_closed_meanwhile_is_told_as_one(
    redis_url: str, url: str | None, broken: str, how: object, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py's second look at a connection raises an OSError, and uvloop a RuntimeError for who writes to it."""

    async def there(self: object, *_: object) -> tuple[str, int]:
        return "127.0.0.1", int(redis_url.rpartition(":")[2].partition("/")[0])

    async def ask() -> None:
        address = redis_url.partition("//")[2].partition("/")[0]
        async with connect_async(url.format(address) if url else redis_url) as ours:
            await ours.get("n")

    monkeypatch.setattr(f"redis.asyncio.connection.AbstractConnection.{broken}", how)
    monkeypatch.setattr("vibezen.metrics.sentinel._AsyncSentinels.discover_master", there)
    with pytest.raises(redis.ConnectionError, match=told):
        asyncio.run(ask())
