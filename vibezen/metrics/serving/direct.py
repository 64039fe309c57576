"""The server's own `send`, past all middleware: for answers of many small messages to many clients.

Each layer of middleware looks at every message, and wants but the first. All of them together took half of our time for
a message of the live feed.
"""

from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

_KEY: Final = "vibezen.direct"


@dataclass
class Line:
    """`size`: bytes that were sent by it, kept by whoever sends, since nobody else sees them."""

    send: Send
    size: int = 0


class Direct:
    """Around everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_KEY] = Line(send)
        await self._app(scope, receive, send)


def direct_line(scope: Scope, send: Send) -> Line:
    """For what follows an answer's beginning, which goes by `send`: middleware has headers to add."""
    line: Line | None = scope.get(_KEY)
    return Line(send) if line is None else line


def sent_directly(scope: Scope) -> int:
    """Bytes that no middleware has seen."""
    line: Line | None = scope.get(_KEY)
    return 0 if line is None else line.size
