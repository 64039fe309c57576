"""What the life of a process means for its producers: fork, the interpreter's end, a multiprocessing child's end."""

import atexit
import os
import sys
import weakref
from typing import Final, Protocol

from vibezen.metrics.clock import monotonic

CLOSE_DEADLINE: Final = 5.0
"""Seconds that `flush`, `close` and the end of the interpreter wait for what is not safe yet."""


class Closes(Protocol):
    """A running sender."""

    def ask_stop(self) -> None: ...
    def close(self, deadline: float) -> int: ...
    def tell_left(self, left: int) -> None: ...


class Records(Protocol):
    """A collector: in a forked child it becomes a producer of its own, and at the end it takes no more events."""

    def start_anew(self) -> None: ...
    def stop_recording(self) -> None: ...


# Senders are held here while they run: a collector that was let go of still delivers what it was told.
_running: set[Closes] = set()
_recording: weakref.WeakSet[Records] = weakref.WeakSet()
_child_exit_pid = 0


def born(collector: Records) -> None:
    _recording.add(collector)


def started(sender: Closes) -> None:
    global _child_exit_pid
    _running.add(sender)
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util and process and process.parent_process() and _child_exit_pid != os.getpid():
        # multiprocessing ends its children with os._exit, which runs no atexit functions, only its own finalizers.
        _child_exit_pid = os.getpid()
        util.Finalize(None, _close_all, exitpriority=0)


def ended(sender: Closes) -> None:
    _running.discard(sender)


def _close_all() -> None:
    end = monotonic() + CLOSE_DEADLINE
    for collector in list(_recording):  # or what functions that run later record would wait for a sender for ever
        collector.stop_recording()
    senders = list(_running)
    for sender in senders:
        sender.ask_stop()
    for sender in senders:
        sender.tell_left(sender.close(max(0.0, end - monotonic())))


def _after_fork() -> None:
    _running.clear()
    for collector in list(_recording):
        collector.start_anew()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
