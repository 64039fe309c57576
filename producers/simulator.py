"""Simulated traffic: AI coding sessions that look like real ones, the same for the same seed, at any rate."""

import heapq
import itertools
import math
import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from vibezen.metrics.catalogue import MetricType
from vibezen.metrics.clock import wall
from vibezen.metrics.event import Event
from vibezen.metrics.producers.collector import MetricsCollector
from vibezen.metrics.producers.simulator_session import Conditions, Session
from vibezen.metrics.producers.simulator_world import Incident, parse_incident, rhythm
from vibezen.metrics.settings import Settings

DEFAULT_RATE: Final = 100.0
"""Events per second as a workday's mean, where no rate is asked for."""
MAX_SESSIONS: Final = 2000
GAUGE_INTERVAL: Final = 2.0
"""Seconds between two readings of concurrency and queue depth; longer where these would be a tenth of all events."""
MAX_LAG: Final = 1.0
"""Seconds real time may run ahead before the simulation leaves some out: the machine's limit is reached."""
_CHUNK: Final = 500

_CONCURRENCY, _QUEUE_DEPTH = str(MetricType.CONCURRENCY), str(MetricType.QUEUE_DEPTH)


def events(
    seed: int,
    start: float,
    end: float = math.inf,
    rate: float = DEFAULT_RATE,
    incidents: Iterable[Incident] = (),
    *,
    day_rhythm: bool = True,
) -> Iterator[Event]:
    """The events of [start, end) in order of time (Unix seconds): the same for the same arguments.

    `rate`: events per second, with `day_rhythm` as the mean of a workday. Events of one call share their metadata.
    """
    dice = random.Random(seed)
    conditions = Conditions(dice, tuple(incidents), start)
    count = max(1, min(MAX_SESSIONS, round(rate)))
    interval = max(GAUGE_INTERVAL, 20 / rate)
    calls_per_second = (rate - 2 / interval) / events_per_call()
    gap = count / calls_per_second
    sessions = [Session(dice, begun=start - dice.random() * 600, under_way=True) for _ in range(count)]
    # (time of the next call, session): each session waits its own time, so that calls fall as they do with people.
    calls = [(start + dice.random() * gap, number) for number in range(count)]
    heapq.heapify(calls)
    gauge_at = start
    while calls:
        ts, number = calls[0]
        while gauge_at <= ts and gauge_at < end:
            busy = rhythm(gauge_at) if day_rhythm else 1.0
            yield from _gauges(dice, conditions, gauge_at, busy * calls_per_second)
            gauge_at += interval
        if ts >= end:
            return
        yield from sessions[number].call(ts, conditions.at(ts))
        if sessions[number].finished:
            sessions[number] = Session(dice, begun=ts)
        busy = rhythm(ts) if day_rhythm else 1.0
        heapq.heapreplace(calls, (ts + gap / busy * (0.5 + dice.random()), number))


def _gauges(dice: random.Random, conditions: Conditions, ts: float, calls_per_second: float) -> Iterator[Event]:
    now = conditions.at(ts)
    # Little's law: as many are under way as come in while one is being answered.
    mean = calls_per_second * now.typical_latency / 1000
    running = max(0, round(dice.gauss(mean, math.sqrt(mean))))
    queued = max(0, round(dice.gauss(mean * now.queueing, 1 + mean * now.queueing / 4)))
    yield Event(_CONCURRENCY, running, ts)
    yield Event(_QUEUE_DEPTH, queued, ts)


def events_per_call() -> float:
    """How many events a call brings on average, those at a phase's or session's end included: counted once."""
    global _events_per_call
    if not _events_per_call:
        dice = random.Random(0)
        conditions = Conditions(dice, (), 0.0)
        calls = made = 0
        for _ in range(100):
            session = Session(dice, begun=0.0)
            while not session.finished:
                made += len(session.call(0.0, conditions))
                calls += 1
        _events_per_call = made / calls
    return _events_per_call


_events_per_call = 0.0


def run(
    settings: Settings,
    rate: float | None,
    seed: int | None,
    duration: float | None,
    incidents: Sequence[str],
    stop_event: threading.Event,
    history: float = 0.0,
) -> int:
    """Record simulated traffic in real time until `duration` seconds have passed or `stop_event` is set.

    A `rate` asked for is kept by day and night, up to what this machine can do; without one the traffic follows the
    day. `history`: seconds before now whose traffic is recorded first, as fast as it goes. Returns the number of
    events recorded. Raises ConfigError for an unknown incident.
    """
    known = [parse_incident(text) for text in incidents]
    start = wall()
    end = start + duration if duration else math.inf
    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    traffic = events(seed, start, end, rate or DEFAULT_RATE, known, day_rhythm=rate is None)
    past = events(seed + 1, start - history, start, rate or DEFAULT_RATE, day_rhythm=rate is None)
    full = settings.buffer_max_events // 2
    with MetricsCollector(settings=settings) as collector:
        recorded = _play_past(collector, past, full, stop_event) if history else 0
        return recorded + _play(collector, traffic, end, full, stop_event)


def _play_past(collector: MetricsCollector, past: Iterator[Event], full: int, stop_event: threading.Event) -> int:
    """Record what has happened already, under its own time."""
    recorded = 0
    while (chunk := list(itertools.islice(past, _CHUNK))) and _has_room(collector, full, stop_event):
        for event in chunk:
            collector.record_nowait(event.metric, event.value, event.metadata, ts=event.ts)
        recorded += len(chunk)
    return recorded


def _has_room(collector: MetricsCollector, full: int, stop_event: threading.Event) -> bool:
    """Wait while the server is the limit, rather than lose events. False when asked to stop."""
    while collector.stats().buffered > full:
        if stop_event.wait(0.005):
            return False
    return not stop_event.is_set()


def _play(
    collector: MetricsCollector, traffic: Iterator[Event], end: float, full: int, stop_event: threading.Event
) -> int:
    """Record each event when its time comes. Where the machine cannot follow, later events are moved to now."""
    recorded, behind, due, now = 0, 0.0, 0.0, wall()
    while chunk := list(itertools.islice(traffic, _CHUNK)):
        for event in chunk:
            assert event.ts is not None
            due = event.ts + behind
            while due > now:
                if stop_event.wait(min(due - now, 0.1)):
                    return recorded
                now = wall()
            if due >= end:
                return recorded
            collector.record_nowait(event.metric, event.value, event.metadata, ts=due)
            recorded += 1
        if not _has_room(collector, full, stop_event):
            return recorded
        now = wall()
        behind += max(0.0, now - due - MAX_LAG)
    return recorded
