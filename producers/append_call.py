"""One call of `append`, in memory and as a file of the spool.

A file is a magic word with the format's version, the CRC-32 of all that follows, and the call as MessagePack. It
appears whole by rename; the checksum is for disks that forget.
"""

import zlib
from collections.abc import Sequence
from typing import Final

import msgspec

from vibezen.metrics.producers.append import Batch

MAGIC: Final = b"vzspool1"
_CRC_BYTES: Final = 4
OVERHEAD: Final = 1024
"""Bytes of a file beside its events, rounded up: names and counters."""


class Damaged(ValueError):
    """The file is not what was written, or of a version we do not know."""


class Expired(Damaged):
    """Too old to be sent: the server may have forgotten the producer's number, and the call could double."""


class AppendCall(msgspec.Struct, frozen=True):
    """What a producer sends at once: repeated with the same numbers and batches it adds nothing.

    `first`: the number of the first event. `stats`: the producer's counters as JSON, as of when the call was made.
    `prefix`: of the keys it is for. `store`: the id of the store whose server it was meant for, where that was known.
    `made`: Unix seconds.
    """

    prefix: str
    producer: str
    shard: int
    first: int
    batches: Sequence[Batch]
    stats: bytes
    made: float
    store: str | None = None

    @property
    def events(self) -> int:
        return sum(batch.n for batch in self.batches)

    @property
    def size(self) -> int:
        """Bytes of its file, at most by a little."""
        return OVERHEAD + sum(len(batch.payload) for batch in self.batches)


def encode_call(call: AppendCall) -> bytes:
    body = msgspec.msgpack.encode(call)
    return b"".join((MAGIC, zlib.crc32(body).to_bytes(_CRC_BYTES, "big"), body))


def decode_call(data: bytes) -> AppendCall:
    """Raises Damaged."""
    start = len(MAGIC) + _CRC_BYTES
    body = memoryview(data)[start:]
    if data[: len(MAGIC)] != MAGIC or int.from_bytes(data[len(MAGIC) : start], "big") != zlib.crc32(body):
        raise Damaged("not a whole call")
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise Damaged(str(error)) from None


_decoder = msgspec.msgpack.Decoder(AppendCall)
