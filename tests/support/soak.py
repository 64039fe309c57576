"""A soak: the whole product as real processes under load, faults by plan, and a verdict by what applications noted.

Applications record in each way there is and keep a ledger. Every role is a process; a process that ends by itself is
started again, as a process manager would. Everything goes through a proxy that can lose replies.
"""

import errno
import itertools
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import redis

from tests.support.feeding import total
from tests.support.processes import PythonProcess, RoleProcess
from tests.support.proxy import Proxy
from tests.support.servers import Server, free_port
from tests.support.soak_ledger import Comparison, compare, read
from tests.support.soak_plan import Step, plan
from tests.support.waiting import DEADLINE, wait_until
from vibezen.metrics.keys import GROUPS, Keys
from vibezen.metrics.verify import books

KEYS: Final = Keys()
SHARDS: Final = 2
BOUND: Final = 2000
"""`buffer_max_events`: what a killed application may lose at most."""
RATE: Final = 100.0
"""Events a second of each application."""
APPLICATIONS: Final = (
    ("collector", "server"),
    ("collector", "spool"),
    ("collector", "memory"),
    ("gateway", "server"),
    ("collector", "spool"),
)
"""How each sends, and its durability."""
DISK_MEGABYTES: Final = 192
CUT_SHARE: Final = 0.2
DRAIN: Final = 90.0
PROGRESS: Final = 30.0
SCRIPT: Final = Path(__file__).with_name("soak_application.py")
TROUBLE: Final = ("Traceback", "please report", "the gateway refused")
"""What no process may say, whatever happens to it."""

Say = Callable[[str], None]


@dataclass
class Member:
    """One place in the soak, filled by one process after the other."""

    name: str
    launch: Callable[[], PythonProcess]
    process: PythonProcess
    wanted: bool = True


@dataclass
class Outcome:
    """`wrong`: a line for everything that breaks a promise."""

    comparison: Comparison
    sum_error: float
    wrong: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        lost, doubled = len(self.comparison.lost), len(self.comparison.doubled)
        return f"lost {lost}, doubled {doubled}, sum error {self.sum_error:g}"


