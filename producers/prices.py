"""What a call costs, from the price list of the `genai-prices` package; nothing is fetched while running.

The package is the extra `prices`. It takes a sixth of a second to import, so that is done by who first wants a price.
"""

import logging
from datetime import UTC, datetime
from functools import cache
from types import ModuleType
from typing import Final

from vibezen.metrics.producers.usage import Usage

_TOLD_BOUND: Final = 1000
"""Models told about by name; a program that makes names up must not fill memory."""

log = logging.getLogger("vibezen.metrics.prices")


class Prices:
    """`cost` of calls; tells once per model, and once that the package is missing."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def prepare(self) -> None:
        """Import the list now rather than during the first call."""
        if _genai_prices() is None:
            self._tell(
                "", "no cost is recorded: the price list is not installed: pip install 'vibezen-metrics[prices]'"
            )

    def cost(
        self,
        provider: str,
        models: list[str],
        usage: Usage,
        at: float,
        tier: str | None = None,
        speed: str | None = None,
    ) -> float | None:
        """US dollars at the price that held at `at` (Unix seconds); None when nobody knows one.

        `models`: names of the one model, tried in order. `tier` and `speed`: as the provider answered them.
        """
        prices = _genai_prices()
        if prices is None or not models:
            return None
        context = {"service_tier": tier, "speed": speed, "processing": "batch" if tier == "batch" else None}
        for model in models:
            try:
                price = prices.calc_price(
                    prices.Usage(**_reported(usage)),
                    model,
                    provider_id=provider,
                    genai_request_timestamp=datetime.fromtimestamp(at, UTC),
                    price_context={name: value for name, value in context.items() if value},
                )
            except LookupError:
                continue
            return float(price.total_price)
        self._tell(f"{provider} {models[-1]}", f"no cost is recorded for {provider} {models[-1]!r}: no price is known")
        return None

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told and len(self._told) < _TOLD_BOUND:
            self._told.add(what)
            log.warning("%s", text)


@cache
def _genai_prices() -> ModuleType | None:
    try:
        import genai_prices
    except ImportError:
        return None
    return genai_prices


def _reported(usage: Usage) -> dict[str, int]:
    """As the list wants it: input with cached tokens in it, output with reasoning."""
    reported = {
        "input_tokens": usage.input + usage.cache_read + usage.cache_write,
        "cache_read_tokens": usage.cache_read,
        "cache_write_tokens": usage.cache_write,
        "output_tokens": usage.output,
        "output_reasoning_tokens": min(usage.reasoning, usage.output),
    }
    if usage.cache_write_hour:
        reported["cache_write_1h_tokens"] = min(usage.cache_write_hour, usage.cache_write)
    return reported
