"""The sender: one daemon thread that takes events off the buffer and appends them, call after call.

One call is with the server at a time, and it is repeated unchanged until the server confirms it: that makes a retry
after a lost reply add nothing. What the server does not take goes to the spool, and whatever is newer queues behind it.
Back-pressure ends in the buffer, never in `record()`.
"""

import logging
import sys
import threading
from contextlib import suppress
from typing import Final

from vibezen.metrics import clock
from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.layout import Layout
from vibezen.metrics.producers import lifetime
from vibezen.metrics.producers.adopter import Adopter
from vibezen.metrics.producers.append_call import AppendCall
from vibezen.metrics.producers.buffer import Buffer
from vibezen.metrics.producers.call_maker import CALL_EVENTS, CallMaker
from vibezen.metrics.producers.keeper import Keeper
from vibezen.metrics.producers.outbox import Outbox
from vibezen.metrics.producers.spool import Spool
from vibezen.metrics.producers.uplink import Uplink
from vibezen.metrics.settings import Durability, Settings

NEVER: Final = sys.maxsize
"""So many events never wait."""
_DISK_SECONDS: Final = 1.0
"""Beyond its deadline: how long `close` waits for a disk."""
STATS_SECONDS: Final = 60.0
"""With nothing to send: how often the server is told counters that have changed."""

log = logging.getLogger("vibezen.metrics.collector")


