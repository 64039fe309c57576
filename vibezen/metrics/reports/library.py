"""Which reports there are: the built-in ones, and those in `reports.dir`."""

import re
from pathlib import Path
from typing import Final

from vibezen.metrics.errors import BadParameter
from vibezen.metrics.reports import definition_file
from vibezen.metrics.reports.definition import Definition
from vibezen.metrics.settings import Settings

BUILT_IN: Final = Path(__file__).resolve().parent / "types"
SUFFIXES: Final = (".yaml", ".yml")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,99}\Z")


def names(settings: Settings) -> list[str]:
    """Every report's name, in alphabetical order."""
    return sorted(_files(settings))


def find(name: str, settings: Settings) -> Path:
    """The file that defines a report; one in `reports.dir` wins over a built-in one. Raises BadParameter."""
    files = _files(settings)
    if name not in files:
        raise BadParameter("type", f"no report {name[:100]!r}; there are {', '.join(sorted(files))}")
    return files[name]


def load(name: str, settings: Settings) -> Definition:
    """Raises BadParameter when there is none of this name, ConfigError when it is broken."""
    return definition_file.read(find(name, settings), settings)


def _files(settings: Settings) -> dict[str, Path]:
    folders = [BUILT_IN, *([settings.reports.dir] if settings.reports.dir is not None else [])]
    return {
        path.stem: path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix in SUFFIXES and _NAME.match(path.stem)
    }
