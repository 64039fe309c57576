"""Making the windows of a shard anew from its files.

The files are the truth: the newest commit record tells a position, and its segments hold every event up to it. So the
windows are emptied, their group is set to that position, and the events are put in again by the aggregator's own
arithmetic. Meanwhile windows count as incomplete, and a crash at any step leaves them so: this can be run again. An
aggregator that is at work loses the shard, and gets it back afterwards; what comes in meanwhile waits in the stream,
which is never trimmed beyond the position.
"""

import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from redis import Redis

from vibezen.metrics import scripts
from vibezen.metrics.account import Account
from vibezen.metrics.balance import account_of
from vibezen.metrics.batch import EntryId, id_order
from vibezen.metrics.clock import wall
from vibezen.metrics.committed import blocks, hours_of, open_committed
from vibezen.metrics.consumers.aggregator import Aggregator
from vibezen.metrics.consumers.lease import PACKAGE, Taken, release, require, take
from vibezen.metrics.consumers.shard import attach
from vibezen.metrics.coverage import shape_of
from vibezen.metrics.errors import StoreError
from vibezen.metrics.event import MAX_AHEAD
from vibezen.metrics.event_reader import FilesChanged
from vibezen.metrics.keys import AGGREGATE, ARCHIVE, Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.series import SeriesTable
from vibezen.metrics.settings import Aggregation, Settings
from vibezen.metrics.shard_events import Block, ShardEvents
from vibezen.metrics.verify.parts import PartCheck

LOOKS: Final = 20
PAUSE: Final = 0.25
"""Seconds between looks for a moment at which the archiver has settled with the server."""
ASKED: Final = 1000
"""Windows asked for in one round trip."""

Progress = Callable[[int], None]
"""Called with the bytes that were read since the last call."""


class Rebuilt(NamedTuple):
    """What came of a shard: events put into windows, up to which position. `complete`: whether the windows answer for
    everything now; they do not where the server lost something meanwhile."""

    events: int
    position: str
    complete: bool


class _Standing(NamedTuple):
    """Where the archiver stands: `files` hold every event up to `position`, and `account` is its account there.
    `stored`: the books of the shard."""

    files: ShardEvents
    position: EntryId
    account: Account
    stored: Mapping[bytes, bytes]


class _Begun(NamedTuple):
    """`floor`: what marks the windows as incomplete."""

    standing: _Standing
    floor: bytes


def rebuild(
    client: Redis, keys: Keys, layout: Layout, settings: Settings, shard: int, progress: Progress = lambda _: None
) -> Rebuilt:
    """Make all windows of a shard anew. Raises Fenced when another owner takes the shard over in turn; StoreError when
    files are damaged or hold less than the server, with the windows as they were; what the client raises may come at
    any step."""
    try:
        _require_whole(layout, shard, settings.aggregation, _server_time(client), progress)
    except OSError as error:
        raise StoreError(f"storage folder {layout.root}: {error}") from None
    taken = take(client, keys, shard, AGGREGATE, f"rebuild:{secrets.token_hex(8)}", force=True)
    assert taken is not None
    try:
        return _rebuild(client, keys, layout, settings, taken, progress)
    except OSError as error:
        raise StoreError(f"storage folder {layout.root}: {error}") from None
    finally:
        release(client, keys, taken)


def _rebuild(
    client: Redis, keys: Keys, layout: Layout, settings: Settings, taken: Taken, progress: Progress
) -> Rebuilt:
    policy, gauges = settings.aggregation, settings.catalogue().gauges()
    attach(client, keys, taken, None, note_floor=True)
    skew = _server_time(client) - wall()
    begun = _begin(client, keys, layout, policy, taken, wall() + skew)
    aggregator = Aggregator(client, keys, taken, policy, SeriesTable(policy.labels, gauges), lambda: wall() + skew)
    put = 0
    for block in _kept(begun.standing.files, _hours(policy, wall() + skew)):
        put += aggregator.refill(block.events)
        progress(block.bytes)
        if aggregator.wait_ms() == 0:
            aggregator.commit(show=False)
    aggregator.commit(show=False)
    ends = [keys.fence(taken.shard, taken.group), keys.floor(taken.shard)]
    answer = scripts.run(client, scripts.load(PACKAGE, "rebuild_end"), ends, [taken.fence, begun.floor])
    if answer == 0:
        require(answer, taken)
    return Rebuilt(put, begun.standing.position, answer == 1)


def _server_time(client: Redis) -> float:
    seconds, microseconds = client.time()
    return float(seconds) + microseconds / 1e6


