"""`report` as a user runs it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.support.feeding import event
from tests.support.pipeline import Pipeline

pytestmark = pytest.mark.server

Run = Callable[..., "subprocess.CompletedProcess[str]"]
OLD = 1_700_157_600.0
PERIOD = ("--period", "2023-11-16..2023-11-17")


@pytest.fixture
def ask(run_here: Run, client: redis.Redis, redis_url: str, tmp_path: Path) -> Run:
    pipeline = Pipeline(client, redis_url, tmp_path / "store")
    pipeline.take_in([event(0.5, OLD + n, "cost", provider="openai") for n in range(4)])

    def ask(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return run_here("report", *arguments, "--redis-url", redis_url, "--storage-dir", pipeline.layout.root)

    return ask


def test_report_is_written_in_the_format_its_name_says(ask: Run, tmp_path: Path) -> None:
    for ending, beginning in (("md", "# Cost analysis"), ("json", "{"), ("csv", "section,group")):
        path = tmp_path / f"cost.{ending}"
        path.write_text("what was there before")
        done = ask("cost_analysis", *PERIOD, "-o", path)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert path.read_text().startswith(beginning)
    assert json.loads((tmp_path / "cost.json").read_text())["sections"][0]["figures"][0]["value"] == 2.0
    assert sorted(path.name for path in tmp_path.glob("*cost*")) == ["cost.csv", "cost.json", "cost.md"]


def test_without_a_file_it_is_markdown_on_standard_output(ask: Run) -> None:
    done = ask("cost_analysis", *PERIOD, "--tz", "Asia/Kolkata")
    assert done.returncode == 0
    assert done.stdout.startswith("# Cost analysis\n\nThu Nov 16 2023 (Asia/Kolkata), compared with Wed Nov 15 2023.")
    assert "| Cost | $2.00 | – |  | too little data |" in done.stdout


def test_definition_that_is_shown_can_be_changed_and_used(ask: Run, tmp_path: Path) -> None:
    shown = ask("cost_analysis", "--show-definition")
    mine = tmp_path / "mine.yaml"
    mine.write_text(shown.stdout.replace("title: Cost analysis", "title: Ours"))
    done = ask("--definition", mine, *PERIOD, "--format", "json")
    made = json.loads(done.stdout)
    assert (made["title"], made["type"]) == ("Ours", "mine")


def test_mistakes_are_one_line(ask: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("title: T\nsections: [{title: S, show: pie}]")
    for arguments, code, words in (
        ((), 2, "type: which report? There are cost_analysis, "),
        (("cost_analysis", "--period", "soon"), 2, "period: 'soon': expected 24h, 7d"),
        (("cost_analysis", "-o", "cost.pdf"), 2, "format: no format is known by '.pdf'; name it with --format"),
        (("--definition", broken), 2, f"{broken}: sections[0].show = 'pie': expected one of text, figures"),
        (("cost_analysis", "-o", tmp_path / "no" / "cost.md"), 2, "no such file or directory"),
    ):
        done = ask(*arguments)
        assert (done.returncode, done.stdout) == (code, ""), arguments
        assert words in done.stderr, arguments
        assert len(done.stderr.splitlines()) == 1, arguments


def test_folder_that_is_no_store_is_one_line(run_here: Run, redis_url: str, tmp_path: Path) -> None:
    done = run_here("report", "cost_analysis", "--redis-url", redis_url, "--storage-dir", tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "not a store yet" in done.stderr
