"""What dead producers left in the spool: found, sent under their own ids and numbers, and removed."""

import logging
import random
from collections import Counter, deque
from pathlib import Path
from typing import Final

import msgspec
from redis.exceptions import ResponseError

from vibezen.metrics import clock
from vibezen.metrics.layout import Layout
from vibezen.metrics.producer_stats import Stats
from vibezen.metrics.producers.append_call import AppendCall, Damaged, Expired
from vibezen.metrics.producers.books import SPOOL_DAMAGED, SPOOL_EXPIRED
from vibezen.metrics.producers.spool import check_age, folders
from vibezen.metrics.producers.spool_folder import CallFile, SpoolFolder, take
from vibezen.metrics.producers.uplink import Uplink
from vibezen.metrics.settings import Settings

LOOK_SECONDS: Final = 10.0
"""Between two looks for spools whose owners have died. Jitter keeps many processes from looking as one."""

log = logging.getLogger("vibezen.metrics.collector")


class Adopter:
    """For one thread, in steps of one call each. `own`: the producer whose spool is not to be touched.

    `next_look`: monotonic seconds.
    """

    def __init__(self, settings: Settings, own: str | None) -> None:
        self.next_look = 0.0
        self._root = settings.spool_dir.absolute()
        self._quarantine = Layout(settings.storage_dir.absolute()).quarantine
        self._prefix = settings.redis.prefix
        self._own = own
        self._candidates: deque[Path] = deque()
        self._left_alone: set[Path] = set()
        self._folder: SpoolFolder | None = None
        self._start_folder()

    def _start_folder(self) -> None:
        self._files: deque[CallFile] = deque()
        self._done: list[CallFile] = []
        self._last: AppendCall | None = None
        self._lost: Counter[str] = Counter()
        self._lost_before_last = 0
        self._sent = 0

    def step(self, uplink: Uplink) -> bool:
        """Do the next bit; True when there is more to do at once."""
        if self._folder is not None:
            try:
                return self._continue(self._folder, uplink)
            except ResponseError as error:
                self._leave_alone(self._folder, f"{uplink.address} takes other calls, but not this: {error}")
                return self._has_more()
        if not self._candidates:
            if clock.monotonic() < self.next_look:
                return False
            self.next_look = clock.monotonic() + LOOK_SECONDS * random.uniform(0.8, 1.2)
            self._candidates.extend(
                path for path in folders(self._root) if path.name != self._own and path not in self._left_alone
            )
        if self._candidates:
            self._begin(self._candidates.popleft(), uplink)
        return self._has_more()

    def release(self) -> None:
        """Let others go on with it, until the next look."""
        if self._folder is not None:
            self._folder.release()
            self._folder = None
        self._candidates.clear()

    def _has_more(self) -> bool:
        return self._folder is not None or bool(self._candidates)

    def _begin(self, path: Path, uplink: Uplink) -> None:
        try:
            folder = take(path)
            if folder is None:
                return
            files = deque(folder.files())
        except OSError:  # another user's, or just removed
            return
        self._start_folder()
        if not files:
            folder.remove(())
            return
        self._folder, self._files = folder, files
        if not uplink.reach():
            self.release()

    def _continue(self, folder: SpoolFolder, uplink: Uplink) -> bool:
        if not self._files:
            self._finish(folder, uplink)
            return self._has_more()
        file = self._files[0]
        try:
            call = folder.read(file)
            check_age(call)
        except Damaged as error:
            self._set_aside(folder, file, error)
            return self._has_more()
        except FileNotFoundError:  # its owner lives after all, and has sent it
            self.release()
            return False
        except OSError as error:
            self._leave_alone(folder, f"{file.name} cannot be read: {error.strerror or error}")
            return self._has_more()
        if reason := self._foreign(call, uplink):
            self._leave_alone(folder, reason)
            return self._has_more()
        if call.batches and not uplink.send_for_other(call):
            self.release()
            return False
        self._done.append(self._files.popleft())
        self._last, self._lost_before_last = call, self._lost.total()
        self._sent += call.events
        if call.batches:
            folder.discard(file)
        return True

    def _finish(self, folder: SpoolFolder, uplink: Uplink) -> None:
        """All is sent; the counters say so, and nothing is left."""
        if self._last is not None:
            # A producer that closed is soon forgotten: only where nobody can find and repeat anything of it.
            stats = _settled(self._last.stats, self._lost, self._lost_before_last, is_over=folder.is_emptied())
            if stats is not None:
                counters = msgspec.structs.replace(self._last, batches=[], stats=stats)
                if not uplink.send_for_other(counters):
                    self.release()
                    return
        if self._sent:
            log.info("sent %d events that a process which is no more had left in %s", self._sent, folder.path)
        self._folder = None
        folder.remove(self._done)
        if any(
            (folder.path / file.name).exists() for file in self._done
        ):  # a disk that can only be read: sending it all again and again would be no use
            self._left_alone.add(folder.path)

    def _set_aside(self, folder: SpoolFolder, file: CallFile, error: Damaged) -> None:
        try:
            folder.set_aside(file, self._quarantine)
        except OSError as trouble:
            self._leave_alone(folder, f"{file.name} cannot be moved to {self._quarantine}: {trouble.strerror}")
            return
        log.warning(
            "%d events of %s are not sent, and lie in %s now: %s", file.events, folder.path, self._quarantine, error
        )
        self._lost[SPOOL_EXPIRED if isinstance(error, Expired) else SPOOL_DAMAGED] += file.events
        self._files.popleft()

    def _foreign(self, call: AppendCall, uplink: Uplink) -> str | None:
        """Why this call is not for our server."""
        if call.prefix != self._prefix:
            return f"its keys begin with {call.prefix!r}, ours with {self._prefix!r}"
        if call.store and uplink.store and call.store != uplink.store:
            return f"it is for another store than that of {uplink.address}"
        return None

    def _leave_alone(self, folder: SpoolFolder, reason: str) -> None:
        log.warning("events left in %s are not sent from here: %s", folder.path, reason)
        self._left_alone.add(folder.path)
        self._folder = None
        folder.release()


def _settled(stats: bytes, lost: Counter[str], counted: int, *, is_over: bool) -> bytes | None:
    """A dead producer's counters, now that nothing of it is on its way any more; None where they cannot be read.
    `lost`: what could not be sent; `counted` events of it are in the counters as spooled, the others not at all."""
    try:
        last = msgspec.json.decode(stats, type=Stats)
    except msgspec.MsgspecError:
        return None
    settled = msgspec.structs.replace(
        last,
        recorded=last.recorded + lost.total() - counted,
        appended=last.appended + last.in_flight + last.spooled - counted,
        in_flight=0,
        spooled=0,
        dropped=dict(Counter(last.dropped) + lost),
        closed=last.closed and is_over,
    )
    return msgspec.json.encode(settled)
