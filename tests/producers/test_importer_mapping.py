"""The mapping's grammar, on the command line and in YAML, and errors that name what is wrong."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibezen.metrics.errors import BadParameter, ConfigError
from vibezen.metrics.producers.importer_mapping import (
    Cell,
    EventMap,
    Mapping,
    own_events,
    parse_event,
    parse_set,
    plans,
    read_map,
    time_column,
)

names = st.from_regex(r"[a-z][a-z0-9_.]{0,20}", fullmatch=True).filter(
    lambda name: name not in ("count", "sample_rate")
)
columns = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), min_size=1)
constants = st.text(st.characters(exclude_characters="{},", exclude_categories=["Cs"])).map(str.strip)


@given(names, columns, st.dictionaries(names, columns | constants))
def test_an_event_written_down_is_read_back(metric: str, column: str, metadata: dict[str, str]) -> None:
    braced = {key: f"{{{text}}}" if "," in text else text for key, text in metadata.items()}
    text = ",".join([f"{metric}={{{column}}}", *(f"{key}={value}" for key, value in braced.items())])
    assert parse_event(text) == EventMap(metric, f"{{{column}}}", metadata={k: v.strip() for k, v in braced.items()})


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("1", Cell(None, 1)),
        ("0.5", Cell(None, 0.5)),
        ("{s}", Cell("s")),
        ("{s}*1000", Cell("s", "", 1000.0)),
        ("{s} / 1e3", Cell("s", "", 1.0, 1000.0)),
        ("{a, b=c}", Cell("a, b=c")),
    ],
)
def test_a_value_is_a_column_scaled_or_not_or_a_constant(value: str, cell: Cell) -> None:
    (plan,) = plans(Mapping(events=(parse_event(f"m={value}"),)))
    assert plan.value == cell


def test_count_and_sample_rate_are_fields_and_a_metric_may_be_a_column() -> None:
    event = parse_event("{what}={v},count={n},sample_rate=0.5,model={Model}")
    (plan,) = plans(Mapping(events=(event,), set={"model": "x", "tier": "1"}))
    assert plan.metric == Cell("what")
    assert plan.fields == {"count": Cell("n"), "sample_rate": Cell(None, 0.5)}
    assert plan.metadata == {"model": Cell("Model"), "tier": Cell(None, "1")}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tokens", "--event: 'tokens': expected METRIC=VALUE"),
        ("=1", "--event: '=1': expected METRIC=VALUE"),
        ("", "--event: '': expected METRIC=VALUE"),
        ("tokens={a", "--event: 'tokens={a': expected METRIC=VALUE"),
        ("tokens=1,,a=b", "--event: 'tokens=1,,a=b': expected METRIC=VALUE"),
        ("tokens=1,type", "--event: 'tokens=1,type': expected METRIC=VALUE"),
        ("Tokens=1", "events[0].metric: 'Tokens' is not a metric name"),
        ("tokens=many", "events[0].value: 'many': expected a number, {Column}"),
        ("tokens=nan", "events[0].value: 'nan': expected a number"),
        ("tokens={a}+1", "events[0].value: '{a}+1': expected a number"),
        ("tokens={a}*0", "events[0].value: '{a}*0': scaling by nothing"),
        ("tokens={a}/x", "events[0].value: '{a}/x': expected a number"),
        ("tokens=1,Type=a", "events[0].metadata: 'Type' is not a key"),
        ("tokens=1,type={a}{b}", "events[0].metadata.type: '{a}{b}': expected one {Column} alone"),
    ],
)
def test_a_wrong_event_is_told_in_one_line(text: str, told: str) -> None:
    with pytest.raises(BadParameter) as bad:
        plans(Mapping(events=(parse_event(text),)))
    assert str(bad.value).startswith(told)
    assert "\n" not in str(bad.value)


def test_set_takes_keys_and_values() -> None:
    assert parse_set(["provider=azure", "model={Model}", "note=a=b"]) == {
        "provider": "azure",
        "model": "{Model}",
        "note": "a=b",
    }
    with pytest.raises(BadParameter, match="--set: 'provider': expected key=value"):
        parse_set(["provider"])


def test_a_file_says_the_same_as_options(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(
        "time: TIMESTAMP\nset: {provider: azure}\n"
        "events:\n- {metric: api_calls, value: 1}\n- metric: tokens\n  value: '{Out}'\n  metadata: {type: output}\n"
    )
    events = (EventMap("api_calls", 1), EventMap("tokens", "{Out}", metadata={"type": "output"}))
    assert read_map(path) == Mapping(time="TIMESTAMP", set={"provider": "azure"}, events=events)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("events: 3", "events = 3: expected `array`, got `int`"),
        (
            "events: [{metric: a, value: [1]}]",
            "events[0].value = [1]: expected `bool | int | float | str`, got `array`",
        ),
        (
            "events: [{metric: a, value: 1, labels: {}}]",
            "events[0].labels: unknown key; expected one of metric, value,",
        ),
        ("tiem: ts", "tiem: unknown key; expected one of time, time_format,"),
        ("events: [{metric: A, value: 1}]", "events[0].metric: 'A' is not a metric name"),
        ("events: [{metric: a, value: true}]", "events[0].value: True: expected a number or {Column}"),
        ("[1]", "the file = [1]: expected `object`, got `array`"),
        ("a: [", "line 1, column 5: not valid YAML"),
        ("a: !!python/object:os.system {}", "line 1, column 4: not valid YAML"),
    ],
)
def test_a_wrong_file_names_file_key_value_and_what_was_expected(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as bad:
        read_map(path)
    assert str(bad.value).startswith(f"{path}: {told}")
    assert "\n" not in str(bad.value)


def test_the_time_is_found_by_name_in_any_case() -> None:
    assert time_column(None, ["a", "Time", "TIMESTAMP"]) == "TIMESTAMP"
    assert time_column("a", ["a", "ts"]) == "a"
    with pytest.raises(BadParameter, match=r"--time: no column is named .*; the columns are a;b; is the delimiter ';'"):
        time_column(None, ["a;b"])


def test_columns_metric_and_value_make_events_of_our_own() -> None:
    (event,) = own_events(["ts", "metric", "value", "count", "model"], "ts")
    assert event == EventMap("{metric}", "{value}", count="{count}", metadata={"model": "{model}"})
    with pytest.raises(BadParameter, match="say which events a row gives, or name columns metric and value"):
        own_events(["ts", "value"], "ts")
    with pytest.raises(BadParameter, match="column 'Model Name' cannot be a metadata key"):
        own_events(["ts", "metric", "value", "Model Name"], "ts")
