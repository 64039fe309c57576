"""What the applications of a soak say they recorded, held against what the product made of it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.feeding import lines_on_disk


class Ledger(NamedTuple):
    """Of one process. `acknowledged`: those of its values that the product said are safe."""

    name: str
    recorded: frozenset[float]
    acknowledged: frozenset[float]


def read(path: Path) -> Ledger:
    recorded, last = set(), 0.0
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):  # the last one may have been cut by a kill, and then its value was not recorded
            mark, value = line.split()
            if mark == "+":
                recorded.add(float(value))
            else:
                last = float(value)
    return Ledger(path.stem, frozenset(recorded), frozenset(value for value in recorded if value <= last))


class Comparison(NamedTuple):
    """`lost`: acknowledged, and not on disk. `doubled`: on disk more than once. `invented`: on disk, and never
    recorded. `unflushed`: by process, recorded and neither acknowledged nor on disk. `on_disk`, `total`: all lines."""

    recorded: int
    acknowledged: int
    on_disk: int
    total: float
    lost: list[float]
    doubled: list[float]
    invented: list[float]
    unflushed: Mapping[str, int]


def compare(ledgers: Iterable[Ledger], store: Path, metric: str) -> Comparison:
    lines = lines_on_disk(store / "events")
    found = Counter(float(line["value"]) for line in lines if line["metric"] == metric)
    known = list(ledgers)
    recorded = frozenset[float]().union(*(ledger.recorded for ledger in known))
    acknowledged = frozenset[float]().union(*(ledger.acknowledged for ledger in known))
    unflushed = {each.name: len(each.recorded - each.acknowledged - found.keys()) for each in known}
    return Comparison(
        len(recorded),
        len(acknowledged),
        len(lines),
        sum(line["value"] for line in lines),
        sorted(acknowledged - found.keys()),
        sorted(value for value, times in found.items() if times > 1),
        sorted(found.keys() - recorded),
        {name: count for name, count in unflushed.items() if count},
    )
