"""Captured bodies as an answer: both in one JSON object, or one of them in its own bytes."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

from starlette.responses import Response

from counterfoil.api import answers
from counterfoil.capture.body import Capture

_HARMLESS: Final = {
    # A captured page must not become a page of this gateway in somebody's browser.
    "content-disposition": "attachment",
    "content-security-policy": "sandbox; default-src 'none'",
    "x-content-type-options": "nosniff",
}

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "The bodies of one call, as they were captured.",
    "required": ["request", "response"],
    "properties": {
        name: {
            "type": "object",
            "description": said,
            "required": ["content_type", "encoding", "body"],
            "properties": {
                **more,
                "content_type": {"type": "string", "description": "The media type it was sent with."},
                "encoding": {"enum": ["utf-8", "base64"], "description": "How body holds the bytes."},
                "body": {"type": "string", "description": "The bytes, as text or in base64."},
            },
        }
        for name, said, more in (
            (
                "request",
                "What the client sent.",
                {
                    "headers": {
                        "type": "object",
                        "additionalProperties": {"type": "string"},
                        "description": "Those that change what the body means (anthropic-beta); absent without any.",
                    }
                },
            ),
            (
                "response",
                "What the provider answered.",
                {
                    "status": {"type": "integer", "description": "The provider's HTTP status."},
                    "chunks": {"type": "integer", "description": "The pieces a stream came in; 0 for a whole body."},
                    "chunk_bytes": {
                        "type": "array",
                        "items": {"type": "integer"},
                        "description": "The size of each piece; absent for a whole body.",
                    },
                    "chunk_at_us": {
                        "type": "array",
                        "items": {"type": "integer"},
                        "description": "When each piece came, in microseconds since dispatch; absent when not kept.",
                    },
                },
            ),
        )
    },
}


def answer(capture: Capture, part: str | None) -> Response:
    """Both bodies, or only ``part``: ``request`` or ``response``."""
    match part:
        case None | "":
            return answers.json({"request": _request(capture), "response": _response(capture)})
        case "request":
            return _bytes(capture.request, capture.request_type)
        case "response":
            return _bytes(capture.response_body, capture.response_type)
        case _:
            return answers.refusal("invalid_request", field="part", message="part is request or response.")


def _request(capture: Capture) -> dict[str, Any]:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in capture.request_fields}
    return {
        **({"headers": headers} if headers else {}),
        "content_type": capture.request_type,
        **_text(capture.request),
    }


def _response(capture: Capture) -> dict[str, Any]:
    pieces = () if isinstance(capture.response, bytes) else capture.response
    cuts: dict[str, Any] = {"chunk_bytes": list(map(len, pieces))} if pieces else {}
    if capture.offsets_us:
        cuts["chunk_at_us"] = list(capture.offsets_us)
    return {
        "status": capture.response_status,
        "content_type": capture.response_type,
        "chunks": len(pieces),
        **cuts,
        **_text(capture.response_body),
    }


def _text(data: bytes) -> dict[str, str]:
    try:
        return {"encoding": "utf-8", "body": data.decode()}
    except UnicodeDecodeError:
        return {"encoding": "base64", "body": b64encode(data).decode()}


def _bytes(data: bytes, content_type: str) -> Response:
    shown = content_type if content_type.isascii() and content_type.isprintable() else ""
    headers = {**answers.NO_STORE, **_HARMLESS, "content-type": shown or "application/octet-stream"}
    return Response(data, headers=headers)
