"""Whether a number stands out from others: the modified z-score.

The distance from the median, in units of the median absolute deviation, which 1.4826 makes a standard deviation where
values are normal; where that is 0, because more than half of the values are equal, the mean absolute deviation times
1.2533 takes its place (B. Iglewicz and D. C. Hoaglin, "How to Detect and Handle Outliers", 1993, which also give 3.5 as
the threshold). Up to half of the other values may stand out themselves without hiding this one.
"""

from collections.abc import Sequence
from statistics import fmean, median
from typing import Final

import msgspec

THRESHOLD: Final = 3.5
MIN_VALUES: Final = 10
"""Values that a number must be compared with: fewer tell a median, but no usual distance from it."""
LEAST: Final = 0.02
"""The least that a standard deviation is taken for, as a share of the median: nobody acts on smaller changes."""
_OF_MEDIAN: Final = 1.4826
_OF_MEAN: Final = 1.2533


class Usual(msgspec.Struct, frozen=True):
    """What other values are like. `deviation`: a robust standard deviation, 0 where all of them are 0."""

    value: float
    deviation: float

    def score(self, value: float) -> float | None:
        """Deviations that a value lies above (or, negative, below) the usual one; None where there is no deviation to
        measure it by."""
        if value == self.value:
            return 0.0
        return (value - self.value) / self.deviation if self.deviation else None


def usual(values: Sequence[float]) -> Usual | None:
    """None where there are too few values to tell."""
    if len(values) < MIN_VALUES:
        return None
    middle = median(values)
    distances = [abs(value - middle) for value in values]
    deviation = _OF_MEDIAN * median(distances) or _OF_MEAN * fmean(distances)
    return Usual(middle, max(deviation, LEAST * abs(middle)))
