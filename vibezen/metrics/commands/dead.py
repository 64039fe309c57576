"""`vibezen-metrics dead list|show|requeue|drop`"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings
from vibezen.metrics.errors import BadParameter, InvalidEvent, ServerUnavailable

if TYPE_CHECKING:
    from redis import Redis

    from vibezen.metrics.dead_letters import Kept, Wanted
    from vibezen.metrics.keys import Keys

app = typer.Typer(no_args_is_help=True, help="Dead letters: lines that are no valid event, with the reason.")

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID…", help="As `dead list` shows them.")]
Everything = Annotated[bool, typer.Option("--all", help="All letters that the other options leave.")]
OnShard = Annotated[int | None, typer.Option("--shard", min=0, metavar="N", help="Only letters of this shard.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Only letters whose reason has this text in it.")]
Since = Annotated[str | None, typer.Option("--from", metavar="TIME", help="now-1h, ISO 8601 (UTC) or Unix seconds.")]
Until = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only letters that arrived before.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]


class _Store(NamedTuple):
    client: "Redis"
    keys: "Keys"
    shards: list[int]


@app.command("list")
def list_(
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    shard: OnShard = None,
    reason: Reason = "",
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """The letters, newest first."""
    wanted = _wanted(reason, since, until)
    with _store(config, redis_url, storage_dir, shard) as (client, keys, shards):
        from vibezen.metrics.dead_letters import overview

        found = overview(client, keys, shards, wanted)
    if as_json:
        _print_json([kept._asdict() for kept in found])
        return
    from vibezen.metrics.clock import iso
    from vibezen.metrics.commands.table import print_table, printable

    rows: list[list[str | int | float | None]] = [
        [iso(kept.at), kept.id, str(kept.shard), kept.size, printable(kept.reason)] for kept in found
    ]
    about = f"{_count(len(found))}; `vibezen-metrics dead show ID` shows one" if found else "dead letters"
    print_table(["arrived", "id", "shard", "bytes", "reason"], rows, about)


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="As `dead list` shows it.")],
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    shard: OnShard = None,
    as_json: AsJson = False,
) -> None:
    """One letter with its whole payload."""
    from vibezen.metrics.clock import iso
    from vibezen.metrics.commands.table import printable
    from vibezen.metrics.dead_letters import letter

    with _store(config, redis_url, storage_dir, shard) as (client, keys, shards):
        found = [(number, one) for number in shards if (one := letter(client, keys, number, letter_id)) is not None]
    if not found:
        _fail([f"{letter_id}: no such letter"])
    if as_json:
        told = [
            {"shard": number, "id": one.id, "reason": one.reason, "at": one.at, "payload": one.payload}
            for number, one in found
        ]
        _print_json(told)
        return
    for number, one in found:
        print(f"id       {one.id}\nshard    {number}\narrived  {iso(one.at)}\nreason   {printable(one.reason)}")
        print(f"payload  {printable(one.payload)}")


@app.command()
def requeue(
    ids: Ids = None,
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    everything: Everything = False,
    shard: OnShard = None,
    reason: Reason = "",
    since: Since = None,
    until: Until = None,
    force: Annotated[bool, typer.Option("--force", help="Also letters that would be rejected again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Append letters once more as new events, at their original time. Exit code 1 when one was left where it is."""
    wanted = _wanted(reason, since, until)
    done, failed = 0, []
    with _store(config, redis_url, storage_dir, shard) as store:
        from vibezen.metrics.producers import dead

        chosen = _chosen(store, ids or [], wanted, everything=everything)
        for number, letter_id in chosen.found:
            seconds, microseconds = store.client.time()
            try:
                now = seconds + microseconds / 1e6
                done += dead.requeue(store.client, store.keys, number, letter_id, now, force=force)
            except InvalidEvent as bad:
                failed.append(f"{letter_id}: would be rejected again: {bad}")
    _tell("requeued", done, failed + chosen.missing, as_json=as_json)


@app.command()
def drop(
    ids: Ids = None,
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    everything: Everything = False,
    shard: OnShard = None,
    reason: Reason = "",
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Throw letters away for good."""
    wanted = _wanted(reason, since, until)
    with _store(config, redis_url, storage_dir, shard) as store:
        from vibezen.metrics.producers import dead

        chosen = _chosen(store, ids or [], wanted, everything=everything)
        done = 0
        for number in store.shards:
            of_shard = [letter_id for found, letter_id in chosen.found if found == number]
            done += dead.drop(store.client, store.keys, number, of_shard)
    _tell("dropped", done, chosen.missing, as_json=as_json)


def _wanted(reason: str, since: str | None, until: str | None) -> "Wanted":
    """Raises BadParameter."""
    from vibezen.metrics.clock import wall
    from vibezen.metrics.dead_letters import Wanted
    from vibezen.metrics.question import parse_time

    now = wall()
    return Wanted(
        reason,
        parse_time("from", since, now) if since else float("-inf"),
        parse_time("to", until, now) if until else float("inf"),
    )


class _Chosen(NamedTuple):
    """(shard, id) of what was found, and a line for each id that was not."""

    found: list[tuple[int, str]]
    missing: list[str]


def _chosen(store: _Store, ids: list[str], wanted: "Wanted", *, everything: bool) -> _Chosen:
    from vibezen.metrics.dead_letters import overview

    if bool(ids) == everything:
        raise BadParameter("ID", "name letters, or say --all")
    kept: list[Kept] = overview(store.client, store.keys, store.shards, wanted)
    if everything:
        # Oldest first, so that they come back in the order in which they came.
        return _Chosen([(one.shard, one.id) for one in reversed(kept)], [])
    found = [(one.shard, one.id) for letter_id in dict.fromkeys(ids) for one in kept if one.id == letter_id]
    known = {letter_id for _, letter_id in found}
    return _Chosen(
        found, [f"{letter_id}: no such letter" for letter_id in dict.fromkeys(ids) if letter_id not in known]
    )


@contextmanager
def _store(config: Config, redis_url: RedisUrl, storage_dir: StorageDir, shard: int | None) -> Iterator[_Store]:
    """What the server has; an answer that does not come is one line."""
    settings = load_settings(config, redis_url, storage_dir)
    from redis.exceptions import RedisError

    from vibezen.metrics.connection import check_server, connect, redacted
    from vibezen.metrics.connection import redis_url as url_of
    from vibezen.metrics.keys import Keys

    url, keys = url_of(settings), Keys(settings.redis.prefix)
    client = connect(url)
    try:
        check_server(client, url)
        used = client.get(keys.shards)
        shards = max(settings.streams.shards, int(used) if isinstance(used, bytes) else 1)
        yield _Store(client, keys, [*range(shards)] if shard is None else [shard])
    except RedisError as error:
        raise ServerUnavailable(f"{redacted(url)}: {error}") from None
    finally:
        client.close()


def _tell(fate: str, done: int, failed: list[str], *, as_json: bool) -> None:
    if as_json:
        _print_json({fate: done, "failed": failed})
    else:
        print(f"{_count(done)} {fate}")
    if failed:
        _fail(failed)


def _fail(lines: list[str]) -> None:
    import sys

    from vibezen.metrics.commands.table import printable

    for line in lines:
        print(f"vibezen-metrics: {printable(line)}", file=sys.stderr)
    raise typer.Exit(1)


def _count(number: int) -> str:
    return "1 letter" if number == 1 else f"{number:,} letters"


def _print_json(told: object) -> None:
    import msgspec

    print(msgspec.json.encode(told).decode())
