"""Run by test_file_faults: `consume archive --once` with a fault at its n-th file operation, for n = 1, 2, … until none
is left. Each trial has a prefix and a folder of its own; every faulted run is a process that this one has forked.

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
from msgspec.structs import replace

from vibezen.metrics import config
from vibezen.metrics.batch import batch_fields
from vibezen.metrics.consumers.supervisor import run
from vibezen.metrics.errors import MetricsError
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.keys import Keys
from vibezen.metrics.settings import Settings

CALLS = ("open", "write", "fsync", "fdatasync", "link", "unlink", "mkdir", "rename", "ftruncate")
NOON = 1_763_985_600.0
UNTOUCHED = 42
KILLED = 43


def append(client: redis.Redis, keys: Keys, seq: int, *events: Event) -> None:
    fields: Any = batch_fields("p", seq, len(events), encode_lines(events), b"{}")
    client.xadd(keys.events(0), dict(zip(fields[::2], fields[1::2], strict=True)))


def fail_at(n: int, fault: str, told: int) -> Callable[[], int]:
    """Let the n-th call fail, and tell which one it was; answers how many calls there were."""
    count = 0

    def faulty(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count != n:
                return real(*arguments, **options)
            write(told, name.encode())
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


def faulted(n: int, fault: str, settings: Settings) -> tuple[int, str]:
    """Exit code of a run whose n-th file operation fails, and what that was."""
    reading, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        calls = fail_at(n, fault, told)
        try:
            code = run("archive", settings, once=True)
        except (MetricsError, OSError):
            code = 1
        os._exit(UNTOUCHED if calls() < n else code)
    os.close(told)
    _, status = os.waitpid(pid, 0)
    name = os.read(reading, 100).decode()
    os.close(reading)
    return os.waitstatus_to_exitcode(status), name


def lag(client: redis.Redis, keys: Keys) -> Any:
    groups: Any = client.xinfo_groups(keys.events(0))
    return groups[0]["lag"]


def trial(n: int, fault: str, url: str, folder: Path) -> dict[str, Any]:
    store = folder / str(n)
    settings = config.load(redis_url=url, storage_dir=store, environ={})
    settings = replace(settings, redis=replace(settings.redis, prefix=f"{fault}{n}"))
    keys = Keys(settings.redis.prefix)
    with redis.Redis.from_url(url, legacy_responses=False, protocol=2) as client:
        append(client, keys, 1, Event("m", 1.0, NOON), Event("m", 2.0, NOON + 3600))
        run("archive", settings, once=True)
        append(client, keys, 3, Event("m", 3.0, NOON), Event("m", 4.0, 5.0), Event("m", 5.0, NOON + 86_400))
        code, call = faulted(n, fault, settings)
        behind = lag(client, keys)
        client.delete(keys.lease(0, "archive"))
        run("archive", settings, once=True)
        lines = [line for path in sorted(store.rglob("*.jsonl")) for line in path.read_bytes().splitlines()]
        hidden = [path.name for path in store.rglob("events/*/*/.*")]
        return {
            "n": n,
            "code": code,
            "call": call,
            "behind": behind,
            "values": sorted(json.loads(line)["value"] for line in lines),
            "dead": client.hlen(keys.dead(0)),
            "lag": lag(client, keys),
            "hidden": hidden,
        }


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
