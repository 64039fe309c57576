"""FastStream doing our jobs, set up as its documentation shows: one message per event, models checked by pydantic.

Only imported in interpreters of its own.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Final

from faststream.redis import RedisBroker, StreamSub
from pydantic import BaseModel

STREAM: Final = "faststream"
GROUP: Final = "archive"
PIPELINE: Final = 500
"""Messages per round trip where messages are pipelined."""
BATCH: Final = 500
"""Messages per call of the batch subscriber, as many as our entries hold."""

SILENT: Any = None
"""The broker takes None for "no log line per message"; its annotation does not say so."""


class Measured(BaseModel):
    """The event of the contract, as a FastStream application would declare it."""

    metric: str
    value: float
    ts: float
    metadata: dict[str, str | int | float | bool | None] = {}


def publish(url: str, messages: list[dict[str, Any]], *, pipelined: bool) -> float:
    """Messages per second."""
    return asyncio.run(_publish(url, messages, pipelined=pipelined))


async def _publish(url: str, messages: list[dict[str, Any]], *, pipelined: bool) -> float:
    async with RedisBroker(url, logger=SILENT) as broker:
        start = time.perf_counter()
        if pipelined:
            client = await broker.connect()
            for first in range(0, len(messages), PIPELINE):
                async with client.pipeline(transaction=False) as pipe:
                    for message in messages[first : first + PIPELINE]:
                        await broker.publish(message, stream=STREAM, pipeline=pipe)
                    await pipe.execute()
        else:
            for message in messages:
                await broker.publish(message, stream=STREAM)
        return len(messages) / (time.perf_counter() - start)


def archive(url: str, count: int, path: Path, *, last_id: str = "0") -> float:
    """Read, validate, append, fdatasync and acknowledge `count` messages that are there already; messages a second."""
    return asyncio.run(_archive(url, count, path, last_id))


async def _archive(url: str, count: int, path: Path, last_id: str) -> float:
    broker = RedisBroker(url, logger=SILENT)
    all_written = asyncio.Event()
    written = 0
    with path.open("wb", buffering=0) as file:

        @broker.subscriber(
            stream=StreamSub(STREAM, group=GROUP, consumer="one", batch=True, max_records=BATCH, last_id=last_id)
        )
        async def write(batch: list[Measured]) -> None:
            nonlocal written
            file.write(b"".join(message.model_dump_json().encode() + b"\n" for message in batch))
            os.fdatasync(file.fileno())
            written += len(batch)
            if written >= count:
                all_written.set()

        start = time.perf_counter()
        async with broker:
            await broker.start()
            await all_written.wait()
            took = time.perf_counter() - start
    return count / took
