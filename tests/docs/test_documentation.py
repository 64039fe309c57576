"""README and docs agree with the code: their snippets run, their commands and options exist, their tables are whole."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
import yaml
from starlette.routing import Mount
from starlette.testclient import TestClient
from typer.main import get_command

from tests.support.servers import Server
from vibezen.metrics.api.app import build
from vibezen.metrics.api.dashboard import MetricsDashboard
from vibezen.metrics.batch import read_entry
from vibezen.metrics.catalogue import BUILT_IN
from vibezen.metrics.cli import app
from vibezen.metrics.config import load
from vibezen.metrics.keys import Keys
from vibezen.metrics.serving.access import access_for
from vibezen.metrics.settings import Settings
from vibezen.metrics.storage import MetricsStorage
from vibezen.metrics.verdict import judge

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NOW = 1_795_449_700.0


def blocks(language: str, besides: str = "") -> list[Any]:
    """Every fenced block of a language, as a test's parameter named by its document; `besides`: a document left out."""
    return [
        pytest.param(text, id=f"{document.name}-{number}")
        for document in DOCUMENTS
        if document.name != besides
        for number, text in enumerate(fenced(language, document.read_text()), 1)
    ]


def fenced(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """The words of every line of shell blocks that begins with `program`, which is left out."""
    lines = [
        line for document in DOCUMENTS for block in fenced("sh", document.read_text()) for line in block.splitlines()
    ]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in found if words and words[0] == program]


def rows(document: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    text = (ROOT / "docs" / document).read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    table = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("snippet", blocks("python", besides="gateway.md"))  # those need a running gateway
def test_python_snippets_run_as_they_stand(snippet: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIBEZEN_METRICS__REDIS__URL", redis_url)
    done = subprocess.run([sys.executable, "-W", "error", "-c", snippet], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", commands("vibezen-metrics"), ids=" ".join)
def test_commands_and_their_options_exist(words: list[str]) -> None:
    found: Any = get_command(app)
    while words and words[0] in getattr(found, "commands", {}):
        found, words = found.commands[words[0]], words[1:]
    assert not hasattr(found, "commands"), f"no such command: {words}"
    known = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


def test_commands_named_in_texts_exist() -> None:
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    for document in DOCUMENTS:
        named = re.findall(r"`vibezen-metrics ([a-z]+)", document.read_text())
        assert set(named) <= known, document


def test_targets_of_make_exist() -> None:
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text()
        named = {*re.findall(r"^make ([a-z]+)", text, re.MULTILINE), *re.findall(r"`make ([a-z]+)", text)}
        assert named <= known, document


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.name))
def test_links_lead_somewhere(document: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("text", blocks("yaml"))
def test_configurations_shown_are_valid(text: str, tmp_path: Path) -> None:
    path = tmp_path / "vibezen.yaml"
    path.write_text(text)
    load(path, environ={})


@pytest.mark.parametrize("text", blocks("json"))
def test_events_shown_are_accepted(text: str) -> None:
    assert not judge(text.encode(), NOW).rejected


def test_plain_entries_shown_are_accepted(client: redis.Redis) -> None:
    shown = [words for words in commands("redis-cli") if words[0] == "XADD"]
    assert shown
    for words in shown:
        client.execute_command(*words)  # type: ignore[no-untyped-call]
    entries: Any = client.xrange(Keys().events(0))
    assert len(entries) == len(shown)
    for entry_id, fields in entries:
        entry = read_entry(entry_id, fields)
        assert not judge(entry.payload, entry.arrived).rejected


def test_every_setting_is_documented_with_its_default() -> None:
    table = rows("configuration.md", "All settings")
    told = {code(setting)[0]: (code(default) or [default])[0] for setting, default, _ in table}
    assert len(told) == len(table), "each stands there once"
    defaults = flat(msgspec.to_builtins(Settings(), enc_hook=str))
    assert told.keys() == defaults.keys() - {"source"}
    plain = {name: value for name, value in defaults.items() if isinstance(value, bool | int | float | str)}
    for name, value in plain.items():
        expected = value if name != "storage_dir" else f"./{value}"
        assert yaml.safe_load(told[name]) == expected, name
    assert tuple(told["aggregation.labels"].split()) == defaults["aggregation.labels"]


def flat(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{path}{name}.") if isinstance(value, dict) and value else {f"{path}{name}": value}
    return found


def test_every_metric_is_documented_as_it_is() -> None:
    told = {
        name: (family, unit, kind)
        for names, family, unit, kind in rows("events-and-streams.md", "Metrics")
        for name in code(names.partition("(")[0])
    }
    assert told == {name: (spec.family, spec.unit, spec.kind) for name, spec in BUILT_IN.items()}


def test_every_key_is_documented() -> None:
    keys = Keys()
    built = {keys.events(0), keys.producers(0), keys.dead(0), keys.books(0), keys.floor(0), keys.window(0, 10, 0)}
    built |= {keys.lease(0, "archive"), keys.fence(0, "archive"), keys.frames}
    built |= {keys.sessions(0), keys.store, keys.shards, keys.members("archive"), keys.imported("import-1")}
    built.add(keys.shifted("import-1"))
    patterns = [
        re.sub(r"<\w+>", r".+", re.escape(name).replace(r"<s>", r"0"))
        for row in rows("events-and-streams.md", "Keys")
        for name in full_names(code(row[0]))
    ]
    assert {name for name in built if not any(re.fullmatch(pattern, name) for pattern in patterns)} == set()


def full_names(names: list[str]) -> list[str]:
    """`vibezen:{0}:lease`, `:fence` → both in full."""
    base = names[0].partition("}:")[0] + "}"
    return [names[0], *(base + name for name in names[1:])]


def test_every_route_is_documented_and_no_other(server: Server, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "http-api.md").read_text()
    told = set(re.findall(r"^\| `([A-Z]+) (/\S*)`", text, re.MULTILINE))
    storage = MetricsStorage(tmp_path)
    dashboard = MetricsDashboard(storage, settings=load(redis_url=server.url, environ={}))
    served = build(dashboard, access_for("127.0.0.1", "127.0.0.1", tmp_path, Settings()))
    with TestClient(served, base_url="http://localhost") as client:
        described = client.get("/api/openapi.json").json()["paths"]
    assert told - {("WS", "/ws")} == {
        (method.upper(), path) for path, methods in described.items() for method in methods
    }
    paths = {route.path for route in served.routes if not isinstance(route, Mount)}  # type: ignore[attr-defined]
    assert {path for _, path in told} == paths - {"/api/{rest:path}", "/docs.css"}
