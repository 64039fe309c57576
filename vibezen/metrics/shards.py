"""How many shards there are: the highest number ever used, which producers and the files raise and nothing lowers."""

from typing import Final

from redis import Redis

from vibezen.metrics import scripts
from vibezen.metrics.keys import Keys

PACKAGE: Final = "vibezen.metrics"


def raise_shards(client: Redis, keys: Keys, shards: int) -> int:
    """Tell readers of how many shards there are at least; returns the highest number ever used."""
    return int(scripts.run(client, scripts.load(PACKAGE, "raise_shards"), (keys.shards,), (shards,)))
