"""What a soak does to whom, and when: the same seed gives the same plan."""

import random
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

FROZEN: Final = (7.0, 12.0)
"""Seconds an owner sleeps; its lease is over after five."""
AWAY: Final = (0.2, 3.0)
"""Seconds until what was killed is started again."""
HINDERED: Final = (2.0, 5.0)
"""Seconds of a full disk, or of replies cut."""


class Step(NamedTuple):
    """`at`: seconds from the beginning."""

    at: float
    do: str
    whom: str

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.do} {self.whom}"


Fault = Callable[[random.Random, float], Iterator[Step]]
"""Gets a time; its steps, the healing one last."""


def _then(do: str, healed: str, whom: Callable[[random.Random], str], lasts: tuple[float, float]) -> Fault:
    def steps(chance: random.Random, at: float) -> Iterator[Step]:
        victim = whom(chance)
        yield Step(at, do, victim)
        yield Step(round(at + chance.uniform(*lasts), 1), healed, victim)

    return steps


def _at_once(do: str, whom: str) -> Fault:
    return lambda chance, at: iter([Step(at, do, whom)])


def _during(whom: Callable[[random.Random], str]) -> Fault:
    """Killed while the server is away, with what it cannot have sent."""

    def steps(chance: random.Random, at: float) -> Iterator[Step]:
        victim = whom(chance)
        yield Step(at, "kill", "server")
        yield Step(round(at + chance.uniform(0.5, 2.0), 1), "kill", victim)
        yield Step(round(at + chance.uniform(2.0, 3.0), 1), "start", "server")
        yield Step(round(at + chance.uniform(2.0, 4.0), 1), "start", victim)

    return steps


def _any(*names: str) -> Callable[[random.Random], str]:
    return lambda chance: chance.choice(names)


def plan(seed: int, seconds: float, gap: float, applications: int) -> list[Step]:
    """Faults about `gap` seconds apart: each kind once in random order, then all again. Owners freeze first, since that
    takes longest."""
    chance = random.Random(seed)
    someone = _any(*(f"application {number}" for number in range(applications)))
    freezing = [_then("freeze", "thaw", _any(owner), FROZEN) for owner in ("owner of archive", "owner of aggregate")]
    others: list[Fault] = [
        _then("kill", "start", _any("archiver 0", "archiver 1"), AWAY),
        _then("kill", "start", _any("aggregator 0", "aggregator 1"), AWAY),
        _then("kill", "start", _any("gateway"), AWAY),
        _then("kill", "start", _any("page"), AWAY),
        _then("kill", "start", _any("server"), AWAY),
        _then("kill", "start", someone, AWAY),
        _during(someone),
        _then("end", "start", someone, AWAY),
        _then("freeze", "thaw", someone, HINDERED),
        _then("fill", "clear", _any("disk"), HINDERED),
        _then("cut", "keep", _any("replies"), HINDERED),
        _at_once("drop", "connections"),
        _at_once("forget", "scripts"),
    ]
    steps: list[Step] = []
    at = 0.0
    while at < seconds:
        chance.shuffle(others)
        for fault in (*freezing, *others):
            at += gap * chance.uniform(0.5, 1.5)
            if at < seconds:
                steps += fault(chance, round(at, 1))
    return sorted(steps)
