import pytest
from redis.exceptions import AuthenticationError, BusyLoadingError, ConnectionError, NoPermissionError, TimeoutError

from vibezen.metrics.api.hub import reason_of
from vibezen.metrics.errors import ServerUnsuitable


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionError("Error 111 connecting to host:6379"), "no Redis or Valkey answers"),
        (TimeoutError("Timeout reading from host"), "no Redis or Valkey answers"),
        (BusyLoadingError("loading"), "no Redis or Valkey answers"),
        (AuthenticationError("WRONGPASS"), "Redis refuses our user or password"),
        (NoPermissionError("this user has no permissions"), "Redis refuses: this user has no permissions"),
        (ServerUnsuitable("too old"), "too old"),
    ],
)
def test_reason_says_what_is_wrong_without_naming_the_address(error: Exception, words: str) -> None:
    assert reason_of(error) == words
