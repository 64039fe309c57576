"""MetricsReporter: reports and events of one storage folder, as applications ask for them."""

import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from vibezen.metrics import connection
from vibezen.metrics.asking import answered
from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.config import load
from vibezen.metrics.event_reader import EventReader
from vibezen.metrics.export import Exporter, exported, parse_export
from vibezen.metrics.export_format import Format
from vibezen.metrics.gathering import Gatherer
from vibezen.metrics.keys import Keys
from vibezen.metrics.reports.asking import parse_report, report
from vibezen.metrics.reports.rendering import format_of
from vibezen.metrics.reports.report import Report
from vibezen.metrics.settings import Settings
from vibezen.metrics.storage import MetricsStorage, check_same_store

WEEKLY = "weekly_summary"


class MetricsReporter:
    """Reads one store, and its server's windows where that answers; files alone suffice.

    Without settings, those that hold here apply. Every method raises BadParameter for a question that cannot be
    answered, ConfigError for a broken definition, StoreError when the folder is no store or cannot be read.
    """

    def __init__(self, storage: MetricsStorage, *, settings: Settings | None = None, clock: Clock = wall) -> None:
        self.storage = storage
        self.settings = settings if settings is not None else load(storage_dir=storage.path)
        self._clock = clock

    async def generate_report(
        self,
        type: str = "",
        *,
        period: str = "",
        tz: str = "UTC",
        to: str = "",
        definition: Path | str | None = None,
        exact: bool = False,
    ) -> dict[str, Any]:
        """A report as data; docs/reports.md describes it. `period`: `7d`, `last-week`, `2026-11-01..2026-11-08`, …;
        without it the definition's. `definition`: a YAML file taken instead of the one `type` names."""
        made = await self._report(type, period, tz, to, definition, exact=exact)
        return made.as_dict()

    async def generate_weekly_summary(self, *, period: str = "", tz: str = "UTC", to: str = "") -> dict[str, Any]:
        """The last seven days, today included, against the seven before."""
        return await self.generate_report(WEEKLY, period=period, tz=tz, to=to)

    async def render_report(
        self,
        type: str = "",
        format: str = "html",
        *,
        period: str = "",
        tz: str = "UTC",
        to: str = "",
        definition: Path | str | None = None,
        exact: bool = False,
    ) -> str:
        """The same as text: `html`, `markdown`, `csv` or `json`."""
        chosen = format_of(format)
        return chosen.render(await self._report(type, period, tz, to, definition, exact=exact))

    async def _report(
        self, type: str, period: str, tz: str, to: str, definition: Path | str | None, *, exact: bool
    ) -> Report:
        now = self._clock()
        asked = parse_report(
            {"type": type, "period": period, "tz": tz, "to": to, "exact": "true" if exact else "false"},
            self.settings,
            now,
            Path(definition) if definition is not None else None,
        )
        async with self._gatherer() as gatherer:
            # No limit: whoever waits may cancel it, and then no query is left running.
            return await answered(lambda: report(gatherer, self.settings, asked, now), math.inf)

    async def export_metrics(
        self,
        format: str = "csv",
        *,
        metric: str | Sequence[str] = (),
        since: str = "",
        until: str = "",
        where: str | Sequence[str] = (),
    ) -> str | bytes:
        """The events themselves as `csv` or `jsonl` text, or as the bytes of a `parquet` file: all of them, or those of
        these metrics, from `since` until `until` (as `now-7d`, ISO 8601, Unix seconds), with this metadata
        (`key=value`, `key!=value`). All in memory: for more than that there is `stream_metrics`."""
        blocks = self.stream_metrics(format, metric=metric, since=since, until=until, where=where)
        whole = b"".join([block async for block in blocks])
        return whole if format == Format.PARQUET else whole.decode()

    async def stream_metrics(
        self,
        format: str = "csv",
        *,
        metric: str | Sequence[str] = (),
        since: str = "",
        until: str = "",
        where: str | Sequence[str] = (),
    ) -> AsyncGenerator[bytes]:
        """The same in blocks, for any number of events in memory that does not grow with it."""
        metrics = metric if isinstance(metric, str) else ",".join(metric)
        asked = parse_export(
            {"format": format, "metric": metrics, "from": since, "to": until, "where": where},
            self.settings.aggregation.labels,
            self._clock(),
        )
        layout = self.storage.layout
        layout.read()  # raises StoreError, which says what is wrong with the folder
        async with aclosing(exported(Exporter(EventReader(layout), asked))) as blocks:
            async for block in blocks:
                yield block

    @asynccontextmanager
    async def _gatherer(self) -> AsyncIterator[Gatherer]:
        layout, keys = self.storage.layout, Keys(self.settings.redis.prefix)
        layout.read()  # raises StoreError, which says what is wrong with the folder
        async with connection.connect_async(connection.redis_url(self.settings)) as client:
            away = False
            try:
                check_same_store(layout, await client.get(keys.store))
            except (RedisError, *connection.UNREACHABLE):
                away = True  # files answer alone
            yield Gatherer(EventReader(layout), client, keys, self.settings, self._clock, lambda: away)
