"""Requests that carry a second one where some reader might find it, and honest ones in unusual dress.

The first kind is made of a way to hide the framing times the two classic contradictions: a length that swallows the
second request while the chunked coding ends before it (``CL.TE``), and a coding that swallows it while the length ends
before it (``TE.CL``). The second request is marked ``call-N-second``. Whoever serves it must have had a reason that
other parsers share: that is what the tests compare.
"""

# ruff: noqa: ARG005  # a table whose rows all take the same two, used or not

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from faults.malformed import AMBIGUOUS, STRANGE, Case, Request, good

HIDDEN: Final = [
    b"transfer-encoding: chunked",
    b"Transfer-Encoding: Chunked",
    b"transfer-encoding:chunked",
    b"transfer-encoding:\tchunked",
    b"transfer-encoding: chunked\t",
    b"transfer-encoding : chunked",
    b" transfer-encoding: chunked",
    b"transfer-encoding\t: chunked",
    b"transfer-encoding: xchunked",
    b"transfer-encoding: chunked\r\ntransfer-encoding: cow",
    b"transfer-encoding: cow\r\ntransfer-encoding: chunked",
    b"transfer-encoding: identity, chunked",
    b"transfer-encoding:\x0bchunked",
    b"transfer-encoding:\r\n chunked",
    b"transfer-encoding\r\n: chunked",
    b"transfer-encoding\n: chunked",
    b"x-other: y\ntransfer-encoding: chunked",
    b"x-other: y\rtransfer-encoding: chunked",
    b"x-other: y\r\n\rtransfer-encoding: chunked",
    b"transfer_encoding: chunked",
    b"transfer-encoding: chunked\x00",
    b"transfer\x00-encoding: chunked",
    b"x-transfer-encoding: chunked",
    b'transfer-encoding: "chunked"',
    b"transfer-encodin\xc4\xa1: chunked",
    b"connection: content-length\r\ntransfer-encoding: chunked",
    b"connection: transfer-encoding\r\ntransfer-encoding: chunked",
    b"transfer-encoding;x: chunked",
    b"content-length: 0",
    b"content-length: 00000000000000000000",
    b"content-length:0\r\ncontent-length: 0",
    b"connection: content-length",
    b"content_length: 0",
    b"content-length : 0",
]
"""Lines that change the framing for some reader and not for another."""

UNKNOWN: Final = frozenset({b"transfer_encoding: chunked", b"x-transfer-encoding: chunked", b"content_length: 0"})
UNKNOWN_OR_NAMED: Final = UNKNOWN | {b"connection: content-length"}
"""Lines that mean nothing to anybody who reads HTTP: the length stands."""


def cases(key: str, first: int) -> Iterator[Case]:
    """Every case, numbered from ``first`` on."""
    for number, (name, kind, spoil) in enumerate(_table(), first):
        mark = f"call-{number}"
        yield Case(name, kind, mark, spoil(good(mark, key), good(f"{mark}-second", key)))


def _table():
    for line in HIDDEN:
        kind = STRANGE if line in UNKNOWN_OR_NAMED else AMBIGUOUS
        yield f"CL.TE {line!r}", kind, lambda r, s, h=line: _length_wins(r, s, h)
        yield f"TE.CL {line!r}", kind, lambda r, s, h=line: _coding_wins(r, s, h)
    for name, change in ODD.items():
        yield name, STRANGE, lambda r, s, c=change: c(r, s)


def _with_line(request: Request, length: int, line: bytes, body: bytes) -> bytes:
    framed = request.without(b"content-length").with_header(b"content-length", b"%d" % length)
    return framed._replace(body=b"").bytes()[:-2] + line + b"\r\n\r\n" + body


def _length_wins(request: Request, second: Request, line: bytes) -> bytes:
    """By the length one request whose body is no JSON; by the coding an empty body, and the second one behind it."""
    body = b"0\r\n\r\n" + second.bytes()
    return _with_line(request, len(body), line, body)


def _coding_wins(request: Request, second: Request, line: bytes) -> bytes:
    """By the coding one request; by the length the second one begins within its chunk."""
    inner = second.bytes()
    size = b"%x\r\n" % len(inner)
    return _with_line(request, len(size), line, size + inner + b"\r\n0\r\n\r\n")


def _chunked(request: Request, body: bytes) -> bytes:
    plain = request.without(b"content-length").with_header(b"transfer-encoding", b"chunked")
    return plain._replace(body=body).bytes()


def _lengthy(request: Request, value: bytes) -> bytes:
    return request.without(b"content-length").with_header(b"content-length", value).bytes()


def _line(request: Request, line: bytes) -> bytes:
    return request._replace(line=line).bytes()


