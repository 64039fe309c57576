"""An import into a real server: each row once, a growing file goes on, another content is refused, trouble waits."""

import gzip
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.producers.conftest import Arrived
from tests.support.proxy import StartProxy
from tests.support.servers import StartServer
from tests.support.waiting import WaitUntil
from vibezen.metrics.errors import BadParameter, ImportStopped, ServerUnavailable
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers import importer_delivery
from vibezen.metrics.producers.importer import Importer
from vibezen.metrics.producers.importer_mapping import EventMap, Mapping
from vibezen.metrics.producers.importer_order import Order
from vibezen.metrics.producers.importer_report import Balance
from vibezen.metrics.settings import Redis as RedisSettings
from vibezen.metrics.settings import Settings, Streams

KEYS = Keys()
MAPPING = Mapping(events=(EventMap("tokens", "{n}", metadata={"type": "input"}), EventMap("tokens", "{m}")))
NOW = 1_700_100_000.0


class Run:
    """One import in this process."""

    def __init__(self, url: str, path: Path, **order: Any) -> None:
        self.stop = threading.Event()
        self.said: list[str] = []
        self.chunks = 0
        self.after_chunk: Callable[[], object] = lambda: None
        settings = Settings(redis=RedisSettings(url=url), streams=Streams(shards=order.pop("shards", 1)))
        asked = Order([str(path)], **{"mapping": MAPPING, **order})
        self._importer = Importer(settings, asked, self.stop, self.said.append, self._progress, lambda: NOW)

    def _progress(self, *_: object) -> None:
        self.chunks += 1
        self.after_chunk()

    def run(self) -> bool:
        return self._importer.run()

    @property
    def balance(self) -> Balance:
        (balance,) = self._importer.balances
        return balance


def done(url: str, path: Path, **order: Any) -> Balance:
    run = Run(url, path, **order)
    assert run.run()
    assert run.balance.complete
    return run.balance


def write(path: Path, rows: range, *, mode: str = "w") -> Path:
    with path.open(mode) as file:
        if mode == "w":
            file.write("ts,n,m\n")
        file.writelines(f"{1_700_000_000 + row / 1000},{row},{-row}\n" for row in rows)
    return path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer_delivery, "FIRST_PAUSE", 0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.csv"


def expected(rows: int) -> list[float]:
    return [value for row in range(rows) for value in (row, -row)]


def test_each_row_gives_its_events_once_however_often_it_is_imported(
    redis_url: str, path: Path, arrived: Arrived
) -> None:
    write(path, range(5000))
    first, again = done(redis_url, path), done(redis_url, path)
    assert (first.rows, first.events, first.appended, first.already_there) == (5000, 10_000, 10_000, 0)
    assert (again.rows, again.events, again.appended, again.already_there) == (5000, 10_000, 0, 10_000)
    assert arrived.values() == expected(5000)
    assert all(entry.n <= 500 and entry.producer == first.producer for entry in arrived.entries())


@pytest.mark.parametrize("first", [1, 249, 250, 1000, 4321])
def test_a_file_that_grew_is_continued(redis_url: str, path: Path, arrived: Arrived, first: int) -> None:
    done(redis_url, write(path, range(first)))
    write(path, range(first, 5000), mode="a")
    grown = done(redis_url, path)
    assert (grown.appended, grown.already_there) == (2 * (5000 - first), 2 * first)
    assert arrived.values() == expected(5000)


def test_a_file_rejected_in_part_goes_on_with_the_same_numbers(redis_url: str, path: Path, arrived: Arrived) -> None:
    """Rejected rows take no number, wherever chunks end."""
    write(path, range(1000))
    path.write_text(path.read_text().replace(",500,", ",five hundred,"))
    first = done(redis_url, path, limit=700)
    rest = done(redis_url, path)
    assert (first.rejected, rest.rejected, rest.rows) == (1, 1, 1000)
    assert (rest.appended, rest.already_there) == (2 * 300, 2 * 699)
    assert sorted(arrived.values()) == sorted(value for value in expected(1000) if abs(value) != 500)


@pytest.mark.parametrize("line", [2, 700, 1000])
def test_an_edited_file_is_refused_and_nothing_is_appended(
    redis_url: str, path: Path, arrived: Arrived, line: int
) -> None:
    key = "the trace"
    done(redis_url, write(path, range(1000)), key=key)
    lines = write(path, range(2000)).read_text().split("\n")
    lines[line - 1] = lines[line - 1].replace(f",{line - 2},", ",7777,")
    path.write_text("\n".join(lines))
    with pytest.raises(ImportStopped, match=r"first 2000 events differ .* choose another --idempotency-key"):
        Run(redis_url, path, key=key).run()
    assert arrived.values() == expected(1000)


def test_a_shorter_file_under_the_same_key_is_refused(redis_url: str, path: Path) -> None:
    done(redis_url, write(path, range(1000)))
    with pytest.raises(ImportStopped, match=r"has 800 events, but 2000 were imported under this key"):
        Run(redis_url, write(path, range(400))).run()
    limited = Run(redis_url, write(path, range(1000)), limit=100)
    assert limited.run()
    assert limited.balance.already_there == 200
    assert limited.said == [f"{path}: 2000 events are there; the first 200 were not compared"]


