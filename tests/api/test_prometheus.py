"""`GET /metrics`: what is told, in which formats, and that a real Prometheus takes it for what it is."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from tests.support.feeding import event
from tests.support.prometheus import NATIVE_HISTOGRAMS, complaints, scraping
from tests.support.servers import StartServer
from tests.support.serving import NOW, OPEN, Served, StartDashboard, Windows, samples
from tests.support.waiting import WaitUntil
from vibezen.metrics.api.prometheus.metrics import MAX_METRICS
from vibezen.metrics.catalogue import BUILT_IN
from vibezen.metrics.event import encode_lines
from vibezen.metrics.exposition.family import name_of
from vibezen.metrics.exposition.format import Format
from vibezen.metrics.keys import Keys
from vibezen.metrics.live import Change
from vibezen.metrics.producer_stats import Stats
from vibezen.metrics.producers.append import Batch, append
from vibezen.metrics.series import series_key
from vibezen.metrics.window import Window

pytestmark = pytest.mark.server

KEYS = Keys()
ROOT = Path(__file__).resolve().parents[2]
VALUES = (120.0, 0.0, 137.25, 4000.0, -3.0, 122.0)
TOLD = {
    "distribution": {name: name for name in ("p50", "p95", "p99", "mean", "min", "max")} | {"samples": "count"},
    "counter": {"increase": "sum", "rate": "rate"},
    "ratio": {"mean": "mean", "samples": "count"},
    "gauge": {"last": "last"},
}
"""Kind → ending of the name → field of `/api/metrics/realtime`."""


@pytest.fixture
def told(served: Served, client: redis.Redis, windows: Windows) -> Served:
    """An API that has something to tell of everything: every metric we know, and a pipeline at work."""
    for number, metric in enumerate(BUILT_IN):
        windows.commit(OPEN - 10 * (number % 6), metric, samples(*VALUES, at=OPEN + 1.0), model="a")
        windows.commit(OPEN, metric, samples(float(number), at=OPEN + 2.0), shard=1, producer=f"p{number}")
    windows.commit(OPEN, "gen_ai.client.operation.duration", samples(0.25, at=OPEN + 1.0))
    weighted = Window()
    weighted.add(0.3, 2.5, OPEN + 1.0)
    windows.commit(OPEN, "sampled.by_rate", weighted)
    client.set(KEYS.shards, 2)
    stats = Stats(recorded=9, appended=3, spooled=5, dropped={"overflow": 1}, refused={"value": 2})
    append(client, KEYS, 0, "p", 1, [Batch(1, encode_lines([event()]))])
    client.hset(KEYS.producers(0), "q", f"7 {int(NOW * 1000)} {msgspec.json.encode(stats).decode()}")
    client.hset(KEYS.books(0), mapping={"archive.entries": 1, "archive.events": 10, "archive.rejected": 2})
    client.hset(KEYS.books(0), mapping={"archive.trouble": "no space", "archive.updated": "1763985600.25"})
    client.set(KEYS.lease(0, "archive"), "host:1:abc")
    return served


def numbers(text: str) -> dict[str, float]:
    """Sample → value."""
    found = re.findall(r"^([^#\s].*) (\S+)$", text, re.MULTILINE)
    assert len(found) == len(dict(found)), "a sample is told twice"
    return {sample: float(value) for sample, value in found}


def expected(realtime: Any) -> dict[str, float]:
    """What realtime says, as it is called there."""
    return {
        f"vibezen_{metric.removeprefix('vibezen.').replace('.', '_')}_{ending}": about[field]
        for metric, about in realtime["metrics"].items()
        for ending, field in TOLD[about["kind"]].items()
        if about[field] is not None
    }


def all_told(served: Served, metrics: int) -> bool:
    return len(served.get("/api/metrics/realtime")["metrics"]) == metrics


METRICS = len(BUILT_IN) + 2


def test_promtool_has_nothing_to_say(told: Served, wait_until: WaitUntil) -> None:
    wait_until(lambda: all_told(told, METRICS))
    told.http.get("/not/ours")
    answer = told.http.get("/metrics")
    assert answer.headers["content-type"] == Format.TEXT.value
    assert complaints(answer.content) == ""


def test_text_tells_what_realtime_and_pipeline_tell(told: Served, wait_until: WaitUntil) -> None:
    wait_until(lambda: all_told(told, METRICS))
    found = numbers(told.http.get("/metrics").text)
    wanted = expected(told.get("/api/metrics/realtime"))
    assert len(wanted) > 2 * METRICS
    assert {name: found[name] for name in wanted} == wanted
    (shard, other) = told.get("/api/pipeline")["shards"]
    assert found["vibezen_shards"] == 2
    assert found['vibezen_appended_events_total{shard="0"}'] == shard["books"]["appended"] == 1
    assert found['vibezen_stream_entries{shard="1"}'] == other["length"] == 0
    assert found['vibezen_group_events_total{shard="0",group="archive"}'] == 10
    assert found['vibezen_group_owned{shard="0",group="archive"}'] == 1
    assert found['vibezen_group_owned{shard="0",group="aggregate"}'] == 0
    assert found['vibezen_group_trouble{shard="0",group="archive"}'] == 1
    assert found['vibezen_group_updated_timestamp_seconds{shard="0",group="archive"}'] == 1763985600.25
    assert found['vibezen_producer_dropped_events{shard="0",reason="overflow"}'] == 1
    assert found['vibezen_producer_events{shard="0",state="spooled"}'] == 5
    assert found['vibezen_books_events{shard="0",group="archive",side="unread"}'] == 1
    assert found["vibezen_newest_event_timestamp_seconds"] == OPEN + 2.0


def test_every_family_of_the_pipeline_is_documented_and_no_other(told: Served, wait_until: WaitUntil) -> None:
    wait_until(lambda: all_told(told, METRICS))
    text = told.http.get("/metrics").text
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    of_metrics = {
        name for metric in told.get("/api/metrics/realtime")["metrics"] for name in types if _is_of(name, metric)
    }
    table = (ROOT / "docs" / "operations.md").read_text().partition("**The pipeline:**")[2].partition("## Spools")[0]
    documented = {
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"vibezen_\w+", row)
    }
    assert documented == types.keys() - of_metrics


def _is_of(name: str, metric: str) -> bool:
    return name.rpartition("_")[0] == name_of(metric) and name != "vibezen_metric_info"


def test_metrics_that_come_to_one_name_are_told_apart_and_counted(
    served: Served, windows: Windows, wait_until: WaitUntil
) -> None:
    for metric in ("one.name", "one_name", "group.lag_entries"):
        windows.commit(OPEN, metric, samples(len(metric), at=OPEN + 1.0))
    wait_until(lambda: all_told(served, 3))
    text = served.http.get("/metrics").text
    found = numbers(text)
    assert found["vibezen_one_name_max"] == 8
    assert found['vibezen_metrics_left_out{reason="same_name"}'] == 1
    names = dict(re.findall(r'vibezen_metric_info\{metric="([^"]*)",name="([^"]*)"', text))
    assert names == {"one.name": "vibezen_one_name", "one_name": "", "group.lag_entries": "vibezen_group_lag_entries"}
    assert complaints(text.encode()) == ""


def test_more_metrics_than_prometheus_should_keep_are_left_out_and_counted(
    served: Served, windows: Windows, wait_until: WaitUntil
) -> None:
    made_up = [series_key(f"made_up_{number}", {}) for number in range(MAX_METRICS + 1)]
    declared = series_key("response_time", {})
    windows.show([Change(OPEN, series, samples(1, at=OPEN + 1.0)) for series in (*made_up, declared)])
    wait_until(lambda: all_told(served, MAX_METRICS + 2))
    found = numbers(served.http.get("/metrics").text)
    assert sum(name.startswith("vibezen_made_up_") and name.endswith("_max") for name in found) == MAX_METRICS - 1
    assert found['vibezen_metrics_left_out{reason="too_many"}'] == 2
    assert found["vibezen_response_time_max"] == 1, "one that is declared is crowded out by none"


def test_name_of_a_declared_metric_is_taken_by_no_other(
    served: Served, windows: Windows, wait_until: WaitUntil
) -> None:
    for metric, value in (("response.time", 7), ("response_time", 5)):
        windows.commit(OPEN, metric, samples(value, at=OPEN + 1.0))
    wait_until(lambda: all_told(served, 2))
    assert numbers(served.http.get("/metrics").text)["vibezen_response_time_max"] == 5


def test_requests_and_live_clients_are_counted(served: Served) -> None:
    served.get("/api/metrics/realtime")
    served.refused("/api/../../etc/passwd")
    with served.socket() as socket:
        socket.next()
        found = numbers(served.http.get("/metrics").text)
    (process,) = {name.partition('process="')[2].partition('"')[0] for name in found if "process=" in name}
    counted = {name.partition('path="')[2]: value for name, value in found.items() if name.startswith("vibezen_http")}
    assert counted == {'/api/metrics/realtime",status="200"}': 1, 'other",status="404"}': 1, '/ws",status="101"}': 1}
    assert found[f'vibezen_live_clients{{process="{process}"}}'] == 1


def test_scrape_tells_that_redis_is_away(
    start_server: StartServer, start_dashboard: StartDashboard, wait_until: WaitUntil
) -> None:
    server = start_server()
    served = start_dashboard(server.url)
    redis_up = re.compile(r"^vibezen_redis_up\{.*\} (\d)$", re.MULTILINE)
    assert redis_up.findall(served.http.get("/metrics").text) == ["1"]
    server.kill()
    wait_until(lambda: redis_up.findall(served.http.get("/metrics").text) == ["0"])
    assert complaints(served.http.get("/metrics").content) == ""


def test_prometheus_agrees_with_realtime(told: Served, tmp_path: Path, wait_until: WaitUntil) -> None:
    wait_until(lambda: all_told(told, METRICS))
    wanted = expected(told.get("/api/metrics/realtime"))
    with (
        scraping(told.port, tmp_path / "text") as by_text,
        scraping(told.port, tmp_path / "protobuf", NATIVE_HISTOGRAMS) as by_protobuf,
    ):
        for prometheus in (by_text, by_protobuf):
            wait_until(lambda: prometheus.ask('{__name__="vibezen_redis_up"}') or prometheus.failure())  # noqa: B023
            assert prometheus.failure() == ""
            found = prometheus.ask('{__name__=~"vibezen_.+"}')
            assert {name: found.get(name) for name in wanted} == wanted
            assert found["vibezen_group_events_total{group=archive,shard=0}"] == 10
        text, protobuf = by_text.types(), by_protobuf.types()
        for name in ("vibezen_cost_rate", "vibezen_redis_used_memory_bytes"):
            assert text[name] == protobuf[name] == "gauge"
        assert text["vibezen_group_events"] == protobuf["vibezen_group_events_total"] == "counter"
        assert text["vibezen_build"] == "info"
        assert protobuf["vibezen_response_time_distribution"] == "gaugehistogram"
        for metric in ("response_time", "sampled.by_rate"):
            window = told.hub.windows(NOW)[metric]
            count, total, buckets = by_protobuf.histogram(f"vibezen_{metric.replace('.', '_')}_distribution")
            assert (count, total) == (window.count, window.sum)
            # Bounds are powers of two that each side rounds for itself.
            assert buckets == pytest.approx([number for bucket in window.buckets() for number in bucket], rel=1e-12)
