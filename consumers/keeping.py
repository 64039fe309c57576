"""What a store keeps, and where: the steps of a compactor's round that drop dates and move them out."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.consumers import moving, retention
from vibezen.metrics.consumers.holdings import Holding
from vibezen.metrics.consumers.standing import standings
from vibezen.metrics.consumers.stubs import Check
from vibezen.metrics.errors import ExternalAway
from vibezen.metrics.external import External
from vibezen.metrics.layout import Layout
from vibezen.metrics.settings import Settings

log = logging.getLogger(__name__)

AWAY_SECONDS: Final = 300.0
"""Until an external storage that did not answer is tried again."""


class Keeper:
    """The retention and the external storage of one store."""

    def __init__(self, layout: Layout, settings: Settings, check: Check, now: Clock = wall) -> None:
        self._layout, self._settings, self._check, self._now = layout, settings, check, now
        self._limits = retention.limits_of(settings)
        self._not_before = 0.0
        self.trouble = ""
        """Why nothing is moved out."""

    def drop(self, holdings: Sequence[Holding]) -> set[int]:
        """Drop what is due; the dates dropped. Raises Fenced, StoreFull."""
        dropped = retention.retain(self._layout, holdings, self._limits, self._now(), self._check)
        return {one.date for one in dropped if one.goes is retention.Goes.EVENTS}

    def move(self, holdings: Iterable[Holding], stopping: Callable[[], bool] = lambda: False) -> None:
        """Move out what is due, for as long as nobody asks to stop. Raises Fenced, StoreFull."""
        if self._settings.external.url is None or self._now() < self._not_before:
            return
        external = External(self._settings.external.url)
        for one in self.to_move(holdings):
            if stopping():
                return
            try:
                moving.move(self._layout, external, one, self._check)
            except ExternalAway as away:
                self.note(away)
                return
        if self.trouble:
            log.warning("external storage: it is there again")
            self.trouble = ""

    def check(self) -> None:
        """See at the start that the external storage takes files, not only when the first date is old enough."""
        if self._settings.external.url is not None:
            try:
                External(self._settings.external.url).check()
            except ExternalAway as away:
                self.note(away)

    def note(self, away: ExternalAway) -> None:
        """The storage does not do what it should: it is left alone for a while."""
        self._not_before = self._now() + AWAY_SECONDS
        if str(away) != self.trouble:
            log.warning("%s; what is to go there stays here", away)
        self.trouble = str(away)

    def to_drop(self, holdings: Iterable[Holding]) -> dict[int, retention.Drop]:
        """What is to be dropped now, by its date. Changes nothing, as `to_move`."""
        found = standings(self._layout, holdings)
        return {one.date: one for one in retention.due(found, self._limits, self._now())}

    def to_move(self, holdings: Iterable[Holding]) -> list[moving.Move]:
        return moving.due_by(self._settings, standings(self._layout, holdings), self._now())

    def books(self, holdings: Iterable[Holding]) -> dict[str, str]:
        """Events that were dropped, and those that lie outside."""
        found = standings(self._layout, holdings)
        return {
            "dropped": str(sum(one.dropped for one in found)),
            "moved": str(sum(one.outside for one in found)),
            "external_trouble": self.trouble,
        }
