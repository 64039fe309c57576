"""Every file operation of an archiver fails once, by kill, full disk and broken disk: what a restart makes of it is
exact, and nothing is confirmed that was not made durable."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.feeding import Feed, event, lag, values_on_disk
from vibezen.metrics.keys import Keys

pytestmark = pytest.mark.server

KEYS = Keys()
SCRIPT = Path(__file__).with_name("file_faults.py")


def trials(redis_url: str, folder: Path, fault: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(SCRIPT), redis_url, str(folder), fault]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("fault", ["KILL", "ENOSPC", "EIO"])
def test_restart_after_a_fault_at_any_file_operation_is_exact(redis_url: str, tmp_path: Path, fault: str) -> None:
    done = trials(redis_url, tmp_path, fault)
    for told in done:
        assert told["values"] == [1.0, 2.0, 3.0, 5.0], told
        assert (told["dead"], told["lag"], told["hidden"]) == (1, 0, []), told
        if told["call"] in ("write", "fdatasync"):
            assert told["code"] != 0, told
            assert told["behind"] == 1, f"confirmed without being durable: {told}"
    calls = Counter(told["call"] for told in done)
    assert calls["write"] >= 6
    assert calls["fdatasync"] == 3, "two segments, one record"
    assert {"fsync", "link", "rename", "mkdir", "unlink", "open"} <= calls.keys()


def strace(inject: str) -> list[str]:
    found = shutil.which("strace")
    if found is None:
        pytest.skip("no strace here: apt install strace")
    call = inject.partition(":")[0]
    return [found, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={inject}"]


def consume(client: redis.Redis, redis_url: str, store: Path, *before: str) -> subprocess.CompletedProcess[str]:
    client.delete(KEYS.lease(0, "archive"))
    command = [sys.executable, "-m", "vibezen.metrics", "consume", "archive", "--once"]
    addressed = [*before, *command, "--redis-url", redis_url, "--storage-dir", str(store)]
    return subprocess.run(addressed, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("when", [1, 2])
def test_failed_fdatasync_ends_the_process_before_anything_is_confirmed(
    client: redis.Redis, redis_url: str, tmp_path: Path, when: int
) -> None:
    """The first makes the segment durable, the second the commit record."""
    feed, store = Feed(client), tmp_path / "store"
    feed.append([event(1)])
    ended = consume(client, redis_url, store, *strace(f"fdatasync:error=EIO:when={when}"))
    assert ended.returncode == 1
    assert "Input/output error" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert lag(client, "archive") == 1
    assert consume(client, redis_url, store).returncode == 0
    assert values_on_disk(store) == Counter([1.0])


@pytest.mark.soak
@pytest.mark.parametrize("how", ["signal=KILL", "error=ENOSPC", "error=EIO"])
@pytest.mark.parametrize("call", ["write", "fsync", "fdatasync", "mkdir", "link", "rename", "unlink", "ftruncate"])
def test_restart_after_a_fault_at_any_system_call_is_exact(
    client: redis.Redis, redis_url: str, tmp_path: Path, call: str, how: str
) -> None:
    """The same with the kernel's word: a process of its own per fault, and a call that never returns."""
    feed, store, expected = Feed(client), tmp_path / "store", Counter[float]()
    for when in range(1, 13):
        values = [3.0 * when, 3.0 * when + 1]
        feed.append([event(value, 1_763_985_600.0 + 3600 * value) for value in values])
        expected.update(values)
        ended = consume(client, redis_url, store, *strace(f"{call}:{how}:when={when}"))
        if ended.returncode != 0:
            assert consume(client, redis_url, store).returncode == 0
        assert values_on_disk(store) == expected
        assert lag(client, "archive") == 0
