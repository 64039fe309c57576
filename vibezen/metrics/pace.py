"""Time once more: when something that was recorded is due, at a chosen speed."""

from typing import Final

from vibezen.metrics.clock import Clock, monotonic

MAX_SPEED: Final = 1000
SLACK: Final = 1.0
"""Seconds by which a replay may run late before it goes on from there: nobody is flooded for having been slow."""


class Pace:
    """`speed` seconds of the recording pass in each of ours, from its time `begins` on. None: everything is due."""

    def __init__(self, begins: float, speed: float | None, clock: Clock = monotonic) -> None:
        self._speed, self._clock = speed, clock
        self._begins, self._since = begins, clock()

    def wait(self, at: float) -> float:
        """Seconds until the recording's time `at`."""
        if self._speed is None:
            return 0.0
        left = self._since + (at - self._begins) / self._speed - self._clock()
        if left < -SLACK:
            self._begins, self._since = at, self._clock()
        return max(0.0, left)

    def at(self) -> float:
        """The recording's time now."""
        return self._begins + (self._clock() - self._since) * (self._speed or 0.0)


def parse_speed(text: str) -> float | None:
    """None for `max`. Raises ValueError, which says what was expected."""
    if text == "max":
        return None
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if text.isascii() and whole and digits.isdigit() and len(digits) < 10 and 1 <= float(text) <= MAX_SPEED:
        return float(text)
    raise ValueError(f"expected a number from 1 to {MAX_SPEED}, or max")
