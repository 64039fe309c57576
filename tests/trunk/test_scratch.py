"""Scratch folders: gone afterwards, whatever ends their owner, and never while somebody uses them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vibezen.metrics.layout import Layout
from vibezen.metrics.scratch import scratch_folder


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "store")
    layout.create()
    return layout


def test_folder_is_private_on_the_stores_disk_and_gone_afterwards(layout: Layout) -> None:
    with scratch_folder(layout) as folder:
        (folder / "x").write_text("x")
        assert folder.parent == layout.exports
        assert folder.stat().st_mode & 0o777 == 0o700
    assert os.listdir(layout.exports) == []


def test_folder_is_gone_after_an_error(layout: Layout) -> None:
    with pytest.raises(ZeroDivisionError), scratch_folder(layout):
        _ = 1 / 0
    assert os.listdir(layout.exports) == []


def test_what_a_killed_owner_left_is_removed_by_the_next(layout: Layout) -> None:
    code = (
        "import os, sys\n"
        "from vibezen.metrics.layout import Layout\n"
        "from vibezen.metrics.scratch import scratch_folder\n"
        "with scratch_folder(Layout(sys.argv[1])) as folder:\n"
        "    (folder / 'large').write_text('x')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(layout.root)], check=False)
    assert len(os.listdir(layout.exports)) == 2
    with scratch_folder(layout) as folder:
        assert sorted(layout.exports.iterdir()) == [folder, folder.with_name(folder.name + ".lock")]


def test_folder_in_use_is_left_alone(layout: Layout) -> None:
    with scratch_folder(layout) as first:
        (first / "x").write_text("x")
        with scratch_folder(layout) as second:
            assert second != first
        assert (first / "x").read_text() == "x"


def test_who_may_not_write_to_the_store_uses_the_systems_folder(layout: Layout) -> None:
    layout.exports.write_text("no folder")
    with scratch_folder(layout) as folder:
        assert folder.is_dir()
        assert layout.root not in folder.parents
    assert not folder.exists()
