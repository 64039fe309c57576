"""The gateway: from a client's request until it is answered, which is after Redis has the events; one process.

Ours: a gateway as a user starts it, and a client process that posts ready-made bodies over several connections, each
waiting for its answer before it sends the next. Bare: the same HTTP server with an application that reads the body and
answers; and a loop that decodes the same bodies and appends them, without HTTP.
"""

import asyncio
import multiprocessing
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.options import Options
from benchmarks.report import Figure, Report, ratio
from benchmarks.roles import Failed, answers, role, wait_until
from benchmarks.rounds import alternate, in_fresh_process
from benchmarks.server import QUIET, free_port, server, server_version, work_folder
from benchmarks.stream import KEYS, empty
from benchmarks.workload import events, samples
from vibezen.metrics.clock import wall
from vibezen.metrics.connection import connect
from vibezen.metrics.event import Event, encode_lines

BODY_EVENTS: Final = 500
CONNECTIONS: Final = 4
DIFFERENT: Final = 50_000
"""Events that are made ready; their bodies are sent again and again."""
EVENTS: Final = 500_000
SINGLES: Final = 20_000
"""Bodies of one event."""
SINGLE_CONNECTIONS: Final = 16


def run(options: Options) -> Report:
    with work_folder() as folder, server(folder, *QUIET) as url, _gateway(folder, url) as ours, _bare_http() as bare:
        contestants = {
            "ours": lambda: _emptied(url, ours, BODY_EVENTS, CONNECTIONS, keyed=False),
            "keyed": lambda: _emptied(url, ours, BODY_EVENTS, CONNECTIONS, keyed=True),
            "http": lambda: in_fresh_process(_post, bare, BODY_EVENTS, CONNECTIONS, keyed=False),
            "loop": lambda: _loop_emptied(url),
            "singles": lambda: _emptied(url, ours, 1, SINGLE_CONNECTIONS, keyed=False),
            "keyed singles": lambda: _emptied(url, ours, 1, SINGLE_CONNECTIONS, keyed=True),
            "http singles": lambda: in_fresh_process(_post, bare, 1, SINGLE_CONNECTIONS, keyed=False),
        }
        rates = alternate(contestants, options.rounds)
        running = server_version(url)
    return Report(
        "gateway",
        "gateway: posted → answered, one process",
        [
            Figure("ours", rates["ours"], "events/s", at_least=60_000),
            Figure("ours, with keys", rates["keyed"], "events/s", at_least=60_000),
            Figure("bare HTTP: reads the body, answers", rates["http"], "events/s"),
            Figure("bare loop: decodes, appends", rates["loop"], "events/s"),
            ratio("ours / bare HTTP", rates["ours"], rates["http"]),
            ratio("ours / bare loop", rates["ours"], rates["loop"]),
            Figure("ours, one event per body", rates["singles"], "requests/s"),
            Figure("ours, one event per body, with keys", rates["keyed singles"], "requests/s"),
            Figure("bare HTTP, one event per body", rates["http singles"], "requests/s"),
            ratio("ours / bare HTTP, one event per body", rates["singles"], rates["http singles"]),
        ],
        {
            "server": running,
            "body": BODY_EVENTS,
            "connections": CONNECTIONS,
            "connections, single events": SINGLE_CONNECTIONS,
        },
        ["Every answer is waited for, and afterwards the stream holds each event once."],
    )


@contextmanager
def _gateway(folder: Path, url: str) -> Iterator[int]:
    """The port of one that is ready."""
    port = free_port()
    settings = {"REDIS__URL": url, "STORAGE_DIR": str(folder / "store")}
    with role(folder, "gateway", "--port", str(port), **settings):
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "the gateway is ready")
        yield port


@contextmanager
def _bare_http() -> Iterator[int]:
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve_bare, args=(port,), daemon=True)
    process.start()
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), "the bare server is ready")
        yield port
    finally:
        process.terminate()
        process.join()


def _serve_bare(port: int) -> None:
    from starlette.types import Receive, Scope, Send

    from vibezen.metrics.serving.listener import Server, listen, loop_factory

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        answer = b'{"accepted":%d}' % body.count(b"\n")
        length = str(len(answer)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": answer})

    async def serve() -> None:
        await Server(app, lambda: None, lambda: True).serve([listen("127.0.0.1", port)])

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve())


def _emptied(url: str, port: int, body_events: int, connections: int, *, keyed: bool) -> float:
    """Bodies' events per second; the stream must hold them all."""
    empty(url)
    rate = in_fresh_process(_post, port, body_events, connections, keyed=keyed)
    with connect(url) as client:
        there = sum(int(fields[b"n"]) for _, fields in client.xrange(KEYS.events(0)))
    if there != _total(body_events, connections):
        raise Failed(f"{there} events are in the stream, {_total(body_events, connections)} were accepted")
    return rate


def _loop_emptied(url: str) -> float:
    empty(url)
    return in_fresh_process(_loop, url)


def _each(body_events: int, connections: int) -> int:
    """Bodies per connection."""
    return (EVENTS if body_events > 1 else SINGLES) // body_events // connections


def _total(body_events: int, connections: int) -> int:
    return _each(body_events, connections) * connections * body_events


# --- contestants, each in an interpreter of its own: events per second


def _bodies(body_events: int) -> list[bytes]:
    ready = events(samples(DIFFERENT if body_events > 1 else 1000), wall(), 500_000)
    return [encode_lines(ready[first : first + body_events]) for first in range(0, len(ready), body_events)]


def _post(port: int, body_events: int, connections: int, *, keyed: bool) -> float:
    bodies = _bodies(body_events)
    each = _each(body_events, connections)
    failures: list[bytes] = []
    begin = threading.Barrier(connections + 1)

    def client(number: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            begin.wait()
            for turn in range(each):
                key = b"Idempotency-Key: %d-%d/%d\r\n" % (id(bodies), number, turn * body_events + 1) if keyed else b""
                answer = _exchange(connection, bodies[(number + turn * connections) % len(bodies)], key)
                if not answer.startswith(b"HTTP/1.1 200 "):
                    failures.append(answer)
                    return

    threads = [threading.Thread(target=client, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    begin.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    if failures:
        raise Failed(f"refused: {failures[0]!r}")
    return _total(body_events, connections) / took


def _exchange(connection: socket.socket, body: bytes, key: bytes) -> bytes:
    """As little of a client as speaks HTTP: it shall not be what is measured."""
    head = b"POST /api/events HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n" % (key, len(body))
    connection.sendall(head + body)
    answer = connection.recv(65536)
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
        more = connection.recv(65536)
        if not more:
            return answer
        answer += more
    return answer


def _loop(url: str) -> float:
    bodies = _bodies(BODY_EVENTS)
    decoder = msgspec.json.Decoder(Event)
    with connect(url) as client:
        client.ping()
        start = time.perf_counter()
        for turn in range(EVENTS // BODY_EVENTS):
            body = bodies[turn % len(bodies)]
            n = len(decoder.decode_lines(body))
            fields = {"v": 1, "producer": "bare", "seq": turn * BODY_EVENTS + 1, "n": n, "events": body}
            client.xadd(KEYS.events(0), fields)
        return EVENTS / (time.perf_counter() - start)
