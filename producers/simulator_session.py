"""One simulated coding session: its calls, phase by phase, and what each of them leaves behind as events."""

import math
import random
from typing import Final

from vibezen.metrics.catalogue import MetricType as M
from vibezen.metrics.event import Event, MetadataValue
from vibezen.metrics.producers.simulator_world import (
    AGENTS,
    FAILURES,
    MODELS,
    PHASES,
    PROJECTS,
    TOOLS,
    VIOLATIONS,
    Incident,
    Model,
    Operation,
)

Labels = dict[str, MetadataValue]

_SHARES: Final = [model.share for model in MODELS]
_CALLS: Final = [phase.calls for phase in PHASES]
_PROVIDERS: Final = sorted({model.provider for model in MODELS})
_DRIFT_STEP: Final = 10.0
"""Seconds between two steps of the providers' slow drift."""
_NO_TOKENS: Final = {"input": 0, "output": 0, "cache_read": 0, "cache_write": 0, "reasoning": 0}


class Conditions:
    """How the world is at a moment: each provider's drifting speed, and the incidents that hold."""

    def __init__(self, dice: random.Random, incidents: tuple[Incident, ...], start: float) -> None:
        self._dice = dice
        self._incidents = incidents
        self._start = self._step_at = start
        self._drift = dict.fromkeys(_PROVIDERS, 0.0)
        self._holding: frozenset[str] = frozenset()
        self.slowness = dict.fromkeys(_PROVIDERS, 1.0)
        self.failing = dict.fromkeys(_PROVIDERS, 0.0)
        self.cache_hits = 0.8
        self.context = 1.0
        self.queueing = 0.05
        self.typical_latency = 6000.0
        """Milliseconds a call takes, as a running mean over the calls so far."""

    def at(self, ts: float) -> "Conditions":
        """Move on to `ts`; time never runs backwards here."""
        while self._step_at <= ts:
            self._step_at += _DRIFT_STEP
            for provider in _PROVIDERS:
                self._drift[provider] = 0.97 * self._drift[provider] + self._dice.gauss(0, 0.03)
            self._apply()
        holding = frozenset(incident.kind for incident in self._incidents if incident.holds(ts - self._start))
        if holding != self._holding:
            self._holding = holding
            self._apply()
        return self

    def _apply(self) -> None:
        self.slowness = {provider: math.exp(drift) for provider, drift in self._drift.items()}
        if "latency" in self._holding:
            self.slowness["anthropic"] *= 4
        self.failing["openai"] = 0.33 if "errors" in self._holding else 0.0
        self.cache_hits = 0.08 if "cache" in self._holding else 0.8
        self.context = 8.0 if "cost" in self._holding else 1.0
        self.queueing = 0.6 if "latency" in self._holding else 0.05

    def took(self, latency: float) -> None:
        self.typical_latency += (latency - self.typical_latency) * 0.01


