"""The archiver: accepted lines into segments, each exactly once.

The order is the promise: lines on disk → commit record on disk → position in Redis. The commit log is where the
archiver truly stands; Redis' copy of the position serves lag and trimming.
"""

import logging
import math
from collections.abc import Mapping
from typing import Final

import msgspec
from redis import Redis

from vibezen.metrics import scripts
from vibezen.metrics.batch import Entry, EntryId, cut_lines, id_order, id_time, read_entry, read_header
from vibezen.metrics.clock import HOUR, Clock, monotonic, wall
from vibezen.metrics.commitlog import Counters, DeadLetter, Extent, Record, Seen
from vibezen.metrics.consumers.forgetting import EVERY, forget
from vibezen.metrics.consumers.lease import LEASE_MS, PACKAGE, Taken, renew, require
from vibezen.metrics.consumers.missing import missing_events
from vibezen.metrics.consumers.segments import Segments
from vibezen.metrics.consumers.shard import TRIM_SECONDS, attach, trim
from vibezen.metrics.consumers.takeover import inherit
from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout, partition_of
from vibezen.metrics.settings import STREAM_BYTES, Archive
from vibezen.metrics.verdict import Verdict, judge

log = logging.getLogger(__name__)

COMMIT_BYTES: Final = 4 * 1024 * 1024
"""Lines that are committed without waiting for the interval: more would only hold memory."""
LOG_BYTES: Final = 16 * 1024 * 1024
"""A log that has grown by this is closed by starting anew; a take-over then reads little."""


