"""A recorded range as the live feed would have shown it: what is asked, the windows hour by hour, and the messages.

A window is shown when the replay's time has passed its end. A position is that end: every window before it was shown.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from vibezen.metrics.api.messages import Cells, Frame, Gap, Heartbeat, Snapshot, message
from vibezen.metrics.api.position import Position
from vibezen.metrics.api.realtime import WINDOWS, Realtime, RealtimeView
from vibezen.metrics.api.recent import KEPT, RecentWindows
from vibezen.metrics.api.view import SHOWN
from vibezen.metrics.catalogue import Catalogue, Kind
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.gathering import Asked, Gathered, Gatherer
from vibezen.metrics.pace import parse_speed
from vibezen.metrics.question import Parameters, parse_metric, parse_range, parse_where, single
from vibezen.metrics.series import series_key
from vibezen.metrics.window import Window
from vibezen.metrics.window_reader import HISTOGRAM

PARAMETERS: Final = ("from", "to", "tz", "metric", "where", "step", "speed", "since")
MAX_DAYS: Final = 400
STEP: Final = 10
SPAN_STEPS: Final = 360
"""Steps read at a time: an hour of ten seconds each. What a replay holds in memory is that, twice."""
_AGGREGATES: Final = ("count", "sum", "min", "max", "last", HISTOGRAM)
_ID = re.compile(r"replay-(\d{1,12})\Z")


class Recording(msgspec.Struct, frozen=True):
    """[start, stop) in Unix seconds, both multiples of `step`. `speed`: seconds of the recording in one of ours; None:
    as fast as it is read. `since`: the position to go on behind."""

    start: int
    stop: int
    step: int
    speed: float | None
    metric: str | None
    where: tuple[Condition, ...]
    since: int | None = None
    gap: bool = False
    """Whether a position was given that this replay never had."""

    @property
    def position(self) -> int:
        return self.start if self.since is None else self.since

    @property
    def is_over(self) -> bool:
        return self.position >= self.stop

    @property
    def warm_up(self) -> int:
        """From when on windows are needed for the numbers of the present, at the position."""
        return max(self.start, self.position - 2 * WINDOWS * self.step)

    def spans(self) -> Iterator[tuple[int, int]]:
        """The range piece by piece, each inside an hour."""
        since = self.warm_up
        while since < self.stop:
            until = min(self.stop, since // HOUR * HOUR + HOUR, since + SPAN_STEPS * self.step)
            yield since, until
            since = until


def parse_recording(parameters: Parameters, last_event_id: str | None, now: float) -> Recording:
    """`last_event_id`: as the browser sends it; it wins over `since`. Raises BadParameter."""
    texts = single(parameters, PARAMETERS)
    since, until = parse_range(texts, now, "now-1h")
    step = _step(texts.get("step") or str(STEP))
    start, stop = int(since // step) * step, -int(-min(until, now) // step) * step
    if stop <= start:
        raise BadParameter("from", "lies in the future: nothing is recorded there")
    if stop - start > MAX_DAYS * DAY:
        raise BadParameter("from", f"at most {MAX_DAYS} days")
    metric, speed = texts.get("metric"), _speed(texts.get("speed") or "1")
    where = parse_where(parameters.get("where", ()))
    told = last_event_id or texts.get("since") or None
    position = None if told is None else _position(told, range(start, stop + step, step))
    return Recording(
        start,
        stop,
        step,
        speed,
        parse_metric(metric) if metric else None,
        where,
        position,
        gap=told is not None and position is None,
    )


def _position(text: str, positions: range) -> int | None:
    """None for what is no position of such a replay."""
    match = _ID.match(text)
    found = int(match[1]) if match else -1
    return found if found in positions else None


def _step(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 4 or not int(text) or HOUR % int(text):
        raise BadParameter("step", "expected whole seconds that an hour is a multiple of, such as 10 or 60")
    return int(text)


def _speed(text: str) -> float | None:
    try:
        return parse_speed(text)
    except ValueError as error:
        raise BadParameter("speed", str(error)) from None


Windows = Mapping[int, Mapping[str, Window]]
"""Start → metric → all its series as one."""
Answered = Callable[[Callable[[], Awaitable[Gathered]]], Awaitable[Gathered]]
"""Answers a question in its turn, and gives it up when it takes too long."""


async def read(gatherer: Gatherer, recording: Recording, since: int, until: int, answered: Answered) -> Windows:
    """The windows of a piece of the range. Raises StoreError, TooSlow; BadParameter where one step is too much."""
    try:
        return await _read(gatherer, recording, since, until, answered)
    except BadParameter:
        half = since + (until - since) // recording.step // 2 * recording.step
        if half == since:
            raise
    first = await read(gatherer, recording, since, half, answered)
    return {**first, **await read(gatherer, recording, half, until, answered)}


async def _read(gatherer: Gatherer, recording: Recording, since: int, until: int, answered: Answered) -> Windows:
    async def ask(metric: str | None) -> Gathered:
        asked = Asked(since, until, recording.step, metric, _AGGREGATES, where=recording.where)
        return await answered(lambda: gatherer.gather(asked))

    found: dict[int, dict[str, Window]] = {}
    gathered = await ask(recording.metric)
    _put(found, gathered)
    if recording.metric is None:
        # The newest value of a gauge is the sum over its series, which only a question about it alone tells.
        metrics = {metric for metric, _, _ in gathered.cells}
        for gauge in sorted(name for name in metrics if gatherer.catalogue[name].kind is Kind.GAUGE):
            _put(found, await ask(gauge))
    return found


def _put(found: dict[int, dict[str, Window]], gathered: Gathered) -> None:
    for (metric, _, start), cell in gathered.cells.items():
        found.setdefault(start, {})[metric] = cell.total.window()


class End(msgspec.Struct, tag="end"):
    """The recording is over; nothing follows."""

    id: str
    at: float


class Show:
    """What is known at `position`, and the messages made of it, each a server-sent event."""

    def __init__(self, recording: Recording, catalogue: Catalogue, *, version: str, demo: bool) -> None:
        self.position = recording.position
        self._step, self._version, self._demo = recording.step, version, demo
        self._recent = RecentWindows(recording.step, catalogue)
        self._now = RealtimeView(self._recent, version=version, demo=demo)
        self._cells = Cells()

    def take(self, start: int, metrics: Mapping[str, Window]) -> None:
        for metric, window in metrics.items():
            self._recent.put(0, start, series_key(metric, {}), window)
        oldest = start - (SHOWN - 1) * self._step
        self._recent.prune(oldest + KEPT - self._step)
        self._cells.prune(oldest)

    def reach(self, position: int) -> None:
        self.position = max(self.position, position)

    def snapshot(self) -> bytes:
        windows = self._cells.windows(self._recent, self._recent.slots(self.position - SHOWN * self._step))
        at = float(self.position)
        return _event(Snapshot(self._id, at, self._version, self._demo, self._step, windows, self._realtime()))

    def frame(self, start: int, metrics: Sequence[str]) -> bytes:
        """Of the window that begins at `start`, which has just passed."""
        self.reach(start + self._step)
        windows = self._cells.windows(self._recent, [(start, metric) for metric in metrics])
        return _event(Frame(self._id, float(self.position), None, windows, self._realtime()))

    def gap(self) -> bytes:
        return _event(Gap(id="replay-0", to=self._id, since="replay-0"))

    def heartbeat(self) -> bytes:
        return _event(Heartbeat(self._id, float(self.position)))

    def end(self) -> bytes:
        return _event(End(self._id, float(self.position)))

    @property
    def _id(self) -> str:
        return f"replay-{self.position}"

    def _realtime(self) -> Realtime:
        """At the end of the window before the position, which is then the newest one."""
        realtime = self._now.at(self.position - 0.001)
        realtime.at = float(self.position)
        return realtime


def _event(content: Any) -> bytes:
    return message(Position(), content).event
