"""The doctor against real servers and folders, well and ill: what it sees, and that it says what to do."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from msgspec.structs import replace

from tests.support.feeding import Feed, event
from tests.support.processes import StartRole
from tests.support.servers import SURE, Server, StartServer, default_kind, find_server
from tests.support.serving import dashboard_in_thread
from tests.support.waiting import WaitUntil
from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.config import load
from vibezen.metrics.connection import Endpoint, endpoint_file
from vibezen.metrics.doctor import Finding, Status, examine, pipeline, ports, program, server, store
from vibezen.metrics.errors import ConfigError
from vibezen.metrics.keys import AGGREGATE, ARCHIVE, Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.settings import Dashboard, Settings

Findings = dict[str, Finding]


@contextmanager
def taken_port() -> Iterator[int]:
    """A port on which something listens and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield int(listener.getsockname()[1])


@contextmanager
def other_web_server() -> Iterator[int]:
    """One that answers everything, with JSON that is not ours."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "UP"}')

        def log_message(self, *arguments: Any) -> None:
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Answers) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield int(web.server_port)
        finally:
            web.shutdown()
            thread.join()


def free_port() -> int:
    with taken_port() as number:
        return number


class Examine:
    """`examine(url, folder)`: the findings by name."""

    def __call__(self, url: str, folder: Path, clock: Clock = wall, **settings: Any) -> Findings:
        wanted = replace(
            load(redis_url=url, storage_dir=folder, environ={}), dashboard=Dashboard(port=free_port()), **settings
        )
        return {finding.name: finding for finding in examine(lambda: wanted, clock)}


@pytest.fixture(scope="module", name="server")
def well(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that the doctor has nothing to say about, unlike that of other tests, which forces nothing to disk."""
    server = Server(default_kind(), tmp_path_factory.mktemp("well"), SURE)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def look() -> Examine:
    return Examine()


def status_of(findings: Findings) -> dict[str, str]:
    """Everything that is not well."""
    return {name: str(finding.status) for name, finding in findings.items() if finding.status is not Status.OK}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Layout(tmp_path / "store").create()
    return tmp_path / "store"


def test_a_pipeline_that_works_is_well(
    redis_url: str, client: redis.Redis, folder: Path, look: Examine, start_role: StartRole, wait_until: WaitUntil
) -> None:
    for group in (ARCHIVE, AGGREGATE):
        start_role("consume", group, "--redis-url", redis_url, "--storage-dir", str(folder))
    Feed(client).append([event(1.0)])
    read = [f"{group}.events" for group in (ARCHIVE, AGGREGATE)]
    wait_until(lambda: client.hmget(Keys().books(0), read) == [b"1", b"1"])
    found = look(redis_url, folder)
    assert status_of(found) == {"server memory": "warn"}  # the tests' server has no bound
    assert found["server"].seen == f"{redis_url} answers"
    assert found["store"].seen.endswith("as the server says")
    for group in (ARCHIVE, AGGREGATE):
        assert "0 entries to read, owner " in found[f"group {group}, shard 0"].seen
    assert all(finding.advice for finding in found.values() if finding.status is not Status.OK)


def test_nobody_there_is_one_failure_and_the_rest_is_looked_at(tmp_path: Path, look: Examine) -> None:
    found = look(f"redis://me:secret@127.0.0.1:{free_port()}", tmp_path / "none")
    assert status_of(found) == {"server": "fail", "stream": "unknown", "storage folder": "warn"}
    assert "secret" not in str(found)
    assert "***" in found["server"].seen


def test_a_wrong_configuration_is_a_finding() -> None:
    def broken() -> Settings:
        raise ConfigError("vibezen.yaml: vibezen.metrics.dashboard.port = 'eighty': expected `int`, got `str`")

    *_, last = examine(broken)
    assert (last.name, last.status) == ("configuration", "fail")
    assert "eighty" in last.seen


