"""Room on disk for what is too large for memory: a folder that is gone afterwards, whatever ends its owner."""

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from vibezen.metrics.layout import FILE_MODE, FOLDER_MODE, Layout

_PREFIX: Final = ".scratch-"
_LOCK: Final = ".lock"


@contextmanager
def scratch_folder(layout: Layout) -> Iterator[Path]:
    """An empty folder on the store's own disk, or, for who may not write there, in the system's temporary one.

    Its owner holds a lock beside it: what an owner left that was killed is removed by the next.
    """
    held = _hold(layout.exports)
    if held is None:
        with tempfile.TemporaryDirectory(prefix="vibezen-metrics-") as elsewhere:
            yield Path(elsewhere)
        return
    lock, folder = held
    try:
        _sweep(layout.exports)
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def room(folder: Path) -> str:
    """How much may be put there, as DuckDB takes it: half of what is free, since archivers need the same disk."""
    return f"{max(shutil.disk_usage(folder).free // 2, 1 << 20)}B"


def _hold(parent: Path) -> tuple[int, Path] | None:
    """A lock and the folder that belongs to it; None where this user may not have them."""
    try:
        parent.mkdir(mode=FOLDER_MODE, exist_ok=True)
        lock, folder = _locked(parent)
        folder.mkdir(mode=FOLDER_MODE)
    except OSError:
        return None
    return lock, folder


def _locked(parent: Path) -> tuple[int, Path]:
    while True:
        folder = parent / f"{_PREFIX}{uuid.uuid4().hex[:12]}"
        lock = os.open(_lock_of(folder), os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
        if _take(lock):
            # Who sweeps just now may have taken it first, and removed the name.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), _lock_of(folder).stat()):
                    return lock, folder
        os.close(lock)


def _sweep(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*{_LOCK}"):
        try:
            lock = os.open(path, os.O_RDWR)
        except OSError:
            continue
        try:
            if _take(lock):
                _remove(path.with_suffix(""))
        finally:
            os.close(lock)


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)


def _remove(folder: Path) -> None:
    """The folder first: while the lock has a name, what is left is found again."""
    shutil.rmtree(folder, ignore_errors=True)
    _lock_of(folder).unlink(missing_ok=True)
