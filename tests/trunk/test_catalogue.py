"""The metrics known by name, as the contract lists them."""

import pytest

from vibezen.metrics.catalogue import BUILT_IN, UNKNOWN, Better, Catalogue, Family, Kind, MetricSpec, MetricType
from vibezen.metrics.event import is_name

CONTRACT = """
response_time        system       ms         distribution  lower
time_to_first_token  system       ms         distribution  lower
error_rate           system       0-1        ratio         lower
cache_hit_rate       system       0-1        ratio         higher
api_calls            system       1          counter       neither
tool_calls           system       1          counter       neither
thinking_steps       quality      steps      distribution  neither
confidence_score     quality      0-1        distribution  higher
revision_count       quality      revisions  distribution  lower
violations           quality      1          counter       lower
acceptance_rate      quality      0-1        ratio         higher
tokens               performance  tokens     counter       lower
cost                 performance  USD        counter       lower
concurrency          performance  1          gauge         lower
queue_depth          performance  1          gauge         lower
lines_of_code        performance  lines      counter       neither
commits              performance  1          counter       neither
pull_requests        performance  1          counter       neither
active_time          performance  s          counter       neither
sessions             performance  1          counter       neither
vibezen.events_dropped system     1          counter       lower
"""
ROWS = [line.split() for line in CONTRACT.split("\n") if line]


@pytest.mark.parametrize(("name", "family", "unit", "kind", "better"), ROWS, ids=[row[0] for row in ROWS])
def test_metric_is_what_the_contract_says(name: str, family: str, unit: str, kind: str, better: str) -> None:
    assert BUILT_IN[name] == MetricSpec(Family(family), unit, Kind(kind), Better(better))
    assert str(MetricType[name.removeprefix("vibezen.").upper()]) == name
    assert is_name(name)


def test_every_metric_of_the_code_is_in_the_contract() -> None:
    names = [row[0] for row in ROWS]
    assert list(BUILT_IN) == names
    assert [str(metric) for metric in MetricType] == names
    assert Catalogue().names() == sorted(names)


def test_metric_nobody_declared_is_taken_for_a_distribution() -> None:
    catalogue = Catalogue()
    assert catalogue["http.server.duration"] == UNKNOWN == MetricSpec(kind=Kind.DISTRIBUTION)
    assert "http.server.duration" not in catalogue
    assert "response_time" in catalogue


def test_declared_metric_wins_over_the_built_in_one_and_leaves_the_others() -> None:
    declared = {"builds": MetricSpec(unit="1", kind=Kind.GAUGE), "response_time": MetricSpec(unit="s")}
    catalogue = Catalogue(declared)
    assert (catalogue["builds"].kind, catalogue["response_time"].unit) == (Kind.GAUGE, "s")
    assert catalogue["tokens"] == BUILT_IN["tokens"]
    assert "builds" in catalogue.names()
    assert Catalogue()["response_time"].unit == "ms"


def test_gauges_are_those_of_kind_gauge() -> None:
    assert Catalogue().gauges() == {"concurrency", "queue_depth"}
    assert Catalogue({"queue_depth": MetricSpec()}).gauges() == {"concurrency"}


def test_built_in_metrics_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        BUILT_IN["mine"] = UNKNOWN  # type: ignore[index]
    with pytest.raises(AttributeError):
        BUILT_IN["tokens"].unit = "s"  # type: ignore[misc]
