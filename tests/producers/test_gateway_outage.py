"""Redis away, slow, full, or its replies lost: no answer is untrue, nobody waits long, nothing is doubled."""

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
import redis

from tests.producers.conftest import Arrived
from tests.support.gateways import PATH, Door, StartGateway, lines
from tests.support.proxy import StartProxy
from tests.support.servers import StartServer
from tests.support.waiting import WaitUntil
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers import appender, body
from vibezen.metrics.producers.appender import MOST_SECONDS

EACH = 5
"""Events per body."""


class Client:
    """Sends bodies under its key, each as often as it is told to and until it is taken; never two at a time."""

    def __init__(self, door: Door, name: str, first: int, bodies: int, repeats: int) -> None:
        self._door, self._name = door, name
        self.values = list(range(first, first + bodies * EACH))
        self._repeats = repeats
        self.statuses: Counter[int] = Counter()

    def run(self) -> None:
        for at in range(0, len(self.values), EACH):
            body, key = lines(*self.values[at : at + EACH]), f"{self._name}/{at + 1}"
            taken = 0
            while taken < self._repeats:
                status, told = self._door.answer(body, key)
                self.statuses[status] += 1
                if status == 200:
                    taken += 1
                    assert told["next"] == at + EACH + 1


def test_every_request_sent_five_times_through_cut_replies_is_there_once(
    redis_url: str, start_proxy: StartProxy, start_gateway: StartGateway, arrived: Arrived
) -> None:
    proxy = start_proxy(redis_url)
    door = start_gateway(proxy.url)
    proxy.cut_share(0.1, seed=7)
    clients = [Client(door, f"producer-{number}", number * 1000, 16, 5) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(Client.run, clients))
    assert proxy.cuts > 20
    assert Counter(arrived.values()) == Counter(value for client in clients for value in client.values)
    for client in clients:
        assert client.statuses.keys() <= {200, 503}
        assert [value for value in arrived.values() if value in client.values] == client.values


def test_without_key_what_was_answered_as_taken_is_there_once(
    redis_url: str, start_proxy: StartProxy, start_gateway: StartGateway, arrived: Arrived
) -> None:
    proxy = start_proxy(redis_url)
    door = start_gateway(proxy.url)
    proxy.cut_share(0.1, seed=3)

    def post(number: int) -> tuple[int, int]:
        return number, door.post(lines(number)).status_code

    with ThreadPoolExecutor(12) as pool:
        answers = dict(pool.map(post, range(300)))
    assert proxy.cuts > 10
    found = Counter(arrived.values())
    assert set(answers.values()) <= {200, 503}
    assert sum(status == 200 for status in answers.values()) > 250
    assert all(found[number] == 1 for number, status in answers.items() if status == 200)
    assert max(found.values()) == 1
    assert_no_number_is_missing(arrived)


def assert_no_number_is_missing(arrived: Arrived) -> None:
    """Readers count a skipped number as a lost event."""
    following: dict[str | None, int] = {}
    for entry in arrived.entries():
        assert entry.seq == following.get(entry.producer, 1)
        following[entry.producer] = entry.seq + entry.n


def test_given_up_call_is_followed_by_a_new_producer(
    redis_url: str,
    start_proxy: StartProxy,
    start_gateway: StartGateway,
    arrived: Arrived,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: WaitUntil,
) -> None:
    monkeypatch.setattr(appender, "PATIENCE", 0.2)
    proxy = start_proxy(redis_url)
    door = start_gateway(proxy.url)
    door.answer(lines(1))
    proxy.cut(b"XADD-nobody-sends", 0)
    proxy.cut(b'"value":2', 100)  # there, but nobody hears of it
    assert door.answer(lines(2))[0] == 503
    proxy.cut(b"", 0)
    proxy.go_down()
    assert door.answer(lines(3))[0] == 503  # not there
    proxy.come_back()
    wait_until(door.is_ready)
    assert door.answer(lines(4))[0] == 200
    assert arrived.values() == [1, 2, 4]
    assert_no_number_is_missing(arrived)
    producers = [entry.producer for entry in arrived.entries()]
    assert producers[0] == producers[1] != producers[2]
    assert arrived.stats()[-1]["recorded"] == 1  # counters belong to a producer


def test_redis_away_is_503_with_retry_after_within_seconds_and_mends_itself(
    redis_url: str, start_proxy: StartProxy, start_gateway: StartGateway, arrived: Arrived, wait_until: WaitUntil
) -> None:
    proxy = start_proxy(redis_url)
    door = start_gateway(proxy.url)
    assert door.answer(lines(1))[0] == 200
    proxy.go_down()
    for key in (None, "p/1"):
        start = time.monotonic()
        answer = door.post(lines(2), key)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert time.monotonic() - start < MOST_SECONDS + 20
    ready = door.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
    assert "no Redis or Valkey answers" in ready.json()["reasons"][0]
    assert door.http.get("/healthz").status_code == 200
    proxy.come_back()
    wait_until(door.is_ready)
    assert door.answer(lines(2), "p/1")[0] == 200
    assert door.answer(lines(3))[0] == 200
    assert arrived.values() == [1, 2, 3]


def test_gateway_starts_without_redis_and_waits_for_it(start_gateway: StartGateway) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        port = nobody.getsockname()[1]
    door = start_gateway(f"redis://:s3cret@127.0.0.1:{port}", ready=False)
    answer = door.post(lines(1))
    assert answer.status_code == 503
    assert "s3cret" not in answer.text + door.http.get("/readyz").text


