"""`honcho start`: the Procfile's processes, against one Redis, are the whole pipeline."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.feeding import values_on_disk
from tests.support.servers import Server
from tests.support.waiting import WaitUntil
from vibezen.metrics.commands.screen import FIRST_EVENT

ROOT = Path(__file__).resolve().parents[2]


def test_honcho_runs_the_whole_pipeline(
    redis_url: str, server: Server, tmp_path: Path, free_port: int, gateway_port: int, wait_until: WaitUntil
) -> None:
    program = tmp_path / "bin" / "vibezen-metrics"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m vibezen.metrics "$@"\n')
    program.chmod(0o755)
    store = tmp_path / "store"
    environ = {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "VIBEZEN_METRICS__REDIS__URL": redis_url,
        "VIBEZEN_METRICS__STORAGE_DIR": str(store),
        "VIBEZEN_METRICS__DASHBOARD__PORT": str(free_port),
    }
    said = (tmp_path / "said").open("wb")
    honcho = subprocess.Popen(
        [sys.executable, "-m", "honcho", "-f", ROOT / "Procfile", "-d", tmp_path, "start", "-c", "archive=2"],
        env=environ,
        stdout=said,
        stderr=said,
    )
    try:
        page = f"http://127.0.0.1:{free_port}"
        wait_until(lambda: is_ready(page))
        subprocess.run([sys.executable, "-c", FIRST_EVENT], env=environ, check=True)
        wait_until(lambda: values_on_disk(store) == {120: 1})
        gateway = f"http://127.0.0.1:{gateway_port}"
        wait_until(lambda: is_ready(gateway))
        httpx.post(f"{gateway}/api/events", content=b'{"metric":"m","value":7}').raise_for_status()
        wait_until(lambda: values_on_disk(store) == {120: 1, 7: 1})
        wait_until(lambda: httpx.get(f"{page}/api/metrics/realtime").json()["metrics"].get("response_time"))
    finally:
        honcho.send_signal(signal.SIGINT)
        honcho.wait(20)
        said.close()


def is_ready(page: str) -> bool:
    try:
        return httpx.get(f"{page}/readyz").status_code == 200
    except httpx.TransportError:
        return False
