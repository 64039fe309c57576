"""What became of a soak: files, windows and books against the ledgers, and a line for whatever is not as promised."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import redis

from tests.support.feeding import total
from tests.support.soak_ledger import Comparison, compare
from tests.support.soak_members import BOUND, KEYS, SHARDS, Members
from vibezen.metrics.verify import books

METRIC: Final = "soak"
TROUBLE: Final = ("Traceback", "please report", "the gateway refused")
"""What no process may say, whatever happens to it."""
SHOWN: Final = 8000
"""Characters of what it said all the same: the folder with its output is soon gone."""
PATIENCE: Final = 180.0
"""Seconds for `verify`."""


@dataclass
class Outcome:
    """`wrong`: what breaks a promise. `seen`: what else there is to say."""

    comparison: Comparison
    sum_error: float = 0.0
    wrong: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        lost, doubled = len(self.comparison.lost), len(self.comparison.doubled)
        return f"lost {lost}, doubled {doubled}, sum error {self.sum_error:g}"


def judge(client: redis.Redis, store: Path, members: Members) -> Outcome:
    """Everything is drained, and only the server runs."""
    outcome = Outcome(compare(members.ledgers(), store, METRIC))
    verify = members.run_role("verify")
    if verify.wait(PATIENCE):
        outcome.wrong.append(f"verify finds:\n{verify.said}")
    _judge_events(outcome)
    _judge_windows(client, outcome)
    _judge_books(client, outcome)
    _judge_words(members, outcome)
    return outcome


def _judge_events(outcome: Outcome) -> None:
    found = outcome.comparison
    for what, values in (
        ("acknowledged, and lost", found.lost),
        ("doubled", found.doubled),
        ("on disk, and never recorded", found.invented),
    ):
        if values:
            outcome.wrong.append(f"{len(values)} {what}: {values[:5]}")
    for name, count in found.unflushed.items():
        outcome.seen.append(f"{name}: {count} not acknowledged, and gone with the process (at most {BOUND})")
        if count > BOUND:
            outcome.wrong.append(f"{name}: lost {count}, more than its buffer holds")
    outcome.seen.append(f"{found.recorded} recorded, {found.acknowledged} acknowledged, {found.on_disk} on disk")


def _judge_windows(client: redis.Redis, outcome: Outcome) -> None:
    on_disk = outcome.comparison.on_disk
    for width in (10, 60):
        window = total(client, width, SHARDS)
        outcome.sum_error = max(outcome.sum_error, abs(window.sum - outcome.comparison.total))
        if window.count != on_disk:
            outcome.wrong.append(f"windows of {width} s count {window.count}, on disk are {on_disk}")
    if outcome.sum_error:
        outcome.wrong.append(f"windows and lines differ in their sums by {outcome.sum_error:g}")


def _judge_books(client: redis.Redis, outcome: Outcome) -> None:
    archived = 0
    for shard in range(SHARDS):
        told = books.ask(client, KEYS, shard)
        archived += told.groups["archive"].accepted
        if not told.balances or told.archived_less_aggregated is None:
            outcome.wrong.append(f"shard {shard}: the books do not balance: {told}")
        for group, side in told.groups.items():
            if side.trimmed or side.dead or side.repeated:
                outcome.wrong.append(f"shard {shard}, {group}: trimmed unread, dead or repeated: {side}")
        for producer in books.ask_producers(client, KEYS, shard):
            if producer.stats and (producer.stats.dropped or producer.stats.refused):
                outcome.wrong.append(f"shard {shard}, {producer.name}: {producer.stats}")
    if archived != outcome.comparison.on_disk:
        outcome.wrong.append(f"books: {archived} archived, on disk are {outcome.comparison.on_disk}")


def _judge_words(members: Members, outcome: Outcome) -> None:
    for process in members.outputs:
        said = process.said
        first = min((at for word in TROUBLE if (at := said.find(word)) >= 0), default=None)
        if first is not None:
            outcome.wrong.append(f"{process.output.name} says: {said[max(0, first - 200) : first + SHOWN]}")
