import json
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.support.feeding import NOON, Feed, event, lag, lines_on_disk, values_on_disk
from vibezen.metrics.batch import EntryId
from vibezen.metrics.commitlog import read_log
from vibezen.metrics.consumers import segments
from vibezen.metrics.consumers.archiver import Archiver
from vibezen.metrics.consumers.shard import Sink, trim
from vibezen.metrics.errors import Fenced, StreamMoved
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.settings import Archive

KEYS = Keys()
Drain = Callable[[Sink], None]
NewArchiver = Callable[..., Archiver]


def books(client: redis.Redis) -> dict[str, str]:
    stored: Any = client.hgetall(KEYS.books(0))
    return {name.decode().removeprefix("archive."): value.decode() for name, value in stored.items()}


def dead_letters(client: redis.Redis) -> dict[str, dict[str, Any]]:
    stored: Any = client.hgetall(KEYS.dead(0))
    return {name.decode(): json.loads(value) for name, value in stored.items()}


def stale_entry(client: redis.Redis, archiver: Archiver, after: EntryId = "-") -> None:
    """Hand an archiver whatever the stream holds, without committing."""
    entries: Any = client.xrange(KEYS.events(0), min=after)
    for entry_id, fields in entries:
        archiver.take(entry_id, fields)


def test_each_event_is_one_line_in_the_partition_of_its_time(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    Feed(client).append([event(1, NOON), event(2, NOON + 3599.999999), event(3, NOON + 3600), event(4, NOON - 86400)])
    drain(new_archiver())
    found = {
        str(path.parent.relative_to(layout.events)): [
            json.loads(line)["value"] for line in path.read_text().splitlines()
        ]
        for path in layout.segments()
    }
    assert found == {
        "date=2025-11-23/hour=12": [4.0],
        "date=2025-11-24/hour=12": [1.0, 2.0],
        "date=2025-11-24/hour=13": [3.0],
    }


def test_lines_keep_every_field_and_microsecond(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    line = '{"ts":1763985600.123456,"metric":"cost","value":0.25,"sample_rate":0.5,"count":3,"metadata":{"a":null}}\n'
    client.xadd(KEYS.events(0), {"v": 1, "producer": "p", "seq": 1, "n": 1, "events": line})
    drain(new_archiver())
    assert lines_on_disk(layout.root) == [
        {
            "ts": 1763985600.123456,
            "metric": "cost",
            "value": 0.25,
            "sample_rate": 0.5,
            "count": 3,
            "metadata": {"a": None},
        }
    ]


def test_an_event_without_time_gets_its_entrys_time(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    client.xadd(KEYS.events(0), {"metric": "response_time", "value": "120", "provider": "openai"}, id="1763985600123-0")
    drain(new_archiver())
    assert lines_on_disk(layout.root) == [
        {"metric": "response_time", "value": 120.0, "ts": 1763985600.123, "metadata": {"provider": "openai"}}
    ]


def test_a_number_already_archived_is_written_once(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    feed = Feed(client)
    feed.append([event(1), event(2)])
    feed.append([event(1), event(2)], seq=1)
    feed.append([event(2), event(3)], seq=2)
    drain(new_archiver())
    assert values_on_disk(layout.root) == Counter([1.0, 2.0, 3.0])
    assert books(client)["duplicates"] == "2"


def test_numbers_nobody_appended_are_counted_as_lost(
    client: redis.Redis, new_archiver: NewArchiver, drain: Drain
) -> None:
    feed = Feed(client)
    feed.append([event(1)])
    feed.append([event(2)], seq=5)
    drain(new_archiver())
    assert books(client)["lost"] == "3"


def test_a_bad_line_becomes_a_dead_letter_and_its_neighbours_are_kept(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    entry_id = Feed(client).append([event(1), event(2, ts=5.0), event(3)])
    drain(new_archiver())
    assert values_on_disk(layout.root) == Counter([1.0, 3.0])
    letters = dead_letters(client)
    assert list(letters) == [f"{entry_id}/1"]
    assert "before 2000" in letters[f"{entry_id}/1"]["reason"]
    assert json.loads(letters[f"{entry_id}/1"]["payload"])["value"] == 2.0


def test_an_entry_that_is_not_ours_becomes_a_dead_letter(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    client.xadd(KEYS.events(0), {"hello": "world"}, id="7-1")
    client.xadd(KEYS.events(0), {"events": "x", "v": "9"}, id="7-2")
    client.xadd(KEYS.events(0), {"metric": "cost", "value": b"\xff"}, id="7-3")
    drain(new_archiver())
    assert lines_on_disk(layout.root) == []
    letters = dead_letters(client)
    assert sorted(letters) == ["7-1/0", "7-2/0", "7-3/0"]
    assert json.loads(letters["7-1/0"]["payload"]) == {"hello": "world"}


def test_the_position_the_server_shows_is_true(client: redis.Redis, new_archiver: NewArchiver, drain: Drain) -> None:
    feed = Feed(client)
    archiver = new_archiver()
    last = [feed.append([event(value)]) for value in range(5)][-1]
    assert lag(client, "archive") == 5
    drain(archiver)
    assert lag(client, "archive") == 0
    feed.append([event(9)])
    assert lag(client, "archive") == 1
    assert books(client)["position"] == last


def test_a_successor_goes_on_where_the_log_ends(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    feed = Feed(client)
    feed.append([event(1)])
    drain(new_archiver())
    feed.append([event(2)])
    drain(new_archiver())
    assert values_on_disk(layout.root) == Counter([1.0, 2.0])
    assert books(client)["events"] == "2"
    assert lag(client, "archive") == 0


def test_bytes_no_commit_names_are_not_data(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    """The owner dies between writing lines and writing the commit record."""
    feed = Feed(client)
    feed.append([event(1)])
    dying = new_archiver()
    drain(dying)
    feed.append([event(2)])
    stale_entry(client, dying)
    dying._segments.write(dying.renew)
    assert values_on_disk(layout.root) == Counter([1.0, 2.0])
    drain(new_archiver())
    assert values_on_disk(layout.root) == Counter([1.0, 2.0])
    (first, second) = layout.segments()
    assert len(first.read_bytes().splitlines()) == len(second.read_bytes().splitlines()) == 1


def test_a_logged_commit_that_never_reached_the_server_is_not_written_again(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner dies between the commit record and the script: the record is the truth, dead letters included."""
    feed = Feed(client)
    feed.append([event(1), event(2, ts=5.0)])
    dying = new_archiver()
    stale_entry(client, dying)
    with monkeypatch.context() as patch:
        patch.setattr(dying, "_confirm", lambda *_: (_ for _ in ()).throw(ConnectionResetError))
        with pytest.raises(ConnectionResetError):
            dying.commit()
    assert lines_on_disk(layout.root) == []
    assert dead_letters(client) == {}
    drain(new_archiver())
    assert values_on_disk(layout.root) == Counter([1.0])
    assert len(dead_letters(client)) == 1
    assert books(client)["events"] == "1"
    assert lag(client, "archive") == 0


def test_a_replaced_owner_commits_nothing_and_shows_nothing(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    feed = Feed(client)
    feed.append([event(1, NOON)])
    sleeper = new_archiver()
    drain(sleeper)
    feed.append([event(2, NOON), event(3, NOON + 7200)])
    stale_entry(client, sleeper)
    successor = new_archiver()
    drain(successor)
    told = books(client)
    with pytest.raises(Fenced):
        sleeper.commit()
    assert books(client) == told
    assert values_on_disk(layout.root) == Counter([1.0, 2.0, 3.0])
    feed.append([event(4, NOON)])
    drain(successor)
    drain(new_archiver())
    assert values_on_disk(layout.root) == Counter([1.0, 2.0, 3.0, 4.0])
    assert list(layout.strays(0, 99)) == []


def test_an_owner_whose_successor_has_committed_nothing_yet_commits_nothing(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    """The group still stands where the sleeper left it: the fence alone tells."""
    Feed(client).append([event(1)])
    sleeper = new_archiver()
    stale_entry(client, sleeper)
    successor = new_archiver()
    with pytest.raises(Fenced):
        sleeper.commit()
    assert lag(client, "archive") == 1
    drain(successor)
    assert values_on_disk(layout.root) == Counter([1.0])


def test_what_a_commit_says_is_on_disk_before_it_is_said(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a loss of power: a record names only what is there, and the server knows only what a record says."""
    Feed(client).append([event(1)])
    archiver = new_archiver()
    stale_entry(client, archiver)
    steps: list[tuple[str, int]] = []

    def note(call: str) -> None:
        real = getattr(os, call)

        def noting(fd: int, *rest: Any) -> Any:
            steps.append((call, os.fstat(fd).st_ino))
            return real(fd, *rest)

        monkeypatch.setattr(os, call, noting)

    for call in ("write", "fsync", "fdatasync"):
        note(call)
    confirm = archiver._confirm

    def noting_confirm(*arguments: Any) -> None:
        steps.append(("confirm", 0))
        confirm(*arguments)

    monkeypatch.setattr(archiver, "_confirm", noting_confirm)
    archiver.commit()
    ((_, log),) = layout.logs(0)
    (segment,) = layout.segments()
    names = {0: "", log.stat().st_ino: "log", segment.stat().st_ino: "segment"}
    folders = {path.stat().st_ino: "folder" for path in segment.parents[:3]}
    told = [(call, (names | folders)[inode]) for call, inode in steps]
    before = told.index(("write", "log"))
    assert [step for step in told[:before] if step[1] != "folder"] == [("write", "segment"), ("fdatasync", "segment")]
    assert {inode for call, inode in steps[:before] if call == "fsync"} == folders.keys()
    assert told[before:] == [("write", "log"), ("fdatasync", "log"), ("confirm", "")]


def test_an_owner_replaced_before_it_shows_its_segment_stops(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner sleeps between the accepted commit and giving the segment its public name."""
    feed = Feed(client)
    feed.append([event(1)])
    sleeper = new_archiver()
    stale_entry(client, sleeper)
    confirm = sleeper._confirm

    def confirm_then_sleep(*arguments: Any) -> None:
        confirm(*arguments)
        drain(new_archiver())

    monkeypatch.setattr(sleeper, "_confirm", confirm_then_sleep)
    with pytest.raises(Fenced):
        sleeper.commit()
    sleeper._segments.add("date=2025-11-24/hour=12", b"late\n", 1, NOON, NOON)
    assert values_on_disk(layout.root) == Counter([1.0])


def test_new_events_under_old_ids_of_a_restored_server_are_kept(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    """The server comes back as an older copy: it knows neither the newest entries nor their IDs."""
    feed = Feed(client)
    feed.append([event(1)], entry_id="1000000000000-0")
    feed.append([event(2)], entry_id="1000000009000-0")
    drain(new_archiver())
    client.flushall()
    feed.append([event(1)], entry_id="1000000000000-0", seq=1)
    Feed(client, "p2").append([event(3)], entry_id="1000000005000-0")
    drain(new_archiver())
    assert values_on_disk(layout.root) == Counter([1.0, 2.0, 3.0])
    assert books(client)["position"] == "1000000009000-0"
    raised = Feed(client, "p2").append([event(4)], seq=2)
    assert raised > "1000000009000-0"
    drain(new_archiver())
    assert values_on_disk(layout.root) == Counter([1.0, 2.0, 3.0, 4.0])


def test_a_stream_made_anew_by_a_slower_clock_is_not_hidden_by_a_late_commit(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    """The stream vanishes between a read and its commit, and what comes then has lower IDs."""
    feed = Feed(client)
    feed.append([event(0)], entry_id="1000000001000-0")
    late = new_archiver()
    drain(late)
    feed.append([event(1)], entry_id="1000000009000-0")
    stale_entry(client, late, "(1000000001000-0")
    client.delete(KEYS.events(0))
    Feed(client, "p2").append([event(2)], entry_id="1000000005000-0")
    client.xgroup_create(KEYS.events(0), "archive", id="0")
    with pytest.raises(StreamMoved):
        late.commit()
    drain(new_archiver())
    assert values_on_disk(layout.root) == Counter([0.0, 1.0, 2.0])


def test_trimming_waits_for_every_declared_group(client: redis.Redis, new_archiver: NewArchiver, drain: Drain) -> None:
    feed = Feed(client)
    client.xgroup_create(KEYS.events(0), "aggregate", id="0", mkstream=True)
    last = [feed.append([event(value)]) for value in range(3)][-1]
    client.xgroup_create(KEYS.events(0), "somebody-elses", id="0")
    drain(new_archiver())
    trim(client, KEYS, 0)
    assert client.xlen(KEYS.events(0)) == 3
    client.xgroup_setid(KEYS.events(0), "aggregate", last)
    trim(client, KEYS, 0)
    assert client.xlen(KEYS.events(0)) == 1


def test_trimming_holds_while_a_declared_group_is_missing(
    client: redis.Redis, new_archiver: NewArchiver, drain: Drain
) -> None:
    feed = Feed(client)
    feed.append([event(1)])
    feed.append([event(2)])
    drain(new_archiver())
    assert trim(client, KEYS, 0) == 0
    assert client.xlen(KEYS.events(0)) == 2


def test_segments_roll_by_size_and_stay_exact(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    feed = Feed(client)
    archiver = new_archiver(Archive(segment_bytes=1024))
    for value in range(40):
        feed.append([event(value, NOON)])
        drain(archiver)
    assert values_on_disk(layout.root) == Counter(float(value) for value in range(40))
    assert len(list(layout.segments())) > 1
    drain(new_archiver())
    assert values_on_disk(layout.root) == Counter(float(value) for value in range(40))


def test_at_most_the_allowed_segments_stay_open(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    feed = Feed(client)
    archiver = new_archiver(Archive(max_open_segments=2))
    for hour in range(6):
        feed.append([event(hour, NOON + hour * 3600)])
        drain(archiver)
    assert len(archiver._segments._open) == 2
    assert values_on_disk(layout.root) == Counter(float(hour) for hour in range(6))


def test_history_of_many_hours_in_one_commit_needs_few_descriptors(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, most = os.fdatasync, 0

    def count(fd: int) -> None:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")))
        real(fd)

    archiver = new_archiver(Archive(max_open_segments=2))
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fdatasync", count)
    feed = Feed(client)
    feed.append([event(hour, NOON - 3600 * hour) for hour in range(30)])
    drain(archiver)
    feed.append([event(30 + hour, NOON - 3600 * hour) for hour in range(30)])
    drain(archiver)
    assert most <= before + 5
    assert values_on_disk(layout.root) == Counter(map(float, range(60)))


def test_an_owner_that_writes_many_files_shows_that_it_lives(
    client: redis.Redis, new_archiver: NewArchiver, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "ALIVE_SECONDS", 0.0)
    archiver = new_archiver()
    client.delete(KEYS.lease(0, "archive"))
    real, leases = os.fdatasync, []

    def look(fd: int) -> None:
        leases.append(client.exists(KEYS.lease(0, "archive")))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", look)
    Feed(client).append([event(hour, NOON - 3600 * hour) for hour in range(3)])
    drain(archiver)
    assert leases[:3] == [0, 1, 1]


def test_an_old_segment_is_closed_while_nothing_comes_in(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    archiver = new_archiver(Archive(segment_age_seconds=0.001))
    Feed(client).append([event(1)])
    drain(archiver)
    archiver.idle()
    (log,) = [path for _, path in layout.logs(0)]
    assert [extent.closed for extent in read_log(log).extents.values()] == [True]


def test_a_long_log_makes_the_owner_start_anew(
    client: redis.Redis, new_archiver: NewArchiver, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vibezen.metrics.consumers.archiver.LOG_BYTES", 100)
    archiver = new_archiver()
    assert not archiver.spent()
    Feed(client).append([event(1)])
    drain(archiver)
    assert archiver.spent()


def test_files_and_folders_are_private(
    client: redis.Redis, layout: Layout, new_archiver: NewArchiver, drain: Drain
) -> None:
    Feed(client).append([event(1)])
    drain(new_archiver())
    drain(new_archiver())
    modes = {path.stat().st_mode & 0o777 for path in layout.root.rglob("*") if path.is_file()}
    folders = {path.stat().st_mode & 0o777 for path in (layout.root, *layout.root.rglob("*")) if path.is_dir()}
    assert modes == {0o600}
    assert folders == {0o700}
