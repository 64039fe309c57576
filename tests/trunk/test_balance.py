import msgspec

from vibezen.metrics.account import Account
from vibezen.metrics.balance import Books, books_of
from vibezen.metrics.keys import AGGREGATE, ARCHIVE

EPOCH = "7"


def stored(
    appended: int, archive: Account | None = None, at: str = "", other: Account | None = None, other_at: str = ""
) -> dict[bytes, bytes]:
    """A books hash: the archiver's account and where it stands, and the same of the aggregator."""
    fields = {"append.epoch": EPOCH, "append.events": str(appended)}
    for group, account, position in ((ARCHIVE, archive, at), (AGGREGATE, other, other_at)):
        if account:
            fields[f"{group}.account"] = msgspec.json.encode(account).decode()
        if position:
            fields[f"{group}.position"] = position
    return {name.encode(): value.encode() for name, value in fields.items()}


def entry(entry_id: str, events: int | None = None, epoch: str = EPOCH) -> tuple[bytes, dict[bytes, bytes]]:
    return entry_id.encode(), {} if events is None else {b"books": f"{epoch} {events}".encode()}


def account(appended: int, accepted: int, **more: int) -> Account:
    return Account(epoch=EPOCH, appended=appended, accepted=accepted, **more)


def test_what_waits_in_the_stream_is_no_loss() -> None:
    books = books_of(stored(30, account(10, 10), "5-0"), [entry("9-0", 30)])
    side = books.groups[ARCHIVE]
    assert (side.appended, side.accepted, side.unread, side.trimmed, side.difference) == (30, 10, 20, 0, 0)
    assert books.groups[AGGREGATE].unread == 30
    assert books.balances


def test_what_is_neither_read_nor_in_the_stream_was_trimmed() -> None:
    side = books_of(stored(30, account(10, 10), "5-0"), []).groups[ARCHIVE]
    assert (side.unread, side.trimmed) == (0, 20)
    side = books_of(stored(30, account(10, 10), "5-0"), [entry("9-0", 25)]).groups[ARCHIVE]
    assert (side.unread, side.trimmed) == (15, 5)


def test_an_entry_that_tells_nothing_hides_no_others() -> None:
    newest = [entry("9-1"), entry("9-0", 30)]
    assert books_of(stored(30, account(10, 10), "5-0"), newest).groups[ARCHIVE].unread == 20
    assert books_of(stored(30, account(10, 10), "5-0"), newest[:1]).groups[ARCHIVE].unread == 20
    assert books_of(stored(30, account(10, 10), "9-1"), newest[:1]).groups[ARCHIVE].trimmed == 20


def test_an_entry_that_came_meanwhile_changes_nothing() -> None:
    assert books_of(stored(10, account(10, 10), "5-0"), [entry("9-0", 14)]).groups[ARCHIVE].unread == 0


def test_a_group_that_read_nothing_of_this_epoch_has_an_empty_account() -> None:
    old = Account(epoch="6", appended=100, accepted=99)
    side = books_of(stored(4, old, "5-0"), [entry("9-0", 4)]).groups[ARCHIVE]
    assert (side.appended, side.accepted, side.unread, side.difference) == (4, 0, 4, 0)


def test_an_account_that_does_not_add_up_is_a_difference() -> None:
    books = books_of(stored(10, account(10, 9), "5-0"), [])
    assert books.groups[ARCHIVE].difference == 1
    assert not books.balances


def both(archive: Account, aggregate: Account, at: str = "5-0") -> Books:
    return books_of(stored(10, archive, "5-0", aggregate, at), [])


def test_archived_is_aggregated_and_too_old_at_the_same_position() -> None:
    assert both(account(10, 10), account(10, 8, too_old=2)).archived_less_aggregated == 0
    assert both(account(10, 10), account(10, 8, too_old=2), at="4-0").archived_less_aggregated is None
    books = both(account(10, 10), account(10, 9, rejected=1))
    assert books.archived_less_aggregated == 1
    assert all(side.difference == 0 for side in books.groups.values())
    assert not books.balances


def test_what_only_one_group_lost_is_no_difference_between_them() -> None:
    assert both(account(10, 7, trimmed=3), account(10, 9, rejected=1)).archived_less_aggregated == 0
    assert both(account(10, 8, repeated=2), account(10, 10)).archived_less_aggregated == 0
