"""`query` and `tail` as a user runs them: without an API, and for files without a server too."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.feeding import Feed, event
from tests.support.pipeline import Pipeline
from tests.support.processes import StartRole
from tests.support.waiting import WaitUntil
from vibezen.metrics.layout import Layout

pytestmark = pytest.mark.server

Run = Callable[..., "subprocess.CompletedProcess[str]"]
OLD = 1_700_157_600.0
AT = ("--from", "2023-11-16T18:00:00Z", "--to", "2023-11-16T19:00:00Z")


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    return Pipeline(client, redis_url, tmp_path / "store")


@pytest.fixture
def ask(run_here: Run, pipeline: Pipeline) -> Run:
    def ask(*arguments: str) -> "subprocess.CompletedProcess[str]":
        where = ("--redis-url", pipeline.url, "--storage-dir", str(pipeline.layout.root))
        return run_here(*arguments, *where)

    return ask


def tokens(pipeline: Pipeline) -> None:
    pipeline.take_in(
        [event(n, OLD + n, "tokens", type=kind, provider="a,b") for n in range(4) for kind in ("in", "out")]
    )


def test_table_csv_and_json_tell_the_same(pipeline: Pipeline, ask: Run) -> None:
    tokens(pipeline)
    arguments = ("query", "tokens", *AT, "--step", "1h", "--group-by", "type,provider", "--agg", "sum,count")
    table, told, whole = ask(*arguments), ask(*arguments, "--csv"), ask(*arguments, "--json")
    assert (table.returncode, told.returncode, whole.returncode) == (0, 0, 0), table.stderr
    rows = list(csv.reader(io.StringIO(told.stdout)))
    assert rows == [
        ["time", "type", "provider", "sum", "count"],
        ["2023-11-16T18:00:00.000Z", "in", "a,b", "6.0", "4"],
        ["2023-11-16T18:00:00.000Z", "out", "a,b", "6.0", "4"],
    ]
    assert "exact; events from 2023-11-16T18:00:00.000Z to 2023-11-16T19:00:00.000Z" in table.stdout
    assert [line.split("│")[1:6] for line in table.stdout.splitlines() if "│" in line] == [
        [" 2023-11-16T18:00:00.000Z ", " in   ", " a,b      ", "   6 ", "     4 "],
        [" 2023-11-16T18:00:00.000Z ", " out  ", " a,b      ", "   6 ", "     4 "],
    ]
    answer = json.loads(whole.stdout)
    assert [line["points"][0][1] for line in answer["series"]] == [6, 4, 6, 4]


def test_files_answer_without_a_server(pipeline: Pipeline, run_here: Run, free_port: int) -> None:
    tokens(pipeline)
    away = ("--redis-url", f"redis://127.0.0.1:{free_port}", "--storage-dir", str(pipeline.layout.root))
    done = run_here("query", "tokens", *AT, "--agg", "sum", "--step", "1h", "--csv", *away)
    assert (done.returncode, done.stdout.splitlines()[1]) == (0, "2023-11-16T18:00:00.000Z,12.0")
    done = run_here("tail", "--no-follow", "-n", "1", "--json", *away)
    assert json.loads(done.stdout)["ts"] == OLD + 3


def test_range_to_the_end_of_the_calendar_is_answered(pipeline: Pipeline, ask: Run) -> None:
    tokens(pipeline)
    done = ask("query", "tokens", "--from", "2000-01-01", "--to", "9999-12-31T23:59:59", "--agg", "sum")
    assert (done.returncode, done.stderr) == (0, "")
    assert "12" in done.stdout


def test_output_that_nobody_takes_is_one_line(pipeline: Pipeline) -> None:
    tokens(pipeline)
    command = [sys.executable, "-m", "vibezen.metrics", "query", "tokens", "--from", "2023-11-16", "--to", "2023-11-17"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, "--storage-dir", str(pipeline.layout.root), "--redis-url", pipeline.url],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "vibezen-metrics: no space left on device\n")


def test_nothing_recorded_is_said(pipeline: Pipeline, ask: Run) -> None:
    done = ask("query", "cost", *AT)
    assert done.returncode == 0
    assert "nothing recorded" in done.stdout


def test_days_are_those_of_a_zone_and_the_largest_groups_are_shown(pipeline: Pipeline, ask: Run) -> None:
    pipeline.take_in([event(n, OLD, "tokens", session=f"s{n}") for n in range(1, 4)])
    day = ("--from", "2023-11-16", "--to", "2023-11-17", "--tz", "Asia/Kolkata", "--step", "1d", "--agg", "sum")
    asked = ("query", "tokens", *day, "--group-by", "session", "--top", "2")
    assert list(csv.reader(io.StringIO(ask(*asked, "--csv").stdout))) == [
        ["time", "session", "sum"],
        ["2023-11-16T00:00:00.000+05:30", "s2", "2.0"],
        ["2023-11-16T00:00:00.000+05:30", "s3", "3.0"],
    ]
    table = ask(*asked).stdout
    assert "1 groups with less left out" in table
    assert "to 2023-11-17T00:00:00.000+05:30" in table


def test_metric_that_nobody_knows_is_one_line_and_exit_code_1(pipeline: Pipeline, ask: Run) -> None:
    tokens(pipeline)
    done = ask("query", "token", *AT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "vibezen-metrics: no metric 'token' is declared, and none was recorded in this range; did you mean tokens?"
    ]
    done = ask("query", "token", *AT, "--json")
    assert (done.returncode, json.loads(done.stdout)["similar"]) == (1, ["tokens"])


def test_histogram_is_told_as_json_only(pipeline: Pipeline, ask: Run) -> None:
    tokens(pipeline)
    asked = ("query", "tokens", *AT, "--agg", "histogram", "--step", "1h")
    ((low, high, count), *_) = json.loads(ask(*asked, "--json").stdout)["series"][0]["points"][0][1]
    assert (low, high, count) == (0, 0, 2)
    assert ask(*asked).returncode == 2


def test_mistakes_are_one_line_and_exit_code_2(pipeline: Pipeline, ask: Run) -> None:
    for arguments, word in (
        (("query", "Bad"), "metric"),
        (("query", "cost", "--from", "tomorrow"), "from"),
        (("query", "cost", "--agg", "median"), "agg"),
        (("query", "cost", "--where", "x"), "where"),
        (("query", "cost", "--tz", "Nowhere"), "tz"),
        (("query", "cost", "--group-by", "A"), "group_by"),
        (("query", "cost", "--top", "3"), "top"),
        (("tail", "--where", "x"), "where"),
        (("query", "cost", "--where", "provider=\udcff"), "where"),
    ):
        done = ask(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.startswith(f"vibezen-metrics: {word}: ")
        assert len(done.stderr.splitlines()) == 1


def test_folder_that_is_no_store_is_one_line(run_here: Run, redis_url: str, tmp_path: Path) -> None:
    for command in (("query", "cost"), ("tail", "--no-follow")):
        done = run_here(*command, "--redis-url", redis_url, "--storage-dir", str(tmp_path / "nothing"))
        assert (done.returncode, done.stdout) == (1, "")
        assert "not a store yet" in done.stderr


def test_folder_of_another_store_than_the_servers_is_refused(pipeline: Pipeline, run_here: Run, tmp_path: Path) -> None:
    tokens(pipeline)
    other = Layout(tmp_path / "other")
    other.create()
    for command in (("query", "tokens"), ("tail",)):
        done = run_here(*command, "--redis-url", pipeline.url, "--storage-dir", str(other.root))
        assert done.returncode == 1
        assert "the server's events belong to store" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_text_from_events_cannot_steer_the_terminal_or_a_spreadsheet(pipeline: Pipeline, ask: Run) -> None:
    pipeline.take_in([event(1, OLD, "tokens", provider=name) for name in ("\x1b[31mred", "=1+1", "[bold]x")])
    table = ask("query", "tokens", *AT, "--group-by", "provider", "--step", "1h").stdout
    assert "\x1b" not in table
    assert "[bold]x" in table
    assert "'=1+1" in ask("query", "tokens", *AT, "--group-by", "provider", "--step", "1h", "--csv").stdout
    assert "\x1b" not in ask("tail", "--no-follow").stdout


def test_tail_shows_the_past_and_then_each_event_as_it_arrives(
    pipeline: Pipeline, client: redis.Redis, start_role: StartRole, wait_until: WaitUntil
) -> None:
    pipeline.take_in([event(number, OLD + number) for number in range(5)])
    pipeline.feed([event(5, OLD + 5)])  # appended, and not archived yet
    where = ("--redis-url", pipeline.url, "--storage-dir", str(pipeline.layout.root))
    process = start_role("tail", "-n", "2", "--json", "--metric", "response_time", *where)

    def shown() -> list[Any]:
        return [json.loads(line)["value"] for line in process.said.splitlines() if line.startswith("{")]

    wait_until(lambda: shown() == [3, 4, 5])
    Feed(client, "other").append([event(6), event(7, metric="cost"), event(8)])
    wait_until(lambda: shown() == [3, 4, 5, 6, 8])
    assert process.stop() == 0


def test_tail_shows_no_more_than_it_is_asked_to_and_counts_the_rest(
    pipeline: Pipeline, client: redis.Redis, start_role: StartRole, wait_until: WaitUntil
) -> None:
    where = ("--redis-url", pipeline.url, "--storage-dir", str(pipeline.layout.root))
    process = start_role("tail", "--rate", "2", "--json", *where)
    feed = Feed(client)

    def counted() -> bool:
        feed.append([event(1)] * 100)
        return " more" in process.said

    wait_until(counted)
    lines = process.said.splitlines()
    first = next(index for index, line in enumerate(lines) if line.endswith(" more"))
    assert sum(line.startswith("{") for line in lines[:first]) <= 4
    assert process.stop() == 0
