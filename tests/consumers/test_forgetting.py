import json
from typing import Any

import pytest
import redis

from vibezen.metrics.consumers.forgetting import CLOSED_KEPT, KEPT, forget, is_over
from vibezen.metrics.keys import IMPORTS, Keys

KEYS = Keys()
NOW = 1_763_985_600.0


def stored(silent: float, now: float = NOW, **stats: Any) -> bytes:
    return f"12 {int((now - silent) * 1000)} {json.dumps(stats)}".encode()


@pytest.mark.parametrize(
    ("value", "over"),
    [
        (stored(KEPT + 1), True),
        (stored(KEPT - 1), False),
        (stored(CLOSED_KEPT + 1, closed=True), True),
        (stored(CLOSED_KEPT - 1, closed=True), False),
        (stored(CLOSED_KEPT + 1, closed=True, spooled=3), False),
        (stored(KEPT + 1, closed=True, spooled=3), True),
        (b"12 1000", True),
        (b"12", False),
        (b"12 soon {}", False),
        (b"12 1000 not json", False),
    ],
)
def test_a_producer_is_kept_for_as_long_as_it_may_repeat_itself(value: bytes, over: bool) -> None:
    assert is_over(value, NOW) is over


def test_those_that_send_no_more_are_forgotten(client: redis.Redis) -> None:
    told: Any = client.time()
    now = float(told[0])
    name = KEYS.producers(0)
    for number in range(1200):
        client.hset(name, f"gone-{number}", stored(KEPT + 60, now))
    client.hset(name, "here", stored(60, now))
    client.hset(name, IMPORTS + "a", stored(12 * KEPT, now))
    assert forget(client, KEYS, 0) == 1200
    assert set(client.hkeys(name)) == {b"here", b"import-a"}, "an import is run again months later"
    assert forget(client, KEYS, 7) == 0


def test_one_that_sends_meanwhile_is_kept(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    told: Any = client.time()
    name = KEYS.producers(0)
    client.hset(name, "late", stored(KEPT + 60, float(told[0])))
    hscan = client.hscan

    def scan_then_send(*arguments: Any, **more: Any) -> Any:
        found = hscan(*arguments, **more)
        client.hset(name, "late", stored(0, float(told[0])))
        return found

    monkeypatch.setattr(client, "hscan", scan_then_send)
    assert forget(client, KEYS, 0) == 0
    assert client.hkeys(name) == [b"late"]
