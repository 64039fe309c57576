"""The spool of one producer: calls the server did not take, on disk, in order, within a bound.

The bound counts all spools of the same folder together: it is the disk that is shared.
"""

import errno
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from vibezen.metrics import clock
from vibezen.metrics.producers.append_call import AppendCall, Damaged, Expired
from vibezen.metrics.producers.spool_folder import CallFile, SpoolFolder, call_files, is_producer, make, take

MAX_AGE: Final = 29 * 86_400.0
"""Seconds. Servers forget a producer's number 30 days after its last call; a call repeated later could double."""
LOOK_SECONDS: Final = 1.0
"""How long what other producers hold is taken to be unchanged."""
_TRIES: Final = 20
"""To hold a new folder: another process that looks for spools of the dead may hold or remove it for a moment."""
_TRY_SECONDS: Final = 0.005


class SpoolFull(OSError):
    """No room, and nothing of our own that could make some."""

    def __init__(self, bound: int) -> None:
        super().__init__(errno.EDQUOT, f"spool.max_bytes = {bound} is reached")


class Spool:
    """Belongs to one sender, which calls it under its lock. Building it touches nothing.

    `files`: oldest first. `may_repeat`, once closed: somebody may find what was sent, and send it again.
    """

    def __init__(self, root: Path, producer: str, max_bytes: int, quarantine: Path) -> None:
        self.root = root
        self.path = root / producer
        self.max_bytes = max_bytes
        self.files: deque[CallFile] = deque()
        self.closed = False
        self.may_repeat = False
        self._quarantine = quarantine
        self._folder: SpoolFolder | None = None
        self._newest: AppendCall | None = None
        self._others = (0, -LOOK_SECONDS)

    def make_room(self, size: int, spare: int | None) -> list[CallFile]:
        """Drop the oldest calls until `size` bytes more fit; returns them. Never the one whose first event has the
        number `spare`: it may be with the server, and nobody could say any more whether it is lost. Raises SpoolFull.
        """
        free = self.max_bytes - sum(file.size for file in self.files) - self._size_of_others() - size
        found = []
        for file in self.files:
            if free >= 0:
                break
            if file.first != spare:
                found.append(file)
                free += file.size
        if free < 0:
            raise SpoolFull(self.max_bytes)
        for file in found:
            self.remove(file)
        return found

    def put(self, call: AppendCall) -> None:
        """Behind all others; durable on return. Raises OSError, and then nothing is kept."""
        folder = self._folder
        if folder is None or not folder.is_held():  # somebody has removed the lock under us
            folder = self._open()
        try:
            file = folder.write(call)
        except FileNotFoundError:  # or the folder
            file = self._open().write(call)
        self.files.append(file)
        self._newest = call

    def read(self, file: CallFile) -> AppendCall:
        """Raises Damaged, Expired, OSError; FileNotFoundError when another process has sent or removed it."""
        if self._newest is not None and self._newest.first == file.first:
            return self._newest
        if self._folder is None:
            raise Damaged("the spool is closed")
        call = self._folder.read(file)
        check_age(call)
        return call

    def remove(self, file: CallFile) -> None:
        """It is in the stream, or given up."""
        self._forget(file)
        if self._folder is not None:
            self._folder.discard(file)

    def set_aside(self, file: CallFile) -> None:
        """It cannot be sent."""
        self._forget(file)
        if self._folder is not None:
            with suppress(OSError):
                self._folder.set_aside(file, self._quarantine)

    def close(self, last: AppendCall) -> None:
        """Leave what is here to the next process, and `last` behind it; or leave nothing. May be called again."""
        folder = self._folder
        if folder is None or self.closed:
            self.closed = True
            return
        self.closed = True
        if self.files:
            with suppress(OSError):
                folder.write(last)
            folder.release()
        else:
            self.may_repeat = not folder.is_emptied()
            folder.remove(list(_files(self.path)) if folder.is_held() else ())

    def _forget(self, file: CallFile) -> None:
        with suppress(ValueError):
            self.files.remove(file)
        if self._newest is not None and self._newest.first == file.first:
            self._newest = None

    def _open(self) -> SpoolFolder:
        if self._folder is not None:
            self._folder.release()
        for _ in range(_TRIES):
            make(self.path)
            with suppress(FileNotFoundError):
                if folder := take(self.path):
                    self._folder = folder
                    return folder
            time.sleep(_TRY_SECONDS)
        raise OSError(errno.EAGAIN, "another process holds the spool")

    def _size_of_others(self) -> int:
        size, seen = self._others
        now = clock.monotonic()
        if now - seen >= LOOK_SECONDS:
            size = sum(file.size for path in folders(self.root) if path != self.path for file in _files(path))
            self._others = (size, now)
        return size


def folders(root: Path) -> list[Path]:
    """Of all producers, in no order; empty where there is no spool, or none we may look into. Other folders there are
    none of our business."""
    with suppress(OSError), os.scandir(root) as entries:
        ours = (entry for entry in entries if is_producer(entry.name))
        return [Path(entry.path) for entry in ours if entry.is_dir(follow_symlinks=False)]
    return []


def check_age(call: AppendCall) -> None:
    """Raises Expired."""
    if call.batches and clock.wall() - call.made > MAX_AGE:
        raise Expired(f"older than {MAX_AGE / 86_400:g} days")


def _files(path: Path) -> Iterator[CallFile]:
    with suppress(OSError):  # another user's, or just removed
        yield from call_files(path)
