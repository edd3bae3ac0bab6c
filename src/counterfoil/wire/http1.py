"""HTTP/1.1 as bytes that never change: status lines, ends, and the header fields that no proxy passes on.

Header names are lower case throughout: HTTP/1.1 compares them without case, and every client we know does too.
Source: RFC 9110 section 7.6.1 (hop-by-hop fields), RFC 9112 section 7 (chunked coding).
"""

from __future__ import annotations

import http

CRLF = b"\r\n"
LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


def _reason(status: int) -> str:
    return http.HTTPStatus(status).phrase if status in http.HTTPStatus._value2member_map_ else ""


STATUS_LINES = {status: f"HTTP/1.1 {status} {_reason(status)}\r\n".encode() for status in range(100, 600)}
"""Every status line by its code, ready to write."""
