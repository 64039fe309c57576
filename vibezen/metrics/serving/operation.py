"""What an HTTP door answers to, declared once: routing, access and the OpenAPI description are made of it."""

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from http import HTTPMethod
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

JSON: Final = "application/json"

Handler = Callable[[Request], Awaitable[Response]]


class Scope(StrEnum):
    """What a token allows. `ADMIN` allows all of it."""

    READ = "read"
    WRITE = "write"
    """Sending events in."""
    ADMIN = "admin"
    """Changing what others see: silences, acknowledgements, replays."""


class Parameter(msgspec.Struct, frozen=True):
    """One parameter. `type`: what msgspec makes a schema of. `repeated`: may be given several times."""

    name: str
    type: Any
    description: str
    required: bool = False
    repeated: bool = False
    place: str = "query"


class Answer(msgspec.Struct, frozen=True):
    """What may come back. `type`: of its JSON, or of the data of its server-sent events; None: the bytes have none."""

    description: str
    type: Any = None
    media: tuple[str, ...] = (JSON,)


class Operation(msgspec.Struct, frozen=True):
    """One method of one path. `scope`: that a token must have, None where nobody needs one. `answers` by status; every
    operation may also answer with an error (serving/errors.py)."""

    path: str
    handler: Handler
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Answer | None = None
    method: HTTPMethod = HTTPMethod.GET
    scope: Scope | None = Scope.READ

    def route(self) -> Route:
        return Route(self.path, self.handler, methods=[self.method])
