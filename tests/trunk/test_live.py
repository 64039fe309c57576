"""Live frames: what is sent is what arrives, and what is not ours is refused."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibezen.metrics.errors import MetricsError
from vibezen.metrics.live import FRAME_VERSION, Change, Frame, decode_frame, encode_frame
from vibezen.metrics.series import series_key
from vibezen.metrics.window import Window, window_of

LAW = settings(deadline=None, max_examples=60, database=None)
values = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8)
starts = st.integers(946_684_800, 2**40)
times = st.none() | st.floats(946_684_800, 2**40)
changes = st.builds(
    Change,
    starts,
    st.builds(series_key, st.sampled_from(["m", "tokens"]), st.dictionaries(st.just("model"), st.text(max_size=4))),
    values.map(lambda found: window_of(found, [1_763_930_000.0] * len(found))),
)


@LAW
@given(st.builds(Frame, st.integers(0, 100), st.sampled_from([10, 60]), st.lists(changes, max_size=3), times, times))
def test_frame_comes_back_as_it_was(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


def test_frame_without_live_events_says_so() -> None:
    frame = decode_frame(encode_frame(Frame(0, 10, [Change(0, "{}", Window())])))
    assert (frame.oldest, frame.newest) == (None, None)
    assert frame.changes[0].window.min == math.inf


@pytest.mark.parametrize("version", [b"\x00", b"\x02", b"\xff"])
def test_frame_of_an_unknown_version_is_refused(version: bytes) -> None:
    with pytest.raises(MetricsError, match=f"has format {version.hex()}, this version reads 01"):
        decode_frame(version + encode_frame(Frame(0, 10, []))[1:])
    with pytest.raises(MetricsError):
        decode_frame(b"")


def test_torn_frame_is_refused() -> None:
    data = encode_frame(Frame(0, 10, [Change(10, "{}", window_of([1.0, -2.0], [3.0, 4.0]))], 1.0, 2.0))
    assert data[:1] == FRAME_VERSION
    for length in range(1, len(data)):
        with pytest.raises(MetricsError, match="damaged"):
            decode_frame(data[:length])
