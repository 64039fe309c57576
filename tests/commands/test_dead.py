"""Dead letters as a person handles them: seen, put back once, thrown away, and counted in any case."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from typer.testing import CliRunner

from tests.support.feeding import NOON, Feed, event, values_on_disk
from tests.support.pipeline import Pipeline
from vibezen.metrics.commands.dead import app
from vibezen.metrics.dead_letters import letter
from vibezen.metrics.errors import MetricsError
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers import dead
from vibezen.metrics.producers.append import append

pytestmark = pytest.mark.server

Run = Callable[..., "subprocess.CompletedProcess[str]"]
KEYS = Keys()
EARLY = f"{int(NOON * 1000)}-0"
"""An entry whose events of two hours later were ahead of the clock then, and are not now."""


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    return Pipeline(client, redis_url, tmp_path / "store")


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Ask = Callable[..., Done]


@pytest.fixture
def ask(pipeline: Pipeline) -> Ask:
    """`ask("list")`: the command in this process, and what it says."""

    def ask(*arguments: str) -> Done:
        where = ("--redis-url", pipeline.url, "--storage-dir", str(pipeline.layout.root))
        told = CliRunner().invoke(app, [*arguments, *where])
        if isinstance(told.exception, MetricsError):
            return Done(told.exception.exit_code, told.stdout, f"vibezen-metrics: {told.exception}\n")
        assert told.exception is None or isinstance(told.exception, SystemExit), told.exception
        return Done(told.exit_code, told.stdout, told.stderr)

    return ask


@pytest.fixture
def letters(pipeline: Pipeline) -> list[str]:
    """Two letters that would be good now, one that never will be, and one that is no event at all; oldest first."""
    feed = Feed(pipeline.client)
    feed.append([event(1, NOON + 7200), event(2, NOON), event(3, NOON + 7201)], entry_id=EARLY)
    bad = feed.append([event(4, 5.0, note="\x1b[31m")])
    odd: Any = pipeline.client.xadd(KEYS.events(0), {"hello": "world"})
    pipeline.archive()
    return [f"{EARLY}/0", f"{EARLY}/2", f"{bad}/0", f"{odd.decode()}/0"]


def books(client: redis.Redis) -> dict[str, int]:
    stored: Any = client.hgetall(KEYS.books(0))
    return {
        name.decode(): int(stored[name])
        for name in (b"dead.requeued", b"dead.dropped", b"dead.bytes", b"archive.dead_unkept")
        if name in stored
    }


def kept(client: redis.Redis) -> set[str]:
    names: Any = client.hkeys(KEYS.dead(0))
    return {name.decode() for name in names}


def test_letters_are_listed_newest_first_with_time_shard_reason_and_size(
    letters: list[str], ask: Ask, client: redis.Redis
) -> None:
    told = json.loads(ask("list", "--json").stdout)
    assert [one["id"] for one in told] == letters[::-1]
    assert told[3] == {
        "shard": 0,
        "id": letters[0],
        "reason": told[3]["reason"],
        "at": NOON,
        "size": len(json.loads(client.hget(KEYS.dead(0), letters[0]) or b"")["payload"]),
    }
    assert "more than 1 h ahead" in told[3]["reason"]
    plain = ask("list").stdout
    assert plain.startswith("4 letters")
    rows = [line.split("│") for line in plain.splitlines() if "-0/" in line or "-1/" in line]
    assert [row[2].strip() for row in rows] == letters[::-1]


def test_letters_are_chosen_by_shard_reason_and_age(letters: list[str], ask: Ask) -> None:
    def ids(*arguments: str) -> list[str]:
        return [one["id"] for one in json.loads(ask("list", "--json", *arguments).stdout)]

    assert ids("--reason", "BEFORE 2000") == [letters[2]]
    assert ids("--from", "now-1h") == [letters[3], letters[2]]
    assert ids("--to", "2025-11-24T12:00:01Z") == [letters[1], letters[0]]
    assert ids("--shard", "1") == []


def test_a_letter_is_shown_whole_and_cannot_steer_the_terminal(letters: list[str], ask: Ask) -> None:
    assert json.loads(ask("show", letters[2], "--json").stdout)[0]["payload"].endswith('{"note":"\\u001b[31m"}}')
    plain = ask("show", letters[2]).stdout
    assert "before 2000-01-01" in plain
    assert '"value":4,' in plain
    assert "\x1b" not in plain
    missing = ask("show", "1-1/0")
    assert (missing.returncode, missing.stderr) == (1, "vibezen-metrics: 1-1/0: no such letter\n")


def test_a_requeued_letter_becomes_an_event_of_its_original_time_once(
    letters: list[str], pipeline: Pipeline, ask: Ask
) -> None:
    done = ask("requeue", letters[0])
    assert (done.returncode, done.stdout) == (0, "1 letter requeued\n")
    assert kept(pipeline.client) == set(letters[1:])
    again = ask("requeue", letters[0])
    assert (again.returncode, again.stderr) == (1, f"vibezen-metrics: {letters[0]}: no such letter\n")
    pipeline.archive()
    (found,) = pipeline.search(**{"from": NOON + 7000, "to": NOON + 8000}).events
    assert (found.ts, found.value) == (NOON + 7200, 1.0)
    assert books(pipeline.client)["dead.requeued"] == 1


def test_a_letter_that_would_be_rejected_again_stays_unless_forced(
    letters: list[str], pipeline: Pipeline, ask: Ask
) -> None:
    done = ask("requeue", "--all")
    assert (done.returncode, done.stdout) == (1, "2 letters requeued\n")
    lines = done.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == letters[2:]
    assert "would be rejected again: ts: 5.0 is before 2000-01-01" in lines[0]
    assert kept(pipeline.client) == set(letters[2:])
    pipeline.archive()
    assert sum(values_on_disk(pipeline.layout.root).values()) == 3
    forced = ask("requeue", "--force", letters[2])
    assert forced.returncode == 0
    pipeline.archive()
    (fresh,) = kept(pipeline.client) - {letters[3]}
    assert fresh != letters[2]


def test_an_event_without_a_time_gets_that_of_its_arrival(pipeline: Pipeline, client: redis.Redis) -> None:
    value: dict[str, Any] = {
        "id": f"{EARLY}/0",
        "reason": "of an older version",
        "at": NOON,
        "payload": '{"metric":"cost","value":1}',
    }
    client.hset(KEYS.dead(0), value["id"], json.dumps(value))
    assert dead.requeue(client, KEYS, 0, f"{EARLY}/0", NOON + 86_400)
    pipeline.archive()
    (found,) = pipeline.search(**{"from": NOON - 1, "to": NOON + 1}).events
    assert (found.ts, found.metric) == (NOON, "cost")


def test_a_requeue_that_was_cut_off_adds_nothing_the_second_time(
    letters: list[str], pipeline: Pipeline, client: redis.Redis
) -> None:
    """The event is in the stream, and the letter still there."""
    found = letter(client, KEYS, 0, letters[0])
    assert found is not None
    value = client.hget(KEYS.dead(0), letters[0])
    assert dead.requeue(client, KEYS, 0, letters[0], NOON + 86_400)
    assert isinstance(value, bytes)
    client.hset(KEYS.dead(0), letters[0], value)
    length = client.xlen(KEYS.events(0))
    assert dead.requeue(client, KEYS, 0, letters[0], NOON + 86_400)
    assert client.xlen(KEYS.events(0)) == length
    assert not dead.requeue(client, KEYS, 0, letters[0], NOON + 86_400)


def test_another_letter_under_the_same_id_is_another_event(client: redis.Redis) -> None:
    """As a restored server may give it."""
    for number in (1, 2):
        payload = f'{{"metric":"cost","value":{number},"ts":{NOON}}}'
        client.hset(KEYS.dead(0), "1-0/0", json.dumps({"id": "1-0/0", "reason": "r", "at": NOON, "payload": payload}))
        assert dead.requeue(client, KEYS, 0, "1-0/0", NOON)
    assert client.xlen(KEYS.events(0)) == 2


def test_damaged_bytes_do_not_come_back_as_something_else(pipeline: Pipeline, client: redis.Redis, ask: Ask) -> None:
    append(client, KEYS, 0, "p", 1, [(1, b'{"metric":"cost","value":1,"metadata":{"a":"\xff"}}\n')])  # type: ignore[list-item]
    pipeline.archive()
    done = ask("requeue", "--all")
    assert (done.returncode, done.stdout) == (1, "0 letters requeued\n")
    assert "damaged bytes are lost" in done.stderr


def test_dropped_letters_are_counted(letters: list[str], ask: Ask, client: redis.Redis) -> None:
    assert ask("drop", letters[0], "1-1/0").stderr == "vibezen-metrics: 1-1/0: no such letter\n"
    assert json.loads(ask("drop", "--all", "--reason", "ahead", "--json").stdout) == {"dropped": 1, "failed": []}
    assert ask("drop", "--all").stdout == "2 letters dropped\n"
    assert kept(client) == set()
    assert books(client) == {"dead.dropped": 4, "dead.bytes": 0, "archive.dead_unkept": 0}


def test_letters_that_were_taken_away_do_not_come_back_with_the_next_owner(
    letters: list[str], ask: Ask, pipeline: Pipeline
) -> None:
    ask("drop", "--all")
    pipeline.archive()
    assert kept(pipeline.client) == set()


def test_letters_beyond_the_bound_are_counted_and_not_kept(pipeline: Pipeline, client: redis.Redis) -> None:
    feed = Feed(client)
    client.hset(KEYS.dead(0), mapping={f"1-{number}/0": "{}" for number in range(9_999)})
    feed.append([event(1, 5.0), event(2, 5.0), event(3, 5.0)])
    pipeline.archive()
    assert client.hlen(KEYS.dead(0)) == 10_000
    assert books(client)["archive.dead_unkept"] == 2
    client.hdel(KEYS.dead(0), *(f"1-{number}/0" for number in range(9_999)))
    client.hset(KEYS.books(0), "dead.bytes", 64 * 1024 * 1024 - 10)
    feed.append([event(4, 5.0)])
    pipeline.archive()
    assert (client.hlen(KEYS.dead(0)), books(client)["archive.dead_unkept"]) == (1, 3)


def test_mistakes_are_one_line(letters: list[str], ask: Ask, run_here: Run, free_port: int) -> None:
    for arguments, code, words in (
        (("requeue",), 2, "name letters, or say --all"),
        (("drop", letters[0], "--all"), 2, "name letters, or say --all"),
        (("list", "--from", "some day"), 2, "from: not a time"),
    ):
        done = ask(*arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
        assert words in done.stderr
    away = run_here("dead", "list", "--redis-url", f"redis://127.0.0.1:{free_port}")
    assert (away.returncode, len(away.stderr.splitlines())) == (1, 1), away.stderr


def test_the_command_line_knows_it(letters: list[str], pipeline: Pipeline, run_here: Run) -> None:
    where = ("--redis-url", pipeline.url, "--storage-dir", str(pipeline.layout.root))
    assert len(json.loads(run_here("dead", "list", "--json", *where).stdout)) == len(letters)
