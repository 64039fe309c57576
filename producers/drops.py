"""Events about events that were dropped, so that whoever looks at metrics sees that some are missing."""

from collections import Counter

from vibezen.metrics.catalogue import MetricType
from vibezen.metrics.event import Event
from vibezen.metrics.producer_stats import Stats


class Drops:
    """What of a producer's drops has been made an event of. Drops of such events make no further ones."""

    def __init__(self) -> None:
        self._told: Counter[str] = Counter()

    def are_new(self, stats: Stats) -> bool:
        return any(number > self._told[reason] for reason, number in stats.dropped.items())

    def events(self, stats: Stats, now: float) -> list[Event]:
        """One for each reason with new drops since the last time."""
        found = []
        for reason, number in stats.dropped.items():
            if new := number - self._told[reason]:
                self._told[reason] = number
                found.append(Event(str(MetricType.EVENTS_DROPPED), new, now, 1.0, 1, {"reason": reason}))
        return found
