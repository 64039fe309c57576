"""Who may import whom, what an application pays for importing us, and what a Lua script may do."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRUNK = ROOT / "vibezen" / "metrics"
ROLES = ("producers", "consumers", "api")

KNOWS_ALL_ROLES = {"__init__", "__main__", "cli", "commands", "dashboard", "up"}
"""The face, which loads a role on first use; the command line; the all-in-one runner."""

HEAVY = ("duckdb", "starlette", "sse_starlette", "uvicorn", "websockets", "typer", "rich")
"""What an application that only records never needs."""

SCRIPTS = sorted(path for role in (*ROLES, "vibezen/metrics") for path in (ROOT / role / "lua").glob("*.lua"))


def contracts() -> dict[str, dict[str, Any]]:
    """import-linter's contracts by the first word of their names that tells them apart."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    by_kind = {}
    for contract in listed:
        sources = contract.get("source_modules", contract.get("modules"))
        kind = (
            "roles"
            if contract["type"] == "independence"
            else "trunk"
            if "imports no role" in contract["name"]
            else "pure"
        )
        by_kind[kind] = contract | {"sources": [name.removeprefix("vibezen.metrics.") for name in sources]}
    return by_kind


def trunk_modules() -> set[str]:
    files = {path.stem for path in TRUNK.glob("*.py")}
    return files | {path.parent.name for path in TRUNK.glob("*/__init__.py")} - set(ROLES)


def test_every_trunk_module_stands_under_the_law_or_may_know_all_roles() -> None:
    sources = contracts()["trunk"]["sources"]
    assert set(sources) | KNOWS_ALL_ROLES == trunk_modules()
    assert not set(sources) & KNOWS_ALL_ROLES
    assert len(sources) == len(set(sources))


def test_the_law_names_every_role() -> None:
    roles = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
    assert roles == sorted(ROLES)
    assert sorted(contracts()["roles"]["sources"]) == roles
    forbidden = contracts()["trunk"]["forbidden_modules"]
    assert sorted(forbidden) == [f"vibezen.metrics.{role}" for role in roles]


def test_pure_modules_are_trunk_modules_that_may_import_no_server_and_no_web() -> None:
    pure = contracts()["pure"]
    assert set(pure["sources"]) <= set(contracts()["trunk"]["sources"])
    assert {"event", "verdict", "batch", "series", "histogram", "window", "keys"} <= set(pure["sources"])
    assert {"redis", "starlette", "uvicorn", "duckdb"} <= set(pure["forbidden_modules"])


def test_nobody_breaks_the_law() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed")
    told = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "3 kept, 0 broken" in told.stdout


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after this statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(told.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import vibezen.metrics",
        "from vibezen.metrics import MetricsCollector",
        "from vibezen.metrics import MetricType, InvalidEvent, MetricsStorage",
    ],
)
def test_what_applications_import_loads_no_web_server_and_no_database(statement: str) -> None:
    loaded = loaded_by(statement)
    assert "vibezen.metrics" in loaded
    assert not loaded & set(HEAVY)
    assert not {f"vibezen.metrics.{role}" for role in ("consumers", "api")} & loaded


def test_importing_the_face_loads_nothing_of_ours_but_itself() -> None:
    assert {name for name in loaded_by("import vibezen.metrics") if name.startswith("vibezen")} == {
        "vibezen",
        "vibezen.metrics",
    }


def parts(script: Path) -> tuple[list[str], str]:
    """The header's lines, and the code without its comments."""
    lines = script.read_text().split("\n")
    header = []
    for line in lines[1:]:
        if not line.startswith("--"):
            break
        header.append(line)
    code = "\n".join(re.sub(r"--.*", "", line) for line in lines[1:])
    return header, code


def calls(code: str) -> Iterator[tuple[str, list[str]]]:
    """Each call of a server command: the command as it is written, and its arguments as far as they are plain."""
    for match in re.finditer(r"redis\.p?call\((?=([^()]*))", code):
        command, *arguments = (part.strip() for part in match[1].split(","))
        yield command, arguments


def key_names(code: str) -> set[str]:
    """Local names that stand for a key: `local stream, producers = KEYS[1], KEYS[2]`."""
    names = set()
    for match in re.finditer(r"local ([\w, ]+) = ([^\n]+)", code):
        for name, value in zip(match[1].split(","), match[2].split(","), strict=False):
            if re.fullmatch(r"KEYS\[\d+\]", value.strip()):
                names.add(name.strip())
    return names


def test_scripts_are_found() -> None:
    found = set(ROOT.glob("*/lua/*.lua")) | set(TRUNK.glob("lua/*.lua"))
    assert found == set(SCRIPTS)
    assert {path.stem for path in SCRIPTS} >= {"append", "take", "renew", "archive_commit", "aggregate_commit", "trim"}


each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parts[-3]}/{path.stem}")


@each_script
def test_script_says_what_it_takes_what_it_answers_and_why_it_is_atomic(script: Path) -> None:
    assert re.match(r"#!lua( flags=[a-z-]+(,[a-z-]+)*)?\n", script.read_text()), "the first line names the engine"
    header, code = parts(script)
    text = "\n".join(header)
    assert re.search(r"^-- [A-Z][^\n]+\.$", text, re.M), "the first sentence says what it does"
    for name in ("KEYS", "ARGV"):
        assert (f"\n-- {name} " in text) == (name in code), (
            f"{name} stands in the header when it is used, and only then"
        )
    assert re.search(r"^-- Reply\s", text, re.M)
    assert re.search(r"^-- Atomic", text, re.M)


@each_script
def test_script_takes_key_names_from_keys_alone_and_builds_no_code(script: Path) -> None:
    _, code = parts(script)
    assert not re.search(r"\b(loadstring|load|dofile|require|setfenv|getfenv|debug|_G)\b", code)
    assert not re.search(r"KEYS\[[^\]]+\]\s*\.\.|\.\.\s*KEYS\[", code), "a key is never part of another name"
    known = key_names(code)
    found = list(calls(code))
    assert len(found) == len(re.findall(r"\bredis\s*\.\s*p?call|\bcall\b\s*\(", code))
    for command, arguments in found:
        assert re.fullmatch(r"'[A-Z]+'", command), f"{command}: a command is written out"
        assert command not in ("'EVAL'", "'EVALSHA'", "'FCALL'", "'SCRIPT'", "'KEYS'", "'SCAN'")
        if command == "'TIME'":
            continue
        if command in ("'XINFO'", "'XGROUP'", "'MEMORY'"):
            assert re.fullmatch(r"'[A-Z]+'", arguments.pop(0))
        assert re.fullmatch(r"KEYS\[\w+\]", arguments[0]) or arguments[0] in known, f"{command} of {arguments[0]}"


@each_script
def test_keys_of_the_header_are_the_keys_of_the_code(script: Path) -> None:
    header, code = parts(script)
    text = re.sub(r"\n--\s+", " ", "\n".join(header))
    match = re.search(r"KEYS\s+(.*?)\s(?:-- )?(?:ARGV|Reply)\s", text)
    assert match is not None
    told = [int(number) for number in re.findall(r"(?:^|\s)(\d+)(?:…|\s)", match[1])]
    used = {int(number) for number in re.findall(r"KEYS\[(\d+)\]", code)}
    assert told == list(range(1, len(told) + 1))
    assert used <= set(told)
    assert set(told) - used <= ({told[-1]} if "…" in match[1] else set())
