"""Single events as lines on a terminal."""

import sys
from collections.abc import Sequence

import msgspec

from vibezen.metrics.clock import iso, monotonic
from vibezen.metrics.commands.table import printable
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.search import Found


class LinePrinter:
    """`rate`: events shown per second at most; the others are counted, and the count is shown."""

    def __init__(self, *, as_json: bool, rate: int | None) -> None:
        self._as_json, self._rate = as_json, rate
        self._second, self._shown, self._hidden, self._missed = 0, 0, 0, 0

    def past(self, events: Sequence[Found]) -> None:
        for found in events:
            metadata = msgspec.json.decode(found.metadata, type=dict[str, str | int | float | bool | None])
            self._print(Event(found.metric, found.value, found.ts, found.sample_rate, found.count, metadata))
        sys.stdout.flush()

    def arrived(self, events: Sequence[Event], missed: int) -> None:
        """Show what came in. `missed`: entries that passed by unseen, in all."""
        if missed > self._missed:
            print(
                f"… {missed - self._missed:,} batches left the stream before they could be shown; the files have them",
                file=sys.stderr,
            )
            self._missed = missed
        for event in events:
            if self._may_show():
                self._print(event)
        sys.stdout.flush()

    def _may_show(self) -> bool:
        if self._rate is None:
            return True
        second = int(monotonic())
        if second != self._second:
            if self._hidden:
                print(f"… and {self._hidden:,} more", file=sys.stderr)
            self._second, self._shown, self._hidden = second, 0, 0
        if self._shown < self._rate:
            self._shown += 1
            return True
        self._hidden += 1
        return False

    def _print(self, event: Event) -> None:
        if self._as_json:
            print(encode_lines([event]).decode(), end="")
            return
        assert event.ts is not None
        times = f" ×{event.count}" if event.count != 1 else ""
        share = f" (one of {1 / event.sample_rate:g})" if event.sample_rate != 1 else ""
        metadata = " ".join(f"{key}={_shown(value)}" for key, value in event.metadata.items())
        print(f"{iso(event.ts)}  {event.metric:<18} {event.value:>12.15g}{times}{share}  {metadata}".rstrip())


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return f'"{printable(text)}"' if " " in text else printable(text)
