"""An entry that kills every process that looks into it: found out in three crashes, set aside, its neighbours kept."""

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import redis

from tests.support.feeding import Feed, event, total, values_on_disk
from vibezen.metrics.account import Account
from vibezen.metrics.keys import ARCHIVE, GROUPS, Keys

pytestmark = pytest.mark.server

KEYS = Keys()
OWNER: Final = """
import os, signal, sys
from vibezen.metrics import verdict

judge = verdict.judge
def deadly(payload, arrived):
    if b"666" in payload:
        os.kill(os.getpid(), signal.SIGKILL)
    return judge(payload, arrived)
verdict.judge = deadly  # before the consumers take it from there

from vibezen.metrics.cli import main
main()
"""


@pytest.mark.parametrize("group", GROUPS)
def test_entry_that_kills_its_owner_is_set_aside_after_three_crashes_while_trying_it(
    client: redis.Redis, redis_url: str, tmp_path: Path, group: str
) -> None:
    store = tmp_path / "store"
    feed = Feed(client)
    for value in (1, 2, 666, 3, 4):
        feed.append([event(value)])
    command = [sys.executable, "-c", OWNER, "consume", group, "--once"]
    ends: list[int] = []
    while not ends or ends[-1] != 0:
        client.delete(KEYS.lease(0, group))  # it would run out by itself; this only saves the waiting
        ended = subprocess.run(
            [*command, "--redis-url", redis_url, "--storage-dir", str(store)], capture_output=True, timeout=60
        )
        ends.append(ended.returncode)
        assert len(ends) < 10, ended.stderr.decode()
    assert ends == [-signal.SIGKILL] * 5 + [0]
    books: Any = client.hget(KEYS.books(0), f"{group}.account")
    found = msgspec.json.decode(books, type=Account)
    assert (found.accepted, found.condemned, found.rejected) == (4, 1, 1)
    if group == ARCHIVE:
        assert values_on_disk(store) == Counter([1.0, 2.0, 3.0, 4.0])
        assert client.hlen(KEYS.dead(0)) == 1
    else:
        assert total(client).sum == 10.0
