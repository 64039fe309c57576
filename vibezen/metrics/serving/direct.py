"""The server's own `send`, past all middleware: for answers of many small messages to many clients.

Each layer of middleware looks at every message, and wants but the first. Seven of them took half of our time for a
message of the live feed.
"""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

_KEY: Final = "vibezen.direct_send"


class Direct:
    """Around everything else; remembers `send` for `direct_send`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_KEY] = send
        await self._app(scope, receive, send)


def direct_send(scope: Scope, send: Send) -> Send:
    """For what follows an answer's beginning, which goes by `send`: middleware has headers to add."""
    direct: Send = scope.get(_KEY, send)
    return direct
