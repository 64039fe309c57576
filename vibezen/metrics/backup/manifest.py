"""What a backup says of itself: which files it has, and how each can be told to be whole."""

from pathlib import Path
from typing import Final

import msgspec

from vibezen.metrics.batch import EntryId
from vibezen.metrics.errors import StoreError

MANIFEST: Final = "BACKUP"
"""Its name in the backup's folder. It is written last: a folder without it is no backup."""
FORMAT: Final = 1


class Copied(msgspec.Struct, array_like=True, frozen=True):
    """One file: where it lies below the folder, its bytes, and their SHA-256 in hexadecimal digits."""

    path: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """`made`: Unix seconds at which the store was looked at. `positions`: how far each shard was archived then.
    `events`: those that can be read; `outside`: those of them that lie in external storage, which has no copy here.
    `damaged`: files that were not as the store's own records say, each with what is wrong; they are copied as they
    are.
    """

    store: str
    made: float
    version: str
    events: int
    outside: int
    positions: dict[int, EntryId]
    files: list[Copied]
    damaged: list[str] = []
    format: int = FORMAT

    @property
    def bytes(self) -> int:
        return sum(one.size for one in self.files)


def read_manifest(folder: Path) -> Manifest:
    """Raises StoreError in one line for a folder that is no backup, or a newer one than this version knows."""
    path = folder / MANIFEST
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{folder}: no backup (no file {MANIFEST}): it does not exist, or was not finished") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(f"{path}: cannot be read as a backup's manifest: {error}") from None
    if found.format > FORMAT:
        raise StoreError(f"{path}: format {found.format} is newer than this version knows ({FORMAT})")
    for one in found.files:
        where = Path(one.path)
        if where.is_absolute() or ".." in where.parts or where == Path(MANIFEST):
            raise StoreError(f"{path}: names {one.path!r}, which no backup of ours has")
    return found
