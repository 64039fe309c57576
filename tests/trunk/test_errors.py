"""The tree of errors: drawn, exported, and one line of text each."""

import inspect
import re

import pytest

from vibezen.metrics import errors
from vibezen.metrics.errors import ConfigError, InvalidEvent, MetricsError, MissingExtra

CLASSES = [found for _, found in inspect.getmembers(errors, inspect.isclass) if found.__module__ == errors.__name__]
USAGE = {"BadParameter", "InvalidEvent", "MalformedEvent", "UntimelyEvent", "ConfigError", "MissingExtra"}


def drawn() -> dict[str, str]:
    """Class → parent, as the module's docstring draws them."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in inspect.getdoc(errors).split("\n"):  # type: ignore[union-attr]  # it has one
        match = re.match(r"([│├└─ ]*)([A-Z][A-Za-z]+)(?: |$)", line)
        if match and (match[1] or match[2] == "MetricsError"):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            if depth:
                parents[match[2]] = path[depth - 1]
    return parents


def test_tree_is_as_the_docstring_draws_it() -> None:
    wanted = {found.__name__: found.__bases__[0].__name__ for found in CLASSES if found is not MetricsError}
    assert drawn() == wanted


def test_every_error_is_exported_and_says_what_it_means() -> None:
    assert sorted(found.__name__ for found in CLASSES) == errors.__all__
    assert all(issubclass(found, MetricsError) and found.__doc__ for found in CLASSES)


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_exit_code_tells_wrong_usage_from_failure(error: type[MetricsError]) -> None:
    assert error.exit_code == (2 if error.__name__ in USAGE else 1)


def test_invalid_event_is_a_value_error_with_field_and_reason() -> None:
    error = InvalidEvent("ts", "too old")
    assert isinstance(error, ValueError)
    assert (error.field, error.reason, str(error)) == ("ts", "too old", "ts: too old")


def test_missing_extra_says_what_to_install() -> None:
    error = MissingExtra("server", "vibezen-metrics api")
    assert str(error) == (
        "vibezen-metrics api needs an extra that is not installed: pip install 'vibezen-metrics[server]'"
    )
    assert error.extra == "server"


def test_wrong_setting_is_no_programming_error() -> None:
    assert not issubclass(ConfigError, ValueError)
