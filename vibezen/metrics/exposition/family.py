"""Families of samples, as all of Prometheus' formats know them, and how names become theirs."""

import math
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from vibezen.metrics.window import Window

PREFIX: Final = "vibezen_"
_FOREIGN: Final = re.compile(r"[^a-zA-Z0-9_]")


class Type(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    INFO = "info"
    """A gauge that is always 1: its labels are what it tells."""


class Sample(msgspec.Struct, frozen=True):
    """One number now. It stands for what its labels say."""

    value: int | float
    labels: Mapping[str, str] = {}


class Family(msgspec.Struct, frozen=True):
    """All samples of one name. `name` goes without the ending that its type has (`_total`, `_info`). `unit`: the name's
    last word before that, where it is a unit."""

    name: str
    type: Type
    help: str
    samples: Sequence[Sample]
    unit: str = ""

    @property
    def sample_name(self) -> str:
        """What its samples are called."""
        return self.name + {Type.COUNTER: "_total", Type.GAUGE: "", Type.INFO: "_info"}[self.type]


class Histogram(msgspec.Struct, frozen=True):
    """A gauge histogram: the samples of a window that moves on. Only protobuf can tell it."""

    name: str
    help: str
    window: Window


def gauge(name: str, help_: str, *samples: Sample, unit: str = "") -> Family:
    return Family(PREFIX + name, Type.GAUGE, help_, samples, unit)


def counter(name: str, help_: str, *samples: Sample, unit: str = "") -> Family:
    return Family(PREFIX + name, Type.COUNTER, help_, samples, unit)


def info(name: str, help_: str, *labels: Mapping[str, str]) -> Family:
    return Family(PREFIX + name, Type.INFO, help_, [Sample(1, each) for each in labels])


def name_of(metric: str) -> str:
    """What a metric is called there. Two metrics may come to the same name: dots become underscores."""
    return PREFIX + _FOREIGN.sub("_", metric.removeprefix("vibezen."))


def known(value: float | None) -> bool:
    """Whether there is a number to tell; answers in JSON have null for what is none."""
    return value is not None and math.isfinite(value)
