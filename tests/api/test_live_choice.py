"""What clients of the live feed choose, over a real server, where it is always NOW."""

import json
from collections.abc import Callable

import pytest

from tests.support.serving import NOW, OPEN, Json, Served, StartDashboard, Windows, samples
from tests.support.waiting import WaitUntil
from vibezen.metrics.api import channel
from vibezen.metrics.api.selection import MAX_GROUPS
from vibezen.metrics.settings import Live

pytestmark = pytest.mark.server


def commit(windows: Windows, metric: str, *values: float, **labels: str) -> str:
    return windows.commit(OPEN, metric, samples(*values, at=NOW), 0, **labels) + "_0-0"


Settle = Callable[[str], None]


@pytest.fixture
def settle(served: Served, wait_until: WaitUntil) -> Settle:
    """Wait until the API has told all up to a position."""

    def settle(position: str) -> None:
        wait_until(lambda: str(served.hub.position) == position and not served.hub._state.unsent.slots)

    return settle


def open_window(message: Json) -> Json:
    (window,) = (window for window in message["windows"] if window["start"] == OPEN)
    found: Json = window
    return found


def test_only_chosen_metrics_are_told(served: Served, windows: Windows, settle: Settle) -> None:
    commit(windows, "cost", 1)
    settle(commit(windows, "tokens", 1))
    with served.socket(choice="metric=cost") as one, served.events(choice="metric=cost") as events:
        first = one.next()
        assert list(open_window(first)["metrics"]) == list(first["realtime"]["metrics"]) == ["cost"]
        commit(windows, "tokens", 1, 2)
        windows.alert(0)  # another frame, then
        position = commit(windows, "cost", 1, 2)
        frame = one.until(lambda message: message["type"] == "frame")[-1]
        assert list(open_window(frame)["metrics"]) == list(frame["realtime"]["metrics"]) == ["cost"]
        assert frame["id"].startswith(position.partition("_")[0])
        assert next(events)["type"] == "snapshot"


def test_conditions_choose_series_and_silence_the_others(served: Served, windows: Windows, settle: Settle) -> None:
    commit(windows, "cost", 1, provider="a")
    settle(commit(windows, "cost", 10, 10, provider="b"))
    with served.socket(choice="where=provider=b") as one, served.socket() as all_of_it:
        first = one.next()
        all_of_it.next()
        assert open_window(first)["metrics"]["cost"]["sum"] == 20
        assert first["realtime"]["metrics"]["cost"]["sum"] == 20
        # The first change may be told, the second one is none: the series that is meant stays as it was.
        for number in (2, 3):
            all_of_it.until_id(commit(windows, "cost", *[1] * number, provider="a"))
        all_of_it.until_id(position := commit(windows, "cost", 10, 10, 10, provider="b"))
        messages = one.until_id(position)
        assert len(messages) <= 2
        assert open_window(messages[-1])["metrics"]["cost"]["sum"] == 30


def test_series_are_told_apart_and_bounded(served: Served, windows: Windows, settle: Settle) -> None:
    for number in range(MAX_GROUPS + 3):
        commit(windows, "tokens", *[2] * (number + 1), provider=f"p{number:02}", model="m")
    settle(commit(windows, "tokens", 1))
    with served.socket(choice="metric=tokens&group_by=provider") as one:
        window = open_window(one.next())
        groups = window["groups"]["tokens"]
        assert len(groups) == MAX_GROUPS
        assert window["omitted"] == {"tokens": 4}
        assert groups[0] == {**groups[0], "labels": {"provider": "p22"}, "count": 23, "sum": 46}
        assert window["metrics"]["tokens"]["count"] == sum(range(24)) + 1
        position = commit(windows, "tokens", *[2] * 100, provider="p05", model="m")
        window = open_window(one.until_id(position)[-1])
        assert window["groups"]["tokens"][0]["labels"] == {"provider": "p05"}
    with served.socket(choice="metric=tokens&group_by=provider&where=model!=m") as one:
        window = open_window(one.next())
        assert [group["labels"] for group in window["groups"]["tokens"]] == [{}]
        assert "omitted" not in window


def test_slow_client_gets_one_frame_for_all_that_changed(served: Served, windows: Windows) -> None:
    with served.socket(choice="interval=10") as slow, served.socket() as quick:
        slow.next(), quick.next()
        quick.until_id(position := commit(windows, "cost", 1))
        assert slow.next()["id"] == position, "the first one need not wait"
        for metric in ("tokens", "api_calls", "commits"):
            quick.until_id(position := commit(windows, metric, 1))
        alert = windows.alert(1)  # which is told at once, and never before what happened before it
        frame, told = slow.next(), slow.next()
        assert (frame["type"], frame["id"]) == ("frame", position)
        assert set(open_window(frame)["metrics"]) == {"tokens", "api_calls", "commits"}
        assert told == {"type": "alert", "id": position.partition("_")[0] + f"_{alert}", "alert": {"number": 1}}


def test_interval_passes_without_further_news(
    redis_url: str, windows: Windows, start_dashboard: StartDashboard
) -> None:
    served = start_dashboard(redis_url, clock=lambda: NOW, live=Live(interval_seconds=0.05))
    with served.socket(choice="interval=0.5") as slow, served.socket() as quick:
        slow.next(), quick.next()
        quick.until_id(first := commit(windows, "cost", 1))
        quick.until_id(second := commit(windows, "cost", 1, 2))
        assert [slow.next()["id"], slow.next()["id"]] == [first, second]


