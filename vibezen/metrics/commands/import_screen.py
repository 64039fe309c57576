"""What an import shows: how far it is, and what came of it."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vibezen.metrics.clock import iso, monotonic, wall
from vibezen.metrics.connection import redis_url, running_endpoint
from vibezen.metrics.errors import MetricsError
from vibezen.metrics.producers.importer_report import Balance
from vibezen.metrics.producers.importer_source import Source
from vibezen.metrics.settings import Settings

LINE_EVERY: Final = 10.0
"""Seconds between two lines of progress where there is no terminal."""
DAY: Final = 86_400


class Screen:
    """A bar on a terminal, lines elsewhere, on standard error; the result on standard output."""

    def __init__(self, settings: Settings, *, as_json: bool) -> None:
        self._settings, self._as_json = settings, as_json
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
        self._out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
        self._bar: Progress | None = None
        if self._errors.is_terminal and not as_json:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._errors, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._told = monotonic()

    def __enter__(self) -> "Screen":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop_bar()

    def _stop_bar(self) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, line: str) -> None:
        self._errors.print(line)

    def progress(self, source: Source, balance: Balance) -> None:
        if self._bar:
            task = self._tasks.get(source.name)
            if task is None:
                task = self._tasks[source.name] = self._bar.add_task(Path(source.name).name, total=source.size)
            self._bar.update(task, completed=source.read_bytes())
        elif not self._as_json and monotonic() - self._told >= LINE_EVERY:
            self._told = monotonic()
            share = f" ({source.read_bytes() / source.size:.0%})" if source.size else ""
            self.say(f"{source.name}: {balance.rows:,} rows read, {balance.appended:,} events appended{share}")

    def end(self, balances: Sequence[Balance], *, finished: bool, error: MetricsError | None) -> None:
        self._stop_bar()
        trial = any(balance.metrics is not None for balance in balances)
        for balance in balances:
            self._warn(balance)
        if self._as_json:
            told = {"complete": finished, "dry_run": trial, "error": str(error) if error else None, "files": balances}
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(told, enc_hook=str)).decode() + "\n")
        else:
            for balance in balances:
                self._tell(balance)
        if not finished and error is None:
            done = sum(balance.appended + balance.already_there for balance in balances)
            self.say(f"interrupted: {done:,} events are in the stream; run the same command again to go on")

    def _tell(self, balance: Balance) -> None:
        say = self._out.print
        say(balance.file, style="bold")
        rejected = f"{balance.rejected:,} rejected" if balance.rejected else "none rejected"
        say(f"  rows    {balance.rows:,} read, {rejected}")
        empty = f", {balance.empty:,} values empty" if balance.empty else ""
        say(f"  events  {balance.events:,} made{empty}: {_fate(balance)}")
        if balance.first is not None and balance.last is not None:
            say(f"  time    {iso(balance.first)} to {iso(balance.last)}")
        if balance.metrics is None and (page := _page(self._settings, balance)):
            say(f"  page    {page}")
        for metric, found in (balance.metrics or {}).items():
            say(f"  {metric}: {found.count:,} events, min {found.min:g}, max {found.max:g}, sum {_exact(found.sum)}")
        for line in balance.first_events or ():
            say(f"  {bytes(line).decode()}")

    def _warn(self, balance: Balance) -> None:
        """What a person who imports old events must know to find them again."""
        if balance.first is None:
            return
        now, settings = wall(), self._settings
        if balance.first < now - settings.retention_days * DAY:
            self.say(
                f"{balance.file}: reaches back more than retention_days = {settings.retention_days}: retention counts "
                "from an event's arrival, not from its own time"
            )
        kept = max(width.keep_seconds for width in settings.aggregation.widths)
        if balance.first < now - kept:
            self.say(
                f"{balance.file}: has events older than the windows are kept ({kept / 3600:g} h): they are in the "
                "files and in history, not on the live tiles"
            )


def _page(settings: Settings, balance: Balance) -> str | None:
    """Where a running `up` shows these events."""
    endpoint = running_endpoint()
    if endpoint is None or endpoint.url != redis_url(settings) or balance.first is None or balance.last is None:
        return None
    since, until = math.floor(balance.first), math.ceil(balance.last) + 1
    return f"{endpoint.dashboard}/?from={since}&to={until}"


def _fate(balance: Balance) -> str:
    if balance.metrics is not None:
        return "nothing appended (dry run)"
    left = balance.events - balance.appended - balance.already_there
    parts = [f"{balance.appended:,} appended", f"{balance.already_there:,} there already"]
    return ", ".join(parts + ([f"{left:,} not appended"] if left else []))


def _exact(number: float) -> str:
    return f"{number:.0f}" if number == math.floor(number) and abs(number) < 1e15 else repr(number)