def test_an_impossible_address_is_a_finding(folder: Path, look: Examine) -> None:
    assert look("http://127.0.0.1", folder)["server"].status == "fail"


# --- the server


def test_a_server_that_evicts_or_keeps_nothing_fails(start_server: StartServer, folder: Path, look: Examine) -> None:
    options = ("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru", "--appendonly", "no")
    found = look(start_server(None, *options).url, folder)
    assert status_of(found) == {"eviction": "fail", "persistence": "fail"}
    assert "maxmemory-policy noeviction" in found["eviction"].advice
    assert "appendonly yes" in found["persistence"].advice


def test_a_policy_without_a_bound_and_an_unsynced_file_are_warned_of(
    start_server: StartServer, folder: Path, look: Examine
) -> None:
    found = look(start_server(None, "--maxmemory-policy", "allkeys-lru", "--appendfsync", "no").url, folder)
    assert status_of(found) == {"eviction": "warn", "persistence": "warn", "server memory": "warn"}


def test_a_full_server_fails(start_server: StartServer, folder: Path, look: Examine) -> None:
    full = start_server(None, "--maxmemory", "200kb")
    assert look(full.url, folder)["server memory"].status == "fail"


def test_a_replica_fails(start_server: StartServer, server: Server, folder: Path, look: Examine) -> None:
    replica = start_server(None, "--replicaof", f"127.0.0.1 {server.port}")
    found = look(replica.url, folder)
    assert found["role of the server"].status == "fail"
    assert str(server.port) in found["role of the server"].seen


def test_what_a_user_may_not_ask_for_is_unknown(start_server: StartServer, folder: Path, look: Examine) -> None:
    own = start_server()
    with own.client() as client:
        client.acl_setuser(
            "little", enabled=True, passwords=["+secret"], keys=["*"], commands=["+ping", "+hello", "+client"]
        )
        client.acl_setuser(
            "more",
            enabled=True,
            passwords=["+secret"],
            keys=["*"],
            commands=["+@read", "+ping", "+hello", "+client", "+info", "+time", "+xinfo"],
        )
    at = f"127.0.0.1:{own.port}/0"
    little = look(f"redis://little:secret@{at}", folder)
    assert {name for name, status in status_of(little).items() if status == "unknown"} >= {
        *("server version", "eviction", "persistence", "clock", "stream")
    }
    assert "fail" not in status_of(little).values()
    assert status_of(look(f"redis://more:secret@{at}", folder)) == {"persistence": "unknown", "server memory": "warn"}
    wrong = look(f"redis://more:wrong@{at}", folder)["server"]
    assert (wrong.status, "wrong" in wrong.seen.replace("WRONGPASS", "")) == ("fail", False)


@pytest.mark.parametrize(
    ("ahead", "status"), [(0.0, "ok"), (0.9, "ok"), (5.0, "warn"), (-5.0, "warn"), (90.0, "fail"), (-90.0, "fail")]
)
def test_a_wrong_clock_is_told(redis_url: str, folder: Path, look: Examine, ahead: float, status: str) -> None:
    found = look(redis_url, folder, lambda: wall() + ahead)["clock"]
    assert found.status == status
    assert ("ahead" in found.seen) == (ahead > 0.5)


def test_a_slow_answer_is_no_wrong_clock() -> None:
    assert server.clock_skew(3.0, 2.5).status == "ok"
    assert server.clock_skew(3.0, 0.5).status == "warn"


@pytest.mark.parametrize(
    ("kind", "number", "version", "security"),
    [
        ("redis", "6.2.24", "fail", "warn"),
        ("redis", "7.0.15", "ok", "warn"),
        ("redis", "7.2.10", "ok", "warn"),
        ("redis", "7.2.16", "ok", "ok"),
        ("redis", "8.0.4", "ok", "warn"),
        ("redis", "8.2.9", "ok", "ok"),
        ("redis", "9.0.0", "ok", "ok"),
        ("valkey", "7.2.12", "fail", "warn"),
        ("valkey", "8.1.5", "ok", "warn"),
        ("valkey", "9.0.3", "ok", "ok"),
        ("valkey", "9.1.2", "ok", "ok"),
    ],
)
def test_versions_are_judged(kind: str, number: str, version: str, security: str) -> None:
    info = {f"{kind}_version": number, "redis_version": "7.2.4" if kind == "valkey" else number}
    assert server.version(info).status == version
    assert server.security(info).status == security


