"""The name of what an ASGI application did with a request: one per route, however many paths lead to it."""

from collections.abc import Mapping
from inspect import isclass, isroutine
from typing import Any, Final

NO_ROUTE: Final = "(no route)"
"""What nothing answers to is one operation: who looks for weak spots asks for thousands of paths."""


def route_of(scope: Mapping[str, Any]) -> str:
    """The route's template as the framework left it in the scope, below what the application is mounted at; else the
    endpoint's name; else NO_ROUTE. For Starlette and FastAPI; ask when the request has been routed."""
    route = _route(scope)
    if route is not None:
        # A mount with nothing below it that is known of is in the path that was matched already.
        template = "" if hasattr(route, "routes") else route.path
        return _mounted_at(scope, template) + template or "/"
    endpoint = scope.get("endpoint")
    return endpoint.__qualname__ if isroutine(endpoint) or isclass(endpoint) else NO_ROUTE


def _route(scope: Mapping[str, Any]) -> Any:
    own = scope.get("fastapi")
    # FastAPI's route knows its path without the prefix of the router that includes it; this knows the whole.
    included = own.get("effective_route_context") if isinstance(own, Mapping) else None
    known = (included, scope.get("route"))
    return next((route for route in known if isinstance(getattr(route, "path", None), str)), None)


def _mounted_at(scope: Mapping[str, Any], template: str) -> str:
    """Mounts leave the path they matched, not their template: what parameters took is put back under their names."""
    if "app_root_path" not in scope:
        return ""
    mount = str(scope.get("root_path", "")).removeprefix(str(scope["app_root_path"]))
    taken = {str(v): k for k, v in (scope.get("path_params") or {}).items() if f"{{{k}" not in template}
    return "/".join(f"{{{taken[part]}}}" if part in taken else part for part in mount.split("/"))
