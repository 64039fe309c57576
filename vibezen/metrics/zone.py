"""Time zones: what a clock shows at a moment, and when it shows what. UTC is one of them."""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import count
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from vibezen.metrics.clock import DAY, MAX_ISO

LAST: Final = MAX_ISO - 2 * DAY
"""Two days before the year 10000, where calendars end: later moments have the offset of this one."""
_FIXED = re.compile(r"(?:UTC)?([+-])(\d\d):?(\d\d)?\Z")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}\Z")
_NO_ZONES: Final = ("right", "posix", "posixrules", "localtime", "factory")
"""Names that are files among the zones: with leap seconds, twice, or whatever this computer is set to."""


class Zone(NamedTuple):
    """`name` as it is told: an IANA name, or an offset such as `+05:30`. Moments are Unix seconds; a *reading* is what
    the zone's clock shows, as seconds since 1970-01-01T00:00:00 of that clock."""

    name: str
    rules: tzinfo

    @property
    def is_fixed(self) -> bool:
        """Whether its clock is never changed."""
        return isinstance(self.rules, timezone)

    def offset(self, moment: float) -> int:
        """Seconds that the zone's clock is ahead of UTC."""
        ahead = datetime.fromtimestamp(min(moment, LAST), self.rules).utcoffset()
        assert ahead is not None
        return int(ahead.total_seconds())

    def reading(self, moment: float) -> float:
        return moment + self.offset(moment)

    def first(self, reading: int) -> int:
        """The first moment at which the clock shows `reading`; where it is put forward over that, the one of the
        change."""
        before, after = (self.offset(reading + away) for away in (-DAY, DAY))
        if self.offset(reading - before) == before:
            return reading - before
        if self.offset(reading - after) == after:
            return reading - after
        low, high = sorted((reading - before, reading - after))
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (middle, high) if self.offset(middle) == before else (low, middle)
        return high

    def moment(self, when: datetime) -> float:
        """Of a date and time that name no zone. Raises ValueError, OverflowError."""
        return when.replace(tzinfo=self.rules).timestamp()

    def last_multiple(self, moment: int, step: int) -> int:
        """The last moment up to `moment` at which the clock shows a whole multiple of `step` seconds."""
        return self._multiple(moment, step, -1)

    def next_multiple(self, moment: int, step: int) -> int:
        """The first one after `moment`."""
        return self._multiple(moment, step, 1)

    def _multiple(self, moment: int, step: int, way: int) -> int:
        """Once per step, except where the clock is changed by something else than a multiple of it."""
        for far in count():
            found = set()
            for near in (moment + way * far * step, moment + way * (far + 1) * step):
                offset = self.offset(near)
                into = (moment + offset) % step
                candidate = moment - into - far * step if way < 0 else moment - into + (far + 1) * step
                if self.offset(candidate) == offset:
                    found.add(candidate)
            if found:
                return max(found) if way < 0 else min(found)
        raise AssertionError("unreachable")


UTC_ZONE: Final = Zone("UTC", UTC)


def zone_of(text: str) -> Zone:
    """Of an IANA name, or an offset such as `+05:30`. Raises ValueError."""
    if text.upper() in ("UTC", "Z", "GMT", "ETC/UTC"):
        return UTC_ZONE
    # A plus sign that was not escaped in the address arrives as a space.
    if fixed := _FIXED.match("+" + text[1:] if text.startswith(" ") else text):
        sign, hours, minutes = fixed.groups()
        ahead = timedelta(hours=int(hours), minutes=int(minutes or 0))
        if ahead < timedelta(days=1) and int(minutes or 0) < 60:
            name = f"{sign}{hours}:{minutes or '00'}"
            return Zone(name, timezone(-ahead if sign == "-" else ahead, name)) if ahead else UTC_ZONE
    if not _NAME.match(text) or text.lower().partition("/")[0] in _NO_ZONES:
        raise ValueError(text)
    try:
        return Zone(text, ZoneInfo(text))
    except (ValueError, LookupError, OSError):  # a folder, a file that is no zone, a name too long
        raise ValueError(text) from None
