"""Which scope a path asks for, before anything of it is run: made of the declared operations."""

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl

from starlette.routing import compile_path
from starlette.types import Scope as AsgiScope

from vibezen.metrics.serving.operation import EVENT_STREAM, Operation, Scope

PROBES: Final[Mapping[str, Scope | None]] = {"/healthz": None, "/readyz": None}
"""Probes cannot log in."""


class Doors:
    """`otherwise`: what every path asks for that is not declared, known or not. `paths`: such as are no operations."""

    def __init__(
        self,
        otherwise: Scope,
        operations: Iterable[Operation] = (),
        paths: Mapping[str, Scope | None] = PROBES,
    ) -> None:
        self._otherwise = otherwise
        self._paths = dict(paths)
        self._live: set[str] = set()
        self._either: set[str] = set()
        """Paths that answer as well as stream, which is asked for by `live=true`."""
        self._declared: dict[tuple[str, str], Scope | None] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Scope | None]] = []
        for operation in operations:
            if "{" in operation.path:
                self._patterns.append((operation.method, compile_path(operation.path)[0], operation.scope))
            else:
                self._declared[operation.method, operation.path] = operation.scope
            for answer in operation.answers.values():
                if EVENT_STREAM in answer.media:
                    (self._live if len(answer.media) == 1 else self._either).add(operation.path)

    def asks(self, scope: AsgiScope) -> Scope | None:
        """None: nobody needs a token here."""
        path = route_path(scope)
        if scope["type"] == "websocket":
            return self._otherwise
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if (method, path) in self._declared:
            return self._declared[method, path]
        if path in self._paths:
            return self._paths[path]
        for declared, pattern, asked in self._patterns:
            if declared == method and pattern.match(path):
                return asked
        return self._otherwise

    def is_live(self, scope: AsgiScope) -> bool:
        """Whether it stays open: a WebSocket or a stream."""
        if scope["type"] == "websocket":
            return True
        path = route_path(scope)
        return path in self._live or (path in self._either and _asks_for_stream(scope))


def _asks_for_stream(scope: AsgiScope) -> bool:
    return ("live", "true") in parse_qsl(scope["query_string"].decode("latin-1"))


def route_path(scope: AsgiScope) -> str:
    """The path that routes are written with: without the root path."""
    path: str = scope["path"]
    root = scope.get("root_path", "")
    return path.removeprefix(root) if root and path.startswith(root + "/") else path