class Session:
    """`call` makes the next call; after the last one `finished` is true. `under_way`: it began before we look."""

    def __init__(self, dice: random.Random, begun: float, *, under_way: bool = False) -> None:
        self._dice = dice
        self._begun = begun
        self._model: Model = dice.choices(MODELS, _SHARES)[0]
        self._context = 0.6
        """Grows as files and answers pile up; a factor on every call's input."""
        self._phase = dice.choices(range(len(PHASES)), _CALLS)[0] if under_way else 0
        self._left = self._phase_calls()
        self._revisions = 0
        self._new = not under_way
        self.finished = False
        self._labels: Labels = {
            "provider": self._model.provider,
            "model": self._model.name,
            "agent": dice.choice(AGENTS),
            "project": dice.choice(PROJECTS),
            "session": f"{dice.getrandbits(48):012x}",
        }

    def _phase_calls(self) -> int:
        return 1 + int(self._dice.expovariate(1 / PHASES[self._phase].calls))

    def call(self, ts: float, world: Conditions) -> list[Event]:
        """The events of one call that ended at `ts`, and of what ended with it."""
        phase = PHASES[self._phase]
        operation = phase.operations[self._dice.random() < 0.55]
        labels: Labels = {**self._labels, "phase": phase.name, "operation": operation.name}
        made: list[Event] = []
        if self._new:
            made.append(Event(_SESSIONS, 1, ts, 1.0, 1, self._labels))
        if self._fails(world):
            self._failed(made, ts, labels, world)
        else:
            self._answered(made, ts, labels, operation, world)
        self._new = False
        self._left -= 1
        if self._left <= 0:
            self._end_phase(made, ts, labels)
        return made

    def _fails(self, world: Conditions) -> bool:
        model = self._model
        return self._dice.random() < model.errors + world.failing[model.provider]

    def _failed(self, made: list[Event], ts: float, labels: Labels, world: Conditions) -> None:
        failure = self._dice.choice(FAILURES)
        took = (
            30_000.0
            if failure == "timeout"
            else self._dice.lognormvariate(6.5, 0.5) * world.slowness[self._model.provider]
        )
        made.append(Event(_API_CALLS, 1, ts, 1.0, 1, {**labels, "status": "error"}))
        made.append(Event(_ERROR_RATE, 1, ts, 1.0, 1, {**labels, "error": failure}))
        made.append(Event(_RESPONSE_TIME, round(took, 1), ts, 1.0, 1, labels))

    def _answered(self, made: list[Event], ts: float, labels: Labels, operation: Operation, world: Conditions) -> None:
        dice, model = self._dice, self._model
        hit = not self._new and dice.random() < world.cache_hits
        tokens = self._tokens(operation, world, hit)
        slowness = world.slowness[model.provider]
        first = dice.lognormvariate(math.log(model.first_token), 0.35) * slowness
        took = first + (tokens["output"] + tokens["reasoning"]) / model.speed * 1000 * slowness
        world.took(took)
        made += (
            Event(_API_CALLS, 1, ts, 1.0, 1, {**labels, "status": "ok"}),
            Event(_ERROR_RATE, 0, ts, 1.0, 1, labels),
            Event(_RESPONSE_TIME, round(took, 1), ts, 1.0, 1, labels),
            Event(_FIRST_TOKEN, round(first, 1), ts, 1.0, 1, labels),
            Event(_CACHE_HIT, int(hit), ts, 1.0, 1, labels),
            Event(_COST, _cost(model, tokens), ts, 1.0, 1, labels),
        )
        made += (Event(_TOKENS, n, ts, 1.0, 1, {**labels, "type": kind}) for kind, n in tokens.items() if n)
        if operation.thinks:
            steps = 2 + int(dice.expovariate(0.25))
            confidence = min(0.99, max(0.05, dice.gauss(0.72 + 0.015 * min(steps, 10), 0.09)))
            made.append(Event(_THINKING, steps, ts, 1.0, 1, labels))
            made.append(Event(_CONFIDENCE, round(confidence, 3), ts, 1.0, 1, labels))
        elif dice.random() < 0.7:
            tool: Labels = {**labels, "tool": dice.choice(TOOLS)}
            made.append(Event(_TOOL_CALLS, 1 + int(dice.expovariate(0.6)), ts, 1.0, 1, tool))

    def _tokens(self, operation: Operation, world: Conditions, hit: bool) -> dict[str, int]:
        dice = self._dice
        whole = int(operation.tokens_in * self._context * dice.lognormvariate(0, 0.35) * world.context)
        self._context = min(2.5, self._context * 1.04)
        cached = int(whole * (0.8 + 0.15 * dice.random())) if hit else 0
        out = 1 + int(operation.tokens_out * dice.lognormvariate(0, 0.5))
        return {
            **_NO_TOKENS,
            "input": whole - cached,
            "output": out,
            "cache_read": cached,
            "cache_write": 0 if hit else whole // 2,
            "reasoning": int(out * dice.random()) if self._model.reasons and operation.thinks else 0,
        }

    def _end_phase(self, made: list[Event], ts: float, labels: Labels) -> None:
        dice, phase = self._dice, PHASES[self._phase]
        if phase.revised:
            self._revisions = int(dice.expovariate(0.7))
            made.append(Event(_REVISIONS, self._revisions, ts, 1.0, 1, labels))
            made.append(Event(_ACCEPTANCE, int(self._revisions < 3), ts, 1.0, 1, labels))
        if dice.random() < 0.2 + 0.1 * self._revisions:
            found: Labels = {**labels, "type": dice.choice(VIOLATIONS)}
            made.append(Event(_VIOLATIONS, 1 + int(dice.expovariate(1.5)), ts, 1.0, 1, found))
        if phase.name == "implementation":
            added = 20 + int(dice.lognormvariate(4.5, 0.8))
            made.append(Event(_LINES, added, ts, 1.0, 1, {**labels, "type": "added"}))
            made.append(Event(_LINES, int(added * 0.4 * dice.random()), ts, 1.0, 1, {**labels, "type": "removed"}))
        self._phase += 1
        self.finished = self._phase == len(PHASES)
        if self.finished:
            self._end_session(made, ts)
        else:
            self._left = self._phase_calls()

    def _end_session(self, made: list[Event], ts: float) -> None:
        dice = self._dice
        made.append(Event(_COMMITS, 1 + int(dice.expovariate(0.8)), ts, 1.0, 1, self._labels))
        if dice.random() < 0.4:
            made.append(Event(_PULL_REQUESTS, 1, ts, 1.0, 1, self._labels))
        made.append(Event(_ACTIVE_TIME, round(min(7200.0, max(30.0, ts - self._begun)), 1), ts, 1.0, 1, self._labels))


def _cost(model: Model, tokens: dict[str, int]) -> float:
    million = (
        tokens["input"] * model.input
        + (tokens["output"] + tokens["reasoning"]) * model.output
        + tokens["cache_read"] * model.cache_read
        + tokens["cache_write"] * (model.cache_write - model.input)
    )
    return round(million / 1e6, 6)


# Plain strings: looking a member up on an enumeration costs more than making the event.
_API_CALLS, _ERROR_RATE, _RESPONSE_TIME = str(M.API_CALLS), str(M.ERROR_RATE), str(M.RESPONSE_TIME)
_FIRST_TOKEN, _CACHE_HIT, _TOKENS, _COST = str(M.TIME_TO_FIRST_TOKEN), str(M.CACHE_HIT_RATE), str(M.TOKENS), str(M.COST)
_THINKING, _CONFIDENCE, _TOOL_CALLS = str(M.THINKING_STEPS), str(M.CONFIDENCE_SCORE), str(M.TOOL_CALLS)
_REVISIONS, _ACCEPTANCE, _VIOLATIONS = str(M.REVISION_COUNT), str(M.ACCEPTANCE_RATE), str(M.VIOLATIONS)
_LINES, _COMMITS, _PULL_REQUESTS = str(M.LINES_OF_CODE), str(M.COMMITS), str(M.PULL_REQUESTS)
_SESSIONS, _ACTIVE_TIME = str(M.SESSIONS), str(M.ACTIVE_TIME)
