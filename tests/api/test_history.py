"""History over HTTP, from windows written as an aggregator stores them."""

import pytest
import redis

from tests.support.serving import NOW, OPEN, Json, Served, Windows, samples
from vibezen.metrics import gathering, history

pytestmark = pytest.mark.server

RANGE = {"from": str(OPEN - 30), "to": str(OPEN + 10), "step": "10"}
STARTS = [OPEN - 30, OPEN - 20, OPEN - 10, OPEN]


@pytest.fixture(autouse=True)
def _windows_are_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no files here."""
    monkeypatch.setattr(gathering, "CHEAP_LINES", -1)


@pytest.fixture(autouse=True)
def _stored(windows: Windows) -> None:
    windows.store(OPEN - 20, "response_time", samples(100, 200, 300, at=OPEN - 15), provider="openai", model="a")
    windows.store(OPEN - 20, "response_time", samples(500, at=OPEN - 15), provider="openai", model="b")
    windows.store(OPEN - 20, "response_time", samples(40, at=OPEN - 18), shard=1, provider="anthropic")
    windows.store(OPEN, "response_time", samples(7, at=OPEN + 3.5), provider="openai", model="a")
    windows.store(OPEN, "cost", samples(99, at=OPEN))


@pytest.fixture(autouse=True)
def _two_shards(client: redis.Redis, windows: Windows, _stored: None) -> None:
    client.set(windows.keys.shards, 2)


def ask(served: Served, metric: str = "response_time", **parameters: str) -> Json:
    return served.get("/api/metrics/history", **{"metric": metric, **RANGE, **parameters})


def values(line: Json) -> list[float | None]:
    return [value for _, value in line["points"]]


def test_answer_says_what_it_is(served: Served) -> None:
    answer = ask(served, agg="count,p95")
    assert {name: answer[name] for name in answer if name != "series"} == {
        "metric": "response_time",
        "from": OPEN - 30,
        "to": OPEN + 10,
        "tz": "UTC",
        "step": 10,
        "agg": "count,p95",
        "exact": False,
        "sources": [{"from": OPEN - 30, "to": OPEN + 10, "source": "windows"}],
        "as_of": OPEN + 3.5,
        "known": True,
        "omitted": 0,
    }
    assert [(line["agg"], line["labels"]) for line in answer["series"]] == [("count", {}), ("p95", {})]


def test_series_and_shards_are_one_and_gaps_are_null(served: Served) -> None:
    (counts,) = ask(served, agg="count")["series"]
    assert counts["points"] == [[OPEN - 30, None], [OPEN - 20, 5], [OPEN - 10, None], [OPEN, 1]]
    lines = {line["agg"]: values(line)[1] for line in ask(served, agg="sum,mean,min,max,last,rate,p50")["series"]}
    assert (lines["sum"], lines["mean"], lines["min"], lines["max"]) == (1140, 228, 40, 500)
    assert lines["rate"] == 0.5
    assert lines["p50"] == pytest.approx(200, rel=0.011)
    assert lines["last"] in (300, 500)


def test_rate_of_the_open_step_counts_the_part_that_has_passed(served: Served) -> None:
    (rates,) = ask(served, agg="rate")["series"]
    assert values(rates)[3] == 1 / (NOW - OPEN)


def test_conditions_on_labels_choose_series(served: Served) -> None:
    for where, expected in (("model=a", 3), ("model!=a", 2), ("provider=nobody", None)):
        lines = ask(served, agg="count", where=where)["series"]
        assert (values(lines[0])[1] if lines else None) == expected, where


def test_groups_are_by_label_and_an_absent_label_is_its_own_group(served: Served) -> None:
    answer = ask(served, agg="count", group_by="provider,model")
    assert {tuple(line["labels"].items()): values(line)[1] for line in answer["series"]} == {
        (("provider", "anthropic"),): 1,
        (("provider", "openai"), ("model", "a")): 3,
        (("provider", "openai"), ("model", "b")): 1,
    }


def test_hour_with_series_beyond_the_bound_is_told_apart_by_events_only(served: Served, windows: Windows) -> None:
    windows.store(OPEN - 20, "response_time", samples(1, 2, at=OPEN - 20), overflow="true")
    for apart in ({"group_by": "model"}, {"where": "model=a"}):
        answer = ask(served, agg="count", **apart)
        assert {source["source"] for source in answer["sources"]} == {"events"}
    together = ask(served, agg="count")
    assert {source["source"] for source in together["sources"]} == {"windows"}
    assert values(together["series"][0])[1] == 7


def test_coarser_steps_are_made_of_windows(served: Served) -> None:
    (counts,) = ask(served, agg="count", step="20")["series"]
    assert [value for value in values(counts) if value is not None] == [5, 1]


def test_old_ranges_come_from_wider_windows_and_before_those_from_events(served: Served, windows: Windows) -> None:
    hour = 3600
    windows.store((OPEN - 20 * hour) // 60 * 60, "response_time", samples(5, at=OPEN - 20 * hour), width=60)
    answer = ask(served, agg="count", **{"from": "now-2d", "to": "now", "step": "auto"})
    assert [value for value in values(answer["series"][0]) if value is not None] == [1]
    assert answer["step"] == 900
    before, after = answer["sources"]
    assert (before["from"], before["source"], before["to"]) == (answer["from"], "events", after["from"])
    assert (after["source"], after["to"]) == ("windows", answer["to"])
    assert after["from"] % hour == 0
    assert after["from"] == pytest.approx(NOW - 26 * hour, abs=hour + 60)


def test_gauge_is_the_last_of_each_series_summed(served: Served, windows: Windows) -> None:
    for start, producer, value in [(-20, "a", 3), (-10, "a", 5), (-10, "b", 1)]:
        windows.store(OPEN + start, "concurrency", samples(value, at=OPEN + start), producer=producer)
    (line,) = ask(served, "concurrency", agg="last")["series"]
    assert values(line) == [None, 3, 6, None]
    (coarse,) = ask(served, "concurrency", agg="last", step="40")["series"]
    assert [value for value in values(coarse) if value is not None] == [6]


def test_metric_nobody_recorded_has_no_series(served: Served) -> None:
    answer = ask(served, "tokens")
    assert (answer["series"], answer["as_of"]) == ([], None)


def test_the_last_hour_is_the_default(served: Served) -> None:
    answer = served.get("/api/metrics/history", metric="response_time")
    assert (answer["step"], answer["agg"], answer["to"]) == (10, "p50", OPEN + 10)
    assert len(answer["series"][0]["points"]) == 361


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({}, "metric"),
        ({"metric": "cost", "step": "0"}, "step"),
        ({"metric": "cost", "group_by": "Secret"}, "group_by"),
        ({"metric": "cost", "self": "1"}, "self"),
        ({"metric": "cost", "from": "now", "to": "now-1h"}, "from"),
        ({"metric": "cost", "agg": "p42"}, "agg"),
    ],
)
def test_bad_parameter_is_400_and_named(served: Served, parameters: dict[str, str], field: str) -> None:
    status, error = served.refused("/api/metrics/history", **parameters)
    assert (status, error["code"], error["field"]) == (400, "bad_parameter", field)
    assert error["message"]


def test_answer_that_would_be_too_large_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_ANSWER_POINTS", 10)
    status, error = served.refused("/api/metrics/history", metric="response_time", group_by="model", **RANGE)
    assert (status, error["field"]) == (400, "group_by")


def test_history_agrees_with_the_live_feed(served: Served, windows: Windows) -> None:
    with served.socket() as one:
        one.next()
        windows.commit(OPEN - 10, "response_time", samples(11, 22, 33, at=OPEN - 5), provider="openai")
        frame = one.next()
    cell = frame["windows"][0]["metrics"]["response_time"]
    answer = ask(served, agg=",".join(cell))
    assert {line["agg"]: values(line)[2] for line in answer["series"]} == cell
