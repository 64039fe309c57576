"""`vibezen-metrics token create|list|revoke`"""

import json
from pathlib import Path

import pytest

from tests.commands.conftest import Run
from vibezen.metrics.serving.tokens import first_token


def test_token_is_made_shown_once_listed_and_revoked(run_here: Run, tmp_path: Path) -> None:
    store = ("--storage-dir", str(tmp_path))
    first = first_token(tmp_path)
    made = run_here("token", "create", "screen", "--scope", "read", "--scope", "write", "--expires", "30d", *store)
    assert made.returncode == 0
    shown, link = made.stdout.split()
    assert link == f"http://localhost:8080/login#token={shown}"

    told = json.loads(run_here("token", "list", "--json", *store).stdout)
    assert [token["name"] for token in told] == ["first", "screen"]
    assert [token["last_four"] for token in told] == [first[-4:], shown[-4:]]
    assert told[1]["scopes"] == ["read", "write"]
    assert told[1]["expires"] - told[1]["made"] == 30 * 86_400
    table = run_here("token", "list", *store).stdout
    assert "screen" in table
    assert "admin" in table
    for secret in (first, shown):
        assert secret not in table

    revoked = run_here("token", "revoke", "screen", *store)
    assert (revoked.returncode, revoked.stdout) == (0, "screen: revoked\n")
    replaced = run_here("token", "revoke", "first", *store)
    assert replaced.stdout.splitlines()[0] == "first: replaced"
    assert replaced.stdout.splitlines()[1].endswith(f"/login#token={first_token(tmp_path)}")
    assert first_token(tmp_path) != first


def test_list_of_no_tokens_says_when_one_is_made(run_here: Run, tmp_path: Path) -> None:
    assert run_here("token", "list", "--storage-dir", str(tmp_path)).stdout.startswith("no token yet: ")


def test_token_for_sending_alone_has_no_link(run_here: Run, tmp_path: Path) -> None:
    made = run_here("token", "create", "ci", "--scope", "write", "--storage-dir", str(tmp_path))
    assert len(made.stdout.split()) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("create", "x", "--scope", "all"), "--scope: 'all' is none; expected read, write, admin"),
        (("create", "x", "--scope", "read", "--expires", "soon"), "--expires: 'soon': expected a span"),
        (("create", "first", "--scope", "read"), "name: there is a token 'first' already"),
        (("revoke", "x"), "name: there is no token 'x'"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(run_here: Run, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = run_here("token", *words, "--storage-dir", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"vibezen-metrics: {told}")
    assert done.stderr.count("\n") == 1
