"""Channels without a server: what is told when, and by which id."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import pytest

from tests.support.serving import NOW, OPEN, Json, samples
from vibezen.metrics.api import channel as channel_module
from vibezen.metrics.api.alert_log import Alert
from vibezen.metrics.api.channel import Channel, Channels
from vibezen.metrics.api.choice import Choice
from vibezen.metrics.api.fanout import Subscriber
from vibezen.metrics.api.position import Position
from vibezen.metrics.api.state import LiveState
from vibezen.metrics.catalogue import Catalogue
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.live import Change, Frame
from vibezen.metrics.series import series_key
from vibezen.metrics.serving.errors import ApiError

QUICKEST = 0.25
SLOW = Choice(0.3)


class Feed:
    """A hub in small: what comes is taken in, and shown when a test says so."""

    def __init__(self) -> None:
        self.state = LiveState(10, Catalogue(), version="0", demo=False, clock=lambda: NOW)
        self.state.settle()
        self.channels = Channels(self.state, Choice(QUICKEST))
        self.live = 0

    def come(self, metric: str, value: float = 1.0, **labels: str) -> None:
        self.live += 1
        change = Change(OPEN, series_key(metric, labels), samples(*[1.0] * self.live, value, at=NOW))
        self.state.take((self.live, 0), [Frame(0, 10, [change], NOW, NOW)])

    def show(self, *, at_once: bool = False) -> None:
        change = self.state.flush()
        for channel in self.channels:
            channel.take(change, at_once=at_once)

    def channel(self, choice: Choice) -> Channel:
        (found,) = (channel for channel in self.channels if channel.choice == choice)
        return found


async def told(subscriber: Subscriber) -> Json:
    message = await subscriber.next()
    assert message is not None
    found: Json = json.loads(message.text)
    return found


def metrics(message: Json) -> set[str]:
    return {metric for window in message["windows"] for metric in window["metrics"]}


def run(case: Callable[[Feed], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(20):
            await case(Feed())

    asyncio.run(within())


def started(feed: Feed, choice: Choice) -> Subscriber:
    """A subscriber that has seen all there is."""
    subscriber = feed.channels.join(choice)
    subscriber.start(feed.state.position, feed.state.position, [])
    return subscriber


def test_frame_on_time_also_holds_what_came_in_and_is_not_shown_yet() -> None:
    async def case(feed: Feed) -> None:
        with started(feed, SLOW) as slow:
            feed.come("cost")
            feed.show()
            assert (await told(slow))["id"] == "1-0_0-0"
            feed.come("tokens")
            feed.show()
            feed.come("commits")
            frame = await told(slow)
            assert (frame["id"], metrics(frame)) == ("3-0_0-0", {"tokens", "commits"})
            feed.show()  # of which it has all
            feed.come("sessions")
            feed.show()
            frame = await told(slow)
            assert (frame["id"], metrics(frame)) == ("4-0_0-0", {"sessions"})

    run(case)


def test_alert_is_told_behind_what_changed_before_it() -> None:
    async def case(feed: Feed) -> None:
        with started(feed, SLOW) as slow:
            feed.come("cost")
            feed.show()
            await told(slow)
            feed.come("tokens")
            feed.show(at_once=True)
            feed.state.tell(Alert((5, 0), b"{}"))
            feed.channel(SLOW).tell(Alert((5, 0), b"{}"))
            assert [(await told(slow))["id"], (await told(slow))["id"]] == ["2-0_0-0", "2-0_5-0"]

    run(case)


def test_no_sign_of_life_has_an_id_that_stands_for_what_is_pending() -> None:
    async def case(feed: Feed) -> None:
        with started(feed, SLOW) as slow:
            channel = feed.channel(SLOW)
            feed.come("cost")
            feed.show()
            await told(slow)
            feed.come("tokens")
            feed.show()
            channel.beat()
            assert (await told(slow))["type"] == "frame"
            channel.beat()
            assert (await told(slow))["type"] == "heartbeat"

    run(case)


def test_skipped_subscriber_is_told_again_the_alerts_it_has_not_read() -> None:
    async def case(feed: Feed) -> None:
        with started(feed, Choice(QUICKEST)) as slow:
            channel = feed.channel(Choice(QUICKEST))
            for number in (1, 2):
                feed.state.tell(Alert((number, 0), b"{}"))
                channel.tell(Alert((number, 0), b"{}"))
                if number == 1:
                    assert (await told(slow))["id"] == "0-0_1-0"
            for _ in range(20):
                feed.come("cost")
                feed.show()
            messages = [await told(slow), await told(slow)]
            assert [(one["type"], one["id"]) for one in messages] == [
                ("snapshot", "20-0_1-0"),
                ("alert", "20-0_2-0"),
            ]

    run(case)


def test_change_of_a_series_that_is_not_meant_is_no_news() -> None:
    async def case(feed: Feed) -> None:
        choice = Choice(QUICKEST, where=(Condition("provider", "a"),))
        with started(feed, choice) as one:
            for provider in ("b", "b", "a", "b"):
                feed.come("cost", provider=provider)
                feed.show()
            feed.come("tokens", provider="a")
            feed.show()
            assert [(await told(one))["id"], (await told(one))["id"]] == ["3-0_0-0", "5-0_0-0"]

    run(case)


def test_channel_ends_with_its_last_subscriber() -> None:
    async def case(feed: Feed) -> None:
        choice = Choice(QUICKEST, ("cost",))
        with started(feed, choice) as one, started(feed, choice):
            assert len(feed.channel(choice)) == 2
            feed.channels.move(one, SLOW)
            assert len(feed.channel(choice)) == len(feed.channel(SLOW)) == 1
        assert [channel.choice for channel in feed.channels] == [Choice(QUICKEST)]
        assert feed.state._views == {}

    run(case)


def test_subscribers_and_choices_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "MAX_CHANNELS", 2)

    async def case(feed: Feed) -> None:
        with ExitStack() as joined:
            for metric in ("a", "b"):
                joined.enter_context(feed.channels.join(Choice(QUICKEST, (metric,))))
            with pytest.raises(ApiError, match="different choices") as caught:
                feed.channels.join(Choice(QUICKEST, ("c",)))
            assert caught.value.status == 503
            joined.enter_context(feed.channels.join(Choice(QUICKEST, ("a",))))

    run(case)


def test_closed_feed_takes_nobody() -> None:
    async def case(feed: Feed) -> None:
        with feed.channels.join() as one:
            feed.channels.close()
            assert await one.next() is None
            with pytest.raises(ApiError, match="closing"):
                feed.channels.join()

    run(case)


def test_frame_that_resumes_does_not_stand_for_the_alerts_behind_it() -> None:
    async def case(feed: Feed) -> None:
        feed.come("cost")
        feed.show()
        feed.state.tell(Alert((7, 0), b"{}"))
        with feed.channels.join() as one:
            change, alerts = feed.state.journal.since((0, 0)), feed.state.alerts.since((0, 0))
            assert change is not None
            assert alerts is not None
            feed.channels.of(one).resume(one, Position(), change, alerts)
            assert [(await told(one))["id"], (await told(one))["id"]] == ["1-0_0-0", "1-0_7-0"]

    run(case)
