"""What a client of the live feed asks to be told: which metrics, of which series, told apart by what, and how often."""

import math
import re
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event import is_name
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.question import Parameters, parse_keys, parse_where, single
from vibezen.metrics.series import PRODUCER

PARAMETERS: Final = ("metric", "where", "group_by", "interval", "since")
MAX_METRICS: Final = 50
MAX_GROUPED: Final = 8
"""Metrics whose series may be told apart in one choice: each of them is many numbers per window."""
MAX_INTERVAL: Final = 10.0
"""Seconds; below HEARTBEAT, so that a client is never silent for longer than that."""
_TEXT_IN_PATH: Final = re.compile(r"`\$\.(\w+)")


class Choice(msgspec.Struct, frozen=True):
    """`metrics`: sorted; none of them is every metric. `interval`: seconds between two frames at least. Equal choices
    share what is made for them."""

    interval: float
    metrics: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    group_by: tuple[str, ...] = ()

    @property
    def by_series(self) -> bool:
        """Whether single series must be looked at: totals of whole metrics do not tell."""
        return bool(self.where or self.group_by)

    def has(self, metric: str) -> bool:
        return not self.metrics or metric in self.metrics


class Subscribe(msgspec.Struct, tag="subscribe", forbid_unknown_fields=True):
    """A WebSocket client's new choice; what is left out is as if nothing had been chosen."""

    metrics: list[str] = []
    where: list[str] = []
    group_by: list[str] = []
    interval: float | None = None


_subscribe_decoder = msgspec.json.Decoder(Subscribe)


class Choices(msgspec.Struct, frozen=True):
    """What may be chosen. `labels`: those that series have. `least`: seconds between two frames of the quickest."""

    labels: Collection[str]
    least: float

    @property
    def everything(self) -> Choice:
        """The choice of who chooses nothing."""
        return Choice(self.least)

    def of_parameters(self, parameters: Parameters) -> Choice:
        """The choice in an address. Raises BadParameter."""
        texts = single(parameters, PARAMETERS)
        metrics = [name.strip() for name in texts.get("metric", "").split(",") if name.strip()]
        interval = _seconds(texts["interval"]) if texts.get("interval") else None
        group_by = parse_keys(texts.get("group_by", ""))
        return self._checked("metric", metrics, parameters.get("where", ()), group_by, interval)

    def of_message(self, text: str | bytes) -> Choice:
        """The choice in a `subscribe` message. Raises BadParameter, which names the field."""
        try:
            asked = _subscribe_decoder.decode(text)
        except (ValueError, RecursionError) as error:
            field = _TEXT_IN_PATH.search(str(error))
            raise BadParameter(field[1] if field else "type", f"no such message: {error}") from None
        for name in asked.group_by:
            if "," in name:
                raise BadParameter("group_by", f"{name[:100]!r} is no metadata key")
        group_by = parse_keys(",".join(asked.group_by))
        return self._checked("metrics", asked.metrics, asked.where, group_by, asked.interval)

    def _checked(
        self,
        field: str,
        metrics: Sequence[str],
        where: str | Sequence[str],
        group_by: tuple[str, ...],
        interval: float | None,
    ) -> Choice:
        for name in metrics:
            if not is_name(name):
                raise BadParameter(field, f"{name[:100]!r} is not a metric name")
        if len(metrics) > MAX_METRICS:
            raise BadParameter(field, f"at most {MAX_METRICS} metrics; without any, all are told")
        if group_by and not 1 <= len(set(metrics)) <= MAX_GROUPED:
            raise BadParameter(field, f"with group_by, choose 1 to {MAX_GROUPED} metrics")
        conditions = parse_where(where)
        self._check_labels("where", [condition.key for condition in conditions])
        self._check_labels("group_by", group_by)
        return Choice(
            interval=self._interval(interval),
            metrics=tuple(sorted(set(metrics))),
            where=tuple(sorted(set(conditions))),
            group_by=group_by,
        )

    def _check_labels(self, field: str, keys: Sequence[str]) -> None:
        known = {*self.labels, PRODUCER}
        for key in keys:
            if key not in known:
                raise BadParameter(field, f"{key!r} is no label; the live feed knows {', '.join(sorted(known))}")

    def _interval(self, seconds: float | None) -> float:
        if seconds is None:
            return self.least
        if not self.least <= seconds <= max(self.least, MAX_INTERVAL):  # never true of NaN
            raise BadParameter("interval", f"expected seconds from {self.least:g} to {MAX_INTERVAL:g}")
        return max(self.least, round(seconds, 1))  # few different ones, so that many clients share one


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
