"""What is made and not confirmed: calls in the spool, oldest first, and behind them at most one in memory alone."""

import logging
from collections.abc import Callable
from typing import Final

from vibezen.metrics.producers.append_call import AppendCall, Damaged, Expired
from vibezen.metrics.producers.books import CLOSED, INTERNAL, SPOOL_DAMAGED, SPOOL_EXPIRED, SPOOL_FULL
from vibezen.metrics.producers.buffer import Buffer
from vibezen.metrics.producers.spool import Spool

_KEEP_FAILED: Final = "metrics cannot be kept in %s (%s); up to %d events are kept in memory"

log = logging.getLogger("vibezen.metrics.collector")


class Outbox:
    """Called by its sender under the sender's lock. Keeps the books of what it does.

    `spool`: None keeps everything in memory. `label`: gives a call the counters of now before it goes to disk.
    `flying`: the number of the first event of the call that may be with the server.
    """

    def __init__(self, buffer: Buffer, spool: Spool | None, label: Callable[[AppendCall], AppendCall]) -> None:
        self.flying: int | None = None
        self._buffer = buffer
        self._spool = spool
        self._label = label
        self._held: AppendCall | None = None
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
        """Whether a call is in memory alone; until it is kept or sent, no other can be made."""
        return self._held is not None

    def hold(self, call: AppendCall) -> None:
        """A new call, whose events are in flight; only while none is held."""
        self._held = call

    def keep(self) -> bool:
        """Put the held call into the spool. True when no call is in memory alone any more."""
        call = self._held
        if call is None:
            return True
        if self._spool is None or self._spool.closed:
            return False
        books = self._buffer.books
        try:
            for file in self._spool.make_room(call.size, self.flying):
                books.lost(SPOOL_FULL, file.first)
                self._tell_full()
            self._spool.put(self._label(call))
        except OSError as error:
            self._tell_broken(error)
            return False
        self._broken = False
        self._held = None
        books.kept(call.first)
        return True

    def oldest(self) -> AppendCall | None:
        """The call to send next; those that are damaged or gone are given up on the way. Raises OSError when the disk
        cannot be read now."""
        while self._spool is not None and self._spool.files:
            file = self._spool.files[0]
            try:
                return self._spool.read(file)
            except (Damaged, FileNotFoundError) as error:
                log.warning("%d events in %s cannot be sent: %s", file.events, self._spool.path / file.name, error)
                self._spool.set_aside(file)
                self._buffer.books.lost(SPOOL_EXPIRED if isinstance(error, Expired) else SPOOL_DAMAGED, file.first)
        return self._held

    def landed(self, call: AppendCall) -> None:
        """The server has it, and as durably as was asked for."""
        books = self._buffer.books
        if call.first in books.spooled:
            books.landed(call.first)
            self._remove(call.first)
        else:
            self._held = None
            books.landed()
        self._full = False

    def give_up(self) -> None:
        """The call that was being made or sent cannot be handled, for a reason that is our mistake."""
        books = self._buffer.books
        if self.flying is not None and self.flying in books.spooled:
            books.lost(INTERNAL, self.flying)
            self._remove(self.flying)
        else:
            self._held = None
            books.lost(INTERNAL)
        self.flying = None

    def close(self, last: AppendCall) -> None:
        """What is in the spool is left to the next process, with `last`, a call of counters alone, behind it; what is
        not, and not with the server now, is given up."""
        if self._held is not None and self._held.first != self.flying:
            self._held = None
            self._buffer.books.lost(CLOSED)
        if self._spool is not None and not self._spool.closed:
            self._spool.close(self._label(last))

    def _remove(self, first: int) -> None:
        if self._spool is not None:
            for file in self._spool.files:
                if file.first == first:
                    self._spool.remove(file)
                    return

    def _tell_broken(self, error: OSError) -> None:
        if not self._broken and self._spool is not None:
            self._broken = True
            log.warning(_KEEP_FAILED, self._spool.root, error.strerror or error, self._buffer.bound)

    def _tell_full(self) -> None:
        if not self._full and self._spool is not None:
            self._full = True
            log.warning(
                "the spool %s is full (%d bytes); the oldest events are dropped and counted",
                self._spool.root,
                self._spool.max_bytes,
            )
