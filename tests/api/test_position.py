import pytest

from vibezen.metrics.api.position import Position, entry_number, parse_position


def test_position_is_two_entry_ids() -> None:
    position = Position(entry_number(b"1763985600000-3"), entry_number(b"0-0"))
    assert str(position) == "1763985600000-3_0-0"
    assert parse_position(str(position)) == position


def test_ids_order_as_numbers() -> None:
    assert entry_number(b"9-10") > entry_number(b"9-9")
    assert entry_number(b"10-0") > entry_number(b"9-99")


def test_position_covers_what_lies_behind_it_in_both_streams() -> None:
    here = Position((5, 0), (7, 0))
    assert here.covers(here)
    assert here.covers(Position((4, 9), (7, 0)))
    assert not here.covers(Position((5, 1), (0, 0)))
    assert not here.covers(Position((0, 0), (7, 1)))


@pytest.mark.parametrize(
    "text", ["", "5", "5-1", "5-1_", "5-1_7-2 ", "5-1_7-2\n", "a-1_7-2", "5-1_7-2_9-9", "-1-1_7-2", "1" * 99]
)
def test_what_never_was_a_position_is_none(text: str) -> None:
    assert parse_position(text) is None
