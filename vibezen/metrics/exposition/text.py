"""The text formats: Prometheus' own, version 0.0.4, and OpenMetrics 1.0.

<https://prometheus.io/docs/instrumenting/exposition_formats/>,
<https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from vibezen.metrics.exposition.family import Family, Type

_HELP: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})
_QUOTED: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def prometheus_text(families: Iterable[Family]) -> bytes:
    """Version 0.0.4. It has no type for what only tells its labels."""
    return _joined(line for family in families for line in _plain(family))


def openmetrics_text(families: Iterable[Family]) -> bytes:
    return _joined([*(line for family in families for line in _open(family)), "# EOF"])


def _plain(family: Family) -> Iterator[str]:
    name, type_ = family.sample_name, Type.GAUGE if family.type is Type.INFO else family.type
    yield f"# HELP {name} {family.help.translate(_HELP)}"
    yield f"# TYPE {name} {type_}"
    yield from _samples(family)


def _open(family: Family) -> Iterator[str]:
    yield f"# TYPE {family.name} {family.type}"
    if family.unit:
        yield f"# UNIT {family.name} {family.unit}"
    yield f"# HELP {family.name} {family.help.translate(_QUOTED)}"
    yield from _samples(family)


def _samples(family: Family) -> Iterator[str]:
    for sample in family.samples:
        yield f"{family.sample_name}{_labels(sample.labels)} {sample.value!r}"


def _labels(labels: Mapping[str, str]) -> str:
    told = ",".join(f'{name}="{value.translate(_QUOTED)}"' for name, value in labels.items())
    return f"{{{told}}}" if told else ""


def _joined(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
