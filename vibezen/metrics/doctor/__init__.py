"""`vibezen-metrics doctor`: looks at everything the product stands on and says what to do.

Each check is a function of what was seen; asking is apart from judging. Nothing is changed, but for a folder inside the
storage folder that is gone again at once.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.connection import connect, redacted, redis_url
from vibezen.metrics.doctor import compactor, pipeline, ports, program, server, store
from vibezen.metrics.doctor.finding import Finding, Status, fail, ok, unknown
from vibezen.metrics.errors import ConfigError
from vibezen.metrics.keys import Keys
from vibezen.metrics.settings import Settings

__all__ = ["Finding", "Status", "examine"]


def examine(load: Callable[[], Settings], clock: Clock = wall) -> Iterator[Finding]:
    """All findings, in the order they are made. `load` gives the settings; what it raises is a finding too."""
    yield program.python()
    yield program.extras()
    try:
        settings = load()
    except ConfigError as error:
        yield fail("configuration", str(error), "correct it; nothing else could be looked at")
        return
    yield program.configuration(settings)
    yield program.embedded_server(settings)
    yield program.running_up(settings)
    facts = yield from _server(settings, clock)
    known = facts[0].store if facts else None
    yield from store.checks(settings.storage_dir, known, asked=facts is not None)
    yield store.external(settings.external.url)
    for name, served in (("dashboard port", settings.dashboard), ("gateway port", settings.gateway)):
        yield ports.port(name, served.host, served.port, secure=served.tls_certificate is not None)


def _server(settings: Settings, clock: Clock) -> Generator[Finding, None, list[server.ServerFacts] | None]:
    """What the server says of itself and of the stream; answers its facts, None when it says nothing."""
    url, keys = redis_url(settings), Keys(settings.redis.prefix)
    try:
        with closing(connect(url)) as client:
            facts = server.ask(client, keys, clock)
            shards = pipeline.ask(client, keys, settings.streams.shards)
            compacting = compactor.ask(client, keys)
    except ConfigError as error:
        yield fail("server", str(error), "correct it")
    except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
        yield fail("server", f"{redacted(url)}: {error}", "give redis.url the right user and password")
    except (RedisError, OSError) as error:
        yield fail("server", f"{redacted(url)}: {error}", "start it, or `vibezen-metrics up`, or set redis.url")
    else:
        yield ok("server", f"{redacted(url)} answers")
        yield from server.checks(facts)
        yield from pipeline.checks(shards, clock())
        yield compactor.check(compacting, clock())
        return facts
    yield unknown("stream", "the server does not answer")
    return None