@pytest.mark.parametrize("field", ["aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"])
def test_a_failed_write_fails(field: str) -> None:
    found = server.persistence({"aof_enabled": 1, field: "err"}, "everysec")
    assert found.status == "fail"


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_both_kinds_of_server_are_understood(start_server: StartServer, folder: Path, look: Examine, kind: str) -> None:
    if find_server(kind) is None:
        pytest.skip(f"no {kind} server here")
    found = look(start_server(kind, *SURE, "--maxmemory", "64mb").url, folder)
    assert {name: status for name, status in status_of(found).items() if name != "server security"} == {}
    assert found["server version"].seen.startswith(kind.capitalize())


# --- the stream


def test_a_stalled_group_fails_and_says_what_to_start(
    redis_url: str, client: redis.Redis, folder: Path, look: Examine
) -> None:
    Feed(client).append([event(1.0)])
    client.xgroup_create(Keys().events(0), ARCHIVE, "0")
    found = look(redis_url, folder)
    assert found["group archive, shard 0"].status == "fail"
    assert "1 entry to read, no owner" in found["group archive, shard 0"].seen
    assert "vibezen-metrics consume archive" in found["group archive, shard 0"].advice
    assert found["group aggregate, shard 0"].seen == "the stream has no such group"
    assert found["group aggregate, shard 0"].status == "fail"


def test_a_dead_owner_is_none_once_its_lease_ran_out(
    redis_url: str, client: redis.Redis, folder: Path, look: Examine, start_role: StartRole, wait_until: WaitUntil
) -> None:
    archive = start_role("consume", ARCHIVE, "--redis-url", redis_url, "--storage-dir", str(folder))
    Feed(client).append([event(1.0)])
    wait_until(lambda: client.hget(Keys().books(0), "archive.events") == b"1")
    archive.kill()
    client.pexpire(Keys().lease(0, ARCHIVE), 1)  # it would run out by itself; this only saves the waiting
    wait_until(lambda: not client.exists(Keys().lease(0, ARCHIVE)))
    found = look(redis_url, folder)["group archive, shard 0"]
    assert found.status == "warn", found.seen
    Feed(client, "p2").append([event(2.0)])
    assert look(redis_url, folder)["group archive, shard 0"].status == "fail"


def facts(
    lag: int | None = 0,
    owner: str | None = "me",
    updated: float | None = 100.0,
    pending: int = 0,
    trouble: str | None = None,
) -> Any:
    one = pipeline.GroupFacts(True, lag, pending, owner, updated, trouble)
    return pipeline.ShardFacts(0, 5, {ARCHIVE: one, AGGREGATE: one}, {}, 0)


@pytest.mark.parametrize(
    ("shard", "status"),
    [
        (facts(), "ok"),
        (facts(lag=9, updated=50.0), "ok"),
        (facts(lag=9, updated=10.0), "fail"),
        (facts(lag=None), "unknown"),
        (facts(lag=None, owner=None), "fail"),
        (facts(lag=0, owner=None), "warn"),
        (facts(pending=3), "warn"),
        (facts(lag=9, trouble="no space left on device"), "fail"),
    ],
)
def test_groups_are_judged(shard: Any, status: str) -> None:
    assert pipeline.group(shard, ARCHIVE, 100.0).status == status


