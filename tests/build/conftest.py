"""Modules of the build backend, which is no package and not on the path."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

BACKEND = Path(__file__).resolve().parents[2] / "build_backend"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"build_backend_{name}", BACKEND / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page() -> ModuleType:
    return load("page")


@pytest.fixture(scope="module")
def check_wheel() -> ModuleType:
    return load("check_wheel")
