from pathlib import Path

import pytest

from vibezen.metrics.commitlog import Extent, Record, Seen, encode_record, read_log
from vibezen.metrics.consumers import takeover
from vibezen.metrics.consumers.segments import Segment
from vibezen.metrics.consumers.takeover import PRODUCERS_KEPT, Inherited, inherit
from vibezen.metrics.errors import Fenced
from vibezen.metrics.layout import Layout, hidden, publish_copy

PARTITION = "date=2025-11-24/hour=12"
DATA = b'{"a":1}\n{"a":2}\n'


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "store")
    layout.create()
    (layout.events / PARTITION).mkdir(parents=True)
    return layout


def extent(name: str, end: int = len(DATA), *, closed: bool = False) -> Extent:
    return Extent(f"{PARTITION}/{name}", end, 2, 1.0, 2.0, 0, closed)


def write_log(layout: Layout, epoch: int, *records: Record, torn: bytes = b"") -> Path:
    path = layout.log(0, epoch)
    path.write_bytes(b"".join(map(encode_record, records)) + torn)
    return path


def test_the_committed_prefix_is_sealed_in_a_file_of_its_own(layout: Layout) -> None:
    path = layout.events / PARTITION / "0-1-1.jsonl"
    path.write_bytes(DATA + b"torn")
    write_log(layout, 1, Record("5-0", [extent("0-1-1.jsonl")]))
    before = path.stat().st_ino
    with path.open("ab") as sleeper:
        inherit(layout, 0, 2)
        sleeper.write(b"late")
    assert path.read_bytes() == DATA
    assert path.stat().st_ino != before


def test_a_sealed_segment_is_not_replaced_by_the_one_of_a_sleeper(layout: Layout) -> None:
    """The sleeper wakes up just when the copy has its name, and the file it was made of still has the hidden one."""
    path = layout.events / PARTITION / "0-1-1.jsonl"
    sleeper = Segment(path, f"{PARTITION}/0-1-1.jsonl", 0.0)
    sleeper.add(DATA, 2, 1.0, 2.0)
    sleeper.write()
    publish_copy(hidden(path), path, len(DATA))
    sealed = path.stat().st_ino
    with pytest.raises(Fenced):
        sleeper.publish()
    sleeper.close()
    assert path.stat().st_ino == sealed


def test_a_committed_segment_that_was_never_shown_gets_its_name(layout: Layout) -> None:
    path = layout.events / PARTITION / "0-1-1.jsonl"
    hidden(path).write_bytes(DATA + b"more")
    write_log(layout, 1, Record("5-0", [extent("0-1-1.jsonl")]))
    inherit(layout, 0, 2)
    assert path.read_bytes() == DATA
    assert not hidden(path).exists()


def test_a_segment_no_record_names_is_removed(layout: Layout) -> None:
    path = layout.events / PARTITION / "0-1-7.jsonl"
    hidden(path).write_bytes(DATA)
    write_log(layout, 1, Record("5-0"))
    inherit(layout, 0, 2)
    assert list(path.parent.iterdir()) == []


def test_another_shards_hidden_segment_is_left_alone(layout: Layout) -> None:
    path = layout.events / PARTITION / "1-1-1.jsonl"
    hidden(path).write_bytes(DATA)
    inherit(layout, 0, 2)
    assert hidden(path).exists()


def test_a_closed_segment_is_not_copied_again(layout: Layout) -> None:
    path = layout.events / PARTITION / "0-1-1.jsonl"
    path.write_bytes(DATA)
    write_log(layout, 1, Record("5-0", [extent("0-1-1.jsonl", closed=True)]))
    before = path.stat().st_ino
    inherit(layout, 0, 2)
    assert path.stat().st_ino == before


def test_a_torn_last_record_is_not_a_commit(layout: Layout) -> None:
    path = layout.events / PARTITION / "0-1-1.jsonl"
    path.write_bytes(DATA * 2)
    good = Record("5-0", [extent("0-1-1.jsonl")], {"p": Seen(2, 1.0)})
    late = encode_record(Record("6-0", [extent("0-1-1.jsonl", 2 * len(DATA))], {"p": Seen(4, 2.0)}))
    write_log(layout, 1, good, torn=late[:-3])
    state, _ = inherit(layout, 0, 2)
    assert path.read_bytes() == DATA
    assert (state.last.position, state.producers["p"].number) == ("5-0", 2)


