"""`vibezen-metrics replay`: mistakes are one line, and the result is told to people and programs."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import stored
from tests.support.feeding import NOON, event
from vibezen.metrics.layout import Layout

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    layout = Layout(tmp_path / "store")
    layout.create()
    stored.archive(layout, [event(value, NOON + value) for value in range(10)])
    return layout.root


RANGE = ("--from", "2025-11-24T12:00", "--to", "2025-11-24T13:00")


def test_each_mistake_is_one_line_that_names_it(folder: Path, run_here: Run) -> None:
    for words, named in (
        (RANGE, "--into-prefix"),
        ((*RANGE, "--print", "--into-prefix", "again"), "--into-prefix"),
        ((*RANGE, "--into-prefix", "a{b"), "--into-prefix"),
        ((*RANGE, "--into-prefix", "a/b"), "--into-prefix"),
        ((*RANGE, "--print", "--speed", "0"), "speed"),
        ((*RANGE, "--print", "--shift", "1h"), "shift"),
        (("--from", "now-1h", "--to", "2025-11-24", "--into-prefix", "again"), "from"),
        (("--from", "2025-11-24", "--to", "now", "--into-prefix", "again"), "to"),
        (("--from", "2025-11-25", "--to", "2025-11-24", "--print"), "from"),
    ):
        told = run_here("replay", *words, "--storage-dir", folder)
        assert (told.returncode, told.stderr.count("\n")) == (2, 1), told.stderr
        assert told.stderr.startswith(f"vibezen-metrics: {named}: ")


def test_printed_events_are_those_of_the_range_moved_where_asked(folder: Path, run_here: Run) -> None:
    told = run_here("replay", *RANGE, "--print", "--shift", "-60", "--storage-dir", folder)
    assert [json.loads(line)["ts"] for line in told.stdout.splitlines()] == [NOON - 60 + value for value in range(10)]


@pytest.mark.server
def test_the_result_is_told(folder: Path, run_here: Run, redis_url: str) -> None:
    words = (*RANGE, "--into-prefix", "again", "--storage-dir", folder, "--redis-url", redis_url)
    assert run_here("replay", *words).stdout == "again: 10 events appended, 0 there already\n"
    told = json.loads(run_here("replay", *words, "--json").stdout)
    assert (told["appended"], told["already_there"], told["complete"]) == (0, 10, True)
