"""What a login leaves in the browser: not the token, but a session signed with its digest.

`<name of the token>.<Unix seconds it ends>.<signature>`. Nothing is stored for it; it holds in every process of the
store, for as long as its token holds, and is of no use as a bearer token.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from vibezen.metrics.serving.tokens import Token

SESSION_SECONDS: Final = 365 * 86_400
"""A screen on a wall should not ask for a login every month; whoever wants less gives its token an end."""


def session(token: Token, now: float) -> tuple[str, int]:
    """A session of this token, and the seconds it lasts."""
    seconds = SESSION_SECONDS if token.expires is None else max(0, min(SESSION_SECONDS, int(token.expires - now)))
    ends = int(now) + seconds
    return f"{token.name}.{ends}.{_signature(token, ends)}", seconds


def token_of_session(shown: str, tokens: Iterable[Token], now: float) -> Token | None:
    """The token that a session was made with, if it holds."""
    name, _, rest = shown.rpartition(".")
    name, _, ends = name.rpartition(".")
    if not (ends.isascii() and ends.isdigit() and len(ends) < 15) or int(ends) <= now:
        return None
    for token in tokens:
        if token.name == name and hmac.compare_digest(_signature(token, int(ends)).encode(), rest.encode()):
            return token
    return None


def _signature(token: Token, ends: int) -> str:
    said = f"session {token.name} {ends}".encode()
    made = hmac.new(bytes.fromhex(token.sha256), said, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(made).decode().rstrip("=")