def test_the_predecessors_log_says_the_same_in_one_final_record(layout: Layout) -> None:
    path = layout.events / PARTITION / "0-1-1.jsonl"
    path.write_bytes(DATA)
    log = write_log(layout, 1, Record("5-0"), Record("6-0", [extent("0-1-1.jsonl")], {"p": Seen(2, 1.0)}))
    with log.open("ab") as sleeper:
        inherit(layout, 0, 2)
        sleeper.write(encode_record(Record("9-0")))
    state = read_log(log)
    assert state.last.sealed
    assert state.last.position == "6-0"
    assert state.extents[f"{PARTITION}/0-1-1.jsonl"].closed


def test_a_log_that_lost_the_race_to_its_successor_is_dropped(layout: Layout) -> None:
    """Epoch 2 was replaced before it committed anything that counts; epoch 3 holds the state."""
    write_log(layout, 1, Record("5-0", sealed=True))
    stale = write_log(layout, 2, Record("6-0", [extent("0-2-1.jsonl")]))
    write_log(layout, 3, Record("7-0"))
    state, _ = inherit(layout, 0, 4)
    assert state.last.position == "7-0"
    assert not stale.exists()
    assert layout.log(0, 1).exists()


def test_producers_silent_for_long_are_forgotten(layout: Layout) -> None:
    now = 2 * PRODUCERS_KEPT
    write_log(layout, 1, Record("5-0", producers={"old": Seen(7, 1.0), "new": Seen(8, now)}))
    inherit(layout, 0, 2)
    assert set(read_log(layout.log(0, 2)).producers) == {"new"}


@pytest.mark.parametrize("step", ["_seal_segment", "_seal_log", "publish_once"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_take_over_cut_off_anywhere_can_be_done_again(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    path = layout.events / PARTITION / "0-1-1.jsonl"
    hidden(path).write_bytes(DATA + b"torn")
    write_log(layout, 1, Record("5-0", [extent("0-1-1.jsonl")], {"p": Seen(2, 1.0)}))
    real = getattr(takeover, step)

    def crash(*arguments: object) -> None:
        if when == "after":
            real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(takeover, step, crash)
        with pytest.raises(KeyboardInterrupt):
            inherit(layout, 0, 2)
    state, log = inherit(layout, 0, 3)
    log.close()
    assert path.read_bytes() == DATA
    assert not hidden(path).exists()
    assert (state.last.position, state.producers["p"].number) == ("5-0", 2)
    assert read_log(layout.log(0, 3)).last.position == "5-0"


@pytest.mark.parametrize("woken", ["_without_missing", "_seal_segment", "_seal_log"])
def test_a_successor_that_slept_while_it_took_over_takes_nothing_from_the_next_one(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, woken: str
) -> None:
    """Epoch 2 looks at the log and sleeps; epoch 1 wakes and adds a record, which the server alone refuses; epoch 3
    takes over, relies on what it finds, and only then epoch 2 wakes."""
    path = layout.events / PARTITION / "0-1-1.jsonl"
    path.write_bytes(DATA * 2)
    first, second = Record("5-0", [extent("0-1-1.jsonl")]), Record("6-0", [extent("0-1-1.jsonl", 2 * len(DATA))])
    log = write_log(layout, 1, first)
    real = getattr(takeover, woken)
    relied: list[Inherited] = []

    def sleep(*arguments: object) -> object:
        monkeypatch.setattr(takeover, woken, real)
        with log.open("ab") as sleeper:
            sleeper.write(encode_record(second))
        relied.append(inherit(layout, 0, 3))
        return real(*arguments)

    monkeypatch.setattr(takeover, woken, sleep)
    inherit(layout, 0, 2)
    position, end = relied[0].state.last.position, relied[0].state.extents[f"{PARTITION}/0-1-1.jsonl"].end
    assert path.read_bytes() == (DATA * 2)[:end]
    assert read_log(log).last.position == position
    assert read_log(log).extents[f"{PARTITION}/0-1-1.jsonl"].end == end
    assert not layout.closing(0, 1).exists()


def test_an_epoch_that_somebody_else_has_begun_is_not_joined(layout: Layout) -> None:
    """A server that lost its data may give a number twice."""
    inherit(layout, 0, 2)
    with pytest.raises(Fenced):
        inherit(layout, 0, 2)
