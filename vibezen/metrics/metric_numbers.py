"""What is told of one metric over a range: its numbers, what it is, and how it changed."""

from collections.abc import Mapping
from typing import Final

import msgspec

from vibezen.metrics.catalogue import Better, MetricSpec
from vibezen.metrics.window_reader import Number

SHOWN: Final = ("count", "rate", "sum", "mean", "min", "max", "last", "p50", "p95", "p99")
"""The aggregates that are told of every metric."""


class MetricNumbers(msgspec.Struct):
    """`value` is the one number that stands for the metric's kind, `previous` the same of the range before, and
    `change` is value / previous - 1. `rate` is per second: the increase of a counter,
    samples of anything else."""

    family: str
    unit: str
    kind: str
    better: str | None
    value: Number
    previous: Number
    change: Number
    count: Number
    rate: Number
    sum: Number
    mean: Number
    min: Number
    max: Number
    last: Number
    p50: Number
    p95: Number
    p99: Number


def told(spec: MetricSpec, value: Number, previous: Number, shown: Mapping[str, Number]) -> MetricNumbers:
    """`shown`: the aggregates of SHOWN."""
    return MetricNumbers(
        family=spec.family,
        unit=spec.unit,
        kind=spec.kind,
        better=None if spec.better is Better.NEITHER else spec.better,
        value=value,
        previous=previous,
        change=value / previous - 1 if value is not None and previous else None,
        **shown,
    )
