"""Both sides of a shard's books, held against each other.

What was appended was counted by the append script, what became of it by each group in its commits, what still waits is
told by the stream itself. `GET /api/pipeline` and `vibezen-metrics verify` show this; a difference is a fault of ours.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from vibezen.metrics.account import Account, Told
from vibezen.metrics.batch import id_order, read_told
from vibezen.metrics.keys import AGGREGATE, ARCHIVE, GROUPS


class Side(msgspec.Struct):
    """One group's side, in events of the present epoch of the books.

    `appended` + `foreign` = `accepted` + `too_old` + `dead` + `repeated` + `trimmed` + `unread` + `difference`.
    `foreign`: read from entries that the append script did not write. `accepted`: archived, or aggregated. `too_old`:
    aggregated nowhere, since its windows have expired. `repeated`: known from before. `trimmed`: gone from the stream
    before this group read it, and lost to it. `unread`: waits in the stream.
    """

    appended: int
    foreign: int
    accepted: int
    too_old: int
    dead: int
    repeated: int
    trimmed: int
    unread: int
    difference: int


class Books(msgspec.Struct):
    """`appended`: events the append script appended since the epoch began. `archived_less_aggregated`: archived events
    less those aggregated or too old; None while the two groups stand at different positions."""

    epoch: str
    appended: int
    groups: dict[str, Side]
    archived_less_aggregated: int | None

    @property
    def balances(self) -> bool:
        return not self.archived_less_aggregated and not any(side.difference for side in self.groups.values())


NEWEST: Final = 3
"""Entries to look at for what the stream holds: the newest may be one that tells nothing."""


def books_of(stored: Mapping[bytes, bytes], newest: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> Books:
    """The books of one shard. `stored`: its books hash; `newest`: the NEWEST entries of its stream, newest first, read
    after the hash."""
    told = Told(stored.get(b"append.epoch", b"").decode(), int(stored.get(b"append.events", 0)))
    held = _Held(stored, newest, told)
    accounts = {group: account_of(stored, group) for group in GROUPS}
    groups = {group: _side(account, told, held.unread(group, account)) for group, account in accounts.items()}
    return Books(told.epoch, told.events, groups, _archived_less_aggregated(stored, accounts))


def account_of(stored: Mapping[bytes, bytes], group: str) -> Account:
    """A group's account as its last commit left it; an empty one before the first."""
    return msgspec.json.decode(stored.get(f"{group}.account".encode(), b"{}"), type=Account)


class _Held:
    """What waits in the stream, by its own word."""

    def __init__(
        self, stored: Mapping[bytes, bytes], newest: Sequence[tuple[bytes, Mapping[bytes, bytes]]], told: Told
    ) -> None:
        self._stored, self._told = stored, told
        self._last = id_order(newest[0][0].decode()) if newest else (0, 0)
        found = (read_told(fields) for _, fields in newest)
        self._count = next((one.events for one in found if one and one.epoch == told.epoch), None)

    def unread(self, group: str, account: Account) -> int:
        begun = account.appended if account.epoch == self._told.epoch else 0
        position = self._stored.get(f"{group}.position".encode(), b"0-0").decode()
        if self._last <= id_order(position):
            return 0
        # An entry may have come in since the hash was read. Where the newest tell nothing, all of it may be there.
        count = self._told.events if self._count is None else min(self._count, self._told.events)
        return max(count - begun, 0)


def _side(account: Account, told: Told, unread: int) -> Side:
    if account.epoch != told.epoch:  # it has read nothing yet of this epoch
        account = Account(told.epoch)
    gone = max(told.events - account.appended - unread, 0)
    return Side(
        appended=told.events - account.begun,
        foreign=account.foreign,
        accepted=account.accepted,
        too_old=account.too_old,
        dead=account.rejected,
        repeated=account.repeated,
        trimmed=account.trimmed + gone,
        unread=unread,
        difference=account.difference,
    )


def _archived_less_aggregated(stored: Mapping[bytes, bytes], accounts: Mapping[str, Account]) -> int | None:
    archive, aggregate = accounts[ARCHIVE], accounts[AGGREGATE]
    position = stored.get(f"{ARCHIVE}.position".encode())
    if position is None or position != stored.get(f"{AGGREGATE}.position".encode()):
        return None
    if (archive.epoch, archive.begun) != (aggregate.epoch, aggregate.begun):
        return None
    difference = archive.accepted - aggregate.accepted - aggregate.too_old
    if (archive.trimmed, archive.repeated) != (aggregate.trimmed, aggregate.repeated):
        # What only one of them found gone, or knew already, only the other could judge.
        difference += archive.rejected + archive.trimmed + archive.repeated
        difference -= aggregate.rejected + aggregate.trimmed + aggregate.repeated
    return difference
