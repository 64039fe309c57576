"""A thread that sends what dead applications have left in the spool, where none of them may ever come back."""

import logging
import threading
from typing import Final

from vibezen.metrics import clock
from vibezen.metrics.producers.adopter import LOOK_SECONDS, Adopter
from vibezen.metrics.producers.uplink import Uplink
from vibezen.metrics.settings import Durability, Settings

KEEPING: Final = "what is in the spool where it is"

log = logging.getLogger("vibezen.metrics.gateway")


class Adopting:
    """Of a process that is no collector. With `durability: memory` there is no spool, and nothing runs."""

    def __init__(self, settings: Settings) -> None:
        self._uplink = Uplink(settings, KEEPING)
        self._adopter = Adopter(settings, None)
        self._has_spool = settings.durability is not Durability.MEMORY
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vibezen-metrics-adopter", daemon=True)

    def start(self) -> None:
        if self._has_spool:
            self._thread.start()

    def ask_stop(self) -> None:
        self._stopping.set()

    def wait(self, seconds: float) -> None:
        """After `ask_stop`: until the call in hand is done."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            try:
                more = self._adopter.step(self._uplink)
                pause = 0.0 if more else max(0.0, self._adopter.next_look - clock.monotonic())
            except Exception:
                # A mistake of ours must not end the gateway, nor be made in a hot loop.
                log.exception("the spool could not be looked through; please report this")
                self._adopter.release()
                pause = LOOK_SECONDS
        self._adopter.release()
        self._uplink.close()
