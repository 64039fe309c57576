"""Waiting for a state with a deadline, in place of sleeping."""

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import pytest

DEADLINE: Final = 60.0
"""Seconds any awaited state may take before a test fails."""


class WaitUntil(Protocol):
    def __call__(self, condition: Callable[[], Any], deadline: float = DEADLINE) -> Any: ...


def wait_until(condition: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """Wait until `condition()` is true and return its answer; fail after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not (answer := condition()):
        if time.monotonic() > end:
            pytest.fail(f"still not true after {deadline:g} s: {getattr(condition, '__name__', condition)}")
        time.sleep(0.01)
    return answer
