"""Guesses at tokens: who has to wait, for how long, and at what cost of memory."""

from vibezen.metrics.serving import attempts
from vibezen.metrics.serving.attempts import FREE, LONGEST, WINDOW, Attempts


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def fail(guesses: Attempts, address: str = "203.0.113.9", times: int = FREE) -> float:
    for _ in range(times):
        guesses.failed(address)
    return guesses.wait(address)


def test_who_guesses_wrong_too_often_waits_each_time_twice_as_long() -> None:
    time = Time()
    guesses = Attempts(time)
    assert fail(guesses, times=FREE - 1) == 0
    assert guesses.wait("203.0.113.10") == 0
    waits = [fail(guesses, times=1)]
    for _ in range(8):
        time.now += waits[-1]
        assert guesses.wait("203.0.113.9") == 0
        waits.append(fail(guesses))
    assert waits[:4] == [60, 120, 240, 480]
    assert waits[-1] == LONGEST
    time.now += 2 * LONGEST + 1
    assert fail(guesses) == 60


def test_slow_mistakes_never_wait() -> None:
    time = Time()
    guesses = Attempts(time)
    for _ in range(3 * FREE):
        time.now += WINDOW / (FREE - 2)
        assert fail(guesses, times=1) == 0


def test_neighbours_of_one_ipv6_network_are_one() -> None:
    guesses = Attempts(Time())
    for number in range(FREE):
        guesses.failed(f"2001:db8::{number:x}")
    assert guesses.wait("2001:db8::ffff") > 0
    assert guesses.wait("2001:db8:0:1::1") == 0


def test_token_known_at_an_address_is_remembered_for_it_alone() -> None:
    guesses = Attempts(Time())
    guesses.succeeded("203.0.113.9", "digest")
    assert guesses.is_known("203.0.113.9", "digest")
    assert not guesses.is_known("203.0.113.9", "other")
    assert not guesses.is_known("203.0.113.10", "digest")


def test_memory_is_bounded_whatever_comes() -> None:
    guesses = Attempts(Time())
    for number in range(attempts.ADDRESSES + 50):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        guesses.failed(address)
        guesses.succeeded(address, "digest")
    assert len(guesses._guessers) == len(guesses._known) == attempts.ADDRESSES
    assert not guesses.is_known("10.0.0.0", "digest")


def test_clients_by_ipv4_are_told_apart_on_a_socket_of_ipv6_and_by_interface_they_are_not() -> None:
    guesses = Attempts(Time())
    assert fail(guesses, "::ffff:203.0.113.9") > 0
    assert guesses.wait("::ffff:203.0.113.10") == 0
    assert fail(guesses, "fe80::1%eth0") > 0
    assert guesses.wait("fe80::1%eth1") > 0
