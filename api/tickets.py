"""Tickets: what a client that can set no header puts into the address of a stream or socket, once.

An address is written into logs and histories, so that no token may stand in it. A ticket there is of use to nobody:
it was taken with the request. Kept in Redis, so that any process of the API takes what another one made.
"""

import secrets
from http import HTTPMethod
from typing import Final

import msgspec
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response

from vibezen.metrics.clock import Clock
from vibezen.metrics.keys import Keys
from vibezen.metrics.serving.answers import answer
from vibezen.metrics.serving.guard import GRANT
from vibezen.metrics.serving.keyring import mark_of
from vibezen.metrics.serving.operation import LIVE, Answer, Operation
from vibezen.metrics.serving.tokens import Token, digest

TICKET_SECONDS: Final = 30


class Ticket(msgspec.Struct):
    """`expires`: Unix seconds."""

    ticket: str
    expires: float


class Tickets:
    def __init__(self, client: Redis, keys: Keys, clock: Clock) -> None:
        self._client, self._keys, self._clock = client, keys, clock

    async def make(self, token: Token | None) -> Ticket:
        """For whoever showed this token; None where none is needed, nor a ticket."""
        shown = secrets.token_urlsafe(24)
        expires = self._clock() + TICKET_SECONDS
        await self._client.set(self._keys.ticket(digest(shown)), mark_of(token) if token else "open", ex=TICKET_SECONDS)
        return Ticket(shown, expires)

    async def redeem(self, shown: str) -> str | None:
        """The mark of the token it was made with; None when it was taken before, is too old or none at all."""
        found = await self._client.getdel(self._keys.ticket(digest(shown)))
        return found.decode() if isinstance(found, bytes) else found


def ticket_operation(tickets: Tickets) -> Operation:
    async def ticket(request: Request) -> Response:
        grant = getattr(request.state, GRANT, None)
        return answer(await tickets.make(grant.token if grant is not None else None))

    return Operation(
        "/api/ticket",
        ticket,
        "A ticket for one stream or socket",
        {200: Answer("Put it into the address as `?ticket=`; valid once, within 30 seconds", Ticket)},
        description="For clients that can set no header, such as `EventSource`: a token must not stand in an address.",
        method=HTTPMethod.POST,
        group=LIVE,
    )
