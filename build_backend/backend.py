"""The build backend (PEP 517, PEP 660): setuptools', with one step before it, the page.

A wheel, an editable install and a source archive all carry `api/page/dist`, so each hook builds the page
first when its sources changed. npm comes from the machine where its Node is new enough; else pip is asked
for Node's own wheel, which then stands on PATH inside the isolated build.
"""

import shutil
from typing import Any

import page
from setuptools import build_meta

Settings = dict[str, Any] | None

prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable


def _requires(config_settings: Settings = None) -> list[str]:
    return [page.NODE_WHEEL] if page.is_stale() and page.node_folder() is None else []


get_requires_for_build_wheel = _requires
get_requires_for_build_editable = _requires
get_requires_for_build_sdist = _requires


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    page.build()
    # setuptools packs whatever lies in build/lib: a module deleted since the last wheel would live on in this one.
    shutil.rmtree(page.ROOT / "build", ignore_errors=True)
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    page.build()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    page.build()
    return build_meta.build_sdist(sdist_directory, config_settings)
