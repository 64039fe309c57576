"""What the live feed says, encoded once for all who listen."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.api.position import Position
from vibezen.metrics.api.realtime import Realtime
from vibezen.metrics.api.recent import Held, Slot
from vibezen.metrics.api.selection import Selection
from vibezen.metrics.serving.errors import Detail
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


class Group(Cell):
    """The same of those series that have these labels; of the keys of `group_by`, one a series has not is left out."""

    labels: dict[str, str]


class LiveWindow(msgspec.Struct, omit_defaults=True):
    """What is said of a metric replaces all that was said of it in this window. `groups` with `group_by` only: those
    with the most samples first; `omitted`: how many more there are, where there are too many."""

    start: int
    metrics: dict[str, Cell]
    groups: dict[str, list[Group]] = {}
    omitted: dict[str, int] = {}


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


class AlertMessage(msgspec.Struct, tag="alert"):
    """One transition of an alert, as the alerter wrote it."""

    id: str
    alert: msgspec.Raw


class Heartbeat(msgspec.Struct, tag="heartbeat"):
    id: str
    at: float


class Pong(msgspec.Struct, tag="pong"):
    """`t` is the client's own, as it sent it."""

    t: int | float
    at: float


class Mistake(msgspec.Struct, tag="error"):
    """What a WebSocket client said that cannot be done; nothing has changed."""

    error: Detail


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

    def windows(self, held: Held, slots: Iterable[Slot]) -> list[LiveWindow]:
        by_start: dict[int, dict[str, Cell]] = {}
        for start, metric in sorted(slots):
            by_start.setdefault(start, {})[metric] = self._cell(held, (start, metric))
        return [LiveWindow(start, metrics) for start, metrics in by_start.items()]

    def prune(self, oldest: int) -> None:
        self._made = {slot: made for slot, made in self._made.items() if slot[0] >= oldest}

    def _cell(self, held: Held, slot: Slot) -> Cell:
        window = held.total(*slot)
        made = self._made.get(slot)
        if made is None or made[0] is not window:
            cell = Cell(*aggregates(window, _CELL, held.width, held.catalogue[slot[1]].kind))
            made = self._made[slot] = (window, cell)
        return made[1]


class GroupCells:
    """Cells of the groups of a selection, each slot's computed once per state of its window."""

    def __init__(self) -> None:
        self._made: dict[Slot, tuple[Window, list[Group], int]] = {}

    def put_into(self, windows: Iterable[LiveWindow], selection: Selection) -> None:
        """Say of each metric of these windows what its groups are."""
        for window in windows:
            told = {metric: self._groups(selection, (window.start, metric)) for metric in window.metrics}
            window.groups = {metric: groups for metric, (groups, _) in told.items()}
            window.omitted = {metric: omitted for metric, (_, omitted) in told.items() if omitted}

    def prune(self, oldest: int) -> None:
        self._made = {slot: made for slot, made in self._made.items() if slot[0] >= oldest}

    def _groups(self, selection: Selection, slot: Slot) -> tuple[list[Group], int]:
        whole = selection.total(*slot)
        made = self._made.get(slot)
        if made is None or made[0] is not whole:
            kind = selection.catalogue[slot[1]].kind
            found = selection.groups(*slot)
            groups = [
                Group(
                    **dict(zip(_CELL, aggregates(window, _CELL, selection.width, kind), strict=True)),
                    labels=dict(labels),
                )
                for labels, window in found.shown
            ]
            made = self._made[slot] = (whole, groups, found.omitted)
        return made[1], made[2]


def message(position: Position, content: Snapshot | Frame | AlertMessage | Gap | Heartbeat) -> Message:
    kind = str(content.__struct_config__.tag)
    body = msgspec.json.encode(content)
    event = b"event: %b\r\nid: %b\r\ndata: %b\r\n\r\n" % (kind.encode(), content.id.encode(), body)
    return Message(position, body.decode(), event, kind)
