"""Rows that give no events: each counted, each in a file where one was named, the first few told in any case."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

import msgspec

from vibezen.metrics.errors import BadParameter, ImportStopped
from vibezen.metrics.producers.importer_delivery import Say
from vibezen.metrics.producers.importer_rows import Refused

SHOWN: Final = 5
"""Rows told per file, where no file takes them."""


class Rejects:
    """Takes refused rows; a file named for them is written anew, one JSON object per line."""

    def __init__(self, path: Path | None, sources: Sequence[str], say: Say) -> None:
        self._path, self._say = path, say
        self._name, self._shown = "", 0
        self._file: BinaryIO | None = None
        if path is None:
            return
        if any(os.path.exists(source) and os.path.realpath(source) == os.path.realpath(path) for source in sources):
            raise BadParameter("--rejects", f"{path} is a file to import")
        try:
            self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        except OSError as error:
            raise BadParameter("--rejects", f"{path}: {error.strerror}") from None

    def __enter__(self) -> "Rejects":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._written(self._file.close)

    def next_file(self, name: str) -> None:
        self._name, self._shown = name, 0

    def take(self, refused: Sequence[Refused]) -> None:
        """Raises ImportStopped when the file cannot be written."""
        if self._file is not None:
            lines = [msgspec.json.encode({"file": self._name, **_clean(one)}) + b"\n" for one in refused]
            file = self._file
            self._written(lambda: file.write(b"".join(lines)))
            return
        for one in refused[: SHOWN - self._shown]:
            self._say(f"{self._name}: line {one.line}: {one.field}: {one.reason}")
        if self._shown < SHOWN <= self._shown + len(refused):
            self._say(f"{self._name}: further rejected rows are counted only; --rejects FILE keeps them all")
        self._shown = min(self._shown + len(refused), SHOWN)

    def _written(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            raise ImportStopped(f"{self._path}: cannot be written: {error.strerror}") from None


def _clean(refused: Refused) -> dict[str, object]:
    """Bytes that were no text in the source's encoding are written as \\xNN."""
    row = refused.row.rstrip("\r\n").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    reason = refused.reason.encode("utf-8", "backslashreplace").decode()
    return {"line": refused.line, "field": refused.field, "reason": reason, "row": row}
