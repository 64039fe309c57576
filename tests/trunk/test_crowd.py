"""How many live clients come in, and which are let go."""

from contextlib import ExitStack

import pytest

from vibezen.metrics.serving.crowd import Crowd
from vibezen.metrics.serving.errors import ApiError
from vibezen.metrics.serving.tokens import as_first


def nothing() -> None: ...


def test_one_more_than_may_is_refused_and_a_place_is_free_again() -> None:
    crowd = Crowd(5, 2)
    with ExitStack() as inside:
        for address in ("203.0.113.9", "203.0.113.9", "203.0.113.10"):
            inside.enter_context(crowd.member(address, None, nothing))
        with pytest.raises(ApiError, match=r"live\.max_clients_per_address") as refused:
            inside.enter_context(crowd.member("203.0.113.9", None, nothing))
        assert refused.value.status == 503
        for _ in range(2):  # this machine's own
            inside.enter_context(crowd.member("127.0.0.1", None, nothing))
        with pytest.raises(ApiError, match=r"live\.max_clients\)"):
            inside.enter_context(crowd.member("127.0.0.1", None, nothing))
    assert len(crowd) == 0
    with crowd.member("203.0.113.9", None, nothing):
        assert len(crowd) == 1


def test_those_whose_token_holds_no_more_are_let_go() -> None:
    crowd, let_go = Crowd(5, 5), []
    one, other = as_first("one", 0), as_first("other", 0)
    with (
        crowd.member("a", one, lambda: let_go.append("one")),
        crowd.member("b", other, lambda: let_go.append("other")),
        crowd.member("c", None, lambda: let_go.append("nobody")),
    ):
        crowd.dismiss(lambda token: token is other)
    assert let_go == ["one"]


def test_one_client_is_counted_once_however_its_address_is_written() -> None:
    crowd = Crowd(10, 1)
    for one, other in (("2001:db8::1", "2001:db8::2:5"), ("203.0.113.9", "::ffff:203.0.113.9")):
        with crowd.member(one, None, nothing), pytest.raises(ApiError), crowd.member(other, None, nothing):
            pass
    with crowd.member("::ffff:127.0.0.1", None, nothing), crowd.member("::ffff:127.0.0.1", None, nothing):
        assert len(crowd) == 2
    assert not crowd._by_address
