"""Run by a soak: records values, and keeps a ledger of them in a file of its own.

`soak_application.py <ledger> <number> collector|gateway <events a second>`. A line `+ <value>` is written before the
value is recorded, `= <value>` when it and all before it are acknowledged. Values are whole numbers, unique over the
soak. SIGTERM ends it as an application would: what it has recorded is sent first.
"""

import http.client
import os
import random
import signal
import sys
import threading
import time
from typing import Final, TextIO

import msgspec

from vibezen.metrics import MetricsCollector

METRIC: Final = "soak"
VALUES_EACH: Final = 10**7
TURN: Final = 0.05
CLOSING: Final = 20.0
"""Seconds for what is not acknowledged yet at the end."""

ended = threading.Event()


class Ledger:
    def __init__(self, file: TextIO, number: int) -> None:
        self._file = file
        self._first = number * VALUES_EACH
        self.count = 0

    def next(self) -> int:
        """The next value, noted."""
        value = self._first + self.count + 1
        self._file.write(f"+ {value}\n")
        return value

    def recorded(self) -> None:
        self.count += 1

    def acknowledged(self, count: int) -> None:
        if count:
            self._file.write(f"= {self._first + count}\n")


def bursts(number: int, rate: float) -> "list[int]":
    chance = random.Random(number)
    return [chance.randint(0, round(2 * rate * TURN)) for _ in range(997)]


def collect(ledger: Ledger, number: int, rate: float) -> None:
    collector = MetricsCollector()
    acknowledging = threading.Thread(target=acknowledge, args=(collector, ledger))
    acknowledging.start()
    sizes, turn = bursts(number, rate), 0
    while not ended.wait(TURN):
        turn += 1
        for _ in range(sizes[turn % len(sizes)]):
            collector.record_nowait(METRIC, ledger.next(), {"model": f"m{turn % 3}", "agent": f"a{number % 5}"})
            ledger.recorded()
    acknowledging.join()
    count = ledger.count
    left = collector.close_sync(CLOSING)
    if left == 0:
        ledger.acknowledged(count)
    print(f"{left} left", collector.stats(), flush=True)


def acknowledge(collector: MetricsCollector, ledger: Ledger) -> None:
    told = 0
    while not ended.wait(0.2):
        count = ledger.count
        if count > told and collector.flush_sync(2.0) == 0:
            ledger.acknowledged(count)
            told = count


def post(ledger: Ledger, number: int, rate: float) -> None:
    """As a program without the collector: what got no answer is sent again under the same key."""
    sizes, turn = bursts(number, rate), 0
    while not ended.wait(TURN):
        turn += 1
        if size := sizes[turn % len(sizes)]:
            first, body = ledger.count + 1, b""
            for _ in range(size):
                line = {"metric": METRIC, "value": ledger.next(), "ts": time.time(), "metadata": {"model": "http"}}
                body += msgspec.json.encode(line) + b"\n"
                ledger.recorded()
            if send_until_taken(body, f"soak-{number}/{first}"):
                ledger.acknowledged(ledger.count)


def send_until_taken(body: bytes, key: str) -> bool:
    give_up = None
    while give_up is None or time.monotonic() < give_up:
        status, answer = send(body, key)
        if status == 200:
            return True
        if 400 <= status < 500 and status not in (408, 429):
            sys.exit(f"the gateway refused with {status}: {answer!r}")
        if ended.wait(0.1):
            give_up = give_up or time.monotonic() + CLOSING
            time.sleep(0.1)
    return False


def send(body: bytes, key: str) -> tuple[int, bytes]:
    """The status and the answer; 0 without one."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["SOAK_GATEWAY"]), timeout=5)
    try:
        connection.request("POST", "/api/events", body, {"Idempotency-Key": key})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def main(path: str, number: str, way: str, rate: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with open(path, "w", buffering=1) as file:
        {"collector": collect, "gateway": post}[way](Ledger(file, int(number)), int(number), float(rate))


if __name__ == "__main__":
    main(*sys.argv[1:])
