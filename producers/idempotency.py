"""The header `Idempotency-Key`, by which a client's retry adds nothing."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from vibezen.metrics.batch import MAX_SEQ
from vibezen.metrics.event import MAX_BATCH_EVENTS
from vibezen.metrics.keys import IMPORTS
from vibezen.metrics.serving.errors import ApiError

HEADER: Final = "Idempotency-Key"
_KEY: Final = re.compile(r"([!#-.0-~]{1,200})/([1-9][0-9]{0,15})\Z")
_RULE: Final = (
    "expected <producer>/<number>: 1 to 200 visible ASCII characters without / and quotation mark, a slash, "
    "and the number of the body's first event, counted from 1"
)


class Key(NamedTuple):
    """`seq`: the number of the body's first event among all that this producer ever had accepted, from 1."""

    producer: str
    seq: int


def parse_key(values: Sequence[str]) -> Key | None:
    """The key among the header's `values`; None without one. Raises ApiError 400."""
    if not values:
        return None
    # The quotes of a structured field, which the header's own specification asks for, are no part of the key.
    text = values[0][1:-1] if values[0][:1] == values[0][-1:] == '"' else values[0]
    found = _KEY.match(text)
    if len(values) > 1 or found is None or int(found[2]) > MAX_SEQ - MAX_BATCH_EVENTS:
        raise ApiError(400, _RULE, code="bad_key", field=HEADER)
    if found[1].startswith(IMPORTS):  # a client that took such a name would keep that import from going on
        raise ApiError(400, f"names that begin with {IMPORTS} belong to imports", code="bad_key", field=HEADER)
    return Key(found[1], int(found[2]))
