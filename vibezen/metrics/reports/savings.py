"""What reading tokens from a cache saved: their price as ordinary input less their price as cached ones.

Recorded are tokens and what calls cost, not what they would have cost. The difference is told from the price list of
the extra `prices`, at the prices of the time; a model that is not in it saves nothing here, and is named.
"""

from datetime import UTC, datetime
from functools import cache, lru_cache
from types import ModuleType
from typing import Final

from vibezen.metrics.catalogue import Better, Catalogue, Family, Kind, MetricSpec
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.settings import Settings

METRIC: Final = "vibezen.cache_savings"
"""What a definition asks for as if it were a metric; names that begin so are ours."""
SPEC: Final = MetricSpec(Family.PERFORMANCE, "USD", Kind.COUNTER, Better.HIGHER)
TOKENS: Final = "tokens"
CACHED: Final = Condition("type", "cache_read")
LABELS: Final = ("provider", "model")
_SOME: Final = 1000
"""Tokens that are priced at once: fewer than make a context long, which has a price of its own."""


def catalogue(settings: Settings) -> Catalogue:
    """The metrics that a report may ask for."""
    return Catalogue({**settings.metrics, METRIC: SPEC})


def is_known() -> bool:
    """Whether there is a price list."""
    return _prices() is not None


@lru_cache(maxsize=4096)
def saved(provider: str | None, model: str | None, at: int) -> float | None:
    """US dollars that one token saved at `at` (Unix seconds); None when nobody knows the model's price."""
    prices = _prices()
    if prices is None or not model:
        return None
    when = datetime.fromtimestamp(at, UTC)
    try:
        full, cached = (
            prices.calc_price(
                prices.Usage(input_tokens=_SOME, cache_read_tokens=count),
                model,
                provider_id=provider,
                genai_request_timestamp=when,
            ).total_price
            for count in (0, _SOME)
        )
    except LookupError:
        return None
    return float(full - cached) / _SOME


@cache
def _prices() -> ModuleType | None:
    try:
        import genai_prices
    except ImportError:
        return None
    return genai_prices
