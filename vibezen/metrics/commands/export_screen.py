"""What an export shows, on standard error: a bar on a terminal, lines elsewhere."""

from pathlib import Path
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vibezen.metrics.clock import monotonic

LINE_EVERY: Final = 10.0
"""Seconds between two lines of progress where there is no terminal."""


class Screen:
    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False, quiet=quiet)
        self._bar: Progress | None = None
        if self._console.is_terminal and not quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("events", total=None)
        self._told = monotonic()

    def __enter__(self) -> "Screen":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def progress(self, done: int, total: int | None) -> None:
        """How many events were read so far, and how many there are in all."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)
        elif monotonic() - self._told >= LINE_EVERY:
            self._told = monotonic()
            share = f" of {total:,} ({done / total:.0%})" if total else ""
            self._console.print(f"{done:,}{share} events read")

    def end(self, written: int, target: Path | None) -> None:
        if target is not None:
            self._console.print(f"{target}: {written:,} events")
