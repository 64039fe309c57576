import asyncio
from collections.abc import Awaitable, Callable

import pytest

from vibezen.metrics.api.fanout import MAX_SUBSCRIBERS, QUEUE, End, Fanout
from vibezen.metrics.api.messages import Message
from vibezen.metrics.api.position import Position
from vibezen.metrics.serving.errors import ApiError

Case = Callable[["Feed"], Awaitable[None]]


def message(number: int, kind: str = "frame") -> Message:
    return Message(Position((number, 0)), f"{kind} {number}", b"", kind)


class Feed:
    """A fan-out whose snapshots are of the newest message sent."""

    def __init__(self) -> None:
        self.newest = 0
        self.known = True
        self.fanout = Fanout(lambda: message(self.newest, "snapshot") if self.known else None)

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.newest += 1
            self.fanout.send(message(self.newest))


def run(case: Case) -> None:
    async def within() -> None:
        async with asyncio.timeout(20):
            await case(Feed())

    asyncio.run(within())


def test_message_reaches_everyone_as_the_same_object() -> None:
    async def case(feed: Feed) -> None:
        with feed.fanout.join() as one, feed.fanout.join() as two:
            feed.send()
            assert await one.next() is await two.next()

    run(case)


def test_waiting_subscriber_is_woken() -> None:
    async def case(feed: Feed) -> None:
        with feed.fanout.join() as one:
            waiting = asyncio.create_task(one.next())
            await asyncio.sleep(0)
            feed.send()
            assert await waiting == message(1)

    run(case)


def test_frames_a_subscriber_has_seen_are_left_out() -> None:
    async def case(feed: Feed) -> None:
        with feed.fanout.join() as one:
            one.start(Position((2, 0)), [message(2, "snapshot")])
            feed.send(3)
            assert [(await one.next()), (await one.next())] == [message(2, "snapshot"), message(3)]

    run(case)


def test_full_queue_is_skipped_forward_to_a_snapshot() -> None:
    async def case(feed: Feed) -> None:
        with feed.fanout.join() as slow, feed.fanout.join() as quick:
            for _ in range(QUEUE + 5):
                feed.send()
                assert await quick.next() == message(feed.newest)
            assert await slow.next() == message(feed.newest, "snapshot")
            feed.send()
            assert await slow.next() == message(feed.newest)

    run(case)


def test_queue_full_again_before_it_was_empty_ends_the_subscription() -> None:
    async def case(feed: Feed) -> None:
        with feed.fanout.join() as slow:
            feed.send(2 * QUEUE + 1)
            assert slow.ended is End.SLOW
            assert await slow.next() is None
        assert len(feed.fanout) == 0

    run(case)


def test_subscriber_that_catches_up_may_be_slow_again() -> None:
    async def case(feed: Feed) -> None:
        with feed.fanout.join() as slow:
            for _ in range(3):
                feed.send(QUEUE + 1)
                assert await slow.next() == message(feed.newest, "snapshot")
                feed.send()
                assert await slow.next() == message(feed.newest)
            assert slow.ended is None

    run(case)


def test_snapshot_is_waited_for_while_nothing_is_known() -> None:
    async def case(feed: Feed) -> None:
        feed.known = False
        with feed.fanout.join() as early:
            early.want_snapshot()
            waiting = asyncio.create_task(early.next())
            await asyncio.sleep(0)
            assert not waiting.done()
            feed.known = True
            feed.fanout.want_snapshot()
            assert await waiting == message(0, "snapshot")

    run(case)


def test_frames_after_the_server_was_replaced_are_sent_though_their_ids_are_lower() -> None:
    async def case(feed: Feed) -> None:
        with feed.fanout.join() as one:
            one.start(Position((900, 0)), [])
            feed.fanout.send(message(1, "snapshot"))
            feed.fanout.send(message(2))
            assert [await one.next(), await one.next()] == [message(1, "snapshot"), message(2)]

    run(case)


def test_message_stuck_on_its_way_is_cancelled_when_the_subscription_ends() -> None:
    class Scope:
        cancelled = False

        def cancel(self) -> None:
            self.cancelled = True

    async def case(feed: Feed) -> None:
        stuck, waiting = Scope(), Scope()
        with feed.fanout.join() as one, feed.fanout.join() as two:
            one.bind(stuck)
            two.bind(waiting)
            asleep = asyncio.create_task(two.next())
            await asyncio.sleep(0)
            feed.fanout.close()
            assert stuck.cancelled
            assert not waiting.cancelled, "it ends by itself, and says goodbye"
            assert await asleep is None

    run(case)


def test_subscribers_are_bounded() -> None:
    async def case(feed: Feed) -> None:
        joined = [feed.fanout.join() for _ in range(MAX_SUBSCRIBERS)]
        with pytest.raises(ApiError, match="too many") as caught:
            feed.fanout.join()
        assert caught.value.status == 503
        with joined.pop():
            pass
        with feed.fanout.join():
            assert len(feed.fanout) == MAX_SUBSCRIBERS

    run(case)


def test_closed_feed_takes_nobody() -> None:
    async def case(feed: Feed) -> None:
        feed.fanout.close()
        with pytest.raises(ApiError, match="closing"):
            feed.fanout.join()

    run(case)
