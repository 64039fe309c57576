import pytest
import redis

from vibezen.metrics.consumers.lease import release, renew, take
from vibezen.metrics.errors import Fenced, StreamMoved
from vibezen.metrics.keys import Keys

KEYS = Keys()


def test_a_held_lease_keeps_others_out(client: redis.Redis) -> None:
    assert take(client, KEYS, 0, "archive", "a") is not None
    assert take(client, KEYS, 0, "archive", "b") is None
    assert take(client, KEYS, 0, "aggregate", "b") is not None
    assert take(client, KEYS, 1, "archive", "b") is not None


def test_every_take_over_raises_the_epoch_with_a_new_token(client: redis.Redis) -> None:
    first = take(client, KEYS, 0, "archive", "a")
    second = take(client, KEYS, 0, "archive", "a")
    assert first is not None
    assert second is not None
    assert (first.epoch, second.epoch) == (1, 2)
    assert first.fence.split(":")[1] != second.fence.split(":")[1]


def test_the_epoch_is_beyond_what_disk_has_seen(client: redis.Redis) -> None:
    taken = take(client, KEYS, 0, "archive", "a", 41)
    assert taken is not None
    assert taken.epoch == 42


def test_a_stale_owner_cannot_renew(client: redis.Redis) -> None:
    stale = take(client, KEYS, 0, "archive", "a")
    assert stale is not None
    client.xgroup_create(KEYS.events(0), "archive", id="0", mkstream=True)
    client.delete(KEYS.lease(0, "archive"))
    assert take(client, KEYS, 0, "archive", "b") is not None
    with pytest.raises(Fenced):
        renew(client, KEYS, stale, "0-0")
    assert client.get(KEYS.lease(0, "archive")) == b"b"


def test_renewing_brings_an_expired_lease_back_while_nobody_took_over(client: redis.Redis) -> None:
    taken = take(client, KEYS, 0, "archive", "a")
    assert taken is not None
    client.xgroup_create(KEYS.events(0), "archive", id="0", mkstream=True)
    client.delete(KEYS.lease(0, "archive"))
    renew(client, KEYS, taken, "0-0")
    assert client.get(KEYS.lease(0, "archive")) == b"a"


def test_a_released_shard_is_free_at_once(client: redis.Redis) -> None:
    taken = take(client, KEYS, 0, "archive", "a")
    assert taken is not None
    release(client, KEYS, taken)
    assert take(client, KEYS, 0, "archive", "b") is not None


def test_releasing_does_not_take_the_lease_of_a_successor(client: redis.Redis) -> None:
    stale = take(client, KEYS, 0, "archive", "a")
    assert stale is not None
    client.delete(KEYS.lease(0, "archive"))
    assert take(client, KEYS, 0, "archive", "b") is not None
    release(client, KEYS, stale)
    assert client.get(KEYS.lease(0, "archive")) == b"b"


def test_a_flushed_server_fences_the_owner(client: redis.Redis) -> None:
    taken = take(client, KEYS, 0, "archive", "a")
    assert taken is not None
    client.flushall()
    with pytest.raises(Fenced):
        renew(client, KEYS, taken, "0-0")


@pytest.mark.parametrize("moved", ["stream gone", "group gone", "group elsewhere"])
def test_owner_of_a_stream_that_is_not_as_it_was_left_cannot_renew(client: redis.Redis, moved: str) -> None:
    taken = take(client, KEYS, 0, "archive", "a")
    assert taken is not None
    client.xadd(KEYS.events(0), {"x": "y"}, id="5-1")
    client.xgroup_create(KEYS.events(0), "archive", id="5-1")
    renew(client, KEYS, taken, "5-1")
    if moved == "stream gone":
        client.delete(KEYS.events(0))
    elif moved == "group gone":
        client.xgroup_destroy(KEYS.events(0), "archive")
    else:
        client.xgroup_setid(KEYS.events(0), "archive", "0")
    with pytest.raises(StreamMoved):
        renew(client, KEYS, taken, "5-1")


def test_lease_from_before_the_clock_was_set_back_locks_nobody_out(client: redis.Redis) -> None:
    """It would last for an hour."""
    assert take(client, KEYS, 0, "archive", "a") is not None
    client.pexpire(KEYS.lease(0, "archive"), 3_600_000)
    assert take(client, KEYS, 0, "archive", "b") is not None
