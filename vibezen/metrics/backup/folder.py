"""A folder in the making: nobody else's meanwhile, durable before it gets its name, gone when it does not."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from vibezen.metrics.errors import StoreError
from vibezen.metrics.layout import FILE_MODE, FOLDER_MODE, fsync_folder

BLOCK_BYTES: Final = 1 << 20
LOCK: Final = ".lock"


class Hold:
    """Makes `folder` empty and holds it; what a killed predecessor left in it is removed. On exit it is removed, unless
    it was renamed. Raises StoreError when somebody else is at work in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fd = -1
        self._renamed = False

    def __enter__(self) -> Self:
        with file_errors(self.folder):
            self.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._fd = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._fd)
                raise StoreError(f"{self.folder}: another process is at work in it") from None
            self._clear()
        return self

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name == LOCK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def rename(self, target: Path) -> None:
        """Give it its name. `target` may be an empty folder."""
        (self.folder / LOCK).unlink()
        fsync_folder(self.folder)
        self.folder.rename(target)
        self._renamed = True
        fsync_folder(target.parent)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._renamed:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._fd)


@contextmanager
def file_errors(where: Path) -> Iterator[None]:
    """What the file system says, as one line that names the file, or `where`."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StoreError(f"{error.filename or where}: {reason}") from None


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that must not exist, durable at the end of the block."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(fd, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def fsync_tree(folder: Path) -> None:
    """Make all names below `folder` durable."""
    for path, _, _ in os.walk(folder, topdown=False):
        fsync_folder(Path(path))
