"""Reading dead letters: lines that nobody could accept, kept with the reason until a person has looked at them."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from redis import Redis

from vibezen.metrics.batch import id_order
from vibezen.metrics.commitlog import DeadLetter
from vibezen.metrics.keys import Keys

_READ: Final = 100
"""Letters asked for in one round trip; one may be a megabyte."""
_decoder: Final = msgspec.json.Decoder(DeadLetter)


class Kept(NamedTuple):
    """A letter of one shard without its payload, which is `size` bytes long. `at`: Unix seconds when it arrived."""

    shard: int
    id: str
    reason: str
    at: float
    size: int


class Wanted(NamedTuple):
    """Which letters: those whose reason holds `reason` in any case, and that arrived in [since, until)."""

    reason: str = ""
    since: float = float("-inf")
    until: float = float("inf")

    def fits(self, letter: DeadLetter) -> bool:
        return self.reason.lower() in letter.reason.lower() and self.since <= letter.at < self.until


def overview(client: Redis, keys: Keys, shards: Sequence[int], wanted: Wanted | None = None) -> list[Kept]:
    """The letters of these shards, newest first."""
    wanted = wanted or Wanted()
    kept = [
        Kept(shard, letter.id, letter.reason, letter.at, len(letter.payload.encode()))
        for shard in shards
        for letter in _all(client, keys, shard)
        if wanted.fits(letter)
    ]
    return sorted(kept, key=_age, reverse=True)


def _age(kept: Kept) -> tuple[float, tuple[int, int], int, int]:
    entry, _, line = kept.id.partition("/")
    return kept.at, id_order(entry), int(line), -kept.shard


def _all(client: Redis, keys: Keys, shard: int) -> Iterator[DeadLetter]:
    stored: Iterator[Any] = client.hscan_iter(keys.dead(shard), count=_READ)
    for _, value in stored:
        if (letter := _read(value)) is not None:
            yield letter


def letter(client: Redis, keys: Keys, shard: int, letter_id: str) -> DeadLetter | None:
    """The letter with this id, or None."""
    value = client.hget(keys.dead(shard), letter_id)
    return _read(value) if isinstance(value, bytes) else None


def _read(value: bytes) -> DeadLetter | None:
    """What is no letter was put there by somebody else, and is none of ours."""
    try:
        return _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
