"""External storage: files by URL, through fsspec. `file://` is built in; `s3://` is the extra `s3`.

A file has a name that tells its content, and is never changed. Nothing is trusted that was not read back. Credentials
and endpoints come from the environment, as the storage's own tools take them; no message shows them.
"""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from vibezen.metrics.errors import ConfigError, ExternalAway, MetricsError, MissingExtra
from vibezen.metrics.layout import FILE_MODE, FOLDER_MODE, fsync_folder, publish_copy
from vibezen.metrics.parts import Moved

BLOCK: Final = 8 << 20
"""Bytes of one request while a file is read or written: memory does not grow with its size."""
_SECRETS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_EXTRAS: Final = {"s3": "s3"}
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "s3": {
        "use_listings_cache": False,
        # A question waits for the answer, and the compactor comes back anyway.
        "config_kwargs": {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}},
    }
}
_PUTTING: Final[dict[str, dict[str, Any]]] = {"s3": {"chunksize": BLOCK, "max_concurrency": 2}}
"""Else s3fs holds up to 100 MB, or ten blocks of 50 MB, at a time."""
URL_RULE: Final = "file:///folder or s3://bucket/folder, without credentials: those come from the environment"


class Folder(Protocol):
    """What is asked of a storage. Names are relative to its URL. Raises OSError, or errors of its own."""

    def size(self, url: str) -> int | None:
        """None when there is no such file."""

    def put(self, source: Path, url: str) -> None: ...

    def open(self, url: str) -> IO[bytes]: ...

    def remove(self, url: str) -> None: ...


def is_url(url: str) -> bool:
    """Whether this can be the URL of a storage: with a scheme, a place, and no credentials."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if "::" in url or "@" in parts.netloc or parts.query or parts.fragment:
        return False
    if parts.scheme == "file":
        return not parts.netloc and len(parts.path) > 1
    return parts.scheme.isalnum() and bool(parts.netloc)


def local_path(url: str) -> Path | None:
    """The path of a `file://` URL; None for any other."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


class External:
    """The storage below one URL, used from any thread. Building it connects to nothing.

    Every method raises ExternalAway when the storage cannot do now what it should, MissingExtra without its client.
    """

    def __init__(self, url: str) -> None:
        if not is_url(url):
            raise ConfigError(f"external.url: expected {URL_RULE}")
        self.url = url.rstrip("/")

    def url_of(self, folder: str, generation: int, sha256: str) -> str:
        """Where a part of this folder and content lies."""
        return f"{self.url}/{folder}/part-{generation}-{sha256[:16]}.parquet"

    def upload(self, source: Path, folder: str, generation: int) -> Moved:
        """Put a file there, and read it back. What an earlier attempt has brought there is used."""
        with source.open("rb") as file:
            sha256, size = digest(iter(lambda: file.read(BLOCK), b""))
        moved = Moved(self.url_of(folder, generation, sha256), size, sha256)
        with self._asked() as storage:
            if storage.size(moved.url) == size and _is_there(storage, moved):
                return moved
            storage.put(source, moved.url)
            if not _is_there(storage, moved):
                raise ExternalAway(f"external storage: {moved.url}: what was read back is not what was written")
        return moved

    def check(self) -> None:
        """See that files can be written, read and removed there."""
        url = f"{self.url}/.vibezen-{uuid.uuid4().hex[:8]}"
        with self._asked() as storage, _one_byte() as source:
            storage.put(source, url)
            try:
                if storage.size(url) != 1:
                    raise ExternalAway(f"external storage: {self.url}: what is written there cannot be read")
            finally:
                storage.remove(url)

    @contextmanager
    def _asked(self) -> Iterator[Folder]:
        base = local_path(self.url)
        if base is not None and not base.is_dir():  # which making it would hide: a share that is not mounted
            raise ExternalAway(f"external storage: {self.url}: no such folder; make it, or mount it")
        with _in_our_words(self.url):
            yield _storage(self.url)


