"""`Idempotency-Key`: a retry adds nothing, no event is taken for another, and no number is left out."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from tests.producers.conftest import Arrived
from tests.support.gateways import Door, StartGateway, lines
from vibezen.metrics.batch import MAX_SEQ
from vibezen.metrics.event import MAX_AHEAD
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers.append import last_number, shard_of
from vibezen.metrics.producers.idempotency import Key, parse_key
from vibezen.metrics.producers.keyed import KNOWN_SHARDS, Keyed
from vibezen.metrics.serving.errors import ApiError
from vibezen.metrics.settings import Streams

NOW = 1_795_449_600.0


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("p/1", Key("p", 1)),
        ('"p/1"', Key("p", 1)),
        ("build-7.example:4318@home~!/900", Key("build-7.example:4318@home~!", 900)),
        ("x" * 200 + "/1", Key("x" * 200, 1)),
        (f"p/{MAX_SEQ - 1000}", Key("p", MAX_SEQ - 1000)),
    ],
)
def test_key_is_producer_and_number(text: str, key: Key) -> None:
    assert parse_key([text]) == key


@pytest.mark.parametrize(
    "values",
    [
        *([text] for text in ("", "p", "p/", "/1", "p/0", "p/-1", "p/01", "p/1.0", "p/x", "a/b/1", "p /1", "p/1 ")),
        *(
            [text]
            for text in (
                "x" * 201 + "/1",
                f"p/{MAX_SEQ}",
                "p/" + "9" * 30,
                'p"/1',
                '"',
                '""',
                "gr\u00f6\u00dfe/1",
                "p/\u0661",
            )
        ),
        ["p/1", "p/1"],
    ],
    ids=str,
)
def test_malformed_key_names_the_form(values: list[str]) -> None:
    with pytest.raises(ApiError, match="<producer>/<number>") as caught:
        parse_key(values)
    assert (caught.value.status, caught.value.detail.field) == (400, "Idempotency-Key")


def test_names_of_imports_are_not_for_clients() -> None:
    with pytest.raises(ApiError, match="belong to imports") as caught:
        parse_key(["import-0123/1"])
    assert (caught.value.status, caught.value.detail.code) == (400, "bad_key")


def test_malformed_key_is_refused_with_nothing_appended(door: Door, arrived: Arrived) -> None:
    status, told = door.answer(lines(1), "no number")
    assert (status, told["error"]["code"], told["error"]["field"]) == (400, "bad_key", "Idempotency-Key")
    assert arrived.entries() == []


def test_retry_adds_nothing_and_is_answered_alike(door: Door, arrived: Arrived) -> None:
    assert door.answer(lines(1, 2), "p/1")[1] == {
        "accepted": 2, "duplicates": 0, "refused": [], "refused_count": 0, "next": 3,
    }  # fmt: skip
    for _ in range(4):
        assert door.answer(lines(1, 2), "p/1")[1]["duplicates"] == 2
    assert door.answer(lines(3), "p/3")[1]["next"] == 4
    assert door.answer(lines(1, 2), "p/1")[1]["next"] == 3
    assert arrived.values() == [1, 2, 3]
    assert [(entry.producer, entry.seq, entry.n) for entry in arrived.entries()] == [("p", 1, 2), ("p", 3, 1)]


def test_body_that_is_partly_there_is_completed(door: Door, arrived: Arrived) -> None:
    door.answer(lines(1, 2), "p/1")
    told = door.answer(lines(2, 3, 4), "p/2")[1]
    assert (told["accepted"], told["duplicates"], told["next"]) == (3, 1, 5)
    assert arrived.values() == [1, 2, 3, 4]


def test_numbers_count_accepted_events(door: Door, arrived: Arrived) -> None:
    body = lines(1) + b"nothing\n" + lines(2)
    for duplicates in (0, 2, 2):
        status, told = door.answer(body, "p/1")
        assert (status, told["accepted"], told["duplicates"], told["next"]) == (207, 2, duplicates, 3)
    assert door.answer(b"nothing", "p/3")[1]["next"] == 3
    assert door.answer(lines(3), "p/3")[0] == 200
    assert arrived.values() == [1, 2, 3]


def test_jump_is_refused_with_the_expected_number_and_nothing_appended(door: Door, arrived: Arrived) -> None:
    for key, expected in (("p/3", 1), ("q/2", 1)):
        status, told = door.answer(lines(3), key)
        assert (status, told["next"], told["error"]["code"]) == (409, expected, "gap")
        assert f"the next number is {expected}" in told["error"]["message"]
    assert arrived.entries() == []
    door.answer(lines(1, 2), "p/1")
    assert door.answer(lines(3), "p/3")[0] == 200
    assert door.answer(lines(9), "p/9")[1]["next"] == 4
    assert arrived.values() == [1, 2, 3]


def test_bodies_that_arrive_out_of_order_are_all_there_once_after_retries(door: Door, arrived: Arrived) -> None:
    bodies = [(f"p/{first}", lines(*range(first, first + 5))) for first in range(1, 101, 5)]
    left = list(reversed(bodies))
    while left:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda sent: door.answer(sent[1], sent[0])[0], left))
        left = [sent for sent, status in zip(left, answers, strict=True) if status != 200]
        assert set(answers) <= {200, 409}
    assert arrived.values() == list(range(1, 101))


def test_event_whose_verdict_the_clock_decides_refuses_the_whole_body(
    redis_url: str, start_gateway: StartGateway, arrived: Arrived
) -> None:
    clock = [NOW]
    door = start_gateway(redis_url, clock=lambda: clock[0])
    body = lines(1, ts=NOW) + lines(2, ts=NOW + MAX_AHEAD + 5) + b"nothing\n" + lines(3, ts=NOW)
    status, told = door.answer(body, "p/1")
    assert (status, told["error"]["code"], told["accepted"], told["next"]) == (422, "untimely", 0, 1)
    assert [bad["line"] for bad in told["refused"]] == [1, 2]
    assert arrived.entries() == []
    assert door.answer(body)[0] == 207  # without a key nobody counts
    clock[0] += 10
    assert door.answer(body, "p/1")[1]["accepted"] == 3
    assert arrived.values() == [1, 3, 1, 2, 3]


def test_time_in_milliseconds_is_no_matter_of_the_clock(door: Door) -> None:
    status, told = door.answer(lines(1) + lines(2, ts=NOW * 1000), "p/1")
    assert (status, told["accepted"]) == (207, 1)


def test_producer_stays_on_its_shard_when_their_number_changes(
    redis_url: str, client: redis.Redis, start_gateway: StartGateway
) -> None:
    first = start_gateway(redis_url)
    names = [f"p{number}" for number in range(8)]
    for name in names:
        assert first.answer(lines(1), f"{name}/1")[0] == 200
    wider = start_gateway(redis_url, streams=Streams(shards=4))
    assert {shard_of(name, 4) for name in names} > {0}
    for name in names:
        assert wider.answer(lines(1), f"{name}/1")[1]["duplicates"] == 1
        assert wider.answer(lines(2), f"{name}/2")[0] == 200
        assert last_number(client, Keys(), 0, name) == 2
    assert wider.answer(lines(1), "new-one/1")[0] == 200
    shard = shard_of("new-one", 4)
    assert last_number(client, Keys(), shard, "new-one") == 1
    # The gateway that does not know of more shards finds it, too.
    assert first.answer(lines(1, 2), "new-one/1")[1]["duplicates"] == 1
    assert client.get(Keys().shards) == b"4"


def test_remembered_shard_that_is_wrong_is_looked_up_again(
    redis_url: str, client: redis.Redis, start_gateway: StartGateway
) -> None:
    name = next(name for name in (f"p{number}" for number in range(100)) if shard_of(name, 2) == 1)
    first = start_gateway(redis_url)
    first.answer(lines(1), f"{name}/1")  # on shard 0, and remembered
    wider = start_gateway(redis_url, streams=Streams(shards=2))
    client.delete(Keys().producers(0))
    assert wider.answer(lines(1), f"{name}/1")[1]["duplicates"] == 0  # on shard 1
    assert first.answer(lines(2), f"{name}/2")[0] == 200
    assert last_number(client, Keys(), 1, name) == 2


def test_only_so_many_shards_are_remembered() -> None:
    keyed: Any = Keyed(Keys(), 1)
    for number in range(KNOWN_SHARDS + 10):
        keyed._remember(f"p{number}", 0)
    assert len(keyed._shard_of) == KNOWN_SHARDS


def test_script_that_the_server_has_forgotten_is_sent_again(door: Door, arrived: Arrived) -> None:
    door.answer(lines(1), "p/1")
    arrived.client.script_flush()
    assert door.answer(lines(2), "p/2")[0] == 200
    arrived.client.script_flush()
    assert door.answer(lines(3))[0] == 200
    assert arrived.values() == [1, 2, 3]


def test_requests_at_the_same_time_are_told_their_own_outcome(door: Door, arrived: Arrived) -> None:
    begin = threading.Barrier(12)

    def post(number: int) -> tuple[int, Any]:
        begin.wait()
        if number % 3 == 0:
            return door.answer(lines(number), f"p{number}/5")
        return door.answer(lines(number), f"p{number}/1" if number % 3 == 1 else None)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(post, range(12)))
    assert [status for status, _ in answers] == [409, 200, 200] * 4
    assert sorted(arrived.values()) == [number for number in range(12) if number % 3]
