"""Measuring a block of code: how long it took, whether it failed, and what it says about itself."""

import inspect
import time
from collections.abc import Callable, Iterator
from functools import wraps
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, cast

from vibezen.metrics.catalogue import MetricType
from vibezen.metrics.event import Metadata, MetadataValue

P = ParamSpec("P")
R = TypeVar("R")

Sample = tuple[MetricType, Any, dict[str, MetadataValue]]
"""Metric, value, metadata."""

TOKEN_TYPES: Final = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_tokens": "cache_read",
    "cache_write_tokens": "cache_write",
    "reasoning_tokens": "reasoning",
}
"""Metadata key → label `type` of the tokens event it becomes."""


class Measurement:
    """What `measure` and `measure_duration` give to their block; works as `with` and as `async with`.

    When the block ends, two events are recorded, or more if `metadata` says more:

    * `response_time`: milliseconds the block took, with `operation` = the given name and all of `metadata`;
    * `error_rate`: 1 when the block raised (anything, cancellation included) or set `metadata["error"]` to something
      true, else 0. A raised exception's class name becomes `metadata["error"]` unless the block has set one;
    * `cache_hit_rate`: 1 or 0 when `metadata["cache_hit"]` was set;
    * `tokens`: one event per `input_tokens`, `output_tokens`, `cache_read_tokens`, `cache_write_tokens` and
      `reasoning_tokens` set, labelled with its `type`; or one without a type when only `tokens` was set.

    `provider`, `model`, `phase` and every other key ride along on all of them; what became an event of its own stays
    on `response_time` only. Leaving the block never raises on account of metrics: metadata that break the contract
    are refused and counted. Exceptions of the block pass through.
    """

    __slots__ = ("_end", "_started", "metadata", "name")

    def __init__(self, name: str, metadata: Metadata | None, end: Callable[[Iterator[Sample]], None]) -> None:
        self.name = name
        self.metadata: dict[str, MetadataValue] = dict(metadata) if metadata else {}
        self._end = end
        self._started = 0.0

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        took = (time.perf_counter() - self._started) * 1000
        if kind is not None:
            self.metadata.setdefault("error", kind.__name__)
        self._end(samples(self.name, took, self.metadata, failed=kind is not None))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


def samples(name: str, took: float, metadata: dict[str, MetadataValue], *, failed: bool) -> Iterator[Sample]:
    """The events of one measurement; see Measurement. `took`: milliseconds."""
    whole = {"operation": name, **metadata}
    own = {"cache_hit", "tokens", *TOKEN_TYPES}
    shared = {key: value for key, value in whole.items() if key not in own}
    yield MetricType.RESPONSE_TIME, took, whole
    yield MetricType.ERROR_RATE, int(failed or bool(whole.get("error"))), shared
    if whole.get("cache_hit") is not None:
        yield MetricType.CACHE_HIT_RATE, int(bool(whole["cache_hit"])), shared
    typed = [key for key in TOKEN_TYPES if whole.get(key) is not None]
    for key in typed:
        yield MetricType.TOKENS, whole[key], {**shared, "type": TOKEN_TYPES[key]}
    if not typed and whole.get("tokens") is not None:
        yield MetricType.TOKENS, whole["tokens"], shared


def timed(start: Callable[[str], Measurement], name: str | None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that measures every call of a function or a coroutine function; `name`: None for its own name."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        label = name or function.__qualname__
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{label} is a generator: measure the block that consumes it instead")
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def measured(*args: P.args, **kwargs: P.kwargs) -> Any:
                with start(label):
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", measured)

        @wraps(function)
        def measured_too(*args: P.args, **kwargs: P.kwargs) -> R:
            with start(label):
                return function(*args, **kwargs)

        return measured_too

    return decorate
