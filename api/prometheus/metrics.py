"""Every metric now, as families: the very numbers of `/api/metrics/realtime`, and the windows behind them.

All are gauges of a window that moves on. A counter would have to grow for as long as Prometheus looks, and be the same
in every process of the API: windows are neither.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.api.realtime import Realtime
from vibezen.metrics.catalogue import Catalogue, Kind
from vibezen.metrics.exposition.family import PREFIX, Family, Histogram, Sample, gauge, info, known, name_of
from vibezen.metrics.metric_numbers import MetricNumbers
from vibezen.metrics.window import Window

MAX_METRICS: Final = 500
"""Metrics that are told; names come from users, and each is a dozen series to Prometheus."""
HISTOGRAM: Final = "distribution"


class _Told(NamedTuple):
    """`ending`: of the name; `field`: of MetricNumbers; `what`: what it is, before the unit."""

    ending: str
    field: str
    what: str


_SAMPLES: Final = _Told("samples", "count", "samples")
_TOLD: Final[Mapping[str, tuple[_Told, ...]]] = {
    Kind.DISTRIBUTION: (
        *(_Told(name, name, name) for name in ("p50", "p95", "p99", "mean", "min", "max")),
        _SAMPLES,
    ),
    Kind.COUNTER: (_Told("increase", "sum", "increase"), _Told("rate", "rate", "increase per second")),
    Kind.RATIO: (_Told("mean", "mean", "mean"), _SAMPLES),
    Kind.GAUGE: (_Told("last", "last", "newest value, summed over producers"),),
}


class Metrics(msgspec.Struct, frozen=True):
    families: list[Family]
    histograms: list[Histogram]


def metric_families(
    now: Realtime, windows: Mapping[str, Window], taken: frozenset[str], catalogue: Catalogue
) -> Metrics:
    """`windows`: the same moment's, by metric. `taken`: names of families that are others'."""
    families: list[Family] = []
    histograms: list[Histogram] = []
    names: set[str] = set(taken)
    rows: list[Mapping[str, str]] = []
    same_name = 0
    # Those that are declared come first, or whoever sends events could take their names or crowd them out.
    metrics = sorted(now.metrics.items(), key=lambda item: (item[0] not in catalogue, item[0]))
    for metric, numbers in metrics[:MAX_METRICS]:
        name = name_of(metric)
        mine = {f"{name}_{told.ending}" for told in _TOLD[numbers.kind]} | {f"{name}_{HISTOGRAM}"}
        free = not mine & names
        rows.append({"metric": metric, "name": name if free else "", **_about(numbers)})
        if not free:
            same_name += 1
            continue
        names |= mine
        families.extend(_families(name, metric, numbers, now.window))
        if numbers.kind == Kind.DISTRIBUTION and numbers.count:
            help_ = f"{metric}: samples of the last {now.window} s{_unit(numbers)}"
            histograms.append(Histogram(f"{name}_{HISTOGRAM}", help_, windows[metric]))
    return Metrics([*_described(now, rows, same_name), *families], histograms)


def _families(name: str, metric: str, numbers: MetricNumbers, window: int) -> Iterator[Family]:
    for told in _TOLD[numbers.kind]:
        value = getattr(numbers, told.field)
        unit = "" if told is _SAMPLES else _unit(numbers)
        help_ = f"{metric}: {told.what} of the last {window} s{unit}"
        yield gauge(f"{name.removeprefix(PREFIX)}_{told.ending}", help_, *([Sample(value)] if known(value) else []))


def _described(now: Realtime, rows: list[Mapping[str, str]], same_name: int) -> list[Family]:
    left_out = {"same_name": same_name, "too_many": max(len(now.metrics) - MAX_METRICS, 0)}
    told = [gauge("newest_event_timestamp_seconds", "When the newest event was recorded.", unit="seconds")]
    if now.as_of is not None:
        told[0] = msgspec.structs.replace(told[0], samples=[Sample(now.as_of)])
    return [
        *told,
        info("metric", "Metrics of the last half hour and the names they have here, empty where left out.", *rows),
        gauge(
            "metrics_left_out",
            "Metrics that are not told here: another has the same name but for dots, or there are too many.",
            *(Sample(count, {"reason": reason}) for reason, count in left_out.items()),
        ),
    ]


def _about(numbers: MetricNumbers) -> Mapping[str, str]:
    return {"kind": numbers.kind, "unit": numbers.unit, "family": numbers.family}


def _unit(numbers: MetricNumbers) -> str:
    return "" if numbers.unit == "1" else f", in {numbers.unit}"
