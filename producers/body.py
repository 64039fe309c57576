"""The body of a request: read within its limits, unpacked, and counted against what all bodies may hold together."""

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from starlette.requests import ClientDisconnect, Request

from vibezen.metrics.event import MAX_BATCH_BYTES
from vibezen.metrics.serving.errors import ApiError, Away

MAX_BODY: Final = MAX_BATCH_BYTES
"""Bytes, packed and unpacked alike."""
READ_SECONDS: Final = 30.0
"""Until a body that does not arrive is given up."""
ROOM: Final = 64 * 1024 * 1024
"""Bytes that all bodies in this process may hold, those still arriving and those waiting for Redis."""
GZIP: Final = frozenset({"gzip", "x-gzip"})
_GZIP_WINDOW: Final = 31
"""zlib's word for gzip, and nothing else."""


class Held:
    """What one body holds of a room."""

    def __init__(self, room: "Room") -> None:
        self._room = room
        self.size = 0

    def add(self, size: int) -> None:
        """Raises Away when there is no room for so many bytes more."""
        if self._room.free < size:
            raise Away("too many events wait for the server")
        self._room.free -= size
        self.size += size


class Room:
    """A bound for memory: beyond it, requests are refused rather than kept waiting. `free`: bytes."""

    def __init__(self, size: int = ROOM) -> None:
        self.free = size

    @contextmanager
    def hold(self) -> Iterator[Held]:
        held = Held(self)
        try:
            yield held
        finally:
            self.free += held.size


async def read_body(request: Request, held: Held) -> bytes:
    """The body, unpacked. Raises ApiError: 400 cut short or not gzip, 408, 413, 415 another encoding, 503 no room."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in GZIP and encoding != "identity":
        raise ApiError(415, "expected gzip, or no encoding", field="Content-Encoding")
    if request.headers.get("content-type", "").strip().lower().startswith("multipart/"):
        raise ApiError(415, "expected the events themselves, not a form", field="Content-Type")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > MAX_BODY:
        raise _too_large()
    try:
        async with asyncio.timeout(READ_SECONDS):
            body = await _read(request, held)
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {READ_SECONDS:g} s") from None
    except ClientDisconnect:
        raise ApiError(400, "the body ended early") from None
    if encoding in GZIP:
        body = unpack(body)
        held.add(len(body))
    return body


async def _read(request: Request, held: Held) -> bytes:
    chunks = []
    async for chunk in request.stream():
        held.add(len(chunk))
        if held.size > MAX_BODY:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def unpack(packed: bytes, limit: int = MAX_BODY) -> bytes:
    """Gzip undone, and stopped at the limit, whatever the rest would grow to.

    One member only: many tiny ones are cheap to send and dear to unpack.
    """
    stream = zlib.decompressobj(_GZIP_WINDOW)
    try:
        body = stream.decompress(packed, limit + 1)
    except zlib.error:
        raise ApiError(400, "the body is not gzip", field="Content-Encoding") from None
    if len(body) > limit:
        raise _too_large()
    if not stream.eof or stream.unused_data:
        raise ApiError(400, "the body is not one whole gzip stream", field="Content-Encoding")
    return body


def _too_large() -> ApiError:
    return ApiError(413, f"at most {MAX_BODY} bytes are taken, packed and unpacked")
