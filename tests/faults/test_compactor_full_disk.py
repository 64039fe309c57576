"""A disk without space for what is in the making: nothing is published, it is told, and goes on when there is some."""

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.segments import commit, values
from vibezen.metrics.clock import HOUR
from vibezen.metrics.consumers.compactor import Compactor
from vibezen.metrics.consumers.holdings import Holdings
from vibezen.metrics.errors import StoreFull
from vibezen.metrics.event import Event
from vibezen.metrics.layout import Layout, is_full
from vibezen.metrics.settings import Compaction, Settings

DATE = 1_763_942_400


def leave(file: Path, free: int) -> None:
    """Take all the space but so many bytes."""
    with file.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    os.truncate(file, max(file.stat().st_size - free, 0))


def compact(one: Compactor) -> None:
    while one.round():
        pass


@pytest.mark.parametrize("free", [0, 4096, 8192, 16384])
def test_without_space_nothing_is_published_and_with_space_it_goes_on(small: Path, free: int) -> None:
    layout = Layout(small / "store")
    layout.create()
    wanted: Counter[float] = Counter()
    for number in range(3):
        events = [Event("m", n + number * 1000.0, DATE + number * HOUR + n, metadata={"n": n * n}) for n in range(1000)]
        commit(layout, events)
        wanted.update(event.value for event in events)
    policy = Compaction(after_seconds=1, grace_seconds=0.001)
    settings = Settings(storage_dir=layout.root, retention_days=100_000, compaction=policy)
    one = Compactor(layout, settings, Holdings(layout, lambda shard: 1), 1, lambda: None, lambda: 4e9)
    filler = small / "filler"
    leave(filler, free)
    with pytest.raises((StoreFull, OSError)) as raised:
        compact(one)
    assert isinstance(raised.value, StoreFull) or is_full(raised.value)
    assert one.books()["damaged"] == "0"
    assert values(layout) == wanted
    filler.unlink()
    compact(one)
    one.close()
    assert values(layout) == wanted
    assert [path.name for path in layout.events.rglob("*") if path.is_file()] == ["part-1.parquet"]
