"""Run by test_spool_faults: an application with `durability: spool` and a fault at its n-th file operation, for n = 1,
2, … until none is left. Each trial has a prefix and a folder of its own; every faulted run is a process that this one
has forked, and what it leaves is sent by the next one.

Arguments: redis URL, folder, fault. Prints a JSON line per trial.
"""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from vibezen.metrics import MetricsCollector
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers.adopter import Adopter
from vibezen.metrics.producers.uplink import Uplink
from vibezen.metrics.settings import Durability, Redis, Settings

CALLS = ("open", "write", "fsync", "unlink", "mkdir", "rename", "rmdir")
UNTOUCHED = 42
KILLED = 43
ROUNDS = 2
EACH = 5


def fail_at(n: int, fault: str, told: int) -> Callable[[], int]:
    """Let the n-th call fail, and tell which one it was; answers how many calls there were."""
    count = 0

    def faulty(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count != n:
                return real(*arguments, **options)
            write(told, f"call {name}\n".encode())
            if fault == "KILL":
                os._exit(KILLED)
            if name == "write":  # a nearly full disk takes a part first
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            code = getattr(errno, fault)
            raise OSError(code, os.strerror(code))

        return call

    write = os.write
    for name in CALLS:
        setattr(os, name, faulty(name, getattr(os, name)))
    return lambda: count


def application(n: int, fault: str, settings: Settings, told: int) -> int:
    """Records, and tells what it is told to be safe."""
    write = os.write
    collector = MetricsCollector(settings=settings)
    calls = fail_at(n, fault, told)
    for value in range(ROUNDS):
        for event in range(EACH):
            collector.record_nowait("m", value * EACH + event)
        if collector.flush_sync(10) == 0:
            write(told, f"safe {value}\n".encode())
    collector.close_sync(10)
    return UNTOUCHED if calls() < n else 0


def faulted(n: int, fault: str, settings: Settings) -> tuple[int, str, list[int]]:
    """Exit code of a run whose n-th file operation fails, what that was, and which rounds it was told to be safe."""
    reading, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os._exit(application(n, fault, settings, told))
    os.close(told)
    with os.fdopen(reading) as lines:
        said = [line.split() for line in lines]
    _, status = os.waitpid(pid, 0)
    name = next((rest for what, rest in said if what == "call"), "")
    return os.waitstatus_to_exitcode(status), name, [int(rest) for what, rest in said if what == "safe"]


def trial(n: int, fault: str, url: str, folder: Path) -> dict[str, Any]:
    settings = Settings(
        storage_dir=folder / str(n),
        durability=Durability.SPOOL,
        flush_interval_seconds=0.02,
        redis=Redis(url=url, prefix=f"{fault}{n}"),
    )
    code, call, safe = faulted(n, fault, settings)
    adopter, uplink = Adopter(settings, None), Uplink(settings, "")
    while adopter.step(uplink):
        pass
    uplink.close()
    with redis.Redis.from_url(url, legacy_responses=False, protocol=2) as client:
        entries: Any = client.xrange(Keys(settings.redis.prefix).events(0))
    events = [json.loads(line) for _, fields in entries for line in fields[b"events"].splitlines()]
    left = [str(path.relative_to(settings.spool_dir)) for path in settings.spool_dir.glob("*/*")]
    values = sorted(event["value"] for event in events if event["metric"] == "m")
    return {"n": n, "code": code, "call": call, "safe": safe, "values": values, "left": left}


def main(url: str, folder: str, fault: str) -> None:
    n = 1
    while True:
        told = trial(n, fault, url, Path(folder))
        print(json.dumps(told), flush=True)
        if told["code"] == UNTOUCHED:
            return
        n += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
