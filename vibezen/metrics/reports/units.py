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
    """Dividing equal units leaves a share; dividing by another one leaves the first, and the number's name says by
    what."""
    own = _own(of, catalogue)
    if per is None:
        return own
    return SHARE if own == _own(per, catalogue) else own


def _own(reading: "Reading", catalogue: Catalogue) -> str:
    spec = catalogue[reading.metric]
    if reading.agg == "count":
        return COUNT
    if reading.agg == "rate":
        return PER_SECOND
    if spec.kind is Kind.RATIO and reading.agg != "sum":
        return SHARE
    return spec.unit
