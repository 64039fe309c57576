"""Who may work on a shard: the lease decides when one may try, the fence decides whose writes count."""

import secrets
from typing import Final, NamedTuple

from redis import Redis

from vibezen.metrics import scripts
from vibezen.metrics.batch import EntryId
from vibezen.metrics.errors import Fenced, StreamMoved
from vibezen.metrics.keys import Keys

PACKAGE: Final = "vibezen.metrics.consumers"
LEASE_MS: Final = 5000
"""A silent owner is replaced after this time. Reads block for a fraction of it, so an idle owner is never silent."""


class Taken(NamedTuple):
    """A shard of one group, owned. `fence` is `<epoch>:<random token>`; every commit compares all of it."""

    shard: int
    group: str
    owner: str
    fence: str

    @property
    def epoch(self) -> int:
        return int(self.fence.partition(":")[0])


def take(
    client: Redis, keys: Keys, shard: int, group: str, owner: str, epoch_seen: int = 0, *, force: bool = False
) -> Taken | None:
    """Take the shard over, or None while another holds its lease. `epoch_seen`: the highest epoch on disk.

    Who asks under the name that holds the lease takes over from itself: that is how an owner starts anew. With `force`
    a living owner is replaced too.
    """
    answer = scripts.run(
        client,
        scripts.load(PACKAGE, "take"),
        [keys.lease(shard, group), keys.fence(shard, group)],
        [owner, LEASE_MS, epoch_seen, secrets.token_hex(8), int(force)],
    )
    return Taken(shard, group, owner, answer[1].decode()) if answer[0] == 1 else None


def renew(client: Redis, keys: Keys, taken: Taken, left: EntryId) -> None:
    """Show a sign of life. `left`: where this owner left its group.

    Raises Fenced when the shard has a newer owner, StreamMoved when the group is not there any more.
    """
    shard, group = taken.shard, taken.group
    answer = scripts.run(
        client,
        scripts.load(PACKAGE, "renew"),
        [keys.lease(shard, group), keys.fence(shard, group), keys.events(shard)],
        [taken.fence, taken.owner, LEASE_MS, group, left],
    )
    require(answer, taken)


def release(client: Redis, keys: Keys, taken: Taken, *, blameless: bool = True) -> None:
    """Let a successor start at once instead of waiting for the lease to run out. `blameless`: no entry had to do with
    the end, so that it counts against none."""
    shard, group = taken.shard, taken.group
    scripts.run(
        client,
        scripts.load(PACKAGE, "release"),
        [keys.lease(shard, group), keys.fence(shard, group), keys.books(shard)],
        [taken.owner, taken.fence, group, int(blameless)],
    )


def tell_trouble(client: Redis, keys: Keys, taken: Taken, trouble: str) -> None:
    """Say in the books why nothing is committed now; the next commit takes it back."""
    answer = scripts.run(
        client,
        scripts.load(PACKAGE, "trouble"),
        [keys.fence(taken.shard, taken.group), keys.books(taken.shard)],
        [taken.fence, taken.group, trouble],
    )
    require(answer, taken)


def require(answer: object, taken: Taken) -> None:
    """Raise Fenced or StreamMoved when a fenced script refused."""
    if answer == 0:
        raise Fenced(f"{taken.group} of shard {taken.shard}: another owner has taken over from {taken.fence}")
    if answer == -1:
        raise StreamMoved(f"{taken.group} of shard {taken.shard}: the stream is not as it was left; starting anew")
