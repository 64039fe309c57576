"""`vibezen-metrics import`: what it prints and answers, and recorded data of the real world, exact on disk."""

import csv
import gzip
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from math import fsum
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import yaml

from tests.support.feeding import lines_on_disk
from tests.support.processes import StartRole
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers.importer_mapping import parse_event, plans, read_map

Run = Callable[..., "subprocess.CompletedProcess[str]"]

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
AZURE: Final = "azure-llm-2023/AzureLLMInferenceTrace_code.csv"
EVENTS: Final = (
    *("--event", "api_calls=1", "--event", "tokens={ContextTokens},type=input"),
    *("--event", "tokens={GeneratedTokens},type=output", "--set", "provider=azure"),
)
ARCHIVED: Final = 120.0
"""Seconds a group may take: the NAB series lie in thousands of hours, each a file made durable by itself."""
GOOD: Final = "ts,n\n1700000000,1\n1700000001,2.5\n"


def recorded(name: str) -> Path:
    """A file of recorded data; skips where it is absent, and fails in CI."""
    path = DATA / name
    if not path.exists():
        reason = f"no recorded data at {path}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def archived(start_role: StartRole, redis_url: str, store: Path) -> Callable[[], list[dict[str, Any]]]:
    """What both groups make of the stream: the lines on disk."""

    def read() -> list[dict[str, Any]]:
        for group in ("archive", "aggregate"):
            role = start_role("consume", group, "--once", "--redis-url", redis_url, "--storage-dir", str(store))
            assert role.wait(ARCHIVED) == 0, role.said
        return lines_on_disk(store)

    return read


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(GOOD)
    return path


def micros(text: str) -> int:
    """A time as the file writes it, in whole microseconds since 1970, by the plainest means."""
    seconds, _, fraction = text.partition(".")
    whole = datetime.strptime(seconds, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    return int(whole.timestamp()) * 1_000_000 + int(f"{fraction:0<6}"[:6])


def test_the_azure_trace_is_exact_on_disk(
    run_here: Run, redis_url: str, archived: Callable[[], list[dict[str, Any]]], client: redis.Redis
) -> None:
    path = recorded(AZURE)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for told in ("26,457 appended, 0 there already", "0 appended, 26,457 there already"):
        done = run_here("import", path, *EVENTS, "--redis-url", redis_url)
        assert done.returncode == 0, done.stderr
        assert f"8,819 read, none rejected\n  events  26,457 made: {told}" in done.stdout
    lines = archived()
    assert len(lines) == 3 * len(rows) == 3 * 8819
    sums: Counter[str] = Counter()
    times: defaultdict[str, list[int]] = defaultdict(list)
    for line in lines:
        name = line["metadata"].pop("type", line["metric"])
        assert line["metadata"] == {"provider": "azure"}
        sums[name] += line["value"]
        times[name].append(round(line["ts"] * 1_000_000))
    assert sums == {
        "api_calls": len(rows),
        "input": sum(int(row["ContextTokens"]) for row in rows),
        "output": sum(int(row["GeneratedTokens"]) for row in rows),
    }
    assert all(found == [micros(row["TIMESTAMP"]) for row in rows] for found in times.values())
    assert client.hget(Keys().books(0), "archive.events") == b"26457"


@pytest.mark.parametrize("series", [2, pytest.param(7, marks=pytest.mark.soak)])
def test_the_nab_series_are_exact_on_disk(
    run_here: Run, redis_url: str, archived: Callable[[], list[dict[str, Any]]], series: int
) -> None:
    recorded("nab")
    files = sorted((DATA / "nab").glob("*.csv"), key=lambda path: path.stat().st_size)
    assert len(files) == 7
    files = files[:series]
    for path in files:
        done = run_here("import", path, "--event", f"nab={{value}},operation={path.stem}", "--redis-url", redis_url)
        assert done.returncode == 0, done.stderr
    found: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in archived():
        found[line["metadata"]["operation"]].append((round(line["ts"] * 1_000_000), line["value"]))
    for path in files:
        with path.open(newline="") as file:
            wanted = [(micros(row["timestamp"]), float(row["value"])) for row in csv.DictReader(file)]
        assert sorted(found[path.stem]) == sorted(wanted), path.stem
        assert fsum(value for _, value in found[path.stem]) == fsum(value for _, value in wanted)


def test_our_own_segments_can_be_imported_again(
    run_here: Run, redis_url: str, archived: Callable[[], list[dict[str, Any]]], file: Path, tmp_path: Path
) -> None:
    rows = "".join(f"{1_700_000_000 + n * 60},{n},model-{n % 3}\n" for n in range(500))
    file.write_text("ts,n,model\n" + rows)
    run_here("import", file, "--event", "tokens={n},model={model},count=2", "--redis-url", redis_url)
    first = archived()
    segments = sorted((tmp_path / "store" / "events").rglob("*.jsonl"))
    assert len(segments) == 9
    kept = tmp_path / "kept.jsonl.gz"
    kept.write_bytes(gzip.compress(b"".join(segment.read_bytes() for segment in segments)))
    done = run_here("import", kept, "--redis-url", redis_url)
    assert "500 made: 500 appended" in done.stdout, done.stderr
    lines = Counter(json.dumps(line, sort_keys=True) for line in archived())
    assert lines == Counter({json.dumps(line, sort_keys=True): 2 for line in first})


def test_a_dry_run_describes_and_needs_no_server(run_here: Run, file: Path, free_port: int) -> None:
    file.write_text(GOOD + "later,1\n1700000002,\n")
    done = run_here("import", file, "--event", "m={n}*2", "--dry-run", "--redis-url", f"redis://127.0.0.1:{free_port}")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        str(file),
        "  rows    4 read, 1 rejected",
        "  events  2 made, 1 values empty: nothing appended (dry run)",
        "  time    2023-11-14T22:13:20.000Z to 2023-11-14T22:13:21.000Z",
        "  m: 2 events, min 2, max 5, sum 7",
        '  {"metric":"m","value":2.0,"ts":1700000000.0}',
        '  {"metric":"m","value":5.0,"ts":1700000001.0}',
    ]
    assert f"{file}: line 4: ts: 'later' is not an ISO 8601 time or Unix time" in done.stderr
    assert "retention counts from an event's arrival" in done.stderr
    assert "older than the windows are kept (26 h)" in done.stderr


