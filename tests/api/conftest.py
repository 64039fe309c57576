from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.serving import NOW, Served, StartDashboard, Windows, dashboard_in_thread
from tests.support.waiting import WaitUntil
from vibezen.metrics.clock import Clock, wall


@pytest.fixture
def windows(client: redis.Redis) -> Windows:
    """Writes windows and frames into the emptied server."""
    return Windows(client)


@pytest.fixture
def start_dashboard(tmp_path: Path, wait_until: WaitUntil) -> Iterator[StartDashboard]:
    """`start_dashboard(redis_url)`: an API of its own, ready, with a store of its own, until the test ends."""
    with ExitStack() as started:
        numbers = count()

        def start(redis_url: str, *, clock: Clock = wall, ready: bool = True, **settings: Any) -> Served:
            folder = tmp_path / f"store-{next(numbers)}"
            served = started.enter_context(dashboard_in_thread(redis_url, folder, clock, settings))
            if ready:
                wait_until(lambda: served.hub.trouble is None)
            return served

        yield start


@pytest.fixture
def served(redis_url: str, start_dashboard: StartDashboard) -> Served:
    """An API over the emptied server, where it is always NOW."""
    return start_dashboard(redis_url, clock=lambda: NOW)
