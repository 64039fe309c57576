"""docs/gateway.md and the README's curl lines as they stand, sent to a running gateway; only the port is another."""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest
import redis
from playwright.sync_api import sync_playwright

from tests.support.gateways import Door
from tests.support.processes import StartRole
from tests.support.waiting import WaitUntil
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers.gateway_app import Taken

ROOT: Final = Path(__file__).resolve().parents[2]
TEXT: Final = (ROOT / "docs" / "gateway.md").read_text()
RUN: Final = """
async (program) => {
  try { await eval(`(async () => {${program}})()`); } catch (error) { return `${error}`; }
}
"""
CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome")


def fenced(language: str, text: str = TEXT) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell() -> list[str]:
    """Every block of shell lines that talks to the gateway."""
    return [
        block for text in (TEXT, (ROOT / "README.md").read_text()) for block in fenced("sh", text) if "4318" in block
    ]


def needed(*programs: str) -> str:
    """The first of these programs that is here. Skips where there is none, and fails in CI."""
    found = next(filter(None, map(shutil.which, programs)), None)
    if found is None:
        reason = f"no {programs[0]} here: apt install {programs[0]}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def values(client: redis.Redis) -> list[float]:
    entries: Any = client.xrange(Keys().events(0))
    return [msgspec.json.decode(line)["value"] for _, fields in entries for line in fields[b"events"].splitlines()]


class Page(BaseHTTPRequestHandler):
    """An empty page of an application."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def page() -> Iterator[str]:
    """The origin of an application's page."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def port(redis_url: str, page: str, start_role: StartRole, wait_until: WaitUntil) -> int:
    """Of a running gateway."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = int(listener.getsockname()[1])
    start_role(
        *("gateway", "--redis-url", redis_url, "--port", str(port)), VIBEZEN_METRICS__GATEWAY__ORIGINS=f"['{page}']"
    )
    door = Door(f"http://127.0.0.1:{port}")
    with door.http:
        wait_until(door.is_ready)
    return port


@pytest.mark.parametrize("block", shell())
def test_curl_lines_send_events(block: str, port: int, client: redis.Redis, tmp_path: Path) -> None:
    needed("curl")
    done = subprocess.run(
        ["bash", "-ec", block.replace("curl ", "curl -s ").replace("4318", str(port))],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    answers = [msgspec.json.decode(text, type=Taken) for text in re.findall(r"\{[^{}]*\}", done.stdout)]
    assert len(answers) == block.count("curl ")
    assert [answer.refused_count for answer in answers] == [0] * len(answers)
    assert sum(answer.accepted for answer in answers) == len(values(client)) > 0


def test_answer_shown_is_the_answer_given(port: int, tmp_path: Path) -> None:
    needed("curl")
    line = fenced("sh")[0].replace("curl ", "curl -s ").replace("4318", str(port))
    said = subprocess.run(["bash", "-ec", line], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert said == fenced("text")[0].rstrip("\n")


@pytest.mark.parametrize("snippet", fenced("python"))
def test_python_snippets_run_as_they_stand(snippet: str, port: int, client: redis.Redis) -> None:
    program = snippet.replace("4318", str(port))
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert values(client) == [150.5, 0.0041]


@pytest.mark.browser
def test_web_page_that_is_listed_may_send(port: int, page: str, client: redis.Redis) -> None:
    program = needed(*CHROMIUM)
    (snippet,) = fenced("js")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=quiet)
        said: list[str] = []
        for origin in (page, page.replace("127.0.0.1", "localhost")):  # the second is not listed
            tab = browser.new_page()
            tab.on("console", lambda message: said.append(message.text))
            tab.goto(origin)
            failed = tab.evaluate(RUN, snippet.replace("4318", str(port)))
            if origin == page:
                assert (failed, said) == (None, ["200 1"])
            else:
                assert "Failed to fetch" in failed
        browser.close()
    assert values(client) == [87]


def test_every_status_of_the_gateway_is_told(port: int) -> None:
    told = {status for cell in re.findall(r"^\| ([0-9, ]+) \|", TEXT, re.MULTILINE) for status in cell.split(", ")}
    assert (
        told
        == httpx.get(f"http://127.0.0.1:{port}/api/openapi.json")
        .json()["paths"]["/api/events"]["post"]["responses"]
        .keys()
    )
