"""`vibezen-metrics token create|list|revoke`"""

import re
from typing import TYPE_CHECKING, Annotated, Final

import typer

from vibezen.metrics.commands.options import Config, StorageDir, load_settings, need
from vibezen.metrics.errors import BadParameter

if TYPE_CHECKING:
    from vibezen.metrics.serving.tokens import Token
    from vibezen.metrics.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Tokens: who may ask API and gateway, and for what.")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="What it is called in lists; `first` is made at first start.")
]
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SPAN: Final = re.compile(r"([1-9][0-9]{0,8})([smhdw])\Z")


@app.command()
def create(
    name: Name,
    scope: Annotated[
        list[str], typer.Option(metavar="SCOPE", help="read, write (sending events in) or admin (all); repeatable.")
    ],
    expires: Annotated[str | None, typer.Option(metavar="SPAN", help="How long it holds: 12h, 30d, 8w.")] = None,
    config: Config = None,
    storage_dir: StorageDir = None,
) -> None:
    """Make a token and print it, this once. Running servers take it within seconds."""
    need("server", "token create")
    settings = load_settings(config, None, storage_dir)
    from vibezen.metrics.serving import tokens
    from vibezen.metrics.serving.operation import Scope

    known = [one.value for one in Scope]
    if unknown := [one for one in scope if one not in known]:
        raise BadParameter("--scope", f"{unknown[0]!r} is none; expected {', '.join(known)}")
    seconds = None if expires is None else _span(expires)
    shown, token = tokens.create(settings.storage_dir, name, [Scope(one) for one in scope], seconds)
    print(shown)
    if token.allows(Scope.READ):
        _print_link(settings, shown)


@app.command("list")
def list_(
    config: Config = None,
    storage_dir: StorageDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
) -> None:
    """All tokens: what each may, until when, and its last four characters."""
    need("server", "token list")
    settings = load_settings(config, None, storage_dir)
    found = _all(settings)
    if as_json:
        import json

        print(json.dumps([_told(token) for token in found], indent=2))
        return
    from vibezen.metrics.clock import iso, wall
    from vibezen.metrics.commands.table import print_table

    def when(at: float | None) -> str:
        return "" if at is None else iso(at)

    if not found:
        print("no token yet: the first one is made when a server needs it")
        return
    now = wall()
    rows: list[list[str | int | float | None]] = [
        [
            token.name,
            ", ".join(token.scopes),
            when(token.made),
            when(token.expires) + (" (over)" if token.is_over(now) else ""),
            "…" + token.last,
        ]
        for token in found
    ]
    print_table(["name", "scopes", "made", "expires", "ends in"], rows, "tokens")


@app.command()
def revoke(name: Name, config: Config = None, storage_dir: StorageDir = None) -> None:
    """Let a token hold no longer: running servers refuse it within seconds, and end what it has open. `first` is
    replaced, and the new link printed."""
    need("server", "token revoke")
    settings = load_settings(config, None, storage_dir)
    from vibezen.metrics.serving import tokens

    fresh = tokens.revoke(settings.storage_dir, name, settings.auth.token)
    if fresh is None:
        print(f"{name}: revoked")
    else:
        print(f"{name}: replaced")
        _print_link(settings, fresh)


def _all(settings: "Settings") -> "list[Token]":
    from vibezen.metrics.serving import tokens

    path = settings.storage_dir / tokens.FIRST_FILE
    first: list[Token] = []
    if settings.auth.token is not None:
        first = [tokens.as_first(settings.auth.token, path.stat().st_mtime if path.exists() else 0.0)]
    elif path.exists():
        first = [tokens.as_first(tokens.first_token(settings.storage_dir), path.stat().st_mtime)]
    return [*first, *tokens.listed(settings.storage_dir)]


def _told(token: "Token") -> dict[str, object]:
    return {
        "name": token.name,
        "scopes": list(token.scopes),
        "made": token.made,
        "expires": token.expires,
        "last_four": token.last,
    }


def _print_link(settings: "Settings", shown: str) -> None:
    from vibezen.metrics.serving.access import page_url

    served = settings.dashboard
    print(page_url(served.host, served.port, shown, secure=served.tls_certificate is not None))


def _span(text: str) -> float:
    found = _SPAN.match(text)
    if not found:
        raise BadParameter("--expires", f"{text!r}: expected a span such as 12h, 30d or 8w")
    return float(found[1]) * SECONDS[found[2]]
