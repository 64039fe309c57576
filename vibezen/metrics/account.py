"""The books of a shard: what was appended, and what each group made of it.

The append script counts events and writes its count into every entry. A group counts what it read of them. At any
position of a group

    appended - begun + foreign = accepted + too_old + rejected + repeated + trimmed

where the left side was counted by who appended and the right side by who read. Counts belong to an epoch: a server that
was emptied, or restored from an older copy, begins to count anew.
"""

from typing import NamedTuple

import msgspec


class Told(NamedTuple):
    """What an entry tells of the shard's books: `events` were appended in this epoch, its own among them."""

    epoch: str
    events: int


class Account(msgspec.Struct, omit_defaults=True):
    """One group's side of a shard's books, in events, from the beginning of an epoch up to the group's position.

    `begun`: the append script's count at which this account begins, and `appended` that at the newest entry read.
    `foreign`: in entries the script did not append, such as an XADD by hand. `accepted`: archived, or aggregated.
    `too_old`: accepted by the rules, but its windows have expired. `rejected`: dead letters. `repeated`: known from
    before. `trimmed`: appended, and gone from the stream before this group read it. `condemned`: those of the rejected
    whose entry was given up by this group, since it ended whoever worked on it; the other group may have accepted them.
    """

    epoch: str = ""
    begun: int = 0
    appended: int = 0
    foreign: int = 0
    accepted: int = 0
    too_old: int = 0
    rejected: int = 0
    repeated: int = 0
    trimmed: int = 0
    condemned: int = 0

    @property
    def difference(self) -> int:
        """Events that are on one side of the books only; 0 when they balance."""
        right = self.accepted + self.too_old + self.rejected + self.repeated + self.trimmed
        return self.appended - self.begun + self.foreign - right

    def read(self, told: Told | None, events: int, lines: int) -> None:
        """Take note of an entry of so many `events` by its own word, and so many `lines` in truth; what became of them
        is added by the caller."""
        if told is None:
            self.foreign += lines
            return
        before = told.events - events
        if told.epoch != self.epoch:
            self._begin(told.epoch, 0)
        elif before < self.appended:  # the server has lost what it had counted, and not its epoch
            self._begin(told.epoch, before)
        self.trimmed += before - self.appended
        self.appended = told.events

    def _begin(self, epoch: str, at: int) -> None:
        self.epoch, self.begun, self.appended = epoch, at, at
        self.foreign = self.accepted = self.too_old = self.rejected = self.repeated = self.trimmed = 0
        self.condemned = 0
