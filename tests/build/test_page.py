"""When the page is built, and with which Node."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A page whose build is finished and fresh, except for the stamp."""
    for name in ("package.json", "src/main.tsx", "tests/a.test.ts", "dist/index.html", "node_modules/x/index.js"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def stamped(page: ModuleType, sources: Path) -> Path:
    (sources / ".built-from").write_text(page.fingerprint(sources))
    return sources


def node(folder: Path, version: str, *, npm: bool = True) -> Path:
    """A folder with a Node that only knows its version."""
    folder.mkdir()
    for name in ("node", "npm") if npm else ("node",):
        (folder / name).write_text(f"#!/bin/sh\necho {version}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def python_without_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere" / "python"))


def test_page_without_stamp_is_stale(page: ModuleType, sources: Path) -> None:
    assert page.is_stale(sources)


def test_page_built_from_these_sources_is_fresh(page: ModuleType, sources: Path) -> None:
    assert not page.is_stale(stamped(page, sources))


@pytest.mark.parametrize("change", ["src/main.tsx", "src/new.ts", "package.json"])
def test_changed_added_source_makes_it_stale(page: ModuleType, sources: Path, change: str) -> None:
    stamped(page, sources)
    (sources / change).write_text("changed")
    assert page.is_stale(sources)


def test_renamed_source_makes_it_stale(page: ModuleType, sources: Path) -> None:
    stamped(page, sources)
    (sources / "src/main.tsx").rename(sources / "src/app.tsx")
    assert page.is_stale(sources)


def test_text_moved_from_one_source_to_the_next_makes_it_stale(page: ModuleType, sources: Path) -> None:
    (sources / "src/a").write_text("one two")
    (sources / "src/b").write_text("")
    stamped(page, sources)
    (sources / "src/a").write_text("one")
    (sources / "src/b").write_text(" two")
    assert page.is_stale(sources)


def test_missing_result_makes_it_stale(page: ModuleType, sources: Path) -> None:
    stamped(page, sources)
    (sources / "dist/index.html").unlink()
    assert page.is_stale(sources)


@pytest.mark.parametrize("ours", ["dist/index.html", "node_modules/x/index.js", "tests/a.test.ts"])
def test_results_modules_and_tests_are_no_sources(page: ModuleType, sources: Path, ours: str) -> None:
    stamped(page, sources)
    (sources / ours).write_text("changed")
    assert not page.is_stale(sources)


def test_touched_source_is_fresh(page: ModuleType, sources: Path) -> None:
    stamped(page, sources)
    os.utime(sources / "src/main.tsx", (1, 1))
    assert not page.is_stale(sources)


def test_source_archive_has_nothing_to_build(page: ModuleType, tmp_path: Path) -> None:
    assert not page.is_stale(tmp_path)


@pytest.mark.parametrize(
    ("version", "good"),
    [
        ("v18.20.4", False),
        ("v20.18.3", False),
        ("v20.19.0", True),
        ("v21.7.0", False),
        ("v22.11.0", False),
        ("v22.12.0", True),
        ("v24.19.0\n", True),
        ("v25.0.0-nightly", True),
        ("", False),
        ("not a version", False),
    ],
)
def test_node_that_vite_refuses_is_refused(page: ModuleType, version: str, good: bool) -> None:
    assert page.accepts(version) is good


@pytest.mark.usefixtures("python_without_node")
def test_newer_node_later_on_path_wins_over_old_first(page: ModuleType, tmp_path: Path) -> None:
    old, new = node(tmp_path / "old", "v18.20.4"), node(tmp_path / "new", "v24.1.0")
    assert page.node_folder(f"{old}{os.pathsep}{new}") == new


@pytest.mark.usefixtures("python_without_node")
def test_node_without_npm_does_not_serve(page: ModuleType, tmp_path: Path) -> None:
    assert page.node_folder(str(node(tmp_path / "bare", "v24.1.0", npm=False))) is None


@pytest.mark.usefixtures("python_without_node")
def test_broken_node_does_not_serve(page: ModuleType, tmp_path: Path) -> None:
    folder = node(tmp_path / "broken", "v24.1.0")
    (folder / "node").write_bytes(b"\x7fELF\x00not a program")
    assert page.node_folder(str(folder)) is None


@pytest.mark.usefixtures("python_without_node")
def test_empty_path_has_no_node(page: ModuleType) -> None:
    assert page.node_folder("") is None


def test_checkout_without_links_is_refused_in_one_line(page: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "vibezen" / "metrics").mkdir(parents=True)
    (tmp_path / "vibezen" / "metrics" / "producers").write_text("../../producers")
    with pytest.raises(SystemExit, match=r"core\.symlinks=true") as refused:
        page.check_links(tmp_path)
    assert "\n" not in str(refused.value)


def test_npm_runs_with_the_systems_authorities_and_its_own_node(
    page: ModuleType, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = node(tmp_path / "bin", "v24.1.0")
    (folder / "npm").write_text(f'#!/bin/sh\necho "$NODE_USE_SYSTEM_CA $PATH $*" > {tmp_path}/said\n')
    monkeypatch.setattr(page, "PAGE", sources)
    monkeypatch.setattr(page, "node_folder", lambda: folder)
    monkeypatch.delenv("NODE_USE_SYSTEM_CA", raising=False)
    page.npm("run", "build")
    authorities, path, *command = (tmp_path / "said").read_text().split()
    assert (authorities, path.split(os.pathsep)[0], command) == ("1", str(folder), ["run", "build"])


def test_failed_npm_leaves_no_stamp(page: ModuleType, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamped(page, sources)
    (sources / "src/main.tsx").write_text("broken")
    monkeypatch.setattr(page, "PAGE", sources)
    monkeypatch.setattr(page, "is_stale", lambda: True)
    monkeypatch.setattr(page, "check_links", lambda: None)
    monkeypatch.setattr(page, "install_modules", lambda: None)
    monkeypatch.setattr(page, "fingerprint", lambda: "new")

    def fail(*command: str) -> None:
        raise page.BuildError(" ".join(command))

    monkeypatch.setattr(page, "npm", fail)
    with pytest.raises(SystemExit):
        page.build()
    assert not (sources / ".built-from").exists()
