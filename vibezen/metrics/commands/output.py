"""Where a command's result goes: standard output, or a file that is there whole or not at all."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from vibezen.metrics.errors import BadParameter


@contextmanager
def output(target: Path | None) -> Iterator[BinaryIO]:
    """`target` is replaced once everything was written without an error; None is standard output.

    What is no plain file, such as a pipe with a name, is written to as it is. Raises BadParameter.
    """
    if target is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif target.exists() and not target.is_file():
        with _opened(target) as file:
            yield file
    else:
        with _replacing(target.resolve()) as file:
            yield file


def _opened(target: Path) -> BinaryIO:
    try:
        return target.open("wb")
    except OSError as error:
        raise _unusable(target, error) from None


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    try:
        # Readable by its owner alone, as the store is.
        fd, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise _unusable(target, error) from None
    unfinished = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _unusable(target: Path, error: OSError) -> BadParameter:
    return BadParameter("output", f"{target}: {(error.strerror or str(error)).lower()}")
