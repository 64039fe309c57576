from datetime import UTC, datetime
from itertools import pairwise

import pytest

from tests.support.serving import NOW
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.question import Question, parse_question, parse_time, parse_zone
from vibezen.metrics.settings import Settings

HOUR = 3600


def ask(**parameters: str) -> Question:
    return parse_question({"metric": "response_time", **parameters}, Settings(), NOW)


def test_without_a_range_it_is_the_last_hour() -> None:
    plan = ask().plan
    assert (plan.start, plan.stop, plan.step) == (int(NOW) - 5 - HOUR, int(NOW) + 5, 10)


@pytest.mark.parametrize(
    ("metric", "aggregate"),
    [("response_time", "p50"), ("tokens", "sum"), ("concurrency", "last"), ("error_rate", "mean"), ("other", "p50")],
)
def test_without_an_aggregate_it_is_the_one_that_suits_the_kind(metric: str, aggregate: str) -> None:
    assert ask(metric=metric).aggregates == (aggregate,)


def test_lists_are_taken_in_order_and_once() -> None:
    question = ask(agg="p95, count,p95", group_by="model,provider")
    assert question.aggregates == ("p95", "count")
    assert question.group_by == ("model", "provider")


@pytest.mark.parametrize(
    ("text", "seconds"), [("60", 60), ("60s", 60), ("5m", 300), ("1h", 3600), ("1d", 86_400), ("auto", 10)]
)
def test_step_is_a_length(text: str, seconds: int) -> None:
    assert ask(step=text).plan.step == seconds


ISO = datetime(2025, 11, 24, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("now-90s", NOW - 90),
        ("now-15m", NOW - 900),
        ("now-1h", NOW - HOUR),
        ("now-2d", NOW - 48 * HOUR),
        ("now-1w", NOW - 168 * HOUR),
        ("1763985600", 1_763_985_600.0),
        ("1763985600.25", 1_763_985_600.25),
        ("1763985600250", 1_763_985_600.25),
        ("2025-11-24T12:00:00Z", ISO),
        ("2025-11-24T12:00:00", ISO),
        ("2025-11-24 12:00:00", ISO),
        ("2025-11-24T13:00:00+01:00", ISO),
        ("2025-11-24T13:00:00 01:00", ISO),
        ("2025-11-24", ISO - 12 * HOUR),
    ],
)
def test_times_come_in_several_spellings(text: str, expected: float) -> None:
    assert parse_time("from", text, NOW) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metric", ""),
        ("metric", "Response-Time"),
        ("metric", "response_time\n"),
        ("metric", 'x"}*'),
        ("from", "tomorrow"),
        ("from", "now/s"),
        ("from", "now-1h/y"),
        ("from", "today/d"),
        ("from", "now+1h"),
        ("from", "now-1y"),
        ("from", "now\n"),
        ("from", "nan"),
        ("from", "-5"),
        ("from", "0"),
        ("from", "9" * 16),
        ("from", "0001-01-01"),
        ("from", "now"),
        ("to", "now-1h"),
        ("to", "2025-13-01"),
        ("to", "now-999999999w"),
        ("step", "0"),
        ("step", "-10"),
        ("step", "1.5"),
        ("step", "fast"),
        ("step", "999999999w"),
        ("group_by", "User"),
        ("group_by", 'provider"; drop table events'),
        ("group_by", "provider,provider"),
        ("group_by", "a,b,c,d,e,f,g,h,i"),
        ("top", "3"),
        ("tz", "Europe/Atlantis"),
        ("tz", "Europe"),
        ("tz", "../etc/passwd"),
        ("tz", "/etc/passwd"),
        ("tz", "right/UTC"),
        ("tz", "localtime"),
        ("tz", "+25:00"),
        ("tz", "+05:75"),
        ("tz", "x" * 5000),
        ("tz", "Europe/Berlin\0"),
        ("agg", "median"),
        ("agg", "p50,P95"),
        ("agg", "histogram()"),
        ("where", "provider"),
        ("where", "=openai"),
        ("where", "Provider=openai"),
        ("where", 'provider"=openai'),
        ("exact", "yes"),
        ("Metric", "cost"),
    ],
)
def test_bad_parameter_is_named(field: str, value: str) -> None:
    with pytest.raises(BadParameter) as caught:
        ask(**{field: value})
    expected = "from" if (field, value) == ("to", "now-1h") else field
    assert caught.value.field == expected
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(f"{expected}:") == 1


