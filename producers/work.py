"""What requests hand to the thread that appends, and the ways by which it gets into a stream."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from redis import Redis

from vibezen.metrics.producers.append import Appended, Batch
from vibezen.metrics.producers.idempotency import Key


@dataclass(eq=False)
class Work:
    """The accepted events of one request. `deadline`: monotonic seconds; `told`: where the outcome goes."""

    batches: Sequence[Batch]
    key: Key | None
    deadline: float
    told: asyncio.Future[Appended]
    events: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.events = sum(batch.n for batch in self.batches)
        self.size = sum(len(batch.payload) for batch in self.batches)


Outcome = Appended | Exception
Call = Callable[[Redis], Sequence[Outcome]]
"""Appends some works and says of each what came of it. Repeating it has the effect of once. Raises what the client
raises; then nothing is known of any of them."""


class Way(Protocol):
    """How works of one kind are appended."""

    def call(self, works: Sequence[Work]) -> Call: ...

    def give_up(self) -> None:
        """The last call was not answered, and will not be repeated."""
