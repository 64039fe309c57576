"""`vibezen-metrics backup DEST` and `vibezen-metrics restore SRC`"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings

if TYPE_CHECKING:
    from vibezen.metrics.backup import Manifest

Progress = Callable[[int, int], None]


def backup(
    target: Annotated[Path, typer.Argument(metavar="DEST", help="A folder that does not exist yet.")],
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    base: Annotated[
        Path | None,
        typer.Option(metavar="BACKUP", help="An earlier backup: files that are there already are linked, not copied."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
) -> None:
    """Copy all that is committed, while everything runs. Needs no server. Exit code 1 when files were damaged."""
    settings = load_settings(config, redis_url, storage_dir)
    from vibezen.metrics.backup import backup
    from vibezen.metrics.commands.version import installed_version
    from vibezen.metrics.layout import Layout

    with _interruptible(f"{target} was not made"), _bar("backup", as_json=as_json) as progress:
        made = backup(Layout(settings.storage_dir), target, version=installed_version(), base=base, progress=progress)
    manifest = made.manifest
    _show(manifest, {"folder": str(target), "linked": made.linked}, as_json=as_json)
    if not as_json:
        linked = f", {made.linked:,} of them linked" if made.linked else ""
        print(f"{target}: {_what(manifest)}{linked}")
        if manifest.outside:
            print(f"{manifest.outside:,} events lie in external storage, which is not copied")
        for line in manifest.damaged:
            print(f"damaged: {line}")
    if manifest.damaged:
        raise typer.Exit(1)


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="A folder that `backup` made.")],
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
) -> None:
    """Put a backup back into the storage folder, which must be empty, every file compared first. Needs no server."""
    settings = load_settings(config, redis_url, storage_dir)
    from vibezen.metrics.backup import restore
    from vibezen.metrics.layout import Layout

    layout = Layout(settings.storage_dir)
    with _interruptible("nothing was restored"), _bar("restore", as_json=as_json) as progress:
        manifest = restore(source, layout, progress=progress)
    _show(manifest, {"folder": str(layout.root)}, as_json=as_json)
    if not as_json:
        print(f"{layout.root}: {_what(manifest)}")
        print("next: start what consumes, then `vibezen-metrics verify --rebuild-windows`")


def _what(manifest: "Manifest") -> str:
    from vibezen.metrics.clock import iso

    return (
        f"{manifest.events:,} events as of {iso(manifest.made)}, {len(manifest.files):,} files, "
        f"{manifest.bytes:,} bytes"
    )


def _show(manifest: "Manifest", more: dict[str, object], *, as_json: bool) -> None:
    """The manifest without its list of files, for programs."""
    if not as_json:
        return
    import msgspec

    told = msgspec.to_builtins(manifest, str_keys=True)
    told |= {"files": len(manifest.files), "bytes": manifest.bytes, **more}
    print(msgspec.json.format(msgspec.json.encode(told)).decode())


@contextmanager
def _interruptible(outcome: str) -> Iterator[None]:
    """Both ways to be ended clean up, and are told in one line."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted: {outcome}", file=sys.stderr)
        raise typer.Exit(1) from None


@contextmanager
def _bar(what: str, *, as_json: bool) -> Iterator[Progress]:
    """A bar over bytes, on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
