"""Parts: closed hours and days as immutable Parquet generations, and which of them stand for what.

A part's footer names every segment it includes, those of the generations before it too, so that the newest generation
alone tells what still has to be read beside it. A part is published by a link that replaces nothing; a late sleeper
can therefore only add a generation that is older, or includes less, than the one readers take.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.clock import DAY
from vibezen.metrics.layout import hour_of

FORMAT: Final = 1
KEY: Final = "vibezen"
"""Of the footer among a Parquet file's key-value metadata."""

_PART = re.compile(r"part-(\d{1,9})\.parquet\Z")


class Input(msgspec.Struct, array_like=True, frozen=True):
    """A segment that a part includes: its path below the events folder, its lines, and their CRC-32."""

    path: str
    events: int
    crc: int


class HourOf(msgspec.Struct, array_like=True, frozen=True):
    """One hour in a part: its events, and the times of the first and the last one in Unix seconds."""

    events: int
    min_ts: float
    max_ts: float


class Moved(msgspec.Struct, frozen=True):
    """Where the rows of a stub lie: a file of `size` bytes."""

    url: str
    size: int
    sha256: str


class Footer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a part says of itself.

    `hours`: by the Unix seconds of their beginning. `content`: a sum over the rows that does not depend on their order
    (see parts_sql). `arrived`: Unix seconds at which its newest input was last written. `base`: the generation it was
    made from. A stub has no rows: they were dropped (`dropped` counts them, since the store began), or lie elsewhere.
    """

    store: str
    generation: int
    inputs: list[Input]
    hours: dict[int, HourOf]
    content: str
    arrived: float
    base: int | None = None
    dropped: int = 0
    moved: Moved | None = None
    format: int = FORMAT

    @property
    def events(self) -> int:
        return sum(hour.events for hour in self.hours.values())

    @property
    def rows_of(self) -> int:
        """The generation whose rows these are: a stub that says where they were moved has those of its base."""
        return self.generation if self.moved is None or self.base is None else self.base

    def paths(self) -> frozenset[str]:
        return frozenset(one.path for one in self.inputs)


class Part(NamedTuple):
    """One generation. `path` lies below the events folder."""

    path: str
    footer: Footer


class View(NamedTuple):
    """What stands for one date. `by_hour`: the part in which an hour's rows are to be read, by the hour's beginning;
    `included`: segments that must not be read beside them; `day`: the newest day part, whatever it stands for."""

    by_hour: Mapping[int, Part]
    included: frozenset[str]
    day: Part | None = None


def generation_of(name: str) -> int | None:
    """The generation of a part's file name; None for any other name."""
    match = _PART.match(name)
    return int(match[1]) if match else None


def part_name(generation: int) -> str:
    return f"part-{generation}.parquet"


def newest(parts: Iterable[Part]) -> Part | None:
    return max(parts, key=lambda part: part.footer.generation, default=None)


def view(day: Part | None, hours: Mapping[int, Part]) -> View:
    """What readers take of a date: of each hour the part that includes most, the day's where both include the same.

    `day`: the newest day part; `hours`: the newest part of each hour that has any. What a compactor includes is all
    that was closed when it looked, so of two parts one always includes what the other does.
    """
    if day is None:
        return View(hours, frozenset[str]().union(*(part.footer.paths() for part in hours.values())))
    included = day.footer.paths()
    by_hour = dict.fromkeys(day.footer.hours, day)
    for hour, part in hours.items():
        if not part.footer.paths() <= included:
            by_hour[hour] = part
            included |= part.footer.paths()
    return View(by_hour, included, day)


def date_of(hour: int) -> int:
    """Where the UTC date of an hour begins, in Unix seconds."""
    return hour // DAY * DAY


def hours_of_inputs(inputs: Iterable[Input]) -> set[int]:
    return {hour_of(one.path) for one in inputs}


_decoder: Final = msgspec.json.Decoder(Footer)


def encode_footer(footer: Footer) -> str:
    return msgspec.json.encode(footer).decode()


def decode_footer(text: str | bytes) -> Footer:
    """Raises msgspec.MsgspecError for what is none."""
    return _decoder.decode(text)
