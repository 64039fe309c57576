"""Who takes part in a soak: every role, and applications that record in each way there is, as real processes.

A process that ends by itself is started again, as a process manager would.
"""

import http.client
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis

from tests.support.processes import PythonProcess, RoleProcess
from tests.support.servers import free_port
from tests.support.soak_ledger import Ledger, read
from tests.support.waiting import DEADLINE
from vibezen.metrics.keys import AGGREGATE, ARCHIVE, GROUPS, Keys

KEYS: Final = Keys()
SHARDS: Final = 2
BOUND: Final = 2000
"""`buffer_max_events`: what a killed application may lose at most."""
RATE: Final = 100
"""Events a second of each application."""
APPLICATIONS: Final = (
    ("collector", "server"),
    ("collector", "spool"),
    ("collector", "memory"),
    ("gateway", "server"),
    ("collector", "spool"),
)
"""How each sends, and its durability."""
ROLES: Final = {
    "archiver 0": ("consume", ARCHIVE),
    "archiver 1": ("consume", ARCHIVE),
    "aggregator 0": ("consume", AGGREGATE),
    "aggregator 1": ("consume", AGGREGATE),
    "gateway": ("gateway",),
    "page": ("api",),
}
CONSUMERS: Final = {ARCHIVE: ("archiver 0", "archiver 1"), AGGREGATE: ("aggregator 0", "aggregator 1")}
SCRIPT: Final = Path(__file__).with_name("soak_application.py")


@dataclass
class Member:
    """A place, filled by one process after the other. `wanted`: it is started again when it ends."""

    launch: Callable[[], PythonProcess]
    process: PythonProcess
    wanted: bool = True

    def start(self) -> None:
        self.wanted = True
        if not self.process.running():
            self.process = self.launch()

    def kill(self) -> None:
        self.wanted = False
        if self.process.running():
            self.process.kill()

    def terminate(self) -> None:
        self.wanted = False
        if self.process.running():
            self.process.terminate()


class Members:
    """`by_name`: "archiver 0" … "application 4". `outputs`: of every process there was."""

    def __init__(self, url: str, store: Path, folder: Path) -> None:
        self._folder = folder
        self._gateway, self._page = free_port(), free_port()
        self._numbers = itertools.count(1)
        self._newest: dict[int, Path] = {}
        self.outputs: list[PythonProcess] = []
        self.again: Counter[str] = Counter()
        """By name, exit code and last word of those that ended by themselves."""
        settings = {
            "REDIS__URL": url,
            "STORAGE_DIR": str(store),
            "STREAMS__SHARDS": str(SHARDS),
            "BUFFER_MAX_EVENTS": str(BOUND),
            "GATEWAY__PORT": str(self._gateway),
            "DASHBOARD__PORT": str(self._page),
        }
        self._environment = {f"VIBEZEN_METRICS__{name}": value for name, value in settings.items()}
        (folder / "ledgers").mkdir()
        launches = {name: self._role(name, *arguments) for name, arguments in ROLES.items()}
        for place, (way, durability) in enumerate(APPLICATIONS):
            launches[f"application {place}"] = self._application(place, way, durability)
        self.by_name = {name: Member(launch, launch()) for name, launch in launches.items()}

    def run_role(self, *arguments: str) -> PythonProcess:
        """One command more."""
        return self._role(" ".join(arguments), *arguments)()

    def look_after(self) -> None:
        """Start again who has ended by itself."""
        for name, member in self.by_name.items():
            if member.wanted and not member.process.running():
                said = member.process.said.strip().splitlines()[-1:]
                self.again[f"{name}, exit code {member.process.wait()}: {' '.join(said)}"] += 1
                member.start()

    def ledgers(self) -> list[Ledger]:
        return [read(path) for path in (self._folder / "ledgers").iterdir()]

    def all_work(self, client: redis.Redis) -> bool:
        """Whether each application that runs now has had something acknowledged, every shard has its owners, and both
        doors are open."""
        self.look_after()
        applications = all(path.exists() and read(path).acknowledged for path in self._newest.values())
        return applications and _are_owned(client) and all(map(_is_ready, (self._gateway, self._page)))

    def owner(self, client: redis.Redis, group: str) -> Member:
        """One that owns a shard of the group; any of its processes when none does just now."""
        for shard in range(SHARDS):
            held = client.get(KEYS.lease(shard, group))
            for name in CONSUMERS[group]:
                if isinstance(held, bytes) and f":{self.by_name[name].process.pid}:".encode() in held:
                    return self.by_name[name]
        return self.by_name[CONSUMERS[group][0]]

    def end(self, names: Iterable[str]) -> list[str]:
        """SIGTERM to all of them; a line for each that did not end well."""
        asked = list(names)
        for name in asked:
            self.by_name[name].terminate()
        found = []
        for name in asked:
            process = self.by_name[name].process
            if code := process.wait(2 * DEADLINE):
                found.append(f"{name} ended with exit code {code}: {process.said[-300:]}")
        return found

    def close(self) -> None:
        for member in self.by_name.values():
            member.process.end()

    def _role(self, name: str, *arguments: str) -> Callable[[], PythonProcess]:
        return lambda: self._note(RoleProcess(self._output(name), *arguments, **self._environment))

    def _application(self, place: int, way: str, durability: str) -> Callable[[], PythonProcess]:
        told = {"VIBEZEN_METRICS__DURABILITY": durability, "SOAK_GATEWAY": str(self._gateway)}

        def launch() -> PythonProcess:
            number = next(self._numbers)
            name = f"application {place}, process {number}, {way}, {durability}"
            self._newest[place] = ledger = self._folder / "ledgers" / name
            arguments = ("-P", str(SCRIPT), str(ledger), str(number), way, str(RATE))
            return self._note(PythonProcess(self._output(name), *arguments, **self._environment, **told))

        return launch

    def _output(self, name: str) -> Path:
        return self._folder / f"{len(self.outputs):04d} {name}.log"

    def _note(self, process: PythonProcess) -> PythonProcess:
        self.outputs.append(process)
        return process


def _are_owned(client: redis.Redis) -> bool:
    with suppress(redis.RedisError):
        return all(client.get(KEYS.lease(shard, group)) for shard in range(SHARDS) for group in GROUPS)
    return False


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
