"""Lua scripts: each in a file of its own beside the role that runs it, loaded by name.

A script is sent by its digest; when the server does not know it (a new server, SCRIPT FLUSH), it is sent whole.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import NoScriptError


class Script(NamedTuple):
    source: bytes
    digest: str


@cache
def load(package: str, name: str) -> Script:
    """The script `<package>/lua/<name>.lua`."""
    source = files(package).joinpath("lua", f"{name}.lua").read_bytes()
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


def run_replicated(
    client: "Redis",
    script: Script,
    keys: Sequence[str],
    args: Sequence[str | bytes | int | float],
    replicas: int,
    wait_ms: int,
) -> tuple[Any, int]:
    """Run it once, then wait for as many replicas; its reply, and how many have what it wrote.

    On one connection, since WAIT speaks of what its own has written: were the two calls apart, a connection lost and
    made anew in between would have written nothing, which every replica has.
    """

    def send(how: str, what: str | bytes) -> tuple[Any, Any]:
        pipe: Any = client.pipeline(transaction=False)
        pipe.execute_command(how, what, len(keys), *keys, *args)
        pipe.wait(replicas, wait_ms)
        reply, have = pipe.execute(raise_on_error=False)
        return reply, have

    reply, have = send("EVALSHA", script.digest)
    if isinstance(reply, NoScriptError):
        reply, have = send("EVAL", script.source)
    for answer in (reply, have):
        if isinstance(answer, Exception):
            raise answer
    return reply, have


def run(client: "Redis", script: Script, keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> Any:
    """Run it once. Never re-sent after a lost reply: whether that is safe, only the caller knows."""
    execute: Any = client.execute_command  # redis-py leaves it untyped
    try:
        return execute("EVALSHA", script.digest, len(keys), *keys, *args)
    except NoScriptError:
        return execute("EVAL", script.source, len(keys), *keys, *args)
