from typing import Any

import msgspec
import pytest

from vibezen.metrics.producer_stats import SILENT, TOLD, Stats, producers_of, read_producer

NOW = 1_763_985_600.0


def stored(silent: float = 0.0, **stats: Any) -> bytes:
    return f"12 {int((NOW - silent) * 1000)} ".encode() + msgspec.json.encode(Stats(**stats))


def test_a_producer_that_ended_without_closing_lost_at_most_its_buffer() -> None:
    found = producers_of(
        {
            b"alive": stored(SILENT - 1, recorded=3, appended=3, bound=100),
            b"closed": stored(SILENT + 1, recorded=2, appended=2, bound=100, closed=True),
            b"killed": stored(SILENT + 1, recorded=9, appended=5, in_flight=4, bound=70),
        },
        NOW,
    )
    assert (found.silent, found.unknown_at_most) == (1, 70)
    assert {view.producer: view.ended for view in found.newest} == {"alive": False, "closed": True, "killed": True}
    assert (found.recorded, found.appended, found.in_flight, found.difference) == (14, 10, 4, 0)


def test_every_way_an_event_can_go_is_counted() -> None:
    told = Stats(
        recorded=21, appended=1, buffered=2, in_flight=3, spooled=4, refused={"ts": 5}, dropped={"a": 1, "b": 5}
    )
    assert told.difference == 0
    assert msgspec.structs.replace(told, recorded=22).difference == 1


def test_differences_of_several_producers_do_not_cancel() -> None:
    found = producers_of({b"a": stored(recorded=1), b"b": stored(appended=1)}, NOW)
    assert found.difference == 2


@pytest.mark.parametrize("value", [b"", b"12", b"12 1000", b"12 1000 {}", b"x y z", b"12 1000 not json"])
def test_who_tells_no_counters_is_known_and_not_counted(value: bytes) -> None:
    found = producers_of({b"p": value}, NOW)
    assert (found.known, found.counted, found.silent) == (1, 0, 0)
    assert not read_producer(b"p", value).ended_silently(NOW)


def test_those_heard_of_last_are_told_one_by_one() -> None:
    found = producers_of({f"p{number}".encode(): stored(number, recorded=1) for number in range(100)}, NOW)
    assert [view.producer for view in found.newest] == [f"p{number}" for number in range(TOLD)]
    assert found.difference == found.recorded == 100


def test_reasons_are_added_up() -> None:
    found = producers_of({b"a": stored(dropped={"x": 1, "y": 2}), b"b": stored(dropped={"y": 3})}, NOW)
    assert found.dropped == {"x": 1, "y": 5}
