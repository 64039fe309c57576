"""What is made and not confirmed: calls in the spool, oldest first, and behind them at most one in memory alone."""

import logging
import threading
from collections.abc import Callable
from typing import Final

import msgspec

from vibezen.metrics.producers.append_call import AppendCall, Damaged, Expired
from vibezen.metrics.producers.books import CLOSED, INTERNAL, SPOOL_DAMAGED, SPOOL_EXPIRED, SPOOL_FULL
from vibezen.metrics.producers.buffer import Buffer
from vibezen.metrics.producers.call_maker import CALL_EVENTS, CallMaker
from vibezen.metrics.producers.spool import Spool

_KEEP_FAILED: Final = "metrics cannot be kept in %s (%s); up to %d events are kept in memory"
_UNSENT: Final = "%d events in %s cannot be sent: %s"
_FULL: Final = "the spool %s is full (%d bytes); the oldest events are dropped and counted"

log = logging.getLogger("vibezen.metrics.collector")


class Outbox:
    """Between the buffer and the server, and the books about it. May be used from any thread: the sender works through
    it, and who closes, or relieves the buffer while a call hangs, does so meanwhile. Its lock is held for the disk's
    time, never for the network's.

    `spool`: None keeps everything in memory. `disk_first`: each call is on disk before it is sent. `store`: answers the
    id of the store that calls are for, where that is known.
    """

    def __init__(
        self,
        buffer: Buffer,
        maker: CallMaker,
        spool: Spool | None,
        store: Callable[[], str | None],
        *,
        disk_first: bool,
    ) -> None:
        self._buffer = buffer
        self._maker = maker
        self._spool = spool
        self._store = store
        self._disk_first = disk_first
        self._lock = threading.RLock()
        self._held: AppendCall | None = None
        self._flying: int | None = None
        """The number of the first event of the call that may be with the server."""
        self._broken = False
        self._full = False

    @property
    def spooled(self) -> bool:
        """Whether anything is in the spool, so that whatever is new must queue behind it."""
        return self._spool is not None and bool(self._spool.files)

    @property
    def is_empty(self) -> bool:
        return self._held is None and not self.spooled

    @property
    def stuck(self) -> bool:
        """Whether a call is in memory alone; until it is on disk or sent, no other can be made."""
        return self._held is not None

    def is_free(self, seconds: float) -> bool:
        """Whether nobody hangs at the disk; waited for so long. Who closes asks, so as not to hang there, too."""
        free = self._lock.acquire(timeout=max(0.0, seconds))
        if free:
            self._lock.release()
        return free

    def next(self, budget: int, *, tell_drops: bool) -> tuple[AppendCall | None, int]:
        """The call to send next, and what is left of the budget of events that may be taken off the buffer for it.

        It may be with the server from now on, until `landed` is told. Raises OSError when the disk cannot be read now.
        """
        with self._lock:
            call = self._oldest()
            if call is None and (budget > 0 or tell_drops):
                limit = min(budget, CALL_EVENTS)
                budget -= limit
                self._held = call = self._maker.make(limit, tell_drops=tell_drops)
                if self._disk_first:
                    self._keep()
            self._flying = call.first if call is not None else None
            return call, budget

    def landed(self, call: AppendCall, last: int) -> None:
        """The server has it, and as durably as was asked for. `last`: the producer's number there."""
        with self._lock:
            self._flying = None
            books = self._buffer.books
            if not call.batches:
                self._gone(call.first, last)
            elif call.first in books.spooled:
                books.landed(call.first)
                self._remove(call.first)
            else:
                self._held = None
                books.landed()
            self._full = False

    def keep(self) -> None:
        """Bring the call that is in memory alone to disk, if that can be."""
        with self._lock:
            self._keep()

    def keep_waiting(self, least: int = 1) -> None:
        """Bring to disk what is in memory, down to `least` events in the buffer."""
        budget = len(self._buffer.events)
        while self._spool is not None:
            with self._lock:
                if not self._keep() or budget < least:
                    return
                self._held = self._maker.make(min(budget, CALL_EVENTS), tell_drops=False)
            budget -= CALL_EVENTS

    def give_up(self) -> None:
        """The call that was being sent cannot be handled, for a reason that is our mistake."""
        with self._lock:
            books = self._buffer.books
            if self._flying is not None and self._flying in books.spooled:
                books.lost(INTERNAL, self._flying)
                self._remove(self._flying)
            else:
                self._held = None
                books.lost(INTERNAL)
            self._flying = None

    def leave(self, *, sender_hangs: bool) -> None:
        """The end: what is on disk is left to the next process, and what is not is given up; but for what a sender
        that hangs in a call may still see through."""
        with self._lock:
            self.keep_waiting()
            if not sender_hangs:
                self._held = self._flying = None
                self._buffer.drop_all(CLOSED)
            self._buffer.books.closed = True
            if self._spool is not None:
                self._spool.close(self._labelled(self._maker.counters()))
                # Servers soon forget the numbers of producers that closed.
                self._buffer.books.closed = not self._spool.may_repeat

    def _oldest(self) -> AppendCall | None:
        """Those that are damaged are given up on the way. In place of one that is gone, a call without events: the
        server's answer to it tells whether another process has sent what it held."""
        while self._spool is not None and self._spool.files:
            file = self._spool.files[0]
            try:
                return self._spool.read(file)
            except FileNotFoundError:
                return msgspec.structs.replace(self._maker.counters(), first=file.first)
            except Damaged as error:
                log.warning(_UNSENT, file.events, self._spool.path / file.name, error)
                self._spool.set_aside(file)
                self._buffer.books.lost(SPOOL_EXPIRED if isinstance(error, Expired) else SPOOL_DAMAGED, file.first)
        return self._held

    def _gone(self, first: int, last: int) -> None:
        """Settle what a file held that is no longer there."""
        if self._spool is None:
            return
        for file in [file for file in self._spool.files if file.first == first]:
            if last >= file.first + file.events - 1:
                self._buffer.books.landed(first)
            else:
                log.warning(_UNSENT, file.events, self._spool.path / file.name, "the file is gone")
                self._buffer.books.lost(SPOOL_DAMAGED, first)
            self._spool.remove(file)

    def _keep(self) -> bool:
        """True when no call is in memory alone any more."""
        call = self._held
        if call is None:
            return True
        if self._spool is None or self._spool.closed:
            return False
        books = self._buffer.books
        try:
            for file in self._spool.make_room(call.size, self._flying):
                books.lost(SPOOL_FULL, file.first)
                self._tell_full(self._spool)
            self._spool.put(self._labelled(call))
        except OSError as error:
            self._tell_broken(self._spool, error)
            return False
        self._broken = False
        self._held = None
        books.kept(call.first)
        return True

    def _remove(self, first: int) -> None:
        if self._spool is not None:
            for file in self._spool.files:
                if file.first == first:
                    self._spool.remove(file)
                    return

    def _labelled(self, call: AppendCall) -> AppendCall:
        """With the counters of now, which the next process may have to tell."""
        return msgspec.structs.replace(call, stats=self._maker.stats(), store=self._store())

    def _tell_broken(self, spool: Spool, error: OSError) -> None:
        if not self._broken:
            self._broken = True
            log.warning(_KEEP_FAILED, spool.root, error.strerror or error, self._buffer.bound)

    def _tell_full(self, spool: Spool) -> None:
        if not self._full:
            self._full = True
            log.warning(_FULL, spool.root, spool.max_bytes)
