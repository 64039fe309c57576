"""Closed dates lie in external storage, and questions about them have the same answers; nothing here is deleted that
does not lie there."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import stored
from tests.support.feeding import event
from tests.support.storages import KEY, SECRET, S3Server, s3_server
from vibezen.metrics import external, places
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.consumers.compactor import Compactor
from vibezen.metrics.consumers.holdings import Holding, Holdings
from vibezen.metrics.consumers.moving import Move, due, move
from vibezen.metrics.consumers.standing import Standing, hours_of_date, standings
from vibezen.metrics.errors import BadParameter, ExternalAway, Fenced, StoreFull
from vibezen.metrics.event_reader import EventReader, Wanted
from vibezen.metrics.external import External
from vibezen.metrics.layout import Layout, date_folder
from vibezen.metrics.rollups import RollupFooter, rollup_path
from vibezen.metrics.settings import Compaction, Settings
from vibezen.metrics.settings import External as ExternalSettings
from vibezen.metrics.verify import files

FIRST = 1_756_684_800
"""2025-09-01T00:00:00Z."""
NOW = time.time() + 3600.0
"""Later than when any of the files here was made."""
ALL = Wanted(0.0, 1e12)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    return s3.use(monkeypatch, f"bucket{abs(hash(request.node.name))}")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    path = tmp_path / "mnt" / "an archive"
    path.mkdir(parents=True)
    return path.as_uri()


@pytest.fixture(params=["folder", "bucket"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "store")
    layout.create()
    return layout


def fill(layout: Layout, days: int = 1) -> None:
    """Twelve events a day, in two hours."""
    stored.archive(
        layout,
        [
            event(
                float(number), FIRST + number // 12 * DAY + HOUR * (1 + number % 2) + number % 12, provider=f"p{number}"
            )
            for number in range(days * 12)
        ],
    )
    age(layout)


def age(layout: Layout) -> None:
    for path in layout.segments():
        os.utime(path, (FIRST, FIRST))


def holdings(layout: Layout) -> list[Holding]:
    return Holdings(layout, lambda shard: 1).look()


def compactor(layout: Layout, url: str | None, after_days: int = 7, **changes: Any) -> Compactor:
    settings = Settings(
        storage_dir=layout.root,
        retention_days=100_000,
        compaction=Compaction(grace_seconds=1e-6, **changes),
        external=ExternalSettings(url=url, after_days=after_days),
    )
    return Compactor(layout, settings, Holdings(layout, lambda shard: 1), 1, lambda: None, lambda: NOW)


def settle(layout: Layout, url: str | None, after_days: int = 7, **changes: Any) -> Compactor:
    """Rounds of a compactor until nothing is due."""
    found = compactor(layout, url, after_days, **changes)
    for _ in range(20):
        before = stood(layout)
        found.round()
        if stood(layout) == before:
            return found
    raise AssertionError("something is always due")


def stood(layout: Layout) -> dict[str, int]:
    return {str(path): path.stat().st_ino for path in layout.root.rglob("*") if path.is_file()}


def answers(layout: Layout) -> list[tuple[float, float, str | None]]:
    reader = EventReader(layout)
    snapshot = reader.snapshot()
    lines = reader.lines(snapshot.files(snapshot.hours()), ALL, 10_000, newest_first=False)
    return [(line.ts, line.value, line.metadata) for line in lines]


def local_files(layout: Layout) -> list[str]:
    return sorted(path.name for path in layout.events.rglob("*") if path.is_file())


def stands(number: int, **changes: object) -> Standing:
    from vibezen.metrics.parts import Footer, Part

    part = Part(f"date=2025-09-0{number + 1}/part-1.parquet", Footer("", 1, [], {}, "0", 0.0))
    date = FIRST + number * DAY
    usual = Standing(date, 100, 0, 1000, 0, date + DAY, False, False, 0, (part,))
    return usual._replace(**changes)  # type: ignore[arg-type]


def test_date_moves_when_it_is_old_enough() -> None:
    store = [stands(0), stands(1)]
    assert [one.date for one in due(store, 7, FIRST + 8 * DAY + 1.0, merge_days=True)] == [FIRST]
    assert due(store, 7, FIRST + 8 * DAY, merge_days=True) == []


@pytest.mark.parametrize("reason", [{"unsettled": True}, {"waiting": True}, {"parts": ()}])
def test_date_waits_for_what_is_not_compacted(reason: dict[str, object]) -> None:
    assert due([stands(0, **reason)], 7, NOW, merge_days=True) == []


def test_date_waits_to_be_merged_unless_it_never_is() -> None:
    (part,) = stands(0).parts
    hour = part._replace(path="date=2025-09-01/hour=01/part-1.parquet")
    small, large = stands(0, parts=(hour, hour)), stands(1, parts=(hour, hour), bytes=1 << 40)
    assert [one.date for one in due([small, large], 7, NOW, merge_days=True)] == [large.date]
    assert len(due([small, large], 7, NOW, merge_days=False)) == 2


@pytest.mark.parametrize("merge", [True, False])
def test_month_that_was_moved_answers_as_before(layout: Layout, url: str, merge: bool) -> None:
    fill(layout, 3)
    before = answers(layout)
    settle(layout, url, merge_days=merge)
    assert sum(one.outside for one in standings(layout, holdings(layout))) == 36
    assert sum(one.bytes for one in standings(layout, holdings(layout))) == 0
    assert len(local_files(layout)) == (3 if merge else 6)
    assert answers(layout) == before
    assert answers(layout) == before
    assert [finding.seen for finding in files.checks(layout, lambda _: None) if finding.status != "ok"] == []


def test_what_comes_late_for_a_moved_date_joins_it_there(layout: Layout, url: str) -> None:
    fill(layout)
    settle(layout, url)
    stored.archive(layout, [event(99.0, FIRST + HOUR + 0.5)])
    age(layout)
    expected = answers(layout)
    assert len(expected) == 13
    settle(layout, url)
    (one,) = standings(layout, holdings(layout))
    assert (one.outside, one.bytes, local_files(layout)) == (13, 0, ["part-4.parquet"])
    assert answers(layout) == expected


class Cut(BaseException):
    """The process ends here."""


def moves(layout: Layout) -> list[Move]:
    return due(standings(layout, holdings(layout)), 7, NOW, merge_days=True)


@pytest.mark.parametrize("bytes_", [0, 1, 500])
def test_upload_cut_anywhere_is_begun_again(layout: Layout, folder: str, monkeypatch: Any, bytes_: int) -> None:
    fill(layout)
    before = answers(layout)
    settle(layout, None)
    (what,) = moves(layout)

    def cut(self: object, source: Path, url: str) -> None:
        path = external.local_path(url)
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes()[:bytes_])
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(external._Local, "put", cut)
        with pytest.raises(Cut):
            move(layout, External(folder), what, lambda: None)
    assert answers(layout) == before
    settle(layout, folder)
    assert answers(layout) == before
    assert local_files(layout) == ["part-2.parquet"]


def test_upload_that_was_cut_before_the_stub_is_used(layout: Layout, bucket: str, monkeypatch: Any) -> None:
    def cut() -> None:
        raise Cut

    fill(layout)
    settle(layout, None)
    (what,) = moves(layout)
    with pytest.raises(Cut):
        move(layout, External(bucket), what, cut)
    assert len(local_files(layout)) == 1
    monkeypatch.setattr(external._Remote, "put", lambda *_: pytest.fail("uploaded again"))
    assert move(layout, External(bucket), what, lambda: None)


def test_upload_that_is_not_what_was_written_moves_nothing(layout: Layout, folder: str, monkeypatch: Any) -> None:
    fill(layout)
    before = answers(layout)
    monkeypatch.setattr(external, "publish_copy", lambda source, target, size: target.write_bytes(b"x" * size))
    found = settle(layout, folder)
    assert "not what was written" in found.keeper.trouble
    assert local_files(layout) == ["part-1.parquet"]
    assert answers(layout) == before


def test_compactor_that_was_replaced_publishes_no_stub(layout: Layout, folder: str) -> None:
    def fenced() -> None:
        raise Fenced("another one")

    fill(layout)
    settle(layout, None)
    (what,) = moves(layout)
    with pytest.raises(Fenced):
        move(layout, External(folder), what, fenced)
    assert local_files(layout) == ["part-1.parquet"]


def test_part_that_is_not_the_newest_any_more_is_not_moved(layout: Layout, folder: str) -> None:
    fill(layout)
    settle(layout, None)
    (what,) = moves(layout)
    stored.archive(layout, [event(99.0, FIRST + HOUR + 0.5)])
    stored.compact_day(layout, FIRST)
    assert not move(layout, External(folder), what, lambda: None)
    stored.sweep(layout)
    assert len(answers(layout)) == 13


def test_storage_that_is_away_takes_nothing_and_is_tried_again(layout: Layout, tmp_path: Path) -> None:
    fill(layout)
    before = answers(layout)
    away = tmp_path / "not mounted"
    found = settle(layout, away.as_uri())
    assert "no such folder; make it, or mount it" in found.keeper.trouble
    assert (answers(layout), away.exists()) == (before, False)
    away.mkdir()
    assert settle(layout, away.as_uri()).keeper.trouble == ""
    assert sum(one.outside for one in standings(layout, holdings(layout))) == 12


def test_question_about_what_is_away_says_so_and_others_are_answered(layout: Layout, folder: str) -> None:
    fill(layout, 2)
    settle(layout, folder, int((NOW - FIRST) / DAY) - 1)
    path = external.local_path(folder)
    assert path is not None
    path.rename(path.with_name("unmounted"))
    reader = EventReader(layout)
    snapshot = reader.snapshot()
    with pytest.raises(ExternalAway, match=r"external storage: file:///.*: is not there"):
        reader.lines(snapshot.files(hours_of_date(FIRST)), ALL, 100)
    assert len(reader.lines(snapshot.files(hours_of_date(FIRST + DAY)), ALL, 100)) == 12


def test_server_that_is_away_or_has_lost_it_is_told(tmp_path: Path, monkeypatch: Any, layout: Layout) -> None:
    with s3_server() as server:
        url = server.use(monkeypatch, "bucket")
        fill(layout)
        settle(layout, url)
        server.stop()
        with pytest.raises(ExternalAway) as away:
            answers(layout)
        assert "\n" not in str(away.value)
        server.start()
        server.use(monkeypatch, "bucket")
        with pytest.raises(ExternalAway, match="bucket/archive"):  # a server that has lost everything
            answers(layout)
    assert local_files(layout) == ["part-2.parquet"]
    assert list(layout.cache.iterdir()) == []


def test_fetched_file_is_private_used_again_and_makes_room(layout: Layout, bucket: str, monkeypatch: Any) -> None:
    fill(layout, 3)
    settle(layout, bucket)
    reader = EventReader(layout)
    snapshot = reader.snapshot()

    def ask(number: int) -> int:
        return len(reader.lines(snapshot.files(hours_of_date(FIRST + number * DAY)), ALL, 100))

    assert ask(0) == 12
    (kept,) = layout.cache.iterdir()
    assert (kept.stat().st_mode & 0o777, layout.cache.stat().st_mode & 0o777) == (0o600, 0o700)
    inode = kept.stat().st_ino
    assert ask(0) == 12
    assert kept.stat().st_ino == inode
    os.utime(kept, (1, 1))
    monkeypatch.setattr(places, "CACHE_BYTES", kept.stat().st_size * 5 // 2)
    assert (ask(1), ask(2)) == (12, 12)
    assert (len(list(layout.cache.iterdir())), kept.exists()) == (2, False)
    with pytest.raises(BadParameter, match="ask for less time"):
        reader.lines(snapshot.files(snapshot.hours()), ALL, 100)


def test_file_that_is_read_makes_no_room(layout: Layout, bucket: str, monkeypatch: Any) -> None:
    fill(layout, 2)
    settle(layout, bucket)
    snapshot = EventReader(layout).snapshot()
    ((first,), (second,)) = (
        [(span.place, span.part.footer.moved) for span in snapshot.files(hours_of_date(FIRST + n * DAY)).parts]
        for n in range(2)
    )
    with places.at_hand([first]):
        monkeypatch.setattr(places, "CACHE_BYTES", Path(first[0]).stat().st_size * 3 // 2)
        with places.at_hand([second]):
            assert Path(first[0]).exists()
    os.utime(second[0], (1, 1))
    Path(first[0]).unlink()
    with places.at_hand([first]):
        assert not Path(second[0]).exists()


def test_damaged_file_in_the_cache_is_fetched_again(layout: Layout, bucket: str) -> None:
    fill(layout)
    before = answers(layout)
    settle(layout, bucket)
    assert answers(layout) == before
    (kept,) = layout.cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    assert answers(layout) == before


def test_nothing_is_fetched_onto_a_disk_that_archivers_need(layout: Layout, bucket: str, monkeypatch: Any) -> None:
    fill(layout)
    settle(layout, bucket)
    usage = shutil.disk_usage(layout.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(StoreFull, match="no space to fetch"):
        answers(layout)


def test_file_outside_that_was_changed_is_not_taken(layout: Layout, bucket: str) -> None:
    fill(layout)
    settle(layout, bucket)
    system = external._filesystem("s3")
    (name,) = system.find(bucket)
    data = bytearray(system.cat_file(name))
    data[len(data) // 2] ^= 1
    system.pipe_file(name, bytes(data))
    with pytest.raises(ExternalAway, match="is not what was moved there"):
        answers(layout)


def test_with_external_storage_nothing_is_dropped_and_what_was_moved_is_kept(layout: Layout, folder: str) -> None:
    fill(layout)
    before = answers(layout)
    found = compactor(layout, folder)
    kept = found.keeper
    settle(layout, folder)
    old = Settings(
        storage_dir=layout.root,
        retention_days=1,
        retention_bytes=1,
        external=ExternalSettings(url=folder, after_days=7),
    )
    Compactor(layout, old, Holdings(layout, lambda shard: 1), 1, lambda: None, lambda: NOW + 1000 * DAY).round()
    assert answers(layout) == before
    assert kept.books(holdings(layout)) == {"dropped": "0", "moved": "12", "external_trouble": ""}


def test_dry_run_tells_and_changes_nothing(layout: Layout, folder: str) -> None:
    fill(layout, 2)
    settle(layout, None)
    before = stood(layout)
    (first, second) = map(str, compactor(layout, folder).keeper.to_move(holdings(layout)))
    assert first.startswith("2025-09-01: 12 events, ")
    assert second.endswith(" bytes: older than 7 days")
    assert stood(layout) == before
    assert list(Path(external.local_path(folder) or "").iterdir()) == []


def test_storage_is_checked_for_writing(bucket: str, folder: str) -> None:
    for url in (bucket, folder):
        External(url).check()
    with pytest.raises(ExternalAway, match="no such folder"):
        External(f"{folder}/nowhere").check()
    with pytest.raises(ExternalAway) as away:
        External("s3://no-such-bucket-here/archive").check()
    assert "no-such-bucket-here" in str(away.value)


def test_no_message_shows_a_secret(bucket: str) -> None:
    error = external._said(RuntimeError(f"{KEY} with {SECRET} is refused\nTraceback"))
    assert error == "*** with *** is refused"


@pytest.mark.parametrize(
    "url",
    [
        "archive",
        "/mnt/archive",
        "file://archive",
        "file:///",
        "s3:///x",
        "s3://key:secret@bucket/x",
        "a::s3://b",
        "s3://b?x=1",
    ],
)
def test_address_that_is_none_or_holds_credentials_is_refused(url: str) -> None:
    assert not external.is_url(url)


def test_files_outside_are_readable_by_anything(layout: Layout, folder: str) -> None:
    import duckdb

    fill(layout)
    settle(layout, folder)
    base = external.local_path(folder)
    assert base is not None
    (part,) = base.glob("date=*/part-*.parquet")
    assert part.parent.name == date_folder(FIRST)
    assert part.stat().st_mode & 0o777 == 0o600
    assert duckdb.connect().execute("SELECT count(*) FROM read_parquet($1)", [str(part)]).fetchone() == (12,)


def test_rollup_of_a_moved_day_stays_and_stands_for_it(layout: Layout, folder: str) -> None:
    fill(layout)
    settle(layout, None)
    path = rollup_path(layout, FIRST, 1)
    assert path.exists()
    (part,) = standings(layout, holdings(layout))[0].parts
    rollup = RollupFooter(part.footer.store, 1, part.path, part.footer.content, [], [], [], [])
    settle(layout, folder)
    (held,) = holdings(layout)
    assert held.view.day is not None
    assert (held.view.day.footer.generation, held.view.day.footer.rows_of) == (2, 1)
    assert rollup.stands_for(held.view.day)
    assert path.exists()
    stored.archive(layout, [event(99.0, FIRST + HOUR + 0.5)])
    age(layout)
    settle(layout, folder)
    (held,) = holdings(layout)
    assert held.view.day is not None
    assert (rollup.stands_for(held.view.day), path.exists()) == (False, False)