def test_a_rotated_file_is_another_import_and_a_key_keeps_imports_apart(
    redis_url: str, path: Path, arrived: Arrived
) -> None:
    done(redis_url, write(path, range(10)))
    done(redis_url, write(path, range(10, 20)))
    assert arrived.values() == expected(20)
    assert done(redis_url, path, key="once more").appended == 20


def test_what_nothing_is_known_about_is_not_skipped(redis_url: str, path: Path, client: redis.Redis) -> None:
    producer = done(redis_url, write(path, range(1000))).producer
    kept: Any = client.hgetall(KEYS.imported(producer))
    assert kept.pop(b"confirmed") == b"2000"
    assert all(told.endswith(str(path).encode()) for told in kept.values())
    client.delete(KEYS.imported(producer))
    with pytest.raises(ImportStopped, match="2000 events are there under this key, and nothing tells which"):
        Run(redis_url, path).run()
    client.hset(KEYS.imported(producer), mapping={**kept, "confirmed": "2000"})
    client.hdel(KEYS.producers(0), producer)
    with pytest.raises(ImportStopped, match="the server knows of 0 only: it has lost data"):
        Run(redis_url, path).run()


def test_an_import_stays_on_its_shard_when_their_number_changes(
    redis_url: str, path: Path, client: redis.Redis
) -> None:
    done(redis_url, write(path, range(10)))
    write(path, range(10, 20), mode="a")
    for shards in range(2, 6):
        assert done(redis_url, path, shards=shards).already_there >= 20
    assert client.xlen(KEYS.events(0)) == 2


def test_a_row_from_the_future_stops_the_import_and_waits_for_its_time(
    redis_url: str, path: Path, arrived: Arrived
) -> None:
    write(path, range(10))
    with path.open("a") as file:
        file.write(f"{NOW + 3700},1,1\n1700000000,10,-10\n")
    for _ in range(2):
        with pytest.raises(ImportStopped, match=r"line 12: 2023-11-16T03:01:40.000Z is more than 1 h ahead of now"):
            Run(redis_url, path).run()
        assert arrived.values() == expected(10)


def test_damage_is_told_after_what_precedes_it_is_imported(redis_url: str, path: Path, arrived: Arrived) -> None:
    zipped = path.with_suffix(".csv.gz")
    zipped.write_bytes(gzip.compress(write(path, range(20_000)).read_bytes())[:-200])
    run = Run(redis_url, zipped)
    with pytest.raises(ImportStopped, match="cannot be read after line"):
        run.run()
    values = arrived.values()
    assert run.balance.events == run.balance.appended == len(values) > 10_000
    assert values == expected(20_000)[: len(values)]
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert done(redis_url, zipped).appended == 40_000 - len(values)
    assert arrived.values() == expected(20_000)


def test_lost_replies_add_nothing(redis_url: str, path: Path, arrived: Arrived, start_proxy: StartProxy) -> None:
    proxy = start_proxy(redis_url)
    run = Run(proxy.url, write(path, range(20_000)))
    run.after_chunk = lambda: proxy.cut(b"EVALSHA", 2)
    assert run.run()
    assert proxy.cuts > 10
    assert run.balance.appended == 40_000
    assert arrived.values() == expected(20_000)


def test_a_server_that_goes_away_is_waited_for_and_told_once(
    redis_url: str, path: Path, arrived: Arrived, start_proxy: StartProxy, wait_until: WaitUntil
) -> None:
    proxy = start_proxy(redis_url)
    run = Run(proxy.url, write(path, range(20_000)))
    run.after_chunk = lambda: proxy.go_down() if run.chunks == 3 else None
    thread = threading.Thread(target=run.run)
    thread.start()
    wait_until(lambda: run.said)
    proxy.come_back()
    thread.join(20)
    assert len(run.said) == 2
    assert "takes no events now" in run.said[0]
    assert run.said[1] == "the server is back"
    assert arrived.values() == expected(20_000)


def test_asked_to_stop_while_the_server_is_away_it_ends(
    redis_url: str, path: Path, arrived: Arrived, start_proxy: StartProxy, wait_until: WaitUntil
) -> None:
    proxy = start_proxy(redis_url)
    run = Run(proxy.url, write(path, range(20_000)))
    run.after_chunk = lambda: proxy.go_down() if run.chunks == 2 else None
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(run.run()))
    thread.start()
    wait_until(lambda: run.said)
    run.stop.set()
    thread.join(20)
    assert answers == [False]
    assert not run.balance.complete
    there = len(arrived.values())
    resumed = done(redis_url, path)
    assert (resumed.already_there, resumed.appended) == (there, 40_000 - there)
    assert arrived.values() == expected(20_000)


