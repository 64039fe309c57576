"""Tokens in files, and the keyring that running servers see them by."""

import stat
import threading
from pathlib import Path

import msgspec
import pytest

from vibezen.metrics.errors import BadParameter, StoreError
from vibezen.metrics.serving.keyring import Keyring, mark_of
from vibezen.metrics.serving.operation import Scope
from vibezen.metrics.serving.sessions import SESSION_SECONDS, session
from vibezen.metrics.serving.tokens import create, first_token, listed, revoke

NOW = 1_763_985_600.0


class Time:
    """Passes when told to."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def ring(storage: Path, time: Time | None = None, given: str | None = None) -> Keyring:
    return Keyring(storage, given, clock=time or Time(), passed=time or Time())


def test_first_token_is_made_once_long_and_for_its_owner_alone(tmp_path: Path) -> None:
    token = first_token(tmp_path)
    assert first_token(tmp_path) == token
    assert len(token) >= 40
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_first_token_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(StoreError, match="holds no token"):
        first_token(tmp_path)
    with pytest.raises(StoreError, match="cannot be read"):
        first_token(tmp_path / "missing")


def test_only_digests_are_kept_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    shown, made = create(tmp_path, "ci", [Scope.WRITE], 60.0, Time())
    file = tmp_path / "tokens.json"
    assert shown not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert listed(tmp_path) == (made,)
    assert (made.name, made.scopes, made.made, made.expires, made.last) == ("ci", ("write",), NOW, NOW + 60, shown[-4:])


@pytest.mark.parametrize("name", ["", "first", "ci", "a b", "ci\n", "-x", "x" * 65])
def test_name_that_is_taken_or_none_is_refused(tmp_path: Path, name: str) -> None:
    create(tmp_path, "ci", [Scope.READ])
    with pytest.raises(BadParameter, match="name: "):
        create(tmp_path, name, [Scope.READ])
    assert len(listed(tmp_path)) == 1


def test_two_writers_lose_nothing_of_each_other(tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(12)]
    threads = [threading.Thread(target=create, args=(tmp_path, name, [Scope.READ])) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in listed(tmp_path)} == set(names)


@pytest.mark.parametrize("text", ["{}", "no json", '{"format": 2, "tokens": []}'])
def test_list_that_cannot_be_read_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokens.json").write_text(text)
    with pytest.raises(StoreError, match=r"tokens\.json: "):
        listed(tmp_path)


def test_running_server_takes_a_new_token_at_once_and_a_revoked_one_no_longer(tmp_path: Path) -> None:
    time = Time()
    held = ring(tmp_path, time)
    shown, made = create(tmp_path, "ci", [Scope.WRITE])
    assert held.find(shown) == made
    assert held.find(shown + "\xe9") is None
    assert held.find("") is None
    revoke(tmp_path, "ci")
    time.now += 1
    assert held.find(shown) is None
    assert not held.holds(made)
    with pytest.raises(BadParameter, match="there is no token 'ci'"):
        revoke(tmp_path, "ci")


def test_token_is_over_when_its_time_is(tmp_path: Path) -> None:
    time = Time()
    shown, made = create(tmp_path, "ci", [Scope.WRITE], 60.0, time)
    held = ring(tmp_path, time)
    signed, seconds = session(made, time.now)
    assert seconds == 60
    assert (held.find(shown), held.of_session(signed), held.marked(mark_of(made))) == (made, made, made)
    assert held.holds(made)
    time.now += 60
    assert not held.holds(made)
    assert (held.find(shown), held.of_session(signed), held.marked(mark_of(made))) == (None, None, None)


def test_first_token_allows_all_and_is_replaced_when_revoked_or_deleted(tmp_path: Path) -> None:
    time = Time()
    held = ring(tmp_path, time)
    old = held.first
    found = held.find(old)
    assert found is not None
    assert all(found.allows(scope) for scope in Scope)
    signed, _ = session(found, time.now)
    assert held.of_session(signed) == found

    fresh = revoke(tmp_path, "first")
    time.now += 1
    assert fresh is not None
    assert (held.find(old), held.of_session(signed), held.marked(mark_of(found))) == (None, None, None)
    assert held.find(fresh) is not None

    (tmp_path / "token").unlink()
    time.now += 1
    assert held.find(fresh) is None
    assert held.find((tmp_path / "token").read_text().strip()) is not None


def test_first_token_of_the_settings_needs_no_file_and_is_revoked_there(tmp_path: Path) -> None:
    held = ring(tmp_path, given="said by the settings")
    assert held.find("said by the settings") is not None
    assert not (tmp_path / "token").exists()
    with pytest.raises(BadParameter, match=r"auth\.token"):
        revoke(tmp_path, "first", "said by the settings")


def test_list_that_is_damaged_while_we_run_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    shown, _ = create(tmp_path, "ci", [Scope.READ])
    held = ring(tmp_path, time)
    (tmp_path / "tokens.json").write_text("{")
    time.now += 1
    assert held.find(shown) is not None
    assert "go on to hold" in caplog.text


def test_session_holds_for_its_own_token_and_time_alone(tmp_path: Path) -> None:
    time = Time()
    _, made = create(tmp_path, "a.b", [Scope.READ])
    create(tmp_path, "other", [Scope.ADMIN])
    held = ring(tmp_path, time)
    signed, seconds = session(made, time.now)
    assert seconds == SESSION_SECONDS
    name, ends, signature = signed.rsplit(".", 2)
    assert (name, int(ends)) == ("a.b", int(NOW) + SESSION_SECONDS)
    assert held.of_session(signed) == made
    for forged in (
        f"other.{ends}.{signature}",
        f"{name}.{int(ends) + 1}.{signature}",
        f"{name}.{ends}.",
        f"{name}.١.{signature}",
        f"{name}.{'9' * 400}.{signature}",
        f"{name}.{ends}.\xe9",
        "",
        ".",
        made.sha256,
    ):
        assert held.of_session(forged) is None
    changed = msgspec.structs.replace(made, sha256="00" * 32)
    assert held.of_session(session(changed, time.now)[0]) is None
    time.now += SESSION_SECONDS
    assert held.of_session(signed) is None
