"""What `up` shows: a banner once everything answers, and every line of every child under the child's name."""

from contextlib import suppress
from typing import Final

from rich.console import Console
from rich.text import Text

from vibezen.metrics.commands.version import installed_version
from vibezen.metrics.connection import redacted
from vibezen.metrics.serving.access import page_url
from vibezen.metrics.settings import Settings

STYLES: Final = {
    **{"archive": "blue", "aggregate": "magenta", "compact": "yellow", "api": "green", "gateway": "cyan"},
    **{"simulate": "yellow", "up": "bold"},
}
WIDTH: Final = max(map(len, STYLES))

FIRST_EVENT: Final = """\
from vibezen.metrics import MetricsCollector
with MetricsCollector() as collector:
    collector.record_nowait("response_time", 120, {"provider": "openai"})"""


class TerminalScreen:
    """Colours on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)

    def line(self, role: str, text: str) -> None:
        with suppress(OSError):  # the terminal was closed: nobody looks, and the end must still be orderly
            self._console.print(Text.assemble((f"{role:<{WIDTH}} | ", STYLES.get(role, "")), text))

    def banner(self, settings: Settings, server: str, token: str | None, *, demo: bool) -> None:
        title = Text.assemble(
            (f"VIBEZEN Metrics {installed_version()}", "bold"), " - simulated traffic" if demo else ""
        )
        served, gateway = settings.dashboard, settings.gateway
        link = page_url(served.host, served.port, token, secure=served.tls_certificate is not None)
        sending = page_url(gateway.host, gateway.port, secure=gateway.tls_certificate is not None)
        rows = {
            "Dashboard": Text(link, "bold cyan"),
            "Gateway": f"{sending}/api/events",
            "Redis": redacted(server),
            "Store": str(settings.storage_dir),
        }
        say = self._console.print
        say("", title, "", sep="\n")
        for name, value in rows.items():
            say(f"  {name:<10}", value)
        if demo:
            say("", "  For your own events: vibezen-metrics up", sep="\n")
        else:
            say("", "  Send a first event from another terminal:", "", sep="\n")
            for line in FIRST_EVENT.splitlines():
                say(f"    {line}", style="cyan")
        say("", "  Ctrl-C ends everything; what was recorded stays.", "", sep="\n")
