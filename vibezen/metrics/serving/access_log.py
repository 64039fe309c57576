"""The access log: one JSON object a line on standard error, for whoever asks at night what went on.

Values of parameters are shown only where an operation declares them and they are no secret: a token that somebody
pastes into an address must not stay in a log. No header is shown but a shortened `User-Agent`.
"""

import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from starlette.datastructures import Headers
from starlette.types import Scope

from vibezen.metrics.serving.operation import Operation
from vibezen.metrics.serving.tokens import MARK

MAX_PATH: Final = 500
MAX_AGENT: Final = 100
"""Characters."""
HIDDEN: Final = "***"
_SECRET = re.compile(rf"((?:token|ticket)=|{MARK})[^&]*", re.IGNORECASE)

log = logging.getLogger("vibezen.access")


class Line(msgspec.Struct):
    """`bytes`: of the body as it was sent, or of all WebSocket messages. `ms`: until the last of it was given away.
    `status`: null where the connection ended before there was one."""

    time: str
    method: str
    path: str
    status: int | None
    ms: float
    bytes: int
    client: str | None
    request: str
    agent: str


class AccessLog:
    """Writes lines. `operations`: which declare the parameters that may be shown."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        declared = [parameter for operation in operations for parameter in operation.parameters]
        secret = {parameter.name for parameter in declared if parameter.secret}
        self._shown = frozenset({one.name for one in declared if one.place == "query"} - secret)

    def write(self, scope: Scope, status: int | None, seconds: float, size: int, request: str) -> None:
        line = Line(
            time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            method=scope["method"] if scope["type"] == "http" else "WS",
            path=self.path(scope),
            status=status,
            ms=round(1000 * seconds, 1),
            bytes=size,
            client=scope["client"][0] if scope.get("client") else None,
            request=request,
            agent=Headers(scope=scope).get("user-agent", "")[:MAX_AGENT],
        )
        log.info(msgspec.json.encode(line).decode())

    def path(self, scope: Scope) -> str:
        """Path and query without what may be a secret."""
        path = _masked(scope["path"])
        given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = "&".join(f"{_masked(name)}={value if name in self._shown else HIDDEN}" for name, value in given)
        return (f"{path}?{shown}" if shown else path)[:MAX_PATH]


def _masked(text: str) -> str:
    return _SECRET.sub(rf"\1{HIDDEN}", text)


def show_on_stderr() -> None:
    """Let lines of the access log go to standard error as they are, and nowhere else."""
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
