"""The process tree: output under the child's name, crashes mended with patience, nobody left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.support.waiting import WaitUntil
from vibezen.metrics import processes
from vibezen.metrics.processes import TETHER_VARIABLE, Tree

Lines = list[tuple[str, str]]


@pytest.fixture
def lines() -> Lines:
    return []


@pytest.fixture
def tree(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    monkeypatch.setattr(processes, "RETRY_FIRST", 0.01)
    with closing(Tree("up", lambda role, line: lines.append((role, line)))) as tree:
        yield tree


def start(tree: Tree, name: str, code: str) -> "subprocess.Popen[bytes]":
    def launch() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )

    process = launch()
    tree.adopt(name, process, launch)
    return process


def pump_until(tree: Tree, wait_until: WaitUntil, condition: Callable[[], bool]) -> None:
    def pumped() -> bool:
        tree.pump(0.01)
        return condition()

    wait_until(pumped)


def test_every_line_comes_under_its_childs_name(tree: Tree, lines: Lines, wait_until: WaitUntil) -> None:
    start(tree, "a", "import time; print('one\\ntwo', flush=True); print('no end', end='', flush=True); time.sleep(60)")
    pump_until(tree, wait_until, lambda: len(lines) >= 2)
    assert lines == [("a", "one"), ("a", "two")]
    tree.stop("a", seconds=10)
    assert lines[2:] == [("a", "no end")]


def test_crashed_child_is_started_again_later_and_later(tree: Tree, lines: Lines, wait_until: WaitUntil) -> None:
    start(tree, "a", "raise SystemExit(3)")
    pump_until(tree, wait_until, lambda: len(lines) >= 4)
    told = [line for role, line in lines if role == "up"]
    assert told[:4] == [f"a ended with exit code 3; it is started again in {0.01 * 2**n:g} s" for n in range(4)]


def test_kill_is_told_by_its_name(tree: Tree, lines: Lines, wait_until: WaitUntil) -> None:
    start(tree, "a", "import time; time.sleep(60)").kill()
    pump_until(tree, wait_until, lambda: bool(lines))
    assert lines[0][1].startswith("a was killed by SIGKILL; ")


def test_stopped_child_stays_stopped(tree: Tree, lines: Lines) -> None:
    process = start(tree, "a", "import time; time.sleep(60)")
    tree.stop("a", "nobody", seconds=10)
    tree.pump(0)
    assert process.returncode == -signal.SIGTERM
    assert not lines


def test_child_that_ignores_being_asked_is_killed(tree: Tree, lines: Lines, wait_until: WaitUntil) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    process = start(tree, "a", code)
    pump_until(tree, wait_until, lambda: bool(lines))
    tree.stop("a", seconds=0.05)
    assert process.returncode == -signal.SIGKILL
    assert lines[-1] == ("up", "a does not end and is killed")


def test_child_waiting_to_be_started_again_is_stopped_at_once(
    tree: Tree, lines: Lines, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "RETRY_FIRST", 1000.0)
    start(tree, "a", "raise SystemExit(1)")
    pump_until(tree, wait_until, lambda: bool(lines))
    tree.stop("a", seconds=10)


def test_launch_that_fails_is_tried_again(tree: Tree, lines: Lines, wait_until: WaitUntil) -> None:
    process = subprocess.Popen(["true"])
    tried: list[bool] = []

    def launch() -> "subprocess.Popen[bytes]":
        tried.append(True)
        raise FileNotFoundError("gone")

    tree.adopt("a", process, launch, 0.02)
    pump_until(tree, wait_until, lambda: len(tried) >= 5)
    assert [line for _, line in lines[1:]] == ["a cannot be started: gone; it is tried every 0.02 s"], "told once"


def test_python_child_ends_when_its_parent_is_killed(wait_until: WaitUntil) -> None:
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", "from vibezen.metrics.processes import tether; tether(); input()"],
        env={**os.environ, TETHER_VARIABLE: str(reading)},
        pass_fds=(reading,),
        stdin=subprocess.PIPE,
    )
    os.close(reading)
    assert child.poll() is None
    os.close(writing)  # as the kernel does for a killed parent
    wait_until(lambda: child.poll() is not None)
    assert child.returncode == -signal.SIGTERM
    child.communicate()


def test_process_without_a_parent_of_ours_is_not_tethered() -> None:
    environ = {"HOME": "/"}
    processes.tether(environ)
    assert environ == {"HOME": "/"}
