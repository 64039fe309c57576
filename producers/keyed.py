"""Requests with a key: appended under their client's producer id and numbers, which makes the client's retry harmless.

No number is ever left out: were the second of two bodies appended first, the first would be taken for a repetition of
what is there, and lost without a word. So it is refused, and the client told which number is expected.
"""

from collections.abc import Sequence
from typing import Any, Final

from redis import Redis
from redis.exceptions import NoScriptError, RedisError

from vibezen.metrics import scripts
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers.append import (
    PACKAGE,
    WAIT_MS,
    Appended,
    append,
    append_args,
    raise_shards,
    read_reply,
    require_replicas,
    script_keys,
    shard_holding,
)
from vibezen.metrics.producers.idempotency import Key
from vibezen.metrics.producers.work import Call, Outcome, Work

KNOWN_SHARDS: Final = 10_000
"""Producers whose shard is remembered; of others it is looked up."""
NO_STATS: Final = b"{}"
"""What became of a client's events before they came here, only the client knows."""


class Keyed:
    """Each request for itself, all in one round trip."""

    def __init__(self, keys: Keys, shards: int, replicas: int = 0) -> None:
        self._keys, self._shards, self._replicas = keys, shards, replicas
        self._shard_of: dict[str, int] = {}

    def give_up(self) -> None:
        """Nothing to be done: the client repeats the same numbers."""

    def call(self, works: Sequence[Work]) -> Call:
        def call(client: Redis) -> Sequence[Outcome]:
            return self._append(client, works)

        return call

    def _append(self, client: Redis, works: Sequence[Work]) -> Sequence[Outcome]:
        script = scripts.load(PACKAGE, "append")
        pipe: Any = client.pipeline(transaction=False)
        shards = [self._shard(client, _key(work).producer) for work in works]
        last = {shard: index for index, shard in enumerate(shards)}
        waits: list[int] = []
        for index, (work, shard) in enumerate(zip(works, shards, strict=True)):
            producer, seq = _key(work)
            args = append_args(producer, seq, work.batches, NO_STATS, gapless=True)
            names = script_keys(self._keys, shard)
            pipe.execute_command("EVALSHA", script.digest, len(names), *names, *args)
            if self._replicas and last[shard] == index:  # right behind what it waits for: see scripts.run_replicated
                waits.append(len(pipe))
                pipe.wait(self._replicas, WAIT_MS)
        replies = pipe.execute(raise_on_error=False)
        have = [replies.pop(at) for at in reversed(waits)]
        outcomes = [
            self._read(client, work, shard, reply) for work, shard, reply in zip(works, shards, replies, strict=True)
        ]
        for answer in have:
            require_replicas(answer, self._replicas)
        return outcomes

    def _read(self, client: Redis, work: Work, shard: int, reply: Any) -> Outcome:
        if isinstance(reply, NoScriptError):
            return self._append_alone(client, work, shard)
        if isinstance(reply, RedisError):
            return reply
        done = read_reply(reply)
        producer = _key(work).producer
        if done.gap and self._shard_of.pop(producer, None) is not None:
            # Remembered wrongly, perhaps: another gateway, told of another number of shards, has it elsewhere.
            return self._append_alone(client, work, self._shard(client, producer))
        return self._landed(client, producer, shard, done)

    def _append_alone(self, client: Redis, work: Work, shard: int) -> Outcome:
        producer, seq = _key(work)
        try:
            done = append(
                *(client, self._keys, shard, producer, seq, work.batches, NO_STATS),
                gapless=True,
                replicas=self._replicas,
            )
        except RedisError as error:
            return error
        return self._landed(client, producer, shard, done)

    def _landed(self, client: Redis, producer: str, shard: int, done: Appended) -> Appended:
        if done.created:
            raise_shards(client, self._keys, self._shards)
        if not done.gap:
            self._remember(producer, shard)
        return done

    def _shard(self, client: Redis, producer: str) -> int:
        found = self._shard_of.get(producer)
        return found if found is not None else shard_holding(client, self._keys, producer, self._shards)

    def _remember(self, producer: str, shard: int) -> None:
        """Only where something of it is: until then, any gateway may put it elsewhere."""
        if producer not in self._shard_of:
            while len(self._shard_of) >= KNOWN_SHARDS:
                del self._shard_of[next(iter(self._shard_of))]
            self._shard_of[producer] = shard


def _key(work: Work) -> Key:
    assert work.key is not None
    return work.key
