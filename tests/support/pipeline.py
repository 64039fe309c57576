"""A whole pipeline without processes: events in, both groups' work done on demand, questions answered."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import redis
from msgspec.structs import replace

from tests.support.feeding import Feed
from vibezen.metrics import config
from vibezen.metrics.clock import wall
from vibezen.metrics.connection import connect_async
from vibezen.metrics.consumers.supervisor import run
from vibezen.metrics.event import Event
from vibezen.metrics.event_reader import EventReader
from vibezen.metrics.gathering import Asked, Gathered, Gatherer
from vibezen.metrics.history import History, history
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.question import parse_question
from vibezen.metrics.search import Events, parse_search, search
from vibezen.metrics.summary import Summary, parse_summary, summary


class Pipeline:
    """One store and one server. `now`: what questions take for the present; None: the clock's."""

    def __init__(self, client: redis.Redis, url: str, folder: Path, **settings: Any) -> None:
        self.client, self.url = client, url
        self.settings = replace(config.load(redis_url=url, storage_dir=folder, environ={}), **settings)
        self.layout = Layout(folder)
        self.layout.create()
        self.reader = EventReader(self.layout)
        self.now: float | None = None
        self.away = False
        self._feeds: dict[str, Feed] = {}

    def feed(self, events: Sequence[Event], producer: str = "p1") -> None:
        feed = self._feeds.setdefault(producer, Feed(self.client, producer))
        for start in range(0, len(events), 500):
            feed.append(events[start : start + 500])

    def archive(self) -> None:
        assert run("archive", self.settings, once=True) == 0

    def aggregate(self) -> None:
        assert run("aggregate", self.settings, once=True) == 0

    def take_in(self, events: Sequence[Event], producer: str = "p1") -> None:
        """Append, archive and aggregate."""
        self.feed(events, producer)
        self.archive()
        self.aggregate()

    def history(self, metric: str = "response_time", server: bool = True, **parameters: Any) -> History:
        now = self._time()
        question = parse_question({"metric": metric, **_plain(parameters)}, self.settings, now)
        found: History = self.ask(lambda gatherer: history(gatherer, question, now), server=server)
        return found

    def summary(self, server: bool = True, **parameters: Any) -> Summary:
        now = self._time()
        asked = parse_summary(_plain(parameters), self.settings, now)
        found: Summary = self.ask(lambda gatherer: summary(gatherer, asked, now), server=server)
        return found

    def search(self, **parameters: Any) -> Events:
        asked = parse_search(_plain(parameters), self._time())
        return anyio.run(search, self.reader, asked)

    def gather(self, asked: Asked) -> Gathered:
        found: Gathered = self.ask(lambda gatherer: gatherer.gather(asked))
        return found

    def _time(self) -> float:
        return wall() if self.now is None else self.now

    def ask(self, question: Any, *, server: bool = True) -> Any:
        """What an asynchronous function answers that is given a Gatherer. `server`: whether this knows of one."""

        async def ask() -> Any:
            client = connect_async(self.url) if server else None
            try:
                keys = Keys(self.settings.redis.prefix)
                return await question(Gatherer(self.reader, client, keys, self.settings, self._time, lambda: self.away))
            finally:
                if client is not None:
                    await client.aclose()

        return anyio.run(ask)


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`since` and `until` are `from` and `to`; numbers become text."""
    names = {"since": "from", "until": "to"}
    return {
        names.get(name, name): value if isinstance(value, str | list) else repr(value)
        for name, value in parameters.items()
    }


def values_of(answer: History, agg: str | None = None) -> dict[tuple[tuple[str, str], ...], list[Any]]:
    """Group → its values, of one aggregate."""
    return {
        tuple(line.labels.items()): [value for _, value in line.points]
        for line in answer.series
        if agg is None or line.agg == agg
    }


def sources_of(answer: History | Summary) -> list[str]:
    return [source.source for source in answer.sources]


def only(values: Iterable[Any]) -> Any:
    (value,) = values
    return value
