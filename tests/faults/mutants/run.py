"""Take each protection out of a copy of the product, and see that its test fails.

    python -m tests.faults.mutants.run [--workers N] [mutant …]

Exit code 1 when a mutant survives, does not apply any more, or names a test that does not pass unpatched.
"""

import argparse
import os
import queue
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.support.mutants import ROOT, Mutant, apply, mutants

DEADLINE: Final = 120.0
"""Seconds for the test of a mutant: tests have deadlines of their own."""
NOT_COPIED: Final = (".git", ".venv", "node_modules", "dist", "build", "__pycache__")
WIDTH: Final = 160
"""Columns where no terminal says how many there are."""


class Outcome(NamedTuple):
    """`by`: the failure that killed it; '' when it survived, or `trouble` says why nothing is known."""

    mutant: Mutant
    by: str
    trouble: str
    seconds: float

    @property
    def told(self) -> str:
        return self.by or self.trouble or "SURVIVED"


class Case(NamedTuple):
    """A test as pytest reports it. `failure`: its first line; '' when it passed."""

    test: str
    failure: str
    is_error: bool


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("mutants", nargs="*", metavar="mutant", help="by the names of their patches; all without any")
    options = parser.parse_args(arguments)
    known = {mutant.name: mutant for mutant in mutants()}
    if unknown := set(options.mutants) - known.keys():
        parser.error(f"there is no mutant {', '.join(sorted(unknown))}; see tests/faults/mutants")
    chosen = [known[name] for name in options.mutants or known]
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    with TemporaryDirectory(prefix="mutants-") as folder:
        outcomes = _run(chosen, Path(folder).resolve(), max(options.workers, 1), console)
    if outcomes is None:
        return 1
    console.print(_table(outcomes))
    alive = [outcome for outcome in outcomes if not outcome.by]
    console.print(f"{len(outcomes) - len(alive)} of {len(outcomes)} mutants killed")
    return 1 if alive else 0


def _run(chosen: Sequence[Mutant], folder: Path, workers: int, console: Console) -> list[Outcome] | None:
    """None when a test fails without any mutant: nothing can be told then."""
    trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for number in range(workers):
        trees.put(_copy(folder / str(number)))

    @contextmanager
    def tree() -> Iterator[Path]:
        taken = trees.get()
        try:
            yield taken
        finally:
            trees.put(taken)

    def kill(mutant: Mutant) -> Outcome:
        with tree() as copy:
            outcome = _try(mutant, copy)
        console.print(f"{outcome.seconds:6.1f} s  {mutant.name}: {outcome.told}", highlight=False, markup=False)
        return outcome

    tests = sorted({mutant.test for mutant in chosen})
    console.print(f"{len(chosen)} mutants; first their {len(tests)} tests without any")
    with tree() as copy:
        failing = _failing(copy, tests, workers)
    for line in failing:
        console.print(line, highlight=False, markup=False)
    if failing:
        return None
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(kill, chosen))


def _copy(to: Path) -> Path:
    """A tree of its own, with what is in the working folder, and `vibezen.metrics` in it."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        for name in filter(None, listed.stdout.split("\0")):
            if os.path.lexists(ROOT / name):
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    else:
        shutil.copytree(ROOT, to, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    script = "import vibezen.metrics.consumers.lease as module; print(module.__file__)"
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, cwd=to, env=_environment(to), check=True, stdout=subprocess.PIPE, text=True)
    imported = Path(found.stdout.strip())
    if not imported.is_relative_to(to):
        raise SystemExit(f"tests would import {imported} instead of the copy in {to}")
    return to


def _environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree)}


def _failing(tree: Path, tests: Sequence[str], workers: int) -> list[str]:
    """One line for each test that does not pass as the tree is."""
    cases, said = _pytest(tree, tests, "-n", str(workers), "--dist", "worksteal", deadline=None)
    lines = [f"{case.test} fails without any mutant: {case.failure}" for case in cases if case.failure]
    ran = {name for case in cases for name in (case.test, case.test.partition("[")[0])}
    lines += [f"{test} does not exist, or was skipped" for test in tests if test not in ran]
    return [*lines, said] if lines else []


def _try(mutant: Mutant, tree: Path) -> Outcome:
    begun = time.monotonic()
    by = ""
    if not (trouble := apply(mutant, tree)):
        try:
            by, trouble = _judge(mutant, tree)
        finally:
            trouble = trouble or apply(mutant, tree, undo=True)
    return Outcome(mutant, by if not trouble else "", trouble, time.monotonic() - begun)


def _judge(mutant: Mutant, tree: Path) -> tuple[str, str]:
    """What killed it, and why that is not known."""
    try:
        cases, said = _pytest(tree, [mutant.test], "-x", deadline=DEADLINE)
    except subprocess.TimeoutExpired:
        return "", f"its test did not end within {DEADLINE:g} s"
    for case in cases:
        if case.failure and not case.is_error and mutant.test in (case.test, case.test.partition("[")[0]):
            return case.failure, ""
    if not cases or any(case.failure for case in cases):
        return "", f"its test could not be run: {said}"
    return "", ""


def _pytest(tree: Path, tests: Sequence[str], *options: str, deadline: float | None) -> tuple[list[Case], str]:
    """What was reported of every test that was run, and the end of what was said. Raises TimeoutExpired."""
    report = tree.with_name(f"{tree.name}.xml")
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    # Compiled files are known by time and size: one made of a patched file could be taken for the next.
    environment = {**_environment(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, *options, *tests],
        cwd=tree,
        env=environment,
        timeout=deadline,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = "\n".join(done.stdout.splitlines()[-15:])
    if not report.exists():
        return [], said
    cases = ElementTree.parse(report).iter("testcase")
    return [case for found in cases if (case := _case(found)) is not None], said


def _case(found: ElementTree.Element) -> Case | None:
    """None for a test that was skipped."""
    test = f"{found.get('classname', '').replace('.', '/')}.py::{found.get('name')}"
    if found.find("skipped") is not None:
        return None
    failure, error = found.find("failure"), found.find("error")
    trouble = failure if failure is not None else error
    if trouble is None:
        return Case(test, "", False)
    first = (trouble.get("message") or "").strip().partition("\n")[0]
    return Case(test, first or "failed", failure is None)


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("mutant", "protection", "test", "killed by", show_lines=True)
    table.add_column("s", justify="right")
    for outcome in outcomes:
        told = Text(outcome.told, style="" if outcome.by else "bold red")
        mutant, seconds = outcome.mutant, f"{outcome.seconds:.1f}"
        table.add_row(mutant.name, Text(mutant.protection), mutant.function, told, seconds)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
