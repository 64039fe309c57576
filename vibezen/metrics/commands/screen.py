"""What `up` shows: a banner once everything answers, and every line of every child under the child's name."""

from typing import Final

from rich.console import Console
from rich.text import Text

from vibezen.metrics.config import Settings
from vibezen.metrics.connection import redacted

STYLES: Final = {"archive": "blue", "aggregate": "magenta", "api": "green", "simulate": "yellow", "up": "bold"}
WIDTH: Final = max(map(len, STYLES))

FIRST_EVENT: Final = """\
from vibezen.metrics import MetricsCollector
with MetricsCollector() as collector:
    collector.record("response_time", 120, {"provider": "openai", "model": "gpt-5"})"""


class TerminalScreen:
    """Colours on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)

    def line(self, role: str, text: str) -> None:
        self._console.print(Text.assemble((f"{role:<{WIDTH}} | ", STYLES.get(role, "")), text))

    def banner(self, settings: Settings, url: str, *, demo: bool) -> None:
        say = self._console.print
        say()
        say(Text("VIBEZEN Metrics", "bold"), Text("(demo: the traffic is simulated)" if demo else "", "yellow"))
        say()
        say("  Dashboard ", Text(dashboard_url(settings), "bold cyan"))
        say("  Redis     ", redacted(url))
        say("  Store     ", str(settings.storage_dir))
        say()
        if demo:
            say("  For your own events: vibezen-metrics up")
        else:
            say("  Send a first event from another terminal:")
            say()
            for line in FIRST_EVENT.splitlines():
                say("    " + line, style="cyan")
        say()
        say("  Ctrl-C ends everything; what was recorded stays.")
        say()


def dashboard_url(settings: Settings) -> str:
    """Where a browser on this machine finds the page."""
    here = ("127.0.0.1", "0.0.0.0", "::1", "::", "")  # noqa: S104 - compared, not bound
    host = "localhost" if settings.dashboard.host in here else settings.dashboard.host
    return f"http://{host}:{settings.dashboard.port}"
