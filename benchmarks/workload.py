"""The events that are recorded: 128 series of an AI coding session, lines of about 170 bytes, the same every time."""

import random
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from vibezen.metrics.event import Event

METRICS: Final = ("response_time", "time_to_first_token", "tokens", "cost")
MODELS: Final = (
    *(("anthropic", "claude-opus"), ("anthropic", "claude-sonnet"), ("anthropic", "claude-haiku")),
    *(("openai", "gpt-large"), ("openai", "gpt-mini"), ("google", "gemini-pro"), ("google", "gemini-flash")),
    ("mistral", "mistral-large"),
)
PHASES: Final = ("specification", "implementation", "review", "verification")
SERIES: Final = len(METRICS) * len(MODELS) * len(PHASES)
LABELS: Final = ("provider", "model", "phase")


class Sample(NamedTuple):
    """What an application has in its hands when it records."""

    metric: str
    value: float
    provider: str
    model: str
    phase: str
    session: str


def samples(count: int, seed: int = 1) -> list[Sample]:
    """Series in random order; values spread as response times do, over two powers of ten."""
    rng = random.Random(seed)
    series = [(metric, *model, phase) for metric in METRICS for model in MODELS for phase in PHASES]
    sessions = [f"{rng.getrandbits(32):08x}" for _ in range(200)]
    return [
        Sample(metric, round(rng.lognormvariate(5.5, 0.7), 3), provider, model, phase, rng.choice(sessions))
        for metric, provider, model, phase in rng.choices(series, k=count)
    ]


def one_of_each(seed: int = 1) -> list[Sample]:
    """One sample per series."""
    found: dict[tuple[str, ...], Sample] = {}
    for sample in samples(SERIES * 20, seed):
        found.setdefault((sample.metric, sample.provider, sample.model, sample.phase), sample)
    assert len(found) == SERIES
    return list(found.values())


def metadata_of(sample: Sample) -> dict[str, str]:
    return {"provider": sample.provider, "model": sample.model, "phase": sample.phase, "session": sample.session}


def events(taken: list[Sample], start: float, rate: float) -> list[Event]:
    """The samples as events, `rate` of them per second from `start` (Unix seconds) on."""
    return [
        Event(sample.metric, sample.value, start + number / rate, 1.0, 1, {**metadata_of(sample)})
        for number, sample in enumerate(taken)
    ]


def paced(rate: float, seconds: float, burst: int) -> Iterator[int]:
    """Yield once per `burst` calls that are due, so that `rate` calls a second come about; catches up when late."""
    start = time.perf_counter()
    for number in range(int(rate * seconds / burst)):
        ahead = start + number * burst / rate - time.perf_counter()
        if ahead > 0:
            time.sleep(ahead)
        yield number