ODD: Final = {
    "a chunk for each byte": lambda r, s: _chunked(
        r, b"".join(b"1\r\n%c\r\n" % byte for byte in r.body) + b"0\r\n\r\n"
    ),
    "sizes with leading zeros": lambda r, s: _chunked(r, b"0000%x\r\n%b\r\n000\r\n\r\n" % (len(r.body), r.body)),
    "sizes in capitals": lambda r, s: _chunked(r, b"%X\r\n%b\r\n0\r\n\r\n" % (len(r.body), r.body)),
    "a chunk extension": lambda r, s: _chunked(r, b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(r.body), r.body)),
    "a quoted chunk extension": lambda r, s: _chunked(r, b'%x;a="b;c"\r\n%b\r\n0\r\n\r\n' % (len(r.body), r.body)),
    "a line end in a quoted extension": lambda r, s: _chunked(
        r, b'%x;a="\r\n0\r\n\r\n%b"\r\n%b\r\n0\r\n\r\n' % (len(r.body), s.bytes(), r.body)
    ),
    "an LF in an extension": lambda r, s: _chunked(r, b"%x;a\n%b\r\n0\r\n\r\n" % (len(r.body), r.body)),
    "a length with leading zeros": lambda r, s: _lengthy(r, b"0000%d" % len(r.body)),
    "a length with a space behind": lambda r, s: _lengthy(r, b"%d " % len(r.body)),
    "a length with a tab before": lambda r, s: _lengthy(r, b"\t%d" % len(r.body)),
    "an empty line before": lambda r, s: b"\r\n" + r.bytes(),
    "two empty lines before": lambda r, s: b"\r\n\r\n" + r.bytes(),
    "a bare LF before": lambda r, s: b"\n" + r.bytes(),
    "an absolute target": lambda r, s: _line(r, b"POST http://gateway/v1/chat/completions HTTP/1.1"),
    "an absolute target elsewhere": lambda r, s: _line(r, b"POST http://other/v1/chat/completions HTTP/1.1"),
    "a target with a fragment": lambda r, s: _line(r, b"POST /v1/chat/completions#x HTTP/1.1"),
    "a target with two slashes": lambda r, s: _line(r, b"POST //v1/chat/completions HTTP/1.1"),
    "a target that goes up": lambda r, s: _line(r, b"POST /x/../v1/chat/completions HTTP/1.1"),
    "two spaces before the target": lambda r, s: _line(r, b"POST  /v1/chat/completions HTTP/1.1"),
    "a tab before the target": lambda r, s: _line(r, b"POST\t/v1/chat/completions HTTP/1.1"),
    "two spaces before the version": lambda r, s: _line(r, b"POST /v1/chat/completions  HTTP/1.1"),
    "HTTP/1.0": lambda r, s: _line(r, b"POST /v1/chat/completions HTTP/1.0"),
    "HTTP/1.0 and chunked": lambda r, s: _line(r, b"POST /v1/chat/completions HTTP/1.0").replace(
        b"content-length", b"transfer-encoding: chunked\r\ncontent-length"
    ),
    "RTSP/1.0": lambda r, s: _line(r, b"POST /v1/chat/completions RTSP/1.0"),
    "HTTP/0.9": lambda r, s: b"POST /v1/chat/completions\r\n\r\n" + r.body,
    "an upgrade": lambda r, s: r.with_header(b"connection", b"upgrade").with_header(b"upgrade", b"h2c").bytes(),
    "the preface of HTTP/2": lambda r, s: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + r.bytes(),
    "CONNECT": lambda r, s: _line(r, b"CONNECT gateway:80 HTTP/1.1"),
    "GET with a body": lambda r, s: _line(r, b"GET /v1/chat/completions HTTP/1.1"),
    "HEAD with a body": lambda r, s: _line(r, b"HEAD /v1/chat/completions HTTP/1.1"),
    "an expectation": lambda r, s: r.with_header(b"expect", b"100-continue").bytes(),
    "an expectation of something": lambda r, s: r.with_header(b"expect", b"200-ok").bytes(),
    "an empty value": lambda r, s: r.with_header(b"x-other", b"").bytes(),
    "a value of blanks": lambda r, s: r.with_header(b"x-other", b" \t ").bytes(),
    "a value beyond ASCII": lambda r, s: r.with_header(b"x-other", b"\xff\xfe\x80").bytes(),
    "close": lambda r, s: r.with_header(b"connection", b"close").bytes() + s.bytes(),
    "one behind the other": lambda r, s: r.bytes() + s.bytes(),
    "one behind the other, with empty lines between": lambda r, s: r.bytes() + b"\r\n\r\n" + s.bytes(),
    "chunked, one behind the other": lambda r, s: (
        _chunked(r, b"%x\r\n%b\r\n0\r\n\r\n" % (len(r.body), r.body)) + s.bytes()
    ),
    "a length that is too short": lambda r, s: _lengthy(r, b"%d" % (len(r.body) - 1)),
    "no length before another": lambda r, s: r.without(b"content-length")._replace(body=b"").bytes() + s.bytes(),
}
"""What some honest client might send, and what is legal without being wise."""
