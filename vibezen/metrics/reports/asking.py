"""Which report is asked for: parameters into a checked question, or an error that names what is wrong."""

from pathlib import Path
from typing import Final

import msgspec

from vibezen.metrics.errors import BadParameter
from vibezen.metrics.gathering import Gatherer
from vibezen.metrics.question import Parameters, parse_switch, single
from vibezen.metrics.reports import definition_file, library
from vibezen.metrics.reports.building import build
from vibezen.metrics.reports.definition import Definition
from vibezen.metrics.reports.period import Period, parse_period
from vibezen.metrics.reports.report import Report
from vibezen.metrics.settings import Settings

PARAMETERS: Final = ("type", "period", "tz", "to", "exact", "format")


class Asked(msgspec.Struct, frozen=True):
    """`exact`: from the events themselves, whatever it costs."""

    name: str
    definition: Definition
    period: Period
    exact: bool


def parse_report(parameters: Parameters, settings: Settings, now: float, file: Path | None = None) -> Asked:
    """`file`: a definition that is taken instead of the one `type` names. Raises BadParameter, ConfigError."""
    texts = single(parameters, PARAMETERS)
    name = texts.get("type", "")
    if file is not None:
        name, found = name or file.stem, definition_file.read(file, settings)
    elif name:
        found = library.load(name, settings)
    else:
        raise BadParameter("type", f"which report? There are {', '.join(library.names(settings))}")
    return Asked(
        name=name,
        definition=found,
        period=parse_period(texts.get("period") or found.period, texts.get("tz", ""), now, texts.get("to") or None),
        exact=parse_switch("exact", texts.get("exact", "false")),
    )


async def report(gatherer: Gatherer, settings: Settings, asked: Asked, now: float) -> Report:
    """Raises BadParameter when there is too much to tell apart, StoreError when files cannot be read."""
    return await build(gatherer, settings, asked.name, asked.definition, asked.period, now, exact=asked.exact)
