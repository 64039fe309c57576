"""Answers about the past over HTTP: named by an ETag, not computed twice, and given up when the client is gone."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

import anyio
import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from vibezen.metrics.serving.errors import ApiError
from vibezen.metrics.serving.operation import Answer
from vibezen.metrics.settled import KeptAnswers, name_of

T = TypeVar("T")

SETTLED_SECONDS: Final = 60
"""How long a browser may keep an answer that cannot change any more without asking again: an event may come late."""
_GONE: Final = 499
"""What is put down for a client that did not wait; nobody reads it."""


class Inquiry(NamedTuple, Generic[T]):
    """A question that may be answered. `name`: of the answer, None while it may change."""

    name: Callable[[], Awaitable[str | None]]
    answer: Callable[[], Awaitable[T]]


def asked_in(connection: HTTPConnection) -> dict[str, list[str]]:
    """The parameters of an address, each with all the values it is given."""
    return {name: connection.query_params.getlist(name) for name in connection.query_params}


def settled(description: str, type_: Any) -> dict[int, Answer]:
    """Of a question about the past, whose answer has an ETag."""
    return {200: Answer(description, type_), 304: Answer("What `If-None-Match` names is still the answer", media=())}


async def respond(request: Request, inquiry: Inquiry[Any], kept: KeptAnswers) -> Response:
    """The answer as JSON, or 304 where the client has it."""
    name = await inquiry.name()
    known = _known(request)
    if name is not None and _tag(name) in known:
        return _response(b"", name, settled=True, status=304)
    body = kept.get(name) if name is not None else None
    if body is None:
        body = msgspec.json.encode(await while_connected(request, inquiry.answer))
        if name is not None:
            kept.put(name, body)
    told = name or name_of(body)
    if _tag(told) in known:
        return _response(b"", told, settled=False, status=304)
    return _response(body, told, settled=name is not None)


async def while_connected(request: Request, ask: Callable[[], Awaitable[T]]) -> T:
    """What `ask` answers; it is cancelled when the client closes its connection."""
    outcome: list[T] = []
    failure: Exception | None = None
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            outcome.append(await ask())
        except Exception as error:  # raised behind the group, which would wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if not outcome:
        raise ApiError(_GONE, "the client did not wait for the answer", code="gone")
    return outcome[0]


def _tag(name: str) -> str:
    return f'"{name}"'


def _known(request: Request) -> set[str]:
    """The ETags of answers that the client has. One that a proxy has weakened is as good here."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return {tag.strip().removeprefix("W/") for tag in given.split(",")}


def _response(body: bytes, name: str, *, settled: bool, status: int = 200) -> Response:
    fresh = f"max-age={SETTLED_SECONDS}" if settled else "no-cache"
    headers = {"etag": _tag(name), "cache-control": f"private, {fresh}"}
    if status == 304:
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers, media_type="application/json")