class Sender:
    """Drains one buffer into one shard. The public methods may be called from any thread."""

    def __init__(self, settings: Settings, buffer: Buffer) -> None:
        self._settings = settings
        self._buffer = buffer
        self._spools = settings.durability is not Durability.MEMORY
        self._root = settings.spool_dir.absolute()
        bound = f"up to {buffer.bound} events"
        spool = f"up to {settings.spool.max_bytes} bytes in {self._root}"
        self._uplink = Uplink(settings, spool if self._spools else bound)
        self.start_anew()

    def start_anew(self) -> None:
        """A new producer: at first, and after fork in the child, which must share neither number nor connection nor
        spool."""
        self.wake_at = NEVER
        """Events from which on `wake` is worth calling."""
        # A lock as a binary semaphore: released to wake. Unlike an Event it may be touched in a signal handler.
        self._alarm = threading.Lock()
        self._alarm.acquire()
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None
        self._uplink.start_anew()
        self._maker = CallMaker(self._settings, self._buffer)
        self.producer, self.shard = self._maker.producer, self._maker.shard
        self._outbox = self._new_outbox()
        self._keeper = Keeper(self._relieve)
        self.is_behind = self._keeper.start_if_hanging if self._spools else _nothing
        """To be called when many events wait: the buffer must be relieved should the sender hang. Never blocks."""
        self._adopter = Adopter(self._settings, self.producer) if self._spools else None
        self._stats_sent = b""
        self._stats_due = self._relief_due = 0.0
        self._flush_asked = False
        self._retry_now = False
        self._stopping = False
        self._given_up = False

    def _new_outbox(self) -> Outbox:
        settings, spool = self._settings, None
        if self._spools:
            quarantine = Layout(settings.storage_dir.absolute()).quarantine
            spool = Spool(self._root, self.producer, settings.spool.max_bytes, quarantine)
        disk_first = settings.durability is Durability.SPOOL
        return Outbox(self._buffer, self._maker, spool, lambda: self._uplink.store, disk_first=disk_first)

    def start(self) -> bool:
        """Make sure that the thread runs. False when there can be none (no thread to be had, interpreter ending)."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="vibezen-metrics-sender", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    self._thread = None
                    return False
                lifetime.started(self)
            return True

    def wake(self) -> None:
        """Never blocks."""
        self.wake_at = NEVER
        with suppress(RuntimeError):  # already awake
            self._alarm.release()

    def ask_flush(self) -> None:
        """Send all that waits, now; a pause between retries ends at once. Never blocks."""
        self._flush_asked = self._retry_now = True
        self.wake()

    def ask_stop(self) -> None:
        """Send all that waits, then end. Never blocks."""
        self._stopping = True
        self.ask_flush()

    def close(self, deadline: float) -> int:
        """Send what waits and end. Returns how many events are not safe after `deadline` seconds; they are left in the
        spool, or given up where there is none."""
        end = clock.monotonic() + deadline
        mark = self._buffer.mark()
        self.ask_stop()
        alive = self._thread is not None and self._thread.is_alive() and not self._given_up
        left = self._buffer.wait_settled(mark.position, deadline / 2 if alive else 0.0)
        if left:  # the sender may hang in a call: what waits is brought to disk from here, in time
            if self._outbox.is_free(end - clock.monotonic()):
                self._outbox.keep_waiting()
            left = self._buffer.wait_settled(mark.position, max(0.0, end - clock.monotonic()) if alive else 0.0)
        unsafe = self._buffer.unsafe_since(mark, left)
        if left or not alive:
            self._given_up = True
            self.wake()
            end = clock.monotonic() + 0.1  # it may hang in a call that ends much later; it ends itself then
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(0.1, end - clock.monotonic()))
            self._given_up = True
        if self._outbox.is_free(_DISK_SECONDS):
            self._outbox.leave(sender_hangs=self._thread is not None and self._thread.is_alive())
        return unsafe

    def tell_left(self, left: int) -> None:
        """Say what becomes of the `left` events that `close` returned."""
        kept = self._buffer.stats().spooled
        if kept:
            log.warning(
                "%d events were not sent to %s before closing; they are kept in %s, and the next process sends them",
                kept,
                self._uplink.address,
                self._root,
            )
        lost = left if self._settings.durability is Durability.SPOOL else left - kept
        if lost > 0:
            log.warning("%d events could not be sent to %s before closing, and are lost", lost, self._uplink.address)

    def tell_refused(self, field: str, bad: InvalidEvent) -> None:
        self._maker.tell_refused(field, bad)

    # --- what follows runs on the sender's thread, unless it says otherwise

    def _run(self) -> None:
        due = self._next_flush()
        self._stats_due = clock.monotonic() + STATS_SECONDS
        while not self._is_done():
            self._sleep(due)
            due = self._next_flush()
            try:
                self._turn()
                due = min(due, self._rest())
            except Exception:
                # A mistake of ours must cost one call, not silence the application's metrics for good.
                log.exception("a call could not be handled and is dropped; please report this")
                self._outbox.give_up()
                if self._adopter is not None:
                    self._adopter.release()
        self._finish()

    def _next_flush(self) -> float:
        return clock.monotonic() + self._settings.flush_interval_seconds

    def _is_done(self) -> bool:
        if self._given_up or not self._stopping:
            return self._given_up
        safe = self._settings.durability is Durability.SPOOL and self._uplink.away and not self._outbox.stuck
        return not self._buffer.events and (self._outbox.is_empty or safe)

    def _sleep(self, due: float) -> None:
        """Until enough events wait, a flush is asked for, or `due` has come (monotonic seconds)."""
        enough = self._enough()
        if self._uplink.away and not (self._outbox.is_empty and not self._buffer.events):
            due = min(due, clock.monotonic() + self._uplink.pause_left())
        self.wake_at = enough
        # Only after `wake_at` is set: an append that saw it unset must be seen here.
        if not self._flush_asked and len(self._buffer.events) < enough:
            self._alarm.acquire(timeout=max(0.0, due - clock.monotonic()))
        self.wake_at = NEVER
        self._relief_due = 0.0 if self._flush_asked else self._relief_due
        self._flush_asked = False

    def _enough(self) -> int:
        """Events worth waking up for."""
        if not self._uplink.away:
            return self._settings.buffer_size
        if not self._spools or self._outbox.stuck:
            return NEVER
        return self._enough_to_keep()

    def _enough_to_keep(self) -> int:
        """Large calls while the server is away, so that files are few."""
        return min(CALL_EVENTS, self._buffer.bound // 2)

    def _turn(self) -> None:
        """Send what waits now. What comes meanwhile waits for the next trigger, or entries would become tiny."""
        budget = len(self._buffer.events)
        while not self._given_up:
            if self._uplink.away or self._outbox.spooled:
                self._relieve()
            if self._uplink.pause_left() and not self._retry_now:
                return
            before = budget
            try:
                call, budget = self._outbox.next(budget, tell_drops=budget > 0 and not self._uplink.away)
            except OSError as error:
                self._uplink.failed(error)
                return
            if call is None and budget == before:
                return
            if call is not None and not self._send(call):
                return

    def _send(self, call: AppendCall) -> bool:
        self._retry_now = False
        with self._keeper.watching():
            sent = self._uplink.send(call)
        if sent:
            self._outbox.landed(call, self._uplink.last)
        elif self._spools:
            self._outbox.keep()
            self._keeper.start()
        return sent

    def _relieve(self) -> None:
        """Bring what waits to disk, when the interval has passed or enough waits. Also on the keeper's thread."""
        if clock.monotonic() >= self._relief_due:
            self._relief_due = self._next_flush()
            self._outbox.keep_waiting()
        elif len(self._buffer.events) >= self._enough_to_keep():
            self._outbox.keep_waiting(self._enough_to_keep())

    def _rest(self) -> float:
        """With nothing to send: tell counters, look after the spools of the dead. Returns when to come back (monotonic
        seconds) at the latest."""
        now = clock.monotonic()
        if self._stopping or self._uplink.pause_left() or not self._outbox.is_empty:
            return now + STATS_SECONDS
        if not self._uplink.away and self._maker.has_drops():
            call, _ = self._outbox.next(0, tell_drops=True)
            if call is not None:
                self._send(call)
            return now
        if now >= self._stats_due:
            self._stats_due = now + STATS_SECONDS
            self._tell_stats()
        if self._adopter is None:
            return self._stats_due
        with self._keeper.watching():
            more = self._adopter.step(self._uplink)
        return now if more else min(self._stats_due, self._adopter.next_look)

    def _tell_stats(self) -> None:
        call = self._maker.counters()
        if call.stats != self._stats_sent and self._uplink.send(call):
            self._stats_sent = call.stats

    def _finish(self) -> None:
        self._outbox.leave(sender_hangs=False)
        if self._adopter is not None:
            self._adopter.release()
        if not self._uplink.away and self._outbox.is_empty and self._buffer.stats().recorded:
            self._tell_stats()
        self._uplink.close()
        self._keeper.end()
        lifetime.ended(self)


def _nothing() -> None:
    """Without a disk there is no relief."""