def test_foreign_groups_and_dead_letters_are_reported(
    redis_url: str, client: redis.Redis, folder: Path, look: Examine
) -> None:
    Feed(client).append([event(1.0)])
    keys = Keys()
    client.xgroup_create(keys.events(0), "theirs", "0")
    client.hset(keys.dead(0), "1-1/0", "{}")
    found = look(redis_url, folder)
    assert (found["other groups"].status, found["other groups"].seen) == ("warn", "theirs on shard 0 (1 entry to read)")
    assert (found["dead letters"].status, found["dead letters"].seen) == ("warn", "1 on shard 0")
    assert "`vibezen-metrics dead list`" in found["dead letters"].advice
    client.hset(keys.books(0), "archive.dead_unkept", 7)
    assert look(redis_url, folder)["dead letters"].seen == "1 on shard 0 and 7 more that were not kept"


def test_many_shards_that_are_well_are_one_line() -> None:
    shards = [msgspec.structs.replace(facts(), shard=number) for number in range(8)]
    shards[5] = msgspec.structs.replace(facts(lag=4, owner=None), shard=5)
    found = {finding.name: finding for finding in pipeline.checks(shards, 100.0)}
    assert found["group archive"].seen == "7 of 8 shards are read"
    assert found["group archive, shard 5"].status == "fail"
    assert "group archive, shard 4" not in found


def test_every_shard_ever_used_is_looked_at(redis_url: str, client: redis.Redis, folder: Path, look: Examine) -> None:
    client.set(Keys().shards, 3)
    Feed(client, shard=2).append([event(1.0)])
    found = look(redis_url, folder)
    assert found["group archive, shard 2"].status == "fail"
    assert found["stream"].seen == "1 of 3 shards in use, 1 entries held"


# --- the folder


def test_a_folder_of_another_store_fails(redis_url: str, client: redis.Redis, folder: Path, look: Examine) -> None:
    client.set(Keys().store, "another")
    found = look(redis_url, folder)["store"]
    assert found.status == "fail"
    assert "another" in found.seen
    assert look(redis_url, folder.parent)["store"].status == "fail"


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom modes hold back."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def only(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_a_folder_one_may_not_write_fails(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    for above in (tmp_path, *tmp_path.parents[:3]):
        if above.owner() == closed.owner() and above.is_relative_to(tmp_path.parents[2]):
            above.chmod(above.stat().st_mode | 0o055)
    with unprivileged():
        found = store.folder(closed, 0o500)
        assert found.status == "fail"
        assert "permission denied" in found.seen


def test_a_file_in_place_of_the_folder_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert only(store.checks(path, None, asked=True), "storage folder").status == "fail"


def test_an_open_folder_is_warned_of_and_nothing_is_left_in_it(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    assert only(store.checks(folder, None, asked=True), "storage folder").status == "ok"
    folder.chmod(0o755)
    found = only(store.checks(folder, None, asked=True), "storage folder")
    assert (found.status, "0755" in found.seen, "chmod 700" in found.advice) == ("warn", True, True)
    assert sorted(folder.rglob("*")) == before


def _fails(one: Path, two: Path) -> None:
    raise OSError


@pytest.mark.parametrize(("check", "named"), [("_locks", "flock"), ("_links", "link"), ("_syncs", "fsync")])
def test_what_a_file_system_cannot_do_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, check: str, named: str
) -> None:
    monkeypatch.setattr(store, check, _fails)
    found = store.folder(folder, 0o700)
    assert (found.status, named in found.seen) == ("fail", True)


