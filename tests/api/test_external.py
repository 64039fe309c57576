"""History over days that lie in external storage: answered as before, and while it is away, an error that says so."""

import itertools
from pathlib import Path

from tests.support.feeding import event
from tests.support.serving import StartDashboard
from tests.support.stored import archive, compact_day, sweep
from vibezen.metrics.clock import DAY, HOUR, iso
from vibezen.metrics.consumers.holdings import Holdings
from vibezen.metrics.consumers.moving import due, move
from vibezen.metrics.consumers.standing import standings
from vibezen.metrics.external import External
from vibezen.metrics.layout import Layout

FIRST = 1_756_684_800
"""2025-09-01T00:00:00Z."""


def test_history_reads_both_and_says_what_is_away(
    redis_url: str, start_dashboard: StartDashboard, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    layout = Layout(tmp_path / "store-0")
    layout.create()
    archive(layout, [event(float(n), FIRST + n * HOUR, provider=f"p{n % 2}") for n in range(48)])
    served = start_dashboard(redis_url, clock=lambda: FIRST + 3.0 * DAY)

    def mean_of(day: int, metric: str = "response_time") -> object:
        since, until = iso(FIRST + day * DAY), iso(FIRST + (day + 1) * DAY)
        asked = {"metric": metric, "from": since, "to": until, "step": "6h", "agg": "mean", "exact": "true"}
        return served.get("/api/metrics/history", **asked, group_by="provider")["series"]

    before = [mean_of(0), mean_of(1)]
    compact_day(layout, FIRST)
    found = Holdings(layout, lambda shard: 1).look()
    (one,) = itertools.islice(due(standings(layout, found), 1, FIRST + 3.0 * DAY, merge_days=True), 1)
    assert move(layout, External(outside.as_uri()), one, lambda: None)
    sweep(layout)
    assert [mean_of(0), mean_of(1)] == before
    outside.rename(tmp_path / "unmounted")
    status, error = served.refused(
        "/api/metrics/history",
        **{"metric": "cost", "from": iso(FIRST), "to": iso(FIRST + DAY), "step": "6h", "agg": "mean", "exact": "true"},
    )
    assert (status, str(error["message"]).startswith(f"external storage: {outside.as_uri()}/")) == (503, True)
    assert mean_of(1) == before[1]
    (tmp_path / "unmounted").rename(outside)
    assert mean_of(0) == before[0]
