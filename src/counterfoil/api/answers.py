"""How the control plane says no, and the header every answer of it carries.

Every refusal has one shape, ``{"ok":false,"error":CODE}``, with ``reason``, ``message``, ``field`` or ``needs`` beside
it where they help. A code never tells whether a thing exists in another team: what is unknown and what is foreign are
the same bytes, :data:`NOT_FOUND`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from counterfoil.errors import CallerFault, Fault

JSON: Final = "application/json"
NO_STORE: Final = {"cache-control": "no-store"}
PAGE: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
"""Headers of a page of ours: it runs nothing, loads nothing, and stands in nobody's frame."""
MISSING_ID: Final = b'{"ok":false,"error":"missing_id"}'
NOT_FOUND: Final = b'{"ok":false,"error":"not_found"}'
_encode = msgspec.json.Encoder().encode

ERRORS: Final[dict[str, tuple[int, str]]] = {
    "missing_id": (400, "The id is missing or empty. It is checked before the key."),
    "invalid_request": (400, "A parameter or the body is not valid; field names it."),
    "missing_required_fields": (400, "A calculation of a price lacks what fields names."),
    "unauthorised": (401, "The key is missing or cannot be used; reason says which."),
    "forbidden": (403, "The key may not do that; needs names the scope."),
    "not_found": (404, "There is no such thing in the reader's team. Another team's looks exactly the same."),
    "no_content": (404, "The record has no bodies (any more); reason says why."),
    "pricing_not_found": (404, "No price is known for this; message says of what."),
    "no_such_endpoint": (404, "There is no such path."),
    "method_not_allowed": (405, "The path does not take this method; the header Allow lists those it takes."),
    "conflict": (409, "The thing is in a state, or has a name, that does not allow this."),
    "payload_too_large": (413, "The body is larger than the control plane accepts."),
    "unsupported_media_type": (415, "The body must be JSON."),
    "internal": (500, "The gateway failed. Its log says where."),
    "ledger_unavailable": (503, "The ledger cannot be read or written at the moment."),
    "not_ready": (503, "The gateway does not take calls; reasons says why."),
}
"""Every code of the control plane, with its status and meaning. The error reference lists the same."""

_BY_STATUS: Final = {
    400: "invalid_request",
    401: "unauthorised",
    403: "forbidden",
    404: "no_such_endpoint",
    405: "method_not_allowed",
    409: "conflict",
    413: "payload_too_large",
    415: "unsupported_media_type",
    503: "ledger_unavailable",
}
_SPELLING: Final = {"unauthorized": "unauthorised"}


def refusal(code: str, headers: Mapping[str, str] | None = None, **beside: Any) -> Response:
    """The answer for ``code`` of :data:`ERRORS`; ``beside`` goes into the body, nulls left out."""
    body = {"ok": False, "error": code} | {name: value for name, value in beside.items() if value is not None}
    return raw(_encode(body), ERRORS[code][0], headers)


def raw(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``body``, which is JSON already, as an answer that no cache keeps."""
    return Response(body, status, {**NO_STORE, **(headers or {})}, JSON)


def json(value: Any, status: int = 200) -> Response:
    """``value`` encoded as JSON."""
    return raw(_encode(value), status)


def of_fault(fault: Fault) -> Response:
    """The answer for a fault: its own code where the control plane has it, else the one that fits its status."""
    code = _SPELLING.get(fault.short_code, fault.short_code)
    if code not in ERRORS:
        code = _BY_STATUS.get(fault.status, "internal")
    reason = getattr(fault, "reason", None)
    if code == "unauthorised":
        return refusal(code, dict(fault.headers), reason=reason)
    message = fault.message if code in ("forbidden", "invalid_request", "conflict", "ledger_unavailable") else None
    return refusal(code, reason=reason, message=message, field=fault.param, needs=getattr(fault, "needs", None))


async def on_fault(_: Request, error: Exception) -> Response:
    """Answer a :class:`Fault` that an endpoint raised."""
    return of_fault(error if isinstance(error, Fault) else CallerFault("invalid_field"))


async def on_http_error(_: Request, error: Exception) -> Response:
    """Answer what the router refused: an unknown path, a method, a body that is too large."""
    status = error.status_code if isinstance(error, HTTPException) else 400
    code = _BY_STATUS.get(status, "invalid_request" if status < 500 else "internal")
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    said = "GET /docs lists every path there is." if code == "no_such_endpoint" else None
    return refusal(code, headers, message=said)


async def on_invalid(_: Request, error: Exception) -> Response:
    """Answer a request whose parameters or body do not validate; the first bad field is named, its value never."""
    problems: Sequence[dict[str, Any]] = error.errors() if isinstance(error, RequestValidationError) else ()
    first = problems[0] if problems else {}
    where = [str(part) for part in first.get("loc", ())]
    return refusal("invalid_request", field=".".join(where[1:]) or None, message=first.get("msg"))


async def on_bug(_: Request, __: Exception) -> Response:
    """Answer an error nobody foresaw, without a word of its insides; the server logs it."""
    return refusal("internal")


class Heads:
    """Answers HEAD, which probes like to send, as GET; the server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


class NoStore:
    """Adds ``Cache-Control: no-store`` to every answer that does not speak of caching itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, send_marked)
