"""Answers that cannot change any more: those about hours that no window reaches and no archiver writes to.

Such an answer is named by the question and by the files it is read from, so that the same one need not be computed
again. An event that comes late, or a file that is put in the place of others, makes it another name.
"""

from collections import OrderedDict
from hashlib import blake2b
from typing import Any, Final

import msgspec
from anyio import to_thread

from vibezen.metrics.committed import hours_of
from vibezen.metrics.event import MAX_AHEAD
from vibezen.metrics.event_reader import EventReader
from vibezen.metrics.settings import Settings

_VERSION: Final = 1
"""Of what answers hold; a new one makes every answer another."""


def name_of(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


class Settled:
    """Names answers of one store under the settings that hold here."""

    def __init__(self, reader: EventReader, settings: Settings) -> None:
        self._reader = reader
        self._kept = max(width.keep_seconds for width in settings.aggregation.widths) + MAX_AHEAD
        self._rules = (_VERSION, settings.aggregation.labels, settings.metrics)

    async def name(self, question: Any, since: float, until: float, now: float) -> str | None:
        """The name of the answer about [since, until), None while it may change. `question`: all that is asked, as
        plain data. Raises StoreError."""
        if until > now - self._kept:
            return None
        files = await to_thread.run_sync(self._files, since, until)
        return None if files is None else name_of(msgspec.json.encode((self._rules, question, files)))

    def _files(self, since: float, until: float) -> list[Any] | None:
        snapshot = self._reader.snapshot(hours_of(since, until))
        files = snapshot.files(snapshot.hours())
        return None if files.still_open else sorted(files.identity())


class KeptAnswers:
    """Answers by their names, those used longest ago dropped first. `size`: bytes that all together may take."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._answers: OrderedDict[str, bytes] = OrderedDict()

    def get(self, name: str) -> bytes | None:
        if name in self._answers:
            self._answers.move_to_end(name)
        return self._answers.get(name)

    def put(self, name: str, answer: bytes) -> None:
        if name in self._answers or len(answer) > self._size:
            return
        self._answers[name] = answer
        self._left -= len(answer)
        while self._left < 0:
            _, dropped = self._answers.popitem(last=False)
            self._left += len(dropped)
