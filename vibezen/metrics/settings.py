"""The settings as they hold: one frozen struct per section of `vibezen.yaml`. Reading them is config.py's."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from vibezen.metrics.catalogue import Catalogue, MetricSpec
from vibezen.metrics.event import MIN_SAMPLE_RATE
from vibezen.metrics.keys import DEFAULT_PREFIX
from vibezen.metrics.series import DEFAULT_LABELS

STREAM_BYTES: Final = 512 * 1024 * 1024
"""Some 3 million events: what a group that stands still for minutes under load leaves behind."""
PREFIX: Final = r"^[A-Za-z0-9_.:-]{1,64}\Z"
"""What all keys may begin with."""

Positive = Annotated[float, Meta(gt=0, le=1e9)]  # bounded, since waiting for `.inf` seconds is an error
Share = Annotated[float, Meta(ge=0, le=1)]
Rate = Annotated[float, Meta(ge=MIN_SAMPLE_RATE, le=1)]
Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the file. Unknown keys are errors, since a misspelt one would silently do nothing."""


class Dashboard(_Section, frozen=True):
    """Where the API and the page are served. `enabled` switches the page, not the API. `root_path`: the path under
    which a proxy offers us, `/metrics-ui`. `trusted_proxies`: addresses and networks whose X-Forwarded headers are
    believed."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8080
    root_path: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None


class Gateway(_Section, frozen=True):
    """Where events are taken in over HTTP. `origins`: web pages that may send some, as browsers name them; the rest as
    for `Dashboard`."""

    host: str = "127.0.0.1"
    port: Port = 4318
    origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None


class Required(StrEnum):
    """When a token is asked for."""

    AUTO = "auto"
    """Beyond this machine: listening on another address than its own, or behind a proxy."""
    ALWAYS = "always"


class Auth(_Section, frozen=True):
    """Who may ask. `token`: the first token, in place of the one that is made; a secret. `hosts`: further names the
    servers are known by. `origins`: web pages of elsewhere that may ask the API, as browsers name them."""

    token: Annotated[str, Meta(pattern=r"^[!-~]{16,512}\Z")] | None = None
    required: Required = Required.AUTO
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


class Collection(_Section, frozen=True):
    """Switches for the three families of metrics; learning = quality, practice = performance."""

    system_metrics: bool = True
    learning_metrics: bool = True
    practice_metrics: bool = True


class Alerts(_Section, frozen=True):
    error_rate_threshold: Share = 0.05
    response_time_threshold_ms: Positive = 1000.0
    cache_hit_rate_threshold: Share = 0.7


class Durability(StrEnum):
    """When an event counts as safe. `spool`, `server` and `replica` keep on disk what the server does not take."""

    MEMORY = "memory"
    """Once the server has it; until then in memory alone."""
    SPOOL = "spool"
    """Once it is on this machine's disk: each call is written there before it is sent."""
    SERVER = "server"
    """Once the server has it."""
    REPLICA = "replica"
    """Once the server and `replicas` of its replicas have it."""


class Spool(_Section, frozen=True):
    """Calls the server did not take, on disk. `dir`: None is `spool` in the storage folder. `max_bytes`: of all
    producers with the same folder together; beyond it a producer's oldest calls are dropped, and counted."""

    dir: Path | None = None
    max_bytes: Annotated[int, Meta(ge=1_048_576)] = 256 * 1024 * 1024


class Redis(_Section, frozen=True):
    """`url`: see address.py. None: a running `up`, else redis://127.0.0.1:6379."""

    url: str | None = None
    prefix: Annotated[str, Meta(pattern=PREFIX)] = DEFAULT_PREFIX


class Streams(_Section, frozen=True):
    """`max_bytes`: memory one shard's stream may take before it refuses more; the archiver's setting holds for all."""

    shards: Annotated[int, Meta(ge=1, le=1024)] = 1
    max_bytes: Annotated[int, Meta(ge=65_536)] = STREAM_BYTES


class Width(_Section, frozen=True):
    """Windows of `seconds`, kept for `keep_seconds` after their end."""

    seconds: Count
    keep_seconds: Count


