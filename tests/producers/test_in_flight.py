"""How many run at the same time: nothing missed that matters, nothing recorded twice."""

from typing import Any

from vibezen.metrics.producers.in_flight import REPEATED, InFlight
from vibezen.metrics.producers.sampler import Read, Sampling


class Looks:
    """Stands for the sampler: the test says when it looks."""

    def __init__(self) -> None:
        self.added: list[str] = []
        self.in_flight = InFlight("requests", {}, self.add)

    def add(self, name: str, read: Read, interval: float) -> Sampling:
        self.added.append(name)
        return Sampling(name, read, interval, lambda: None)

    def look(self) -> list[Any]:
        return [value for _, value, _ in self.in_flight.look()]

    def enter(self, times: int = 1) -> None:
        for _ in range(times):
            self.in_flight.enter()

    def leave(self, times: int = 1) -> None:
        for _ in range(times):
            self.in_flight.leave()


def test_a_change_is_recorded_and_its_end_too() -> None:
    looks = Looks()
    looks.enter(2)
    assert looks.look() == [2]
    looks.leave()
    assert looks.look() == [1]
    looks.leave()
    assert looks.look() == [0]
    assert looks.look() == []


def test_a_peak_between_two_looks_is_seen() -> None:
    looks = Looks()
    looks.enter(7)
    looks.leave(7)
    assert looks.look() == [7, 0]
    looks.enter(3)
    assert looks.look() == [3]
    looks.enter(2)
    looks.leave(2)
    assert looks.look() == [5, 3]


def test_a_thousand_short_requests_are_two_events() -> None:
    looks = Looks()
    for _ in range(1000):
        looks.enter()
        looks.leave()
    assert looks.look() == [1, 0]


def test_what_lasts_is_repeated_for_every_window_and_idleness_is_not() -> None:
    looks = Looks()
    looks.enter()
    assert [looks.look() for _ in range(1 + 2 * REPEATED)] == [
        *([1], *[[]] * (REPEATED - 1), [1], *[[]] * (REPEATED - 1), [1])
    ]
    looks.leave()
    assert looks.look() == [0]
    assert [looks.look() for _ in range(3 * REPEATED)] == [[]] * 3 * REPEATED


def test_one_sampling_is_started_per_process() -> None:
    looks = Looks()
    assert looks.added == []
    looks.enter(3)
    assert looks.added == ["requests"]
    looks.in_flight._process -= 1  # as a forked child finds it
    looks.enter()
    assert looks.added == ["requests", "requests"]
    assert looks.look() == [1]
