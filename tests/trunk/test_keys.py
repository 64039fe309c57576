"""Key names: as the contract writes them, and each shard in one slot of a cluster."""

import pytest
from redis.crc import key_slot

from vibezen.metrics.keys import AGGREGATE, ARCHIVE, DEFAULT_PREFIX, GROUPS, Keys


def shard_keys(keys: Keys, shard: int) -> list[str]:
    names = [keys.events(shard), keys.producers(shard), keys.dead(shard), keys.floor(shard), keys.books(shard)]
    names += [name for group in GROUPS for name in (keys.lease(shard, group), keys.fence(shard, group))]
    names += [keys.window(shard, width, start) for width in (10, 60) for start in (1763930000, 1763930060)]
    return names


def global_keys(keys: Keys) -> list[str]:
    return [
        keys.shards,
        keys.store,
        keys.frames,
        keys.transitions,
        keys.imported("p"),
        *(keys.members(group) for group in GROUPS),
    ]


def test_names_are_those_of_the_contract() -> None:
    keys = Keys()
    assert (DEFAULT_PREFIX, GROUPS) == ("vibezen", (ARCHIVE, AGGREGATE)) == ("vibezen", ("archive", "aggregate"))
    assert shard_keys(keys, 3)[:6] == [
        "vibezen:{3}:events",
        "vibezen:{3}:producers",
        "vibezen:{3}:dead",
        "vibezen:{3}:floor",
        "vibezen:{3}:books",
        "vibezen:{3}:lease:archive",
    ]
    assert keys.fence(0, AGGREGATE) == "vibezen:{0}:fence:aggregate"
    assert keys.window(0, 10, 1763930000) == "vibezen:{0}:w:10:1763930000"
    assert (keys.shards, keys.store) == ("vibezen:{meta}:shards", "vibezen:{meta}:store")
    assert (keys.frames, keys.transitions) == ("vibezen:{live}:frames", "vibezen:{alerts}:transitions")


@pytest.mark.parametrize("prefix", ["vibezen", "a:b", "x"])
@pytest.mark.parametrize("shard", [0, 1, 17])
def test_all_keys_of_a_shard_live_in_one_slot(prefix: str, shard: int) -> None:
    slots = {key_slot(name.encode()) for name in shard_keys(Keys(prefix), shard)}
    assert slots == {key_slot(str(shard).encode())}


def test_no_two_keys_share_a_name() -> None:
    names = [
        name
        for prefix in ("vibezen", "other")
        for name in [
            *global_keys(Keys(prefix)),
            *(key for shard in range(12) for key in shard_keys(Keys(prefix), shard)),
        ]
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith(("vibezen:{", "other:{")) for name in names)
