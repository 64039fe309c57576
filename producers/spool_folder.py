"""One producer's folder in the spool: `<spool>/<producer>/`, a lock and a file per call.

Whoever holds the lock may read, send and remove what is there: the producer itself while it lives, any other process
once the lock is free. A lock is free when its holder has ended, however it did; or when something has removed its file
(a cleaner of old files). So nobody removes what he has not seen to be in the stream.
"""

import errno
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from vibezen.metrics.errors import StoreFull
from vibezen.metrics.layout import FILE_MODE, fsync_folder, make_folder, publish
from vibezen.metrics.producers.append_call import AppendCall, decode_call, encode_call

LOCK: Final = "lock"
SUFFIX: Final = ".batch"
_NAME: Final = re.compile(r"(\d+)-(\d+)\.batch\Z")
_UNFINISHED: Final = re.compile(r"\.\d+-\d+\.batch\.[0-9a-f]+\.tmp\Z")
_PRODUCER: Final = re.compile(r"[0-9a-f]{32}\Z")


class CallFile(NamedTuple):
    """A call as its file's name and size tell it."""

    first: int
    events: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.first}-{self.events}{SUFFIX}"


class SpoolFolder:
    """Held by this process until `release` or `remove`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock

    @property
    def producer(self) -> str:
        return self.path.name

    def files(self) -> list[CallFile]:
        """Oldest first. Raises OSError."""
        return sorted(call_files(self.path))

    def write(self, call: AppendCall) -> CallFile:
        """Whole and durable on return, or not there at all. Raises OSError."""
        data = encode_call(call)
        file = CallFile(call.first, call.events, len(data))
        publish(self.path / file.name, data)
        return file

    def read(self, file: CallFile) -> AppendCall:
        """Raises Damaged, OSError."""
        return decode_call((self.path / file.name).read_bytes())

    def discard(self, file: CallFile) -> None:
        """Not durable until `is_emptied`: a file that comes back is a call repeated, which does no harm for as long as
        the server remembers the producer."""
        with suppress(OSError):
            (self.path / file.name).unlink()

    def set_aside(self, file: CallFile, quarantine: Path) -> None:
        """Out of the way of the others, for people to look at. Raises OSError."""
        make(quarantine)
        shutil.move(self.path / file.name, quarantine / f"{self.producer}-{file.name}")

    def is_emptied(self) -> bool:
        """Whether it is certain, after a loss of power too, that nobody will find an event here any more."""
        try:
            fsync_folder(self.path)
            return not any(file.events for file in call_files(self.path))
        except OSError:
            return False

    def is_held(self) -> bool:
        """False once the lock's file is gone or another: then anybody may hold the folder."""
        try:
            return self._lock is not None and os.path.samestat(os.fstat(self._lock), os.stat(self.path / LOCK))
        except OSError:
            return False

    def release(self) -> None:
        if self._lock is not None:
            lock, self._lock = self._lock, None
            _close(lock)

    def remove(self, done: Iterable[CallFile]) -> None:
        """The folder with the files that are `done`, then the lock. With anything else in it, it stays."""
        with suppress(OSError):
            for file in done:
                (self.path / file.name).unlink(missing_ok=True)
            for name in os.listdir(self.path):
                if _UNFINISHED.match(name):  # should its writer live, it tries again
                    (self.path / name).unlink()
            if self.is_held():
                (self.path / LOCK).unlink()
                self.path.rmdir()
        self.release()


def make(path: Path) -> None:
    """A folder, with those above it, durable on return. Raises OSError."""
    try:
        make_folder(path)
    except StoreFull as full:  # for archivers, who wait until there is space
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from full


def is_producer(name: str) -> bool:
    """Whether a folder of this name is one of ours."""
    return _PRODUCER.match(name) is not None


def take(path: Path) -> SpoolFolder | None:
    """Hold the folder; None when another process does, or has just removed it. Raises OSError."""
    fd = _open(path / LOCK)
    try:
        if _locked(fd) and os.stat(path / LOCK).st_ino == os.fstat(fd).st_ino:
            folder, fd = SpoolFolder(path, fd), -1
            return folder
    except FileNotFoundError:  # removed by its last holder between our opening and our locking
        pass
    finally:
        if fd >= 0:
            _close(fd)
    return None


def call_files(path: Path) -> Iterator[CallFile]:
    """Raises OSError."""
    with os.scandir(path) as entries:
        for entry in entries:
            if match := _NAME.match(entry.name):
                with suppress(FileNotFoundError):  # sent meanwhile, where another process holds it
                    yield CallFile(int(match[1]), int(match[2]), entry.stat().st_size)


def _locked(fd: int) -> bool:
    try:
        import fcntl
    except ImportError:
        raise OSError("this system has no file locks") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# A lock belongs to all processes that inherited its descriptor: a forked child would hold its parent's spool beyond the
# parent's death. So the child closes them all, and no fork falls between the opening of one and its being noted here.
_open_locks: set[int] = set()
_noting = threading.RLock()


def _open(path: Path) -> int:
    with _noting:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        _open_locks.add(fd)
    return fd


def _close(fd: int) -> None:
    with _noting:
        if fd in _open_locks:
            _open_locks.discard(fd)
            os.close(fd)


def _after_fork() -> None:
    for fd in _open_locks:
        with suppress(OSError):
            os.close(fd)
    _open_locks.clear()
    _noting.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_noting.acquire, after_in_parent=_noting.release, after_in_child=_after_fork)
