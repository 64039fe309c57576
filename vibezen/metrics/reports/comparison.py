"""Whether a number got better or worse, or whether nobody can tell.

Two periods of the same work never give the same numbers. A change is told only when it is larger than what chance
makes of so many samples, estimated from what is known of their distribution:

* a mean is off by s/√n; s is the standard deviation of the samples, integrated over the quantile function that is
  linear between the percentiles known;
* a sum, like a count, also varies with how many samples there happen to be (compound Poisson): √(n·(s² + mean²));
* a quantile q is off by √(q(1-q)/n) in rank, which in value is that times the slope of the quantile function around it.

Work comes in bursts rather than evenly, so real noise is larger than that: a verdict is a hint and no proof.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from vibezen.metrics.catalogue import Better, Kind
from vibezen.metrics.window_reader import QUANTILES
from vibezen.metrics.window_reader import Number as Value

MIN_SAMPLES: Final = 20
"""Samples that each period must have: fewer make a mean that swings by a fifth or more from one day to the next."""
MIN_BEYOND: Final = 5
"""Samples that must lie beyond a percentile on either side, or it is the value of one or two events: 100 samples for
p95, 500 for p99."""
UNCHANGED: Final = 0.02
"""A change of at most 2 % is none, however many samples there are: nobody acts on it."""
ERRORS: Final = 2.0
"""Standard errors that a difference must exceed: in one case of twenty chance alone exceeds them."""


class Verdict(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    UNCHANGED = "unchanged"
    HIGHER = "higher"
    """… of a number that is good neither way."""
    LOWER = "lower"
    TOO_LITTLE_DATA = "too little data"


class Measured(msgspec.Struct, frozen=True):
    """A number, how many samples it stands on, and how far chance may have moved it (one standard error; None where
    nobody can tell, as of a maximum)."""

    value: Value
    samples: Value
    error: float | None = None
    enough: bool = False

    def scaled(self, factor: float) -> "Measured":
        """`factor` times the value and its error."""
        value = None if self.value is None else self.value * factor
        return msgspec.structs.replace(self, value=value, error=None if self.error is None else self.error * factor)


class Comparison(msgspec.Struct, frozen=True):
    """`absolute` is value - previous, `relative` that as a share of the previous value."""

    previous: Value
    absolute: Value
    relative: Value
    verdict: Verdict


def compare(current: Measured, previous: Measured, better: Better) -> Comparison:
    if current.value is None or previous.value is None:
        return Comparison(previous.value, None, None, Verdict.TOO_LITTLE_DATA)
    absolute = current.value - previous.value
    if not math.isfinite(absolute):  # sums of what no counter counts
        return Comparison(previous.value, None, None, Verdict.TOO_LITTLE_DATA)
    relative = absolute / abs(previous.value) if previous.value else None
    return Comparison(previous.value, absolute, relative, _verdict(current, previous, absolute, relative, better))


def _verdict(current: Measured, previous: Measured, absolute: float, relative: float | None, better: Better) -> Verdict:
    if not (current.enough and previous.enough):
        return Verdict.TOO_LITTLE_DATA
    noise = ERRORS * math.hypot(current.error or 0.0, previous.error or 0.0)
    if abs(absolute) <= noise or (relative is not None and abs(relative) <= UNCHANGED) or not absolute:
        return Verdict.UNCHANGED
    return verdict_of(absolute > 0, better)


def verdict_of(is_higher: bool, better: Better) -> Verdict:
    """Of a difference that counts."""
    if better is Better.NEITHER:
        return Verdict.HIGHER if is_higher else Verdict.LOWER
    return Verdict.BETTER if is_higher is (better is Better.HIGHER) else Verdict.WORSE


def measured(agg: str, told: Mapping[str, Value], kind: Kind) -> Measured:
    """The number `agg` of a metric of this kind, judged by whatever else is told of the same samples."""
    value, samples = told[agg], told["count"] or 0
    if value is None or not {"mean", "min", "max", *QUANTILES} <= told.keys():
        return Measured(value, samples)
    return Measured(value, samples, _error(agg, told, samples, kind), _enough(agg, samples))


def divided(over: Measured, under: Measured) -> Measured:
    """One number per another; their relative errors add as those of independent ones."""
    if over.value is None or not under.value:
        return Measured(None, over.samples)
    value = over.value / under.value
    error = None
    if over.error is not None and under.error is not None:
        error = math.hypot(over.error / under.value, value * under.error / under.value)
    return Measured(value, over.samples, error, over.enough and under.enough)


def _enough(agg: str, samples: float) -> bool:
    share = QUANTILES.get(agg)
    beyond = math.inf if share is None else samples * min(share, 1 - share)
    return samples >= MIN_SAMPLES and beyond >= MIN_BEYOND - 1e-9


def _error(agg: str, told: Mapping[str, Value], samples: float, kind: Kind) -> float | None:
    mean = told["mean"] or 0.0
    if agg == "count" or (agg == "rate" and kind is not Kind.COUNTER):
        return abs(told[agg] or 0.0) / math.sqrt(samples)
    if agg in QUANTILES:
        share = QUANTILES[agg]
        return math.sqrt(share * (1 - share) / samples) * _slope(share, _knots(told))
    if agg not in ("mean", "sum", "rate"):
        return None
    spread = deviation(_knots(told), mean)
    if agg == "mean":
        return spread / math.sqrt(samples)
    of_sum = math.sqrt(samples) * math.hypot(spread, mean)
    return of_sum if agg == "sum" else of_sum * abs((told["rate"] or 0.0) / (samples * mean)) if mean else None


Knots = Sequence[tuple[float, float]]
"""(share, value) of the quantile function, ascending."""


def _knots(told: Mapping[str, Value]) -> Knots:
    known = {0.0: told["min"], **{share: told[name] for name, share in QUANTILES.items()}, 1.0: told["max"]}
    return [(share, float(value)) for share, value in known.items() if value is not None]


def deviation(knots: Knots, mean: float) -> float:
    """The standard deviation around `mean` of what has this quantile function, linear between the knots."""
    low, high = knots[0][1], knots[-1][1]
    if low >= 0 and high <= 1 and {value for _, value in knots} <= {0.0, 1.0}:
        return math.sqrt(max(0.0, mean * (1 - mean)))  # samples that are 0 or 1: their mean says all
    # In units of the farthest knot: what is squared must not leave the range of numbers.
    far = max(abs(low - mean), abs(high - mean))
    if not 0 < far < math.inf:
        return far
    total = 0.0
    for (since, one), (until, other) in itertools.pairwise(knots):
        a, b = (one - mean) / far, (other - mean) / far
        total += (until - since) * (a * a + a * b + b * b) / 3
    return far * math.sqrt(total)


def _slope(share: float, knots: Knots) -> float:
    """How fast values rise around a quantile: the steeper of the two sides."""
    slopes = [
        (other - one) / (until - since)
        for (since, one), (until, other) in itertools.pairwise(knots)
        if since <= share <= until and until > since
    ]
    return max(slopes, default=0.0)
