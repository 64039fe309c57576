"""Alerts in the live feed, over a real server, where it is always NOW."""

import pytest
import redis

from tests.support.serving import NOW, OPEN, Served, StartDashboard, Windows, samples
from tests.support.waiting import WaitUntil
from vibezen.metrics.api import alert_log, hub
from vibezen.metrics.keys import Keys

pytestmark = pytest.mark.server


def test_alerts_and_frames_are_told_in_the_order_of_their_ids(served: Served, windows: Windows) -> None:
    with served.socket() as one, served.events() as events:
        one.next(), next(events)
        first = windows.alert(1)
        messages = [one.next()]
        live = windows.commit(OPEN, "cost", samples(1, at=NOW))
        messages.append(one.next())
        second = windows.alert(2)
        messages.append(one.next())
        assert [(message["type"], message["id"]) for message in messages] == [
            ("alert", f"0-0_{first}"),
            ("frame", f"{live}_{first}"),
            ("alert", f"{live}_{second}"),
        ]
        for message in messages:
            event = next(events)
            assert (event.pop("sse_id"), event.pop("sse_event")) == (message["id"], message["type"])
            assert event == message


def test_alerts_that_were_missed_are_told_once_in_order_by_any_process(
    served: Served, windows: Windows, redis_url: str, start_dashboard: StartDashboard
) -> None:
    with served.socket() as one:
        one.next()
        windows.alert(0)
        seen = one.next()["id"]
        ids = [windows.alert(number) for number in range(1, 41)]  # more than may wait in a queue
        one.until_id(f"0-0_{ids[-1]}")
    for process in (served, start_dashboard(redis_url, clock=lambda: NOW)):
        with process.socket(since=seen) as one, process.events(since=seen) as events:
            ids.append(windows.alert(len(ids) + 1))
            told = one.until_id(f"0-0_{ids[-1]}")
            assert [message["alert"]["number"] for message in told] == list(range(1, len(ids) + 1))
            assert [message["id"] for message in told] == [f"0-0_{entry}" for entry in ids]
            assert [next(events)["id"] for _ in ids] == [message["id"] for message in told]


def test_alerts_that_were_trimmed_are_a_gap(
    served: Served, windows: Windows, client: redis.Redis, redis_url: str, start_dashboard: StartDashboard
) -> None:
    ids = [windows.alert(number) for number in range(5)]
    client.xtrim(Keys().transitions, minid=ids[3], approximate=False)
    newcomer = start_dashboard(redis_url, clock=lambda: NOW)
    with newcomer.socket(since=f"0-0_{ids[1]}") as one:
        gap, snapshot = one.next(), one.next()
        assert (gap["type"], gap["id"], gap["to"]) == ("gap", f"0-0_{ids[1]}", f"0-0_{ids[4]}")
        assert (snapshot["type"], snapshot["id"]) == ("snapshot", f"0-0_{ids[4]}")
    with newcomer.socket(since=f"0-0_{ids[3]}") as one:
        assert one.next()["id"] == f"0-0_{ids[4]}"


def test_more_missed_alerts_than_are_kept_are_a_gap(
    served: Served, windows: Windows, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr(alert_log, "MAX_ALERTS", 3)
    ids = [windows.alert(number) for number in range(5)]
    wait_until(lambda: str(served.hub.position) == f"0-0_{ids[-1]}")
    with served.socket(since=f"0-0_{ids[0]}") as one:
        assert [one.next()["type"], one.next()["type"]] == ["gap", "snapshot"]
    with served.socket(since=f"0-0_{ids[1]}") as one:
        assert [one.next()["id"] for _ in ids[2:]] == [f"0-0_{entry}" for entry in ids[2:]]


def test_alert_stream_that_was_emptied_is_a_gap(
    served: Served, windows: Windows, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served.socket() as one:
        one.next()
        windows.alert(1)
        assert one.next()["type"] == "alert"
        monkeypatch.setattr(hub, "CHECK_INTERVAL", 0.0)
        client.delete(Keys().transitions)
        windows.commit(OPEN, "cost", samples(1, at=NOW))
        assert "gap" in {message["type"] for message in one.until(lambda message: message["type"] == "snapshot")}
        windows.alert(2)
        assert one.until(lambda message: message["type"] == "alert")[-1]["alert"] == {"number": 2}


def test_alerts_of_a_stream_that_another_took_the_place_of_are_a_gap(
    served: Served, windows: Windows, client: redis.Redis, redis_url: str, start_dashboard: StartDashboard
) -> None:
    seen, _ = windows.alert(1), windows.alert(2)
    client.delete(Keys().transitions)
    for number in (3, 4, 5):
        windows.alert(number)
    with start_dashboard(redis_url, clock=lambda: NOW).socket(since=f"0-0_{seen}") as one:
        assert [one.next()["type"], one.next()["type"]] == ["gap", "snapshot"]


def test_choosing_anew_loses_no_alert(served: Served, windows: Windows) -> None:
    served.hub.interval = 0.0
    with served.socket(max_queue=None) as one:  # a full one would hold up its end
        one.next()
        told: list[int] = []
        for number in range(30):
            windows.alert(number)
            one.say(type="subscribe", metrics=[("cost", "tokens")[number % 2]])
        while len(told) < 30:
            message = one.next()
            assert message["type"] in ("alert", "snapshot")
            if message["type"] == "alert":
                told.append(message["alert"]["number"])
        assert told == list(range(30))
