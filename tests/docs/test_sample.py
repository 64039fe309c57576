"""The sample `vibezen.yaml` shows every setting with its default, and changes nothing."""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import yaml
from msgspec.structs import replace

from vibezen.metrics.config import load
from vibezen.metrics.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "vibezen.yaml"


def settings_of(kind: object, path: str = "") -> set[str]:
    """Every setting below a section, by path."""
    found = set()
    for field in msgspec.structs.fields(kind):  # type: ignore[arg-type]
        name = f"{path}{field.name}"
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found |= settings_of(field.type, f"{name}.")
        else:
            found.add(name)
    return found


def shown(tree: Mapping[str, object], path: str = "") -> set[str]:
    found = set()
    for name, value in tree.items():
        found |= shown(value, f"{path}{name}.") if isinstance(value, Mapping) and value else {f"{path}{name}"}
    return found


def test_sample_shows_every_setting_and_no_other() -> None:
    tree = yaml.safe_load(SAMPLE.read_text())["vibezen"]["metrics"]
    assert shown(tree) == settings_of(Settings) - {"source"}


def test_sample_holds_the_defaults(tmp_path: Path) -> None:
    sample, default = load(SAMPLE, environ={}), load(environ={})
    assert replace(sample, source=None, storage_dir=default.storage_dir) == default
    assert sample.storage_dir == ROOT / "metrics_data"


def test_commented_examples_in_the_sample_are_valid(tmp_path: Path) -> None:
    text = SAMPLE.read_text()
    text = re.sub(r"^( +)(\w+): \{\}\n +# (.+)$", r"\1\2:\n\1  \3", text, flags=re.MULTILINE)
    path = tmp_path / "vibezen.yaml"
    path.write_text(text)
    settings = load(path, environ={})
    assert settings.sampling
    assert settings.metrics
