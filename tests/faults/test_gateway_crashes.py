"""The gateway killed or ended while clients send: with keys every event is there once; what was answered is there."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any, Final

import httpx
import pytest
import redis

from tests.support.gateways import PATH, Door, lines
from tests.support.processes import RoleProcess, StartRole
from tests.support.servers import SURE, StartServer
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics.keys import Keys

CLIENTS: Final = 4
BODIES: Final = 150
EACH: Final = 5
KILLS: Final = 5


@pytest.fixture
def port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def door(port: int) -> Iterator[Door]:
    door = Door(f"http://127.0.0.1:{port}")
    with door.http:
        yield door


def values(client: redis.Redis) -> Counter[int]:
    """How often each value is in the stream."""
    entries: Any = client.xrange(Keys().events(0))
    return Counter(json.loads(line)["value"] for _, fields in entries for line in fields[b"events"].splitlines())


def all_once() -> Counter[int]:
    """What all clients send."""
    return Counter(number * 100_000 + value for number in range(CLIENTS) for value in range(BODIES * EACH))


class Sender:
    """One client in a thread: sends bodies one after the other, each until it is taken."""

    def __init__(self, url: str, number: int, *, keyed: bool) -> None:
        self._url, self._name, self._keyed = url, f"client-{number}", keyed
        self._first = number * 100_000
        self.taken: list[int] = []
        self.ending = False
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=DEADLINE) as http:
            for number in range(BODIES):
                here = range(self._first + number * EACH, self._first + (number + 1) * EACH)
                headers = {"idempotency-key": f"{self._name}/{number * EACH + 1}"} if self._keyed else {}
                while not self._post(http, lines(*here), headers):
                    if self.ending:
                        return
                self.taken += here

    def _post(self, http: httpx.Client, body: bytes, headers: dict[str, str]) -> bool:
        with suppress(httpx.TransportError):
            answer = http.post(PATH, content=body, headers=headers)
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 200:
                return True
        time.sleep(0.02)  # as a client would, which leaves the processor to the one that starts; nothing is waited for
        return False


def test_gateway_killed_under_load_and_started_again_has_every_keyed_event_once(
    redis_url: str,
    client: redis.Redis,
    door: Door,
    port: int,
    start_role: StartRole,
    wait_until: WaitUntil,
) -> None:
    def start() -> RoleProcess:
        return start_role("gateway", "--redis-url", redis_url, "--port", str(port))

    process = start()
    wait_until(door.is_ready)
    senders = [Sender(door.url, number, keyed=True) for number in range(CLIENTS)]
    for kill in range(1, KILLS + 1):
        wait_until(lambda: sum(len(sender.taken) for sender in senders) > kill * 300)  # noqa: B023 - called at once
        process.kill()
        process = start()
    for sender in senders:
        sender.thread.join(60)
        assert not sender.thread.is_alive()
    assert values(client) == all_once()
    assert process.stop() == 0


def test_redis_killed_under_load_and_started_again_has_every_keyed_event_once(
    start_server: StartServer, door: Door, port: int, start_role: StartRole, wait_until: WaitUntil
) -> None:
    server = start_server(None, *SURE)
    process = start_role("gateway", "--redis-url", server.url, "--port", str(port))
    wait_until(door.is_ready)
    senders = [Sender(door.url, number, keyed=True) for number in range(CLIENTS)]
    for kill in range(1, 4):
        wait_until(lambda: sum(len(sender.taken) for sender in senders) > kill * 400)  # noqa: B023 - called at once
        server.kill()
        server.start()
    for sender in senders:
        sender.thread.join(60)
        assert not sender.thread.is_alive()
    with server.client() as client:
        assert values(client) == all_once()
    assert process.stop() == 0


def test_gateway_asked_to_end_under_load_finishes_what_it_began(
    redis_url: str, client: redis.Redis, door: Door, port: int, start_role: StartRole, wait_until: WaitUntil
) -> None:
    process = start_role("gateway", "--redis-url", redis_url, "--port", str(port))
    wait_until(door.is_ready)
    senders = [Sender(door.url, number, keyed=False) for number in range(CLIENTS)]
    wait_until(lambda: sum(len(sender.taken) for sender in senders) > 500)
    assert process.stop(deadline=10) == 0
    for sender in senders:
        sender.ending = True
        sender.thread.join(DEADLINE)
    found = values(client)
    taken = {value for sender in senders for value in sender.taken}
    assert set(found.values()) == {1}
    assert found.keys() >= taken
    # An answer may be under way when its connection is closed, at most one of each client.
    assert len(found) - len(taken) <= CLIENTS * EACH
    assert "Traceback" not in process.said


def test_gateway_ends_in_time_while_redis_is_away_and_clients_do_not_finish(
    redis_url: str, door: Door, port: int, start_role: StartRole, wait_until: WaitUntil
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as deaf:  # takes connections, answers nothing
        url = f"redis://127.0.0.1:{deaf.getsockname()[1]}"
        process = start_role("gateway", "--redis-url", url, "--port", str(port))
        wait_until(lambda: "Gateway: http://localhost" in process.said)
        unfinished = socket.create_connection(("127.0.0.1", port))
        with unfinished:
            unfinished.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode())
            poster = threading.Thread(target=door.post, args=(lines(1),))
            poster.start()
            assert process.stop(deadline=10) == 0
            poster.join(DEADLINE)
