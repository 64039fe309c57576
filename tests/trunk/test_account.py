from hypothesis import given
from hypothesis import strategies as st

from vibezen.metrics.account import Account, Told

Sizes = st.lists(st.integers(1, 1000), min_size=1, max_size=30)


def read(account: Account, told: Told | None, events: int) -> None:
    """An entry whose events are all accepted."""
    account.read(told, events, events)
    account.accepted += events


@given(Sizes, st.data())
def test_whatever_leaves_the_stream_unread_is_counted_and_the_books_balance(
    sizes: list[int], data: st.DataObject
) -> None:
    account = Account()
    total = missed = passed = 0
    for size in sizes:
        total += size
        if data.draw(st.booleans()):
            read(account, Told("1", total), size)
            missed, passed = missed + passed, 0
            assert account.difference == 0
        else:
            passed += size
    assert account.trimmed == missed
    assert account.appended == total - passed if missed + account.accepted else account == Account()


def test_events_that_nobody_counted_are_on_both_sides() -> None:
    account = Account()
    read(account, None, 3)
    assert (account.foreign, account.accepted, account.difference) == (3, 3, 0)


def test_a_line_that_became_nothing_is_a_difference() -> None:
    account = Account()
    account.read(Told("1", 5), 5, 5)
    account.accepted += 4
    assert account.difference == 1


def test_another_epoch_begins_at_nothing() -> None:
    account = Account()
    read(account, Told("1", 100), 100)
    read(account, Told("2", 7), 5)
    assert account == Account(epoch="2", appended=7, accepted=5, trimmed=2)
    assert account.difference == 0


def test_a_count_that_runs_back_begins_anew_where_it_stands() -> None:
    account = Account()
    read(account, Told("1", 100), 100)
    read(account, Told("1", 65), 5)
    read(account, Told("1", 70), 5)
    assert account == Account(epoch="1", begun=60, appended=70, accepted=10)
    assert account.difference == 0