class Aggregation(_Section, frozen=True):
    """`labels`: metadata keys that series are made of. `max_series`: per metric and window, then they fold into one."""

    labels: tuple[str, ...] = DEFAULT_LABELS
    widths: tuple[Width, ...] = (Width(seconds=10, keep_seconds=7200), Width(seconds=60, keep_seconds=93_600))
    max_series: Count = 1000
    commit_interval_seconds: Positive = 1.0
    commit_series: Count = 5000


class Archive(_Section, frozen=True):
    """When segments are committed and rolled."""

    commit_interval_seconds: Positive = 0.2
    segment_bytes: Annotated[int, Meta(ge=1024)] = 64 * 1024 * 1024
    segment_age_seconds: Positive = 900.0
    max_open_segments: Annotated[int, Meta(ge=1, le=1024)] = 64


class Compaction(_Section, frozen=True):
    """When closed hours become Parquet files. `after_seconds`: since the end of the hour, and since its last arrival;
    `level`: of zstd; `merge_days`: whether closed days become one file; `grace_seconds`: how long what a newer file
    replaces is kept for those who still read it."""

    after_seconds: Positive = 3600.0
    level: Annotated[int, Meta(ge=1, le=22)] = 9
    merge_days: bool = True
    rollups: bool = True
    grace_seconds: Positive = 300.0


class External(_Section, frozen=True):
    """Where closed days go for long-term storage: `url` as fsspec knows it, `file:///mnt/archive`, `s3://bucket/folder`;
    None keeps them here. `after_days`: their age."""

    url: str | None = None
    after_days: Count = 7


class Live(_Section, frozen=True):
    """The live feed. `interval_seconds`: between two frames at least. `max_clients`: of each process of the API;
    `max_clients_per_address`: WebSockets and streams that one address may hold open in one process; this machine's own
    may hold any number."""

    interval_seconds: Annotated[float, Meta(ge=0.05, le=10)] = 0.25
    max_clients: Count = 5000
    max_clients_per_address: Count = 200


class Queries(_Section, frozen=True):
    """Questions about the past. `seconds`: after which one is given up. `cache_bytes`: of answers that cannot change
    any more, kept in each process of the API."""

    seconds: Positive = 30.0
    cache_bytes: Annotated[int, Meta(ge=0)] = 64 * 1024 * 1024


class Reports(_Section, frozen=True):
    """`dir`: a folder with definitions of reports, one YAML file each; None: the built-in ones alone."""

    dir: Path | None = None


class Log(_Section, frozen=True):
    """What servers tell on standard error. `access`: each request, as a line of JSON."""

    access: bool = False


class Settings(_Section, frozen=True):
    """All of `vibezen.metrics`. Times are seconds unless a name says otherwise.

    `buffer_size`: events that trigger a flush. `buffer_max_events`: the bound; beyond it the oldest are dropped and
    counted. `replicas`: how many `durability: replica` waits for. `source`: the file read, None without one.
    """

    enabled: bool = True
    storage_dir: Path = Path("metrics_data")
    buffer_size: Count = 100
    buffer_max_events: Count = 100_000
    flush_interval_seconds: Positive = 1.0
    durability: Durability = Durability.SERVER
    replicas: Annotated[int, Meta(ge=1, le=100)] = 1
    spool: Spool = Spool()
    retention_days: Count = 30
    retention_bytes: Count | None = None
    dashboard: Dashboard = Dashboard()
    gateway: Gateway = Gateway()
    auth: Auth = Auth()
    live: Live = Live()
    collection: Collection = Collection()
    alerts: Alerts = Alerts()
    redis: Redis = Redis()
    streams: Streams = Streams()
    aggregation: Aggregation = Aggregation()
    archive: Archive = Archive()
    compaction: Compaction = Compaction()
    external: External = External()
    queries: Queries = Queries()
    reports: Reports = Reports()
    log: Log = Log()
    sampling: dict[str, Rate] = {}
    metrics: dict[str, MetricSpec] = {}
    source: Path | None = None

    def catalogue(self) -> Catalogue:
        return Catalogue(self.metrics)

    @property
    def replicas_asked(self) -> int:
        """How many replicas must have an event before it is safe; 0 for any `durability` but `replica`."""
        return self.replicas if self.durability is Durability.REPLICA else 0

    @property
    def spool_dir(self) -> Path:
        return self.spool.dir or self.storage_dir / "spool"
