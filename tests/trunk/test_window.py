"""Windows: sums beside exact arithmetic, and merging in any order and grouping."""

import math
import random
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibezen.metrics.errors import MetricsError
from vibezen.metrics.window import BLOB_VERSION, Window, from_blob, merged, sum_of, to_blob, window_of

LAW = settings(deadline=None, max_examples=150, database=None)
EPSILON = 2.0**-52

all_finite = st.floats(allow_nan=False, allow_infinity=False)
usual = st.floats(-1e12, 1e12)
times = st.floats(1_763_930_000, 1_763_930_060).map(lambda ts: round(ts, 6))
weights = st.sampled_from([1, 1, 1, 7, 2**32, 1 / 0.3, 10.0])
samples = st.tuples(usual, weights, times)


def window(*samples: tuple[float, float, float]) -> Window:
    """The window of these (value, weight, time), added one by one."""
    result = Window()
    for value, weight, ts in samples:
        result.add(value, weight, ts)
    return result


def counts(found: Window) -> tuple[object, ...]:
    """What must be equal to the last digit, where weights are whole."""
    return (found.count, found.min, found.max, found.zero, found.positive, found.negative)


def assert_same(found: Window, wanted: Window) -> None:
    """Equal but for rounding: of weights that are not whole, and of the sum."""
    assert (found.min, found.max, found.last_ts) == (wanted.min, wanted.max, wanted.last_ts)
    assert found.count == pytest.approx(wanted.count, rel=1e-12)
    assert found.zero == pytest.approx(wanted.zero, rel=1e-12)
    assert found.positive == pytest.approx(wanted.positive, rel=1e-12)
    assert found.negative == pytest.approx(wanted.negative, rel=1e-12)


def assert_sum(found: float, terms: Sequence[Fraction]) -> None:
    """Within 1e-9 of the exact sum, or of rounding itself where nearly everything cancels out."""
    exact = sum(terms, Fraction())
    size = sum(map(abs, terms), Fraction())
    # Neumaier: one rounding of the result, and second-order errors of the terms.
    allowed = abs(exact) * Fraction(1e-9) + size * len(terms) ** 2 * Fraction(EPSILON) ** 2
    assert abs(Fraction(found) - exact) <= allowed


def test_empty_window_has_no_mean_and_no_percentiles() -> None:
    empty = Window()
    assert (empty.count, empty.sum, empty.mean, empty.distribution().quantile(0.5)) == (0, 0.0, None, None)


def test_window_holds_what_was_added() -> None:
    found = window((3.0, 1, 10.0), (-1.0, 1, 12.0), (0.0, 1, 11.0))
    assert (found.count, found.sum, found.mean, found.min, found.max) == (3, 2.0, 2 / 3, -1.0, 3.0)
    assert (found.last, found.last_ts) == (-1.0, 12.0)
    assert (found.zero, sum(found.positive.values()), sum(found.negative.values())) == (1, 1, 1)


def test_weight_scales_counts_and_sums_and_not_extremes() -> None:
    found = window((2.0, 10, 1.0), (-4.0, 2.5, 2.0))
    assert (found.count, found.sum, found.min, found.max, found.last) == (12.5, 10.0, -4.0, 2.0, -4.0)
    assert (list(found.positive.values()), list(found.negative.values())) == ([10], [2.5])


def test_counts_stay_whole_while_nothing_is_sampled() -> None:
    found = merged([window((1.0, 2**32, 1.0))] * 1000)
    assert found.count == 1000 * 2**32
    assert isinstance(found.count, int)


def test_of_samples_at_one_time_the_one_added_last_is_the_last() -> None:
    assert window((1.0, 1, 5.0), (2.0, 1, 5.0), (3.0, 1, 4.0)).last == 2.0
    assert window_of([1.0, 2.0, 3.0], [5.0, 5.0, 4.0]).last == 2.0
    assert merged([window((1.0, 1, 5.0)), window((2.0, 1, 5.0)), window((3.0, 1, 4.0))]).last == 2.0


@LAW
@given(st.lists(st.tuples(usual | all_finite.filter(lambda v: abs(v) < 1e300), times), min_size=1, max_size=40))
def test_window_of_many_is_that_of_each_added(pairs: list[tuple[float, float]]) -> None:
    values, at = [value for value, _ in pairs], [ts for _, ts in pairs]
    whole, one_by_one = window_of(values, at), window(*((value, 1, ts) for value, ts in pairs))
    assert counts(whole) == counts(one_by_one)
    assert (whole.last, whole.last_ts) == (one_by_one.last, one_by_one.last_ts)
    assert_sum(whole.sum, [Fraction(value) for value in values])
    assert_sum(one_by_one.sum, [Fraction(value) for value in values])


@LAW
@given(st.lists(samples, max_size=30), st.randoms(use_true_random=False), st.integers(1, 6))
def test_windows_merge_in_any_order_and_grouping(
    parts: list[tuple[float, float, float]], source: random.Random, groups: int
) -> None:
    whole = window(*parts)
    source.shuffle(parts)
    grouped = merged(merged(window(part) for part in parts[group::groups]) for group in range(groups))
    assert_same(grouped, whole)
    assert_sum(whole.sum, [Fraction(value * weight) for value, weight, _ in parts])
    assert_sum(grouped.sum, [Fraction(value * weight) for value, weight, _ in parts])


