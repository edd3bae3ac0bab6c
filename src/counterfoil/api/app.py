"""The control plane as one ASGI application: everything people and programs ask, besides the calls themselves.

It runs behind the gateway's protocol class, which serves the calls and hands every other path to it, and as well
alone, over a data folder, with no gateway at all. It reads through connections of its own and never blocks the loop
that relays calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from counterfoil import __version__
from counterfoil.api import (
    answers,
    generations,
    ledger,
    lookup,
    models,
    pages,
    parameters,
    pricing,
    replay,
    replays,
    schema,
    status,
    tenancy,
)
from counterfoil.api.parts import ControlParts
from counterfoil.errors import Fault
from counterfoil.surfaces import registry

BODY_BYTES_MAX: Final = 8 << 20
"""The largest body the control plane takes. Price files are the largest thing sent to it, at some 2 MiB."""
_DESCRIPTION: Final = (
    "The record of every generation, and the keys, teams and prices behind it. "
    "Send a key as Authorization: Bearer, x-api-key, x-goog-api-key or api-key."
)
_NO_TELEMETRY: Final[Any] = {
    "tracing": False,
    "metrics": False,
    "logs": False,  # they would hold the inputs that did not validate
    "operation_spans": False,
    "auto_configure": False,
}
_PARAMETER = re.compile(r"\{\w+\}")
_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "x-goog-api-key": {"type": "apiKey", "in": "header", "name": "x-goog-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}


def build(parts: ControlParts) -> FastAPI:
    """The application over ``parts``."""
    app = FastAPI(
        title="Counterfoil",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        openapi_url=None,
        redoc_url=None,
        telemetry=_NO_TELEMETRY,
        max_body_size=BODY_BYTES_MAX,
        redirect_slashes=False,
    )
    app.add_middleware(answers.NoStore)
    app.add_exception_handler(Fault, answers.on_fault)
    app.add_exception_handler(HTTPException, _Allowing(app).on_http_error)
    app.add_exception_handler(RequestValidationError, answers.on_invalid)
    app.add_exception_handler(Exception, answers.on_bug)
    strict: Any = {"dependencies": [Depends(parameters.known_only)], "responses": parameters.REFUSED}
    lookups = lookup.Lookup(parts)
    lookup.add(app, lookups)
    app.include_router(generations.router(parts), **strict)
    if parts.replayer is not None:
        app.include_router(replay.router(replay.ReplayParts(parts.directory, parts.replayer)), **strict)
    if parts.runs is not None:
        app.include_router(replays.router(replays.ReplaysParts(parts.directory, parts.runs)), **strict)
    app.include_router(ledger.router(parts), **strict)
    lookup.add_by_path(app, lookups)
    app.include_router(models.router(parts))
    app.include_router(tenancy.router(parts.admin, parts.directory), **strict)
    app.include_router(pricing.router(parts.book, pricing.team_of(parts.directory)), **strict)
    app.include_router(status.router(parts.health, parts.metrics))
    _document(app)
    app.add_middleware(answers.Heads)  # the last one added is the first one passed
    return app


def prefixes(app: FastAPI) -> frozenset[str]:
    """The first two segments of every path of ``app`` under ``/v1…``; any other path there is a call gone astray.

    Read from the routes and not from the document, which takes a tenth of a start to make and which few ask for.
    """
    return frozenset("/".join(path.split("/")[:3]) for path in _paths(app.routes) if path.startswith("/v1"))


def _paths(routes: Sequence[BaseRoute]) -> Iterator[str]:
    """The path of each route, those of included routers among them, which FastAPI keeps as they were included."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from _paths(included.routes)
        elif isinstance(route, Route):
            yield route.path


class _Allowing:
    """Answers what the router refused; with a 405 goes every method of the path, of which a route knows only its own.

    The paths come from the document, made when the first one is asked for.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._methods: list[tuple[re.Pattern[str], str]] = []

    async def on_http_error(self, request: Request, error: Exception) -> Response:
        """An exception handler for starlette's HTTPException."""
        if isinstance(error, HTTPException) and error.status_code == 405:
            error.headers = {"allow": self._of(request.url.path)}
        return await answers.on_http_error(request, error)

    def _of(self, path: str) -> str:
        if not self._methods:
            self._methods = [
                (re.compile(_PARAMETER.sub("[^/]+", template) + r"\Z"), ", ".join(sorted(map(str.upper, item))))
                for template, item in self._app.openapi()["paths"].items()
            ]
        # Fixed names stand before the paths with an id in their place, and win, as in the router.
        return next((methods for pattern, methods in self._methods if pattern.match(path)), "GET")


def _document(app: FastAPI) -> None:
    """Serve ``/openapi.json``, with the record's schema and the ways to send a key, and as a page at ``/docs``.

    The document is made when it is first asked for, in a thread: both handlers are plain functions.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(
                schema.components() | replays.components() | ledger.components()
            )
            components["securitySchemes"] = _SECURITY
            app.openapi_schema = document
        return app.openapi_schema

    def document(_: Request) -> Response:
        return JSONResponse(openapi())

    def docs(_: Request) -> Response:
        return HTMLResponse(pages.page(openapi(), registry.served()), headers=answers.PAGE)

    app.openapi = openapi
    app.add_route("/openapi.json", document, methods=["GET"], include_in_schema=False)
    app.add_route("/docs", docs, methods=["GET"], include_in_schema=False)
