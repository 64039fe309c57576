"""Crash marks: an entry that ends its owners is found out, and set aside without its neighbours.

Owners that fail count only where they began: after two at one position, the next takes entry by entry, and notes each
before it touches it. Only an entry whose note outlives three owners is condemned. Marks stand in the shard's books, per
group: each group crashes on its own code, and goes on alone. In its account the events of a condemned entry count as
rejected, so that each group's books balance; only the archiver writes a dead letter.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from redis import Redis

from vibezen.metrics import scripts
from vibezen.metrics.batch import EntryId, id_order
from vibezen.metrics.consumers.lease import PACKAGE, Taken, require
from vibezen.metrics.keys import Keys

FAILURES: Final = 2
"""Owners that failed at a position before the next one takes care."""
CRASHES: Final = 3
"""Owners that ended while an entry was noted before it is condemned."""
CAREFUL_ENTRIES: Final = 10_000
"""Entries taken one by one: at least as many as an owner takes between two commits."""

RawEntry = tuple[bytes, Mapping[bytes, bytes]]


class Taking(Protocol):
    """The part of a sink that takes entries."""

    def take(self, entry_id: bytes, fields: Mapping[bytes, bytes]) -> None: ...

    def knows(self, entry_id: bytes, fields: Mapping[bytes, bytes]) -> bool:
        """Whether an entry was committed before, so that taking it does nothing."""

    def condemn(self, entry_id: bytes, fields: Mapping[bytes, bytes], reason: str) -> None:
        """Pass an entry by without looking into it."""


def is_suspect(books: Mapping[str, str], group: str, position: EntryId) -> bool:
    """Whether to take care: more than FAILURES owners in a row, this one among them, began at this position, or a noted
    entry was never committed."""
    began, starts = _mark(books.get(f"{group}.began", ""))
    tried, tries = _mark(books.get(f"{group}.tried", ""))
    return (began == position and starts > FAILURES) or (tries > 0 and id_order(tried) > id_order(position))


def _mark(text: str) -> tuple[EntryId, int]:
    entry_id, _, rest = text.partition(" ")
    return entry_id, int(rest.partition(" ")[0] or 0)


class Marks:
    """One owner's care, if it is needed."""

    def __init__(self, client: Redis, keys: Keys, taken: Taken, *, careful: bool) -> None:
        self._client, self._keys, self._taken = client, keys, taken
        self._left = CAREFUL_ENTRIES if careful else 0

    def feed(
        self, sink: Taking, entries: Sequence[RawEntry], commit: Callable[[], None], stopping: Callable[[], bool]
    ) -> None:
        """Let the sink take entries: all of them, or with care one by one until asked to stop."""
        if not entries:
            self._left = 0  # what failed owners may have seen has been passed
        for entry_id, fields in entries:
            if self._left == 0 or sink.knows(entry_id, fields):
                sink.take(entry_id, fields)
            elif stopping():
                return
            else:
                self._take_with_care(sink, entry_id, fields)
                commit()
                self._left -= 1

    def _take_with_care(self, sink: Taking, entry_id: bytes, fields: Mapping[bytes, bytes]) -> None:
        crashes = self._try(entry_id)
        if crashes < CRASHES:
            sink.take(entry_id, fields)
        else:
            reason = f"entry: {crashes} processes of group {self._taken.group} ended while they worked on it"
            sink.condemn(entry_id, fields, reason)

    def _try(self, entry_id: bytes) -> int:
        """Note that this entry is taken next; how often an owner has ended on it."""
        shard, group = self._taken.shard, self._taken.group
        keys = [self._keys.fence(shard, group), self._keys.books(shard), self._keys.floor(shard)]
        arguments: list[str | bytes | int | float] = [self._taken.fence, group, entry_id, CRASHES]
        answer = scripts.run(self._client, scripts.load(PACKAGE, "try"), keys, arguments)
        require(answer, self._taken)
        return int(answer[0])
