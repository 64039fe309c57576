"""The tokens that hold now, as a running server knows them: changes of the files are seen within a second."""

import hmac
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vibezen.metrics.clock import Clock, monotonic, wall
from vibezen.metrics.errors import StoreError
from vibezen.metrics.serving.sessions import token_of_session
from vibezen.metrics.serving.tokens import FIRST_FILE, LIST_FILE, Token, as_first, digest, first_token, listed

LOOK_SECONDS: Final = 1.0
"""Between two looks at the files."""

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int] | None
"""Inode, time and size of a file: a file that is replaced has another one."""


class Keyring:
    """Raises StoreError when it is made and the tokens cannot be read; later, the last readable ones go on to hold.

    `given`: the first token, where the setting `auth.token` says it.
    """

    def __init__(
        self, storage: Path, given: str | None = None, *, clock: Clock = wall, passed: Callable[[], float] = monotonic
    ) -> None:
        self._storage, self._given = storage, given
        self._clock, self._passed = clock, passed
        self._looked = passed()
        self.first = first_token(storage, given)
        self._stamps = self._look()
        self._tokens = self._read()

    def refresh(self) -> None:
        """See what changed, at most once in LOOK_SECONDS."""
        if self._passed() - self._looked < LOOK_SECONDS:
            return
        self._looked = self._passed()
        stamps = self._look()
        if stamps != self._stamps or stamps[0] is None:
            self._take()

    def _take(self) -> None:
        self._stamps = self._look()
        try:
            self.first = first_token(self._storage, self._given)  # made anew where somebody deleted it
            self._tokens = self._read()
        except StoreError as error:
            log.error("the tokens known so far go on to hold: %s", error)
            return
        self._stamps = self._look()
        log.info("the tokens changed: %d hold now", len(self._tokens))

    def find(self, shown: str) -> Token | None:
        """Compares with every token, so that an unknown one takes as long as one that is nearly right."""
        self.refresh()
        found = self._match(shown)
        if found is None and self._look() != self._stamps:  # made this very second
            self._take()
            found = self._match(shown)
        return None if found is None or found.is_over(self._clock()) else found

    def _match(self, shown: str) -> Token | None:
        asked, found = digest(shown).encode(), None
        for token in self._tokens:
            if hmac.compare_digest(asked, token.sha256.encode()):
                found = token
        return found

    def of_session(self, shown: str) -> Token | None:
        self.refresh()
        now = self._clock()
        found = token_of_session(shown, self._tokens, now)
        return None if found is None or found.is_over(now) else found

    def marked(self, mark: str) -> Token | None:
        """The token with this mark (`mark_of`)."""
        self.refresh()
        found = next((token for token in self._tokens if mark_of(token) == mark), None)
        return None if found is None or found.is_over(self._clock()) else found

    def holds(self, token: Token) -> bool:
        """Whether a token found earlier is still the same, and not over."""
        return token in self._tokens and not token.is_over(self._clock())

    def _read(self) -> tuple[Token, ...]:
        return (as_first(self.first, 0.0), *listed(self._storage))

    def _look(self) -> tuple[Stamp, Stamp]:
        first = (0, 0, 0) if self._given is not None else _stamp(self._storage / FIRST_FILE)
        return first, _stamp(self._storage / LIST_FILE)


def mark_of(token: Token) -> str:
    """Tells a token from every other one, also from an earlier one of its name, and lets nobody in."""
    return digest(f"mark {token.sha256}")


def _stamp(path: Path) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
