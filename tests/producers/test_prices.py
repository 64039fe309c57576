"""Costs against sums made by hand, per provider; and what is said when there is no price."""

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from vibezen.metrics.producers.prices import Prices
from vibezen.metrics.producers.usage import Usage

WHEN = datetime(2025, 11, 24, tzinfo=UTC).timestamp()

BY_HAND = [
    # gpt-4o: $2.50 input, $1.25 cached, $10 output. 600 × 2.5 + 400 × 1.25 + 500 × 10
    ("openai", "gpt-4o", Usage(input=600, cache_read=400, output=500), (1500 + 500 + 5000) / 1e6),
    # gpt-5: $1.25, $0.125, $10; reasoning is output. 600 × 1.25 + 400 × 0.125 + 500 × 10
    ("openai", "gpt-5", Usage(input=600, cache_read=400, output=500, reasoning=200), (750 + 50 + 5000) / 1e6),
    ("openai", "gpt-5-2025-08-07", Usage(input=600, cache_read=400, output=500), (750 + 50 + 5000) / 1e6),
    # claude-sonnet-4-5: $3, $0.30 read, $3.75 written, $6 written for an hour, $15 output
    ("anthropic", "claude-sonnet-4-5", Usage(500, 400, 100, 500, 200), (1500 + 120 + 375 + 7500) / 1e6),
    ("anthropic", "claude-sonnet-4-5", Usage(500, 400, 100, 500, 0, 100), (1500 + 120 + 600 + 7500) / 1e6),
    ("anthropic", "claude-sonnet-4-5", Usage(500, 400, 100, 500, 0, 40), (1500 + 120 + 225 + 240 + 7500) / 1e6),
    # claude-haiku-4-5: $1, $0.10, $1.25, $5
    ("anthropic", "claude-haiku-4-5", Usage(1000, 10_000, 2000, 300), (1000 + 1000 + 2500 + 1500) / 1e6),
]


@pytest.mark.parametrize(("provider", "model", "usage", "dollars"), BY_HAND)
def test_costs_are_what_the_hand_computes(provider: str, model: str, usage: Usage, dollars: float) -> None:
    assert Prices().cost(provider, [model], usage, WHEN) == pytest.approx(dollars, rel=1e-12)


def test_the_price_is_that_of_the_day_of_the_call() -> None:
    """o3 cost $10 and $40 until 9 June 2025, since then $2 and $8."""
    usage = Usage(input=1000, output=1000)
    before, after = datetime(2025, 6, 1, tzinfo=UTC).timestamp(), datetime(2025, 7, 1, tzinfo=UTC).timestamp()
    assert Prices().cost("openai", ["o3"], usage, before) == pytest.approx(0.05)
    assert Prices().cost("openai", ["o3"], usage, after) == pytest.approx(0.01)


def test_the_tier_that_answered_has_its_own_price() -> None:
    """gpt-5 costs half on the flex tier."""
    usage = Usage(input=600, output=500)
    standard = Prices().cost("openai", ["gpt-5"], usage, WHEN, tier="default")
    assert standard is not None
    assert standard == pytest.approx((750 + 5000) / 1e6)
    assert Prices().cost("openai", ["gpt-5"], usage, 1_795_449_700.0, tier="flex") == pytest.approx(standard / 2)


def test_the_first_name_with_a_price_counts() -> None:
    usage = Usage(input=1_000_000)
    assert Prices().cost("openai", ["my-deployment", "gpt-5"], usage, WHEN) == pytest.approx(1.25)


def test_an_unknown_model_costs_nothing_known_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    prices = Prices()
    for _ in range(3):
        assert prices.cost("openai", ["own-1"], Usage(input=1), WHEN) is None
        assert prices.cost("nobody", ["own-2"], Usage(input=1), WHEN) is None
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "no cost is recorded for openai 'own-1': no price is known",
        "no cost is recorded for nobody 'own-2': no price is known",
    ]


ABSENT = """
import logging, sys
sys.modules["genai_prices"] = None
logging.basicConfig(format="%(message)s")
from vibezen.metrics.producers.prices import Prices
from vibezen.metrics.producers.usage import Usage
prices = Prices()
prices.prepare()
prices.prepare()
print(prices.cost("openai", ["gpt-5"], Usage(input=1), 0.0))
"""


def test_without_the_extra_there_is_no_cost_and_one_line_names_it() -> None:
    done = subprocess.run([sys.executable, "-c", ABSENT], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
    assert done.stderr == (
        "no cost is recorded: the price list is not installed: pip install 'vibezen-metrics[prices]'\n"
    )


OFFLINE = """
import socket
def refuse(*arguments, **options): raise AssertionError("the network was used")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import threading
from vibezen.metrics.producers.prices import Prices
from vibezen.metrics.producers.usage import Usage
print(Prices().cost("openai", ["gpt-5"], Usage(input=8), 1.7e9), threading.active_count())
"""


def test_nothing_is_fetched() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", OFFLINE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1e-05 1\n", "")
