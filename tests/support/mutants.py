"""Mutants: the product with one of its protections taken out, each as a patch that names the test which must fail then.

A patch is two lines of header and a unified diff for `git apply`:

    # protection: <one sentence>
    # test: tests/<file>.py::<function>, or one case of it, <function>[<case>]
"""

import ast
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
PATCHES: Final = ROOT / "tests" / "faults" / "mutants"
PRODUCT: Final = ("api/", "consumers/", "producers/", "vibezen/")


class Mutant(NamedTuple):
    """`protection`: what the patch takes out; `test`: who must notice, as pytest names it."""

    path: Path
    protection: str
    test: str

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def test_file(self) -> str:
        return self.test.partition("::")[0]

    @property
    def function(self) -> str:
        return self.test.partition("::")[2].partition("[")[0]


def mutants() -> list[Mutant]:
    """All there are, by name. Raises ValueError in one line for a patch without its header."""
    return [_read(path) for path in sorted(PATCHES.glob("*.patch"))]


def _read(path: Path) -> Mutant:
    first, second, *_ = [*path.read_text().splitlines(), "", ""]
    protection, test = first.removeprefix("# protection: "), second.removeprefix("# test: ")
    if protection == first or test == second or "::" not in test:
        raise ValueError(f"{path.name}: its first lines must be `# protection: …` and `# test: <file>::<function>`")
    return Mutant(path, protection, test)


def changed(mutant: Mutant) -> list[str]:
    """The files that a patch is for."""
    return [line[6:] for line in mutant.path.read_text().splitlines() if line.startswith("+++ b/")]


def apply(mutant: Mutant, tree: Path, *, dry: bool = False, undo: bool = False) -> str:
    """Apply the patch to a tree, or take it back; `dry`: only see whether that can be done. Why not, '' when it can."""
    if shutil.which("git"):
        command = ["git", "apply", *(["--check"] if dry else []), *(["--reverse"] if undo else [])]
    else:
        command = ["patch", "-p1", "--batch", *(["--dry-run"] if dry else []), *(["--reverse"] if undo else []), "-i"]
    # Inside a repository of somebody else, git would pass all files by without a word.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    done = subprocess.run([*command, mutant.path], cwd=tree, env=environment, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr or done.stdout).strip()


def has_test(mutant: Mutant, tree: Path) -> bool:
    """Whether the function is there that the header names."""
    try:
        module = ast.parse((tree / mutant.test_file).read_bytes())
    except FileNotFoundError:
        return False
    functions = (node for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return mutant.function in {function.name for function in functions}
