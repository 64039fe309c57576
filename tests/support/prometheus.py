"""A real Prometheus that scrapes one address, and its promtool."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from tests.support.servers import free_port
from tests.support.waiting import DEADLINE, wait_until

NATIVE_HISTOGRAMS: Final = "--enable-feature=native-histograms"


def program(name: str) -> str:
    """`prometheus` or `promtool`; skips the test where there is none, and fails it in CI."""
    if found := shutil.which(name):
        return found
    reason = f"no {name} here: apt install prometheus"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def complaints(exposition: bytes) -> str:
    """What promtool finds to say about an exposition in Prometheus' own text format; empty when all is well."""
    command = [program("promtool"), "check", "metrics"]
    done = subprocess.run(command, input=exposition, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.stdout.decode() + (f"exit code {done.returncode}" if done.returncode else "")


class Prometheus:
    def __init__(self, port: int) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE)

    def __enter__(self) -> "Prometheus":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def answers(self) -> bool:
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, query: str) -> dict[str, Any]:
        """The newest values of a query, by series without its own labels for the target."""
        answer = self._http.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", answer
        return {_name(one["metric"]): float(one["value"][1]) for one in answer["data"]["result"] if "value" in one}

    def histogram(self, name: str) -> Any:
        """Count, sum, and low, high, samples of each bucket in turn, of the one native histogram of this name."""
        (one,) = self._http.get("/api/v1/query", params={"query": name}).json()["data"]["result"]
        told = one["histogram"][1]
        buckets = [float(number) for _, *bucket in told["buckets"] for number in bucket]
        return float(told["count"]), float(told["sum"]), buckets

    def types(self) -> dict[str, str]:
        """Families, and what Prometheus takes them for."""
        told = self._http.get("/api/v1/metadata").json()["data"]
        return {name: about[0]["type"] for name, about in told.items()}

    def failure(self) -> str:
        """Why the last scrape failed; empty when it did not."""
        targets = self._http.get("/api/v1/targets").json()["data"]["activeTargets"]
        return "".join(target["lastError"] for target in targets)


def _name(labels: dict[str, str]) -> str:
    told = {name: value for name, value in labels.items() if name not in ("__name__", "instance", "job")}
    return labels.get("__name__", "") + (
        "{" + ",".join(f"{n}={v}" for n, v in sorted(told.items())) + "}" if told else ""
    )


@contextmanager
def scraping(port: int, folder: Path, *options: str, **scrape: Any) -> Iterator[Prometheus]:
    """A Prometheus that asks for `/metrics` at a port of this machine twice a second, from five seconds after its start
    on; `scrape`: more settings of the job."""
    folder.mkdir()
    job = {"job_name": "vibezen", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}], **scrape}
    settings = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    own = free_port()
    command = [
        *(program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
        *(f"--web.listen-address=127.0.0.1:{own}", *options),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with Prometheus(own) as prometheus:
            wait_until(prometheus.answers)
            yield prometheus
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
