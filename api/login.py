"""The login page: takes the token out of the link's fragment, which no server and no log ever sees, and makes a session
of it, kept as a cookie. The page `/` sends those here who have none."""

from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from vibezen.metrics.clock import wall
from vibezen.metrics.serving.access import Access, check_scope, cookie_name
from vibezen.metrics.serving.guard import client_address, is_secure
from vibezen.metrics.serving.operation import Scope
from vibezen.metrics.serving.sessions import session

_STYLE: Final = Path(__file__).resolve().with_name("login.css")
_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>VIBEZEN Metrics: log in</title>
<link rel="stylesheet" href="login.css">
<main>
<h1>VIBEZEN Metrics</h1>
<p id="said" role="status">Open the link that was printed when the server started, or paste its token here.</p>
<form id="login">
<label>Token <input id="token" type="password" autocomplete="current-password" required autofocus></label>
<button>Log in</button>
</form>
</main>
<script src="login.js"></script>
</html>
"""

_SCRIPT: Final = """\
const said = document.getElementById("said");
const button = document.querySelector("button");
async function login(token) {
  button.disabled = true;
  try {
    const answer = await fetch("login", { method: "POST", body: token });
    if (answer.ok) return location.replace("./");
    // A proxy that does not reach us answers in its own words.
    const told = await answer.json().catch(() => null);
    said.textContent = told?.error?.message ?? `That was answered with status ${answer.status}; try again.`;
  } catch {
    said.textContent = "The server does not answer; try again.";
  }
  button.disabled = false;
}
async function fromLink() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    history.replaceState(null, "", location.pathname);
    return login(token);
  }
  // A link on another site leads here even those who are logged in: their cookie does not travel with it.
  if ((await fetch("api/metrics/realtime", { method: "HEAD" })).status !== 401) location.replace("./");
}
document.getElementById("login").addEventListener("submit", (event) => {
  event.preventDefault();
  login(document.getElementById("token").value.trim());
});
addEventListener("hashchange", fromLink);
fromLink();
"""

OPEN: Final = dict.fromkeys(("/login", "/login.css", "/login.js", "/logout"))
"""Paths that ask for no token: nobody could log in otherwise."""


def login_routes(access: Access) -> list[BaseRoute]:
    """Empty where no token is needed."""
    if access.keyring is None:
        return []

    async def page(request: Request) -> Response:
        return Response(_PAGE, media_type="text/html", headers={"cache-control": "no-cache"})

    async def script(request: Request) -> Response:
        return Response(_SCRIPT, media_type="text/javascript", headers={"cache-control": "no-cache"})

    async def css(request: Request) -> Response:
        return Response(_STYLE.read_bytes(), media_type="text/css", headers={"cache-control": "no-cache"})

    async def login(request: Request) -> Response:
        token = (await request.body()).decode(errors="replace").strip()
        found = access.admit(token, client_address(request.scope))
        check_scope(found, Scope.READ)
        return _with_cookie(request, *session(found, wall()))

    async def logout(request: Request) -> Response:
        return _with_cookie(request, "", 0)

    return [
        Route("/login", page),
        Route("/login", login, methods=["POST"]),
        Route("/login.css", css),
        Route("/login.js", script),
        Route("/logout", logout, methods=["POST"]),
    ]


def _with_cookie(request: Request, value: str, seconds: int) -> Response:
    response = Response(status_code=204, headers={"cache-control": "no-store"})
    secure = is_secure(request.scope)
    response.set_cookie(
        cookie_name(request.headers.get("host"), secure=secure),
        value,
        max_age=seconds,
        path=request.scope.get("root_path") or "/",
        httponly=True,
        samesite="strict",
        secure=secure,
    )
    return response
