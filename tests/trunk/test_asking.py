"""However the answering of a question ends, no query of it goes on."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import duckdb
import pytest
from anyio import to_thread

from tests.support.waiting import DEADLINE
from vibezen.metrics.asking import answered, stoppable
from vibezen.metrics.errors import BadParameter, MetricsError, TooSlow

LONG = "SELECT max(a.range * b.range) FROM range(60000) a, range(60000) b"
"""Some ten seconds."""


class Slow:
    """A question whose queries take long. `through`: whether one came to its end."""

    def __init__(self) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()
        self.queries, self.through = 0, False
        self._connection = duckdb.connect()

    async def ask(self) -> int:
        return await to_thread.run_sync(self._read_twice)

    def _read_twice(self) -> int:
        with suppress(MetricsError):  # whatever comes of the first one
            self._read()
        return self._read()

    def _read(self) -> int:
        with self._connection.cursor() as cursor, stoppable(cursor):
            self.queries += 1
            self.begun.set()
            try:
                cursor.execute(LONG).fetchall()
                self.through = True
            finally:
                self.ended.set()
        return 0


@pytest.fixture
def slow() -> Slow:
    return Slow()


def test_question_that_takes_too_long_ends_with_what_to_ask_instead(slow: Slow) -> None:
    with pytest.raises(TooSlow, match=r"not answered within 0\.1 s \(queries.seconds\): ask for less time"):
        anyio.run(answered, slow.ask, 0.1)
    assert (slow.ended.is_set(), slow.queries, slow.through) == (True, 1, False)


def test_question_that_is_cancelled_ends_its_query_and_begins_no_other(slow: Slow) -> None:
    async def run() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(answered, slow.ask, DEADLINE)
            await to_thread.run_sync(slow.begun.wait)
            group.cancel_scope.cancel()
        assert slow.ended.is_set()

    anyio.run(run)
    assert (slow.queries, slow.through) == (1, False)


def test_task_that_is_cancelled_by_asyncio_ends_its_query(slow: Slow) -> None:
    async def run() -> None:
        task = asyncio.create_task(answered(slow.ask, DEADLINE))
        await asyncio.to_thread(slow.begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slow.ended.is_set()

    asyncio.run(run())
    assert not slow.through


def test_other_questions_are_not_disturbed(slow: Slow) -> None:
    async def quick() -> Any:
        def read() -> Any:
            with duckdb.connect() as connection, stoppable(connection):
                slow.ended.wait(DEADLINE)
                return connection.execute("SELECT 42").fetchall()

        return await to_thread.run_sync(read)

    async def run() -> None:
        async with anyio.create_task_group() as group:

            async def give_up() -> None:
                with pytest.raises(TooSlow):
                    await answered(slow.ask, 0.05)

            group.start_soon(give_up)
            assert await answered(quick, DEADLINE) == [(42,)]

    anyio.run(run)


@pytest.mark.parametrize("error", [BadParameter("from", "x"), RuntimeError("x"), TimeoutError()])
def test_errors_come_out_as_they_are(error: Exception) -> None:
    async def fail() -> None:
        await to_thread.run_sync(lambda: None)
        raise error

    with pytest.raises(type(error)) as caught:
        anyio.run(answered, fail, DEADLINE)
    assert caught.value is error


def test_what_runs_for_no_question_is_left_alone() -> None:
    with duckdb.connect() as connection, stoppable(connection):
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_answer_is_told(backend: str) -> None:
    async def ask() -> int:
        return await to_thread.run_sync(lambda: 7)

    run: Callable[..., Any] = anyio.run
    asked: Callable[[], Awaitable[int]] = ask
    assert run(answered, asked, DEADLINE, backend=backend) == 7
