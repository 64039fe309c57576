"""What `record()` decides before an event enters the buffer: is it well formed, is it wanted, is it sampled."""

import random
from collections.abc import Callable
from typing import Final

from vibezen.metrics.catalogue import Family
from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.event import (
    WHOLE,
    Metadata,
    MetadataValue,
    check_metadata_size,
    check_metric,
    check_sample_rate,
    check_value,
)
from vibezen.metrics.settings import Settings

Route = tuple[str, float]
"""A metric's name as a plain string, and the share of its events to keep, or SWITCHED_OFF."""
Routes = dict[str, Route]

LEFT_OUT: Final = 0.0
SWITCHED_OFF: Final = -1.0
"""In place of a rate: not kept by sampling, or because the metric's family is switched off."""

_ROUTES_BOUND: Final = 10_000
_EXACT_INT: Final = 2**53
"""Integers up to here survive becoming a double."""


class Gate:
    """`system`, `quality` and `performance` remember what was decided; which of them is asked matters only for metrics
    the catalogue does not know."""

    def __init__(self, settings: Settings, chance: Callable[[], float] = random.random) -> None:
        self.system: Routes = {}
        self.quality: Routes = {}
        self.performance: Routes = {}
        self._catalogue = settings.catalogue()
        self._sampling = settings.sampling
        self._chance = chance
        self._on = {
            Family.SYSTEM: settings.collection.system_metrics,
            Family.QUALITY: settings.collection.learning_metrics,
            Family.PERFORMANCE: settings.collection.practice_metrics,
        }

    def decide(self, metric: str, routes: Routes) -> Route:
        """The route of a metric that is not in `routes`; InvalidEvent when it is no name."""
        check_metric(metric)
        name = str.__str__(metric)  # of an enumeration the text alone
        family = self._catalogue[name].family if name in self._catalogue else self._family_of(routes)
        route = name, self._sampling.get(name, WHOLE) if self._on[family] else SWITCHED_OFF
        if len(routes) < _ROUTES_BOUND:
            routes[name] = route
        return route

    def _family_of(self, routes: Routes) -> Family:
        if routes is self.quality:
            return Family.QUALITY
        return Family.PERFORMANCE if routes is self.performance else Family.SYSTEM

    def rate(self, keep: float, given: float | None) -> float:
        """The rate the event carries, LEFT_OUT or SWITCHED_OFF. `given`: the caller has sampled already."""
        if given is not None:
            check_sample_rate(given)
        if keep == SWITCHED_OFF:
            return SWITCHED_OFF
        if given is not None:
            return given
        return keep if self._chance() < keep else LEFT_OUT


def number(value: object) -> float:
    """A value that is not a plain finite float: checked, and turned into one where its type would not survive."""
    check_value(value)
    assert isinstance(value, int | float)
    return value if type(value) is int and -_EXACT_INT <= value <= _EXACT_INT else float(value)


def copied(metadata: Metadata) -> dict[str, MetadataValue]:
    """A copy, so that what the caller changes afterwards does not change the event."""
    try:
        check_metadata_size(metadata)
        return dict(metadata)
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidEvent):
            raise
        raise InvalidEvent("metadata", f"expected a mapping, not {type(metadata).__name__}") from None
