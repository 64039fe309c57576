"""What the cache saved: priced where a price is known, and said where not."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.feeding import event
from tests.support.servers import free_port
from tests.support.stores import Store
from vibezen.metrics import MetricsReporter, MetricsStorage
from vibezen.metrics.config import load
from vibezen.metrics.reports import savings

NOW = 1_795_449_700.0


def report(folder: Path) -> dict[str, Any]:
    settings = load(redis_url=f"redis://127.0.0.1:{free_port()}", storage_dir=folder, environ={})
    reporter = MetricsReporter(MetricsStorage(folder), settings=settings, clock=lambda: NOW)
    return anyio.run(lambda: reporter.generate_report("cost_analysis"))


def saved(made: dict[str, Any]) -> Any:
    return next(one for one in made["sections"][0]["figures"] if one["name"] == "Saved by the cache")["value"]


def test_tokens_of_models_with_a_price_are_counted_and_others_named(tmp_path: Path) -> None:
    pytest.importorskip("genai_prices", exc_type=ImportError)
    Store(tmp_path).add(
        [
            event(1e6, NOW - 60, "tokens", type="cache_read", provider="anthropic", model="claude-sonnet-4-5"),
            event(1e6, NOW - 60, "tokens", type="input", provider="anthropic", model="claude-sonnet-4-5"),
            event(1e6, NOW - 60, "tokens", type="cache_read", provider="us", model="our-own-1"),
        ]
    )
    made = report(tmp_path)
    assert saved(made) == pytest.approx(
        3.0 - 0.3
    )  # USD per million: https://docs.claude.com/en/docs/about-claude/pricing
    assert made["notes"] == ["No price is known for our-own-1: what the cache saved there is not counted."]


def test_without_a_price_list_it_is_not_told_and_the_note_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(savings, "_prices", lambda: None)
    savings.saved.cache_clear()
    Store(tmp_path).add([event(1e6, NOW - 60, "tokens", type="cache_read", provider="anthropic", model="claude-x")])
    made = report(tmp_path)
    assert saved(made) is None
    assert "vibezen-metrics[prices]" in made["notes"][0]
