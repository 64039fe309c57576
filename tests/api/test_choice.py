import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibezen.metrics.api.choice import Choice, Choices
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event_sql import Condition

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=8,
)
members = st.sampled_from(["metrics", "where", "group_by", "interval", "type"]) | st.text(max_size=3)

CHOICES = Choices(("provider", "model"), 0.25)


def test_nothing_chosen_is_everything() -> None:
    assert CHOICES.of_parameters({}) == CHOICES.of_message('{"type":"subscribe"}') == CHOICES.everything == Choice(0.25)


def test_the_same_choice_said_differently_is_the_same() -> None:
    one = CHOICES.of_parameters(
        {"metric": "tokens, cost,tokens", "where": ["provider=a", "model!=b", "provider=a"], "interval": "2"}
    )
    two = CHOICES.of_message(
        json.dumps(
            {"type": "subscribe", "metrics": ["cost", "tokens"], "where": ["model!=b", "provider=a"], "interval": 2.0}
        )
    )
    assert one == two
    assert hash(one) == hash(two)
    assert one == Choice(2.0, ("cost", "tokens"), (Condition("model", "b", True), Condition("provider", "a")))


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"metric": "Cost"}, "metric"),
        ({"metric": ",".join(f"m{number}" for number in range(51))}, "metric"),
        ({"metric": ["cost", "tokens"]}, "metric"),
        ({"where": "session=1"}, "where"),
        ({"where": "provider"}, "where"),
        ({"where": ["provider=a"] * 33}, "where"),
        ({"group_by": "provider"}, "metric"),
        ({"group_by": "provider", "metric": ",".join(f"m{number}" for number in range(9))}, "metric"),
        ({"group_by": "session", "metric": "cost"}, "group_by"),
        ({"group_by": "provider,provider", "metric": "cost"}, "group_by"),
        ({"interval": "0.2"}, "interval"),
        ({"interval": "10.1"}, "interval"),
        ({"interval": "nan"}, "interval"),
        ({"interval": "soon"}, "interval"),
        ({"rate": "1"}, "rate"),
    ],
)
def test_parameter_that_cannot_be_is_named(parameters: Mapping[str, str | list[str]], field: str) -> None:
    with pytest.raises(BadParameter) as caught:
        CHOICES.of_parameters(parameters)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"metrics": "cost"}, "metrics"),
        ({"metrics": [1]}, "metrics"),
        ({"metrics": ["a\n"]}, "metrics"),
        ({"where": ["session=1"]}, "where"),
        ({"where": ["provider=\ud800"]}, "type"),
        ({"group_by": ["provider,model"], "metrics": ["cost"]}, "group_by"),
        ({"group_by": ["provider"]}, "metrics"),
        ({"interval": "1"}, "interval"),
        ({"interval": True}, "interval"),
        ({"interval": 1e300}, "interval"),
        ({"since": "1-1_0-0"}, "type"),
        ({"metrics": [[[]]]}, "metrics"),
    ],
)
def test_message_that_cannot_be_is_answered_with_its_field(said: Mapping[str, object], field: str) -> None:
    with pytest.raises(BadParameter) as caught:
        CHOICES.of_message(json.dumps({"type": "subscribe", **said}))
    assert caught.value.field == field


@settings(max_examples=40)
@given(
    st.binary()
    | st.text()
    | st.dictionaries(members, json_values).map(lambda said: json.dumps({"type": "subscribe", **said}))
)
def test_whatever_a_client_says_is_a_choice_or_a_mistake(said: str | bytes) -> None:
    try:
        choice = CHOICES.of_message(said)
    except BadParameter as error:
        json.dumps(error.reason).encode()
    else:
        assert choice.interval >= CHOICES.least


@given(st.dictionaries(st.sampled_from(["metric", "where", "group_by", "interval"]), st.text() | st.lists(st.text())))
def test_whatever_stands_in_an_address_is_a_choice_or_a_mistake(given: Mapping[str, str | list[str]]) -> None:
    wrong = None
    try:
        CHOICES.of_parameters(given)
    except BadParameter as error:
        wrong = error.field
    assert wrong is None or wrong in {"metric", *given}
