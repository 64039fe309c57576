"""The gateway's ASGI application: which route is answered by what, and how a body's verdict becomes an answer."""

from collections import Counter
from collections.abc import Sequence
from http import HTTPMethod
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from vibezen.metrics.clock import Clock
from vibezen.metrics.errors import MalformedEvent, UntimelyEvent
from vibezen.metrics.event import MAX_BATCH_EVENTS, Event
from vibezen.metrics.producers.appender import Appender
from vibezen.metrics.producers.body import Room, read_body
from vibezen.metrics.producers.idempotency import HEADER, Key, parse_key
from vibezen.metrics.producers.intake import batches, judge_body
from vibezen.metrics.serving.access import Access
from vibezen.metrics.serving.access_log import AccessLog
from vibezen.metrics.serving.answers import Health, answer
from vibezen.metrics.serving.compression import Compression
from vibezen.metrics.serving.description import About, Description
from vibezen.metrics.serving.doors import Doors
from vibezen.metrics.serving.errors import HANDLERS, Detail
from vibezen.metrics.serving.guard import Guard
from vibezen.metrics.serving.limits import Limits
from vibezen.metrics.serving.operation import EVENTS, HEALTH, JSON, Answer, Handler, Operation, Parameter, Scope
from vibezen.metrics.serving.reception import Reception
from vibezen.metrics.serving.version import package_version
from vibezen.metrics.verdict import Rejected, Verdict

PATH: Final = "/api/events"
NDJSON: Final = "application/x-ndjson"
TITLE: Final = "VIBEZEN Metrics: gateway"
TEXT: Final = """\
Takes events in over HTTP. The API, on port 8080, answers questions about them and describes itself the same way."""
KEY: Final = Parameter(
    HEADER,
    Annotated[str, Meta(pattern=r"^[!#-.0-~]{1,200}/[1-9][0-9]{0,14}$")],
    "`<producer>/<number>`: who sends, and the number of the body's first event among all of theirs that were "
    "accepted, from 1. With it a retry adds nothing.",
    place="header",
)
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


def build(appender: Appender, access: Access, clock: Clock, room: Room, *, access_log: bool = False) -> Starlette:
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

    def probe(path: str, handler: Handler, summary: str) -> Operation:
        answers = {200: Answer("It is so", Health), 503: Answer("Not now, for these reasons", Health)}
        return Operation(path, handler, summary, answers, scope=None, group=HEALTH)

    description = Description(
        [
            Operation(
                PATH,
                events,
                "Events sent in",
                {
                    200: Answer("All are in the stream", Taken),
                    207: Answer("Some are, the others are named", Taken),
                    409: Answer("With a key: events before these never came; `next` says from where", Taken),
                    422: Answer("No event keeps the rules", Taken),
                },
                f"One JSON object a line, or an array of them; up to {MAX_BATCH_EVENTS} events and 1 MiB, packed by "
                "gzip or not. Answered once Redis has them.\n\nA bad event is refused with its index and the reason, "
                "its good neighbours are taken.",
                (KEY,),
                body=Answer("The events.", list[Event], (JSON, NDJSON)),
                method=HTTPMethod.POST,
                scope=Scope.WRITE,
                errors=(408, 413, 415),
                group=EVENTS,
            ),
            probe("/healthz", healthz, "Whether the process lives"),
            probe("/readyz", readyz, "Whether events can be taken"),
        ],
        About(TITLE, TEXT, package_version(), cookie=False, open=access.keyring is None),
    )
    return Starlette(
        routes=description.routes(),
        middleware=[
            Middleware(Reception, AccessLog(description.operations) if access_log else None),
            Middleware(Guard, access, Doors(Scope.WRITE, description.operations), login=False),
            Middleware(Compression),
            Middleware(Limits),
        ],
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
