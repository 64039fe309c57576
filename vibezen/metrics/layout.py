"""The storage folder: what lies where, and how a file comes to be there whole.

Folders are 0700 and files 0600: events may hold what users typed.
"""

import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.clock import HOUR
from vibezen.metrics.errors import StoreError, StoreFull

FORMAT: Final = 1
"""Version of the folder's layout; a newer one is refused."""
FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
HIDDEN_SUFFIX: Final = ".new"
"""A segment that no accepted commit has filled yet; no reader and no `*.jsonl` glob sees it."""

_PARTITION = re.compile(r"date=(\d{4}-\d\d-\d\d)/hour=(\d\d)/")
_SEGMENT = re.compile(r"(\d+)-(\d+)-(\d+)\.jsonl\Z")
_HIDDEN = re.compile(r"\.(\d+)-(\d+)-\d+\.jsonl\.")
_LOG = re.compile(r"(\d+)-(\d+)\.log\Z")


class StoreFile(msgspec.Struct):
    """What `<storage_dir>/STORE` says."""

    id: str
    format: int


class SegmentName(NamedTuple):
    shard: int
    epoch: int
    number: int


def partition_of(ts: float) -> str:
    """The partition folder of an event time: `date=2026-11-23/hour=16`, UTC."""
    when = datetime.fromtimestamp(int(ts // HOUR) * HOUR, UTC)
    return f"date={when:%Y-%m-%d}/hour={when:%H}"


def date_folder(date: int) -> str:
    """The folder of a UTC date, by any of its Unix seconds: `date=2026-11-23`."""
    return f"date={datetime.fromtimestamp(date, UTC):%Y-%m-%d}"


def hour_of(relative: str) -> int:
    """Where the hour of a path `date=2026-11-23/hour=16/…` begins, in Unix seconds. ValueError for any other path."""
    match = _PARTITION.match(relative)
    if not match:
        raise ValueError(f"{relative!r} lies in no partition")
    return int(datetime.fromisoformat(f"{match[1]}T{match[2]}:00:00+00:00").timestamp())


class Layout:
    """Paths below one storage folder. Building it touches nothing."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.events = self.root / "events"
        self.commits = self.root / "commits"
        self.exports = self.root / "exports"  # scratch folders of exports and queries that are under way
        self.quarantine = self.root / "quarantine"  # what is damaged or too old, for people to look at
        self.rollups = self.root / "rollups" / "1m"
        self.compacting = self.root / ".compacting"  # what a compactor has in the making, by its epoch
        self.cache = self.root / "cache"  # what was fetched from external storage, for those who ask for it again
        self.store_file = self.root / "STORE"

    def segment(self, partition: str, name: SegmentName) -> Path:
        return self.events / partition / f"{name.shard}-{name.epoch}-{name.number}.jsonl"

    def strays(self, shard: int, before_epoch: int) -> Iterator[Path]:
        """What crashed or replaced owners of a shard left under names no reader sees."""
        for path in self.events.glob(f"date=*/hour=*/.{shard}-*"):
            match = _HIDDEN.match(path.name)
            if match and int(match[1]) == shard and int(match[2]) < before_epoch:
                yield path

    def log(self, shard: int, epoch: int) -> Path:
        return self.commits / f"{shard}-{epoch}.log"

    def segments(self) -> Iterator[Path]:
        """All visible segments, oldest partition first."""
        for path in sorted(self.events.glob("date=*/hour=*/*.jsonl")):
            if _SEGMENT.match(path.name):
                yield path

    def dates(self) -> list[int]:
        """The UTC dates that have a folder, oldest first, each by the Unix seconds at which it begins."""
        found = []
        for path in self.events.glob("date=*"):
            with suppress(ValueError):
                found.append(hour_of(f"{path.name}/hour=00/"))
        return sorted(found)

    def closing(self, shard: int, epoch: int) -> Path:
        """What the first to close a commit log found in it; there only while somebody closes it."""
        return self.commits / f".{shard}-{epoch}.closing"

    def logs(self, shard: int) -> list[tuple[int, Path]]:
        """(epoch, path) of a shard's commit logs, oldest first."""
        paths = self.commits.glob(f"{shard}-*.log")
        return sorted((int(match[2]), path) for path in paths if (match := _LOG.match(path.name)))

    def shards(self) -> list[int]:
        """Shards that have a commit log here."""
        return sorted({int(match[1]) for path in self.commits.glob("*.log") if (match := _LOG.match(path.name))})

    def create(self) -> StoreFile:
        """Make the folder a store if it is none yet; answers whose store it is. Raises StoreError in one line."""
        try:
            for folder in (self.root, self.events, self.commits):
                folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            if not self.store_file.exists():
                fresh = msgspec.json.encode(StoreFile(id=str(uuid.uuid4()), format=FORMAT))
                publish_once(self.store_file, fresh + b"\n")
            return self.read()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise StoreError(f"storage folder {self.root}: {reason}") from None

    def read(self) -> StoreFile:
        """Whose store this is; StoreError when it is none or newer than this version knows."""
        try:
            store = msgspec.json.decode(self.store_file.read_bytes(), type=StoreFile)
        except FileNotFoundError:
            raise StoreError(f"storage folder {self.root}: not a store yet (no file STORE)") from None
        except (OSError, msgspec.MsgspecError) as error:
            raise StoreError(f"{self.store_file}: not readable as a store's identity: {error}") from None
        if store.format > FORMAT:
            raise StoreError(f"{self.store_file}: format {store.format} is newer than this version knows ({FORMAT})")
        return store


def segment_name(path: Path) -> SegmentName | None:
    match = _SEGMENT.match(path.name)
    return SegmentName(int(match[1]), int(match[2]), int(match[3])) if match else None


def hidden(segment: Path) -> Path:
    """Where a segment lies until the first commit that fills it was accepted."""
    return segment.with_name(f".{segment.name}{HIDDEN_SUFFIX}")


def make_folder(folder: Path) -> None:
    """Create `folder` and make its name durable in every parent that was new."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with space():
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    fsync_folder(folder.parent)


def fsync_folder(folder: Path) -> None:
    """Make names in `folder` durable: a file's own fsync does not."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """write(2) until everything is written: a nearly full disk takes a part first and fails only then."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def append_all(fd: int, end: int, data: bytes) -> None:
    """The same behind `end`, the length of a file of ours; raises StoreFull with that length restored."""
    with space():
        try:
            write_all(fd, data)
        except OSError:
            os.ftruncate(fd, end)
            raise


def is_full(error: BaseException) -> bool:
    """Whether a file error says that there is no space now: on the disk, or in a quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def space() -> Iterator[None]:
    """Raise StoreFull for want of space in a step that can be done again as it is. A failed fsync is no such step: what
    was written may be gone with it."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise StoreFull(why_full(error)) from error


def why_full(error: BaseException) -> str:
    return f"storage folder: {(getattr(error, 'strerror', None) or str(error)).lower()}"


@contextmanager
def _scratch(target: Path) -> Iterator[tuple[int, Path]]:
    """A new file beside `target` under a name nobody reads; gone afterwards unless it was renamed."""
    path = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        yield fd, path
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)


def publish(target: Path, data: bytes) -> None:
    """Replace `target` by `data`: whole or not at all, and durable on return."""
    with _scratch(target) as (fd, path):
        write_all(fd, data)
        os.fsync(fd)
        path.rename(target)
    fsync_folder(target.parent)


def publish_once(target: Path, data: bytes) -> bool:
    """Create `target` with `data` unless it exists; True if it was created."""
    with _scratch(target) as (fd, path):
        write_all(fd, data)
        os.fsync(fd)
        try:
            os.link(path, target)
        except FileExistsError:
            return False
    fsync_folder(target.parent)
    return True


def publish_copy(source: Path, target: Path, length: int) -> None:
    """Replace `target` by the first `length` bytes of `source` (which may be `target`) in a file of its own.

    Whoever still holds the old file open writes into something no name leads to.
    """
    with _scratch(target) as (fd, path):
        with source.open("rb") as file:
            left = length
            while left:
                chunk = file.read(min(left, 1 << 20))
                if not chunk:
                    raise StoreError(f"{source}: {left} committed bytes are missing at its end")
                write_all(fd, chunk)
                left -= len(chunk)
        os.fsync(fd)
        path.rename(target)
    fsync_folder(target.parent)