def _begin(client: Redis, keys: Keys, layout: Layout, policy: Aggregation, taken: Taken, now: float) -> _Begun:
    """Empty the windows once the archiver has read what this server holds."""
    shard = taken.shard
    windows = _present(client, keys, policy, shard, now)
    names = [keys.events(shard), keys.fence(shard, taken.group), keys.books(shard), keys.floor(shard), *windows]
    for _ in range(LOOKS):
        standing = _archived(client, keys, layout, shard, _hours(policy, now))
        fields = _books(standing, policy)
        args: list[str | bytes | int | float] = [taken.fence, taken.group, standing.position, ARCHIVE]
        args.append(standing.files.last.before)
        args += [part for name, value in fields.items() for part in (f"{AGGREGATE}.{name}", value)]
        answer = scripts.run(client, scripts.load(PACKAGE, "rebuild_begin"), names, args)
        require(answer[0] if answer[0] == 0 else 1, taken)
        if answer[0] == 1:
            return _Begun(standing, answer[1])
        time.sleep(PAUSE)
    raise StoreError(
        f"storage folder {layout.root}: the archiver has not read all that the server holds of shard {shard}; start "
        "`vibezen-metrics consume archive`, then rebuild"
    )


def _archived(client: Redis, keys: Keys, layout: Layout, shard: int, hours: range) -> _Standing:
    """The server first: the logs, read after it, hold all that the archiver has told it of."""
    pipe = client.pipeline(transaction=True)
    pipe.xinfo_groups(keys.events(shard))
    pipe.hgetall(keys.books(shard))
    groups, stored = pipe.execute()
    told = {group["name"]: group["last-delivered-id"].decode() for group in groups}.get(ARCHIVE.encode(), "0-0")
    files = ShardEvents(layout, shard, hours)
    if id_order(told) > id_order(files.last.position):
        # It has read on, and found nothing but what it had: that is in no record, and must not be aggregated either.
        return _Standing(files, told, account_of(stored, ARCHIVE), stored)
    return _Standing(files, files.last.position, files.last.account, stored)


def _present(client: Redis, keys: Keys, policy: Aggregation, shard: int, now: float) -> list[str]:
    """The keys of all windows there are. Nobody makes any while the shard is ours."""
    names = [
        name(shard, width.seconds, start)
        for width in policy.widths
        for start in range(
            int((now - width.keep_seconds) // width.seconds - 2) * width.seconds,
            int(now + MAX_AHEAD) + 2 * width.seconds,
            width.seconds,
        )
        for name in (keys.window, keys.totals)
    ]
    found: list[str] = []
    for first in range(0, len(names), ASKED):
        some = names[first : first + ASKED]
        pipe = client.pipeline(transaction=False)
        for name in some:
            pipe.exists(name)
        found += [name for name, is_there in zip(some, pipe.execute(), strict=True) if is_there]
    return found


def _books(standing: _Standing, policy: Aggregation) -> dict[str, str | int]:
    """The group's books at the position of the files: what was archived is in windows, but for what was too old."""
    counters, stored = standing.files.last.counters, standing.stored
    too_old = min(int(stored.get(f"{AGGREGATE}.too_old".encode(), 0)), counters.events)
    account = _account(account_of(stored, AGGREGATE), standing.account)
    return {
        "entries": counters.entries,
        "events": counters.events - too_old,
        "rejected": counters.rejected,
        "too_old": too_old,
        "overflow": 0,
        "account": msgspec.json.encode(account).decode(),
        "position": standing.position,
        "shape": shape_of(policy),
        "shaped": 0,
    }


def _account(before: Account, archive: Account) -> Account:
    is_same = (before.epoch, before.begun) == (archive.epoch, archive.begun)
    too_old = min(before.too_old, archive.accepted) if is_same else 0
    return msgspec.structs.replace(archive, accepted=archive.accepted - too_old, too_old=too_old)


def _require_whole(layout: Layout, shard: int, policy: Aggregation, now: float, progress: Progress) -> None:
    """See that the files are what was committed: where they are not, the windows may be all that is left of it."""
    hours = _hours(policy, now)
    files = ShardEvents(layout, shard, hours)
    for extent in (extent for hour in hours for extent in files.segments(hour)):
        crc = size = 0
        with suppress(FileNotFoundError), open_committed(layout, extent) as file:
            for block in blocks(file, extent.end):
                crc, size = zlib.crc32(block, crc), size + len(block)
                progress(len(block))
        if (crc, size) != (extent.crc, extent.end):
            raise _not_whole(f"{layout.events / extent.path} is damaged or gone")
    with closing(PartCheck()) as check:
        for part in files.parts(hours):
            if differs := check.differences(part.place, part.part.footer):
                raise _not_whole(f"{part.place}: {'; '.join(differs)}")
            progress(Path(part.place).stat().st_size)


def _not_whole(what: str) -> StoreError:
    return StoreError(
        f"{what}, so that windows are left as they are: see `vibezen-metrics verify --offline`, and bring the file "
        "back from a backup"
    )


def _kept(files: ShardEvents, hours: range) -> Iterator[Block]:
    """Their events. Raises StoreError when a file goes before it was read."""
    try:
        for hour in hours:
            yield from files.read(hour)
    except FilesChanged as error:
        raise StoreError(f"{error}; the windows count as incomplete: run it again") from None


def _hours(policy: Aggregation, now: float) -> range:
    """Those whose windows are kept."""
    since = now - max(width.keep_seconds + width.seconds for width in policy.widths)
    return hours_of(since, now + MAX_AHEAD)
