"""The faults of a soak, done as its plan says."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import redis

from tests.support.processes import PythonProcess
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.soak_disk import Disk
from tests.support.soak_members import Member, Members
from tests.support.soak_plan import Step

CUT_SHARE: Final = 0.2
OWNER: Final = "owner of "


class Faults:
    """`done`: how often what was done."""

    def __init__(self, server: Server, proxy: Proxy, disk: Disk, members: Members) -> None:
        self._server, self._proxy, self._disk, self._members = server, proxy, disk, members
        self._frozen: dict[str, PythonProcess] = {}
        self.done: Counter[str] = Counter()
        self._around: dict[str, Callable[[], None]] = {
            "kill server": server.kill,
            "start server": self._start_server,
            "fill disk": disk.fill,
            "clear disk": disk.clear,
            "cut replies": lambda: proxy.cut_share(CUT_SHARE, seed=self.done.total()),
            "keep replies": lambda: proxy.cut_share(0.0),
            "drop connections": self._drop_connections,
            "forget scripts": self._forget_scripts,
        }

    def do(self, step: Step) -> None:
        what = f"{step.do} {step.whom}"
        self.done[what] += 1
        with suppress(redis.RedisError):  # the server is away just now
            if act := self._around.get(what):
                act()
            else:
                self._do_to_member(step)

    def heal(self) -> None:
        """All faults are over, and everybody runs."""
        self._start_server()
        self._proxy.cut_share(0.0)
        self._disk.clear()
        for process in self._frozen.values():
            process.resume()
        for member in self._members.by_name.values():
            member.start()

    def _do_to_member(self, step: Step) -> None:
        if step.do == "thaw":
            if process := self._frozen.pop(step.whom, None):
                process.resume()
            return
        member = self._member(step.whom)
        if step.do == "freeze":
            if member.process.running() and step.whom not in self._frozen:
                self._frozen[step.whom] = member.process
                member.process.pause()
        else:
            {"kill": member.kill, "end": member.terminate, "start": member.start}[step.do]()

    def _member(self, whom: str) -> Member:
        if not whom.startswith(OWNER):
            return self._members.by_name[whom]
        with self._server.client() as client:
            return self._members.owner(client, whom.removeprefix(OWNER))

    def _start_server(self) -> None:
        if not self._server.is_running:
            self._server.start()

    def _drop_connections(self) -> None:
        with self._server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)

    def _forget_scripts(self) -> None:
        with self._server.client() as client:
            client.script_flush()
