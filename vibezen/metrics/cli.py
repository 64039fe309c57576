"""The command line `vibezen-metrics`.

Each command stands in `vibezen.metrics.commands` and imports what it runs only when it runs. What goes wrong on
purpose ends in one line on standard error: exit code 1 for a failure, 2 for wrong usage or configuration.
"""

import errno
import os
import sys

import typer

from vibezen.metrics.commands.api import api
from vibezen.metrics.commands.backup import backup, restore
from vibezen.metrics.commands.config import app as config
from vibezen.metrics.commands.consume import consume
from vibezen.metrics.commands.dead import app as dead
from vibezen.metrics.commands.doctor import doctor
from vibezen.metrics.commands.export import export
from vibezen.metrics.commands.gateway import gateway
from vibezen.metrics.commands.import_ import import_
from vibezen.metrics.commands.query import query
from vibezen.metrics.commands.replay import replay
from vibezen.metrics.commands.report import report
from vibezen.metrics.commands.simulate import simulate
from vibezen.metrics.commands.sql import sql
from vibezen.metrics.commands.tail import tail
from vibezen.metrics.commands.token import app as token
from vibezen.metrics.commands.up import up
from vibezen.metrics.commands.verify import verify
from vibezen.metrics.commands.version import version
from vibezen.metrics.errors import MetricsError
from vibezen.metrics.processes import tether

app = typer.Typer(
    name="vibezen-metrics",
    help="Metrics and monitoring for people who write software with AI.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (up, api, gateway, consume, simulate):
    app.command()(command)
app.command("import")(import_)
app.command()(replay)
app.command()(query)
app.command()(export)
app.command()(sql)
app.command()(report)
app.command()(tail)
app.add_typer(dead, name="dead")
app.add_typer(token, name="token")
app.add_typer(config, name="config")
app.command()(doctor)
app.command()(verify)
app.command()(backup)
app.command()(restore)
app.command()(version)


_OUTPUT_GONE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What writing to standard output ends with when nobody takes it."""


def main() -> None:
    run(app)


def run(app: typer.Typer) -> None:
    """Run a command line and end the process."""
    tether()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except MetricsError as error:
        print(f"vibezen-metrics: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in _OUTPUT_GONE:
            raise
        if error.errno != errno.EPIPE:  # whoever reads has seen enough
            print(f"vibezen-metrics: {_told(error)}", file=sys.stderr)
        os._exit(1)  # at its usual end the interpreter would try to write the rest once more


def _told(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return where + (error.strerror or str(error)).lower()
