"""`GET /api/replay`: what was recorded, as frames, in order, resumed where a client was, never faster than it reads."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import stored
from tests.support.feeding import NOON, event
from tests.support.serving import Json, Served, StartDashboard, _events, dashboard_in_thread
from tests.support.waiting import WaitUntil
from vibezen.metrics.api import replay
from vibezen.metrics.api.recording import parse_recording
from vibezen.metrics.clock import HOUR
from vibezen.metrics.layout import Layout
from vibezen.metrics.serving import listener

pytestmark = pytest.mark.server

NOW = NOON + 10 * HOUR
RANGE = {"from": str(int(NOON)), "to": str(int(NOON) + 2 * HOUR), "speed": "max"}


@pytest.fixture
def past(redis_url: str, start_dashboard: StartDashboard, tmp_path: Path) -> Served:
    """An API over two hours that are in files: a minute at the beginning of each, of one hour compacted."""
    served = start_dashboard(redis_url, clock=lambda: NOW)
    layout = Layout(tmp_path / "store-0")
    first = [event(value, NOON + value) for value in range(60)]
    gauges = [event(3, NOON + 5, "concurrency", producer=name) for name in ("a", "b")]
    costs = [event(0.5, NOON + 31, "cost", provider="openai")]
    stored.archive(layout, [*first, *gauges, *costs])
    stored.compact_hour(layout, int(NOON))
    stored.archive(layout, [event(1000 + value, NOON + HOUR + value) for value in range(60)])
    return served


@contextmanager
def replaying(served: Served, last: str | None = None, **parameters: str) -> Iterator[Iterator[Json]]:
    headers = {} if last is None else {"last-event-id": last}
    with served.http.stream("GET", "/api/replay", params={**RANGE, **parameters}, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        yield _events(answer.iter_lines())


def replayed(served: Served, last: str | None = None, **parameters: str) -> list[Json]:
    with replaying(served, last, **parameters) as messages:
        return list(messages)


def kinds(messages: list[Json]) -> list[str]:
    return [message["type"] for message in messages]


def frames(messages: list[Json]) -> list[Json]:
    return [message for message in messages if message["type"] == "frame"]


def test_each_recorded_window_is_one_frame_in_order_and_an_end_follows(past: Served) -> None:
    messages = replayed(past)
    assert kinds(messages) == ["snapshot", *["frame"] * 12, "end"]
    windows = [window for frame in frames(messages) for window in frame["windows"]]
    starts = [int(NOON) + HOUR * hour + 10 * number for hour in range(2) for number in range(6)]
    assert [window["start"] for window in windows] == starts
    assert [window["metrics"]["response_time"]["count"] for window in windows] == [10] * 12
    assert windows[0]["metrics"]["response_time"] | {"p50": 0, "p95": 0, "p99": 0} == {
        **{"count": 10, "sum": 45.0, "min": 0.0, "max": 9.0, "last": 9.0},
        **{"p50": 0, "p95": 0, "p99": 0},
    }
    assert windows[0]["metrics"]["response_time"]["p50"] == pytest.approx(4.5, rel=0.13)
    assert [message["sse_id"] for message in messages] == [message["id"] for message in messages]
    assert [frame["id"] for frame in frames(messages)] == [f"replay-{start + 10}" for start in starts]
    assert messages[-1] | {"sse_id": 0, "sse_event": 0} == {
        **{"type": "end", "id": f"replay-{RANGE['to']}", "at": NOON + 2 * HOUR},
        **{"sse_id": 0, "sse_event": 0},
    }


def test_a_frame_tells_the_present_of_the_recording(past: Served) -> None:
    last = frames(replayed(past))[5]
    told = last["realtime"]["metrics"]["response_time"]
    assert (last["at"], last["realtime"]["at"], told["count"]) == (NOON + 60, NOON + 60, 60)
    assert last["realtime"]["as_of"] == NOON + 59


def test_the_newest_value_of_a_gauge_is_the_sum_over_its_series(past: Served) -> None:
    first = frames(replayed(past))[0]
    assert first["windows"][0]["metrics"]["concurrency"]["last"] == 6


def test_metric_and_conditions_choose(past: Served) -> None:
    windows = [window for frame in frames(replayed(past, metric="cost")) for window in frame["windows"]]
    assert [list(window["metrics"]) for window in windows] == [["cost"]]
    assert len(frames(replayed(past, where="provider=openai"))) == 1
    assert len(frames(replayed(past, step="60", metric="response_time"))) == 2


@pytest.mark.parametrize("way", ["last-event-id", "since"])
def test_a_client_goes_on_where_it_was_and_sees_every_window_once(past: Served, way: str) -> None:
    whole = replayed(past)
    for seen in (1, 4, 7, 12):
        last = whole[seen]["id"]
        rest = replayed(past, last) if way == "last-event-id" else replayed(past, since=last)
        assert rest == whole[seen + 1 :], "also the numbers of the present, which need the windows before"


def test_a_position_that_never_was_is_a_gap_and_a_replay_from_the_beginning(past: Served) -> None:
    for last in (
        "1-0_0-0",
        "replay-7",
        f"replay-{int(NOON) + 5}",
        f"replay-{int(NOON) + 3 * HOUR}",
        "replay-99999999999999999999",
        "\x7f",
    ):
        messages = replayed(past, since=last)
        assert kinds(messages) == ["gap", "snapshot", *["frame"] * 12, "end"]
        assert messages[0]["to"] == messages[1]["id"]


def test_whoever_has_seen_the_end_is_told_not_to_come_again(past: Served) -> None:
    last = replayed(past)[-1]["id"]
    answer = past.http.get("/api/replay", params=RANGE, headers={"last-event-id": last})
    assert (answer.status_code, answer.content) == (204, b"")


def test_bad_parameters_are_named(past: Served) -> None:
    for field, value in (
        *(("speed", value) for value in ("0", "0.5", "1001", "inf", "nan", "fast", "-1", "1e3", "٣")),
        *(("step", value) for value in ("0", "7", "7200", "10s", "1.5", "-10")),
        *(("metric", "A b"), ("where", "x"), ("tz", "Mars/Olympus"), ("from", "2001"), ("pace", "1")),
    ):
        status, error = past.refused("/api/replay", **{**RANGE, field: value})
        assert (status, error["field"]) == (400, field), value
    assert past.refused("/api/replay", **{"from": str(NOW + 50), "to": str(NOW + 60)})[1]["field"] == "from"


def test_so_many_at_a_time_and_a_client_that_goes_makes_room(past: Served, wait_until: WaitUntil) -> None:
    def status() -> int:
        with past.http.stream("GET", "/api/replay", params={**RANGE, "speed": "1"}) as answer:
            return answer.status_code

    with httpx.Client(base_url=past.url) as client:
        open_ones = []
        for _ in range(replay.REPLAYS):
            request = client.build_request("GET", "/api/replay", params={**RANGE, "speed": "1"})
            answer = client.send(request, stream=True)
            assert answer.status_code == 200
            lines = answer.iter_lines()
            next(lines)
            open_ones.append((answer, lines))
        assert past.refused("/api/replay", **RANGE)[0] == 503
        for answer, _ in open_ones:
            answer.close()
    wait_until(lambda: status() == 200)


def test_closing_the_server_cuts_replays_without_their_end(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "GRACEFUL_SECONDS", 1000)  # what is not ended would be waited for
    with ExitStack() as rest:
        with dashboard_in_thread(redis_url, tmp_path / "store", lambda: NOW) as served:
            client = rest.enter_context(httpx.Client(base_url=served.url))
            request = client.build_request("GET", "/api/replay", params={**RANGE, "speed": "1"})
            answer = client.send(request, stream=True)
            messages = _events(answer.iter_lines())
            assert next(messages)["type"] == "snapshot"
        with pytest.raises(httpx.RemoteProtocolError):
            next(messages)
        answer.close()


def test_a_client_that_does_not_read_holds_no_place_for_ever(
    past: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr(replay, "STUCK", 0.3)
    monkeypatch.setattr(replay, "REPLAYS", 1)
    many = [event(1, NOON + HOUR + second, f"metric_{name}") for second in range(0, 3600, 10) for name in range(20)]
    stored.archive(Layout(tmp_path / "store-0"), many)
    query = "&".join(f"{name}={value}" for name, value in RANGE.items())
    with socket.create_connection(("127.0.0.1", past.port)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(f"GET /api/replay?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: past.http.head("/api/replay", params=RANGE).status_code == 503)
        wait_until(lambda: past.http.head("/api/replay", params=RANGE).status_code == 200)


@settings(max_examples=40)
@given(st.integers(0, 5 * HOUR), st.integers(1, 50 * HOUR), st.sampled_from([1, 10, 60, 3600]), st.integers(0, 5000))
def test_the_pieces_of_a_range_follow_each_other_to_its_end(offset: int, length: int, step: int, seen: int) -> None:
    since, until = NOON + offset, NOON + offset + length
    asked: Any = {"from": str(since), "to": str(until), "step": str(step)}
    recording = parse_recording(asked, None, NOON + 10**6)
    position = min(recording.start + seen * step, recording.stop)
    recording = parse_recording(asked, f"replay-{position}", NOON + 10**6)
    pieces = list(recording.spans())
    assert recording.start <= since
    assert recording.stop >= until
    if recording.is_over:
        return
    assert pieces[0][0] == recording.warm_up <= position
    assert pieces[-1][1] == recording.stop
    assert all(before[1] == after[0] for before, after in pairwise(pieces))
    assert all(0 < stop - start <= HOUR and start // HOUR == (stop - 1) // HOUR for start, stop in pieces)
