"""What a command does that runs until it is told to end."""

import logging
import signal
import sys
import threading
from types import FrameType


def stop_event() -> threading.Event:
    """An event that Ctrl-C and SIGTERM set; for the main thread only."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return stop


def log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
