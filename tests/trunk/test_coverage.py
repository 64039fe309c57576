"""When windows may answer for an hour: only while nothing can be missing from them."""

import pytest
from msgspec.structs import replace

from vibezen.metrics.coverage import CAUGHT_UP, Coverage, Standing, shape_of
from vibezen.metrics.settings import Aggregation, Width

POLICY = Aggregation()
NOW = 1_763_985_635.0
HOUR = 1_763_982_000


def at(seconds_ago: float) -> str:
    return f"{int((NOW - seconds_ago) * 1000)}-0"


WHOLE = Standing(floor=0.0, shape=shape_of(POLICY), shaped=0.0, position=at(1), archived=at(1))


def width(standing: Standing, archived: str = at(1), first: int = HOUR, step: int = 60, now: float = NOW) -> int | None:
    found = Coverage(POLICY, [standing], {0: archived}, now).width(first, step)
    return found.seconds if found else None


def test_complete_windows_answer_in_the_coarsest_width_the_step_is_made_of() -> None:
    assert width(WHOLE) == 60
    assert width(WHOLE, step=10) == 10
    assert width(WHOLE, step=90) == 10
    assert width(WHOLE, step=7) is None


@pytest.mark.parametrize(
    "lacking",
    [
        WHOLE._replace(floor=None),
        WHOLE._replace(floor=HOUR - 3599.0),
        WHOLE._replace(shaped=HOUR - 3599.0),
        WHOLE._replace(shape=shape_of(Aggregation(labels=("team",)))),
        WHOLE._replace(archived=None),
        WHOLE._replace(archived=at(60)),
        WHOLE._replace(position=at(60)),
    ],
    ids=["no floor", "floor", "shaped", "shape", "no archiver", "older copy", "behind"],
)
def test_windows_that_may_lack_something_do_not(lacking: Standing) -> None:
    assert width(lacking) is None


def test_floor_and_shape_are_good_an_hour_later_since_events_may_be_so_far_ahead() -> None:
    assert width(WHOLE._replace(floor=HOUR - 3600.0, shaped=HOUR - 3600.0)) == 60


def test_a_little_behind_is_no_matter_for_a_little_while() -> None:
    behind = WHOLE._replace(position=at(CAUGHT_UP))
    assert width(behind, at(1)) == 60
    assert width(behind, at(1), now=NOW + 2 * CAUGHT_UP) is None
    assert width(WHOLE, at(1), now=NOW + 600) == 60


def test_files_are_current_in_the_same_way() -> None:
    def current(archived: str, now: float = NOW) -> bool:
        return Coverage(POLICY, [WHOLE], {0: archived}, now).files_are_current

    assert current(at(1))
    assert current(at(4))
    assert not current(at(4), NOW + 600)
    assert not current(at(60))


def test_server_that_knows_fewer_shards_than_the_files_is_an_older_copy() -> None:
    assert Coverage(POLICY, [WHOLE], {0: at(1), 1: at(1)}, NOW).width(HOUR, 60) is None


def test_windows_that_were_kept_for_another_time_are_of_another_shape() -> None:
    longer = replace(POLICY, widths=(Width(seconds=10, keep_seconds=7200), Width(seconds=60, keep_seconds=999_999)))
    assert Coverage(longer, [WHOLE], {0: at(1)}, NOW).width(HOUR, 60) is None


def test_windows_about_to_expire_are_not_relied_on() -> None:
    assert width(WHOLE, first=int(NOW) - 7100, step=10) == 10
    assert width(WHOLE, first=int(NOW) - 7150, step=10) is None
    assert width(WHOLE._replace(position=at(-100)), first=int(NOW) - 7100, step=10) is None
