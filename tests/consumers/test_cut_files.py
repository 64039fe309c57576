"""Files cut at any byte, by a crash or a lying disk: readers see whole commits, and an owner repairs once."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.consumers.conftest import Drain, NewArchiver
from tests.support.feeding import NOON, Feed, event, values_on_disk
from vibezen.metrics.commitlog import fold
from vibezen.metrics.committed import CommittedFiles
from vibezen.metrics.consumers.archiver import Archiver
from vibezen.metrics.consumers.lease import take
from vibezen.metrics.consumers.takeover import highest_epoch
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.settings import Archive
from vibezen.metrics.verify.logs import judge, read_all

KEYS = Keys()
BATCH = 3
ALL = Counter(map(float, range(5 * BATCH)))


@pytest.fixture
def killed(client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain) -> Layout:
    """The store of an owner that was killed after five commits to one segment; the stream still holds all of it."""
    feed, archiver = Feed(client), new_archiver()
    for first in range(0, 5 * BATCH, BATCH):
        feed.append([event(value, NOON + value) for value in range(first, first + BATCH)])
        drain(archiver)
    return layout


def cuts(file: Path, lines: int = 3, step: int = 1) -> Iterator[int]:
    """Lengths from the beginning of the last three lines on."""
    data = file.read_bytes()
    begin = len(data) - len(b"".join(data.splitlines(keepends=True)[-lines:]))
    yield from range(begin, len(data), step)


def log_of(layout: Layout) -> Path:
    return layout.logs(0)[-1][1]


def copied(layout: Layout, to: Path) -> Layout:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(layout.root, to)
    return Layout(to)


def take_over(client: redis.Redis, layout: Layout, drain: Drain) -> None:
    client.delete(KEYS.lease(0, "archive"))
    taken = take(client, KEYS, 0, "archive", "successor", highest_epoch(layout, 0))
    assert taken is not None
    archiver = Archiver(client, KEYS, taken, layout, Archive())
    drain(archiver)
    archiver.close()


def test_readers_of_a_log_cut_at_any_byte_see_its_whole_records(killed: Layout) -> None:
    log, hour = log_of(killed), int(NOON)
    whole = log.read_bytes()
    for length in cuts(log):
        log.write_bytes(whole[:length])
        named = sum(extent.events for extent in fold(whole[:length]).extents.values())
        assert CommittedFiles(killed).snapshot().lines(hour) == named < len(ALL)


def test_owner_after_a_log_cut_at_any_byte_is_exact_and_repairs_once(
    client: redis.Redis, killed: Layout, tmp_path: Path, drain: Drain
) -> None:
    for length in cuts(log_of(killed), step=17):
        store = copied(killed, tmp_path / "copy")
        log = log_of(store)
        log.write_bytes(log.read_bytes()[:length])
        take_over(client, store, drain)
        assert values_on_disk(store.root) == ALL, length
        repaired = log.read_bytes()
        take_over(client, store, drain)
        assert log.read_bytes() == repaired, length
        assert values_on_disk(store.root) == ALL, length


def test_committed_lines_that_were_cut_off_are_told_and_the_others_kept(
    client: redis.Redis, killed: Layout, tmp_path: Path, drain: Drain, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of ours does that. They are gone, but what is left is data, and what comes is archived."""
    for length in cuts(next(killed.segments()), step=11):
        store = copied(killed, tmp_path / "copy")
        segment = next(store.segments())
        segment.write_bytes(segment.read_bytes()[:length])
        left = segment.read_bytes().count(b"\n")
        caplog.clear()
        for _ in range(2):
            take_over(client, store, drain)
            assert values_on_disk(store.root) == Counter(map(float, range(left))), length
            assert client.hget(KEYS.books(0), "archive.missing") == b"%d" % (len(ALL) - left)
            assert CommittedFiles(store).snapshot().lines(int(NOON)) == left
        assert [record.levelname for record in caplog.records] == ["ERROR"], "it is said once"


def test_a_segment_that_was_removed_does_not_stop_its_owner(
    client: redis.Redis, killed: Layout, tmp_path: Path, drain: Drain
) -> None:
    shutil.rmtree(next(killed.segments()).parent)
    Feed(client, "p2").append([event(99, NOON)])
    take_over(client, killed, drain)
    assert values_on_disk(killed.root) == Counter([99.0])
    assert client.hget(KEYS.books(0), "archive.missing") == b"15"
    (found,) = judge(0, read_all(killed, 0))
    assert found.seen == "shard 0: 15 committed events are gone: something cut or removed their file"


@pytest.mark.parametrize("trimmed", [False, True])
def test_commits_that_a_damaged_log_names_no_more_are_told_and_counted_unless_the_stream_still_has_them(
    client: redis.Redis, killed: Layout, drain: Drain, trimmed: bool
) -> None:
    if trimmed:
        client.xtrim(KEYS.events(0), maxlen=1, approximate=False)
    lines = log_of(killed).read_bytes().splitlines(keepends=True)
    lines[-3] = lines[-3].replace(b"5", b"6")
    log_of(killed).write_bytes(b"".join(lines))
    take_over(client, killed, drain)
    take_over(client, killed, drain)
    gone = len(ALL) - values_on_disk(killed.root).total()
    assert gone == (2 * BATCH if trimmed else 0)
    findings = [finding.seen for finding in judge(0, read_all(killed, 0))]
    assert findings == (
        [f"shard 0: {gone} committed events are gone: something cut or removed their file"] if gone else []
    )
    assert client.hget(KEYS.books(0), "archive.missing") == str(gone).encode()


def test_a_damaged_log_is_kept_before_it_is_closed(
    client: redis.Redis, killed: Layout, drain: Drain, caplog: pytest.LogCaptureFixture
) -> None:
    first = log_of(killed)
    lines = first.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"position", b"positiom")
    first.write_bytes(b"".join(lines))
    take_over(client, killed, drain)
    assert (killed.quarantine / first.name).read_bytes() == b"".join(lines)
    assert "is damaged" in caplog.text


def test_a_sealed_log_that_was_damaged_later_stays_for_verify_to_name(
    client: redis.Redis, killed: Layout, drain: Drain
) -> None:
    sealed = log_of(killed)
    take_over(client, killed, drain)
    sealed.write_bytes(sealed.read_bytes().replace(b"position", b"positiom"))
    take_over(client, killed, drain)
    assert sealed.exists()
    assert [finding.status for finding in judge(0, read_all(killed, 0))][:1] == ["fail"]


def test_a_torn_end_is_no_damage(client: redis.Redis, killed: Layout, drain: Drain) -> None:
    with log_of(killed).open("ab") as file:
        file.write(b"00000000 {")
    take_over(client, killed, drain)
    assert not killed.quarantine.exists()