def test_no_server_is_one_line_and_exit_code_1(run_here: Run, file: Path, free_port: int) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port}"
    done = run_here("import", file, "--event", "m={n}", "--redis-url", url)
    line = f"vibezen-metrics: {url.replace('secret', '***')}: no Redis or Valkey answers: connection refused\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


def test_the_result_can_be_read_by_a_program(run_here: Run, redis_url: str, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.ndjson"
    other.write_text('{"metric":"m","value":1,"ts":1700000000}\n')
    done = run_here("import", file, "--event", "m={n}", "--redis-url", redis_url, "--json")
    told = json.loads(done.stdout)
    (balance,) = told.pop("files")
    assert told == {"complete": True, "dry_run": False, "error": None}
    assert balance.items() >= {"rows": 2, "events": 2, "appended": 2, "rejected": 0, "complete": True}.items()
    told = json.loads(run_here("import", other, "--redis-url", redis_url, "--json", "--limit", "1").stdout)
    assert told["files"][0]["appended"] == 1


def test_strict_makes_a_rejected_row_a_failure(run_here: Run, redis_url: str, file: Path, tmp_path: Path) -> None:
    file.write_text(GOOD + "1700000002,many\n")
    arguments = ("import", file, "--event", "m={n}", "--redis-url", redis_url, "--rejects", tmp_path / "no.ndjson")
    assert run_here(*arguments).returncode == 0
    strict = run_here(*arguments, "--strict")
    assert strict.returncode == 1
    assert "3 read, 1 rejected" in strict.stdout
    assert json.loads((tmp_path / "no.ndjson").read_text())["line"] == 4


def test_standard_input_is_read_zipped_or_not(redis_url: str, client: redis.Redis) -> None:
    def piped(data: bytes) -> str:
        command = [sys.executable, "-m", "vibezen.metrics", "import", "-", "--event", "m={n}", "--redis-url", redis_url]
        done = subprocess.run(command, input=data, capture_output=True, timeout=DEADLINE, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    assert "2 made: 2 appended" in piped(GOOD.encode())
    assert "2 made: 0 appended, 2 there already" in piped(gzip.compress(GOOD.encode()))
    assert client.xlen(Keys().events(0)) == 1


def test_asked_to_stop_while_a_pipe_is_silent_it_ends_and_tells_how_to_go_on(
    start_role: StartRole, redis_url: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    role = start_role("import", str(pipe), "--event", "m={n}", "--redis-url", redis_url)
    with pipe.open("w") as writer:  # opens once the importer reads
        writer.write(GOOD)
        writer.flush()
        assert role.stop() == 1
    assert "interrupted: 0 events are in the stream; run the same command again to go on" in role.said


def test_a_wrong_usage_is_one_line_and_exit_code_2(run_here: Run, file: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "map.yaml"
    wrong.write_text("events: [{metric: a, value: '{n}', labels: {}}]")
    cases = {
        ("--event", "m={N}"): "{N}: there is no such column; the columns are ts, n",
        (): "--event: say which events a row gives, or name columns metric and value; the columns are ts, n",
        ("--event", "m"): "--event: 'm': expected METRIC=VALUE[,key=value…], where {Column} stands for a column",
        ("--map", wrong): f"{wrong}: events[0].labels: unknown key; expected one of metric, value, count, "
        "sample_rate, metadata",
        ("--event", "m={n}", "--timezone", "Mars"): "timezone: 'Mars' is not a known time zone; expected a name like "
        "Europe/Berlin",
    }
    for arguments, told in cases.items():
        done = run_here("import", file, *arguments, "--dry-run")
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"vibezen-metrics: {told}\n")


def test_mappings_shown_in_the_documentation_are_valid(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "importing.md").read_text()
    blocks = [block.partition("\n```")[0] for block in text.split("```yml\n")[1:]]
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        assert plans(read_map(path))
        assert yaml.safe_load(block)
    for line in text.splitlines():
        if line.startswith("vibezen-metrics import"):
            for part in line.split("--event ")[1:]:
                parse_event(part.split("'")[1] if part.startswith("'") else part.split()[0])
