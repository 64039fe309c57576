"""The dashboard page: the files that Vite built into `api/page/dist`."""

from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from vibezen.metrics.serving.doors import route_path

DIST: Final = Path(__file__).resolve().parent / "page" / "dist"
_HASHED: Final = "assets/"
"""Files in here carry a digest of their content in their name."""


class Site:
    """The page, found anew at every request, so that it may be built while we run. `enabled`: `dashboard.enabled`."""

    def __init__(self, dist: Path = DIST, *, enabled: bool = True) -> None:
        self._dist, self._enabled = dist, enabled
        self._files = _Files(directory=dist, html=True, check_dir=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_http = scope["type"] == "http"
        if is_http and scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"allow": "GET, HEAD"})
        if is_http and ".." in scope["path"].split(
            "/"
        ):  # within the page such a path would be a folder's, and redirected
            raise HTTPException(404)
        answer = (self._unavailable(scope) or self._files) if is_http else Response(status_code=404)
        await answer(scope, receive, send)

    def _unavailable(self, scope: Scope) -> Response | None:
        if route_path(scope) not in ("", "/"):
            if self._enabled and self._dist.is_dir():
                return None
            raise HTTPException(404)
        if not self._enabled:
            return PlainTextResponse("The page is switched off (dashboard.enabled: false). The API is served.\n", 404)
        if not (self._dist / "index.html").is_file():
            how = "`python build_backend/page.py` in a checkout builds it"
            return PlainTextResponse(f"The page is not built: {how}. The API is served.\n", 503)
        return None


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        hashed = path.startswith(_HASHED) and response.status_code in (200, 304)
        response.headers["cache-control"] = "public, max-age=31536000, immutable" if hashed else "no-cache"
        return response
