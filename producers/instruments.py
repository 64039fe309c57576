"""What a collector offers to applications beyond recording: calls of models and depths of queues, measured for them."""

from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from vibezen.metrics.catalogue import MetricType
from vibezen.metrics.clock import Clock
from vibezen.metrics.event import MetadataValue
from vibezen.metrics.producers.client_watch import watch
from vibezen.metrics.producers.measure import Sample
from vibezen.metrics.producers.model_call import ModelCall, ModelCalls, measured
from vibezen.metrics.producers.sampler import DEFAULT_INTERVAL, Queue, Read, Sampler, Sampling, depth_of

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


class Instruments:
    """The part of MetricsCollector that measures what applications are made of. `record_samples` is the collector's."""

    def __init__(self, clock: Clock, *, enabled: bool) -> None:
        self._enabled = enabled
        self._calls = ModelCalls(self.record_samples, clock)
        self._sampler = Sampler(self.record_samples)
        if not enabled:
            self._sampler.close()

    def record_samples(self, samples: Iterator[Sample]) -> None:
        raise NotImplementedError

    def measure_anew(self) -> None:
        """In a forked child: queues that are being sampled are the parent's to read."""
        self._sampler.start_anew()

    def end_measuring(self) -> None:
        """The collector closes."""
        self._sampler.close()
        self._calls.tell()

    def llm_call(
        self, provider: str, model: str | None = None, *, operation: str | None = None, **metadata: MetadataValue
    ) -> ModelCall:
        """`with collector.llm_call("openai", "gpt-5") as call:` and in it `call.response(…)`: one call of a model.

        What is recorded is told at ModelCall. `model`: as it is asked for; None takes the one that answers.
        """
        if self._enabled:
            self._calls.prepare()
        return self._calls.begin(provider, model, operation, metadata)

    def llm(
        self, provider: str, model: str | None = None, *, operation: str | None = None, **metadata: MetadataValue
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """`@collector.llm("anthropic")`: every call of the function is a model call, whose answer it returns.

        For functions, coroutine functions, and those that return or are a stream of parts. `model`: None takes the
        keyword argument `model`, else the one that answers. `operation`: None takes the function's name.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            if not self._enabled:
                return function
            self._calls.prepare()
            named = operation or function.__qualname__

            def begin(asked: str | None) -> ModelCall:
                return self._calls.begin(provider, model or asked, named, metadata)

            return measured(function, begin)

        return decorate

    def watch(
        self, client: C, provider: str | None = None, *, operation: str | None = None, **metadata: MetadataValue
    ) -> C:
        """Measure every call that this `openai` or `anthropic` client makes from now on; returns the client.

        Measured are `chat.completions`, `responses`, `embeddings` and `messages`: their `create` and `parse`, streams
        too. `provider`: None takes the client's package. `operation`: None takes the method's name.
        """

        def begin(known: str, method: str, asked: str | None) -> ModelCall:
            return self._calls.begin(known, asked, operation or method, metadata)

        if self._enabled:
            self._calls.prepare()
            self._calls.quietly(watch, client, begin, provider)
        return client

    def sample_queue(self, name: str, queue: Queue, interval: float = DEFAULT_INTERVAL) -> Sampling:
        """Record `queue_depth` with `operation` = `name` every `interval` seconds, from now to the collector's close.

        `queue`: has `qsize()` or a length, or is a function that answers one; it is asked on a thread of ours. After
        fork only the process that asked for it goes on. Raises TypeError for what has no depth.
        """
        ask = depth_of(queue)

        def read() -> list[Sample]:
            return [(MetricType.QUEUE_DEPTH, float(ask()), {"operation": name})]

        return self.sample(f"queue {name!r}", read, interval)

    def sample(self, name: str, read: Read, interval: float) -> Sampling:
        """Record what `read` answers every `interval` seconds; see Sampling. `name` is for the log."""
        return self._sampler.add(name, read, interval)

    def quietly(self, work: Callable[..., None], *arguments: object) -> None:
        """Do what must never fail the application; what it raises is logged, the first time."""
        self._calls.quietly(work, *arguments)
