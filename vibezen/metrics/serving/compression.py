"""Answers compressed by gzip for clients that want it: text above a kilobyte, never a stream of events.

The ETag of a compressed answer is weak, since its bytes are others; `If-None-Match` is compared weakly everywhere, and
what a 304 says fits the answer that the client has: one with a strong tag would renew none that was compressed.
Starlette's own middleware knows no q-values and leaves the ETag as it is.
"""

import zlib
from typing import Final

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vibezen.metrics.serving.operation import EVENT_STREAM

MIN_SIZE: Final = 1024
"""Bytes below which headers and one packet outweigh what is saved."""
LEVEL: Final = 4
"""A history of 350 KB takes 5 ms and becomes 112 KB; level 6 takes 13 ms for 107 KB."""
IN_THREAD: Final = 64 * 1024
"""Bytes above which compressing takes a millisecond and more: that would hold up everybody's live feed."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_COMPRESSIBLE: Final = frozenset(
    {
        "application/javascript",
        "application/json",
        "application/manifest+json",
        "application/openmetrics-text",
        "application/vnd.google.protobuf",
        "application/x-ndjson",
        "image/svg+xml",
    }
)


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding (RFC 9110, 12.5.3) prefers gzip, or leaves it to us."""
    weights: dict[str, float] = {}
    for part in header.lower().split(","):
        coding, _, parameters = part.partition(";")
        weights[coding.strip()] = _weight(parameters)
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def _weight(parameters: str) -> float:
    name, _, text = parameters.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(text)
    except ValueError:
        return 0.0


class Compression:
    """A middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        wanted = accepts_gzip(headers.get("accept-encoding", "")) and scope["method"] != "HEAD"
        await self._app(scope, receive, _Answer(send, wanted=wanted))


class _Answer:
    """Sends one answer on, compressed where that is right. Its start waits for the first piece of its body."""

    def __init__(self, send: Send, *, wanted: bool) -> None:
        self._send, self._wanted = send, wanted
        self._start: Message | None = None
        self._packer: zlib._Compress | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] == 304:
                message = _of_either(message)
            elif _is_compressible(message):
                self._start = message
                return
        elif message["type"] == "http.response.body":
            start, self._start = self._start, None
            if start is not None:
                self._choose(MutableHeaders(raw=start["headers"]), message)
            if self._packer is not None:
                message = {**message, "body": await self._packed(message)}
            if start is not None:
                if self._packer is not None and not message.get("more_body"):
                    MutableHeaders(raw=start["headers"])["content-length"] = str(len(message["body"]))
                await self._send(start)
        await self._send(message)

    def _choose(self, headers: MutableHeaders, first: Message) -> None:
        """Whether to compress, told in the headers."""
        headers.add_vary_header("Accept-Encoding")
        if not self._wanted or not (first.get("more_body") or len(first.get("body", b"")) >= MIN_SIZE):
            return
        self._packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
        headers["content-encoding"] = "gzip"
        del headers["content-length"], headers["accept-ranges"]
        _weaken(headers)

    async def _packed(self, message: Message) -> bytes:
        body = message.get("body", b"")
        if len(body) >= IN_THREAD:
            return await to_thread.run_sync(self._pack, body, message.get("more_body", False))
        return self._pack(body, message.get("more_body", False))

    def _pack(self, body: bytes, more: bool) -> bytes:
        assert self._packer is not None
        return self._packer.compress(body) + (b"" if more else self._packer.flush())


def _weaken(headers: MutableHeaders) -> None:
    tag = headers.get("etag")
    if tag is not None and not tag.startswith("W/"):
        headers["etag"] = f"W/{tag}"


def _of_either(start: Message) -> Message:
    """A 304 for who has the answer compressed or as it is."""
    headers = MutableHeaders(raw=list(start.get("headers", ())))
    headers.add_vary_header("Accept-Encoding")
    _weaken(headers)
    return {**start, "headers": headers.raw}


def _is_compressible(start: Message) -> bool:
    """Whether it is a whole answer that compressing makes smaller."""
    start["headers"] = list(start.get("headers", ()))
    headers = Headers(raw=start["headers"])
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    compressible = kind in _COMPRESSIBLE or (kind.startswith("text/") and kind != EVENT_STREAM)
    return compressible and start["status"] not in (204, 206) and "content-encoding" not in headers
