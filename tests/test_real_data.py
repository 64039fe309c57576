"""A stranger's data through the whole path: into files and history to the last token, also after everything was killed
and while live events arrive."""

import csv
import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.feeding import lag, lines_on_disk
from tests.support.processes import RoleProcess, StartRole
from tests.support.servers import SURE, Server, StartServer
from tests.support.waiting import WaitUntil
from vibezen.metrics import MetricsCollector, config

pytestmark = pytest.mark.server

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data"
TRACE: Final = DATA / "azure-llm-2023" / "AzureLLMInferenceTrace_code.csv"
MAPPING: Final = (
    *("--event", "api_calls=1", "--event", "tokens={ContextTokens},type=input"),
    *("--event", "tokens={GeneratedTokens},type=output", "--set", "provider=azure"),
)
DAY: Final = {"from": "2023-11-16", "to": "2023-11-17"}
NAB: Final = (
    *(
        "ambient_temperature_system_failure",
        "cpu_utilization_asg_misconfiguration",
        "ec2_request_latency_system_failure",
    ),
    *("machine_temperature_system_failure", "nyc_taxi", "rogue_agent_key_hold", "rogue_agent_key_updown"),
)


@pytest.fixture(autouse=True)
def _has_data() -> None:
    if not TRACE.exists():
        reason = f"no recorded data beside the checkout ({DATA.name}/{TRACE.relative_to(DATA)})"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


class Site:
    """All roles over a server of their own."""

    def __init__(self, server: Server, store: Path, port: int, start_role: StartRole, wait_until: WaitUntil) -> None:
        self.server, self.store, self.url = server, store, f"http://127.0.0.1:{port}"
        self._port, self._start_role, self._wait_until = port, start_role, wait_until
        self._roles: list[RoleProcess] = []

    def start(self) -> None:
        commands = (("consume", "archive"), ("consume", "aggregate"), ("api", "--port", str(self._port)))
        self._roles = [self._start_role(*command) for command in commands]
        self._wait_until(self._is_ready)

    def kill_everything(self) -> None:
        for role in self._roles:
            role.kill()
        self.server.kill()
        self.server.start()
        with self.server.client() as client:
            for group in ("archive", "aggregate"):  # leases would run out by themselves; this only saves the waiting
                client.delete(f"vibezen:{{0}}:lease:{group}")

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def take_in(self, *arguments: str) -> dict[str, Any]:
        process = self._start_role("import", *arguments, "--json")
        assert process.wait(60) == 0, process.said
        self.drain()
        told: dict[str, Any] = json.loads(process.said[process.said.index("{") :])
        return told

    def drain(self) -> None:
        with self.server.client() as client:
            self._wait_until(lambda: lag(client, "archive") == lag(client, "aggregate") == 0, 60)

    def history(self, metric: str, **parameters: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/api/metrics/history", params={"metric": metric, **parameters}, timeout=30)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def site(
    start_server: StartServer,
    tmp_path: Path,
    free_tcp_port: int,
    start_role: StartRole,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    server, store = start_server(None, *SURE), tmp_path / "store"
    monkeypatch.setenv("VIBEZEN_METRICS__REDIS__URL", server.url)
    monkeypatch.setenv("VIBEZEN_METRICS__STORAGE_DIR", str(store))
    site = Site(server, store, free_tcp_port, start_role, wait_until)
    site.start()
    return site


def rows() -> list[dict[str, str]]:
    with TRACE.open(newline="") as file:
        return list(csv.DictReader(file))


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    return ordered[low] + (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]) * (position - low)


