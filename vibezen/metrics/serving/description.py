"""`GET /api/openapi.json` and `GET /docs`: what a door answers to, for programs and for people."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vibezen.metrics.serving.access import COOKIE, cookie_name
from vibezen.metrics.serving.docs_page import docs_page, style
from vibezen.metrics.serving.openapi import Json, describe
from vibezen.metrics.serving.operation import Answer, Operation, routes

GROUP: Final = "Description"
_HEADERS: Final = {"cache-control": "no-cache"}


class About(msgspec.Struct, frozen=True):
    """What a description says of its door as a whole. `cookie`: whether one can stand for the token. `open`: no token
    is needed."""

    title: str
    text: str
    version: str
    cookie: bool
    open: bool


class Description:
    """Of `operations` and of the operations that show it, which `operations` here has, too."""

    def __init__(self, operations: Sequence[Operation], about: About) -> None:
        self._about = about
        self.operations = [*operations, *self._own()]
        self._made: Json | None = None

    def document(self, request: Request) -> Json:
        """As whoever sent this request needs it: the name of the cookie follows from the port that they named."""
        about = self._about
        if self._made is None:
            self._made = describe(
                self.operations,
                title=about.title,
                text=about.text,
                version=about.version,
                cookie=COOKIE if about.cookie else None,
                open_=about.open,
            )
        if not about.cookie:
            return self._made
        document = deepcopy(self._made)
        name = cookie_name(request.headers.get("host"), secure=request.scope["scheme"] == "https")
        document["components"]["securitySchemes"]["cookie"]["name"] = name
        return document

    def routes(self) -> list[Route]:
        async def css(request: Request) -> Response:
            return Response(style(), headers=_HEADERS, media_type="text/css")

        return [*routes(self.operations), Route("/docs.css", css)]

    def _own(self) -> list[Operation]:
        async def openapi(request: Request) -> Response:
            return Response(
                msgspec.json.encode(self.document(request)), headers=_HEADERS, media_type="application/json"
            )

        async def docs(request: Request) -> Response:
            url = str(request.base_url).rstrip("/")
            return Response(docs_page(self.document(request), url), headers=_HEADERS, media_type="text/html")

        return [
            Operation(
                "/api/openapi.json",
                openapi,
                "This description, as OpenAPI 3.1",
                {200: Answer("The document", Json)},
                group=GROUP,
            ),
            Operation("/docs", docs, "This page", {200: Answer("The page", media=("text/html",))}, group=GROUP),
        ]
