"""Counting without locks, and the one equation of the books."""

import sys
import threading

from vibezen.metrics.event import Event
from vibezen.metrics.producer_stats import Stats
from vibezen.metrics.producers.books import Tally
from vibezen.metrics.producers.buffer import Buffer


def balance(stats: Stats) -> bool:
    settled = stats.appended + sum(stats.refused.values()) + sum(stats.dropped.values())
    return stats.recorded == settled + stats.buffered + stats.in_flight + stats.spooled


def filled(events: int, bound: int = 1000) -> Buffer:
    buffer = Buffer(bound)
    for number in range(events):
        buffer.events.append(Event("m", number))
        buffer.drop_excess()
    return buffer


def test_a_tally_can_be_read_by_a_signal_handler_while_its_thread_reads_it() -> None:
    tally = Tally()
    tally.hit()
    told = []

    def interrupt(*_: object) -> None:
        told.append(tally.value())

    def read() -> None:
        sys.settrace(lambda *_: interrupt)
        told.append(tally.value())
        sys.settrace(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(10)
    assert not reader.is_alive()
    assert len(told) > 1
    assert set(told) == {1}


def test_a_tally_is_exact_under_threads_and_reads() -> None:
    tally = Tally()
    threads = [threading.Thread(target=lambda: [tally.hit() for _ in range(5000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        tally.value()
    assert tally.value() == 40_000
    assert tally.value() == 40_000


def test_a_full_buffer_drops_the_oldest() -> None:
    buffer = filled(15, bound=10)
    assert [event.value for event in buffer.take(100)] == list(range(5, 15))
    assert buffer.stats().dropped == {"overflow": 5}


def test_the_books_balance_at_every_step() -> None:
    buffer = filled(15, bound=10)
    books = buffer.books
    assert balance(buffer.stats())
    buffer.take(4)
    assert buffer.stats() == Stats(recorded=15, buffered=6, in_flight=4, dropped={"overflow": 5}, bound=10)
    books.refuse("ts")
    assert balance(buffer.stats())
    books.landed()
    assert buffer.stats().appended == 3
    buffer.take(2)
    books.lost("internal")
    books.drop_unbuffered("closed")
    books.refuse_unbuffered("value")
    assert balance(buffer.stats())
    buffer.drop_all("closed")
    assert buffer.stats() == Stats(
        recorded=17,
        appended=3,
        refused={"ts": 1, "value": 1},
        dropped={"overflow": 5, "internal": 2, "closed": 5},
        bound=10,
    )


def test_open_events_are_those_recorded_before_and_not_settled() -> None:
    buffer = filled(10)
    position = buffer.position()
    buffer.events.append(Event("m", 99))
    assert buffer.open_before(position) == 10
    buffer.take(4)
    assert buffer.open_before(position) == 10
    buffer.books.landed()
    assert buffer.open_before(position) == 6
    buffer.take(7)
    assert buffer.open_before(position) == 6
    buffer.books.landed()
    assert buffer.open_before(position) == 0


def test_drops_by_overflow_do_not_hide_what_is_in_flight() -> None:
    buffer = filled(10, bound=10)
    position = buffer.position()
    buffer.take(10)
    for number in range(30):
        buffer.events.append(Event("m", number))
        buffer.drop_excess()
    assert buffer.open_before(position) == 10


def test_a_child_begins_with_empty_books_and_the_same_deque() -> None:
    buffer = filled(5)
    events = buffer.events
    buffer.start_anew()
    assert buffer.events is events
    assert buffer.stats() == Stats(bound=buffer.bound)


def test_spooled_events_are_neither_in_flight_nor_lost_until_something_becomes_of_them() -> None:
    buffer = filled(10)
    books = buffer.books
    position = buffer.position()
    buffer.take(4)
    books.kept(first=1)
    buffer.take(3)
    books.kept(first=5)
    assert balance(buffer.stats())
    assert (buffer.stats().spooled, buffer.stats().in_flight, buffer.open_before(position)) == (7, 0, 10)
    books.landed(first=1)
    books.lost("spool_full", first=5)
    assert buffer.stats() == Stats(recorded=10, appended=4, buffered=3, dropped={"spool_full": 3}, bound=1000)
    assert buffer.open_before(position) == 3
    books.landed(first=1)
    assert buffer.stats().appended == 4, "once"


def test_where_the_disk_is_safe_spooled_events_are_settled() -> None:
    buffer = Buffer(1000, spooled_is_safe=True)
    for number in range(10):
        buffer.events.append(Event("m", number))
    position = buffer.position()
    buffer.take(6)
    assert buffer.open_before(position) == 10
    buffer.books.kept(first=1)
    assert buffer.open_before(position) == 4


def test_events_that_never_were_in_the_buffer_do_not_move_the_positions_of_others() -> None:
    buffer = filled(10)
    position = buffer.position()
    buffer.books.refuse_unbuffered("value")
    buffer.take(4)
    buffer.books.add_to_flight(2)
    buffer.books.landed()
    assert buffer.open_before(position) == 6
    assert balance(buffer.stats())
