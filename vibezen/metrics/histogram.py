"""The exponential histogram: base-2 buckets that merge exactly.

The scheme is that of OpenTelemetry's exponential histogram and of Prometheus' native histograms: at scale s, bucket i
holds the values in (b**i, b**(i+1)] with b = 2**(2**-s). Any two histograms of one scale merge by adding counts.

At SCALE 5, b is 1.0219; a bucket is told by the harmonic middle of its bounds, which is at most
(b - 1) / (b + 1) = 1.08 % away from any value in it.
"""

import math
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final

SCALE: Final = 5
PER_OCTAVE: Final = 2**SCALE
_BASE: Final = 2.0 ** (1 / PER_OCTAVE)
MAX_RELATIVE_ERROR: Final = (_BASE - 1) / (_BASE + 1)

Weight = int | float
Buckets = dict[int, Weight]
"""Bucket index → number of samples in it (whole unless sampled)."""

_MANY = 50
"""From so many samples on, Counter's start-up pays."""
_log2, _ceil = math.log2, math.ceil


def bucket_of(magnitude: float) -> int:
    """The bucket of a value > 0."""
    return _ceil(_log2(magnitude) * PER_OCTAVE) - 1


def buckets_of(magnitudes: Iterable[float]) -> Buckets:
    """The buckets of many values > 0, each counting once."""
    per_octave = PER_OCTAVE
    buckets = [_ceil(_log2(v) * per_octave) - 1 for v in magnitudes]
    if len(buckets) >= _MANY:
        return dict(Counter(buckets))
    counted: Buckets = {}
    for bucket in buckets:
        counted[bucket] = counted.get(bucket, 0) + 1
    return counted


def value_of(bucket: int) -> float:
    """The value a bucket stands for: 2·low·high / (low + high)."""
    # From the lower bound: the upper one of the last bucket is beyond a double.
    return math.exp2(bucket / PER_OCTAVE) * (2.0 * _BASE / (1.0 + _BASE))


def bounds_of(bucket: int) -> tuple[float, float]:
    """The values (low, high] that a bucket holds."""
    low, following = math.exp2(bucket / PER_OCTAVE), (bucket + 1) / PER_OCTAVE
    return low, math.exp2(following) if following < sys.float_info.max_exp else sys.float_info.max


def add_buckets(into: Buckets, other: Mapping[int, Weight]) -> None:
    if not into:
        into.update(other)
        return
    for bucket, weight in other.items():
        into[bucket] = into.get(bucket, 0) + weight


def between(low: float, high: float, share: float) -> float:
    """The value at a share of the way from `low` to `high`."""
    # Not low + (high - low) * share: the difference of two doubles may be beyond a double.
    return min(max(low * (1 - share) + high * share, low), high)


class Distribution:
    """A histogram made ready for questions: ordered buckets with running weights.

    Quantiles interpolate between neighbouring samples (the "linear" or `quantile_cont` rule), so that they stay within
    MAX_RELATIVE_ERROR of what the samples themselves would give, as long as values have one sign.
    """

    def __init__(
        self, zero: Weight, positive: Mapping[int, Weight], negative: Mapping[int, Weight], low: float, high: float
    ) -> None:
        self._below, self._above = sorted(negative, reverse=True), sorted(positive)
        weights = [negative[bucket] for bucket in self._below]
        if zero:
            weights.append(zero)
        weights += [positive[bucket] for bucket in self._above]
        self._low, self._high = low, high
        self._running: Sequence[Weight] = list(accumulate(weights))

    def quantile(self, q: float) -> float | None:
        """The value below which a share `q` (0 to 1) of the samples lies; None without samples."""
        if not self._running:
            return None
        position = q * max(self._running[-1] - 1, 0)
        low = self._at(math.floor(position))
        share = position - math.floor(position)
        if share == 0:
            return low
        high = self._at(math.floor(position) + 1)
        return between(low, high, share)

    def _at(self, position: float) -> float:
        """The value of the sample number `position` (from 0) in ascending order."""
        place = min(bisect_right(self._running, position), len(self._running) - 1)
        if place < len(self._below):
            value = -value_of(self._below[place])
        elif place >= len(self._running) - len(self._above):
            value = value_of(self._above[place - len(self._running)])
        else:
            value = 0.0
        return min(max(value, self._low), self._high)
