"""Channels of the live feed: who asks for the same thing is told it by the same bytes."""

import asyncio
from collections.abc import Iterator
from typing import Final

from vibezen.metrics.api.alert_log import Alert
from vibezen.metrics.api.choice import Choice
from vibezen.metrics.api.fanout import End, Fanout, Subscriber
from vibezen.metrics.api.journal import Change, joined
from vibezen.metrics.api.messages import Message
from vibezen.metrics.api.position import EntryNumber, Position
from vibezen.metrics.api.state import LiveState
from vibezen.metrics.api.view import alert_message
from vibezen.metrics.clock import monotonic
from vibezen.metrics.serving.errors import ApiError

MAX_CHANNELS: Final = 64
"""Different choices at the same time, per process: what each shows is computed with every frame."""


class Channel:
    """One choice: what changed is held back until its interval has passed, then told in one frame. `quickest`: the
    interval in which changes come in any case."""

    def __init__(self, choice: Choice, state: LiveState, quickest: float) -> None:
        self.choice = choice
        self.sent_at = monotonic()
        self._state, self._view = state, state.view(choice)
        self._paced = choice.interval > quickest
        self._fanout = Fanout(self._restart)
        self._pending = Change()
        self._framed_at = -choice.interval
        self._framed: EntryNumber | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._fanout)

    @property
    def fanout(self) -> Fanout:
        return self._fanout

    async def warm(self) -> None:
        """Compute what a snapshot will tell, without holding up everyone's frames for it."""
        if self.choice.by_series:
            for start in self._view.snapshot_starts():
                self._view.warm(start)
                await asyncio.sleep(0)

    def take(self, change: Change, *, at_once: bool) -> None:
        """Tell what has just changed, now or when it is time; `at_once`: now, since an alert follows."""
        # A frame on time may just have told it. History that comes in changes nothing that is shown here.
        if not self._fanout or self._framed == self._state.position.live:
            return
        news = self._view.news(change)
        if news.slots:
            self._pending = joined([self._pending, news])
        if not self._pending.slots:
            return
        wait = self._framed_at + self.choice.interval - monotonic() if self._paced and not at_once else 0.0
        if wait <= 0.0:
            self._frame(self._pending)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._pending.slots and self._state.loaded:
            # A frame stands for all up to its id, so it also holds what came in and is about to be told to others.
            self._frame(joined([self._pending, self._view.meant(self._state.unsent)]))

    def _frame(self, change: Change) -> None:
        self.reset()
        self._framed_at = monotonic()
        self._framed = self._state.position.live
        self.send(self._view.frame(change))

    def tell(self, alert: Alert) -> None:
        """Send an alert; its id says that everything before was told, so changes must not be pending."""
        self.send(alert_message(self._state.position, alert))

    def show_all(self) -> None:
        """Send a snapshot."""
        self.reset()
        self._framed = None
        self.send(self._view.snapshot())

    def want_snapshot(self) -> None:
        """Let each client go on with a snapshot, as soon as there is one."""
        self.reset()
        self._framed = None
        self._fanout.want_snapshot()

    def beat(self) -> None:
        """Send a sign of life, unless a frame is about to be sent."""
        if not self._pending.slots:
            self.send(self._state.heartbeat())

    def send(self, message: Message) -> None:
        self.sent_at = monotonic()
        self._fanout.send(message)

    def reset(self) -> None:
        """Nothing is pending any more."""
        self._pending = Change()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume(self, subscriber: Subscriber, since: Position, change: Change, alerts: list[Alert]) -> None:
        """Go on with a client that has seen all up to `since`; what came after it is `change` and `alerts`."""
        here = self._state.position
        change = self._view.meant(joined([change, self._state.unsent]))
        messages = []
        # A client that is exactly here has seen this id; what we have not sent yet, another process sent it.
        if change.slots and since.live < here.live:
            messages.append(self._view.frame(change, Position(here.live, since.alert)))
        subscriber.start(since, here, [*messages, *self._alerts(alerts)])

    def _restart(self, seen: Position | None) -> list[Message]:
        if not self._state.loaded:
            return []
        here = self._state.position
        if seen is None or seen.alert == here.alert:
            return [self._view.snapshot()]
        missed = self._state.alerts.since(seen.alert) if seen.alert < here.alert else None
        if missed is None:
            return [self._state.gap(seen), self._view.snapshot()]
        return [self._view.snapshot(Position(here.live, seen.alert)), *self._alerts(missed)]

    def _alerts(self, alerts: list[Alert]) -> list[Message]:
        return [alert_message(self._state.position, alert) for alert in alerts if alert.transition is not None]


class Channels:
    """All channels of this process. The one of those who choose nothing is always there."""

    def __init__(self, state: LiveState, everything: Choice) -> None:
        self._state, self._everything = state, everything
        self._channels = {everything: Channel(everything, state, everything.interval)}
        self._of: dict[Subscriber, Channel] = {}
        self._closing = False

    def __iter__(self) -> Iterator[Channel]:
        return iter(list(self._channels.values()))

    @property
    def subscribers(self) -> int:
        return len(self._of)

    def of(self, subscriber: Subscriber) -> Channel:
        """The channel that a subscriber listens to."""
        return self._of[subscriber]

    def join(self, choice: Choice | None = None) -> Subscriber:
        """A new subscriber, already listening. ApiError 503 when none are taken any more, or there are too many
        different choices."""
        if self._closing:
            raise ApiError(503, "this server is closing")
        channel = self._channel(self._everything if choice is None else choice)
        subscriber = Subscriber(channel.fanout, self._leave)
        channel.fanout.add(subscriber)
        self._of[subscriber] = channel
        return subscriber

    def move(self, subscriber: Subscriber, choice: Choice) -> Channel:
        """Let a subscriber choose anew; it waits until a snapshot is wanted. ApiError 503 as for join."""
        before = self._of[subscriber]
        channel = self._channel(choice)
        subscriber.move(channel.fanout)
        self._of[subscriber] = channel
        self._end(before)
        return channel

    def _channel(self, choice: Choice) -> Channel:
        found = self._channels.get(choice)
        if found is None:
            if len(self._channels) > MAX_CHANNELS:
                raise ApiError(503, "too many different choices of the live feed; take one that others have, or none")
            found = self._channels[choice] = Channel(choice, self._state, self._everything.interval)
        return found

    def _leave(self, subscriber: Subscriber) -> None:
        channel = self._of.pop(subscriber, None)
        if channel is not None:
            channel.fanout.discard(subscriber)
            self._end(channel)

    def _end(self, channel: Channel) -> None:
        """A channel ends with its last subscriber."""
        if not channel and channel.choice != self._everything and self._channels.get(channel.choice) is channel:
            channel.reset()
            del self._channels[channel.choice]
            self._state.drop(channel.choice)

    def want_snapshot(self) -> None:
        for channel in self:
            channel.want_snapshot()

    def close(self) -> None:
        """End every subscription, and take no new ones."""
        self._closing = True
        for channel in self:
            channel.fanout.end(End.CLOSING)