class Archiver:
    """The sink of group `archive` for one shard. Building it takes the files over; the shard must be ours already.

    `max_bytes`: the size of the stream from which on it takes no more, told to all who append by the books.
    """

    def __init__(
        self,
        client: Redis,
        keys: Keys,
        taken: Taken,
        layout: Layout,
        policy: Archive,
        now: Clock = wall,
        *,
        max_bytes: int = STREAM_BYTES,
    ) -> None:
        self._client, self._keys, self._taken = client, keys, taken
        self._max_bytes = max_bytes
        self._policy, self._now = policy, now
        state, self._log = inherit(layout, taken.shard, taken.epoch)
        self._segments = Segments(layout, taken.shard, taken.epoch, policy)
        self._seen = state.producers
        self._position = state.last.position
        self._position_order = id_order(self._position)
        counters = state.last.counters
        self._entries, self._events, self._rejected = counters.entries, counters.events, counters.rejected
        self._duplicates, self._lost, self._missing = counters.duplicates, counters.lost, counters.missing
        self._account = msgspec.structs.replace(state.last.account)
        self._dead: list[DeadLetter] = []
        self._changed: dict[str, Seen] = {}
        self._closed: list[Extent] = []
        self._bytes = 0
        self._since: float | None = None
        self._trimmed_at = self._forgot_at = -math.inf
        self._logged, self._logged_order = self._position, self._position_order
        standing = attach(client, keys, taken, self._position, state.last.before)
        # Everything that remains is read again and skipped by what the log has seen: a restored server may have given
        # old IDs to new events, so "up to the position" would lose them.
        self.cursor: EntryId = "0-0"
        self._entries_read = max(standing.entries_added - standing.length, 0)
        self.suspect = standing.suspect
        self._left = standing.position
        self._note_missing(standing.books)
        # Letters that the books count already may have been looked at and taken away since.
        unconfirmed = standing.books.get(f"{taken.group}.rejected") != str(self._rejected)
        self._confirm(standing.position, standing.entries_read, state.last.dead if unconfirmed else [])

    def _note_missing(self, books: Mapping[str, str]) -> None:
        """Count what is in no log any more, and let our own log say so before the books forget."""
        shard, group = self._taken.shard, self._taken.group
        confirmed = sum(int(books.get(f"{group}.{name}", 0)) for name in ("events", "rejected"))
        known = self._events + self._rejected
        missing = missing_events(self._client, self._keys.events(shard), self._left, self._seen, confirmed, known)
        if missing:
            log.error("%s of shard %d: %d committed events are in no commit log any more", group, shard, missing)
            self._events += missing
            self._missing += missing
            self._log.append(self._record([]))

    def take(self, entry_id: bytes, fields: Mapping[bytes, bytes]) -> None:
        self._begin(entry_id)
        if b"events" not in fields and id_order(self.cursor) <= self._position_order:
            return
        try:
            entry = read_entry(self.cursor, fields)
        except InvalidEvent as bad:
            self._take_unreadable(fields, str(bad))
            return
        is_new = id_order(entry.id) > self._position_order
        known = self._known_lines(entry, is_new)
        if known >= entry.n:
            if is_new:
                self._note(entry, known, 0)
            return
        self._entries += 1
        verdict = judge(cut_lines(entry.payload, known) if known else entry.payload, entry.arrived)
        self._note(entry, known, len(verdict.events) + len(verdict.rejected))
        for rejected in verdict.rejected:
            self._bury(f"{entry.id}/{known + rejected.line}", rejected.reason, rejected.payload)
        if verdict.events:
            self._keep(verdict)
        self._advance()

    def knows(self, entry_id: bytes, fields: Mapping[bytes, bytes]) -> bool:
        entry = read_header(entry_id.decode(), fields)
        if entry.producer is None:
            return id_order(entry.id) <= self._position_order
        seen = self._seen.get(entry.producer)
        return seen is not None and entry.seq + entry.n - 1 <= seen.number

    def condemn(self, entry_id: bytes, fields: Mapping[bytes, bytes], reason: str) -> None:
        """Bury an entry unread: its lines may be what nobody survives, its header is needed to know what follows."""
        self._begin(entry_id)
        is_new = id_order(self.cursor) > self._position_order
        entry = read_header(self.cursor, fields)
        known = self._known_lines(entry, is_new)
        if known >= entry.n:
            return
        self._entries += 1
        self._note(entry, known, entry.n - known)
        self._account.condemned += entry.n - known
        self._bury(f"{self.cursor}/0", reason, _shown(fields), entry.n - known)
        self._advance()

    def _begin(self, entry_id: bytes) -> None:
        self.cursor = entry_id.decode()
        self._entries_read += 1
        if self._since is None:
            self._since = monotonic()

    def _note(self, entry: Entry, known: int, judged: int) -> None:
        """Write an entry into the account."""
        self._account.read(entry.told, entry.n, known + judged)
        self._account.repeated += known

    def _known_lines(self, entry: Entry, is_new: bool) -> int:
        """How many of the entry's first lines were archived before; notes the others as seen."""
        if entry.producer is None:
            return 0 if is_new else 1
        seen = self._seen.get(entry.producer)
        last, end = seen.number if seen else 0, entry.seq + entry.n - 1
        if end <= last:
            self._duplicates += entry.n if is_new else 0
            return entry.n
        self._lost += max(entry.seq - last - 1, 0)
        self._seen[entry.producer] = self._changed[entry.producer] = Seen(end, entry.arrived)
        return max(last + 1 - entry.seq, 0)

    def _keep(self, verdict: Verdict) -> None:
        events = verdict.events
        times: list[float] = [event.ts for event in events]  # type: ignore[misc]  # a judged event has its time
        low, high = min(times), max(times)
        self._events += len(events)
        self._account.accepted += len(events)
        self._bytes += len(verdict.payload)
        if low // HOUR == high // HOUR:
            self._segments.add(partition_of(low), verdict.payload, len(events), low, high)
            return
        lines = verdict.lines or verdict.payload.split(b"\n")
        by_hour: dict[float, list[int]] = {}
        for index, ts in enumerate(times):
            by_hour.setdefault(ts // HOUR, []).append(index)
        for indexes in by_hour.values():
            hour_times = [times[i] for i in indexes]
            joined = b"".join(lines[i] + b"\n" for i in indexes)
            low = min(hour_times)
            self._segments.add(partition_of(low), joined, len(indexes), low, max(hour_times))

    def _take_unreadable(self, fields: Mapping[bytes, bytes], reason: str) -> None:
        if id_order(self.cursor) <= self._position_order:
            return
        self._entries += 1
        self._account.foreign += 1
        self._bury(f"{self.cursor}/0", reason, _shown(fields))
        self._advance()

    def _bury(self, letter_id: str, reason: str, payload: bytes, events: int = 1) -> None:
        self._rejected += events
        self._account.rejected += events
        self._bytes += len(payload)
        self._dead.append(DeadLetter(letter_id, reason, id_time(self.cursor), payload.decode("utf-8", "replace")))

    def _advance(self) -> None:
        """The position only grows, even while entries with lower IDs of a restored server are taken."""
        order = id_order(self.cursor)
        if order > self._position_order:
            self._position, self._position_order = self.cursor, order

    def idle(self) -> None:
        """Nothing comes in: close what has grown old, let go of what all groups have read, keep the lease."""
        if self._since is None:
            self._closed += self._segments.roll()
        if self._closed:
            self._since = monotonic()
            self.commit()
        else:
            self.renew()
        self._trim()

    def renew(self) -> None:
        renew(self._client, self._keys, self._taken, self._left)

    def wait_ms(self) -> int | None:
        if self._since is None:
            return None
        if self._bytes >= COMMIT_BYTES:
            return 0
        return max(int((self._since + self._policy.commit_interval_seconds - monotonic()) * 1000), 0)

    def commit(self) -> None:
        if self._since is None:
            return
        extents = [*self._closed, *self._segments.write(self.renew)]
        if extents or self._dead or self._changed or self._position_order != self._logged_order:
            self._log.append(self._record(extents))
            self._logged, self._logged_order = self._position, self._position_order
        self._confirm(self.cursor, self._entries_read, self._dead)
        # Before the last step, which may find no space and be done again: letters are told once.
        self._dead, self._changed, self._closed = [], {}, []
        self._segments.publish()
        self._closed = self._segments.roll()
        self._bytes = 0
        self._since = None
        self._trim()

    def _record(self, extents: list[Extent]) -> Record:
        counters = Counters(self._entries, self._events, self._rejected, self._duplicates, self._lost, self._missing)
        return Record(
            self._position, extents, self._changed, self._dead, counters, before=self._logged, account=self._account
        )

    def _trim(self) -> None:
        """Let go of what nobody needs any more: entries that all groups have read, producers that send no more."""
        now = monotonic()
        if now - self._trimmed_at >= TRIM_SECONDS:
            trim(self._client, self._keys, self._taken.shard)
            self._trimmed_at = now
        if now - self._forgot_at >= EVERY:
            forget(self._client, self._keys, self._taken.shard)
            self._forgot_at = now

    def _confirm(self, position: EntryId, entries_read: int | None, dead: list[DeadLetter]) -> None:
        """Tell Redis what the log says. Raises Fenced when the shard has a newer owner, StreamMoved when the group is
        not where it was left."""
        shard, group = self._taken.shard, self._taken.group
        books: dict[str, str | int] = {
            "entries": self._entries,
            "events": self._events,
            "rejected": self._rejected,
            "duplicates": self._duplicates,
            "lost": self._lost,
            "missing": self._missing,
            "account": msgspec.json.encode(self._account).decode(),
            "max_bytes": self._max_bytes,
            "trouble": "",
            "position": self._position,
            "epoch": self._taken.epoch,
            "owner": self._taken.owner,
            "updated": f"{self._now():.3f}",
        }
        fields = [part for name, value in books.items() for part in (f"{group}.{name}", value)]
        letters = [part for letter in dead for part in (letter.id, msgspec.json.encode(letter))]
        answer = scripts.run(
            self._client,
            scripts.load(PACKAGE, "archive_commit"),
            [
                self._keys.events(shard),
                self._keys.lease(shard, group),
                self._keys.fence(shard, group),
                self._keys.books(shard),
                self._keys.dead(shard),
            ],
            [
                *(self._taken.fence, self._taken.owner, LEASE_MS, group, self._left, position),
                *("" if entries_read is None else entries_read, len(books), *fields, *letters),
            ],
        )
        require(answer, self._taken)
        self._left = position

    def spent(self) -> bool:
        return self._log.grown >= LOG_BYTES

    def close(self) -> None:
        self._segments.close()
        self._log.close()


def _shown(fields: Mapping[bytes, bytes]) -> bytes:
    """A whole entry as the payload of a dead letter."""
    return msgspec.json.encode(
        {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in fields.items()}
    )
