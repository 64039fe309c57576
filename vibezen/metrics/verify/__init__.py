"""`vibezen-metrics verify`: whether what the product keeps agrees with itself.

Files are held against the commit logs, windows against the events on disk, and both sides of the books against each
other. Asking is apart from judging. Nothing is changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from vibezen.metrics.connection import check_server, connect, redacted, redis_url
from vibezen.metrics.doctor.finding import Finding, fail, unknown
from vibezen.metrics.errors import ServerError, StoreError, StoreMismatch
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.settings import Settings
from vibezen.metrics.storage import check_same_store
from vibezen.metrics.verify import books, files, windows
from vibezen.metrics.verify.segments import Progress

__all__ = ["Progress", "examine", "shards_of", "size"]


def size(settings: Settings) -> int:
    """Bytes of files that `examine` will read at least. Raises StoreError."""
    with _readable(settings):
        return files.size(Layout(settings.storage_dir))


@contextmanager
def _readable(settings: Settings) -> Iterator[None]:
    """What cannot be looked at at all is one line."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise StoreError(f"storage folder {settings.storage_dir}: its commit logs: {error}") from None


def examine(settings: Settings, progress: Progress, *, offline: bool = False) -> Iterator[Finding]:
    """All findings, in the order they are made. Raises StoreError for a folder that is no store, or cannot be read."""
    layout = Layout(settings.storage_dir)
    layout.read()
    with _readable(settings):
        found = list(files.checks(layout, progress))
    yield from found
    if offline:
        yield from _not_compared("--offline")
    else:
        yield from _server(settings, layout)


def _not_compared(reason: str, advice: str = "") -> Iterator[Finding]:
    for name in ("windows", "books"):
        yield unknown(name, f"not compared: {reason}", advice)


def _server(settings: Settings, layout: Layout) -> Iterator[Finding]:
    url, keys = redis_url(settings), Keys(settings.redis.prefix)
    client = connect(url)
    try:
        check_server(client, url)
        check_same_store(layout, client.get(keys.store))
        yield from _compared(client, keys, settings, layout)
    except StoreMismatch as error:
        yield fail("store", str(error), "give the folder and the server that belong together")
        yield from _not_compared("the server has another store's")
    except (ServerError, RedisError) as error:
        text = str(error) if isinstance(error, ServerError) else f"{redacted(url)}: {error}"
        yield from _not_compared(text, "start the server, or give --redis-url")
    except (ValueError, msgspec.MsgspecError) as error:
        yield fail("books", f"foreign data in them: {error}", "look for what else writes under this redis.prefix")
    finally:
        client.close()


def shards_of(client: Redis, keys: Keys, settings: Settings, layout: Layout) -> range:
    """Every shard that the settings, the server or the files know."""
    used = client.get(keys.shards)
    highest = int(used) if isinstance(used, bytes) else 1
    return range(max([settings.streams.shards, highest, *(shard + 1 for shard in layout.shards())]))


def _compared(client: Redis, keys: Keys, settings: Settings, layout: Layout) -> Iterator[Finding]:
    def now() -> float:
        seconds, microseconds = client.time()
        return float(seconds) + microseconds / 1e6

    shards = shards_of(client, keys, settings, layout)
    comparison = windows.Comparison(client, keys, layout, settings, now)
    for shard in shards:
        yield from comparison.check(shard)
    for shard in shards:
        yield from books.judge(shard, books.ask(client, keys, shard))
        yield from books.judge_producers(shard, books.ask_producers(client, keys, shard), now())
