"""The origin of a web page, as browsers name it."""

import re
from typing import Final

ORIGIN_RULE: Final = (
    "what a browser sends: scheme and host in small letters, and the port unless it is the scheme's own, "
    "for example 'http://localhost:3000'"
)
_ORIGIN: Final = re.compile(r"(https?)://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(?::([1-9][0-9]{0,4}))?\Z")
_OWN_PORT: Final = {"http": "80", "https": "443"}


def is_origin(text: str) -> bool:
    """Whether a browser may send exactly this. Anything else would never match, and its author would never know."""
    found = _ORIGIN.match(text)
    return found is not None and found[2] != _OWN_PORT[found[1]] and int(found[2] or 0) <= 65535
