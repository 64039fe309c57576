"""What the live feed says, encoded once for all who listen."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.api.position import Position
from vibezen.metrics.api.realtime import Realtime
from vibezen.metrics.api.recent import RecentWindows, Slot
from vibezen.metrics.window import Window
from vibezen.metrics.window_reader import Number, aggregates


class Cell(msgspec.Struct):
    """One metric in one window, over all series and shards."""

    count: Number
    sum: Number
    min: Number
    max: Number
    last: Number
    p50: Number
    p95: Number
    p99: Number


class LiveWindow(msgspec.Struct):
    start: int
    metrics: dict[str, Cell]


class Recorded(msgspec.Struct):
    """Times of record() of the live events that a frame shows first."""

    newest: float
    oldest: float


class Snapshot(msgspec.Struct, tag="snapshot"):
    """All there is to know at `id`."""

    id: str
    at: float
    version: str
    demo: bool
    width: int
    windows: list[LiveWindow]
    realtime: Realtime


class Frame(msgspec.Struct, tag="frame"):
    """What has changed up to `id`; values are absolute."""

    id: str
    at: float
    recorded: Recorded | None
    windows: list[LiveWindow]
    realtime: Realtime


class Gap(msgspec.Struct, tag="gap"):
    """The position `from` is gone; a snapshot at `to` follows. `id` is still the old position, so that a client which
    loses the connection before the snapshot is told of the gap again."""

    id: str
    to: str
    since: str = msgspec.field(name="from")


class Heartbeat(msgspec.Struct, tag="heartbeat"):
    id: str
    at: float


class Pong(msgspec.Struct, tag="pong"):
    """`t` is the client's own, as it sent it."""

    t: int | float
    at: float


class Message(NamedTuple):
    """One message, ready to be sent: as WebSocket text and as a server-sent event."""

    position: Position
    text: str
    event: bytes
    kind: str


_CELL: Final = ("count", "sum", "min", "max", "last", "p50", "p95", "p99")


class Cells:
    """Cells of recent windows, each computed once per state of its window."""

    def __init__(self) -> None:
        self._made: dict[Slot, tuple[Window, Cell]] = {}

    def windows(self, recent: RecentWindows, slots: Iterable[Slot]) -> list[LiveWindow]:
        by_start: dict[int, dict[str, Cell]] = {}
        for start, metric in sorted(slots):
            by_start.setdefault(start, {})[metric] = self._cell(recent, (start, metric))
        return [LiveWindow(start, metrics) for start, metrics in by_start.items()]

    def prune(self, oldest: int) -> None:
        self._made = {slot: made for slot, made in self._made.items() if slot[0] >= oldest}

    def _cell(self, recent: RecentWindows, slot: Slot) -> Cell:
        window = recent.total(*slot)
        made = self._made.get(slot)
        if made is None or made[0] is not window:
            made = self._made[slot] = (
                window,
                Cell(*aggregates(window, _CELL, recent.width, recent.catalogue[slot[1]].kind)),
            )
        return made[1]


def message(position: Position, content: Snapshot | Frame | Gap | Heartbeat) -> Message:
    kind = str(content.__struct_config__.tag)
    body = msgspec.json.encode(content)
    event = b"event: %b\r\nid: %b\r\ndata: %b\r\n\r\n" % (kind.encode(), content.id.encode(), body)
    return Message(position, body.decode(), event, kind)