@LAW
@given(st.lists(st.lists(st.tuples(all_finite, st.integers(1, 2**32), times), max_size=8), min_size=3, max_size=3))
def test_merging_is_commutative_and_associative_to_the_last_count(
    parts: list[list[tuple[float, float, float]]],
) -> None:
    a, b, c = (window(*part) for part in parts)
    assert counts(merged([a, b])) == counts(merged([b, a]))
    assert counts(merged([merged([a, b]), c])) == counts(merged([a, merged([b, c])]))


@LAW
@given(st.lists(samples, min_size=1, max_size=8))
def test_merging_leaves_what_is_merged_as_it_was(parts: list[tuple[float, float, float]]) -> None:
    into, other = window(*parts), window(*parts)
    before = to_blob(other)
    into.merge(other)
    into.merge(other)
    assert to_blob(other) == before


CANCELLING = [
    [1e16, 1.0, -1e16] * 1000,
    [1.0, 1e100, 1.0, -1e100] * 500,
    [0.1] * 10_000,
    [1e15 + 0.5, -1e15, 1e-9] * 3000,
    [(-1) ** n * (1e12 + n / 7) for n in range(10_000)],
    [2.0 ** (n % 50) for n in range(5000)] + [-(2.0 ** (n % 50)) for n in range(5000)] + [math.pi],
]


@pytest.mark.parametrize("values", CANCELLING, ids=range(len(CANCELLING)))
def test_sum_of_values_that_cancel_is_that_of_fsum(values: list[float]) -> None:
    chunks = [values[start : start + 7] for start in range(0, len(values), 7)]
    exact = math.fsum(values)
    for found in (
        window(*((value, 1, 0.0) for value in values)),
        merged(window_of(chunk, [0.0] * len(chunk)) for chunk in chunks),
        merged(window(*((value, 1, 0.0) for value in chunk)) for chunk in reversed(chunks)),
    ):
        assert math.isclose(found.sum, exact, rel_tol=1e-9)


def test_sum_does_not_depend_on_the_order_of_batches() -> None:
    source = random.Random(7)
    batches = [[source.lognormvariate(3, 4) * source.choice((1, -1)) for _ in range(50)] for _ in range(200)]
    exact = math.fsum(value for batch in batches for value in batch)
    for _ in range(5):
        source.shuffle(batches)
        assert math.isclose(merged(window_of(b, [0.0] * 50) for b in batches).sum, exact, rel_tol=1e-12)


@LAW
@given(st.lists(st.tuples(all_finite, weights, times), min_size=1, max_size=20), st.floats(0, 1))
def test_no_value_and_no_weight_raise(parts: list[tuple[float, float, float]], q: float) -> None:
    values = [value for value, _, _ in parts]
    for found in (window(*parts), window_of(values, [0.0] * len(values)), merged(window(part) for part in parts)):
        quantile = found.distribution().quantile(q)
        assert quantile is not None
        assert found.min <= quantile <= found.max
        assert from_blob(to_blob(found)).count == found.count


HUGE = 1.7e308


@pytest.mark.parametrize(
    ("values", "total"),
    [
        ([HUGE, HUGE], math.inf),
        ([-HUGE, -HUGE, 1.0], -math.inf),
        ([HUGE, 1.0], HUGE),
        ([HUGE, -HUGE], 0.0),
    ],
)
def test_sum_beyond_a_double_is_infinite(values: list[float], total: float) -> None:
    at = [0.0] * len(values)
    one_by_one = window(*((value, 1, 0.0) for value in values))
    assert one_by_one.sum == total
    assert window_of(values, at).sum == total
    assert sum_of(values) == total
    assert merged(window_of([value], [0.0]) for value in values).sum == total
    assert from_blob(to_blob(one_by_one)).sum == total
    one_by_one.merge(Window())
    one_by_one.merge(window((1.0, 1, 0.0)))
    assert one_by_one.sum == pytest.approx(total + 1)


def test_value_whose_weight_is_too_much_for_a_double_makes_the_sum_infinite() -> None:
    found = window((HUGE, 2**32, 0.0))
    assert (found.count, found.sum, found.mean, found.max) == (2**32, math.inf, math.inf, HUGE)


@LAW
@given(st.lists(st.tuples(all_finite, weights, times), max_size=20))
def test_window_comes_back_from_its_blob_as_it_was(parts: list[tuple[float, float, float]]) -> None:
    wanted = window(*parts)
    found = from_blob(to_blob(wanted))
    assert to_blob(found) == to_blob(wanted)
    assert counts(found) == counts(wanted)
    assert (found.last, found.last_ts) == (wanted.last, wanted.last_ts)
    assert type(found.count) is type(wanted.count)
    found.add(1.0, 1, 0.0)  # and can be gone on with
    assert found.count == wanted.count + 1


def test_most_events_a_window_could_see_fit_into_its_blob() -> None:
    found = window(*((1.0, 2**32, 0.0) for _ in range(1000)))
    for _ in range(20):
        found.merge(from_blob(to_blob(found)))
    assert from_blob(to_blob(found)).count == 1000 * 2**32 * 2**20


@pytest.mark.parametrize("version", [b"", b"\x00", b"\x02", b"\xff", b"{"])
def test_blob_of_an_unknown_version_is_refused(version: bytes) -> None:
    with pytest.raises(MetricsError, match=f"has format {version.hex()}, this version reads 01"):
        from_blob(version + to_blob(Window())[1:] if version else b"")


def test_torn_blob_is_refused() -> None:
    blob = to_blob(window((1.5, 1, 10.0), (-2.0, 3, 11.0)))
    assert blob[:1] == BLOB_VERSION
    for length in range(1, len(blob)):
        with pytest.raises(MetricsError, match="damaged"):
            from_blob(blob[:length])
