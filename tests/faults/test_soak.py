"""Everything at once: the whole product under load, and faults of every kind at random from a seed.

`make soak MINUTES=10 SEED=…` runs the long form.
"""

import os
import random
import time
from pathlib import Path
from typing import Final

import pytest

from tests.support.proxy import StartProxy
from tests.support.servers import StartServer
from tests.support.soak import Say, soak
from tests.support.soak_plan import plan

pytestmark = pytest.mark.server

Timing = tuple[int, float, float]
"""A seed, seconds of faults, and seconds between two of them."""
SHORT: Final = (4816, 11.0, 0.7)
LONG_GAP: Final = 3.0


def run(start_server: StartServer, start_proxy: StartProxy, folder: Path, say: Say, timing: Timing) -> None:
    server = start_server(os.environ.get("SOAK_SERVER") or None)
    with soak(server, start_proxy(server.url), folder, say) as running:
        outcome = running.run(*timing)
    assert outcome.wrong == []
    assert outcome.verdict == "lost 0, doubled 0, sum error 0"
    assert outcome.comparison.acknowledged > 0


def test_short_soak_loses_and_doubles_nothing(
    start_server: StartServer, start_proxy: StartProxy, tmp_path: Path
) -> None:
    run(start_server, start_proxy, tmp_path, print, SHORT)


def test_the_same_seed_gives_the_same_plan_with_every_kind_of_fault() -> None:
    for seed, seconds, gap in (SHORT, (7, 60.0, LONG_GAP), (8, 600.0, LONG_GAP)):
        steps = plan(seed, seconds, gap, 5)
        assert steps == plan(seed, seconds, gap, 5) != plan(seed + 1, seconds, gap, 5)
        kinds = {f"{step.do} {step.whom.partition(' ')[0]}" for step in steps}
        assert kinds >= {
            "freeze owner",
            "kill server",
            "fill disk",
            "cut replies",
            "drop connections",
            "forget scripts",
        }
        assert kinds >= {f"kill {whom}" for whom in ("archiver", "aggregator", "gateway", "page", "application")}


@pytest.mark.soak
def test_soak(
    start_server: StartServer, start_proxy: StartProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"[{time.monotonic() - begun:6.1f}] {text}", flush=True)

    minutes, seed = os.environ.get("SOAK_MINUTES") or 10, os.environ.get("SOAK_SEED") or random.randrange(10**6)
    run(start_server, start_proxy, tmp_path, say, (int(seed), 60 * float(minutes), LONG_GAP))
