"""What can go wrong, as a tree.

MetricsError
├── InvalidEvent (ValueError)   the event breaks a rule of the contract; never again
│   ├── MalformedEvent          … the line is no JSON text at all
│   └── UntimelyEvent           … it lies ahead of the clock: the same line may be good later
├── BadParameter (ValueError)   a question that cannot be answered as it stands: names the parameter; exit 2
├── TooSlow                     a question took longer than it may: ask for less; exit 1
├── ConfigError                 a setting is wrong: names file, key, value and what was expected; exit 2
├── MissingExtra                this command needs an optional part that is not installed; exit 2
├── StoreError                  the storage folder cannot be used; exit 1
│   ├── StoreMismatch           … it belongs to another store than the server knows
│   ├── StoreInUse              … another `up` holds it
│   ├── StoreFull               … no space: nothing was committed, and the same can be tried again
│   └── ExternalAway            … the external storage does not do now what it should: wait and try again
├── ServerError                 the Redis or Valkey server cannot be used; exit 1
│   ├── ServerUnavailable       … not reachable now: wait and try again
│   ├── NotReplicated           … it has the events, but fewer replicas than asked for have them
│   └── ServerUnsuitable        … reachable, but too old or set up so that data would be lost
├── SqlError                    a statement of `sql` is wrong, not allowed or too large; exit 1
├── ImportStopped               an import cannot go on: what was appended stays, and it can be resumed; exit 1
├── AddressInUse                the port to serve on is taken; exit 1
├── StreamMoved                 the stream or group is not where its owner left it: attach anew, commit nothing
└── Fenced                      another owner has taken this shard over; stop at once, change nothing
"""

__all__ = [
    "AddressInUse",
    "BadParameter",
    "ConfigError",
    "ExternalAway",
    "Fenced",
    "ImportStopped",
    "InvalidEvent",
    "MalformedEvent",
    "MetricsError",
    "MissingExtra",
    "NotReplicated",
    "ServerError",
    "ServerUnavailable",
    "ServerUnsuitable",
    "SqlError",
    "StoreError",
    "StoreFull",
    "StoreInUse",
    "StoreMismatch",
    "StreamMoved",
    "TooSlow",
    "UntimelyEvent",
]


class MetricsError(Exception):
    """The root: catch it to catch everything this package raises on purpose. Its text is one line for people."""

    exit_code = 1


class InvalidEvent(MetricsError, ValueError):
    """The event breaks the contract. `field` names the part, the text says what was expected."""

    exit_code = 2

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class MalformedEvent(InvalidEvent):
    """The line is no JSON text: not UTF-8, not JSON, nested too deeply, or empty."""


class UntimelyEvent(InvalidEvent):
    """Refused because of the clock alone: the one verdict that may be another one when the same line comes later."""


class BadParameter(MetricsError, ValueError):
    """A parameter of a question is missing, unknown or impossible. `field` names it, `reason` says what is wrong."""

    exit_code = 2

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class TooSlow(MetricsError):
    """A question took longer than `queries.seconds`. The same one will again, unless less else is going on."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"not answered within {seconds:g} s (queries.seconds): ask for less time, a coarser step, fewer groups or "
            "one metric, and without `exact`"
        )


class ConfigError(MetricsError):
    """A setting is unknown, of the wrong type or impossible. Nothing was started."""

    exit_code = 2


class MissingExtra(MetricsError):
    """An optional part is not installed; the text gives the `pip install` line."""

    exit_code = 2

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs an extra that is not installed: pip install 'vibezen-metrics[{extra}]'")
        self.extra = extra


class StoreError(MetricsError):
    """The storage folder cannot be created, read or written."""


class StoreMismatch(StoreError):
    """The server and the folder carry different store ids: data of two stores would mix."""


class StoreInUse(StoreError):
    """Another process holds this folder for itself."""


class StoreFull(StoreError):
    """The disk or a quota has no space for it now. What failed was undone, and can be tried again."""


class ExternalAway(StoreError):
    """The external storage does not answer, or not with what was put there. Questions about what lies here go on."""


class ServerError(MetricsError):
    """The Redis or Valkey server cannot be used."""


class ServerUnavailable(ServerError):
    """The server does not answer now. Waiting and trying again is right."""


class NotReplicated(ServerError):
    """What was written is on the server, but not on as many replicas as `replicas` asks for. Writing it again is right:
    what is there already is not added, and the wait then covers it."""


class ServerUnsuitable(ServerError):
    """The server answers but must not be used: too old, or it would evict data."""


class SqlError(MetricsError):
    """A statement cannot be answered: it has a mistake, does more than read events, or takes too much time or memory.
    Its text may have some lines, which show where."""


class ImportStopped(MetricsError):
    """An import cannot go on: its source cannot be read, differs from what was imported, or lies in the future."""


class AddressInUse(MetricsError):
    """The address to listen on is taken by another process, or may not be bound."""


class StreamMoved(MetricsError):
    """The stream or its group was removed, made anew or replaced by another server's. What was taken is read again."""


class Fenced(MetricsError):
    """A newer owner holds this shard. Nothing may be written or committed any more by this one."""