def fetch(moved: Moved, write: Callable[[bytes], object]) -> None:
    """Hand the blocks of a file to `write`; in order only when this returns. Raises ExternalAway, MissingExtra."""
    with _in_our_words(moved.url), _storage(moved.url).open(moved.url) as file:

        def blocks() -> Iterator[bytes]:
            while block := file.read(BLOCK):
                write(block)
                yield block

        if digest(blocks()) != (moved.sha256, moved.size):
            raise ExternalAway(f"external storage: {moved.url}: is not what was moved there")


def digest(blocks: Iterator[bytes]) -> tuple[str, int]:
    """SHA-256 in hexadecimal digits, and the number of bytes."""
    seen, size = hashlib.sha256(), 0
    for block in blocks:
        seen.update(block)
        size += len(block)
    return seen.hexdigest(), size


def _is_there(storage: Folder, moved: Moved) -> bool:
    with storage.open(moved.url) as file:
        return digest(iter(lambda: file.read(BLOCK), b"")) == (moved.sha256, moved.size)


@contextmanager
def _one_byte() -> Iterator[Path]:
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile(prefix="vibezen-metrics-") as file:
        file.write(b"\n")
        file.flush()
        yield Path(file.name)


@contextmanager
def _in_our_words(url: str) -> Iterator[None]:
    """Storages raise whatever their clients do."""
    try:
        yield
    except MetricsError:
        raise
    except Exception as error:
        raise ExternalAway(f"external storage: {url}: {_said(error)}") from None


def _said(error: Exception) -> str:
    """One line of an error, with nothing in it that is secret."""
    text = (str(error) or type(error).__name__).partition("\n")[0]
    for name in _SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text[:300]


def _storage(url: str) -> Folder:
    scheme = urlsplit(url).scheme
    return _Local() if scheme == "file" else _Remote(scheme)


class _Local:
    """`file://`: a folder of this machine, a network share say. What `put` has done is durable."""

    def size(self, url: str) -> int | None:
        with suppress(FileNotFoundError):
            return self._path(url).stat().st_size
        return None

    def put(self, source: Path, url: str) -> None:
        target = self._path(url)
        target.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        publish_copy(source, target, source.stat().st_size)
        target.chmod(FILE_MODE)
        fsync_folder(target.parent.parent)

    def open(self, url: str) -> IO[bytes]:
        return self._path(url).open("rb")

    def remove(self, url: str) -> None:
        self._path(url).unlink(missing_ok=True)

    def _path(self, url: str) -> Path:
        path = local_path(url)
        assert path is not None
        return path


class _Remote:
    """Anything fsspec knows."""

    def __init__(self, scheme: str) -> None:
        self._system = _filesystem(scheme)
        self._putting = _PUTTING.get(scheme, {})

    def size(self, url: str) -> int | None:
        self._system.invalidate_cache()
        try:
            return int(self._system.info(url)["size"])
        except FileNotFoundError:
            return None

    def put(self, source: Path, url: str) -> None:
        self._system.put_file(str(source), url, **self._putting)

    def open(self, url: str) -> IO[bytes]:
        file: IO[bytes] = self._system.open(url, "rb", block_size=BLOCK, cache_type="readahead")
        return file

    def remove(self, url: str) -> None:
        self._system.rm_file(url)


def _filesystem(scheme: str) -> Any:
    """Raises MissingExtra, ConfigError for a scheme that nobody knows."""
    extra = _EXTRAS.get(scheme, "server")
    try:
        import fsspec

        make: Callable[..., Any] = fsspec.filesystem
        return make(scheme, **_OPTIONS.get(scheme, {}))
    except ImportError:
        raise MissingExtra(extra, f"external storage at {scheme}://") from None
    except ValueError:
        raise ConfigError(f"external.url: nothing is known of {scheme}://: expected {URL_RULE}") from None
