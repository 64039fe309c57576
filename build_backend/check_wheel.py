"""Proof of the package, for `make check`: contents of the wheel, and that it works alone.

The wheel is made twice, from this checkout and from the source archive (as an installer without npm would),
and both must hold the same files: `vibezen` and nothing else, with the built page, the scripts and the types.
The first is then installed into a fresh environment, far from this checkout, and used.
"""

import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = "vibezen/metrics/api/page/dist/"
REPORT = (PAGE + "report/report.js", PAGE + "report/report.css")
"""What HTML reports carry inside them."""
SUFFIXES = (".py", ".lua", ".sql", ".j2", ".css", ".yaml")
NEVER = re.compile(r"node_modules|/page/(?!dist/)|__pycache__|\.py[co]$|(^|/)tests/")

CORE = """
import importlib.util, vibezen
assert not getattr(vibezen, "__file__", None), "vibezen must stay a namespace: others stand beside us"
from vibezen.metrics import MetricsCollector, MetricsStorage, MetricType
taken = [name for name in ("api", "producers", "consumers", "page", "backend") if importlib.util.find_spec(name)]
assert not taken, f"top-level names that would collide with applications: {taken}"
"""
FACE = """
import vibezen.metrics as face
for name in face.__all__:
    getattr(face, name)
"""


class WheelError(SystemExit):
    """What the wheel lacks or has too much."""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        python = _environment(folder / "venv")
        wheel = _wheel(ROOT, folder / "direct")
        names = check_contents(wheel)
        from_archive = check_contents(_wheel(_source_archive(python, folder / "sdist"), folder / "archived"))
        if names != from_archive:
            raise WheelError(f"wheel: the one from the source archive differs in {sorted(names ^ from_archive)[:5]}")
        check_use(python, wheel, folder)
    print("wheel: ok,", len(names), "files")


def check_contents(wheel: Path) -> set[str]:
    """The names in the wheel, after every check on them held."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        index = archive.read(PAGE + "index.html").decode() if PAGE + "index.html" in names else ""
    alien = sorted(name for name in names if not name.startswith("vibezen/metrics/") or NEVER.search(name))
    missing = sorted(expected().union(REPORT, (PAGE + asset for asset in assets_of(index))) - names)
    if alien or missing or not index:
        raise WheelError(f"wheel: should not hold {alien[:5]}, lacks {missing[:5]}{'' if index else ' and the page'}")
    return names


def expected() -> set[str]:
    """Every module, script, query, template and definition of the checkout under the name it must have in the wheel."""
    package = ROOT / "vibezen" / "metrics"
    found = {package / "py.typed"}
    for folder, folders, names in os.walk(package, followlinks=True):
        folders[:] = set(folders) - {"page"}  # it comes as built, and node_modules is large
        found.update(Path(folder, name) for name in names if name.endswith(SUFFIXES))
    return {path.relative_to(ROOT).as_posix() for path in found}


def assets_of(index: str) -> set[str]:
    """The files an index.html asks for; the page loads nothing from elsewhere, so all are relative."""
    asked = re.findall(r"""(?:src|href)="([^"]+)\"""", index)
    elsewhere = [name for name in asked if not name.startswith("./")]
    if elsewhere:
        raise WheelError(f"page: asks for {elsewhere}, which is not its own")
    return {name.removeprefix("./") for name in asked}


def check_use(python: Path, wheel: Path, away: Path) -> None:
    """Install and use the wheel where no file of the checkout can help: its core alone, then with all extras."""
    _pip(python, "install", wheel)
    _use(python, away, "-c", CORE)
    _use(python, away, "-m", "vibezen.metrics", "version")
    _pip(python, "install", f"{wheel}[all]")
    _use(python, away, "-c", FACE)


def _use(python: Path, away: Path, *use: str) -> None:
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-W", "error", *use]
    done = subprocess.run(command, cwd=away, env=alone, check=False, capture_output=True, text=True)
    if done.returncode:
        raise WheelError(f"wheel: installed alone it fails at\n{' '.join(use)}\n{done.stderr}")


def _pip(python: str | Path, *command: str | Path) -> None:
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", *command, "-q"], check=True)


def _environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    _pip(python, "install", "--upgrade", "pip", "setuptools>=77")
    return python


def _source_archive(python: Path, folder: Path) -> Path:
    folder.mkdir()
    hook = "import sys, backend; backend.build_sdist(sys.argv[1])"
    here = {**os.environ, "PYTHONPATH": str(ROOT / "build_backend")}
    subprocess.run([python, "-c", hook, folder], cwd=ROOT, env=here, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tar.gz")
    return archive


def _wheel(source: Path, folder: Path) -> Path:
    _pip(sys.executable, "wheel", "--no-deps", "-w", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


if __name__ == "__main__":
    main()