def see_the_trace(site: Site) -> None:
    """What the day's history says is what the file says."""
    trace = rows()
    inputs, outputs = ([float(row[name]) for row in trace] for name in ("ContextTokens", "GeneratedTokens"))
    answer = site.history("tokens", step="1d", agg="count,sum,min,max,p50,p95,p99", group_by="type", **DAY)
    assert (answer["exact"], [source["source"] for source in answer["sources"]]) == (True, ["events"])
    told = {(line["labels"]["type"], line["agg"]): line["points"][0][1] for line in answer["series"]}
    for kind, values in (("input", inputs), ("output", outputs)):
        assert told[kind, "count"] == len(values) == 8819
        assert told[kind, "sum"] == sum(values)
        assert (told[kind, "min"], told[kind, "max"]) == (min(values), max(values))
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            assert told[kind, name] == pytest.approx(quantile(values, share), rel=1e-12)
    by_hour = site.history("api_calls", step="1h", agg="sum", where="provider=azure", **DAY)["series"][0]["points"]
    hours = [row["TIMESTAMP"][11:13] for row in trace]
    assert {start: value for start, value in by_hour if value} == {
        datetime(2023, 11, 16, int(hour), tzinfo=UTC).timestamp(): hours.count(hour) for hour in set(hours)
    }


def test_recorded_trace_is_in_files_and_history_to_the_last_token(site: Site) -> None:
    (balance,) = site.take_in(str(TRACE), *MAPPING)["files"]
    assert (balance["rows"], balance["events"], balance["appended"]) == (8819, 3 * 8819, 3 * 8819)
    on_disk = lines_on_disk(site.store)
    assert len(on_disk) == 3 * 8819
    assert {line["metadata"]["provider"] for line in on_disk} == {"azure"}
    see_the_trace(site)
    site.kill_everything()
    site.start()
    see_the_trace(site)
    (again,) = site.take_in(str(TRACE), *MAPPING)["files"]
    assert (again["appended"], again["already_there"]) == (0, 3 * 8819)
    with MetricsCollector(settings=config.load()) as collector:
        for number in range(500):
            collector.record_nowait("tokens", number, {"type": "input", "provider": "live"})
            if number % 100 == 0:
                collector.flush_sync(20)
                see_the_trace(site)
    site.drain()
    see_the_trace(site)
    live = site.history("tokens", **{"from": "now-1h", "agg": "sum,count", "where": "provider=live"})
    assert {line["agg"]: sum(filter(None, (v for _, v in line["points"]))) for line in live["series"]} == {
        "sum": sum(range(500)),
        "count": 500,
    }
    assert len(lines_on_disk(site.store)) == 3 * 8819 + 500


def test_summary_and_catalogue_know_the_trace(site: Site) -> None:
    site.take_in(str(TRACE), *MAPPING)
    summary = httpx.get(f"{site.url}/api/metrics/summary", params=DAY).json()
    assert summary["metrics"]["tokens"]["sum"] == sum(
        float(row[name]) for row in rows() for name in ("ContextTokens", "GeneratedTokens")
    )
    assert summary["metrics"]["api_calls"]["value"] == 8819
    catalogue = httpx.get(f"{site.url}/api/catalogue", params=DAY).json()["metrics"]
    found = {known["metric"]: known for known in catalogue if known["events"]}
    assert set(found) == {"api_calls", "tokens"}
    assert found["tokens"]["labels"] == {"provider": ["azure"], "type": ["input", "output"]}


def test_series_of_a_year_of_months_are_exact(site: Site) -> None:
    """Readings every five minutes to every hour, over months: many hours with few events each."""
    names = ("ec2_request_latency_system_failure", "nyc_taxi")
    for name in names:
        site.take_in(str(DATA / "nab" / f"{name}.csv"), "--event", f"{name}={{value}}")
        with (DATA / "nab" / f"{name}.csv").open(newline="") as file:
            readings = [
                (datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC), float(row["value"]))
                for row in csv.DictReader(file)
            ]
        answer = site.history(name, **{"from": "2013-01-01", "to": "2016-01-01", "step": "1d", "agg": "count,sum"})
        counts, sums = (dict(map(tuple, line["points"])) for line in answer["series"])
        by_day: dict[float, list[float]] = {}
        for when, value in readings:
            by_day.setdefault(when.replace(hour=0, minute=0, second=0).timestamp(), []).append(value)
        assert {start: count for start, count in counts.items() if count} == {d: len(v) for d, v in by_day.items()}
        for start, values in by_day.items():
            assert sums[start] == pytest.approx(math.fsum(values), rel=1e-12)
        assert answer["exact"]
