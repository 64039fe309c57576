"""A server that comes back as an older copy of itself, also under a slower clock: the files are ahead of it."""

import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from tests.support.feeding import event, lag, total, values_on_disk
from tests.support.pipeline import Pipeline, sources_of, values_of
from tests.support.processes import StartRole
from tests.support.servers import SURE, Server, StartServer
from tests.support.waiting import WaitUntil
from vibezen.metrics.account import Account
from vibezen.metrics.batch import id_order
from vibezen.metrics.event import encode_lines
from vibezen.metrics.keys import ARCHIVE, GROUPS, Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.producers.append import Batch, append

pytestmark = pytest.mark.server

KEYS = Keys()
BATCH = 50


class Sending:
    """Values 0, 1, 2, …, each once, appended as a collector does by a new producer per call."""

    def __init__(self) -> None:
        self.sent = 0

    def __call__(self, client: redis.Redis, batches: int = 4) -> None:
        producer = f"p{self.sent}"
        for number in range(batches):
            lines = encode_lines([event(value, time.time()) for value in range(self.sent, self.sent + BATCH)])
            append(client, KEYS, 0, producer, 1 + number * BATCH, [Batch(BATCH, lines)])
            self.sent += BATCH


def copied(server: Server, copy: Path) -> None:
    server.stop()
    shutil.copytree(server.folder, copy)
    server.start()


def restored(server: Server, copy: Path) -> None:
    server.kill()
    shutil.rmtree(server.folder)
    shutil.copytree(copy, server.folder)
    server.start()


def assert_files_answer(pipeline: Pipeline, sent: int) -> None:
    """Windows lack what the server has forgotten; no answer does."""
    at = time.time()
    answer = pipeline.history(since=at - 3600, until=at + 60, agg="count")
    assert set(sources_of(answer)) == {"events"}
    assert sum(filter(None, values_of(answer)[()])) == sent


def assert_books_balance(client: redis.Redis) -> None:
    for group in GROUPS:
        stored: Any = client.hget(KEYS.books(0), f"{group}.account")
        assert msgspec.json.decode(stored, type=Account).difference == 0


@pytest.mark.parametrize("first", GROUPS)
def test_files_ahead_of_a_restored_server_keep_every_event_once(
    start_server: StartServer, tmp_path: Path, first: str
) -> None:
    server, send = start_server(None, *SURE), Sending()
    with server.client() as client:
        pipeline = Pipeline(client, server.url, tmp_path / "store")
        send(client)
        pipeline.archive()
        pipeline.aggregate()
        copied(server, tmp_path / "copy")
        send(client)
        pipeline.archive()
        pipeline.aggregate()
        archived = client.hget(KEYS.books(0), "archive.position")
        restored(server, tmp_path / "copy")
        # A slower clock: what is appended now gets an ID that is already taken.
        last: Any = client.xinfo_stream(KEYS.events(0))
        ms = id_order(last["last-generated-id"].decode())[0] + 1
        lower = {"v": 1, "producer": "late", "seq": 1, "n": 1, "events": encode_lines([event(send.sent, time.time())])}
        client.xadd(KEYS.events(0), lower, id=f"{ms}-0")
        assert isinstance(archived, bytes)
        assert (ms, 0) < id_order(archived.decode())
        for group in sorted(GROUPS, key=lambda name: name != first):
            pipeline.archive() if group == ARCHIVE else pipeline.aggregate()
        raised: Any = client.xinfo_stream(KEYS.events(0))
        assert id_order(raised["last-generated-id"].decode()) >= id_order(archived.decode()), "no ID is given twice"
        send.sent += 1
        send(client, 2)
        pipeline.archive()
        pipeline.aggregate()
        assert values_on_disk(tmp_path / "store") == Counter(map(float, range(send.sent)))
        assert_files_answer(pipeline, send.sent)
        assert_books_balance(client)


def test_running_owners_go_on_with_a_restored_server(
    start_server: StartServer, tmp_path: Path, start_role: StartRole, wait_until: WaitUntil
) -> None:
    server, send, store = start_server(None, *SURE), Sending(), tmp_path / "store"
    Layout(store).create()
    roles = [start_role("consume", group, "--redis-url", server.url, "--storage-dir", str(store)) for group in GROUPS]
    with server.client() as client:

        def is_read() -> bool:
            return lag(client, "archive") == lag(client, "aggregate") == 0

        send(client)
        wait_until(is_read)
        copied(server, tmp_path / "copy")
        wait_until(is_read)
        send(client)
        wait_until(is_read)
        restored(server, tmp_path / "copy")
        send(client)
        wait_until(lambda: len(values_on_disk(store)) == send.sent and is_read())
        assert values_on_disk(store) == Counter(map(float, range(send.sent)))
        assert total(client).count == send.sent - 4 * BATCH, "windows lack what the server has forgotten …"
        assert_files_answer(Pipeline(client, server.url, store), send.sent)
        assert_books_balance(client)
    assert [role.stop() for role in roles] == [0, 0]
