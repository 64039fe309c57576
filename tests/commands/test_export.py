"""`export` as a user runs it: into pipes and files, whole or not at all, and back again by `import`."""

import csv
import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.support.feeding import event, values_in_stream
from tests.support.pipeline import Pipeline
from tests.support.stores import Store
from tests.support.waiting import WaitUntil
from vibezen.metrics.clock import HOUR
from vibezen.metrics.event import Event, encode_lines

Run = Callable[..., "subprocess.CompletedProcess[str]"]
START = 1_763_985_600.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.add([event(float(n), START + n, ("cost", "tokens")[n % 2], provider="ab"[n % 3 == 0]) for n in range(12)])
    return store


@pytest.fixture
def export(run_here: Run, store: Store) -> Run:
    return lambda *arguments: run_here("export", *arguments, "--storage-dir", store.layout.root)


def test_standard_output_is_csv_unless_another_format_is_named(export: Run) -> None:
    done = export()
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["value"] for row in csv.DictReader(io.StringIO(done.stdout))] == [f"{n}.0" for n in range(12)]
    assert export("--format", "jsonl").stdout.splitlines()[0].startswith('{"metric":"cost","value":0.0,')


@pytest.mark.parametrize(
    ("name", "begin"), [("x.csv", b"time,ts"), ("x.jsonl", b"{"), ("x.NDJSON", b"{"), ("x.parquet", b"PAR1")]
)
def test_ending_tells_the_format(export: Run, tmp_path: Path, name: str, begin: bytes) -> None:
    done = export("-o", tmp_path / name)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{tmp_path / name}: 12 events\n"
    assert (tmp_path / name).read_bytes().startswith(begin)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_only_what_is_asked_for(export: Run) -> None:
    wanted = ("--metric", "cost", "--metric", "response_time", "--from", "2025-11-24T12:00:02", "--to", str(START + 11))
    done = export("--format", "jsonl", *wanted, "--where", "provider=a")
    assert done.stdout.encode() == encode_lines(
        [event(float(n), START + n, "cost", provider="a") for n in (2, 4, 8, 10)]
    )


def test_mistakes_are_one_line_and_exit_code_2(export: Run, tmp_path: Path) -> None:
    for arguments, word in (
        (("-o", tmp_path / "x.txt"), "format: 'x.txt' does not tell"),
        (("-o", tmp_path / "no" / "x.csv"), "output: "),
        (("--metric", "Bad"), "metric: "),
        (("--from", "someday"), "from: "),
        (("--where", "x"), "where: "),
    ):
        done = export(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.startswith(f"vibezen-metrics: {word}"), done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert [path for path in tmp_path.iterdir() if path.name.startswith((".x", "x"))] == []


def test_folder_that_is_no_store_is_one_line(run_here: Run, tmp_path: Path) -> None:
    done = run_here("export", "--storage-dir", tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "not a store yet" in done.stderr


def test_file_that_was_there_stays_when_the_export_fails(export: Run, store: Store, tmp_path: Path) -> None:
    target = tmp_path / "x.csv"
    target.write_text("old")
    next(store.layout.segments()).unlink()
    done = export("-o", target)
    assert done.returncode == 1
    assert "cannot be read" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.glob(".x*")] == []


def test_link_and_device_are_written_through(export: Run, tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    link.symlink_to(real)
    assert export("-o", link).returncode == 0
    assert link.is_symlink()
    assert real.read_text().startswith("time,ts")
    assert export("--format", "csv", "-o", "/dev/null").returncode == 0
    assert not Path("/dev/null").is_file()


def test_full_disk_is_one_line(store: Store) -> None:
    command = [sys.executable, "-m", "vibezen.metrics", "export", "--storage-dir", str(store.layout.root)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "vibezen-metrics: no space left on device\n")


def test_parquet_is_not_written_to_a_terminal(store: Store) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "vibezen.metrics", "export", "--storage-dir", str(store.layout.root)]
    done = subprocess.run(
        [*command, "--format", "parquet"], stdout=follower, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(leader)
    os.close(follower)
    assert done.returncode == 2
    assert "Parquet is nothing for a terminal" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_export_leaves_the_old_file_and_nothing_else(
    store: Store, tmp_path: Path, number: signal.Signals, wait_until: WaitUntil
) -> None:
    for hour in range(4):
        start = int(START) + (1 + hour) * HOUR
        store.add_lines(start, encode_lines([event(1.0, start, note="x" * 100)]) * 100_000, 100_000)
    target = tmp_path / "x.csv"
    target.write_text("old")
    command = [sys.executable, "-m", "vibezen.metrics", "export", "--storage-dir", str(store.layout.root), "-o"]
    with subprocess.Popen([*command, str(target)], stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: any(path.stat().st_size for path in tmp_path.glob(".x.csv.*")))
        process.send_signal(number)
        _, told = process.communicate()
    assert process.returncode == 1
    assert told == f"interrupted: {target} was not written\n"
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.glob(".x*")] == []
    assert list(store.layout.exports.iterdir()) == []


def test_terminal_shows_a_bar(store: Store, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "vibezen.metrics", "export", "--storage-dir", str(store.layout.root), "-o"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    done = subprocess.run([*command, str(tmp_path / "x.csv")], stderr=follower, env=environment, check=False)
    os.close(follower)
    told = os.read(leader, 65_536).decode()
    os.close(leader)
    assert done.returncode == 0
    assert "12/12" in told


@pytest.mark.server
def test_exported_lines_come_back_by_import(
    run_here: Run, store: Store, client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    rich = [
        Event(
            "cost", 0.1 + n, START + HOUR + n + 0.123456, 0.5, 3, {"a": "=x", "b": None, "c": True, "d": 1e22, "e": n}
        )
        for n in range(5)
    ]
    store.add(rich)
    exported, again = tmp_path / "x.jsonl", tmp_path / "again.jsonl"
    assert run_here("export", "-o", exported, "--storage-dir", store.layout.root).returncode == 0
    other = Pipeline(client, redis_url, tmp_path / "other")
    place = ("--redis-url", redis_url, "--storage-dir", other.layout.root)
    done = run_here("import", exported, *place)
    assert done.returncode == 0, done.stderr
    assert len(values_in_stream(redis_url)) == 17
    other.archive()
    assert run_here("export", "-o", again, *place).returncode == 0
    assert again.read_bytes() == exported.read_bytes()
