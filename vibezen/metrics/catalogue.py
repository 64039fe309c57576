"""The metrics we know by name: family, unit, kind, and which direction is better.

A metric that is not here is accepted as a distribution; `vibezen.yaml` can declare more (`metrics:` section).
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec


class MetricType(StrEnum):
    """Names of the built-in metrics, for `collector.record(MetricType.RESPONSE_TIME, …)`."""

    RESPONSE_TIME = "response_time"
    TIME_TO_FIRST_TOKEN = "time_to_first_token"  # noqa: S105 - a metric, not a secret
    ERROR_RATE = "error_rate"
    CACHE_HIT_RATE = "cache_hit_rate"
    API_CALLS = "api_calls"
    TOOL_CALLS = "tool_calls"
    THINKING_STEPS = "thinking_steps"
    CONFIDENCE_SCORE = "confidence_score"
    REVISION_COUNT = "revision_count"
    VIOLATIONS = "violations"
    ACCEPTANCE_RATE = "acceptance_rate"
    TOKENS = "tokens"
    COST = "cost"
    CONCURRENCY = "concurrency"
    QUEUE_DEPTH = "queue_depth"
    LINES_OF_CODE = "lines_of_code"
    COMMITS = "commits"
    PULL_REQUESTS = "pull_requests"
    ACTIVE_TIME = "active_time"
    SESSIONS = "sessions"
    EVENTS_DROPPED = "vibezen.events_dropped"


class Kind(StrEnum):
    """How a metric's samples combine."""

    DISTRIBUTION = "distribution"
    """Each value stands for itself; percentiles matter."""
    COUNTER = "counter"
    """The value is an increment; sums and rates matter."""
    GAUGE = "gauge"
    """The newest value per producer counts; the total is the sum over producers."""
    RATIO = "ratio"
    """Samples are 0 or 1 (or a rate); the mean matters."""


class Family(StrEnum):
    """The mission's three groups of metrics, switched by `collection:`."""

    SYSTEM = "system"
    QUALITY = "quality"
    PERFORMANCE = "performance"


class Better(StrEnum):
    """Which way a change is good news."""

    LOWER = "lower"
    HIGHER = "higher"
    NEITHER = "neither"


class MetricSpec(msgspec.Struct, frozen=True):
    """What is known of one metric. `unit` is the only unit its values are ever in."""

    family: Family = Family.SYSTEM
    unit: str = "1"
    kind: Kind = Kind.DISTRIBUTION
    better: Better = Better.NEITHER


_S, _Q, _P = Family.SYSTEM, Family.QUALITY, Family.PERFORMANCE
_DIST, _COUNT, _GAUGE, _RATIO = Kind.DISTRIBUTION, Kind.COUNTER, Kind.GAUGE, Kind.RATIO
_LOW, _HIGH, _NONE = Better.LOWER, Better.HIGHER, Better.NEITHER

BUILT_IN: Mapping[str, MetricSpec] = MappingProxyType(
    {
        str(metric): MetricSpec(family, unit, kind, better)
        for metric, family, unit, kind, better in (
            (MetricType.RESPONSE_TIME, _S, "ms", _DIST, _LOW),
            (MetricType.TIME_TO_FIRST_TOKEN, _S, "ms", _DIST, _LOW),
            (MetricType.ERROR_RATE, _S, "0-1", _RATIO, _LOW),
            (MetricType.CACHE_HIT_RATE, _S, "0-1", _RATIO, _HIGH),
            (MetricType.API_CALLS, _S, "1", _COUNT, _NONE),
            (MetricType.TOOL_CALLS, _S, "1", _COUNT, _NONE),
            (MetricType.THINKING_STEPS, _Q, "steps", _DIST, _NONE),
            (MetricType.CONFIDENCE_SCORE, _Q, "0-1", _DIST, _HIGH),
            (MetricType.REVISION_COUNT, _Q, "revisions", _DIST, _LOW),
            (MetricType.VIOLATIONS, _Q, "1", _COUNT, _LOW),
            (MetricType.ACCEPTANCE_RATE, _Q, "0-1", _RATIO, _HIGH),
            (MetricType.TOKENS, _P, "tokens", _COUNT, _LOW),
            (MetricType.COST, _P, "USD", _COUNT, _LOW),
            (MetricType.CONCURRENCY, _P, "1", _GAUGE, _LOW),
            (MetricType.QUEUE_DEPTH, _P, "1", _GAUGE, _LOW),
            (MetricType.LINES_OF_CODE, _P, "lines", _COUNT, _NONE),
            (MetricType.COMMITS, _P, "1", _COUNT, _NONE),
            (MetricType.PULL_REQUESTS, _P, "1", _COUNT, _NONE),
            (MetricType.ACTIVE_TIME, _P, "s", _COUNT, _NONE),
            (MetricType.SESSIONS, _P, "1", _COUNT, _NONE),
            (MetricType.EVENTS_DROPPED, _S, "1", _COUNT, _LOW),
        )
    }
)

UNKNOWN = MetricSpec()
"""What a metric nobody declared is taken for."""


class Catalogue:
    """The built-in metrics and those a configuration declares; the declared ones win."""

    def __init__(self, declared: Mapping[str, MetricSpec] | None = None) -> None:
        self._specs = {**BUILT_IN, **(declared or {})}

    def __getitem__(self, metric: str) -> MetricSpec:
        return self._specs.get(metric, UNKNOWN)

    def __contains__(self, metric: str) -> bool:
        return metric in self._specs

    def names(self) -> list[str]:
        return sorted(self._specs)

    def gauges(self) -> frozenset[str]:
        return frozenset(name for name, spec in self._specs.items() if spec.kind is Kind.GAUGE)
