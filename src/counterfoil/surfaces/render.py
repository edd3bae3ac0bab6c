"""Error bodies and error frames in the three protocols' shapes. Each carries the request id, where there is one.

Sources: OpenAI, Anthropic and Google (google.rpc.Status, google.rpc.ErrorInfo) API references, read 2026-11.
"""

from __future__ import annotations

import msgspec

from counterfoil.errors import Fault

JSON = "application/json"

_encode = msgspec.json.Encoder().encode

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_GOOGLE_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}


def openai_error(fault: Fault, request_id: str) -> bytes:
    """``{"error": {"message", "type", "code", "param", "request_id"}}``."""
    kind = _OPENAI_TYPES.get(fault.status) or ("invalid_request_error" if fault.status < 500 else "api_error")
    error = {"message": fault.message, "type": kind, "code": fault.code, "param": fault.param}
    return _encode({"error": error | _identified("request_id", request_id)})


def openai_stream_error(fault: Fault, request_id: str) -> bytes:
    """One data line; OpenAI's clients raise on a frame that holds ``error``."""
    return b"data: %b\n\n" % openai_error(fault, request_id)


def responses_stream_error(fault: Fault, request_id: str) -> bytes:
    """One ``error`` event as the Responses protocol has it, with ``error`` beside for clients that look there."""
    body = {
        "type": "error",
        "code": fault.code,
        "message": fault.message,
        "param": fault.param,
        "error": {"message": fault.message, "type": "api_error", "code": fault.code, "request_id": request_id},
    }
    return b"event: error\ndata: %b\n\n" % _encode(body)


def anthropic_error(fault: Fault, request_id: str) -> bytes:
    """``{"type": "error", "error": {"type", "message"}, "request_id"}``; ``error.code`` is ours."""
    kind = _ANTHROPIC_TYPES.get(fault.status) or ("invalid_request_error" if fault.status < 500 else "api_error")
    return _encode(
        {
            "type": "error",
            "error": {"type": kind, "message": fault.message, "code": fault.code},
            **_identified("request_id", request_id),
        }
    )


def anthropic_stream_error(fault: Fault, request_id: str) -> bytes:
    """One ``error`` event."""
    return b"event: error\ndata: %b\n\n" % anthropic_error(fault, request_id)


def google_error(fault: Fault, request_id: str) -> bytes:
    """``{"error": {"code", "message", "status", "details"}}``."""
    status = _GOOGLE_STATUSES.get(fault.status) or ("INVALID_ARGUMENT" if fault.status < 500 else "INTERNAL")
    details = [
        *([{"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": request_id}] if request_id else ()),
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": fault.code, "domain": "counterfoil"},
    ]
    return _encode({"error": {"code": fault.status, "message": fault.message, "status": status, "details": details}})


def _identified(name: str, request_id: str) -> dict[str, str]:
    return {name: request_id} if request_id else {}


def google_stream_error(fault: Fault, request_id: str) -> bytes:
    """One data line, which Google's clients raise."""
    return b"data: %b\n\n" % google_error(fault, request_id)
