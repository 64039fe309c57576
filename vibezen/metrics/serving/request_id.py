"""The name of a request: told in its answer, and in whatever the log says about it.

A client, or a proxy, may give one with `X-Request-Id`; where it is not harmless in a log it gets another.
"""

import logging
import re
import secrets
from contextvars import ContextVar
from typing import Final

HEADER: Final = "x-request-id"
_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")

current: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is answered by this task."""


def choose(given: str | None) -> str:
    return given if given is not None and _HARMLESS.match(given) else secrets.token_hex(8)


def add_to(record: logging.LogRecord) -> bool:
    """A filter for a logger: what is said while a request is answered tells which one."""
    if name := current.get():
        record.msg = f"{record.msg} (request {name})"
    return True
