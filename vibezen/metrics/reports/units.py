"""The units of a report's numbers: a metric's own, or what becomes of it by dividing."""

from typing import TYPE_CHECKING, Final

from vibezen.metrics.catalogue import Catalogue, Kind

if TYPE_CHECKING:
    from vibezen.metrics.reports.definition import Reading

SHARE: Final = "share"
"""Between 0 and 1, shown in per cent."""
COUNT: Final = "1"
PER_SECOND: Final = "/s"


def unit_of(of: "Reading", per: "Reading | None", catalogue: Catalogue) -> str:
    """A part of one metric per the whole of it is a share. Divided by another metric a number keeps its unit, and its
    name says by what it was divided."""
    is_share = per is not None and (of.metric, of.agg) == (per.metric, per.agg)
    return SHARE if is_share else _own(of, catalogue)


def _own(reading: "Reading", catalogue: Catalogue) -> str:
    spec = catalogue[reading.metric]
    if reading.agg == "count":
        return COUNT
    if reading.agg == "rate":
        return f"{spec.unit}/s" if spec.kind is Kind.COUNTER and spec.unit != COUNT else PER_SECOND
    if spec.kind is Kind.RATIO and reading.agg != "sum":
        return SHARE
    return spec.unit
