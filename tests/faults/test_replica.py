"""One primary and its replica, cut off from one another before the primary dies: what is lost, and who says so."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.feeding import values_on_disk
from tests.support.processes import StartRole
from tests.support.proxy import Proxy, StartProxy
from tests.support.servers import Server, StartServer
from tests.support.serving import dashboard_in_thread
from tests.support.waiting import WaitUntil
from tests.support.writers import (
    BATCH,
    DRAIN,
    all_append,
    all_are_confirmed,
    assert_all_kept_once,
    assert_books_balance,
    both_commit,
    consuming,
    drained,
    writing,
)
from vibezen.metrics import config
from vibezen.metrics.connection import connect
from vibezen.metrics.consumers.supervisor import run


class Pair(NamedTuple):
    """`front`: the address clients know, which leads to the primary; `link`: what the replica reads through."""

    primary: Server
    replica: Server
    front: Proxy
    link: Proxy

    def fail_over(self) -> None:
        """The primary dies, and what the replica has is all there is. The other comes back as its replica."""
        self.primary.kill()
        with self.replica.client() as client:
            client.replicaof("NO", "ONE")
        self.front.lead_to(self.replica.url)
        self.primary.start()
        with self.primary.client() as client:
            client.replicaof("127.0.0.1", self.replica.port)


@pytest.fixture
def pair(start_server: StartServer, start_proxy: StartProxy, wait_until: WaitUntil) -> Pair:
    primary, replica = start_server(), start_server()
    link = start_proxy(primary.url)
    with replica.client() as client:
        client.replicaof("127.0.0.1", link.port)
        wait_until(lambda: client.info("replication")["master_link_status"] == "up")
    return Pair(primary, replica, start_proxy(primary.url), link)


def test_who_waits_for_the_replica_loses_nothing(
    pair: Pair, start_role: StartRole, wait_until: WaitUntil, tmp_path: Path
) -> None:
    """The archiver may be ahead of the replica: what it has already is not archived again when it is appended again."""
    store = tmp_path / "store"
    roles = consuming(start_role, pair.front.url, store)
    with connect(pair.front.url) as client, writing(pair.front.url, insists=True) as writers:
        all_are_confirmed(writers)
        both_commit(client)
        pair.link.go_down()
        wait_until(lambda: writers[0].unconfirmed and drained(client))
        pair.fail_over()
        all_are_confirmed(writers)
        for writer in writers:
            writer.end()
        wait_until(lambda: drained(client), DRAIN)
        assert_all_kept_once(client, store, writers)
        assert_books_balance(start_role, pair.front.url, store)
    for role in roles:
        assert role.running()
        assert role.stop() == 0


def test_who_does_not_wait_loses_what_no_replica_had_and_is_told(pair: Pair, tmp_path: Path) -> None:
    settings = config.load(redis_url=pair.front.url, storage_dir=tmp_path, environ={})
    with writing(pair.front.url) as writers:
        all_are_confirmed(writers)
        pair.link.go_down()
        all_append(writers)
        all_append(writers)
        pair.fail_over()
        all_append(writers)
        for writer in writers:
            writer.end()
    assert run("archive", settings, once=True) == 0
    (writer,) = writers
    on_disk = values_on_disk(tmp_path)
    lost = writer.appended - len(on_disk)
    assert BATCH <= lost <= writer.appended - len(writer.confirmed)
    assert set(writer.confirmed) <= set(on_disk)
    with dashboard_in_thread(pair.front.url, tmp_path) as served:
        (shard,) = served.get("/api/pipeline")["shards"]
        assert shard["groups"]["archive"]["lost"] == lost
