import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
import redis

from tests.support.feeding import NOON, Feed, event, lag, total, values_on_disk
from tests.support.processes import StartRole
from tests.support.segments import commit
from tests.support.servers import SURE, Server, StartServer, default_kind
from tests.support.waiting import WaitUntil
from vibezen.metrics import config
from vibezen.metrics.commitlog import read_log
from vibezen.metrics.connection import connect, is_refusal
from vibezen.metrics.consumers.lease import PACKAGE
from vibezen.metrics.consumers.supervisor import run
from vibezen.metrics.errors import ConfigError, ServerUnavailable, StoreError, StoreMismatch
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.scripts import load
from vibezen.metrics.settings import Settings, Streams

KEYS = Keys()


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return config.load(redis_url=redis_url, storage_dir=tmp_path / "store", environ={})


Start = Callable[[str, Settings], threading.Event]


@pytest.fixture
def start() -> Iterator[Start]:
    """Run a consumer in a thread; the event stops it."""
    with ExitStack() as started:

        def begin(group: str, settings: Settings) -> threading.Event:
            stop = threading.Event()
            thread = threading.Thread(target=run, args=(group, settings), kwargs={"stop": stop})

            def end() -> None:
                stop.set()
                thread.join(20)
                assert not thread.is_alive()

            thread.start()
            started.callback(end)
            return stop

        yield begin


def with_shards(settings: Settings, shards: int) -> Settings:
    return msgspec.structs.replace(settings, streams=Streams(shards=shards))


def owners(client: redis.Redis, group: str, shards: int) -> list[bytes | None]:
    held = [client.get(KEYS.lease(shard, group)) for shard in range(shards)]
    return [holder if isinstance(holder, bytes) else None for holder in held]


def test_once_does_what_is_due_and_ends(client: redis.Redis, settings: Settings) -> None:
    Feed(client).append([event(1), event(2)])
    assert run("archive", settings, once=True) == 0
    assert run("aggregate", settings, once=True) == 0
    assert values_on_disk(settings.storage_dir) == Counter([1.0, 2.0])
    assert total(client).count == 2
    assert owners(client, "archive", 1) == [None]


def test_shards_that_the_files_alone_know_of_are_taken_over(client: redis.Redis, settings: Settings) -> None:
    """Of a server that lost its data. Nobody would ever close what they left, and compact it."""
    layout = Layout(settings.storage_dir)
    layout.create()
    commit(layout, [event(1, NOON)], shard=2, closed=False)
    assert run("archive", settings, once=True) == 0
    assert read_log(layout.log(2, 1)).last.sealed
    assert client.get(KEYS.shards) == b"3"


def test_events_flow_while_it_runs_and_the_lease_is_released_at_the_end(
    client: redis.Redis, settings: Settings, start: Start, wait_until: WaitUntil
) -> None:
    feed = Feed(client)
    stop = start("archive", settings)
    for value in range(3):
        feed.append([event(value)])
        wait_until(lambda: lag(client, "archive") == 0)
    stop.set()
    wait_until(lambda: owners(client, "archive", 1) == [None])
    assert values_on_disk(settings.storage_dir) == Counter([0.0, 1.0, 2.0])


def test_processes_share_the_shards_fairly(
    client: redis.Redis, settings: Settings, start: Start, wait_until: WaitUntil
) -> None:
    settings = with_shards(settings, 4)
    start("aggregate", settings)
    wait_until(lambda: len(set(owners(client, "aggregate", 4))) == 1 and None not in owners(client, "aggregate", 4))
    start("aggregate", settings)
    wait_until(lambda: sorted(Counter(owners(client, "aggregate", 4)).values()) == [2, 2])


def test_what_is_left_of_a_clock_that_was_set_back_keeps_no_shard_from_its_owner(
    client: redis.Redis, settings: Settings, start: Start, wait_until: WaitUntil
) -> None:
    ahead = 1000 * int(client.time()[0]) + 3_600_000
    client.zadd(KEYS.members("aggregate"), {"gone": ahead})
    for shard in range(2):
        client.set(KEYS.lease(shard, "aggregate"), "gone", px=3_600_000)
    start("aggregate", with_shards(settings, 2))
    wait_until(lambda: not {None, b"gone"} & set(owners(client, "aggregate", 2)))


def test_shards_that_were_ever_used_are_read_even_when_fewer_are_configured(
    client: redis.Redis, settings: Settings
) -> None:
    client.set(KEYS.shards, 3)
    Feed(client, shard=2).append([event(7)])
    run("archive", settings, once=True)
    assert values_on_disk(settings.storage_dir) == Counter([7.0])


