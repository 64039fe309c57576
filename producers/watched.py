"""A stream whose parts are looked at while they pass through; everything else about it stays as it is."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Self

See = Callable[[object], None]
"""Gets every part."""
End = Callable[[BaseException | None], None]
"""Called when the stream is at its end, failed (with what), closed, or let go; perhaps more than once."""


def watched(answer: object, see: See, end: End) -> Any:
    """What to give on in place of a stream; None when `answer` is none."""
    kind = type(answer)
    if hasattr(kind, "__aiter__"):
        return AsyncWatched(answer, see, end)
    return Watched(answer, see, end) if hasattr(kind, "__next__") else None


class _StandsFor:
    """Has every attribute of the stream it stands for, and passes for one of its class."""

    def __init__(self, parts: Any, see: See, end: End) -> None:
        self._parts, self._see, self._end = parts, see, end

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._parts, name)
        if name in ("close", "aclose"):
            self._end(None)
        return value

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._parts)

    def __del__(self) -> None:
        self._end(None)


class Watched(_StandsFor):
    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            chunk = next(self._parts)
        except StopIteration:
            self._end(None)
            raise
        except BaseException as error:
            self._end(error)
            raise
        self._see(chunk)
        return chunk

    def __enter__(self) -> Self:
        self._parts.__enter__()
        return self

    def __exit__(self, *raised: Any) -> Any:
        self._end(raised[1])
        return self._parts.__exit__(*raised)


class AsyncWatched(_StandsFor):
    def __init__(self, parts: Any, see: See, end: End) -> None:
        super().__init__(parts, see, end)
        self._iterator: AsyncIterator[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._iterator is None:
            self._iterator = aiter(self._parts)
        try:
            chunk = await anext(self._iterator)
        except StopAsyncIteration:
            self._end(None)
            raise
        except BaseException as error:
            self._end(error)
            raise
        self._see(chunk)
        return chunk

    async def __aenter__(self) -> Self:
        await self._parts.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> Any:
        self._end(raised[1])
        return await self._parts.__aexit__(*raised)
