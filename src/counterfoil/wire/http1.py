"""HTTP/1.1 heads as bytes: what to pass on, what to write. Parsing is httptools' (llhttp); this is the other direction.

Header names are lower case throughout: HTTP/1.1 compares them without case, and every client we know does too.
A value that came from outside goes into a head only through :func:`safe_value` or from a parsed head, which cannot
hold CR, LF or NUL.
Source: RFC 9110 section 7.6.1 (hop-by-hop fields), RFC 9112 section 7 (chunked coding).
"""

from __future__ import annotations

import http
import re
from collections.abc import Iterable

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

_UNSAFE = re.compile(r"[^\x20-\x7e]")


def _reason(status: int) -> str:
    return http.HTTPStatus(status).phrase if status in http.HTTPStatus._value2member_map_ else ""


STATUS_LINES = {status: f"HTTP/1.1 {status} {_reason(status)}\r\n".encode() for status in range(100, 600)}
"""Every status line by its code, ready to write."""


def chunk(data: bytes) -> bytes:
    """``data`` as one chunk. ``data`` must not be empty: an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def head(start_line: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A whole head: the start line (with its CRLF), the fields, and the blank line."""
    parts = [start_line]
    for name, value in fields:
        parts += (name, b": ", value, CRLF)
    parts.append(CRLF)
    return b"".join(parts)


def safe_value(text: str, length_max: int = 256) -> bytes:
    """``text`` as a header value: printable ASCII only, at most ``length_max`` bytes."""
    return _UNSAFE.sub("?", text[:length_max]).encode("ascii")
