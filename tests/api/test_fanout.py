import asyncio
from collections.abc import Awaitable, Callable

from vibezen.metrics.api.fanout import QUEUE, QUEUED_ALERTS, End, Fanout, Subscriber
from vibezen.metrics.api.messages import Message
from vibezen.metrics.api.position import Position

Case = Callable[["Feed"], Awaitable[None]]


def message(number: int, kind: str = "frame") -> Message:
    return Message(Position((number, 0)), f"{kind} {number}", b"", kind)


class Feed:
    """A fan-out whose snapshots are of the newest message sent."""

    def __init__(self) -> None:
        self.newest = 0
        self.known = True
        self.fanout = Fanout(lambda seen: [message(self.newest, "snapshot")] if self.known else [])

    def join(self) -> Subscriber:
        subscriber = Subscriber(self.fanout, self.fanout.discard)
        self.fanout.add(subscriber)
        return subscriber

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
        with feed.join() as one, feed.join() as two:
            feed.send()
            assert await one.next() is await two.next()

    run(case)


def test_waiting_subscriber_is_woken() -> None:
    async def case(feed: Feed) -> None:
        with feed.join() as one:
            waiting = asyncio.create_task(one.next())
            await asyncio.sleep(0)
            feed.send()
            assert await waiting == message(1)

    run(case)


def test_frames_a_subscriber_has_seen_are_left_out() -> None:
    async def case(feed: Feed) -> None:
        with feed.join() as one:
            one.start(Position(), Position((2, 0)), [message(2, "snapshot")])
            feed.send(3)
            assert [(await one.next()), (await one.next())] == [message(2, "snapshot"), message(3)]

    run(case)


def test_full_queue_is_skipped_forward_to_a_snapshot() -> None:
    async def case(feed: Feed) -> None:
        with feed.join() as slow, feed.join() as quick:
            for _ in range(QUEUE + 5):
                feed.send()
                assert await quick.next() == message(feed.newest)
            assert await slow.next() == message(feed.newest, "snapshot")
            feed.send()
            assert await slow.next() == message(feed.newest)

    run(case)


def test_queue_full_again_before_it_was_empty_ends_the_subscription() -> None:
    async def case(feed: Feed) -> None:
        with feed.join() as slow:
            feed.send(2 * QUEUE + 1)
            assert slow.ended is End.SLOW
            assert await slow.next() is None
        assert len(feed.fanout) == 0

    run(case)


def test_subscriber_that_catches_up_may_be_slow_again() -> None:
    async def case(feed: Feed) -> None:
        with feed.join() as slow:
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
        with feed.join() as early:
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
        with feed.join() as one:
            one.start(Position(), Position((900, 0)), [])
            feed.fanout.send(message(1, "snapshot"))
            feed.fanout.send(message(2))
            assert [await one.next(), await one.next()] == [message(1, "snapshot"), message(2)]

    run(case)


def test_what_came_while_a_resume_was_looked_up_takes_nobody_back() -> None:
    async def case(feed: Feed) -> None:
        with feed.join() as one:
            for kind in ("gap", "snapshot", "heartbeat"):
                feed.fanout.send(message(2, kind))
            one.start(Position((1, 0)), Position((3, 0)), [message(3)])
            feed.fanout.send(message(4))
            assert [await one.next(), await one.next()] == [message(3), message(4)]

    run(case)


def test_message_stuck_on_its_way_is_cancelled_when_the_subscription_ends() -> None:
    class Scope:
        cancelled = False

        def cancel(self) -> None:
            self.cancelled = True

    async def case(feed: Feed) -> None:
        stuck, waiting = Scope(), Scope()
        with feed.join() as one, feed.join() as two:
            one.bind(stuck)
            two.bind(waiting)
            asleep = asyncio.create_task(two.next())
            await asyncio.sleep(0)
            feed.fanout.end(End.CLOSING)
            assert stuck.cancelled
            assert not waiting.cancelled, "it ends by itself, and says goodbye"
            assert await asleep is None

    run(case)


def alert(live: int, number: int) -> Message:
    return Message(Position((live, 0), (number, 0)), f"alert {number}", b"", "alert")


def test_many_alerts_at_once_may_wait() -> None:
    async def case(feed: Feed) -> None:
        with feed.join() as one:
            alerts = [alert(0, number) for number in range(1, QUEUED_ALERTS)]
            for each in alerts:
                feed.fanout.send(each)
            assert [await one.next() for _ in alerts] == alerts

    run(case)


def test_alert_a_subscriber_has_seen_is_left_out() -> None:
    async def case(feed: Feed) -> None:
        with feed.join() as one:
            feed.fanout.send(alert(1, 1))
            one.start(Position(), Position((2, 0), (2, 0)), [])
            feed.fanout.send(alert(3, 2))
            feed.fanout.send(alert(3, 3))
            assert await one.next() == alert(3, 3)

    run(case)


def test_what_puts_a_skipped_subscriber_right_begins_where_it_stopped_reading() -> None:
    async def case(feed: Feed) -> None:
        seen: list[Position | None] = []

        def restart(position: Position | None) -> list[Message]:
            seen.append(position)
            return [message(100, "snapshot"), alert(100, 2)]

        feed.fanout.restart = restart
        with feed.join() as slow:
            feed.fanout.send(alert(0, 1))
            assert await slow.next() == alert(0, 1)
            feed.fanout.send(alert(0, 2))
            feed.send(QUEUE + 1)
            assert [await slow.next(), await slow.next()] == [message(100, "snapshot"), alert(100, 2)]
            feed.fanout.send(alert(100, 2))
            feed.fanout.send(alert(100, 3))
            assert await slow.next() == alert(100, 3)
        assert seen == [Position((0, 0), (1, 0))]

    run(case)


def test_gap_is_told_though_everything_else_is_skipped() -> None:
    async def case(feed: Feed) -> None:
        with feed.join() as slow:
            feed.fanout.send(message(0, "gap"))
            feed.send(QUEUE)
            assert [await slow.next(), await slow.next()] == [message(0, "gap"), message(feed.newest, "snapshot")]

    run(case)


def test_subscriber_that_moves_hears_nothing_until_it_is_told_to_go_on() -> None:
    async def case(feed: Feed) -> None:
        other = Feed()
        with feed.join() as one:
            feed.send()
            one.move(other.fanout)
            other.send(3)
            feed.send()
            waiting = asyncio.create_task(one.next())
            await asyncio.sleep(0)
            assert not waiting.done()
            one.want_snapshot()
            assert await waiting == message(3, "snapshot")
            other.send()
            assert await one.next() == message(4)
        assert not len(feed.fanout)

    run(case)
