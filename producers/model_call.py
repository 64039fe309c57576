"""One call of a language model: how long it took, what it used, what it cost, whether it failed."""

import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from functools import wraps
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, cast

from vibezen.metrics.catalogue import MetricType
from vibezen.metrics.clock import Clock
from vibezen.metrics.event import Metadata, MetadataValue
from vibezen.metrics.producers.books import Tally
from vibezen.metrics.producers.measure import Sample
from vibezen.metrics.producers.prices import Prices
from vibezen.metrics.producers.usage import Usage, brings_output, read
from vibezen.metrics.producers.watched import watched

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("vibezen.metrics.collector")

_NO_USAGE: Final = (
    "a call of %s answered without usage, so its tokens and cost are not known; further ones are counted silently "
    "(OpenAI streams bring it with stream_options={'include_usage': True})"
)


class ModelCalls:
    """What one collector knows about all its calls. `record` takes the samples of one, stamped now."""

    def __init__(self, record: Callable[[Iterator[Sample]], None], clock: Clock) -> None:
        self._record = record
        self._clock = clock
        self._prices = Prices()
        self._failed_quietly = False
        self._answered = Tally()
        self._without_usage = Tally()
        self._told = 0

    def begin(self, provider: str, model: str | None, operation: str | None, metadata: Metadata) -> "ModelCall":
        named = {"provider": provider, "model": model, "operation": operation}
        return ModelCall(self, {**{name: value for name, value in named.items() if value}, **metadata}, self._clock())

    def prepare(self) -> None:
        """Import the price list before the first call rather than after it."""
        self.quietly(self._prices.prepare)

    def record(self, call: "ModelCall") -> None:
        self._record(iter(self._samples(call)))

    def quietly(self, work: Callable[..., None], *arguments: object) -> None:
        """Do what must never fail the application, whatever its objects turn out to be."""
        try:
            work(*arguments)
        except Exception:
            if not self._failed_quietly:
                self._failed_quietly = True
                log.warning(
                    "what an application does could not be measured in full; further failures are silent", exc_info=True
                )

    def tell(self) -> None:
        """At the end, once: how much of the picture is missing."""
        missing = self._without_usage.value()
        if missing > self._told:
            self._told = missing
            log.warning("%d of %d model calls answered without usage", missing, self._answered.value())

    def _samples(self, call: "ModelCall") -> list[Sample]:
        failed = bool(call.metadata.get("error"))
        shared = call.metadata
        made: list[Sample] = [
            (MetricType.RESPONSE_TIME, call.took, shared),
            (MetricType.ERROR_RATE, int(failed), shared),
            (MetricType.API_CALLS, 1, {**shared, "status": "error" if failed else "ok"}),
        ]
        if call.first_token is not None:
            made.append((MetricType.TIME_TO_FIRST_TOKEN, call.first_token, shared))
        if call.usage is not None:
            self.quietly(self._add_usage, made, call, call.usage)
        if not failed:
            self._answered.hit()
            if call.usage is None:
                self._count_without_usage(f"{shared.get('provider')} {shared.get('model')}")
        return made

    def _add_usage(self, made: list[Sample], call: "ModelCall", usage: Usage) -> None:
        shared = call.metadata
        made += [(MetricType.TOKENS, n, {**shared, "type": kind}) for kind, n in usage.by_type().items()]
        made.append((MetricType.CACHE_HIT_RATE, int(usage.cache_read > 0), shared))
        models = [name for name in (call.answered_by, shared.get("model")) if isinstance(name, str)]
        cost = self._prices.cost(str(shared["provider"]), models, usage, call.began, call.tier, call.speed)
        if cost is not None:
            made.append((MetricType.COST, cost, shared))

    def _count_without_usage(self, whom: str) -> None:
        if self._without_usage.hit() == 0:
            log.warning(_NO_USAGE, whom)


