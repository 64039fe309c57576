"""Where the rows of a part lie: in the store, or for one that was moved, in a file fetched from external storage.

What was fetched stays in `<storage_dir>/cache`, up to a bound, and is whole and verified before it has its name. Who
reads one holds a lock on it, so that no other process makes room with it meanwhile.
"""

import fcntl
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from vibezen.metrics.asking import stoppable
from vibezen.metrics.clock import DAY, wall
from vibezen.metrics.errors import BadParameter, ExternalAway, StoreFull
from vibezen.metrics.external import fetch, local_path
from vibezen.metrics.layout import FILE_MODE, FOLDER_MODE, space
from vibezen.metrics.parts import Moved

CACHE_BYTES: Final = 4 << 30
"""What all of one store's cache may take."""
_HIDDEN_SUFFIX: Final = ".new"

_fetching = threading.Lock()
"""One question at a time fetches; those that find all they need do not wait for it."""


def place_of(root: Path, moved: Moved) -> Path:
    """The file that holds what was moved, once it is `at_hand`. `root`: the store's folder."""
    local = local_path(moved.url)
    return local if local is not None else root / "cache" / f"{moved.sha256}.parquet"


@contextmanager
def at_hand(places: Sequence[tuple[str, Moved | None]]) -> Iterator[None]:
    """See that these files are there while this is held: what was moved is fetched where it is not.

    Raises ExternalAway, StoreFull, BadParameter for more than the cache may hold.
    """
    away = {Path(place): moved for place, moved in places if moved is not None}
    remote = {place: moved for place, moved in away.items() if local_path(moved.url) is None}
    for place, moved in away.items():
        if place not in remote and not _is_whole(place, moved):
            raise ExternalAway(f"external storage: {moved.url}: is not there, or not what was moved there")
    need = sum(moved.size for moved in remote.values())
    if need > CACHE_BYTES:
        raise BadParameter(
            "from", f"needs {need} bytes from external storage, of at most {CACHE_BYTES} at a time: ask for less time"
        )
    with ExitStack() as held:
        missing = {place: moved for place, moved in remote.items() if not _hold(held, place, moved)}
        if missing:
            with _fetching:
                for place, moved in missing.items():
                    while not _hold(held, place, moved):
                        _fetch(place, moved)
        yield


def _is_whole(place: Path, moved: Moved) -> bool:
    with suppress(OSError):
        return place.stat().st_size == moved.size
    return False


def _hold(held: ExitStack, place: Path, moved: Moved) -> bool:
    """Whether the file is there, and now stays."""
    try:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        found = os.fstat(fd)
        if found.st_nlink and found.st_size == moved.size:
            with suppress(OSError):
                os.utime(place)  # used now: what was not for the longest time makes room
            held.callback(os.close, fd)
            return True
        if found.st_nlink:  # somebody has damaged it
            place.unlink(missing_ok=True)
    except BlockingIOError:
        pass
    os.close(fd)
    return False


class _Fetching:
    """A fetch that can be interrupted, between two blocks."""

    def __init__(self, fd: int) -> None:
        self._fd, self._stopped = fd, False

    def interrupt(self) -> None:
        self._stopped = True

    def write(self, block: bytes) -> None:
        if self._stopped:
            raise InterruptedError
        with space():
            view = memoryview(block)
            while view:
                view = view[os.write(self._fd, view) :]


def _fetch(place: Path, moved: Moved) -> None:
    with space():
        place.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    _make_room(place.parent, moved.size)
    hidden = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}{_HIDDEN_SUFFIX}")
    fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        fetching = _Fetching(fd)
        with stoppable(fetching):
            fetch(moved, fetching.write)
        hidden.rename(place)
    finally:
        os.close(fd)
        hidden.unlink(missing_ok=True)


def _make_room(folder: Path, size: int) -> None:
    """Remove what was not used for the longest time, but for what somebody reads just now."""
    if shutil.disk_usage(folder).free < 2 * size:  # archivers need the same disk
        raise StoreFull(f"storage folder: no space to fetch {size} bytes from external storage")
    found = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(bytes_ for _, bytes_, _ in found)
    for used, bytes_, path in sorted(found):
        left_behind = path.name.endswith(_HIDDEN_SUFFIX) and used < wall() - DAY
        too_much = total + size > CACHE_BYTES and not path.name.endswith(_HIDDEN_SUFFIX)
        if (left_behind or too_much) and _remove_unread(path):
            total -= bytes_


def _remove_unread(path: Path) -> bool:
    with suppress(FileNotFoundError, BlockingIOError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            return True
        finally:
            os.close(fd)
    return False
