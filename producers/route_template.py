"""Route templates: the label of a request's route, so that what clients ask for never becomes a label.

In: the ASGI scope after the app ran. Out: `/listing/{number}`, with the prefixes of routers and mounts.
Promise: bounded by the routes that an application has; knows Starlette's and FastAPI's routers, imports neither.
"""

from collections.abc import Iterable, MutableMapping
from typing import Any, Final, cast

UNMATCHED: Final = "unmatched"
"""The one route label of requests that no route took."""


def route_template(scope: MutableMapping[str, Any], outer_root_path: str, status: int) -> str:
    """Return the template of the route that took the request, with the prefixes of routers and mounts.

    `scope["route"]` is set by Starlette's router while the app runs. Of an included router newer FastAPI
    keeps the inner route there, and the whole template in its own `effective_route_context`. Of a route that is
    Starlette's own, such as `/docs`, it says the endpoint only.
    """
    route = scope.get("route")
    path: str | None = getattr(route, "path", None)
    context = scope["fastapi"].get("effective_route_context") if "fastapi" in scope else None
    if context is not None and context.original_route is route:
        path = getattr(context.starlette_route or context, "path", path)
    if scope.get("root_path", "") != outer_root_path:
        is_mount = route is None or hasattr(route, "routes")
        if is_mount:
            path = plain_template(scope)
        if is_mount and path is None and status == 404:
            return UNMATCHED
        prefix = mount_template(scope.get("router"), scope["root_path"].removeprefix(outer_root_path))
        return prefix + (path or "") or UNMATCHED
    return path or plain_template(scope) or UNMATCHED


def plain_template(scope: MutableMapping[str, Any]) -> str | None:
    """Return the template, within its app, of the Starlette route that FastAPI's router chose; None if it chose none.

    One endpoint may stand at several paths, so that the path decides. FastAPI itself tried more patterns before.
    """
    endpoint = scope.get("endpoint")
    if endpoint is None:
        return None
    of_fastapi: Any = scope.get("fastapi") or {}
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    included: Any = getattr(of_fastapi.get("effective_route_context"), "starlette_route", None)
    routes = cast(Iterable[Any], getattr(scope.get("app"), "routes", ()))
    for route in (included, *routes):
        pattern = getattr(route, "path_regex", None)
        if pattern is not None and getattr(route, "endpoint", None) is endpoint and pattern.match(path):
            return str(route.path)
    return None


def mount_template(router: Any, prefix: str) -> str:
    """Return the template of the mounts that make up `prefix`; empty when it is no mount's (a proxy's root path)."""
    for route in cast(Iterable[Any], getattr(router, "routes", ())):
        pattern = getattr(route, "path_regex", None)
        if pattern is None or not hasattr(route, "routes"):
            continue
        match = pattern.match(prefix + "/")
        if match:
            rest: str = match.groupdict().get("path", "")
            inner = mount_template(getattr(route, "app", None), "/" + rest.rstrip("/")) if rest.strip("/") else ""
            return str(route.path) + inner
    return ""
