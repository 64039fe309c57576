"""How fast a series of numbers rises or falls, and whether chance alone could make it so.

The slope is that of Theil and Sen: the median of the slopes between all pairs of points (P. K. Sen, "Estimates of the
Regression Coefficient Based on Kendall's Tau", Journal of the American Statistical Association 63, 1968). Points need
not be evenly spaced, and up to 29 % of them may be anything at all. Whether there is a trend is told by the test of
Mann and Kendall with the normal approximation, corrected for ties; the interval is Sen's (R. O. Gilbert, "Statistical
Methods for Environmental Pollution Monitoring", 1987, sections 16.4 and 17.3).

The test takes points for independent. Work that comes in bursts makes neighbours alike, so that the confidence is a
little too high: it is a hint and no proof.
"""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Final

import msgspec

MIN_POINTS: Final = 8
"""Points that a trend needs: below, the normal approximation of the test is poor."""
WIDE: Final = 1.959964
"""Standard errors that 95 % of a normal distribution lie within."""

Points = Sequence[tuple[float, float]]
"""(Unix seconds, value), in order of time."""


class Slope(msgspec.Struct, frozen=True):
    """`per_second`: the change of the value, with 95 % probability between `low` and `high`. `confidence`: 1 - p, the
    probability that chance alone makes a weaker trend. `first`, `last`: the values of the line at both ends."""

    per_second: float
    low: float
    high: float
    confidence: float
    first: float
    last: float


def pairs(points: int) -> int:
    """How many slopes must be computed for so many points."""
    return points * (points - 1) // 2


def slope_of(points: Points) -> Slope | None:
    """None where there are too few points to tell."""
    if len(points) < MIN_POINTS:
        return None
    slopes = sorted(
        (value - before) / (ts - since) for index, (ts, value) in enumerate(points) for since, before in points[:index]
    )
    variance = _variance([value for _, value in points])
    middle = _middle(slopes)
    reach = WIDE * math.sqrt(variance)
    at = max(0, math.floor((len(slopes) - reach) / 2) - 1)
    low, high = slopes[at], slopes[len(slopes) - 1 - at]
    begin = points[0][0]
    level = median(value - middle * (ts - begin) for ts, value in points)
    score = sum(slope > 0 for slope in slopes) - sum(slope < 0 for slope in slopes)
    return Slope(
        per_second=middle,
        low=low,
        high=high,
        confidence=_confidence(score, variance),
        first=level,
        last=level + middle * (points[-1][0] - begin),
    )


def _middle(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _variance(values: Sequence[float]) -> float:
    """Of Kendall's score where there is no trend."""
    ties = sum(n * (n - 1) * (2 * n + 5) for n in Counter(values).values())
    n = len(values)
    return (n * (n - 1) * (2 * n + 5) - ties) / 18


def _confidence(score: int, variance: float) -> float:
    if not score or not variance:
        return 0.0
    return math.erf((abs(score) - 1) / math.sqrt(2 * variance))