def test_short_absence_is_waited_out(
    redis_url: str, start_proxy: StartProxy, start_gateway: StartGateway, arrived: Arrived
) -> None:
    proxy = start_proxy(redis_url)
    door = start_gateway(proxy.url)
    proxy.go_down()
    threading.Timer(0.5, proxy.come_back).start()
    assert door.answer(lines(1))[0] == 200
    assert arrived.values() == [1]


def test_server_that_hangs_holds_nobody_for_long(
    redis_url: str, start_gateway: StartGateway, client: redis.Redis, arrived: Arrived, wait_until: WaitUntil
) -> None:
    door = start_gateway(redis_url)
    client.client_pause(60_000, all=False)
    try:
        start = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(lambda number: door.post(lines(number)).status_code, range(4)))
        assert statuses == [503] * 4
        assert time.monotonic() - start < MOST_SECONDS + 20  # far from a minute, on a busy machine too
    finally:
        client.client_unpause()
    wait_until(door.is_ready)
    assert door.answer(lines(9))[0] == 200
    assert max(Counter(arrived.values()).values()) == 1


def test_full_server_is_503_until_there_is_room(
    start_server: StartServer, start_gateway: StartGateway, wait_until: WaitUntil
) -> None:
    server = start_server(None, "--maxmemory", "8mb")
    door = start_gateway(server.url)
    full = lines(*range(1000), k="x" * 900)
    sent = 0
    while door.answer(full)[0] == 200:
        sent += 1
        assert sent < 100
    status, told = door.answer(full)
    assert (status, "maxmemory" in told["error"]["message"]) == (503, True)
    with server.client() as client:
        client.config_set("maxmemory", "1mb")  # full for the smallest body, too
        assert door.answer(lines(1), "p/1")[0] == 503
        assert door.http.get("/readyz").status_code == 503
        entries: Any = client.xrange(Keys().events(0))
        assert sum(int(fields[b"n"]) for _, fields in entries) == 1000 * sent
        client.config_set("maxmemory", 0)
    wait_until(door.is_ready)
    assert door.answer(lines(1), "p/1")[1]["duplicates"] == 0
    assert door.answer(lines(2))[0] == 200


def test_replica_is_503_and_so_is_a_user_without_rights(start_server: StartServer, start_gateway: StartGateway) -> None:
    server = start_server()
    door = start_gateway(server.url)
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        status, told = door.answer(lines(1))
        assert (status, "read only replica" in told["error"]["message"]) == (503, True)
        client.execute_command("REPLICAOF", "NO", "ONE")
        client.execute_command("ACL", "SETUSER", "watcher", "on", ">pw", "~*", "+ping", "+hello")
    watcher = start_gateway(server.url.replace("redis://", "redis://watcher:pw@"), ready=False)
    status, told = watcher.answer(lines(1))
    assert (status, "pw@" in str(told)) == (503, False)
    stranger = start_gateway(server.url.replace("redis://", "redis://watcher:wrong@"), ready=False)
    assert "refuses our user or password" in stranger.answer(lines(1))[1]["error"]["message"]


def test_key_of_a_wrong_type_is_503_and_no_crash(redis_url: str, client: redis.Redis, door: Door) -> None:
    client.set(Keys().producers(0), "text")
    for key in (None, "p/1"):
        status, told = door.answer(lines(1), key)
        assert (status, "WRONGTYPE" in told["error"]["message"]) == (503, True)
    client.delete(Keys().producers(0))
    assert door.answer(lines(1), "p/1")[0] == 200


def test_bodies_hold_a_bounded_memory_and_more_are_503(
    redis_url: str, start_proxy: StartProxy, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body.Room.__init__, "__defaults__", (200_000,))
    proxy = start_proxy(redis_url)
    door = start_gateway(proxy.url)
    large = lines(*range(600), k="x" * 100)
    assert 80_000 < len(large) < 100_000
    proxy.go_down()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: door.answer(large), range(8)))
    told = Counter(answer["error"]["message"] for status, answer in answers)
    assert {status for status, _ in answers} == {503}
    assert told["too many events wait for the server"] == 6
    proxy.come_back()
    for _ in range(10):
        assert door.answer(large)[0] == 200  # what was held has been given back


def test_body_that_does_not_arrive_is_given_up(door: Door, monkeypatch: pytest.MonkeyPatch, arrived: Arrived) -> None:
    monkeypatch.setattr(body, "READ_SECONDS", 0.2)
    host, _, port = door.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode())
    assert door.answer(lines(1))[0] == 200
    assert arrived.values() == [1]


def test_many_requests_travel_in_few_entries(
    redis_url: str, start_proxy: StartProxy, start_gateway: StartGateway, arrived: Arrived
) -> None:
    proxy = start_proxy(redis_url)
    door = start_gateway(proxy.url)
    door.answer(lines(0))
    proxy.go_down()
    threading.Timer(0.5, proxy.come_back).start()
    with ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(lambda number: door.post(lines(number)).status_code, range(1, 41)))
    assert statuses == [200] * 40
    assert sorted(arrived.values()) == list(range(41))
    assert len(arrived.entries()) < 10
    assert_no_number_is_missing(arrived)
