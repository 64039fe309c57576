"""`sql` as a user runs it: one SELECT, as a table, JSON or CSV; mistakes in a line."""

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.support.feeding import event
from tests.support.stores import Store
from tests.support.waiting import WaitUntil

Run = Callable[..., "subprocess.CompletedProcess[str]"]
START = 1_763_985_600.0
BY_PROVIDER = (
    "SELECT provider, count(*) AS n, sum(value) AS total, min(ts) AS first FROM events GROUP BY ALL ORDER BY ALL"
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.add([event(float(n), START + n, "cost", provider="ab"[n % 2]) for n in range(10)])
    return store


@pytest.fixture
def sql(run_here: Run, store: Store) -> Run:
    return lambda *arguments: run_here("sql", *arguments, "--storage-dir", store.layout.root)


def test_table_json_csv_and_jsonl_tell_the_same(sql: Run) -> None:
    table, whole = sql(BY_PROVIDER), sql(BY_PROVIDER, "--format", "json")
    rows, lines = sql(BY_PROVIDER, "--format", "csv"), sql(BY_PROVIDER, "--format", "jsonl")
    expected = [
        {"provider": "a", "n": 5, "total": 20.0, "first": "2025-11-24T12:00:00"},
        {"provider": "b", "n": 5, "total": 25.0, "first": "2025-11-24T12:00:01"},
    ]
    assert json.loads(whole.stdout) == expected
    assert [json.loads(line) for line in lines.stdout.splitlines()] == expected
    assert list(csv.DictReader(io.StringIO(rows.stdout))) == [
        {name: str(value) for name, value in row.items()} for row in expected
    ]
    assert [line.split("│")[1:5] for line in table.stdout.splitlines() if "│" in line] == [
        [" a        ", " 5 ", "    20 ", " 2025-11-24T12:00:00 "],
        [" b        ", " 5 ", "    25 ", " 2025-11-24T12:00:01 "],
    ]
    assert (table.stderr, whole.stderr) == ("", "")


@pytest.mark.parametrize(
    ("format_", "told"), [("table", "no rows\n"), ("json", "[]\n"), ("csv", "ts\n"), ("jsonl", "")]
)
def test_no_rows_are_an_answer(sql: Run, format_: str, told: str) -> None:
    done = sql("SELECT ts FROM events WHERE value > 100", "--format", format_)
    assert (done.returncode, done.stdout) == (0, told)


def test_table_has_a_limit_and_tells_the_rest(sql: Run) -> None:
    done = sql("SELECT range FROM range(12345)", "--limit", "3")
    assert [line for line in done.stdout.splitlines() if "│" in line] == [f"│     {n} │" for n in range(3)]
    assert "12,345 rows" in done.stdout
    assert done.stdout.splitlines()[-1] == "… 12,342 more (--limit, or --format csv)"
    assert len(sql("SELECT range FROM range(12345)", "--format", "jsonl").stdout.splitlines()) == 12_345


def test_metadata_is_json_in_json_and_text_in_csv(sql: Run) -> None:
    text = "SELECT metadata, [1, 2] AS pair, true AS yes, NULL AS none FROM events LIMIT 1"
    assert json.loads(sql(text, "--format", "json").stdout) == [
        {"metadata": {"provider": "a"}, "pair": [1, 2], "yes": True, "none": None}
    ]
    assert list(csv.reader(io.StringIO(sql(text, "--format", "csv").stdout)))[1] == [
        *('{"provider":"a"}', "[1,2]", "true", "")
    ]


def test_statement_comes_from_a_file_or_standard_input(sql: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text("-- how many\nSELECT count(*) AS n FROM events;\n")
    assert json.loads(sql("-f", tmp_path / "x.sql", "--format", "json").stdout) == [{"n": 10}]
    command = [
        sys.executable,
        "-m",
        "vibezen.metrics",
        "sql",
        "--format",
        "json",
        "--storage-dir",
        str(store.layout.root),
    ]
    done = subprocess.run(command, input="SELECT 7 AS n", capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == [{"n": 7}]


def test_range_leaves_out_what_is_not_in_it(sql: Run) -> None:
    done = sql("SELECT count(*) AS n FROM events", "--from", str(START + 2), "--to", str(START + 5), "--format", "json")
    assert json.loads(done.stdout) == [{"n": 3}]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("SELECT provder FROM events",), 1, 'Referenced column "provder" not found'),
        (("SELEC 1",), 1, "syntax error"),
        (("FROM read_text('/etc/passwd')",), 1, "read_text() is not allowed"),
        (("DROP VIEW events",), 1, "DROP: only SELECT is allowed"),
        (("SELECT count(*) FROM range(1000000000) a, range(1000000000) b", "--timeout", "0.1"), 1, "it took longer"),
        (("SELECT 1", "--from", "someday"), 2, "from: "),
        (("-f", "/nowhere.sql"), 2, "file: "),
    ],
)
def test_mistakes_are_told_in_short(sql: Run, arguments: tuple[str, ...], code: int, word: str) -> None:
    done = sql(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"vibezen-metrics: {word}"), done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_folder_that_is_no_store_is_one_line(run_here: Run, tmp_path: Path) -> None:
    done = run_here("sql", "SELECT 1", "--storage-dir", tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "not a store yet" in done.stderr


def test_text_from_events_cannot_steer_the_terminal_or_a_spreadsheet(sql: Run, store: Store) -> None:
    store.add([event(float(n), START + n, "x", provider=text) for n, text in enumerate(("\x1b[31mred", "=1+1"))])
    text = "SELECT provider FROM events WHERE metric = 'x' ORDER BY ts"
    assert "\x1b" not in sql(text).stdout
    assert "\x1b" not in sql("PIVOT events ON provider IN ('\x1b[31mred') USING count(*) GROUP BY metric").stdout
    assert sql(text, "--format", "csv").stdout.splitlines()[2] == "'=1+1"


@pytest.mark.parametrize("leaving", [b"\x04", b"exit\n"])
def test_prompt_answers_statement_after_statement(store: Store, wait_until: WaitUntil, leaving: bytes) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "vibezen.metrics", "sql", "--storage-dir", str(store.layout.root)]
    environment = {**os.environ, "TERM": "dumb"}
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    os.set_blocking(leader, False)
    told = ""

    def tells(text: str) -> bool:
        nonlocal told
        with suppress(BlockingIOError):
            told += os.read(leader, 65_536).decode()
        return text in told

    try:
        wait_until(lambda: tells("sql>"))
        for typed, answer in ((b"SELECT count(*)\n+ 1000\nFROM events;\n", "1,010"), (b"SELEC;\n", "syntax error")):
            os.write(leader, typed)
            wait_until(partial(tells, answer))
        os.write(leader, b"SELECT 40 + 2;\n")
        wait_until(lambda: tells(" 42 ") and told.rstrip().endswith("sql>"))
        os.write(leader, leaving)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def used_seconds(pid: int) -> float:
    """Of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_ctrl_c_stops_a_statement_and_leaves_nothing(store: Store, wait_until: WaitUntil) -> None:
    statement = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b"
    command = [sys.executable, "-m", "vibezen.metrics", "sql", "--storage-dir", str(store.layout.root), statement]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: used_seconds(process.pid) > 3)  # far more than it takes to begin
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
        assert (process.returncode, told.count("Traceback")) == (130, 0), told
        assert list((store.layout.root / "exports").iterdir()) == []
    finally:
        process.kill()
        process.wait()
