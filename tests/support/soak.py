"""A soak: the whole product under load, faults by plan, and a verdict by what applications noted.

Everything reaches the server through a proxy that can lose replies. The store lies on a disk that can be filled.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import redis

from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.soak_disk import Disk, small_disk
from tests.support.soak_faults import Faults
from tests.support.soak_judge import Outcome, judge
from tests.support.soak_members import APPLICATIONS, KEYS, SHARDS, Members
from tests.support.soak_plan import Step, plan
from tests.support.waiting import wait_until
from vibezen.metrics.verify import books

DISK_MEGABYTES: Final = 192
DRAIN: Final = 90.0
PROGRESS: Final = 30.0
TICK: Final = 0.02

Say = Callable[[str], None]


class Soak:
    """`store`: the folder of the product."""

    def __init__(self, server: Server, disk: Disk, store: Path, members: Members, faults: Faults, say: Say) -> None:
        self._server, self._disk, self._store = server, disk, store
        self._members, self._faults, self._say = members, faults, say

    def run(self, seed: int, seconds: float, gap: float) -> Outcome:
        steps = plan(seed, seconds, gap, len(APPLICATIONS))
        self._say(f"seed {seed}, {seconds:g} s, {self._server.kind}, {len(steps)} steps:")
        for step in steps:
            self._say(str(step))
        if not self._disk.mounted:
            self._say("no disk can be mounted here (only root may): it is never filled")
        self._wait_for_all()
        self._follow(steps, seconds)
        self._faults.heal()
        self._wait_for_all()
        wrong = self._end()
        with self._server.client() as client:
            outcome = judge(client, self._store, self._members)
        outcome.wrong[:0] = wrong
        self._tell(outcome)
        return outcome

    def _wait_for_all(self) -> None:
        with self._server.client() as client:
            wait_until(lambda: self._members.all_work(client), DRAIN)

    def _follow(self, steps: list[Step], seconds: float) -> None:
        begun, told, left = time.monotonic(), PROGRESS, list(steps)
        while (now := time.monotonic() - begun) < seconds:
            while left and left[0].at <= now:
                self._faults.do(left.pop(0))
            self._members.look_after()
            if now >= told:
                told += PROGRESS
                self._say(f"after {now:.0f} s: {self._progress()}")
            time.sleep(TICK)  # the plan goes by the clock; no state is waited for

    def _progress(self) -> str:
        ledgers = self._members.ledgers()
        recorded, safe = sum(len(one.recorded) for one in ledgers), sum(len(one.acknowledged) for one in ledgers)
        return f"{recorded} recorded, {safe} acknowledged, {self._faults.done.total()} steps done"

    def _end(self) -> list[str]:
        """Applications end first, roles when everything has arrived; a line for whatever does not go well."""
        begun = time.monotonic()
        wrong = self._members.end(name for name in self._members.by_name if name.startswith("application"))
        # A gateway that starts looks at once for what the dead have left in the spool; a running one every ten seconds.
        wrong += self._members.end(["gateway"])
        self._members.by_name["gateway"].start()
        while (waits := self._waits()) and time.monotonic() < begun + DRAIN:
            self._members.look_after()
            time.sleep(TICK)
        if waits:
            wrong.append(f"not drained after {DRAIN:g} s: {waits}")
        self._say(f"drained {time.monotonic() - begun:.1f} s after the applications were asked to end")
        self._wait_for_all()
        return wrong + self._members.end(self._members.by_name)

    def _waits(self) -> str:
        """What has not arrived yet."""
        if spooled := list((self._store / "spool").rglob("*.batch")):
            return f"{len(spooled)} calls in the spool"
        with suppress(redis.RedisError), self._server.client() as client:
            for shard in range(SHARDS):
                sides = books.ask(client, KEYS, shard).groups
                if unread := {group: side.unread for group, side in sides.items() if side.unread}:
                    return f"shard {shard}: not read yet: {unread}"
            return ""
        return "the server does not answer"

    def _tell(self, outcome: Outcome) -> None:
        self._say("done: " + ", ".join(f"{what} {times}" for what, times in sorted(self._faults.done.items())))
        for what, times in sorted(self._members.again.items()):
            self._say(f"started again {times} times: {what}")
        for line in outcome.seen:
            self._say(line)
        for line in outcome.wrong:
            self._say(f"wrong: {line}")
        self._say(outcome.verdict)


@contextmanager
def soak(server: Server, proxy: Proxy, folder: Path, say: Say) -> Iterator[Soak]:
    """A soak whose processes are gone when the block ends."""
    with ExitStack() as ending:
        disk = ending.enter_context(small_disk(folder / "disk", DISK_MEGABYTES))
        store = disk.folder / "store"
        members = Members(proxy.url, store, folder)
        ending.callback(members.close)
        yield Soak(server, disk, store, members, Faults(server, proxy, disk, members), say)
