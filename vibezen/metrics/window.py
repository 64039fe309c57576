"""What is kept of one series in one window [start, start + width): the arithmetic, and its stored form.

Windows merge exactly: over shards, over series, and from finer to coarser widths. Sums are compensated (Neumaier
1974), so the order in which batches arrive does not change them within 1e-9 relative.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from vibezen.metrics.errors import MetricsError
from vibezen.metrics.histogram import Buckets, Distribution, Weight, add_buckets, bounds_of, bucket_of, buckets_of

BLOB_VERSION: Final = b"\x01"

_isfinite = math.isfinite


class Window(msgspec.Struct, array_like=True, gc=False):
    """One series in one window. `count` is whole unless samples were weighted; `last` belongs to the newest `last_ts`.

    The sum is `total + carry`: two doubles that together lose nothing that matters. A sum that leaves the range of a
    double becomes infinite, and not a number once both infinities meet in it.
    """

    count: Weight = 0
    total: float = 0.0
    carry: float = 0.0
    min: float = math.inf
    max: float = -math.inf
    last: float = 0.0
    last_ts: float = -math.inf
    zero: Weight = 0
    positive: Buckets = msgspec.field(default_factory=dict)
    negative: Buckets = msgspec.field(default_factory=dict)

    @property
    def sum(self) -> float:
        return self.total + self.carry

    @property
    def mean(self) -> float | None:
        return self.sum / self.count if self.count else None

    def distribution(self) -> Distribution:
        return Distribution(self.zero, self.positive, self.negative, self.min, self.max)

    def buckets(self) -> list[tuple[float, float, Weight]]:
        """The histogram in ascending order: (low, high, samples between them); zeros lie between 0 and 0."""
        found = [
            (-high, -low, w) for b, w in sorted(self.negative.items(), reverse=True) for low, high in [bounds_of(b)]
        ]
        if self.zero:
            found.append((0.0, 0.0, self.zero))
        return found + [(*bounds_of(b), w) for b, w in sorted(self.positive.items())]

    def merge(self, other: "Window") -> None:
        """Take in the samples of `other`. On equal `last_ts` the other's `last` wins."""
        self.count += other.count
        self._add(other.total)
        if other.carry:
            self._add(other.carry)
        if other.min < self.min:
            self.min = other.min
        if other.max > self.max:
            self.max = other.max
        if other.last_ts >= self.last_ts:
            self.last, self.last_ts = other.last, other.last_ts
        self.zero += other.zero
        if other.positive:
            add_buckets(self.positive, other.positive)
        if other.negative:
            add_buckets(self.negative, other.negative)

    def copy(self) -> "Window":
        """One with the same samples that shares nothing with this one."""
        return msgspec.structs.replace(self, positive=self.positive.copy(), negative=self.negative.copy())

    def add(self, value: float, weight: Weight, ts: float) -> None:
        """One sample that stands for `weight` samples. Extremes are not scaled."""
        self.count += weight
        self._add(value * weight)
        self.min = min(self.min, value)
        self.max = max(self.max, value)
        if ts >= self.last_ts:
            self.last, self.last_ts = value, ts
        if value > 0:
            add_buckets(self.positive, {bucket_of(value): weight})
        elif value < 0:
            add_buckets(self.negative, {bucket_of(-value): weight})
        else:
            self.zero += weight

    def _add(self, value: float) -> None:
        total = self.total + value
        if not _isfinite(total):
            self.total, self.carry = total, 0.0
            return
        if abs(self.total) >= abs(value):
            self.carry += (self.total - total) + value
        else:
            self.carry += (value - total) + self.total
        self.total = total


def window_of(values: Sequence[float], times: Sequence[float]) -> Window:
    """The window of many samples of weight one; `times[i]` is the time of `values[i]`. At least one sample."""
    if len(values) == 1:
        window = Window()
        window.add(values[0], 1, times[0])
        return window
    last_ts = max(times)
    last = values[len(times) - 1 - times[::-1].index(last_ts)]
    low, high = min(values), max(values)
    if low > 0:
        positive, negative, zero = buckets_of(values), {}, 0
    else:
        above = [v for v in values if v > 0]
        below = [-v for v in values if v < 0]
        positive, negative, zero = buckets_of(above), buckets_of(below), len(values) - len(above) - len(below)
    total = sum_of(values)
    # What rounding took from the total; a later batch may cancel all but that.
    carry = sum_of([*values, -total]) if _isfinite(total) else 0.0
    return Window(len(values), total, carry, low, high, last, last_ts, zero, positive, negative)


def sum_of(values: Sequence[float]) -> float:
    """The sum, correctly rounded; infinite where it leaves the range of a double."""
    try:
        return math.fsum(values)
    except OverflowError:
        return sum(values)


def merged(windows: Iterable[Window]) -> Window:
    """A new window with the samples of all."""
    result = Window()
    for window in windows:
        result.merge(window)
    return result


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Window)


def to_blob(window: Window) -> bytes:
    """The stored form: a version byte and MessagePack."""
    return BLOB_VERSION + _encoder.encode(window)


def from_blob(blob: bytes) -> Window:
    """Raises MetricsError when the blob is damaged or of a format this version does not know."""
    if blob[:1] != BLOB_VERSION:
        raise MetricsError(f"a stored window has format {blob[:1].hex()}, this version reads {BLOB_VERSION.hex()}")
    try:
        return _decoder.decode(memoryview(blob)[1:])
    except msgspec.MsgspecError as error:
        raise MetricsError(f"a stored window is damaged: {error}") from None