class ModelCall:
    """One call, from the `with` (or `async with`) that begins it to its end. One block is one call.

    `response(answer)` reads what the answer says about usage and gives it back; a stream is read as it passes. When
    the block ends these are recorded, with `provider`, `model`, `operation` and all of `metadata`:

    * `response_time`: milliseconds the block took; `api_calls`: 1, with `status` ok or error;
    * `error_rate`: 1 when the block raised (cancellation included), the response says that it failed, or
      `metadata["error"]` was set, else 0. `metadata["error"]` is the exception's class name, or the response's code;
    * `time_to_first_token`: milliseconds until the first part of a stream that brought output;
    * `tokens`: one event per `type`, disjoint: input (not cached), cache_read, cache_write, output (without
      reasoning), reasoning. Of several reports, as streams make them, the largest counts, never their sum;
    * `cost`: US dollars, at the price that held when the call began;
    * `cache_hit_rate`: 1 when any input was read from the provider's cache, else 0; of calls whose usage is known.

    Nothing here raises on account of metrics, whatever the answer looks like. Exceptions of the block pass through.
    """

    __slots__ = (
        "_calls",
        "_ended",
        "_started",
        "answered_by",
        "began",
        "first_token",
        "metadata",
        "speed",
        "tier",
        "took",
        "usage",
    )

    def __init__(self, calls: ModelCalls, metadata: dict[str, MetadataValue], began: float) -> None:
        self._calls = calls
        self._started = time.perf_counter()
        self._ended = False
        self.metadata = metadata
        self.began = began
        self.took = 0.0
        self.first_token: float | None = None
        self.usage: Usage | None = None
        self.answered_by: str | None = None
        self.tier: str | None = None
        self.speed: str | None = None

    def response(self, answer: R) -> R:
        """Read an answer and give it back. What iterates (for, async for) is a stream: go over what is returned."""
        stream = watched(answer, self._part, _nothing)
        if stream is not None:
            return cast("R", stream)
        self._calls.quietly(self._read, answer)
        return answer

    def handed(self, answer: Any) -> Any:
        """For calls that are not a block: `answer` as it is given on, where a stream or awaitable still goes on."""
        stream = watched(answer, self._part, self.end)
        if stream is not None:
            return stream
        self._calls.quietly(self._read, answer)
        self.end()
        return answer

    def end(self, error: BaseException | None = None) -> None:
        """Record; the first end counts. Who stops reading a stream early (GeneratorExit) has not seen it fail."""
        if self._ended:
            return
        self._ended = True
        self.took = (time.perf_counter() - self._started) * 1000
        if error is not None and not isinstance(error, GeneratorExit):
            self.metadata.setdefault("error", type(error).__name__)
        self._calls.quietly(self._calls.record, self)

    def _part(self, chunk: object) -> None:
        """A part of a stream passes."""
        self._calls.quietly(self._look, chunk)

    def _look(self, chunk: object) -> None:
        if self.first_token is None and brings_output(chunk):
            self.first_token = (time.perf_counter() - self._started) * 1000
        self._read(chunk)

    def _read(self, answer: object) -> None:
        found = read(answer)
        if found.usage is not None:
            self.usage = found.usage if self.usage is None else self.usage.largest(found.usage)
        self.answered_by = found.model or self.answered_by
        if found.model and not self.metadata.get("model"):
            self.metadata["model"] = found.model
        self.tier, self.speed = found.tier or self.tier, found.speed or self.speed
        if found.error:
            self.metadata.setdefault("error", found.error)

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)


def _nothing(error: BaseException | None = None) -> None:
    """The end of a stream inside a block: the block's own end is the call's."""


def measured(function: Callable[P, R], begin: Callable[[str | None], ModelCall]) -> Callable[P, R]:
    """`function`, each of whose calls is a model call. `begin` gets the keyword argument `model`.

    The function may return an answer, an awaitable of one, or a stream (a generator too); the call ends when the
    answer is there, or the stream is at its end, closed, or let go.
    """
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def measured_later(*args: P.args, **kwargs: P.kwargs) -> Any:
            return await _awaited(function(*args, **kwargs), begin(_model_in(kwargs)))

        return cast("Callable[P, R]", measured_later)

    @wraps(function)
    def measured_now(*args: P.args, **kwargs: P.kwargs) -> Any:
        call = begin(_model_in(kwargs))
        try:
            answer = function(*args, **kwargs)
        except BaseException as error:
            call.end(error)
            raise
        # Clients hide coroutine functions behind plain ones.
        # An answer's class, not what it says it is: nothing of an answer is asked unguarded.
        return (
            _awaited(cast("Awaitable[Any]", answer), call)
            if issubclass(type(answer), Coroutine)
            else call.handed(answer)
        )

    return measured_now


def _model_in(arguments: Mapping[str, object]) -> str | None:
    model = arguments.get("model")
    return model if isinstance(model, str) else None


async def _awaited(answer: Awaitable[Any], call: ModelCall) -> Any:
    try:
        there = await answer
    except BaseException as error:
        call.end(error)
        raise
    return call.handed(there)
