"""History from outside: files of rows into the stream, every row accounted for, no event twice.

The path of the data: source → chunk of rows → events → numbered batches → stream. What a row becomes depends on the row
and the mapping alone, never on the clock or on where a chunk ends, so that a repeated import gives its events the same
numbers, and the server leaves out those it has.
"""

import math
import threading
from collections.abc import Callable
from contextlib import closing

from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.errors import ImportStopped
from vibezen.metrics.producers.importer_delivery import Delivery, Destination, Say, producer_of
from vibezen.metrics.producers.importer_order import Order, Prepared, check, key_of, prepare
from vibezen.metrics.producers.importer_rejects import Rejects
from vibezen.metrics.producers.importer_report import Balance, Trial
from vibezen.metrics.producers.importer_rows import Outcome
from vibezen.metrics.producers.importer_source import Chunk, Interrupted, Source
from vibezen.metrics.settings import Settings

Progress = Callable[[Source, Balance], None]
"""Called after every chunk."""


class Importer:
    """Carries out an order file after file. `balances` holds what has come of it, also after an error."""

    def __init__(
        self, settings: Settings, order: Order, stop: threading.Event, say: Say, progress: Progress, now: Clock = wall
    ) -> None:
        """Raises BadParameter for an order that makes no sense."""
        check(order)
        self._settings, self._order, self._stop, self._say = settings, order, stop, say
        self._progress, self._now = progress, now
        self.balances: list[Balance] = []

    def run(self) -> bool:
        """Import all. False when asked to stop before the end. Raises MetricsError."""
        with Rejects(self._order.rejects, self._order.files, self._say) as rejects:
            try:
                for name in self._order.files:
                    self._import(name, rejects)
            except Interrupted:
                return False
        return True

    def _import(self, name: str, rejects: Rejects) -> None:
        with closing(Source(name, self._stop, self._order.format)) as source:
            prepared = prepare(source, self._order.mapping)
            first = prepared.rows.read(self._size(prepared, 0))
            key = self._order.key or key_of(prepared, first)
            balance = Balance(source.name, key, producer_of(key))
            rejects.next_file(source.name)
            if first is None:
                balance.complete = True
                self.balances.append(balance)
                return
            with closing(self._destination(balance)) as destination:
                self.balances.append(balance)
                self._pump(_File(source, prepared, destination, balance, rejects), first)

    def _size(self, prepared: Prepared, read: int) -> int:
        """How many rows to read at a time."""
        limit = self._order.limit
        return prepared.size if limit is None else min(prepared.size, limit - read)

    def _destination(self, balance: Balance) -> Destination:
        if self._order.trial:
            return Trial(balance)
        return Delivery(self._settings, balance, self._stop, self._say)

    def _pump(self, file: "_File", first: Chunk) -> None:
        """Chunk after chunk. What was read before an error is delivered before it is raised."""
        chunk: Chunk | None = first
        try:
            while chunk is not None:
                file.take(chunk, self._now())
                self._progress(file.source, file.balance)
                if self._stop.is_set():
                    raise Interrupted
                size = self._size(file.prepared, file.balance.rows)
                chunk = file.prepared.rows.read(size) if size else None
        except ImportStopped:
            file.destination.finish(whole=False)
            raise
        file.destination.finish(whole=self._order.limit is None or file.balance.rows < self._order.limit)
        file.balance.complete = True


class _File:
    """One file under way."""

    def __init__(
        self, source: Source, prepared: Prepared, destination: Destination, balance: Balance, rejects: Rejects
    ) -> None:
        self.source, self.prepared, self.destination = source, prepared, destination
        self.balance, self._rejects = balance, rejects

    def take(self, chunk: Chunk, now: float) -> None:
        """Raises ImportStopped at a row whose acceptance depends on the clock: accepted later, it would shift the
        numbers of all events after it, and a repeated import would leave out the wrong ones."""
        outcome = self.prepared.convert(chunk, now)
        _count(self.balance, outcome)
        self._rejects.take(outcome.refused)
        self.destination.add(outcome.batches)
        if (ahead := outcome.ahead) is not None:
            raise ImportStopped(
                f"{self.balance.file}: line {ahead.line}: {ahead.reason}; the rows before it are imported. Run the "
                "same command again when that time has come, or take the row out"
            )


def _count(balance: Balance, outcome: Outcome) -> None:
    balance.rows += outcome.rows
    balance.rejected += len(outcome.refused)
    balance.empty += outcome.empty
    balance.events += sum(batch.n for batch in outcome.batches)
    if outcome.low <= outcome.high:
        balance.first = min(outcome.low, math.inf if balance.first is None else balance.first)
        balance.last = max(outcome.high, -math.inf if balance.last is None else balance.last)
