"""Run by test_compactor_crashes: compacts one store over and over until it is killed.

Each compactor is a process that this one has forked, since starting an interpreter takes longer than compacting what
there is. Arguments: folder. Reads a line per order from its input: `start` answers the pid of a new compactor, which
first says `begun`; the pid is then killed by whoever asked, and `wait` takes note of that.
"""

import os
import sys
import time

import duckdb  # noqa: F401 - loaded once, for all that are forked

from vibezen.metrics.consumers.compactor import Compactor
from vibezen.metrics.consumers.holdings import Holdings
from vibezen.metrics.layout import Layout
from vibezen.metrics.settings import Compaction, Settings


def compact(layout: Layout, epoch: int) -> None:
    policy = Compaction(after_seconds=0.01, grace_seconds=0.3)
    settings = Settings(storage_dir=layout.root, retention_days=100_000, compaction=policy)
    holdings = Holdings(layout, lambda shard: 1)
    compactor = Compactor(layout, settings, holdings, epoch, lambda: None, lambda: time.time())
    compactor.clear()
    while True:
        compactor.round()


def main(folder: str) -> None:
    layout = Layout(folder)
    epoch = 0
    for order in sys.stdin:
        if order == "start\n":
            epoch += 1
            pid = os.fork()
            if pid == 0:
                try:
                    compact(layout, epoch)
                finally:
                    os._exit(1)
            print(pid, flush=True)
        else:
            _, status = os.wait()
            print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