def test_a_stream_deleted_under_a_reader_is_picked_up_again(
    client: redis.Redis, settings: Settings, start: Start, wait_until: WaitUntil
) -> None:
    feed = Feed(client)
    start("archive", settings)
    feed.append([event(1)])
    wait_until(lambda: lag(client, "archive") == 0)
    client.delete(KEYS.events(0))
    feed.append([event(2)])
    wait_until(lambda: values_on_disk(settings.storage_dir) == Counter([1.0, 2.0]))


def test_a_flushed_server_is_picked_up_again(
    client: redis.Redis, settings: Settings, start: Start, wait_until: WaitUntil
) -> None:
    feed = Feed(client)
    start("archive", settings)
    start("aggregate", settings)
    feed.append([event(1)])
    wait_until(lambda: lag(client, "archive") == lag(client, "aggregate") == 0)
    client.flushall()
    client.script_flush()
    feed.append([event(2)])
    wait_until(lambda: values_on_disk(settings.storage_dir) == Counter([1.0, 2.0]))
    wait_until(lambda: total(client).sum == 2.0)


def vanish(client: redis.Redis, what: str) -> None:
    if what == "stream":
        client.delete(KEYS.events(0))
    elif what == "groups":
        for group in ("archive", "aggregate"):
            client.xgroup_destroy(KEYS.events(0), group)
    elif what == "scripts":
        client.script_flush()
    else:
        client.flushall()


def epochs(client: redis.Redis) -> list[object]:
    return [client.hget(KEYS.books(0), f"{group}.epoch") for group in ("archive", "aggregate")]


@pytest.mark.parametrize("what", ["stream", "groups", "scripts", "everything"])
def test_idle_owners_notice_what_vanished(
    client: redis.Redis, settings: Settings, start: Start, wait_until: WaitUntil, what: str
) -> None:
    """Nothing is appended that would tell them. C7: within five seconds both stand where they can read again."""
    start("archive", settings)
    start("aggregate", settings)
    Feed(client).append([event(1)])
    wait_until(lambda: lag(client, "archive") == lag(client, "aggregate") == 0)
    vanish(client, what)
    wait_until(lambda: lag(client, "archive") == lag(client, "aggregate") == 0)
    wait_until(lambda: None not in owners(client, "archive", 1) + owners(client, "aggregate", 1))
    if what == "stream":  # made anew by the first to notice: no lag tells that the other has yet to
        wait_until(lambda: epochs(client) == [b"2", b"2"])
    before = epochs(client)
    Feed(client, "p2").append([event(2)])
    wait_until(lambda: values_on_disk(settings.storage_dir) == Counter([1.0, 2.0]))
    wait_until(lambda: total(client).sum == (2.0 if what == "everything" else 3.0))
    assert epochs(client) == before


def test_entries_under_lower_ids_of_a_stream_made_anew_are_read(
    client: redis.Redis, settings: Settings, start: Start, wait_until: WaitUntil
) -> None:
    """As after a failover to a server whose clock is behind, while the reader sits and waits at its old place."""
    start("archive", settings)
    Feed(client).append([event(1)])
    wait_until(lambda: lag(client, "archive") == 0)
    with client.pipeline(transaction=True) as pipe:
        pipe.delete(KEYS.events(0))
        Feed(pipe, "p2").append_in([event(2)], entry_id="1000000005000-0")
        pipe.execute()
    wait_until(lambda: values_on_disk(settings.storage_dir) == Counter([1.0, 2.0]))


def test_another_server_behind_the_same_connections_makes_owners_start_anew(
    client: redis.Redis, settings: Settings, start: Start, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy may change the server under an open connection; only the server's own name tells."""
    start("archive", settings)
    wait_until(lambda: client.hget(KEYS.books(0), "archive.epoch") == b"1")
    real = redis.Redis.info
    monkeypatch.setattr(redis.Redis, "info", lambda self, *section: {**real(self, *section), "run_id": "another"})
    wait_until(lambda: client.hget(KEYS.books(0), "archive.epoch") == b"2")


def test_a_server_that_comes_back_is_picked_up_again(
    tmp_path: Path, start_server: StartServer, start: Start, wait_until: WaitUntil
) -> None:
    server = start_server(None, *SURE)
    settings = config.load(redis_url=server.url, storage_dir=tmp_path / "store", environ={})
    start("archive", settings)
    start("aggregate", settings)
    with server.client() as client:
        feed = Feed(client)
        feed.append([event(1)])
        wait_until(lambda: lag(client, "archive") == lag(client, "aggregate") == 0)
    server.kill()
    server.start()
    with server.client() as client:
        Feed(client, "p2").append([event(2)])
        wait_until(lambda: values_on_disk(settings.storage_dir) == Counter([1.0, 2.0]))
        wait_until(lambda: total(client).sum == 3.0)


def test_a_folder_of_another_store_is_refused(client: redis.Redis, settings: Settings, tmp_path: Path) -> None:
    run("archive", settings, once=True)
    other = msgspec.structs.replace(settings, storage_dir=tmp_path / "other")
    with pytest.raises(StoreMismatch, match="belong to store"):
        run("archive", other, once=True)


def test_no_server_is_one_clear_line(settings: Settings) -> None:
    away = msgspec.structs.replace(settings, redis=msgspec.structs.replace(settings.redis, url="redis://127.0.0.1:1"))
    with pytest.raises(
        ServerUnavailable, match=r"redis://127\.0\.0\.1:1: no Redis or Valkey answers: connection refused"
    ):
        run("archive", away, once=True)


def test_an_unknown_group_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="expected one of archive, aggregate"):
        run("digest", settings)


