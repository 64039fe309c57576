"""Live frames: what the aggregator tells the API the moment a commit is done.

Values are absolute: a frame replaces what was known of its series-windows, so reading one twice changes nothing.
"""

from typing import Final

import msgspec

from vibezen.metrics.errors import MetricsError
from vibezen.metrics.series import SeriesKey
from vibezen.metrics.window import Window

FIELD: Final = "frame"
"""The entry's only field."""
KEPT_SECONDS: Final = 300
"""How far back a client may resume; older frames are trimmed."""
SHOWN_SECONDS: Final = 1800
"""How old a window may be to concern the live feed; history coming in below that is found by asking for it."""
FRAME_VERSION: Final = b"\x01"


class Change(msgspec.Struct, array_like=True, gc=False):
    """The newest state of one series in the window that begins at `start` (Unix seconds)."""

    start: int
    series: SeriesKey
    window: Window


class Frame(msgspec.Struct, array_like=True):
    """One commit of one shard. `oldest` and `newest`: `ts` of the live events in it (those at most LIVE_AGE older than
    their entry), None when it held none."""

    shard: int
    width: int
    changes: list[Change]
    oldest: float | None = None
    newest: float | None = None


LIVE_AGE: Final = 120.0
"""Seconds between an event's time and its entry's up to which it counts as live; beyond, it is history coming in."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


def encode_frame(frame: Frame) -> bytes:
    return FRAME_VERSION + _encoder.encode(frame)


def decode_frame(data: bytes) -> Frame:
    """Raises MetricsError when the data is damaged or of a format this version does not know."""
    if data[:1] != FRAME_VERSION:
        raise MetricsError(f"a live frame has format {data[:1].hex()}, this version reads {FRAME_VERSION.hex()}")
    try:
        return _decoder.decode(memoryview(data)[1:])
    except msgspec.MsgspecError as error:
        raise MetricsError(f"a live frame is damaged: {error}") from None
