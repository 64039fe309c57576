"""The gateway's ASGI application: which route is answered by what, and how a body's verdict becomes an answer."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vibezen.metrics.clock import Clock
from vibezen.metrics.errors import MalformedEvent, UntimelyEvent
from vibezen.metrics.producers.appender import Appender
from vibezen.metrics.producers.body import Room, read_body
from vibezen.metrics.producers.idempotency import HEADER, Key, parse_key
from vibezen.metrics.producers.intake import batches, judge_body
from vibezen.metrics.serving.access import Access
from vibezen.metrics.serving.answers import Health, answer
from vibezen.metrics.serving.doors import Doors
from vibezen.metrics.serving.errors import HANDLERS, Detail
from vibezen.metrics.serving.guard import Guard
from vibezen.metrics.serving.operation import Scope
from vibezen.metrics.verdict import Rejected, Verdict

LISTED: Final = 20
"""Refused events that an answer names; of more it gives the number alone."""


class Refused(msgspec.Struct):
    """`line`: of the body, or place in its array, from 0. `field`: the part of the event that breaks a rule."""

    line: int
    field: str
    message: str


class Taken(msgspec.Struct, omit_defaults=True):
    """What became of a body.

    `accepted`: events that are in the stream now; `duplicates`: how many of them had been there before. `refused`: the
    first of those that were not taken, `refused_count` all. `next`: with a key, the number of the next body's first
    event. `error`: when none was accepted.
    """

    accepted: int
    duplicates: int
    refused: Sequence[Refused]
    refused_count: int
    next: int | None = None
    error: Detail | None = None


def build(appender: Appender, access: Access, clock: Clock, room: Room) -> Starlette:
    """The application; the appender is started and stopped by whoever serves it."""

    async def events(request: Request) -> Response:
        key = parse_key(request.headers.getlist(HEADER))
        with room.hold() as held:
            body = await read_body(request, held)
            return await _take(appender, judge_body(body, clock()), key)

    async def healthz(request: Request) -> Response:
        return answer(Health("ok"))

    async def readyz(request: Request) -> Response:
        trouble = appender.trouble
        return answer(Health("ready") if trouble is None else Health("not ready", [trouble]), 503 if trouble else 200)

    return Starlette(
        routes=[
            Route("/api/events", events, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ],
        middleware=[Middleware(Guard, access, Doors(Scope.WRITE), login=False)],
        exception_handlers=HANDLERS,
    )


async def _take(appender: Appender, verdict: Verdict, key: Key | None) -> Response:
    if verdict.rejected:
        appender.count_refused(Counter(bad.field.partition(".")[0] for bad in verdict.rejected))
    if error := _error(verdict, key):
        status, detail = error
        return answer(_taken(verdict, 0, 0, key, detail), status)
    done = await appender.append(batches(verdict), key)
    if done.gap and key is not None:
        detail = Detail("gap", f"events before these never came; the next number is {done.last + 1}", HEADER)
        return answer(Taken(0, 0, (), 0, done.last + 1, detail), 409)
    return answer(_taken(verdict, len(verdict.events), done.known, key), 207 if verdict.rejected else 200)


def _error(verdict: Verdict, key: Key | None) -> tuple[int, Detail] | None:
    """The status and the error, where nothing is to be appended."""
    kinds = {bad.kind for bad in verdict.rejected}
    if key is not None and UntimelyEvent in kinds:
        # Numbers count accepted events. Were this event accepted at the next try only, all numbers behind it would
        # shift, and new events would be taken for such as are there already.
        message = "an event lies more than 1 h ahead; with a key none is taken then, since later it might be accepted"
        return 422, Detail("untimely", message)
    if verdict.events:
        return None
    if kinds == {MalformedEvent}:
        return 400, Detail("malformed", f"no line is JSON text; the first: {verdict.rejected[0].reason}")
    return 422, Detail("invalid", f"no event keeps the rules; the first: {verdict.rejected[0].reason}")


def _taken(verdict: Verdict, accepted: int, duplicates: int, key: Key | None, error: Detail | None = None) -> Taken:
    refused = [_refused(bad) for bad in verdict.rejected[:LISTED]]
    following = key.seq + accepted if key is not None else None
    return Taken(accepted, duplicates, refused, len(verdict.rejected), following, error)


def _refused(bad: Rejected) -> Refused:
    return Refused(bad.line, bad.field, bad.reason.removeprefix(f"{bad.field}: "))