def test_who_asks_for_the_same_shares_a_channel_and_the_last_one_ends_it(served: Served, wait_until: WaitUntil) -> None:
    channels = served.hub._channels
    with served.socket(choice="metric=cost,tokens"), served.events(choice="metric=tokens,cost"):
        assert len(list(channels)) == 2
    wait_until(lambda: len(list(channels)) == 1)


def test_different_choices_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil) -> None:
    monkeypatch.setattr(channel, "MAX_CHANNELS", 1)
    with served.socket(choice="metric=cost"), served.socket() as other:
        status, error = served.refused("/api/stream", metric="tokens")
        assert (status, error["code"]) == (503, "unavailable")
        other.next()
        other.say(type="subscribe", metrics=["tokens"])
        assert other.next()["error"]["code"] == "unavailable"
        other.say(type="subscribe", metrics=["cost"])
        assert other.next()["type"] == "snapshot"
    wait_until(lambda: served.hub.subscribers == 0)
    with served.socket(choice="metric=tokens") as one:
        assert one.next()["type"] == "snapshot"


def test_clients_are_bounded(redis_url: str, start_dashboard: StartDashboard) -> None:
    served = start_dashboard(redis_url, live=Live(max_clients=1))
    with served.socket():
        status, error = served.refused("/api/stream")
        assert (status, "live.max_clients" in error["message"]) == (503, True)


def test_choice_is_changed_while_connected(served: Served, windows: Windows, settle: Settle) -> None:
    commit(windows, "cost", 1, provider="a")
    settle(commit(windows, "tokens", 1))
    with served.socket() as one:
        assert set(open_window(one.next())["metrics"]) == {"cost", "tokens"}
        one.say(type="subscribe", metrics=["cost"], where=["provider=a"], group_by=["provider"], interval=1)
        snapshot = one.next()
        assert snapshot["type"] == "snapshot"
        assert open_window(snapshot)["groups"]["cost"][0]["labels"] == {"provider": "a"}
        commit(windows, "tokens", 1, 2)
        position = commit(windows, "cost", 1, 2, provider="a")
        frame = one.next()
        assert (frame["id"], list(open_window(frame)["metrics"])) == (position, ["cost"])
        one.say(type="subscribe")
        assert set(open_window(one.next())["metrics"]) == {"cost", "tokens"}


IMPOSSIBLE: list[Json] = [
    {"metrics": "cost"},
    {"metrics": ["\u0000"]},
    {"where": ["session=1"]},
    {"group_by": ["provider"]},
    {"interval": 0},
    {"interval": -1e308},
    {"interval": {}},
    {"metrics": [[]] * 1000},
    {"unknown": 1},
    {"where": ["provider=" + "x" * 60_000, 1]},
]


def test_impossible_choice_is_answered_and_changes_nothing(served: Served, windows: Windows) -> None:
    served.hub.interval = 0.0
    with served.socket(choice="metric=cost") as one:
        one.next()
        for said in IMPOSSIBLE:
            one.say(type="subscribe", **said)
            answer = one.next()
            assert answer["type"] == "error"
            assert answer["error"]["code"] == "bad_parameter"
            assert set(answer["error"]) == {"code", "message", "field"}
        position = commit(windows, "cost", 1)
        assert one.next()["id"] == position


def test_impossible_choice_in_the_address_is_refused_by_both_doors(served: Served) -> None:
    status, error = served.refused("/api/stream", interval="0.1")
    assert (status, error["code"], error["field"]) == (400, "bad_parameter", "interval")
    with pytest.raises(Exception, match="400"), served.socket(choice="where=session=1"):
        pass


@pytest.mark.parametrize("query", ["metric=cost", "metric=cost&where=provider=a", "interval=5"])
def test_choice_and_resume_go_together(
    served: Served,
    windows: Windows,
    redis_url: str,
    start_dashboard: StartDashboard,
    settle: Settle,
    query: str,
) -> None:
    with served.socket(choice=query) as one:
        one.next()
        seen = commit(windows, "cost", 1, provider="a")
        one.until_id(seen)
    alerted = windows.alert(1)
    commit(windows, "tokens", 1)
    newest = commit(windows, "cost", 1, 2, provider="a")
    settle(newest.replace("_0-0", f"_{alerted}"))
    for process in (served, start_dashboard(redis_url, clock=lambda: NOW)):
        with process.socket(since=seen, choice=query) as one:
            frame, alert = one.next(), one.next()
            assert (frame["type"], frame["id"]) == ("frame", newest)
            assert open_window(frame)["metrics"]["cost"]["count"] == 2
            assert ("tokens" in open_window(frame)["metrics"]) is (query == "interval=5")
            assert (alert["type"], alert["alert"]) == ("alert", {"number": 1})


def test_messages_of_both_doors_are_json_on_one_line(served: Served, windows: Windows) -> None:
    windows._client.xadd(windows.keys.transitions, {"transition": '{\n"a":\r\n"\\n"}'})
    windows._client.xadd(windows.keys.transitions, {"transition": "[1"})
    windows._client.xadd(windows.keys.transitions, {"other": "{}"})
    last = windows.alert(7)
    with served.events(since="0-0_0-0") as events:
        first, second = next(events), next(events)
        assert [first["alert"], second["alert"]] == [{"a": "\n"}, {"number": 7}]
        assert second["id"] == f"0-0_{last}"
        assert json.loads(json.dumps(second))["sse_event"] == "alert"
