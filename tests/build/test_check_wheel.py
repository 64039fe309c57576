"""What the proof of the wheel refuses."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

INDEX = '<link rel="icon" href="./favicon.svg"><script type="module" src="./assets/index-x.js"></script>'
DIST = "vibezen/metrics/api/page/dist/"

Make = Callable[..., Path]


@pytest.fixture
def wheel(check_wheel: ModuleType, tmp_path: Path) -> Make:
    """Make a wheel that is right, but for what is left out, added, or another index.html."""

    def make(*, without: str = "", with_: str = "", index: str = INDEX) -> Path:
        names = check_wheel.expected().union(check_wheel.REPORT)
        names |= {DIST + "favicon.svg", DIST + "assets/index-x.js", DIST + "index.html"}
        path = tmp_path / "some.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name in sorted((names | {with_}) - {without, ""}):
                archive.writestr(name, index if name == DIST + "index.html" else "")
            archive.writestr("vibezen_metrics-1.dist-info/METADATA", "")
        return path

    return make


def test_whole_wheel_is_accepted(check_wheel: ModuleType, wheel: Make) -> None:
    assert DIST + "index.html" in check_wheel.check_contents(wheel())


@pytest.mark.parametrize(
    "missing",
    [
        "vibezen/metrics/py.typed",
        "vibezen/metrics/producers/collector.py",
        "vibezen/metrics/producers/lua/append.lua",
        DIST + "index.html",
        DIST + "assets/index-x.js",
        DIST + "report/report.js",
        "vibezen/metrics/reports/report.html.j2",
        "vibezen/metrics/reports/types/weekly_summary.yaml",
    ],
)
def test_wheel_that_lacks_a_part_is_refused(check_wheel: ModuleType, wheel: Make, missing: str) -> None:
    with pytest.raises(SystemExit, match="lacks"):
        check_wheel.check_contents(wheel(without=missing))


@pytest.mark.parametrize(
    "alien",
    [
        "api/__init__.py",
        "tests/test_x.py",
        "vibezen/__init__.py",
        "vibezen/metrics/api/page/node_modules/node-gyp/gyp.py",
        "vibezen/metrics/api/page/src/main.tsx",
        "vibezen/metrics/__pycache__/event.cpython-311.pyc",
    ],
)
def test_wheel_that_holds_what_is_not_ours_is_refused(check_wheel: ModuleType, wheel: Make, alien: str) -> None:
    with pytest.raises(SystemExit, match=r"should not hold \['"):
        check_wheel.check_contents(wheel(with_=alien))


def test_page_that_asks_for_something_elsewhere_is_refused(check_wheel: ModuleType, wheel: Make) -> None:
    with pytest.raises(SystemExit, match="not its own"):
        check_wheel.check_contents(wheel(index='<script src="https://cdn.example/x.js"></script>'))
