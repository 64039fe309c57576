"""Where a live client stands: `<live id>_<alert id>`, two entry ids of Redis. The same in every API process."""

import re
from typing import NamedTuple

_ID = re.compile(r"(\d{1,20})-(\d{1,20})_(\d{1,20})-(\d{1,20})\Z")

EntryNumber = tuple[int, int]
"""An entry id as two numbers, which order as the server orders entries."""


class Position(NamedTuple):
    """Everything up to these two entries, both included."""

    live: EntryNumber = (0, 0)
    alert: EntryNumber = (0, 0)

    def __str__(self) -> str:
        return f"{entry_id(self.live)}_{entry_id(self.alert)}"

    def covers(self, other: "Position") -> bool:
        """Whether nothing of `other` lies beyond this position."""
        return self.live >= other.live and self.alert >= other.alert


def parse_position(text: str) -> Position | None:
    """The position a client sent; None when that was never one of ours."""
    match = _ID.match(text)
    if match is None:
        return None
    live, live_seq, alert, alert_seq = map(int, match.groups())
    return Position((live, live_seq), (alert, alert_seq))


def entry_number(entry_id: bytes) -> EntryNumber:
    time, _, sequence = entry_id.partition(b"-")
    return int(time), int(sequence)


def entry_id(number: EntryNumber) -> str:
    return f"{number[0]}-{number[1]}"
