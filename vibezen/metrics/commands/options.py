"""Options that commands share, and the settings they lead to."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from vibezen.metrics.errors import MissingExtra

if TYPE_CHECKING:
    from vibezen.metrics.settings import Settings

Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Configuration; without it the nearest vibezen.yaml upwards from here."),
]
RedisUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="Redis or Valkey, see docs/configuration.md. Wins over the file.")
]
StorageDir = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Storage folder. Wins over the file.")]
Host = Annotated[str | None, typer.Option(metavar="NAME", help="Address to serve on. Wins over the file.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, metavar="N", help="Port to serve on. Wins over the file.")]

EXTRAS: Final = {"server": ("duckdb", "jinja2", "starlette", "uvicorn", "sse_starlette", "websockets")}
"""What an extra must have brought for a command to run."""


def load_settings(
    config: Path | None,
    redis_url: str | None,
    storage_dir: Path | None,
    host: str | None = None,
    port: int | None = None,
    server: Literal["dashboard", "gateway"] = "dashboard",
) -> "Settings":
    """The settings with these options on top; host and port are those of `server`. Raises ConfigError."""
    from msgspec.structs import replace

    from vibezen.metrics.config import load

    settings = load(config, redis_url=redis_url, storage_dir=storage_dir)
    served = getattr(settings, server)
    return replace(settings, **{server: replace(served, host=host or served.host, port=port or served.port)})


def need(extra: str, command: str) -> None:
    """Raise MissingExtra, which names what to install, unless `command` can run."""
    if not all(find_spec(module) for module in EXTRAS[extra]):
        raise MissingExtra(extra, f"`vibezen-metrics {command}`")
