"""`up`: one command, everything; refused in one line when it cannot be; nothing lost or left behind when it ends."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.feeding import lines_on_disk, values_on_disk
from tests.support.processes import RoleProcess, StartRole
from tests.support.servers import StartServer
from tests.support.waiting import WaitUntil
from vibezen.metrics.commands.screen import FIRST_EVENT
from vibezen.metrics.connection import Endpoint, connect, endpoint_file, running_endpoint
from vibezen.metrics.embedded import EmbeddedServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]
StartUp = Callable[..., RoleProcess]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def start_up(start_role: StartRole, wait_until: WaitUntil, free_port: int, store: Path) -> StartUp:
    """`start_up(*arguments)`: a running `up` on `free_port` and `store`, its banner shown."""

    def start(*arguments: str) -> RoleProcess:
        up = start_role("up", "--storage-dir", str(store), "--port", str(free_port), *arguments)
        wait_until(lambda: "Ctrl-C ends everything" in up.said or not up.running())
        assert up.running(), up.said
        return up

    return start


def interrupt(up: RoleProcess) -> int:
    """Ctrl-C; the exit code."""
    os.kill(up.pid, signal.SIGINT)
    return up.wait()


def ask(port: int, path: str) -> Any:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}").json()
    except httpx.TransportError:
        return {}


def children_of(pid: int) -> dict[int, str]:
    """Process id → command line of every living child."""
    said = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split(None, 3) for line in said.splitlines())
    return {int(row[0]): row[3] for row in rows if int(row[1]) == pid and not row[2].startswith("Z")}


def is_alive(pid: int) -> bool:
    said = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(said.strip()) and not said.startswith("Z")


def child(up: RoleProcess, named: str) -> int:
    (pid,) = (pid for pid, command in children_of(up.pid).items() if named in command)
    return pid


def test_snippet_of_the_banner_travels_to_file_and_page(
    start_up: StartUp, wait_until: WaitUntil, free_port: int, store: Path, tmp_path: Path
) -> None:
    up = start_up()
    printed = "\n".join(line[4:] for line in up.said.splitlines() if line.startswith("    "))
    assert printed == FIRST_EVENT
    subprocess.run([sys.executable, "-c", printed], check=True, cwd=tmp_path)
    wait_until(lambda: ask(free_port, "/api/metrics/realtime").get("metrics", {}).get("response_time"))
    now = ask(free_port, "/api/metrics/realtime")
    assert now["metrics"]["response_time"]["count"] == 1
    assert now["demo"] is False
    assert interrupt(up) == 0
    assert values_on_disk(store) == {120: 1}
    assert up.said.count("\n") < 40


def test_running_up_is_found_by_programs_of_this_user_alone_and_refuses_a_second(
    start_up: StartUp, run: Run, free_port: int, store: Path
) -> None:
    up = start_up()
    page = f"http://localhost:{free_port}"
    assert running_endpoint() == Endpoint(EmbeddedServer(store).url, up.pid, str(store), page)
    assert stat.S_IMODE(endpoint_file().stat().st_mode) == 0o600
    done = run("up", "--storage-dir", store, "--port", free_port_besides())
    line = f"vibezen-metrics: storage folder {store}: another `up` runs on it (process {up.pid})\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)
    assert interrupt(up) == 0
    assert not endpoint_file().exists()


def test_another_up_of_this_user_takes_nothing_over(
    start_up: StartUp,
    start_role: StartRole,
    store: Path,
    tmp_path: Path,
    wait_until: WaitUntil,
    free_tcp_port_factory: Callable[[], int],
) -> None:
    start_up()
    first = running_endpoint()
    ports = {f"VIBEZEN_METRICS__{part}__PORT": str(free_tcp_port_factory()) for part in ("DASHBOARD", "GATEWAY")}
    other = start_role("up", "--storage-dir", str(tmp_path / "other"), **ports)
    wait_until(lambda: "Ctrl-C ends everything" in other.said or not other.running())
    assert f"go on sending to the `up` of {store}" in other.said
    assert running_endpoint() == first
    assert interrupt(other) == 0
    assert running_endpoint() == first


def test_what_was_appended_before_ctrl_c_is_read_before_the_end(
    start_up: StartUp, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEZEN_METRICS__STREAMS__SHARDS", "2")
    up = start_up()
    url = running_endpoint().url  # type: ignore[union-attr]
    with connect(url) as client, client.pipeline(transaction=False) as together:
        for number in range(20_000):
            stream = f"vibezen:{{{number % 2}}}:events"
            together.execute_command("XADD", stream, "*", "metric", "response_time", "value", number)
        together.execute()
    assert interrupt(up) == 0
    assert "not everything" not in up.said
    assert values_on_disk(store) == dict.fromkeys(range(20000), 1)


def test_started_again_it_goes_on_where_it_stopped(
    start_up: StartUp, wait_until: WaitUntil, free_port: int, store: Path
) -> None:
    def count() -> int:
        metrics = ask(free_port, "/api/metrics/realtime").get("metrics", {})
        return int(metrics.get("response_time", {}).get("count", 0))

    for total in (1, 2):
        up = start_up()
        subprocess.run([sys.executable, "-c", FIRST_EVENT], check=True)
        wait_until(lambda: count() == total)  # noqa: B023 - it is called before the next turn
        assert interrupt(up) == 0
    assert values_on_disk(store) == {120: 2}


def test_killed_up_takes_its_children_along_starts_again_and_keeps_everything(
    start_up: StartUp, wait_until: WaitUntil, store: Path
) -> None:
    up = start_up()
    children = children_of(up.pid)
    assert len(children) == 6
    assert not [pid for pid in children if os.getpgid(pid) == os.getpgid(up.pid)], "Ctrl-C reaches none directly"
    subprocess.run([sys.executable, "-c", FIRST_EVENT], check=True)
    up.kill()
    again = start_up()  # at once: some children may still be ending
    wait_until(lambda: not any(map(is_alive, children)))
    subprocess.run([sys.executable, "-c", FIRST_EVENT], check=True)
    assert interrupt(again) == 0
    assert values_on_disk(store) == {120: 2}


def test_each_crashed_child_is_reported_and_started_again(
    start_up: StartUp, wait_until: WaitUntil, free_port: int, store: Path
) -> None:
    up = start_up()
    roles = ["consume archive", "consume aggregate", "consume compact", " api", " gateway", "-server"]
    for count, role in enumerate(roles, 1):
        os.kill(child(up, role), signal.SIGKILL)
        name = {"-server": "server"}.get(role, role.split()[-1])
        said = re.compile(rf"up +\| {name} was killed by SIGKILL; it is started again in 0\.5 s")
        wait_until(lambda: said.search(up.said))  # noqa: B023 - called at once
        wait_until(lambda: len(children_of(up.pid)) == 6)
        wait_until(lambda: ask(free_port, "/readyz").get("status") == "ready")
        subprocess.run([sys.executable, "-c", FIRST_EVENT], check=True)
        wait_until(lambda: values_on_disk(store) == {120: count})  # noqa: B023 - called at once
    assert interrupt(up) == 0
    assert values_on_disk(store) == {120: len(roles)}


def free_port_besides() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_busy_port_is_one_line_before_anything_starts(run: Run, store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("up", "--storage-dir", store, "--port", port)
    line = f"vibezen-metrics: 127.0.0.1:{port}: the port is taken by another program; choose one with --port\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)
    assert not (store / "server").exists()


def test_busy_port_of_the_gateway_is_one_line_that_names_the_setting(run: Run, store: Path, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("up", "--storage-dir", store, "--port", free_port, VIBEZEN_METRICS__GATEWAY__PORT=str(port))
    line = f"vibezen-metrics: 127.0.0.1:{port}: the port is taken by another program; choose one with "
    line += "VIBEZEN_METRICS__GATEWAY__PORT or gateway.port in vibezen.yaml\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)
    assert not (store / "server").exists()


def test_demo_whose_gateway_has_no_port_takes_a_free_one(start_up: StartUp, gateway_port: int) -> None:
    with socket.create_server(("127.0.0.1", gateway_port)):
        up = start_up("--demo", "--rate", "5")
        said = re.search(r"Gateway +http://localhost:(\d+)/api/events", up.said)
        assert said is not None
        assert int(said[1]) != gateway_port
        assert ask(int(said[1]), "/healthz") == {"status": "ok"}
        assert interrupt(up) == 0


def test_events_posted_until_the_last_moment_are_read_before_the_end(
    start_up: StartUp, gateway_port: int, store: Path
) -> None:
    up = start_up()
    url = f"http://127.0.0.1:{gateway_port}/api/events"
    assert f"http://localhost:{gateway_port}/api/events" in up.said
    taken: list[float] = []

    def post() -> None:
        with httpx.Client() as http:
            for value in range(1_000_000):
                try:
                    answered = http.post(url, content=f'{{"metric":"m","value":{value}}}')
                except httpx.TransportError:
                    return
                assert answered.status_code == 200
                taken.append(value)

    client = threading.Thread(target=post)
    client.start()
    while len(taken) < 100:
        time.sleep(0.01)
    assert interrupt(up) == 0
    client.join()
    found = values_on_disk(store)
    assert set(found.values()) == {1}
    # The last answer may have been under way when the connection was closed.
    assert 0 <= len(found) - len(taken) <= 1
    assert found.keys() >= set(taken)


def test_unusable_storage_folder_is_one_line(run: Run, tmp_path: Path, free_port: int) -> None:
    (tmp_path / "file").write_text("")
    done = run("up", "--storage-dir", tmp_path / "file" / "store", "--port", free_port)
    line = f"vibezen-metrics: storage folder {tmp_path}/file/store: not a directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


def test_folder_of_another_store_is_refused(run: Run, start_server: StartServer, store: Path, free_port: int) -> None:
    server = start_server()
    with server.client() as client:
        client.set("vibezen:{meta}:store", "another")
    done = run("up", "--redis-url", server.url, "--storage-dir", store, "--port", free_port)
    assert done.returncode == 1
    assert "the server's events belong to store another" in done.stderr
    assert done.stderr.count("\n") == 1


def test_configured_server_is_used_and_left_running(
    start_up: StartUp, start_server: StartServer, wait_until: WaitUntil, store: Path
) -> None:
    server = start_server()
    up = start_up("--redis-url", server.url)
    assert len(children_of(up.pid)) == 5
    subprocess.run([sys.executable, "-c", FIRST_EVENT], check=True)
    wait_until(lambda: values_on_disk(store) == {120: 1})
    assert interrupt(up) == 0
    assert not (store / "server").exists()
    with server.client() as client:
        assert client.ping()


def test_server_that_an_earlier_run_left_behind_is_taken_care_of(start_up: StartUp, store: Path) -> None:
    left_behind = EmbeddedServer(store).start()
    up = start_up()
    assert left_behind.wait(10) == 0
    assert interrupt(up) == 0


def test_bound_beyond_this_machine_the_banner_logs_in(start_up: StartUp, free_port: int) -> None:
    up = start_up("--host", "0.0.0.0")
    link = re.search(rf"Dashboard +http://localhost:{free_port}/login#token=(\S+)", up.said)
    assert link is not None
    asked = f"http://127.0.0.1:{free_port}/api/metrics/realtime"
    assert httpx.get(asked).status_code == 401
    assert httpx.get(asked, headers={"authorization": f"Bearer {link[1]}"}).status_code == 200
    assert interrupt(up) == 0


def test_demo_has_a_store_and_a_prefix_of_its_own_and_says_so(
    start_up: StartUp, wait_until: WaitUntil, free_port: int, store: Path
) -> None:
    up = start_up("--demo", "--rate", "20", "--seed", "7")
    wait_until(lambda: ask(free_port, "/api/metrics/realtime").get("metrics", {}).get("tokens"))
    assert ask(free_port, "/api/metrics/realtime")["demo"] is True
    assert not endpoint_file().exists()
    assert "simulated" in up.said
    assert FIRST_EVENT.splitlines()[0] not in up.said
    with connect(EmbeddedServer(store.parent / "metrics_demo").url) as client:
        assert not list(client.scan_iter("vibezen:*"))
        assert list(client.scan_iter("vibezen-demo:*"))
    assert interrupt(up) == 0
    assert not store.exists()
    written = lines_on_disk(store.parent / "metrics_demo")
    assert {line["metric"] for line in written} > {"response_time", "tokens", "cost"}


def test_mission_command_runs_everything_or_the_page_alone(
    start_server: StartServer, wait_until: WaitUntil, free_port: int, store: Path
) -> None:
    command = [sys.executable, "-m", "vibezen.metrics.dashboard", "--storage-dir", str(store), "--port", str(free_port)]
    for server, children in ((None, 6), (start_server(), 0)):
        more = ["--redis-url", server.url] if server else []
        dashboard = subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: ask(free_port, "/healthz") == {"status": "ok"})
            assert len(children_of(dashboard.pid)) == children
        finally:
            dashboard.terminate()
            assert dashboard.wait(20) == 0
