"""Where space can be wanting: each step of a commit is undone or repeated, and none is taken for done."""

import errno
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import redis

from tests.consumers.conftest import Drain, NewArchiver
from tests.support.feeding import NOON, Feed, event, lag, values_on_disk
from tests.support.waiting import WaitUntil
from vibezen.metrics import config
from vibezen.metrics.commitlog import read_log
from vibezen.metrics.consumers.supervisor import run
from vibezen.metrics.errors import StoreError, StoreFull
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.settings import Settings

KEYS = Keys()


@contextmanager
def no_space(call: str, when: int = 1, code: int = errno.ENOSPC) -> Iterator[list[int]]:
    """The `when`-th use of `os.<call>` on files, and all after it, fail; a write takes half of its bytes first."""
    real: Callable[..., Any] = getattr(os, call)
    calls = [0]

    def fail(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] < when:
            return real(*arguments, **options)
        if call == "write":
            fd, data = arguments
            real(fd, bytes(data)[: len(data) // 2])
        raise OSError(code, os.strerror(code))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, fail)
        yield calls


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(
    ("call", "when"),
    [("write", 1), ("write", 2), ("write", 3), ("mkdir", 1), ("mkdir", 2), ("link", 1), ("link", 2)],
    ids=lambda value: str(value),
)
def test_commit_without_space_is_undone_and_done_again(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain, call: str, when: int, code: int
) -> None:
    """Two segments and a log: the third write is the log's, and a torn record in it would hide all that follow."""
    feed = Feed(client)
    archiver = new_archiver()
    feed.append([event(1, NOON), event(2, NOON + 86_400), event(3, ts=5.0)])
    with no_space(call, when, code), pytest.raises(StoreFull, match=r"^storage folder: .*(space|quota)"):
        drain(archiver)
    if call != "link":  # the last step, after the commit: the segment is only shown later
        assert lag(client, "archive") == 1
        assert client.hlen(KEYS.dead(0)) == 0
    feed.append([event(4, NOON)])
    drain(archiver)
    assert values_on_disk(layout.root) == Counter([1.0, 2.0, 4.0])
    assert client.hlen(KEYS.dead(0)) == 1
    assert lag(client, "archive") == 0
    ((_, log),) = layout.logs(0)
    assert read_log(log).length == log.stat().st_size
    drain(new_archiver())
    assert values_on_disk(layout.root) == Counter([1.0, 2.0, 4.0])


def test_failed_fsync_is_never_tried_again(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    """The kernel may drop what it could not write and report success the next time: also where it says no space."""
    Feed(client).append([event(1)])
    archiver = new_archiver()
    with no_space("fdatasync"), pytest.raises(OSError, match="No space"):
        drain(archiver)
    drain(new_archiver())
    assert values_on_disk(layout.root) == Counter([1.0])


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return config.load(redis_url=redis_url, storage_dir=tmp_path / "store", environ={})


@pytest.fixture
def archive(settings: Settings) -> Iterator[Thread]:
    stop = Event()
    thread = Thread(target=run, args=("archive", settings), kwargs={"stop": stop})
    thread.start()
    yield thread
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_take_over_without_space_is_tried_again_and_told(
    client: redis.Redis,
    settings: Settings,
    request: pytest.FixtureRequest,
    wait_until: WaitUntil,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The copy that seals a predecessor's segment finds no space."""
    feed = Feed(client)
    feed.append([event(1)])
    assert run("archive", settings, once=True) == 0
    feed.append([event(2)])
    with caplog.at_level(logging.WARNING), no_space("write") as calls:
        request.getfixturevalue("archive")
        wait_until(lambda: calls[0] >= 2)
        assert client.hget(KEYS.books(0), "archive.trouble") == b"storage folder: no space left on device"
        assert lag(client, "archive") == 1
    wait_until(lambda: values_on_disk(settings.storage_dir) == Counter([1.0, 2.0]))
    wait_until(lambda: client.hget(KEYS.books(0), "archive.trouble") == b"")
    wait_until(lambda: "there is space again" in caplog.text)
    assert caplog.text.count("nothing is committed until there is space") == 1
    assert caplog.text.count("there is space again") == 1


def test_an_owner_without_space_waits_for_it_as_the_owner(
    client: redis.Redis,
    settings: Settings,
    request: pytest.FixtureRequest,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who let the shard go would read all again, and could find no space for taking it over."""
    monkeypatch.setattr("vibezen.metrics.consumers.worker.SPACE_PAUSE", 0.05)
    request.getfixturevalue("archive")
    wait_until(lambda: client.hget(KEYS.books(0), "archive.epoch") == b"1")
    with no_space("write") as calls:
        Feed(client).append([event(1)])
        wait_until(lambda: calls[0] >= 3)
        assert client.hget(KEYS.books(0), "archive.trouble") == b"storage folder: no space left on device"
    wait_until(lambda: lag(client, "archive") == 0)
    assert client.hget(KEYS.books(0), "archive.epoch") == b"1"
    assert values_on_disk(settings.storage_dir) == Counter([1.0])


def test_once_without_space_is_one_line(client: redis.Redis, settings: Settings) -> None:
    Feed(client).append([event(1)])
    run("archive", settings, once=True)
    Feed(client, "p2").append([event(2)])
    with no_space("write"), pytest.raises(StoreError, match="space left on device"):
        run("archive", settings, once=True)
    assert run("archive", settings, once=True) == 0
    assert values_on_disk(settings.storage_dir) == Counter([1.0, 2.0])
