"""The store's tokens: who may ask for what.

The first one stands as it is in `<storage_dir>/token`, so that its owner can look it up; those made later are kept in
`<storage_dir>/tokens.json` as SHA-256 digests alone. A digest needs no salt: what is hashed are 256 random bits.
Files are replaced whole; one lock keeps two writers apart, and readers need none.
"""

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.errors import BadParameter, StoreError
from vibezen.metrics.layout import FILE_MODE, make_folder, publish, publish_once
from vibezen.metrics.serving.operation import Scope

FIRST: Final = "first"
"""The name of the token that is made at first start."""
FIRST_FILE: Final = "token"
LIST_FILE: Final = "tokens.json"
LOCK_FILE: Final = ".tokens.lock"
MARK: Final = "vzm_"
"""How the tokens we make begin, so that those who scan for leaked secrets know them."""
FORMAT: Final = 1
SHOWN: Final = 4
"""Last characters of a token that a list tells."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


class Token(msgspec.Struct, frozen=True):
    """One token, without what would let somebody in. `made`, `expires`: Unix seconds, None: never."""

    name: str
    sha256: str
    scopes: tuple[Scope, ...]
    made: float
    expires: float | None
    last: str

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def is_over(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now


class _List(msgspec.Struct, frozen=True):
    format: int
    tokens: tuple[Token, ...]


def digest(shown: str) -> str:
    return hashlib.sha256(shown.encode()).hexdigest()


def first_token(storage: Path, given: str | None = None) -> str:
    """The store's first token, made at first use. `given`: by the setting `auth.token`, in its place.

    Raises StoreError in one line when it can neither be read nor made.
    """
    if given is not None:
        return given
    path = storage / FIRST_FILE
    try:
        if not path.exists():
            publish_once(path, fresh().encode() + b"\n")
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: the token cannot be read: {error}") from None
    if not token:
        raise StoreError(f"{path}: holds no token; delete it and a new one is made")
    return token


def as_first(shown: str, made: float) -> Token:
    return Token(FIRST, digest(shown), (Scope.ADMIN,), made, None, shown[-SHOWN:])


def fresh() -> str:
    return MARK + secrets.token_urlsafe(32)


def listed(storage: Path) -> tuple[Token, ...]:
    """The tokens made by `token create`, oldest first. Raises StoreError."""
    path = storage / LIST_FILE
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_List)
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(f"{path}: not readable as a list of tokens: {error}") from None
    if found.format > FORMAT:
        raise StoreError(f"{path}: format {found.format} is newer than this version knows ({FORMAT})")
    return found.tokens


def create(
    storage: Path, name: str, scopes: Sequence[Scope], seconds: float | None = None, clock: Clock = wall
) -> tuple[str, Token]:
    """Make a token that holds for `seconds` (None: until revoked); what to show, once, and what is kept.

    Raises BadParameter for a name that is taken or none, StoreError.
    """
    if not _NAME.match(name):
        raise BadParameter("name", "up to 64 letters, digits, '_', '.' and '-', the first a letter or digit")
    shown, now = fresh(), clock()
    made = Token(name, digest(shown), tuple(sorted(set(scopes))), now, None if seconds is None else now + seconds, "")
    made = msgspec.structs.replace(made, last=shown[-SHOWN:])
    with _writing(storage):
        others = listed(storage)
        if name == FIRST or any(token.name == name for token in others):
            raise BadParameter("name", f"there is a token {name!r} already; revoke it, or choose another name")
        _write(storage, (*others, made))
    return shown, made


def revoke(storage: Path, name: str, given: str | None = None) -> str | None:
    """Let a token hold no longer. The first one is replaced in the same step, so that nobody is locked out: what it is
    from now on. `given`: the setting `auth.token`. Raises BadParameter, StoreError."""
    with _writing(storage):
        if name != FIRST:
            others = listed(storage)
            left = tuple(token for token in others if token.name != name)
            if len(left) == len(others):
                raise BadParameter("name", f"there is no token {name!r}; `vibezen-metrics token list` shows them")
            _write(storage, left)
            return None
        if given is not None:
            raise BadParameter("name", "the first token is set by auth.token: change it there, and start again")
        shown = fresh()
        publish(storage / FIRST_FILE, shown.encode() + b"\n")
        return shown


def _write(storage: Path, tokens: tuple[Token, ...]) -> None:
    text = msgspec.json.format(msgspec.json.encode(_List(FORMAT, tokens)), indent=2)
    publish(storage / LIST_FILE, text + b"\n")


@contextmanager
def _writing(storage: Path) -> Iterator[None]:
    """Hold the lock; a failure of the file system is one line."""
    try:
        make_folder(storage)
        fd = os.open(storage / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
    except OSError as error:
        raise StoreError(f"storage folder {storage}: {(error.strerror or str(error)).lower()}") from None
