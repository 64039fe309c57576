"""Putting a backup back: into a folder that holds nothing, every file compared with the manifest before any is seen."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vibezen.metrics.backup.folder import BLOCK_BYTES, Hold, file_errors, fsync_tree, new_file
from vibezen.metrics.backup.manifest import Copied, Manifest, read_manifest
from vibezen.metrics.errors import StoreError
from vibezen.metrics.layout import FOLDER_MODE, Layout, fsync_folder, make_folder

MAKING: Final = ".restoring"
"""Where the files lie until all of them are there."""

Progress = Callable[[int, int], None]


def restore(source: Path, layout: Layout, *, progress: Progress = lambda done, total: None) -> Manifest:
    """Make the store of a backup in the storage folder, which must be empty or not exist. Raises StoreError in one
    line, with the folder as it was."""
    manifest = read_manifest(source)
    root = layout.root
    with file_errors(root):
        _require_empty(root)
        was_there = root.exists()
        root.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        try:
            with Hold(root / MAKING) as making:
                _copy(source, manifest, making.folder, progress)
                fsync_tree(making.folder)
                _show(making.folder, root)
        finally:
            if not was_there and not any(root.iterdir()):
                root.rmdir()
    return manifest


def _require_empty(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root}: is no folder")
    there = sorted(path.name for path in root.iterdir()) if root.exists() else []
    if "STORE" in there:
        raise StoreError(f"storage folder {root}: holds a store; restore into a folder that is empty or does not exist")
    if others := [name for name in there if name != MAKING]:
        raise StoreError(
            f"storage folder {root}: is not empty ({', '.join(others[:3])}{' …' if len(others) > 3 else ''}); restore "
            "into a folder that is empty or does not exist"
        )


def _copy(source: Path, manifest: Manifest, target: Path, progress: Progress) -> None:
    done, total = 0, manifest.bytes
    for one in manifest.files:
        make_folder((target / one.path).parent)
        _copy_one(source, one, target)
        done += one.size
        progress(done, total)


def _copy_one(source: Path, one: Copied, folder: Path) -> None:
    digest, size = hashlib.sha256(), 0
    path = source / one.path
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise StoreError(f"{path}: is missing in the backup; nothing was restored") from None
    with file, new_file(folder / one.path) as copy:
        while block := file.read(BLOCK_BYTES):
            copy.write(block)
            digest.update(block)
            size += len(block)
        stat = os.fstat(file.fileno())
    if size != one.size or digest.hexdigest() != one.sha256:
        raise StoreError(f"{path}: is not what was backed up; nothing was restored")
    os.utime(folder / one.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _show(making: Path, root: Path) -> None:
    """Whoever finds `STORE` finds all that belongs to it."""
    for path in making.iterdir():
        if path.is_dir():
            path.rename(root / path.name)
    fsync_folder(root)
    try:
        os.link(making / "STORE", root / "STORE")
    except FileExistsError:
        raise StoreError(
            f"storage folder {root}: another process has made it a store meanwhile: end what runs there, empty it, and "
            "restore again"
        ) from None
    fsync_folder(root)