class Soak:
    """`store`: the folder of the product, on a small disk where `disk` says so; `folder`: everything else."""

    def __init__(self, server: Server, proxy: Proxy, store: Path, folder: Path, say: Say, *, disk: Path | None) -> None:
        self._server, self._proxy, self._store, self._folder, self._disk = server, proxy, store, folder, disk
        self._say = say
        self._gateway, self._page = free_port(), free_port()
        self._numbers = itertools.count(1)
        self._outputs: list[PythonProcess] = []
        self._ledgers: dict[int, Path] = {}
        self._frozen: dict[str, PythonProcess] = {}
        self._again: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._wrong: list[str] = []
        (folder / "ledgers").mkdir()
        self._members = {name: Member(name, launch, launch()) for name, launch in self._launches().items()}

    def run(self, seed: int, seconds: float, gap: float) -> Outcome:
        steps = plan(seed, seconds, gap, len(APPLICATIONS))
        self._say(f"seed {seed}, {seconds:g} s, {self._server.kind}, {len(steps)} steps:")
        for step in steps:
            self._say(str(step))
        if self._disk is None:
            self._say("no small disk here (only root may mount one): the disk is never filled")
        wait_until(self._all_work, DRAIN)
        self._follow(steps, seconds)
        self._heal()
        outcome = self._judge()
        self._say(", ".join(f"{what} {times}" for what, times in sorted(self._done.items())))
        for what, times in sorted(self._again.items()):
            self._say(f"started again by itself: {what} ({times} times)")
        return outcome

    def close(self) -> None:
        for member in self._members.values():
            member.process.end()

    # --- the members

    def _launches(self) -> dict[str, Callable[[], PythonProcess]]:
        roles = {
            "archiver 0": ("consume", "archive"),
            "archiver 1": ("consume", "archive"),
            "aggregator 0": ("consume", "aggregate"),
            "aggregator 1": ("consume", "aggregate"),
            "gateway": ("gateway",),
            "page": ("api",),
        }
        found = {name: self._role(name, *arguments) for name, arguments in roles.items()}
        for place, (way, durability) in enumerate(APPLICATIONS):
            found[f"application {place}"] = self._application(place, way, durability)
        return found

    def _role(self, name: str, *arguments: str) -> Callable[[], PythonProcess]:
        return lambda: self._note(RoleProcess(self._output(name), *arguments, **self._environment()))

    def _application(self, place: int, way: str, durability: str) -> Callable[[], PythonProcess]:
        def launch() -> PythonProcess:
            number = next(self._numbers)
            name = f"application {place}, process {number}, {way}, {durability}"
            self._ledgers[place] = ledger = self._folder / "ledgers" / name
            arguments = ("-P", str(SCRIPT), str(ledger), str(number), way, str(RATE))
            told = {"VIBEZEN_METRICS__DURABILITY": durability, "SOAK_GATEWAY": str(self._gateway)}
            return self._note(PythonProcess(self._output(name), *arguments, **self._environment(), **told))

        return launch

    def _environment(self) -> dict[str, str]:
        told = {
            "REDIS__URL": self._proxy.url,
            "STORAGE_DIR": str(self._store),
            "STREAMS__SHARDS": str(SHARDS),
            "BUFFER_MAX_EVENTS": str(BOUND),
            "GATEWAY__PORT": str(self._gateway),
            "DASHBOARD__PORT": str(self._page),
        }
        return {f"VIBEZEN_METRICS__{name}": value for name, value in told.items()}

    def _output(self, name: str) -> Path:
        return self._folder / f"{len(self._outputs):04d} {name}.log"

    def _note(self, process: PythonProcess) -> PythonProcess:
        self._outputs.append(process)
        return process

    def _all_work(self) -> bool:
        self._look_after()
        return self._applications_work() and self._owners_known()

    def _applications_work(self) -> bool:
        """Whether each that runs now has had something acknowledged."""
        return all(self._acknowledged(place) for place in range(len(APPLICATIONS)))

    def _acknowledged(self, place: int) -> bool:
        newest = self._ledgers[place]
        return newest.exists() and bool(read(newest).acknowledged)

    def _owners_known(self) -> bool:
        with suppress(redis.RedisError), self._server.client() as client:
            return all(client.get(KEYS.lease(shard, group)) for shard in range(SHARDS) for group in GROUPS)
        return False

    def _look_after(self) -> None:
        """Start again who has ended by itself."""
        for member in self._members.values():
            if member.wanted and not member.process.running():
                said = member.process.said.strip().splitlines()[-1:]
                self._again[f"{member.name}, exit code {member.process.wait()}: {' '.join(said)}"] += 1
                member.process = member.launch()

    # --- the faults

    def _follow(self, steps: list[Step], seconds: float) -> None:
        begun, told, left = time.monotonic(), PROGRESS, list(steps)
        while (now := time.monotonic() - begun) < seconds:
            while left and left[0].at <= now:
                self._do(left.pop(0))
            self._look_after()
            if now >= told:
                told += PROGRESS
                self._say(f"{now:6.1f} s: {self._progress()}")
            time.sleep(0.02)  # the plan is by the clock; no state is waited for

    def _progress(self) -> str:
        ledgers = [read(path) for path in (self._folder / "ledgers").iterdir()]
        recorded, safe = sum(len(one.recorded) for one in ledgers), sum(len(one.acknowledged) for one in ledgers)
        return (
            f"{recorded} recorded, {safe} acknowledged, {self._done.total()} steps done, {len(self._outputs)} processes"
        )

    def _do(self, step: Step) -> None:
        self._done[f"{step.do} {step.whom}"] += 1
        with suppress(redis.RedisError):  # the server is away just now
            if step.whom in ("server", "disk", "replies", "connections", "scripts"):
                {
                    "kill server": self._server.kill,
                    "start server": self._start_server,
                    "fill disk": self._fill_disk,
                    "clear disk": self._clear_disk,
                    "cut replies": lambda: self._proxy.cut_share(CUT_SHARE, seed=int(step.at * 10)),
                    "keep replies": lambda: self._proxy.cut_share(0.0),
                    "drop connections": self._drop_connections,
                    "forget scripts": self._forget_scripts,
                }[f"{step.do} {step.whom}"]()
            else:
                self._do_to_process(step)

    def _do_to_process(self, step: Step) -> None:
        if step.do == "thaw":
            if process := self._frozen.pop(step.whom, None):
                process.resume()
            return
        member = self._members[self._owner(step.whom)]
        if step.do == "start":
            member.wanted = True
            if not member.process.running():
                member.process = member.launch()
        elif step.do == "freeze" and member.process.running():
            self._frozen[step.whom] = member.process
            member.process.pause()
        elif step.do in ("kill", "end"):
            member.wanted = False
            if step.do == "kill" and member.process.running():
                member.process.kill()
            elif member.process.running():
                member.process.terminate()

    def _owner(self, whom: str) -> str:
        """The name of a process that owns a shard of this group; of any other name itself."""
        if not whom.startswith("owner of "):
            return whom
        group = whom.removeprefix("owner of ")
        names = [f"{'archiver' if group == 'archive' else 'aggregator'} {number}" for number in range(2)]
        with self._server.client() as client:
            for shard in range(SHARDS):
                held = client.get(KEYS.lease(shard, group))
                for name in names:
                    if isinstance(held, bytes) and f":{self._members[name].process.pid}:".encode() in held:
                        return name
        return names[0]

    def _start_server(self) -> None:
        if not self._server.is_running:
            self._server.start()

    def _fill_disk(self) -> None:
        if self._disk is not None:
            fill(self._disk / "filler")

    def _clear_disk(self) -> None:
        if self._disk is not None:
            (self._disk / "filler").unlink(missing_ok=True)

    def _drop_connections(self) -> None:
        with self._server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)

    def _forget_scripts(self) -> None:
        with self._server.client() as client:
            client.script_flush()

    # --- the end

    def _heal(self) -> None:
        """All faults over; applications end in order, and what is on its way arrives."""
        self._start_server()
        self._proxy.cut_share(0.0)
        self._clear_disk()
        for process in self._frozen.values():
            process.resume()
        for member in self._members.values():
            if not member.process.running():
                member.process = member.launch()
            member.wanted = True
        wait_until(self._all_work, DRAIN)
        begun = time.monotonic()
        for name in (name for name in self._members if name.startswith("application")):
            self._members[name].wanted = False
            self._members[name].process.terminate()
        for name in (name for name in self._members if name.startswith("application")):
            if code := self._members[name].process.wait(2 * DEADLINE):
                self._wrong.append(f"{name} ended with exit code {code}: {self._members[name].process.said[-300:]}")
        # A gateway that starts looks at once for what the dead have left in the spool; a running one every ten seconds.
        self._members["gateway"].process.stop()
        end = time.monotonic() + DRAIN
        while (waits := self._waits()) and time.monotonic() < end:
            self._look_after()
            time.sleep(0.05)
        if waits:
            self._wrong.append(f"not drained after {DRAIN:g} s: {waits}")
        self._say(f"drained {time.monotonic() - begun:.1f} s after the applications were asked to end")

    def _waits(self) -> str:
        """What is not drained yet."""
        if spooled := list((self._store / "spool").rglob("*.batch")):
            return f"{len(spooled)} calls in the spool"
        with suppress(redis.RedisError), self._server.client() as client:
            for shard in range(SHARDS):
                told = books.ask(client, KEYS, shard)
                if waiting := {group: side.unread for group, side in told.groups.items() if side.unread}:
                    return f"shard {shard}: not read yet: {waiting}"
            return ""
        return "the server does not answer"

    def _judge(self) -> Outcome:
        wrong = self._wrong
        for member in self._members.values():
            member.wanted = False
            if member.process.running():
                member.process.terminate()
        for member in self._members.values():
            if code := member.process.wait(2 * DEADLINE):
                wrong.append(f"{member.name} ended with exit code {code}: {member.process.said[-300:]}")
        verify = RoleProcess(self._folder / "verify.log", "verify", **self._environment())
        if verify.wait(2 * DRAIN):
            wrong.append(f"verify finds:\n{verify.said}")
        ledgers = [read(path) for path in (self._folder / "ledgers").iterdir()]
        compared = compare(ledgers, self._store, "soak")
        with self._server.client() as client:
            sum_error = self._compare_windows(client, compared)
            self._compare_books(client, compared)
        self._judge_comparison(compared)
        wrong += [
            f"{process.output.name} says: {line}"
            for process in self._outputs
            for line in process.said.splitlines()
            if any(word in line for word in TROUBLE)
        ]
        return Outcome(compared, sum_error, wrong)

    def _compare_windows(self, client: redis.Redis, compared: Comparison) -> float:
        error = 0.0
        for width in (10, 60):
            window = total(client, width, SHARDS)
            if window.count != compared.on_disk:
                self._wrong.append(f"windows of {width} s count {window.count}, on disk are {compared.on_disk}")
            error = max(error, abs(window.sum - compared.total))
        if error:
            self._wrong.append(f"windows and lines differ in their sums by {error:g}")
        return error

    def _compare_books(self, client: redis.Redis, compared: Comparison) -> None:
        archived = 0
        for shard in range(SHARDS):
            told = books.ask(client, KEYS, shard)
            archived += told.groups["archive"].accepted
            if not told.balances or told.archived_less_aggregated is None:
                self._wrong.append(f"shard {shard}: the books do not balance: {told}")
            for group, side in told.groups.items():
                if side.trimmed or side.dead:
                    self._wrong.append(f"shard {shard}, {group}: {side.trimmed} trimmed unread, {side.dead} dead")
            for producer in books.ask_producers(client, KEYS, shard):
                if producer.stats and (producer.stats.dropped or producer.stats.refused):
                    self._wrong.append(f"shard {shard}, {producer.name}: {producer.stats}")
        self._say(f"books: {archived} archived, {compared.on_disk} lines on disk")

    def _judge_comparison(self, compared: Comparison) -> None:
        for what, values in (
            ("acknowledged, and lost", compared.lost),
            ("doubled", compared.doubled),
            ("on disk, and never recorded", compared.invented),
        ):
            if values:
                self._wrong.append(f"{len(values)} {what}: {values[:5]}")
        for name, count in compared.unflushed.items():
            self._say(f"{name}: {count} not acknowledged and gone with its process (at most {BOUND})")
            if count > BOUND:
                self._wrong.append(f"{name}: lost {count}, more than its buffer holds")
        self._say(f"{compared.recorded} recorded, {compared.acknowledged} acknowledged, {compared.on_disk} on disk")


@contextmanager
def soak(server: Server, proxy: Proxy, folder: Path, say: Say) -> Iterator[Soak]:
    """A soak whose processes are gone when the block ends."""
    with ExitStack() as ending:
        disk = ending.enter_context(small_disk(folder / "disk", DISK_MEGABYTES))
        made = Soak(server, proxy, (disk or folder) / "store", folder, say, disk=disk)
        ending.callback(made.close)
        yield made


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path | None]:
    """A file system of that size at `folder`; None where this machine lets us mount none."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Take all space there is."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def seed_of_today() -> int:
    return random.SystemRandom().randrange(10**6)
