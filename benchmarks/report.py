"""What a benchmark answers: figures beside their goals, printed as one table and kept as JSON."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

RESULTS: Final = Path(__file__).parent / "results"
"""Not part of the repository: figures belong to the machine they were measured on."""
PACKAGES: Final = (
    *("vibezen-metrics", "msgspec", "redis", "hiredis", "starlette", "sse-starlette", "uvicorn", "uvloop"),
    *("faststream", "pydantic", "prometheus-client", "opentelemetry-sdk"),
)
HALF: Final = 0.5
"""Below this share of a goal, a figure is called far off."""


class Figure(msgspec.Struct, omit_defaults=True):
    """One measured thing; its value is the median of `rounds`. A goal bounds it on one side."""

    what: str
    rounds: list[float]
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def value(self) -> float:
        return median(self.rounds)

    @property
    def reached(self) -> float | None:
        """The share of the goal that is reached, from 0 to 1; None without a goal."""
        if self.at_least is not None:
            return min(self.value / self.at_least, 1.0)
        if self.at_most is not None:
            return min(self.at_most / self.value, 1.0) if self.value > 0 else 1.0
        return None


class Report(msgspec.Struct):
    """`settings`: what the figures depend on. `notes`: what a reader must know to read them right."""

    name: str
    title: str
    figures: list[Figure]
    settings: dict[str, str | int | float]
    notes: list[str] = []


def ratio(what: str, ours: list[float], other: list[float], at_least: float | None = None) -> Figure:
    """How many times `ours` is `other`, round by round: what slows the machine down slows both."""
    return Figure(what, [a / b for a, b in zip(ours, other, strict=True)], "×", at_least=at_least)


def machine() -> dict[str, str | int | float]:
    """What the figures were measured on. A load near the number of cores means that others were working too."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 0,
        "load before": round(load, 2),
    }


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def keep(report: Report, measured_on: dict[str, str | int | float]) -> Path:
    """Write the report as `results/<name>.json`, replacing the one before."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{report.name}.json"
    whole = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": measured_on,
        "versions": versions(),
        **msgspec.to_builtins(report),
        "medians": {figure.what: figure.value for figure in report.figures},
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(whole)) + b"\n")
    return path


def show(report: Report, console: Console) -> None:
    table = Table(title=report.title, title_justify="left", title_style="bold")
    for heading, side in (("measured", "left"), ("median", "right"), ("lowest – highest", "right"), ("goal", "right")):
        table.add_column(heading, justify="right" if side == "right" else "left")
    table.add_column("")
    for figure in report.figures:
        spread = f"{_number(min(figure.rounds))} – {_number(max(figure.rounds))}" if len(figure.rounds) > 1 else ""
        table.add_row(figure.what, f"{_number(figure.value)} {figure.unit}", spread, _goal(figure), _verdict(figure))
    console.print()
    console.print(table)
    console.print("settings: " + ", ".join(f"{name} {value}" for name, value in report.settings.items()), style="dim")
    for note in report.notes:
        console.print(note, style="dim")


def _goal(figure: Figure) -> str:
    if figure.at_least is not None:
        return f"≥ {_number(figure.at_least)}"
    return f"≤ {_number(figure.at_most)}" if figure.at_most is not None else ""


def _verdict(figure: Figure) -> str:
    reached = figure.reached
    if reached is None:
        return ""
    if reached >= 1:
        return "[green]reached[/]"
    return f"[red]{reached:.0%}, far off[/]" if reached < HALF else f"[yellow]{reached:.0%}[/]"


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
