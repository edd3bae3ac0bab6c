"""The lookup: ``GET /v1/generations?id=…``, and the bodies beside it.

It is asked right after every call, so it is made to cost little and to disturb nothing: one hop to a thread that checks
the key, reads one row and splices bytes, and an answer that is never decoded. FastAPI documents it, but its machinery
for parameters is passed by.

The order of the checks is part of the contract: the id, then the key, then its rights, then the record. Whose record
it is, the query itself decides, so another team's record takes the same way, the same time and the same bytes as none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from counterfoil.api import answers, content, reading, view
from counterfoil.api.parts import ControlParts
from counterfoil.api.reading import Desk
from counterfoil.capture.body import Capture
from counterfoil.errors import Fault
from counterfoil.ledger.kept import Unavailable, captured, unkept
from counterfoil.ledger.query import LedgerReader, StoredRecord
from counterfoil.tenancy.principal import Principal

THREADS: Final = 2
"""Lookups read at once. A read takes a tenth of a millisecond, nearly all of it under the interpreter's lock."""
Endpoint = Callable[[Request], Awaitable[Response]]

_TEXT: Final = {"type": "string"}
_ID: Final = "Our id (gen_…), or the provider's own."
_ID_IN_QUERY: Final = {
    "name": "id",
    "in": "query",
    "required": True,
    "description": _ID,
    "schema": {"type": "string", "minLength": 1},
}
_ID_IN_PATH: Final = {"name": "id", "in": "path", "required": True, "description": _ID, "schema": _TEXT}
_TEAM: Final = {
    "name": "team",
    "in": "query",
    "description": "The team to ask for; only a management key of all teams may name another than its own.",
    "schema": _TEXT,
}
_PART: Final = {
    "name": "part",
    "in": "query",
    "description": "One body alone, in its own bytes.",
    "schema": {"enum": ["request", "response"]},
}
_RECORD: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The record.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/GenerationRecord"}}},
    },
    404: {"description": "No such generation in the reader's team. Another team's looks exactly the same."},
    **reading.REFUSALS,
}
_BODIES: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "part is neither request nor response."},
    200: {
        "description": "The bodies.",
        "content": {
            "application/json": {"schema": {"anyOf": [{"$ref": "#/components/schemas/Content"}, {}]}},
            "*/*": {"schema": {"description": "With part: the body's own bytes and media type."}},
        },
    },
    404: {"description": "No such generation, or its bodies are not there (any more); reason says which."},
    **reading.REFUSALS,
}


class Shortcut:
    """Serves the lookup before the router and its exit stacks are entered, which saves a tenth of a millisecond."""

    def __init__(self, app: ASGIApp, endpoint: Endpoint) -> None:
        self._app = app
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/v1/generations" and scope["method"] == "GET":
            response = await self._endpoint(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class DirectRoute(APIRoute):
    """A documented route whose endpoint is called with the request and nothing else: no parameters to solve."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """The endpoint itself."""
        return self.endpoint


def add(app: FastAPI, lookup: Lookup) -> None:
    """Add ``GET /v1/generations``, the path that is asked most. A route documents it, :class:`Shortcut` serves it."""
    app.add_middleware(Shortcut, endpoint=lookup.by_query)
    _direct(
        app,
        "/v1/generations",
        lookup.by_query,
        summary="The record of one generation",
        parameters=[_ID_IN_QUERY, _TEAM],
        responses={400: {"description": "The id is missing or empty."}, **_RECORD},
    )


def add_by_path(app: FastAPI, lookup: Lookup) -> None:
    """Add the paths that hold an id: last, because they match the fixed names beside them too."""
    _direct(
        app,
        "/v1/generations/{id}",
        lookup.by_path,
        summary="The record of one generation, by path",
        parameters=[_ID_IN_PATH, _TEAM],
        responses=_RECORD,
    )
    _direct(
        app,
        "/v1/generations/{id}/content",
        lookup.content,
        summary="The captured bodies of one generation",
        parameters=[_ID_IN_PATH, _PART, _TEAM],
        responses=_BODIES,
    )


def _direct(app: FastAPI, path: str, endpoint: Endpoint, *, parameters: list[Any], **documented: Any) -> None:
    app.router.add_api_route(
        path,
        endpoint,
        methods=["GET"],
        tags=["generations"],
        response_class=Response,
        openapi_extra={"parameters": parameters},
        route_class_override=DirectRoute,
        **documented,
    )


class Lookup:
    """Answers for one record. Its threads are its own, so that long lists cannot keep a lookup waiting."""

    def __init__(self, parts: ControlParts) -> None:
        self._reader = parts.reader
        self._directory = parts.directory
        self._desk = Desk("lookup", THREADS)

    async def by_query(self, request: Request) -> Response:
        """The record named by `id`, our own id or the provider's, as its team reads it.

        Any active key of the team may ask, or a management key with `generations:read`. The record is there the
        moment the answer of its call has ended.
        """
        wanted = request.query_params.get("id")
        if not wanted:
            return answers.raw(answers.MISSING_ID, 400)
        return await self._desk.run(self._record, request, wanted)

    async def by_path(self, request: Request) -> Response:
        """The same answer as `GET /v1/generations?id=`."""
        return await self._desk.run(self._record, request, request.path_params["id"])

    async def content(self, request: Request) -> Response:
        """The request and the response as they were captured, with their media types.

        Text is given as text, anything else in base64. With `part` one body alone, in its own bytes.
        """
        return await self._desk.run(self._content, request, request.path_params["id"])

    def _record(self, request: Request, wanted: str) -> Response:
        try:
            reader, stored = self._found(request, wanted)
        except Fault as fault:
            return answers.of_fault(fault)
        if stored is None:
            return answers.raw(answers.NOT_FOUND, 404)
        return answers.raw(record(self._reader, reader, stored))

    def _content(self, request: Request, wanted: str) -> Response:
        try:
            _, stored = self._found(request, wanted, reading.CONTENT)
            if stored is None:
                return answers.raw(answers.NOT_FOUND, 404)
            found = captured(self._reader, stored)
        except Fault as fault:
            return answers.of_fault(fault)
        if isinstance(found, Unavailable):
            return answers.refusal("no_content", reason=found)
        return content.answer(found, request.query_params.get("part"))

    def _found(self, request: Request, wanted: str, scope: str = reading.READ) -> tuple[Principal, StoredRecord | None]:
        reader = reading.principal(self._directory, request)
        team = reading.team(reader, request.query_params.get("team"))
        reader.need(scope)  # before the record is looked for: what a key may not do does not tell what there is
        return reader, self._reader.find(team, wanted)


def record(ledger: LedgerReader, reader: Principal, stored: StoredRecord) -> bytes:
    """The answer for ``stored`` as ``reader`` may see it. Raises :class:`~counterfoil.errors.GatewayFault`."""
    found = captured(ledger, stored) if reader.sees_content else Unavailable.FORBIDDEN
    if found is Unavailable.FORBIDDEN:
        found = unkept(stored) or found
    return view.served(stored.data, stored.chain, stored.capture_state, replayable(found))


def replayable(found: Capture | Unavailable) -> bytes | Unavailable:
    """The JSON object that posting again would rerun the call, or why there is none."""
    if isinstance(found, Unavailable):
        return found
    body = found.request if found.replayable is None else found.replayable
    return body if view.is_object(body) else Unavailable.NOT_AN_OBJECT
