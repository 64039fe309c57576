"""Making a backup: into a folder beside its place, which gets its name when all is there and durable."""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple

import msgspec

from vibezen.metrics.backup.folder import BLOCK_BYTES, Hold, file_errors, fsync_tree, new_file
from vibezen.metrics.backup.manifest import MANIFEST, Copied, Manifest, read_manifest
from vibezen.metrics.backup.plan import Beginning, Item, Plan, Whole, Written, plan
from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.committed import open_committed
from vibezen.metrics.errors import StoreError
from vibezen.metrics.layout import Layout, make_folder, publish

LOOKS: Final = 5
"""Plans made at most: another one each time that files had gone before they were copied."""

Progress = Callable[[int, int], None]
"""Called with the bytes that are behind, and how many there are about in all."""


class Made(NamedTuple):
    """`linked`: files that are the same ones as in the backup before."""

    manifest: Manifest
    linked: int


def backup(
    layout: Layout,
    target: Path,
    *,
    version: str,
    base: Path | None = None,
    progress: Progress = lambda done, total: None,
    now: Clock = wall,
) -> Made:
    """Copy what is committed now to the folder `target`, which must not exist. `base`: an earlier backup of the store;
    files that are there already are linked, not copied. Raises StoreError in one line, with nothing left behind."""
    store = layout.read().id
    _check_target(layout, target)
    known = _base(base, store)
    with Hold(target.with_name(f"{target.name}.partial")) as partial, file_errors(target):
        made = _Copying(layout, partial.folder, base, known, progress)
        planned, at = made.run(now)
        files = [made.done[path] for path in sorted(made.done)]
        damaged = sorted(f"{path}: {what}" for path, what in {**planned.damaged, **made.damaged}.items())
        manifest = Manifest(store, at, version, planned.events, planned.outside, planned.positions, files, damaged)
        fsync_tree(partial.folder)
        publish(partial.folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        partial.rename(target)
    return Made(manifest, made.linked)


def _check_target(layout: Layout, target: Path) -> None:
    inside, root = target.resolve(), layout.root.resolve()
    if inside == root or root in inside.parents:
        raise StoreError(f"{target}: lies inside the storage folder {layout.root}: it would be lost with it")
    with file_errors(target):
        if target.is_symlink() or os.path.ismount(target):  # which the finished folder could not take the place of
            raise StoreError(f"{target}: is a link or a disk's own folder; name a folder in it that does not exist")
        if target.is_dir() and not any(target.iterdir()):
            return
        if target.exists():
            raise StoreError(f"{target}: is there already; name a folder that does not exist")


def _base(base: Path | None, store: str) -> dict[str, Copied]:
    if base is None:
        return {}
    manifest = read_manifest(base)
    if manifest.store != store:
        raise StoreError(f"{base}: is a backup of another store ({manifest.store})")
    return {one.path: one for one in manifest.files}


class _Changed(Exception):
    """A file is not there any more."""


class _Copying:
    """`done`: what lies in the folder, by path; `damaged`: by path, what is wrong with it."""

    def __init__(
        self, layout: Layout, folder: Path, base: Path | None, known: dict[str, Copied], progress: Progress
    ) -> None:
        self._layout, self._folder, self._base, self._known = layout, folder, base, known
        self._progress = progress
        self.done: dict[str, Copied] = {}
        self.damaged: dict[str, str] = {}
        self.linked = 0
        self._bytes = self._total = 0

    def run(self, now: Clock) -> tuple[Plan, float]:
        """The plan that the folder fulfils at last, and when it was made."""
        for look in range(LOOKS):
            at = now()
            planned = plan(self._layout)
            self._drop_all_but({item.path for item in planned.items})
            self._bytes, self._total = 0, planned.size(self._layout)
            if self._take(planned, last=look == LOOKS - 1):
                return planned, at
        raise AssertionError("the last look takes what there is")

    def _take(self, planned: Plan, *, last: bool) -> bool:
        """Whether all of it is there now. `last`: what is gone is gone, and told."""
        for item in planned.items:
            try:
                self._copy(item)
            except _Changed:
                if isinstance(item, Whole) and not item.needed:
                    continue
                if not last:
                    return False
                self.damaged[item.path] = "is gone"
        return True

    def _drop_all_but(self, wanted: set[str]) -> None:
        for path in self.done.keys() - wanted:
            (self._folder / path).unlink(missing_ok=True)
            del self.done[path]
            self.damaged.pop(path, None)

    def _copy(self, item: Item) -> None:
        if isinstance(item, Written):
            self._write(item)
            return
        length = item.extent.end if isinstance(item, Beginning) else None
        before = self.done.get(item.path)
        with self._opened(item) as source:
            stat = os.fstat(source.fileno())
            size = stat.st_size if length is None else length
            if before is not None and before.size == size:  # of an earlier look: what was data stays as it is
                self._advance(size)
                return
            sums = self._linked(item.path, source, size) or self._copied(item.path, source, size)
        self.done[item.path] = Copied(item.path, sums.size, sums.sha.hexdigest())
        # When it was written: retention counts from an event's arrival.
        os.utime(self._folder / item.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        if isinstance(item, Beginning):
            self._judge(item, sums)

    @contextmanager
    def _opened(self, item: Whole | Beginning) -> Iterator[IO[bytes]]:
        try:
            file = (
                open_committed(self._layout, item.extent)
                if isinstance(item, Beginning)
                else (self._layout.root / item.path).open("rb")
            )
        except FileNotFoundError:
            raise _Changed from None
        with file:
            yield file

    def _write(self, item: Written) -> None:
        target = self._target(item.path)
        target.unlink(missing_ok=True)
        with new_file(target) as file:
            file.write(item.data)
        self.done[item.path] = Copied(item.path, len(item.data), hashlib.sha256(item.data).hexdigest())
        self._advance(len(item.data))

    def _linked(self, path: str, source: IO[bytes], size: int) -> "_Sums | None":
        """The same file of the backup before, where it has the same bytes."""
        there = self._known.get(path)
        if self._base is None or there is None or there.size != size:
            return None
        sums = _Sums()
        for _ in _blocks(source, size, sums):
            pass
        source.seek(0)
        if sums.sha.hexdigest() != there.sha256:
            return None
        target = self._target(path)
        try:
            os.link(self._base / path, target)
        except OSError:  # on another disk, or gone from there
            return None
        self.linked += 1
        self._advance(size)
        return sums

    def _copied(self, path: str, source: IO[bytes], size: int) -> "_Sums":
        sums, target = _Sums(), self._target(path)
        target.unlink(missing_ok=True)
        with new_file(target) as file:
            for block in _blocks(source, size, sums):
                file.write(block)
                self._advance(len(block))
        return sums

    def _judge(self, item: Beginning, sums: "_Sums") -> None:
        """Hold a segment against its log."""
        if sums.size != item.extent.end:
            self.damaged[item.path] = f"has {sums.size} bytes, its log says {item.extent.end}"
        elif sums.crc != item.extent.crc:
            self.damaged[item.path] = "its bytes differ from what was committed"
        else:
            self.damaged.pop(item.path, None)

    def _target(self, path: str) -> Path:
        target = self._folder / path
        make_folder(target.parent)
        return target

    def _advance(self, size: int) -> None:
        self._bytes += size
        self._progress(self._bytes, max(self._total, self._bytes))


class _Sums:
    """What is told of the bytes seen so far."""

    def __init__(self) -> None:
        self.size = self.crc = 0
        self.sha = hashlib.sha256()


def _blocks(source: IO[bytes], size: int, sums: _Sums) -> Iterator[bytes]:
    """The first `size` bytes, or as many as there are."""
    while sums.size < size and (block := source.read(min(size - sums.size, BLOCK_BYTES))):
        sums.size += len(block)
        sums.crc = zlib.crc32(block, sums.crc)
        sums.sha.update(block)
        yield block
