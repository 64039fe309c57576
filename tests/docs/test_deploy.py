"""The files in deploy/ and the Procfile start what exists, with a server that is accepted."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from tests.support.prometheus import program
from tests.support.servers import KINDS, StartServer
from vibezen.metrics.catalogue import BUILT_IN
from vibezen.metrics.cli import app
from vibezen.metrics.connection import check_server, connect

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def started() -> dict[str, list[str]]:
    """Where → the arguments that `vibezen-metrics` is started with there."""
    found = {}
    for line in (ROOT / "Procfile").read_text().splitlines():
        name, _, command = line.partition(": ")
        found[f"Procfile {name}"] = shlex.split(command)[1:]
    for unit in (DEPLOY / "systemd").glob("*.service"):
        (command,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
        found[unit.name] = shlex.split(command.replace("%i", "archive"))[1:]
    for name, service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items():
        if "build" in service:
            found[f"compose {name}"] = service["command"]
    (default,) = re.findall(r"^CMD (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    found["Dockerfile"] = json.loads(default)
    return found


@pytest.mark.parametrize(("place", "arguments"), started().items())
def test_every_start_is_a_valid_command(place: str, arguments: list[str]) -> None:
    command = get_command(app)
    name, *rest = arguments
    found = command.commands[name]  # type: ignore[attr-defined]
    found.make_context(name, rest).close()  # parses, and runs nothing


def test_procfile_has_every_role_that_serves() -> None:
    assert [name for name in started() if name.startswith("Procfile")] == [
        "Procfile archive",
        "Procfile aggregate",
        "Procfile compact",
        "Procfile api",
        "Procfile gateway",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_server_set_up_as_advised_is_accepted(start_server: StartServer, kind: str) -> None:
    lines = (DEPLOY / "redis.conf").read_text().splitlines()
    options = [shlex.split(line) for line in lines if line and not line.startswith("#")]
    server = start_server(kind, *(word for name, *values in options for word in (f"--{name}", *values)))
    with connect(server.url) as client:
        check_server(client, server.url)
        assert client.config_get("maxmemory")["maxmemory"] == str(2 * 1024**3)


def test_prometheus_accepts_its_configuration_and_rules() -> None:
    command = [program("promtool"), "check", "config", "--lint-fatal", str(DEPLOY / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["prometheus-rules.yml", "grafana-dashboard.json"])
def test_rules_and_dashboard_ask_for_what_is_documented(name: str) -> None:
    documented = set(re.findall(r"vibezen_\w+", (ROOT / "docs" / "operations.md").read_text()))
    kinds = {"rate", "increase", "mean", "samples", "last", "p50", "p95", "p99"}
    of_metrics = {f"vibezen_{metric}_{ending}" for metric in BUILT_IN for ending in kinds}
    asked = set(re.findall(r"vibezen_\w+", (DEPLOY / name).read_text()))
    assert asked
    assert asked <= documented | of_metrics
