"""The newest alerts, as far back as a client may have missed them."""

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from vibezen.metrics.api.position import EntryNumber

MAX_ALERTS: Final = 256
MAX_BYTES: Final = 1024 * 1024


class Alert(NamedTuple):
    """One entry of the alert stream; `transition` is its JSON object, None for an entry that holds none."""

    number: EntryNumber
    transition: bytes | None


class AlertLog:
    """Every alert after `begins`, in order. Not more than MAX_ALERTS and MAX_BYTES; what is older is forgotten."""

    def __init__(self, begins: EntryNumber) -> None:
        self.begins = begins
        self._alerts: deque[Alert] = deque()
        self._bytes = 0

    def note(self, alert: Alert) -> None:
        self._alerts.append(alert)
        self._bytes += len(alert.transition or b"")
        self._forget()

    def prepend(self, begins: EntryNumber, alerts: Iterable[Alert]) -> None:
        """Reach further back: `alerts` are those after `begins` and up to where the log began so far."""
        older = list(alerts)
        self._alerts.extendleft(reversed(older))
        self._bytes += sum(len(alert.transition or b"") for alert in older)
        self.begins = begins
        self._forget()

    def _forget(self) -> None:
        while len(self._alerts) > MAX_ALERTS or self._bytes > MAX_BYTES:
            oldest = self._alerts.popleft()
            self._bytes -= len(oldest.transition or b"")
            self.begins = oldest.number

    def since(self, number: EntryNumber) -> list[Alert] | None:
        """All after `number`; None when the log does not reach back that far."""
        if number < self.begins:
            return None
        return [alert for alert in self._alerts if alert.number > number]
