"""`python -m benchmarks [name …]`: measure what the design promises, beside peers and bare loops."""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Final

from rich.console import Console

from benchmarks.options import Options
from benchmarks.report import Report, keep, machine, show

NAMES: Final = (
    "record",
    "append",
    "gateway",
    "archive",
    "aggregate",
    "path",
    "importing",
    "history",
    "parts",
    "compact",
    "fanout",
    "start",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which: {', '.join(NAMES)}; without any, all")
    parser.add_argument("--rounds", type=int, default=Options().rounds, help="turns of each contestant (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=Options().seconds, help="load on the whole path, in seconds (%(default)s)"
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    options = Options(max(chosen.rounds, 1), chosen.seconds)
    for name in chosen.names or NAMES:
        run: Callable[[Options], Report] = import_module(f"benchmarks.{name}").run
        measured_on = machine()
        with console.status(f"{name} …"):
            report = run(options)
        show(report, console)
        keep(report, measured_on)
    return 0


if __name__ == "__main__":
    sys.exit(main())
