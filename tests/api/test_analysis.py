"""Analysis over HTTP: what the three routes have in common. What they say: tests/trunk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.feeding import event
from tests.support.pipeline import Pipeline
from tests.support.serving import Served, dashboard_in_thread
from tests.support.waiting import WaitUntil

pytestmark = pytest.mark.server

OLD = 1_700_157_600.0
ROUTES = ("/api/compare", "/api/trend", "/api/anomalies")
QUESTION = {
    "metric": "cost",
    "from": "2023-11-16T18:00:00Z",
    "to": "2023-11-16T19:00:00Z",
    "step": "1m",
    "agg": "mean",
    "group_by": "model",
}


@pytest.fixture
def served(client: redis.Redis, redis_url: str, tmp_path: Path, wait_until: WaitUntil) -> Iterator[Served]:
    pipeline = Pipeline(client, redis_url, tmp_path / "store")
    pipeline.take_in([event(n + k, OLD + n * 60, "cost", model=f"m{k}") for n in range(60) for k in range(2)])
    pipeline.archive()
    with dashboard_in_thread(redis_url, tmp_path / "store") as served:
        wait_until(lambda: served.hub.trouble is None)
        yield served


@pytest.mark.parametrize("path", ROUTES)
def test_answer_is_like_that_of_history_and_has_a_name(served: Served, path: str) -> None:
    first = served.http.get(path, params=QUESTION)
    told = first.json()
    assert (first.status_code, told["metric"], told["step"], told["agg"]) == (200, "cost", 60, "mean")
    assert (told["from"], told["to"], told["unit"], told["better"]) == (OLD, OLD + 3600, "USD", "lower")
    assert (told["known"], told["exact"], told["omitted"], told["sources"][-1]["source"]) == (True, True, 0, "events")
    assert [line["labels"] for line in told["series"]] == [{"model": "m0"}, {"model": "m1"}]
    assert first.headers["cache-control"].startswith("private, max-age"), "it cannot change any more"
    again = served.http.get(path, params=QUESTION, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert served.get(path, **{**QUESTION, "top": "1"})["omitted"] == 1


@pytest.mark.parametrize("path", ROUTES)
def test_bad_parameter_is_400_and_named(served: Served, path: str) -> None:
    for given, field in (({"agg": "mean,sum"}, "agg"), ({"metric": ""}, "metric"), ({"self": "1"}, "self")):
        status, error = served.refused(path, **{**QUESTION, **given})
        assert (status, error["code"], error["field"]) == (400, "bad_parameter", field)


def test_same_question_to_different_routes_has_different_answers(served: Served) -> None:
    question = {name: value for name, value in QUESTION.items() if name != "group_by"}
    tags = {served.http.get(path, params=question).headers["etag"] for path in (*ROUTES, "/api/metrics/history")}
    assert len(tags) == 4
