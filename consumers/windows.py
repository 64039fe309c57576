"""The windows an aggregator holds in memory: the newest states of what it touched lately.

A series-window that is not here is read from Redis before anything is merged into it. That is safe without locks,
because only the shard's owner writes them, and an owner whose fence is stale cannot commit.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from redis import Redis

from vibezen.metrics.histogram import Weight
from vibezen.metrics.series import SeriesKey, metric_of, overflow_key
from vibezen.metrics.window import Window, from_blob, merged

HELD_SERIES: Final = 20_000
"""Series-windows held between commits; at about 2 KB each."""

WindowId = tuple[int, int]
"""(width, start) in seconds."""
Gathered = dict[WindowId, dict[SeriesKey, Window]]


class Applied(NamedTuple):
    """`changed`: absolute states; `folded`: width → samples that went into an overflow series."""

    changed: Gathered
    folded: dict[int, Weight]


class _Held:
    """One window: all series names it has, those Redis had when it was first touched, and the states in memory."""

    def __init__(self, stored: set[str]) -> None:
        self.stored = stored
        self.names: set[str] = set()
        self.states: dict[str, Window] = {}
        self.per_metric: dict[str, int] = {}

    def admit(self, key: SeriesKey) -> None:
        """A series of this window from now on, and one more of its metric."""
        self.names.add(key)
        metric = metric_of(key)
        self.per_metric[metric] = self.per_metric.get(metric, 0) + 1


class WindowCache:
    """The windows stored under `key(width, start)`. `max_series`: series of one metric in one window, beyond which they
    fold into one; None where the fields are metrics rather than series."""

    def __init__(self, client: Redis, key: Callable[[int, int], str], max_series: int | None = None) -> None:
        self._client, self._key = client, key
        self._max_series = max_series
        self._held: dict[WindowId, _Held] = {}

    def apply(self, gathered: Gathered) -> Applied:
        """Merge what came in and answer with the new absolute states of what changed."""
        self._load_names([window for window in gathered if window not in self._held])
        bounded, folded = (gathered, {}) if self._max_series is None else self._bound_all(gathered, self._max_series)
        self._load_states(bounded)
        for window, deltas in bounded.items():
            held = self._held[window] = self._held.pop(window)  # least recently touched first
            for key, delta in deltas.items():
                state = held.states.get(key)
                if state is None:
                    held.states[key] = delta.copy()
                else:
                    state.merge(delta)
        changed = {window: {key: self._held[window].states[key] for key in keys} for window, keys in bounded.items()}
        return Applied(changed, folded)

    def _bound_all(self, gathered: Gathered, max_series: int) -> Applied:
        bounded: Gathered = {}
        folded: dict[int, Weight] = {}
        for window, deltas in gathered.items():
            bounded[window], more = _bound(self._held[window], deltas, max_series)
            folded[window[0]] = folded.get(window[0], 0) + more
        return Applied(bounded, folded)

    def _load_names(self, windows: list[WindowId]) -> None:
        if not windows:
            return
        pipe = self._client.pipeline(transaction=False)
        for width, start in windows:
            pipe.hkeys(self._key(width, start))
        answers: list[Any] = pipe.execute()
        for window, names in zip(windows, answers, strict=True):
            held = self._held[window] = _Held({name.decode() for name in names})
            if self._max_series is not None:
                for name in held.stored:
                    held.admit(name)

    def _load_states(self, wanted: Gathered) -> None:
        """Read states that Redis may have and memory has not."""
        asked: list[tuple[WindowId, list[SeriesKey]]] = []
        for window, deltas in wanted.items():
            held = self._held[window]
            missing = [key for key in deltas if key in held.stored and key not in held.states]
            if missing:
                asked.append((window, missing))
        if not asked:
            return
        pipe = self._client.pipeline(transaction=False)
        for (width, start), keys in asked:
            pipe.hmget(self._key(width, start), keys)
        answers: list[Any] = pipe.execute()
        for (window, keys), blobs in zip(asked, answers, strict=True):
            for key, blob in zip(keys, blobs, strict=True):
                if blob is not None:
                    self._held[window].states[key] = from_blob(blob)

    def evict(self) -> None:
        """Forget the windows touched longest ago, beyond the bound."""
        total = sum(len(held.states) for held in self._held.values())
        for window in list(self._held)[:-1]:
            if total <= HELD_SERIES:
                return
            total -= len(self._held.pop(window).states)


def _bound(held: _Held, deltas: dict[SeriesKey, Window], max_series: int) -> tuple[dict[SeriesKey, Window], Weight]:
    """The deltas with those of series beyond the bound folded, and how many samples that concerns."""
    result: dict[SeriesKey, Window] = {}
    folded: Weight = 0
    for key, delta in deltas.items():
        target = key
        if key not in held.names:
            metric = metric_of(key)
            if held.per_metric.get(metric, 0) >= max_series:
                target = overflow_key(metric)
                folded += delta.count
                held.names.add(target)
            else:
                held.admit(key)
        present = result.get(target)
        result[target] = delta if present is None else merged((present, delta))
    return result, folded
