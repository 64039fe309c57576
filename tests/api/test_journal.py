from vibezen.metrics.api.journal import Change, Journal, change_of
from vibezen.metrics.live import Change as SeriesChange
from vibezen.metrics.live import Frame
from vibezen.metrics.series import series_key
from vibezen.metrics.window import Window

A, B, C = (100, "a"), (100, "b"), (110, "a")


def change(*slots: tuple[int, str], oldest: float | None = None, newest: float | None = None) -> Change:
    return Change(frozenset(slots), oldest, newest)


def test_everything_after_a_position_is_told_as_one_change() -> None:
    journal = Journal((1, 0))
    journal.note((2, 0), change(A, oldest=5, newest=6))
    journal.note((3, 0), change(B))
    journal.note((4, 0), change(C, A, oldest=3, newest=4))
    assert journal.since((1, 0)) == change(A, B, C, oldest=3, newest=6)
    assert journal.since((2, 0)) == change(A, B, C, oldest=3, newest=4)
    assert journal.since((4, 0)) == change()


def test_before_its_beginning_the_journal_knows_nothing() -> None:
    journal = Journal((5, 3))
    assert journal.since((5, 3)) == change()
    assert journal.since((5, 2)) is None


def test_journal_can_be_made_to_reach_further_back() -> None:
    journal = Journal((5, 0))
    journal.note((6, 0), change(A))
    journal.prepend((3, 0), change(B))
    assert journal.since((3, 0)) == change(A, B)
    assert journal.since((4, 0)) == change(A, B), "a note is told whole when only its end is after the position"
    assert journal.since((2, 0)) is None


def test_journal_is_bounded_and_honest_about_it() -> None:
    journal = Journal((0, 0))
    for number in range(1, 5000):
        journal.note((number, 0), change((number, "a")))
    assert journal.since((0, 0)) is None
    last = journal.since((4998, 0))
    assert last == change((4999, "a"))


def test_frame_changes_the_slots_of_its_series() -> None:
    frame = Frame(
        0,
        10,
        [
            SeriesChange(100, series_key("a", {"x": "1"}), Window()),
            SeriesChange(100, series_key("a", {}), Window()),
            SeriesChange(110, series_key("a", {}), Window()),
        ],
        1.0,
        2.0,
    )
    assert change_of(frame, 10) == change(A, C, oldest=1.0, newest=2.0)
    assert change_of(frame, 60) == change()
