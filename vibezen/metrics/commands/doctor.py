"""`vibezen-metrics doctor`"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings

if TYPE_CHECKING:
    from vibezen.metrics.doctor import Finding

STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red", "unknown": "dim"}


def doctor(
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
) -> None:
    """Look at configuration, server, stream, storage folder and ports, and say what to do. Exit code 1 if one fails."""
    from vibezen.metrics.doctor import Status, examine

    found = list(examine(lambda: load_settings(config, redis_url, storage_dir)))
    if as_json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        show(found)
    if any(finding.status is Status.FAIL for finding in found):
        raise typer.Exit(1)


def show(found: "Sequence[Finding]") -> None:
    """A table on a terminal; elsewhere a line per finding, `status name: seen`, and its advice in an indented one."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        console.print(_table(found))
        return
    for finding in found:
        print(f"{finding.status:<7} {finding.name}: {finding.seen}")
        if finding.advice:
            print(f"        → {finding.advice}")


def _table(found: "Sequence[Finding]") -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "check", "seen, and what to do"):
        table.add_column(heading, overflow="fold")
    for finding in found:
        style = STYLES[finding.status]
        seen = Text(finding.seen)
        if finding.advice:
            seen.append(f"\n→ {finding.advice}", "" if finding.status == "ok" else style)
        table.add_row(Text(finding.status, style), Text(finding.name), seen)
    return table
