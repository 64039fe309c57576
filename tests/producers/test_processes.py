"""Fork, the interpreter's end, many processes and threads: real processes against a real server."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import redis

from tests.producers.conftest import Arrived, MakeCollector
from vibezen.metrics import MetricsCollector
from vibezen.metrics.keys import Keys
from vibezen.metrics.settings import Streams


def python(program: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


EXITS = {
    "end of script": "",
    "sys.exit": "sys.exit(0)",
    "exception": "raise SystemExit('as if it failed') from None",
    "inside asyncio": "import asyncio\nasync def main():\n    await collector.record('m', -1)\nasyncio.run(main())",
}


@pytest.mark.parametrize("how", EXITS)
def test_a_short_process_delivers_everything_at_its_end(how: str, redis_url: str, arrived: Arrived) -> None:
    program = f"""
import sys
from vibezen.metrics import MetricsCollector
collector = MetricsCollector(redis_url=sys.argv[1])
for value in range(50):
    collector.record_nowait("m", value)
{EXITS[how]}
"""
    done = python(program, redis_url)
    assert done.stderr.strip() in ("", "as if it failed")
    assert [value for value in arrived.values() if value >= 0] == list(range(50))


def test_a_collector_made_and_forgotten_in_a_function_delivers_at_the_end(redis_url: str, arrived: Arrived) -> None:
    program = """
import sys
from vibezen.metrics import MetricsCollector
def work():
    MetricsCollector(redis_url=sys.argv[1]).record_nowait("m", 5)
work()
"""
    assert python(program, redis_url).stderr == ""
    assert arrived.values() == [5]


def test_events_of_other_exit_functions_are_delivered(redis_url: str, arrived: Arrived) -> None:
    program = """
import atexit, sys
from vibezen.metrics import MetricsCollector
collector = MetricsCollector(redis_url=sys.argv[1])
atexit.register(collector.record_nowait, "m", 5)
"""
    assert python(program, redis_url).stderr == ""
    assert arrived.values() == [5]


def test_events_of_exit_functions_that_run_after_the_end_of_collecting_are_dropped_and_counted(
    redis_url: str, arrived: Arrived
) -> None:
    program = """
import atexit, sys
def late():
    collector.record_nowait("m", 6)
    print(collector.stats())
atexit.register(late)
from vibezen.metrics import MetricsCollector
collector = MetricsCollector(redis_url=sys.argv[1])
collector.record_nowait("m", 5)
"""
    done = python(program, redis_url)
    assert done.stderr == ""
    assert "recorded=2," in done.stdout
    assert "appended=1, buffered=0," in done.stdout
    assert "dropped={'closed': 1}" in done.stdout
    assert arrived.values() == [5]


@pytest.mark.parametrize(
    ("durability", "told"),
    [
        ("memory", "123 events could not be sent to redis://127.0.0.1:1 before closing, and are lost"),
        ("server", "123 events were not sent to redis://127.0.0.1:1 before closing; they are kept in {spool}"),
        ("replica", "123 events were not sent to redis://127.0.0.1:1 before closing; they are kept in {spool}"),
        ("spool", "123 events were not sent to redis://127.0.0.1:1 before closing; they are kept in {spool}"),
    ],
)
def test_an_end_without_a_server_comes_within_the_deadline_and_says_what_becomes_of_the_rest(
    durability: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEZEN_METRICS__DURABILITY", durability)
    program = """
import logging
logging.basicConfig()
from vibezen.metrics import MetricsCollector
from vibezen.metrics.producers import lifetime
lifetime.CLOSE_DEADLINE = 0.5
collector = MetricsCollector(redis_url="redis://127.0.0.1:1")
for value in range(123):
    collector.record_nowait("m", value)
"""
    start = time.monotonic()
    done = python(program)
    assert done.returncode == 0
    assert told.format(spool=tmp_path / "metrics_data" / "spool") in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - start < 20


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking with threads is what is tested
def test_a_forked_child_is_a_producer_of_its_own_and_leaves_the_parents_events_alone(
    collector: MetricsCollector, arrived: Arrived
) -> None:
    collector.record_nowait("m", 1)
    assert collector.flush_sync() == 0
    collector.record_nowait("m", 2)
    child = os.fork()
    if child == 0:
        fine = collector.stats().recorded == 0
        collector.record_nowait("m", 3)
        fine = fine and collector.flush_sync() == 0
        os._exit(0 if fine else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    collector.record_nowait("m", 4)
    assert collector.flush_sync() == 0
    by_producer: dict[str | None, list[float]] = {}
    for entry, event in zip(arrived.entries(), arrived.values(), strict=False):
        by_producer.setdefault(entry.producer, []).append(event)
    assert sorted(arrived.values()) == [1, 2, 3, 4]
    assert len(by_producer) == 2
    assert {entry.seq for entry in arrived.entries() if entry.producer != collector.producer} == {1}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_multiprocessing_child_delivers_at_its_end(
    method: str, redis_url: str, arrived: Arrived, tmp_path: os.PathLike[str]
) -> None:
    program = f"""
import multiprocessing, sys, warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)
from vibezen.metrics import MetricsCollector
collector = MetricsCollector(redis_url={redis_url!r})
def work(value):
    collector.record_nowait("m", value)
if __name__ == "__main__":
    work(0)
    multiprocessing.set_start_method({method!r})
    children = [multiprocessing.Process(target=work, args=(value,)) for value in (1, 2, 3)]
    [child.start() for child in children]
    [child.join() for child in children]
    assert [child.exitcode for child in children] == [0, 0, 0]
"""
    script = os.path.join(tmp_path, "program.py")
    with open(script, "w") as file:
        file.write(program)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert sorted(arrived.values()) == [0, 1, 2, 3]


def test_four_processes_with_eight_threads_each_lose_and_double_nothing(redis_url: str, client: redis.Redis) -> None:
    program = """
import os, sys, threading
from vibezen.metrics import MetricsCollector
from vibezen.metrics.settings import Settings, Streams
settings = Settings(streams=Streams(shards=3), buffer_size=50)
collector = MetricsCollector(settings=settings, redis_url=sys.argv[1])
def work(thread):
    for number in range(1000):
        collector.record_nowait("m", number, {"thread": thread, "process": os.getpid()})
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    command = [sys.executable, "-c", program, redis_url]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    assert [process.communicate(timeout=60)[1] for process in processes] == [b""] * 4
    events = [event for shard in range(3) for event in Arrived(client, shard).events()]
    counted = Counter((event.metadata["process"], event.metadata["thread"], event.value) for event in events)
    assert len(counted) == 4 * 8 * 1000
    assert set(counted.values()) == {1}
    assert client.get(Keys().shards) == b"3"
    for shard in range(3):
        entries = Arrived(client, shard).entries()
        for producer in {entry.producer for entry in entries}:
            mine = [entry for entry in entries if entry.producer == producer]
            assert sum(entry.n for entry in mine) == 8000
            assert mine[-1].seq + mine[-1].n - 1 == 8000


def test_a_producer_stays_on_one_shard(make_collector: MakeCollector, redis_url: str, client: redis.Redis) -> None:
    collectors = [make_collector(redis_url, streams=Streams(shards=4), buffer_size=1) for _ in range(12)]
    for _ in range(3):
        for collector in collectors:
            collector.record_nowait("m", 1)
            assert collector.flush_sync() == 0
    homes: dict[str | None, set[int]] = {}
    for shard in range(4):
        for entry in Arrived(client, shard).entries():
            homes.setdefault(entry.producer, set()).add(shard)
    assert len(homes) == 12
    assert all(len(shards) == 1 for shards in homes.values())
