"""The parameters of what the API answers to, as its description tells them; what they mean is parsed elsewhere.

That these are the very ones which the parsers know is seen to by a test.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta

from vibezen.metrics import sessions
from vibezen.metrics.analysis import anomalies
from vibezen.metrics.analysis.outlier import THRESHOLD
from vibezen.metrics.analysis.standing_out import Baseline
from vibezen.metrics.api.recording import STEP
from vibezen.metrics.api.watching import DEFAULT_RATE, MAX_RATE
from vibezen.metrics.export_format import Format
from vibezen.metrics.pace import MAX_SPEED
from vibezen.metrics.question import MAX_CONDITIONS, MAX_TOP
from vibezen.metrics.search import DEFAULT_EVENTS, MAX_EVENTS
from vibezen.metrics.serving.operation import Parameter
from vibezen.metrics.window_reader import AGGREGATES, HISTOGRAM

NAME: Final = r"[a-z][a-z0-9_.]{0,99}"
MetricName = Annotated[str, Meta(pattern=f"^{NAME}$")]
Time = Annotated[
    str,
    Meta(
        pattern=r"^(now(-\d{1,9}[smhdw])?(/[mhdw])?|today|yesterday|\d{9,13}(\.\d{1,9})?|\d{4}-(\d\d|W).*)$",
        examples=["now-1h", "now-1d/d", "2026-11-23T12:00:00Z", "1795449600"],
    ),
]
Condition = Annotated[str, Meta(pattern=f"^{NAME}!?=")]
Switch = Literal["true", "false"]


def _names(name: str) -> str:
    return rf"^{name}(,{name})*$"


METRIC: Final = Parameter("metric", MetricName, "One metric; all of them without it.", example="tokens")
WHICH: Final = Parameter("metric", MetricName, "Which metric.", required=True, example="tokens")
WHERE: Final = Parameter(
    "where",
    Condition,
    f"`key=value` or `key!=value`, for any metadata key; up to {MAX_CONDITIONS} of them, all of which must hold.",
    repeated=True,
)
EXACT: Final = Parameter("exact", Switch, "`true`: from the events themselves, whatever it costs.")
TO: Final = Parameter("to", Time, "Where the range ends: as `from`; now without it.")
ZONE: Final = Parameter(
    "tz",
    Annotated[str, Meta(examples=["Europe/Berlin", "+05:30"])],
    "The zone of days, and of times that name none; `UTC` without it.",
)


def since(otherwise: str, example: str | None = None) -> Parameter:
    """`from`; `otherwise`: what the range is without it."""
    text = f"Where the range begins: `now-1h`, `now-1d/d`, `today`, ISO 8601 or Unix seconds; {otherwise} without it."
    return Parameter("from", Time, text, example=example)


HISTORY: Final = (
    WHICH,
    since("the last hour", "now-24h"),
    TO,
    ZONE,
    Parameter(
        "step",
        Annotated[str, Meta(pattern=r"^(auto|\d{1,9}[smhdw]?)$")],
        "`auto`, or how long one is: `60`, `5m`, `1h`, `1d`, `1w`; up to 1,500 of them.",
        example="1h",
    ),
    Parameter(
        "group_by",
        Annotated[str, Meta(pattern=_names(NAME))],
        "Up to eight labels or other metadata keys to tell apart, with commas between them.",
        example="provider",
    ),
    Parameter("top", Annotated[int, Meta(ge=1, le=MAX_TOP)], "With `group_by`: only so many groups, the largest."),
    Parameter(
        "agg",
        Annotated[str, Meta(pattern=_names(f"({'|'.join(AGGREGATES)})".replace(".", r"\.")))],
        f"One or more of {' '.join(AGGREGATES)}, with commas between them; without it what suits the metric's kind.",
        example="sum",
    ),
    WHERE,
    EXACT,
)

AGG: Final = Parameter(
    "agg",
    Literal[tuple(name for name in AGGREGATES if name != HISTOGRAM)],
    "One aggregate; without it what suits the metric's kind.",
    example="p95",
)


def _line(otherwise: str) -> tuple[Parameter, ...]:
    """Those of history, for one aggregate of a range that is `otherwise` without `from`."""
    own = {"from": since(otherwise, "now-24h"), "agg": AGG}
    return tuple(own.get(parameter.name, parameter) for parameter in HISTORY)


COMPARE: Final = (
    *_line("the last hour"),
    Parameter("against_from", Time, "Where the other range begins; it ends where this one begins without it."),
    Parameter("against_to", Time, "Where the other range ends; it is as long as this one without it."),
    Parameter(
        "against_where",
        Condition,
        "As `where`, for the other side, in place of `where`; of the same range where no other one is given.",
        repeated=True,
    ),
)

TREND: Final = _line("the last seven days")

ANOMALIES: Final = (
    *_line("the last 24 hours"),
    Parameter(
        "threshold",
        Annotated[float, Meta(ge=1, le=anomalies.MAX_THRESHOLD)],
        f"How many robust standard deviations away a step stands out; {THRESHOLD} without it.",
    ),
    Parameter(
        "baseline",
        Baseline,
        "What a step is compared with: the same `hour` of the day in the two weeks before, or the `previous` steps; "
        "the former where there are enough days without it.",
    ),
    Parameter(
        "previous",
        Annotated[int, Meta(ge=1, le=anomalies.MAX_PREVIOUS)],
        f"How many steps before; {anomalies.DEFAULT_PREVIOUS} without it.",
    ),
    Parameter(
        "limit",
        Annotated[int, Meta(ge=1, le=anomalies.MAX_LIMIT)],
        f"At most so many, those that stand out most; {anomalies.DEFAULT_LIMIT} without it.",
    ),
)

SESSION: Final = (since("the last 24 hours", "now-7d"), TO, ZONE)

SESSIONS: Final = (
    *SESSION,
    Parameter("project", str, "Only events of this project."),
    Parameter("agent", str, "Only events of this agent."),
    WHERE,
    Parameter(
        "limit",
        Annotated[int, Meta(ge=1, le=sessions.MAX_LIMIT)],
        f"At most so many; {sessions.DEFAULT_LIMIT} without it.",
    ),
    Parameter("cursor", str, "What an earlier answer gave as `next`: what follows it."),
)

SUMMARY: Final = (METRIC, since("the last 24 hours"), TO, ZONE, WHERE, EXACT)

EXPORT: Final = (
    Parameter("format", Format, "`csv` without it.", example="csv"),
    Parameter("metric", Annotated[str, Meta(pattern=_names(NAME))], "Some metrics, with commas between them."),
    since("all that is stored", "now-24h"),
    Parameter("to", Time, "Where the range ends: as `from`; all that is stored without it."),
    WHERE,
)

CATALOGUE: Final = (since("the last 24 hours"), TO, ZONE)

SEARCH: Final = (
    METRIC,
    since("the last hour"),
    TO,
    ZONE,
    WHERE,
    Parameter("limit", Annotated[int, Meta(ge=1, le=MAX_EVENTS)], f"At most so many; {DEFAULT_EVENTS} without it."),
    Parameter("order", Literal["newest", "oldest"], "Which come first; the newest without it."),
    Parameter("cursor", str, "What an earlier answer gave as `next`: what follows it."),
    Parameter("live", Switch, "`true`: a sample of the events that arrive from now on, as server-sent events."),
    Parameter(
        "rate",
        Annotated[int, Meta(ge=1, le=MAX_RATE)],
        f"With `live`: events shown per second; {DEFAULT_RATE} without it. No other parameter but `metric` and `where` "
        "goes with it.",
    ),
)

REPORT: Final = (
    Parameter("type", str, "Which report.", required=True, example="system_performance"),
    Parameter(
        "period", Annotated[str, Meta(examples=["last-week", "2026-11"])], "Which period; the report's own without it."
    ),
    ZONE,
    Parameter("to", Time, "Where the period ends."),
    EXACT,
    Parameter("format", Literal["json", "markdown", "html", "csv"], "`json` without it.", example="html"),
)

REPLAY: Final = (
    METRIC,
    since("the last hour", "now-1h"),
    TO,
    ZONE,
    WHERE,
    Parameter(
        "step",
        Annotated[str, Meta(pattern=r"^[1-9]\d{0,3}$", examples=["10", "60"])],
        f"Seconds of a window, of which an hour is a multiple; {STEP} without it.",
    ),
    Parameter(
        "speed",
        Annotated[str, Meta(pattern=r"^(max|[1-9]\d{0,3}(\.\d{1,5})?)$", examples=["60", "max"])],
        f"Seconds of the recording in one of ours, 1 (without it) to {MAX_SPEED}; `max`: as fast as it is read.",
        example="max",
    ),
    Parameter("since", str, "An id of this replay: what follows it."),
    Parameter("Last-Event-ID", str, "The same, as browsers send it by themselves.", place="header"),
)

LIVE: Final = (
    Parameter("since", str, "The id of the last message that the client has: what follows it."),
    Parameter("Last-Event-ID", str, "The same, as browsers send it by themselves.", place="header"),
)
