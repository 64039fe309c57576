"""Times in files: every format, microseconds kept, and local times that do not exist or happen twice."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibezen.metrics.errors import BadParameter, InvalidEvent
from vibezen.metrics.producers.importer_times import time_reader

READ = time_reader("t")
NOON = datetime(2023, 11, 16, 12, tzinfo=UTC).timestamp()

moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001 - local times are meant


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2023-11-16 18:17:03.9799600", 1_700_158_623_979_960),
        ("2023-11-16T18:17:03.979960Z", 1_700_158_623_979_960),
        ("2023-11-16 18:17:03.979960999", 1_700_158_623_979_960),
        ("2023-11-16 18:17:03,979", 1_700_158_623_979_000),
        ("2023-11-16 19:17:03.979960+01:00", 1_700_158_623_979_960),
        (" 2023-11-16 18:17:03.979960 UTC ", 1_700_158_623_979_960),
        ("2023-11-16", 1_700_092_800_000_000),
        ("20231116", 1_700_092_800_000_000),
        ("1700158623.97996", 1_700_158_623_979_960),
        ("1700158623979", 1_700_158_623_979_000),
        ("1700158623979960", 1_700_158_623_979_960),
        ("1700158623979960999", 1_700_158_623_979_960),
        (1_700_158_623_979_960_999, 1_700_158_623_979_960),
        (1_700_158_623.5, 1_700_158_623_500_000),
    ],
)
def test_a_time_is_recognised_by_itself(text: Any, micros: int) -> None:
    assert READ(text) == micros / 1_000_000


@given(moments)
def test_microseconds_survive_every_format(when: datetime) -> None:
    micros = (when.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    ts = micros / 1_000_000
    assert time_reader("t", "iso")(when.isoformat(" ")) == ts
    assert time_reader("t", "unix_us")(str(micros)) == ts
    assert time_reader("t", "unix_ns")(f"{micros}999") == ts
    assert time_reader("t", "unix_ms")(f"{micros // 1000}.{micros % 1000:03}") == ts
    assert time_reader("t", "%d.%m.%Y %H:%M:%S.%f")(when.strftime("%d.%m.%Y %H:%M:%S.%f")) == ts


@given(moments, st.integers(-14 * 60, 14 * 60))
def test_a_zone_in_the_text_wins(when: datetime, minutes: int) -> None:
    aware = when.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert time_reader("t", timezone="Europe/Berlin")(aware.isoformat()) == aware.timestamp()


def test_a_time_without_zone_is_taken_in_the_one_named() -> None:
    berlin = time_reader("t", timezone="Europe/Berlin")
    assert berlin("2023-11-16 13:00") == NOON
    assert berlin("2023-07-16 14:00") == datetime(2023, 7, 16, 12, tzinfo=UTC).timestamp()


def test_a_local_time_that_does_not_exist_is_refused() -> None:
    for chosen in ("reject", "earlier", "later"):
        with pytest.raises(InvalidEvent, match=r"2023-03-26 02:30:00 does not exist in Europe/Berlin: clocks went for"):
            time_reader("t", timezone="Europe/Berlin", ambiguous=chosen)("2023-03-26 02:30")


def test_a_local_time_that_happens_twice_is_refused_unless_one_is_chosen() -> None:
    def read(ambiguous: str) -> float:
        return time_reader("t", timezone="Europe/Berlin", ambiguous=ambiguous)("2023-10-29 02:30")

    with pytest.raises(InvalidEvent, match=r"t: 2023-10-29 02:30:00 happened twice in Europe/Berlin: choose with"):
        read("reject")
    assert read("earlier") == datetime(2023, 10, 29, 0, 30, tzinfo=UTC).timestamp()
    assert read("later") == datetime(2023, 10, 29, 1, 30, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("cell", ["yesterday", "2023-13-01", "12:30", True, [], "1_700_158_623", "١٧٠٠١٥٨٦٢٣", "nan"])
def test_what_is_no_time_is_refused_with_its_column(cell: Any) -> None:
    with pytest.raises(InvalidEvent) as bad:
        READ(cell)
    assert bad.value.field == "t"


@pytest.mark.parametrize("cell", ["", "  ", None])
def test_no_time_is_told_as_such(cell: Any) -> None:
    for time_format in ("auto", "iso", "unix", "%Y"):
        with pytest.raises(InvalidEvent, match="t: has no time; history needs one"):
            time_reader("t", time_format)(cell)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"time_format": "epoch"}, "time_format: 'epoch': expected auto, iso, unix"),
        ({"time_format": "%Q"}, "time_format: '%Q': 'Q' is a bad directive"),
        ({"timezone": "Berlin"}, "timezone: 'Berlin' is not a known time zone"),
        ({"timezone": "../etc/passwd"}, "timezone: '../etc/passwd' is not a known time zone"),
        ({"ambiguous": "both"}, "ambiguous: 'both': expected reject, earlier or later"),
    ],
)
def test_a_reader_that_cannot_be_is_refused(wrong: dict[str, str], told: str) -> None:
    with pytest.raises(BadParameter) as bad:
        time_reader("t", **wrong)
    assert str(bad.value).startswith(told)
