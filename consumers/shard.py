"""The shard loop: feed one shard of the stream to one sink, for as long as the shard is ours.

Plain XREAD from a position, never XREADGROUP: a read then changes nothing on the server, so a stale owner's read or a
lost reply cannot take entries away from anybody. The position moves in the sink's commit, together with the effect.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from redis import Redis

from vibezen.metrics import scripts
from vibezen.metrics.batch import EntryId
from vibezen.metrics.consumers.lease import PACKAGE, Taken, require
from vibezen.metrics.consumers.marks import Marks, RawEntry, is_suspect
from vibezen.metrics.errors import StoreFull
from vibezen.metrics.keys import GROUPS, Keys

BLOCK_MS: Final = 1000
"""How long a read waits for entries: how late a stop or a lease renewal can be."""
READ_BYTES: Final = 2 * 1024 * 1024
"""Aim of one read. COUNT counts entries, and a hundred entries may be anything from 10 KB to 100 MB."""
FIRST_COUNT: Final = 8
MAX_COUNT: Final = 256
TRIM_SECONDS: Final = 2.0


class Sink(Protocol):
    """Where a shard's entries take effect.

    `commit` makes the effect durable and moves the position in one step: when it returns, the entries taken so far
    will not be handed to this group again; when it raises, they will, and doing them twice has the effect of once.
    Raising StoreFull, it has committed nothing and can be called again.
    """

    cursor: EntryId
    """The newest entry taken; reading goes on behind it."""
    suspect: bool
    """Whether owners before this one failed where it begins."""

    def take(self, entry_id: bytes, fields: Mapping[bytes, bytes]) -> None: ...

    def knows(self, entry_id: bytes, fields: Mapping[bytes, bytes]) -> bool:
        """Whether an entry was committed before, so that taking it does nothing."""

    def condemn(self, entry_id: bytes, fields: Mapping[bytes, bytes], reason: str) -> None:
        """Pass an entry by that nobody survives; count its events as rejected."""

    def wait_ms(self) -> int | None:
        """Milliseconds until a commit is due (0: now); None while there is nothing to commit."""

    def commit(self) -> None: ...

    def idle(self) -> None:
        """Called when there is nothing to read; keeps the lease."""

    def renew(self) -> None:
        """Keep the lease, and nothing else."""

    def spent(self) -> bool:
        """Whether the owner should start anew (its log has grown long)."""

    def close(self) -> None: ...


class Space(Protocol):
    """What to do while there is no space for a commit."""

    def wait(self, full: StoreFull) -> bool:
        """Wait for a while; whether to try again."""

    def found(self) -> None:
        """Called when a commit was possible."""


class Standing(NamedTuple):
    """Where a group stands in its stream when an owner attaches. `entries_read`: None when the server cannot tell.
    `suspect`: whether owners before this one failed here."""

    entries_added: int
    length: int
    entries_read: int | None
    position: EntryId
    books: Mapping[str, str]
    suspect: bool


def attach(
    client: Redis,
    keys: Keys,
    taken: Taken,
    position: EntryId | None,
    before: EntryId = "",
    *,
    note_floor: bool = False,
) -> Standing:
    """Make sure that stream and group exist and that new entries get IDs beyond `position` (None: what the books say).

    When the server turns out to have lost what was read from it, windows are complete only from now on; `before` is the
    position the books may show without that, since a crash may have kept the last one from them.

    Raises Fenced when the shard has a newer owner.
    """
    shard = taken.shard
    answer = scripts.run(
        client,
        scripts.load(PACKAGE, "attach"),
        [keys.events(shard), keys.fence(shard, taken.group), keys.books(shard), keys.floor(shard)],
        [taken.fence, taken.group, position or "", int(note_floor), before],
    )
    require(answer, taken)
    added, length, read, at, books = answer
    texts = [field.decode() for field in books]
    if read < 0 and at == b"0-0":
        read = added - length  # nothing read yet, and whatever is gone was trimmed from the front
    known = dict(zip(texts[::2], texts[1::2], strict=True))
    suspected = is_suspect(known, taken.group, position or at.decode())
    return Standing(added, length, None if read < 0 else read, at.decode(), known, suspected)


def run_shard(
    reader: "Reader",
    sink: Sink,
    marks: Marks,
    stopping: Callable[[], bool],
    *,
    once: bool = False,
    space: "Space | None" = None,
) -> None:
    """Read and commit until asked to stop, or with `once` until the stream holds nothing more.

    What was taken is committed before this returns. Without space for it, `space` waits; StoreFull is raised where it
    does not. Raises Fenced when the shard has a newer owner and
    StreamMoved when the stream is not as it was left, and lets errors of the server and of the file system through: the
    owner then starts anew from what is committed.
    """

    def commit() -> None:
        _with_space(sink.commit, space)

    while not stopping() and not sink.spent():
        wait = sink.wait_ms()
        block = BLOCK_MS if wait is None else min(wait, BLOCK_MS)
        entries = reader.read(sink.cursor, 0 if once else block)
        marks.feed(sink, entries, commit, stopping)
        if sink.wait_ms() == 0 or (once and not entries):
            commit()
        elif not entries:
            _with_space(sink.idle, space)
        if once and not entries:
            return
    commit()


def _with_space(act: Callable[[], None], space: "Space | None") -> None:
    while True:
        try:
            act()
        except StoreFull as full:
            if space is None or not space.wait(full):
                raise
        else:
            if space is not None:
                space.found()
            return


class Reader:
    """Reads a stream behind a position, by bytes."""

    def __init__(self, client: Redis, stream: str) -> None:
        self._client = client
        self._stream = stream
        self._count = FIRST_COUNT

    def read(self, position: EntryId, block_ms: int) -> Sequence[RawEntry]:
        """Entries behind `position`, oldest first; empty when `block_ms` passed without any (0: do not wait)."""
        answer: Any = self._client.xread({self._stream: position}, count=self._count, block=block_ms or None)
        entries: Sequence[RawEntry] = entries_of(answer)
        if entries:
            size = sum(len(value) for _, fields in entries for value in fields.values())
            fitting = READ_BYTES * len(entries) // max(size, 1)
            self._count = max(1, min(fitting, self._count * 4, MAX_COUNT))
        return entries


def entries_of(answer: Any) -> Sequence[RawEntry]:
    """The entries in an answer of XREAD on one stream: `{stream: [(id, fields)…]}`, or nothing."""
    for entries in answer.values() if answer else ():
        return entries  # type: ignore[no-any-return]  # redis-py's stubs know only the legacy shape
    return ()


def trim(client: Redis, keys: Keys, shard: int) -> int:
    """Remove what every declared group has committed; the number of entries removed."""
    return int(scripts.run(client, scripts.load(PACKAGE, "trim"), [keys.events(shard)], list(GROUPS)))