@pytest.mark.parametrize(("free", "status"), [(1 << 20, "fail"), (500 << 20, "warn"), (5 << 30, "ok")])
def test_free_space_is_judged(folder: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    disk = type("Disk", (), {"f_bavail": free // 4096, "f_frsize": 4096})
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    assert store.free_space(folder).status == status


def test_external_storage_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    assert store.external(None).status == "ok"
    outside = tmp_path / "outside"
    missing = store.external(outside.as_uri())
    assert (missing.status, "no such folder" in missing.seen) == ("fail", True)
    outside.mkdir()
    assert store.external(outside.as_uri()).status == "ok"
    assert list(outside.iterdir()) == []
    assert store.external("gopher://somewhere/x").status == "fail"


def test_network_file_systems_are_warned_of(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"23 22 0:5 / {tmp_path.parent} rw,relatime shared:2 - nfs4 server:/export rw\n"
    )
    assert store.file_system(tmp_path, mounts).status == "warn"
    assert "nfs4" in store.file_system(tmp_path, mounts).seen
    assert store.file_system(Path("/"), mounts).seen == "ext4"
    assert store.file_system(tmp_path, tmp_path / "none").status == "unknown"


# --- ports, other programs


def test_ports_are_free_ours_or_taken(redis_url: str, folder: Path) -> None:
    assert ports.port("p", "127.0.0.1", free_port()).status == "ok"
    with taken_port() as number:
        found = ports.port("p", "127.0.0.1", number)
        assert (found.status, "another program" in found.seen) == ("fail", True)
        assert ports.port("p", "0.0.0.0", number).status == "fail"
    with other_web_server() as number:
        assert ports.port("p", "127.0.0.1", number).status == "fail"
    with dashboard_in_thread(redis_url, folder) as served:
        found = ports.port("p", "127.0.0.1", served.port)
        assert (found.status, found.seen) == ("ok", f"127.0.0.1:{served.port}: ours answers")
    assert ports.port("p", "192.0.2.1", free_port()).status == "fail"


def endpoint(pid: int, folder: Path) -> Path:
    file = endpoint_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.encode(Endpoint("unix:///s", pid, str(folder), "http://localhost:8080")))
    return file


def test_a_running_up_is_found_and_a_dead_one_too(tmp_path: Path) -> None:
    settings = Settings(storage_dir=tmp_path)
    assert program.running_up(settings).seen == "none of this user"
    endpoint(os.getpid(), tmp_path)
    assert program.running_up(settings).status == "ok"
    assert program.running_up(Settings(storage_dir=tmp_path / "other")).status == "warn"
    endpoint(2**22 + 1, tmp_path)
    found = program.running_up(settings)
    assert (found.status, "is gone" in found.seen) == ("warn", True)
    endpoint_file().write_text("{")
    assert program.running_up(settings).status == "warn"


def test_missing_extras_are_named_and_no_failure() -> None:
    found = program.extras(lambda module: module != "genai_prices")
    assert found.status == "ok"
    assert "not installed: prices" in found.seen
    assert "vibezen-metrics[prices]" in found.advice


def test_a_missing_server_of_our_own_matters_only_without_another(monkeypatch: pytest.MonkeyPatch) -> None:
    from vibezen.metrics.errors import MissingExtra

    def none() -> str:
        raise MissingExtra("embedded", "a server of our own")

    monkeypatch.setattr(program, "find_program", none)
    assert program.embedded_server(Settings()).status == "warn"
    assert program.embedded_server(load(redis_url="redis://x", environ={})).status == "ok"


# --- the command


Run = Callable[..., Any]


def test_the_command_says_all_and_its_exit_code_whether_something_fails(
    start_server: StartServer, folder: Path, start_role: StartRole
) -> None:
    port = {"VIBEZEN_METRICS__DASHBOARD__PORT": str(free_port())}
    well = start_server(None, "--maxmemory", "64mb").url
    ill = start_server(None, "--appendonly", "no").url
    for url, code in ((well, 0), (ill, 1)):
        plain = start_role("doctor", "--redis-url", url, "--storage-dir", str(folder), **port)
        asked = start_role("doctor", "--redis-url", url, "--storage-dir", str(folder), "--json", **port)
        assert (plain.wait(), asked.wait()) == (code, code), plain.said
        told = json.loads(asked.said)
        lines = [line for line in plain.said.splitlines() if not line.startswith(" ")]
        assert [line.split(":")[0].split(maxsplit=1) for line in lines] == [
            [one["status"], one["name"]] for one in told
        ]
        assert any(one["status"] == "fail" for one in told) == bool(code)