def test_a_server_not_there_at_the_start_is_an_error(path: Path) -> None:
    with pytest.raises(ServerUnavailable, match="no Redis or Valkey answers"):
        Run("redis://127.0.0.1:1", write(path, range(1))).run()


def test_a_full_server_is_waited_for(path: Path, start_server: StartServer, wait_until: WaitUntil) -> None:
    server = start_server()
    with server.client() as client:
        run = Run(server.url, write(path, range(20_000)))
        run.after_chunk = lambda: client.config_set("maxmemory", 1) if run.chunks == 2 else None
        thread = threading.Thread(target=run.run)
        thread.start()
        wait_until(lambda: run.said)
        assert "command not allowed when used memory > 'maxmemory'" in run.said[0]
        client.config_set("maxmemory", 0)
        thread.join(20)
        assert Arrived(client).values() == expected(20_000)


def test_readers_that_are_far_behind_are_waited_for(
    redis_url: str,
    path: Path,
    arrived: Arrived,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: WaitUntil,
) -> None:
    monkeypatch.setattr(importer_delivery, "BACKLOG", 20)
    monkeypatch.setattr(importer_delivery, "PAUSE", 0.01)
    run = Run(redis_url, write(path, range(50_000)))
    thread = threading.Thread(target=run.run)
    thread.start()
    wait_until(lambda: run.said)
    (told,) = run.said
    assert told.startswith(
        "waiting for archive and aggregate to read what is in the stream; no `vibezen-metrics consume a"
    )
    waiting = client.xlen(KEYS.events(0))
    assert 20 < waiting < 200
    while thread.is_alive():
        last: Any = client.xrevrange(KEYS.events(0), count=1)
        length = client.xlen(KEYS.events(0))
        with client.pipeline() as both:  # one alone would be waited for in other words
            for group in ("archive", "aggregate"):
                both.xgroup_setid(KEYS.events(0), group, last[0][0], entries_read=length)
            both.execute()
        thread.join(0.01)
    assert arrived.values() == expected(50_000)
    assert run.said == [told]


def test_another_process_under_the_same_key_stops_this_one(redis_url: str, path: Path, arrived: Arrived) -> None:
    run = Run(redis_url, write(path, range(20_000)))
    other: list[Balance] = []
    run.after_chunk = lambda: other.append(done(redis_url, path)) if not other else None
    with pytest.raises(ImportStopped, match="another process imports under this key"):
        run.run()
    assert arrived.values() == expected(20_000)


def test_orders_that_make_no_sense_are_refused(redis_url: str, path: Path, tmp_path: Path) -> None:
    write(path, range(1))
    other = write(tmp_path / "other.csv", range(1))
    settings = Settings(redis=RedisSettings(url=redis_url))

    def refused(*files: object, **order: Any) -> str:
        with pytest.raises(BadParameter) as bad:
            Importer(settings, Order([*map(str, files)], **order), threading.Event(), print, print).run()
        return str(bad.value)

    assert refused(path, other, key="k").startswith("--idempotency-key: names one import")
    assert refused(path, path) == "FILE: a file is named twice"
    assert refused(tmp_path / "gone.csv") == f"FILE: {tmp_path / 'gone.csv'}: no such file"
    assert refused(tmp_path) == f"FILE: {tmp_path} is a folder"
    assert refused(path, rejects=path) == f"--rejects: {path} is a file to import"
    assert refused(path, mapping=Mapping(encoding="klingon", events=MAPPING.events)).startswith("--encoding: 'klingon'")
    assert refused(path, mapping=Mapping(delimiter="::", events=MAPPING.events)).startswith("--delimiter: '::'")
    assert path.read_text().startswith("ts,n,m\n")


def test_every_rejected_row_is_kept_as_it_stood(redis_url: str, path: Path, tmp_path: Path) -> None:
    path.write_bytes(b'ts,n,m\n1700000000,1,2\n1700000000,"x\ny",2\n1700000000,\xff,2\n')
    kept = tmp_path / "rejects.ndjson"
    balance = done(redis_url, path, rejects=kept)
    assert (balance.rows, balance.rejected, balance.events) == (3, 2, 2)
    assert (kept.stat().st_mode & 0o777) == 0o600
    told = [json.loads(line) for line in kept.read_text().splitlines()]
    assert told == [
        {"file": str(path), "line": 3, "field": "n", "reason": r"'x\ny' is not a number", "row": '1700000000,"x\ny",2'},
        {
            "file": str(path),
            "line": 5,
            "field": "n",
            "reason": r"'\udcff' is not a number",
            "row": r"1700000000,\xff,2",
        },
    ]


def test_the_first_rejected_rows_are_told_and_all_are_counted(redis_url: str, path: Path) -> None:
    path.write_text("ts,n,m\n" + "soon,1,1\n" * 20)
    run = Run(redis_url, path)
    assert run.run()
    assert run.balance.rejected == 20
    assert len(run.said) == 6
    assert run.said[0] == f"{path}: line 2: ts: 'soon' is not an ISO 8601 time or Unix time"
    assert run.said[-1].endswith("further rejected rows are counted only; --rejects FILE keeps them all")