@pytest.mark.parametrize("when", [1, 2], ids=["segment", "record"])
def test_a_failing_disk_ends_the_process_before_anything_is_confirmed(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    calls, fdatasync = 0, os.fdatasync

    def fail(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == when:
            raise OSError(5, "Input/output error")
        fdatasync(fd)

    Feed(client).append([event(1)])
    monkeypatch.setattr("vibezen.metrics.consumers.segments.os.fdatasync", fail)
    with pytest.raises((StoreError, OSError), match="Input/output error"):
        run("archive", settings, once=True)
    monkeypatch.undo()
    assert lag(client, "archive") == 1
    assert list(Layout(settings.storage_dir).segments()) == []
    assert run("archive", settings, once=True) == 0
    assert values_on_disk(settings.storage_dir) == Counter([1.0])


def test_a_failing_disk_ends_a_process_that_could_go_on(
    client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not start the shard anew: what the kernel dropped, it may show as written."""
    stop, failed = threading.Event(), 0

    def fail(fd: int) -> None:
        nonlocal failed
        failed += 1
        if failed > 1:
            stop.set()
        raise OSError(5, "Input/output error")

    Feed(client).append([event(1)])
    monkeypatch.setattr("vibezen.metrics.consumers.segments.os.fdatasync", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        run("archive", settings, stop=stop)
    assert failed == 1


def test_full_server_is_drained_by_owners_that_start_on_it(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    settings = config.load(redis_url=server.url, storage_dir=tmp_path / "store", environ={})
    with server.client() as client:
        feed = Feed(client)
        feed.append([event(1)])
        for group in ("archive", "aggregate"):
            run(group, settings, once=True)
        feed.append([event(2)])
        client.config_set("maxmemory", "1")
        for group in ("archive", "aggregate"):
            assert run(group, settings, once=True) == 0
        assert values_on_disk(tmp_path / "store") == Counter([1.0, 2.0])
        assert [lag(client, group) for group in ("archive", "aggregate")] == [0, 0]
        assert not client.exists(*(KEYS.lease(0, group) for group in ("archive", "aggregate"))), "handed over at once"


def script_names() -> list[str]:
    return sorted(file.name.removesuffix(".lua") for file in files(PACKAGE).joinpath("lua").iterdir())


@pytest.mark.parametrize("name", script_names())
def test_no_script_of_a_reader_is_refused_by_a_full_server(full: redis.Redis, name: str) -> None:
    """Told nothing, most of them fail, but as scripts that ran."""
    (answer,) = (
        full.pipeline(transaction=False).eval(load(PACKAGE, name).source.decode(), 0).execute(raise_on_error=False)
    )
    assert not (isinstance(answer, Exception) and is_refusal(answer))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    server = Server(default_kind(), tmp_path_factory.mktemp("full"), ("--maxmemory", "1"))
    server.start()
    with connect(server.url) as client:
        yield client
    server.kill()


def test_server_that_takes_no_writes_for_a_while_is_waited_for(
    start_server: StartServer, tmp_path: Path, start_role: StartRole, wait_until: WaitUntil
) -> None:
    server = start_server()
    with server.client() as client:
        feed = Feed(client)
        feed.append([event(1)])
        role = start_role("consume", "archive", "--redis-url", server.url, "--storage-dir", str(tmp_path / "store"))
        wait_until(lambda: values_on_disk(tmp_path / "store") == Counter([1.0]))
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        wait_until(lambda: "trying again" in role.said)
        client.execute_command("REPLICAOF", "NO", "ONE")
        feed.append([event(2)])
        wait_until(lambda: values_on_disk(tmp_path / "store") == Counter([1.0, 2.0]))
        assert role.stop() == 0
    assert "Traceback" not in role.said


def test_server_that_takes_no_writes_at_the_start_is_one_line(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    settings = config.load(redis_url=server.url, storage_dir=tmp_path / "store", environ={})
    with server.client() as client:
        client.config_set("maxmemory", "1")
    with pytest.raises(ServerUnavailable, match="takes no writes now"):
        run("archive", settings, once=True)
