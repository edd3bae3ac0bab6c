"""The parts of a ``multipart/form-data`` body as spans of its own bytes.

A body is only looked at, never rebuilt: a form's text value can be exchanged in place and everything else, files above
all, goes on untouched. Delimiters are found by search, so a large file costs one pass. Sources: RFC 7578, RFC 2046 5.1,
read 2026-11.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from counterfoil.errors import CallerFault

PARTS_MAX = 256
"""Parts of one body; image edits allow 16 images and a dozen fields."""

HEAD_MAX = 8 << 10
"""Bytes of one part's headers; they name a field and a file."""

_FORM = "multipart/form-data"
_BOUNDARY = re.compile(r'(?i);\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;,"]{1,70}))')
_DISPOSITION = re.compile(rb"(?im)^content-disposition:[ \t]*form-data[ \t]*(;[^\r\n]*)")
_PARAMETER = re.compile(rb';[ \t]*(name|filename)=(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;"]+))')


class Part(NamedTuple):
    """One part: the form field's ``name``, whether it ``is_file``, and where its value lies in the body."""

    name: str
    is_file: bool
    start: int
    end: int


def is_form(content_type: str) -> bool:
    """Whether a body of this type is a form with parts."""
    return content_type[: len(_FORM)].lower() == _FORM


def boundary_of(content_type: str) -> bytes:
    """The boundary that a content type announces. Raises ``invalid_multipart``."""
    found = _BOUNDARY.search(content_type)
    if found is None or not content_type.isascii():
        raise CallerFault("invalid_multipart", "The content type of the multipart body names no boundary.")
    return str(found[1] or found[2]).encode("ascii")


def parts_of(body: bytes, boundary: bytes) -> list[Part]:
    """The parts of ``body`` in order. Raises ``invalid_multipart`` for what is not a complete multipart body."""
    delimiter = b"\r\n--" + boundary
    if body.startswith(delimiter[2:]):
        at = len(delimiter) - 2
    else:
        at = body.find(delimiter) + len(delimiter)
        if at < len(delimiter):
            raise CallerFault("invalid_multipart", "The multipart body does not hold its boundary.")
    parts: list[Part] = []
    while body[at : at + 2] != b"--":
        start = _line_end(body, at)
        end = body.find(delimiter, start - 2)
        if end < 0:
            raise CallerFault("invalid_multipart", "The multipart body ends without its closing boundary.")
        if len(parts) == PARTS_MAX:
            raise CallerFault("invalid_multipart", f"The multipart body has more than {PARTS_MAX} parts.")
        parts.append(_part(body, start, end))
        at = end + len(delimiter)
    return parts


def _line_end(body: bytes, at: int) -> int:
    """The offset after the delimiter's line; only blanks may follow a delimiter."""
    end = body.find(b"\r\n", at)
    if end < 0 or body[at:end].strip(b" \t"):
        raise CallerFault("invalid_multipart", "A boundary of the multipart body is not followed by a line end.")
    return end + 2


def _part(body: bytes, start: int, end: int) -> Part:
    # A part without headers begins with the blank line itself, whose first half is the delimiter line's end.
    head_end = body.find(b"\r\n\r\n", start - 2, min(end, start + HEAD_MAX) + 2)
    if head_end < 0 or head_end + 4 > end + 2:
        raise CallerFault("invalid_multipart", "A part of the multipart body has no complete headers.")
    value = head_end + 4
    disposition = _DISPOSITION.search(body, start, head_end)
    names = (
        {found[1]: found[2] or found[3] or b"" for found in _PARAMETER.finditer(disposition[1])} if disposition else {}
    )
    if b"name" not in names:
        raise CallerFault("invalid_multipart", "A part of the multipart body names no form field.")
    return Part(names[b"name"].decode("utf-8", "replace"), b"filename" in names, min(value, end), end)
