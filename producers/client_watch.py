"""Watching a client: its methods that call a model are measured, wherever in the program they are called."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from vibezen.metrics.producers.model_call import ModelCall, measured

METHODS: Final = (
    "chat.completions.create",
    "chat.completions.parse",
    "responses.create",
    "responses.parse",
    "embeddings.create",
    "messages.create",
    "messages.parse",
)
"""What the `openai` and `anthropic` clients call a model by, from the client."""
_MARK: Final = "_vibezen_metrics_measured"

log = logging.getLogger("vibezen.metrics.collector")


def watch(client: object, begin: Callable[[str, str, str | None], ModelCall], provider: str | None) -> None:
    """Replace the methods of this one client by measured ones. `begin` gets provider, method and model."""
    known = provider or type(client).__module__.partition(".")[0]
    found = [_replace(client, method, begin, known) for method in METHODS]
    if not any(found):
        log.warning("%s has no method known to call a model: nothing of it is measured", type(client).__name__)


def _replace(client: object, method: str, begin: Callable[[str, str, str | None], ModelCall], provider: str) -> bool:
    owner: Any = client
    *path, name = method.split(".")
    for step in path:
        owner = getattr(owner, step, None)
    function = getattr(owner, name, None)
    if not callable(function):
        return False
    if not getattr(function, _MARK, False):
        replacement = measured(function, partial(begin, provider, method))
        setattr(replacement, _MARK, True)
        setattr(owner, name, replacement)
    return True
