"""The simulated world: who works with which models, in what phases, at what prices, and what can go wrong.

Prices, speeds and sizes are of the order that vendors publish; nobody's bill should be checked against them.
"""

import math
from typing import Final, NamedTuple

from vibezen.metrics.errors import ConfigError


class Model(NamedTuple):
    """Prices in USD per million tokens; `first_token`: median milliseconds; `speed`: output tokens per second; `share`:
    of all sessions; `errors`: share of calls that fail on an ordinary day."""

    provider: str
    name: str
    input: float
    output: float
    cache_read: float
    cache_write: float
    first_token: float
    speed: float
    share: float
    errors: float
    reasons: bool = False


MODELS: Final = (
    Model("anthropic", "claude-sonnet-4.5", 3.0, 15.0, 0.3, 3.75, 900, 78, 0.34, 0.012, True),
    Model("anthropic", "claude-haiku-4.5", 1.0, 5.0, 0.1, 1.25, 450, 160, 0.12, 0.008),
    Model("anthropic", "claude-opus-4.5", 5.0, 25.0, 0.5, 6.25, 1400, 62, 0.06, 0.015, True),
    Model("openai", "gpt-5.1", 1.25, 10.0, 0.125, 1.25, 1100, 95, 0.20, 0.014, True),
    Model("openai", "gpt-5-mini", 0.25, 2.0, 0.025, 0.25, 600, 140, 0.10, 0.010),
    Model("google", "gemini-2.5-pro", 1.25, 10.0, 0.31, 1.25, 1300, 110, 0.08, 0.018, True),
    Model("google", "gemini-2.5-flash", 0.30, 2.5, 0.075, 0.30, 400, 210, 0.06, 0.012),
    Model("local", "qwen3-coder", 0.0, 0.0, 0.0, 0.0, 250, 38, 0.04, 0.004),
)


class Operation(NamedTuple):
    """Median tokens in and out of one call; whether it thinks in steps."""

    name: str
    tokens_in: int
    tokens_out: int
    thinks: bool = False


class Phase(NamedTuple):
    """`calls`: how many a session makes in it, on average; `revised`: whether its end yields a revision count."""

    name: str
    calls: int
    operations: tuple[Operation, ...]
    revised: bool = False


PHASES: Final = (
    Phase("planning", 2, (Operation("requirements_analysis", 6000, 420, True), Operation("plan", 9000, 650, True))),
    Phase(
        "implementation",
        8,
        (Operation("code_generation", 18_000, 800, True), Operation("edit_file", 22_000, 260)),
        revised=True,
    ),
    Phase("testing", 5, (Operation("write_tests", 15_000, 600), Operation("run_tests", 12_000, 90))),
    Phase("debugging", 4, (Operation("explain_failure", 20_000, 280, True), Operation("fix", 24_000, 350)), True),
    Phase("review", 3, (Operation("code_review", 26_000, 480, True), Operation("revise", 21_000, 310))),
)

AGENTS: Final = ("vibezen", "claude-code", "cursor", "aider")
PROJECTS: Final = ("checkout", "search", "mobile-app", "billing", "data-platform", "docs-site")
TOOLS: Final = ("read_file", "edit_file", "run_command", "search_code", "web_fetch")
FAILURES: Final = ("rate_limited", "overloaded", "timeout", "invalid_response")
VIOLATIONS: Final = ("hardcoded_value", "missing_test", "spec_mismatch", "unsafe_call")

_WORKDAY: Final = (8, 7, 6, 6, 6, 7, 9, 13, 18, 22, 24, 23, 20, 22, 25, 26, 24, 20, 16, 14, 13, 12, 10, 9)
_MEAN: Final = sum(_WORKDAY) / 24
_WEEKEND: Final = 0.6


def rhythm(ts: float) -> float:
    """How busy the world is at `ts` (Unix seconds, hours in UTC), as a multiple of a workday's mean."""
    hour = ts / 3600 % 24
    this, share = int(hour), hour % 1
    level = _WORKDAY[this] * (1 - share) + _WORKDAY[(this + 1) % 24] * share
    weekend = (int(ts // 86_400) + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    return level / _MEAN * (_WEEKEND if weekend else 1.0)


KINDS: Final = ("latency", "errors", "cache", "cost")


class Incident(NamedTuple):
    """Something going wrong from `start` for `duration` seconds, both counted from the simulation's beginning.

    latency: Anthropic answers four times slower, and calls queue up; errors: a third of OpenAI's calls fail; cache:
    prompt caches miss nearly always; cost: contexts grow eightfold.
    """

    kind: str
    start: float = 0.0
    duration: float = math.inf

    def holds(self, elapsed: float) -> bool:
        return self.start <= elapsed < self.start + self.duration


def parse_incident(text: str) -> Incident:
    """`errors`, `errors@60` (from second 60 on) or `errors@60+120` (for 120 s)."""
    kind, _, times = text.partition("@")
    start, _, duration = times.partition("+")
    try:
        incident = Incident(kind, float(start or 0), float(duration or "inf"))
    except ValueError:
        incident = None
    if incident is None or kind not in KINDS or not (incident.start >= 0 and incident.duration > 0):
        names = ", ".join(KINDS)
        raise ConfigError(f"incident {text!r}: expected one of {names}, as NAME, NAME@START or NAME@START+SECONDS")
    return incident
