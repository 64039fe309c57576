"""A question while it is answered, and how that ends early: its time is over, or nobody waits for the answer any more.

Files are read in worker threads, which no cancellation reaches: there the query itself is interrupted.
"""

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Protocol, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from vibezen.metrics.errors import MetricsError, TooSlow

T = TypeVar("T")

AGAIN: Final = 0.05
"""Seconds between two interruptions: one that comes just before a query begins has no effect on it."""


class Interruptible(Protocol):
    def interrupt(self) -> None: ...


class _Stopped(MetricsError):
    """The query was interrupted, since its answer is not wanted any more."""


class _Asking:
    """What runs for one question."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[Interruptible] = []
        self.stopped = False

    @contextmanager
    def run(self, query: Interruptible) -> Iterator[None]:
        with self._lock:
            if self.stopped:
                raise _Stopped
            self._running.append(query)
        try:
            yield
        except Exception:
            if self.stopped:
                raise _Stopped from None
            raise
        finally:
            with self._lock:
                self._running.remove(query)

    def stop(self) -> bool:
        """Interrupt what runs, and let nothing else begin; whether anything ran."""
        with self._lock:
            self.stopped = True
            for query in self._running:
                query.interrupt()
            return bool(self._running)


_current: ContextVar[_Asking | None] = ContextVar("asking", default=None)
"""Worker threads run in a copy of the context they are started from."""


@contextmanager
def stoppable(query: Interruptible) -> Iterator[None]:
    """What runs in this block for the question that is being answered is interrupted when that ends early."""
    asking = _current.get()
    if asking is None:
        yield
        return
    with asking.run(query):
        yield


async def answered(ask: Callable[[], Awaitable[T]], seconds: float) -> T:
    """What `ask` answers. Raises TooSlow after `seconds`; then, and when it is cancelled, no query is left running."""
    asking = _Asking()
    outcome: list[T] = []
    failure: Exception | None = None

    async def interrupt_at_the_end(*, task_status: TaskStatus[None]) -> None:
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                while asking.stop():  # noqa: ASYNC110 - a thread cannot set an event of the loop
                    await anyio.sleep(AGAIN)

    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as group:
            await group.start(interrupt_at_the_end)
            token = _current.set(asking)
            try:
                outcome.append(await ask())
            except _Stopped:
                pass
            except Exception as error:  # raised behind the group, which would wrap it
                failure = error
            finally:
                _current.reset(token)
            group.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint_if_cancelled()
    if failure is not None:
        raise failure
    if not outcome:
        raise TooSlow(seconds)
    return outcome[0]