def test_step_that_gives_too_many_points_is_refused() -> None:
    with pytest.raises(BadParameter, match="at most 1500"):
        ask(**{"from": "now-1d", "step": "10"})


def test_conditions_are_about_any_metadata_key_and_hold_together() -> None:
    question = parse_question(
        {"metric": "cost", "where": ["provider=openai", "session!=a=b", "user.name="]}, Settings(), NOW
    )
    assert question.where == (
        Condition("provider", "openai"),
        Condition("session", "a=b", negated=True),
        Condition("user.name", ""),
    )
    assert [condition.holds(None) for condition in question.where] == [False, True, False]
    assert [condition.holds("a=b") for condition in question.where] == [False, False, False]


@pytest.mark.parametrize("name", ["metric", "from", "agg", "exact", "tz", "top"])
def test_only_conditions_may_be_given_more_than_once(name: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parse_question({"metric": "cost", name: ["1", "1"]}, Settings(), NOW)
    assert caught.value.field == name


def test_groups_may_be_by_any_metadata_key_and_some_of_them_be_asked_for() -> None:
    question = ask(group_by="session, user.name", top="5")
    assert (question.group_by, question.top) == (("session", "user.name"), 5)
    for top in ("0", "-1", "1001", "all"):
        with pytest.raises(BadParameter) as caught:
            ask(group_by="session", top=top)
        assert caught.value.field == "top"


BERLIN = "Europe/Berlin"


def told(text: str, tz: str, now: str = "2025-11-24T12:00:35Z") -> str:
    """What a time means, as a clock in that zone shows it."""
    zone = parse_zone(tz)
    found = parse_time("from", text, datetime.fromisoformat(now).timestamp(), zone)
    return datetime.fromtimestamp(found, zone.rules).isoformat()


@pytest.mark.parametrize(
    ("text", "tz", "now", "expected"),
    [
        ("2025-11-24", BERLIN, None, "2025-11-24T00:00:00+01:00"),
        ("2025-11-24T12:00:00Z", BERLIN, None, "2025-11-24T13:00:00+01:00"),
        ("2025-07-01T12:30:00", "+05:30", None, "2025-07-01T12:30:00+05:30"),
        ("today", BERLIN, None, "2025-11-24T00:00:00+01:00"),
        ("today", BERLIN, "2025-11-24T23:30:00Z", "2025-11-25T00:00:00+01:00"),
        ("yesterday", "America/New_York", None, "2025-11-23T00:00:00-05:00"),
        ("now/h", "+05:30", None, "2025-11-24T17:00:00+05:30"),
        ("now/w", BERLIN, None, "2025-11-24T00:00:00+01:00"),
        ("now-1w/w", "UTC", "2025-11-23T23:00:00Z", "2025-11-10T00:00:00+00:00"),
        # The night of 26 October 2025 had 25 hours in Berlin, that of 30 March 23.
        ("now-1d", BERLIN, "2025-10-26T12:00:00Z", "2025-10-25T13:00:00+02:00"),
        ("now-1d/d", BERLIN, "2025-10-26T22:30:00Z", "2025-10-25T00:00:00+02:00"),
        ("now-24h/d", BERLIN, "2025-10-26T22:30:00Z", "2025-10-26T00:00:00+02:00"),
        ("now-1d", BERLIN, "2025-03-30T12:00:00Z", "2025-03-29T14:00:00+01:00"),
    ],
)
def test_times_are_those_of_the_zone(text: str, tz: str, now: str | None, expected: str) -> None:
    assert (told(text, tz, now) if now else told(text, tz)) == expected


def test_steps_are_those_of_the_zone() -> None:
    question = ask(**{"from": "2025-10-20", "to": "2025-10-27", "step": "1d", "tz": BERLIN})
    lengths = [after - before for before, after in pairwise((*question.plan.steps(), question.plan.stop))]
    assert (question.tz, lengths) == (BERLIN, [24 * HOUR] * 6 + [25 * HOUR])
    for zone, name in (("+0530", "+05:30"), (" 05:30", "+05:30"), ("UTC-03", "-03:00"), ("Z", "UTC"), ("", "UTC")):
        assert ask(tz=zone).tz == name
