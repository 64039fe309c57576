"""Checks of the storage folder."""

import fcntl
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vibezen.metrics.doctor.finding import Finding, fail, ok, size, unknown, warn
from vibezen.metrics.errors import ConfigError, ExternalAway, MetricsError, MissingExtra, StoreError
from vibezen.metrics.external import External
from vibezen.metrics.layout import FOLDER_MODE, Layout, fsync_folder

LITTLE: Final = 1 << 30
"""Bytes free from which on one should look after it."""
TOO_LITTLE: Final = 100 << 20
NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "fuse.sshfs"}
    | {"fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.glusterfs", "virtiofs", "vboxsf", "prl_fs"}
)
"""File systems that are another machine's, by the kernel's names."""


def checks(root: Path, known: bytes | None, *, asked: bool) -> list[Finding]:
    """`known`: the id of the store that the server's events belong to; `asked`: whether it could be asked."""
    try:
        found = root.stat()
    except FileNotFoundError:
        advice = "nothing, if this is a first start: it is made then; else see storage_dir"
        return [warn("storage folder", f"{root} is not there", advice)]
    except OSError as error:
        return [fail("storage folder", f"{root}: {_reason(error)}", "let this user read and write it")]
    if not stat.S_ISDIR(found.st_mode):
        return [fail("storage folder", f"{root} is no folder", "set storage_dir to a folder")]
    return [
        folder(root, found.st_mode),
        free_space(root),
        identity(root, known, asked=asked),
        file_system(root),
        compacted(root),
    ]


def folder(root: Path, mode: int) -> Finding:
    """Writable, private, and on a file system that does what we rely on. Tries it, in a folder that is gone after."""
    try:
        with _place_to_try(root) as place:
            lacking = _lacking(place)
    except OSError as error:
        return fail("storage folder", f"{root}: {_reason(error)}", "let this user read and write it")
    if lacking:
        advice = "use a local POSIX file system: without these, a crash may lose or double events"
        return fail("storage folder", f"{root}: fails at {', '.join(lacking)}", advice)
    others = stat.S_IMODE(mode) & ~FOLDER_MODE
    if others:
        seen = f"{root}: mode {stat.S_IMODE(mode):04o}, open to others"
        return warn("storage folder", seen, f"chmod 700 {root}: events may hold what users typed")
    return ok("storage folder", f"{root}: writable, private, with locks, links and synced folders")


@contextmanager
def _place_to_try(root: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=root) as place:
        yield Path(place)


def _lacking(place: Path) -> list[str]:
    one, two = place / "one", place / "two"
    one.write_bytes(b"x")
    lacking = []
    for what, works in (("flock", _locks), ("link", _links), ("fsync of a folder", _syncs)):
        try:
            works(one, two)
        except OSError:
            lacking.append(what)
    return lacking


def _locks(one: Path, two: Path) -> None:
    """A second lock must be refused while the first is held."""
    with one.open("rb") as first, one.open("rb") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
    raise OSError("two locks at once")


def _links(one: Path, two: Path) -> None:
    os.link(one, two)
    try:
        os.link(one, two)
    except FileExistsError:
        return
    raise OSError("a link over a file")


def _syncs(one: Path, two: Path) -> None:
    fsync_folder(one.parent)


def free_space(root: Path) -> Finding:
    disk = os.statvfs(root)
    free = disk.f_bavail * disk.f_frsize
    if free < TOO_LITTLE:
        return fail("free space", size(free), "make room: on a full disk archiving stops until there is some")
    if free < LITTLE:
        return warn("free space", size(free), "make room, or let retention_days be fewer")
    return ok("free space", size(free))


def identity(root: Path, known: bytes | None, *, asked: bool) -> Finding:
    """One server and one folder belong together."""
    try:
        ours = Layout(root).read().id
    except StoreError as error:
        if known is None:
            return ok("store", "not a store yet; made at first start")
        advice = "set storage_dir to the folder of that store, or use another redis.prefix"
        return fail("store", f"{error}; the server's events belong to store {known.decode(errors='replace')}", advice)
    if not asked:
        return unknown("store", f"store {ours}; the server could not be asked for its own")
    if known is None:
        return ok("store", f"store {ours}; the server knows none yet")
    if known.decode(errors="replace") != ours:
        seen = f"store {ours}, but the server's events belong to store {known.decode(errors='replace')}"
        return fail("store", seen, "use that store's folder, or another redis.prefix")
    return ok("store", f"store {ours}, as the server says")


def external(url: str | None) -> Finding:
    """Whether closed days can go where they should. Tries it, with a file that is gone after."""
    if url is None:
        return ok("external storage", "none is set; closed days stay here")
    try:
        External(url).check()
    except MissingExtra as error:
        return fail("external storage", str(error), "install it where the compactor and the API run")
    except (ConfigError, ExternalAway) as error:
        advice = "let this user read and write there; credentials and endpoint come from the environment"
        return fail("external storage", str(error).removeprefix("external storage: "), advice)
    return ok("external storage", f"{url}: files can be written, read and removed")


def compacted(root: Path) -> Finding:
    """Whether the parts can be read that stand for segments: by their footers, `verify` reads them through."""
    from vibezen.metrics.verify.parts import Compacted

    try:
        found = Compacted(Layout(root))
    except (MetricsError, OSError) as error:
        return unknown("parts", str(error))
    if found.unreadable:
        more = f"; and {len(found.unreadable) - 1} more" if len(found.unreadable) > 1 else ""
        return fail(
            "parts", f"{found.unreadable[0]}{more}", "bring it back from a backup; see `vibezen-metrics verify`"
        )
    events = sum(part.footer.events for part in found.parts)
    return ok("parts", f"{len(found.parts)}, with {events} events" if found.parts else "none yet")


def file_system(root: Path, mounts: Path = Path("/proc/self/mountinfo")) -> Finding:
    """Locks of network file systems are often weaker than they say."""
    if sys.platform != "linux":
        return unknown("file system", "its kind is only known on Linux")
    try:
        kind = _kind_of(root.resolve(), mounts.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        return unknown("file system", _reason(error))
    if kind in NETWORK:
        advice = "prefer a local disk; all archivers and readers must share one file system whose locks hold"
        return warn("file system", f"{kind}, of another machine", advice)
    return ok("file system", kind)


def _kind_of(path: Path, mountinfo: str) -> str:
    """The kind of the mount that `path` lies in: the longest mount point above it, the last of equal ones."""
    best, kind = -1, "unknown"
    for line in mountinfo.splitlines():
        fields, _, after = line.partition(" - ")
        point = Path(fields.split(" ")[4].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split(" ")[0]
    return kind


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
