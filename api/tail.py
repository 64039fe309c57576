"""The end of the live stream, as Redis has it: where it stands, what came, and the windows behind it."""

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from vibezen.metrics.api.alert_log import MAX_ALERTS, Alert
from vibezen.metrics.api.journal import Change, change_of, joined
from vibezen.metrics.api.position import EntryNumber, Position, entry_id, entry_number
from vibezen.metrics.connection import MAX_BLOCK, readable_together
from vibezen.metrics.errors import MetricsError
from vibezen.metrics.keys import Keys
from vibezen.metrics.live import FIELD, Frame, decode_frame
from vibezen.metrics.window_reader import Fetched, fetch, shard_count

READ_COUNT: Final = 16
"""Entries taken in one read: an entry may hold a megabyte."""
TRANSITION: Final = "transition"
"""The only field of an entry of the alert stream: a JSON object."""


class Standing(NamedTuple):
    """A stream as it is now. `added`: entries ever added, which only a new stream makes smaller."""

    first: EntryNumber | None = None
    last: EntryNumber = (0, 0)
    length: int = 0
    added: int = 0

    @property
    def untouched(self) -> bool:
        """Whether every entry ever added is still there."""
        return self.added == self.length

    def reaches_back_to(self, position: EntryNumber) -> bool:
        """Whether everything after `position` is still there."""
        kept = self.untouched or (self.first is not None and self.first <= position)
        return position == self.last or (kept and position < self.last)

    def follows(self, before: "Standing") -> bool:
        """Whether it may be the stream that stood as `before`: a new one may soon be as long, yet begins elsewhere."""
        began_elsewhere = self.untouched and before.first not in (None, self.first)
        return self.added >= before.added and not began_elsewhere


class Entries(NamedTuple):
    """What one read brought. `frames` holds None for an entry that is no frame we can read."""

    position: Position
    frames: list[tuple[EntryNumber, Frame | None]]
    alerts: list[Alert]
    more: bool


class Standings(NamedTuple):
    """Both streams as they are now."""

    live: Standing
    alerts: Standing

    def continue_from(self, position: Position, before: "Standings") -> bool:
        """Whether they are those that stood as `before`, with everything after `position`."""
        return (
            self.live.follows(before.live)
            and self.alerts.follows(before.alerts)
            and self.live.reaches_back_to(position.live)
            and self.alerts.reaches_back_to(position.alert)
        )


class Tail:
    """Reads of the live and the alert stream and of the windows; `commands` for short calls, `reader` for blocking."""

    def __init__(self, commands: Redis, reader: Redis, keys: Keys, shards: int) -> None:
        self._commands, self._reader, self._keys, self._shards = commands, reader, keys, shards

    async def standings(self) -> Standings:
        return Standings(await self._standing(self._keys.frames), await self._standing(self._keys.transitions))

    async def _standing(self, stream: str) -> Standing:
        try:
            info: Any = await self._commands.xinfo_stream(stream)
        except ResponseError as error:
            if "no such key" in str(error):
                return Standing()
            raise
        first = entry_number(info["first-entry"][0]) if info["first-entry"] else None
        last = entry_number(info["last-generated-id"])
        return Standing(first, last, int(info["length"]), int(info["entries-added"]))

    async def read(self, after: Position, *, wait: bool) -> Entries:
        """What came after a position; waits up to MAX_BLOCK seconds for the first entry when asked to."""
        answer = await self._read(after, int(MAX_BLOCK * 1000) if wait else None)
        live = answer.get(self._keys.frames.encode(), [])
        frames = [(entry_number(entry), _frame(fields)) for entry, fields in live]
        alerts = [_alert(entry, fields) for entry, fields in answer.get(self._keys.transitions.encode(), [])]
        position = Position(
            frames[-1][0] if frames else after.live,
            alerts[-1].number if alerts else after.alert,
        )
        return Entries(position, frames, alerts, len(frames) == READ_COUNT or len(alerts) == READ_COUNT)

    async def _read(self, after: Position, block: int | None) -> dict[bytes, Any]:
        """Waits at the live stream, where the two cannot be read together: alerts are seen within half of `block`."""
        streams = {self._keys.transitions: entry_id(after.alert), self._keys.frames: entry_id(after.live)}
        parts = readable_together(self._reader, streams)
        answer: dict[bytes, Any] = {}
        for part in parts:
            waits = block is not None and part is parts[-1] and not answer
            found: Any = await self._reader.xread(
                part, count=READ_COUNT, block=block // len(parts) if block and waits else None
            )
            answer |= found
        return answer

    async def between(self, start: EntryNumber, stop: EntryNumber, width: int) -> Change | None:
        """What frames after `start`, up to and with `stop`, changed; None when `start` is no longer there."""
        change = Change()
        lower, first = entry_id(start), True
        while True:
            answer: Any = await self._commands.xrange(self._keys.frames, lower, entry_id(stop), count=READ_COUNT)
            if first and (not answer or entry_number(answer[0][0]) != start):
                return None
            frames = (_frame(fields) for _, fields in (answer[1:] if first else answer))
            change = joined([change, *(change_of(frame, width) for frame in frames if frame)])
            if len(answer) < READ_COUNT:
                return change
            lower, first = "(" + answer[-1][0].decode(), False

    async def alerts(self, start: EntryNumber, stop: EntryNumber) -> list[Alert] | None:
        """Alerts after `start`, up to and with `stop`; None when they are not all there any more, or too many."""
        answer: Any = await self._commands.xrange(
            self._keys.transitions, entry_id(start), entry_id(stop), count=MAX_ALERTS + 2
        )
        alerts = [_alert(entry, fields) for entry, fields in answer]
        if start == Standing().last:  # before every alert, so that there is none to find
            standing = await self._standing(self._keys.transitions)  # afterwards: what is trimmed meanwhile was read
            return alerts if standing.untouched and len(alerts) <= MAX_ALERTS else None
        # Where `start` itself is not there, alerts after it may be gone, too, with the stream they were in.
        found = alerts and alerts[0].number == start and len(alerts) <= MAX_ALERTS + 1
        return alerts[1:] if found else None

    async def windows(self, width: int, starts: Iterable[int]) -> AsyncIterator[list[Fetched]]:
        """Stored windows of all shards."""
        shards = await shard_count(self._commands, self._keys, self._shards)
        async for batch in fetch(self._commands, self._keys, shards, width, list(starts)):
            yield batch


def _alert(entry: bytes, fields: dict[bytes, bytes]) -> Alert:
    try:
        transition = msgspec.json.decode(fields[TRANSITION.encode()], type=dict[str, Any])
    except (KeyError, ValueError, RecursionError):
        return Alert(entry_number(entry), None)
    return Alert(entry_number(entry), msgspec.json.encode(transition))  # on one line, as an event must be


def _frame(fields: dict[bytes, bytes]) -> Frame | None:
    try:
        return decode_frame(fields[FIELD.encode()])
    except (KeyError, MetricsError):
        return None
