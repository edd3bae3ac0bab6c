"""A table of requests that no honest client sends: how a body's end, a header or a line could be read in two ways.

:func:`cases` makes them from small tables: a place in a request times what is wrong there. Each is one request, so one
call at the most may reach the provider. ``AMBIGUOUS`` must be refused with 400 (or what says it better) and the
connection closed; ``STRANGE`` may be served if it is served as the one request that it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final, NamedTuple

AMBIGUOUS: Final = "ambiguous"
STRANGE: Final = "strange"
CONTROLS: Final = [code for code in (*range(0x20), 0x7F) if code not in (0x09, 0x0A, 0x0D)]
LENGTHS: Final = [
    *(
        b"+%d",
        b"-%d",
        b"0x%x",
        b"%d,%d",
        b"%d, %d",
        b"%d %d",
        b"%da",
        b"%d.0",
        b"%de0",
        b"%d;",
        b"%d,",
        b",%d",
        b"--%d",
    ),
    *(b'"%d"', b"%d\x0b", b"\x0b%d", b"%d\x00", b"\x00%d", b"_%d", b"%d_", b"0b%d", b"%d\xa0", b"\xc2\xa0%d", b"(%d)"),
    *(b"%d99999999999999999999", b"1_%d", b"'%d'", b"=%d", b"%d%%", b"\xef\xbc\x95%d"),
]
CODINGS: Final = [
    *(b"identity", b"gzip", b"gzip, chunked", b"chunked, chunked", b"chunked, identity", b"chunked, gzip", b"xchunked"),
    *(
        b"chunkedx",
        b"chunked;q=1",
        b'"chunked"',
        b"chunked,",
        b",chunked",
        b"chunk",
        b"x",
        b"\x0bchunked",
        b"chunked\x0b",
    ),
    *(b"chunked\x00", b"\x00chunked", b"identity, chunked", b"chunked chunked", b"'chunked'", b"deflate", b"br"),
    *(b"chunked;", b"chunked=1", b"chun ked", b"c\xa0hunked", b"(chunked)", b"chunked\xa0", b"\xc2\xa0chunked"),
]
CHUNK_SIZES: Final = [
    *(b"", b"g", b"-%x", b"+%x", b"0x%x", b" %x", b"%x,", b"%x.0", b"%x\x0b", b"\x0b%x", b"%x\x00", b"_%x", b"%xg"),
    *(b"ffffffffffffffff%x", b"10000000000000000%x", b"%x\n", b"%x\r", b"%x\r\r", b'"%x"', b"%x %x", b"\xa0%x", b"%xh"),
]
CHUNK_ENDS: Final = [b"", b"\n", b"\r", b"XX", b"\r\r\n", b"\n\r", b"\r\nX", b" \r\n", b"\x00\x00"]
BAD_NAME_LETTERS: Final = b'"(),/;<=>?@[\\]{}\xa0\x80\xff\xe9'
NAMES: Final = [b"content-length", b"transfer-encoding", b"host", b"authorization", b"content-type", b"x-other"]
ONCE: Final = [*NAMES[:-1], b"x-api-key", b"api-key", b"x-goog-api-key"]
VERSIONS: Final = [
    *(
        b"HTTP/1.2",
        b"HTTP/2.0",
        b"HTTP/0.9",
        b"HTTP/1.1.1",
        b"HTTP/1.",
        b"HTTP/11",
        b"http/1.1",
        b"HTTP/1.10",
        b"HTPP/1.1",
    ),
    *(
        b"HTTP /1.1",
        b"HTTP/ 1.1",
        b"HTTP/1,1",
        b"HTTP/1.1 x",
        b"HTTP/1.1\x0b",
        b"HTTP/3",
        b"HTTP",
        b"ICE/1.0",
        b"ICY/1.1",
    ),
]
METHODS: Final = [
    b"post",
    b"P OST",
    b"POST:",
    b"PO\x00ST",
    b"",
    b"P\xc3\x96ST",
    b"PRI",
    b"POSTPOST",
    b"<POST>",
    b"POST\x0b",
]


class Case(NamedTuple):
    """One request. ``mark`` is in its body's ``user``."""

    name: str
    kind: str
    mark: str
    data: bytes


class Request(NamedTuple):
    """The parts of a request, each of which a case may spoil."""

    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    eol: bytes = b"\r\n"

    def bytes(self) -> bytes:
        """What goes over the wire."""
        lines = b"".join(name + b": " + value + self.eol for name, value in self.headers)
        return self.line + self.eol + lines + self.eol + self.body

    def with_header(self, name: bytes, value: bytes, *, first: bool = False) -> Request:
        """The same with one header more."""
        one = [(name, value)]
        return self._replace(headers=one + self.headers if first else self.headers + one)

    def without(self, name: bytes) -> Request:
        """The same without a header."""
        return self._replace(headers=[header for header in self.headers if header[0] != name])


def good(mark: str, key: str, *, chunked: bool = False) -> Request:
    """A request that would be served."""
    body = json.dumps({"model": "local/gpt-4o-mini", "user": mark, "messages": []}).encode()
    framing = (b"transfer-encoding", b"chunked") if chunked else (b"content-length", b"%d" % len(body))
    return Request(
        b"POST /v1/chat/completions HTTP/1.1",
        [
            (b"host", b"gateway"),
            (b"authorization", b"Bearer " + key.encode()),
            (b"content-type", b"application/json"),
            framing,
        ],
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body,
    )


def cases(key: str) -> Iterator[Case]:
    """Every case of this table, each with a mark of its own."""
    for number, (name, kind, chunked, spoil) in enumerate(_table()):
        mark = f"call-{number}"
        request = good(mark, key, chunked=chunked)
        spoiled = spoil(request)
        yield Case(name, kind, mark, spoiled if isinstance(spoiled, bytes) else spoiled.bytes())


def _numbered(pattern: bytes, number: int) -> bytes:
    plain = pattern.replace(b"%%", b"")
    count = plain.count(b"%d") + plain.count(b"%x")
    return pattern % ((number,) * count) if count else pattern.replace(b"%%", b"%")


def _body(request: Request) -> bytes:
    return request.body.split(b"\r\n")[1]


def _table():  # noqa: PLR0912  # a table in rows of loops: one kind of fault each
    for value in LENGTHS:
        yield (
            f"length {value!r}",
            AMBIGUOUS,
            False,
            lambda r, v=value: r.without(b"content-length").with_header(b"content-length", _numbered(v, len(r.body))),
        )
        for first in (True, False):
            yield (
                f"second length {value!r} {first}",
                AMBIGUOUS,
                False,
                lambda r, v=value, f=first: r.with_header(b"content-length", _numbered(v, len(r.body)), first=f),
            )
    for value in CODINGS:
        yield (
            f"coding {value!r}",
            AMBIGUOUS,
            True,
            lambda r, v=value: r.without(b"transfer-encoding").with_header(b"transfer-encoding", v),
        )
        yield (
            f"coding {value!r} and length",
            AMBIGUOUS,
            False,
            lambda r, v=value: r.with_header(b"transfer-encoding", v),
        )
        for first in (True, False):
            yield (
                f"second coding {value!r} {first}",
                AMBIGUOUS,
                True,
                lambda r, v=value, f=first: r.with_header(b"transfer-encoding", v, first=f),
            )
    for first in (True, False):
        for name in (b"Transfer-Encoding", b"TRANSFER-ENCODING", b"transfer-Encoding"):
            yield (
                f"both framings {name!r} {first}",
                AMBIGUOUS,
                False,
                lambda r, n=name, f=first: r.with_header(n, b"chunked", first=f),
            )
    for size in CHUNK_SIZES:
        yield (
            f"chunk size {size!r}",
            AMBIGUOUS,
            True,
            lambda r, s=size: r._replace(body=_numbered(s, len(_body(r))) + b"\r\n" + _body(r) + b"\r\n0\r\n\r\n"),
        )
        yield (
            f"last chunk size {size!r}",
            AMBIGUOUS,
            True,
            lambda r, s=size: r._replace(body=b"%x\r\n%b\r\n%b\r\n\r\n" % (len(_body(r)), _body(r), _numbered(s, 0))),
        )
    for end in CHUNK_ENDS:
        yield (
            f"chunk end {end!r}",
            AMBIGUOUS,
            True,
            lambda r, e=end: r._replace(body=b"%x\r\n%b%b0\r\n\r\n" % (len(_body(r)), _body(r), e)),
        )
        yield (
            f"chunk line end {end!r}",
            AMBIGUOUS,
            True,
            lambda r, e=end: r._replace(
                body=b"%x%b%b\r\n0\r\n\r\n" % (len(_body(r)), e if e != b"XX" else b"zz", _body(r))
            ),
        )
    for name in NAMES:
        yield f"trailer {name!r}", STRANGE, True, lambda r, n=name: r._replace(body=r.body[:-2] + n + b": 1\r\n\r\n")
        for before in (b" ", b"\t", b"\x0b", b"\x00", b"\xa0"):
            yield f"{name!r} then {before!r}", AMBIGUOUS, False, lambda r, n=name, b=before: r.with_header(n + b, b"1")
            yield (
                f"{before!r} before {name!r}",
                AMBIGUOUS,
                False,
                lambda r, n=name, b=before: r.with_header(b + n, b"1"),
            )
        for fold in (b"\r\n ", b"\r\n\t", b"\n ", b"\r "):
            yield (
                f"folded {name!r} {fold!r}",
                AMBIGUOUS,
                False,
                lambda r, n=name, f=fold: r.with_header(n, b"1" + f + b"2"),
            )
        for letter in BAD_NAME_LETTERS:
            yield (
                f"{letter:#x} in {name!r}",
                AMBIGUOUS,
                False,
                lambda r, n=name, c=letter: r.with_header(n[:4] + bytes([c]) + n[4:], b"1"),
            )
    for name in ONCE:
        for other in (b"1", b"gateway"):
            yield (
                f"{name!r} twice {other!r}",
                AMBIGUOUS,
                False,
                lambda r, n=name, o=other: r.with_header(n, o).with_header(n.title(), o),
            )
    for code in CONTROLS:
        letter = bytes([code])
        yield f"{letter!r} in a name", AMBIGUOUS, False, lambda r, c=letter: r.with_header(b"x" + c + b"y", b"1")
        yield (
            f"{letter!r} in a target",
            AMBIGUOUS,
            False,
            lambda r, c=letter: r._replace(line=b"POST /v1/chat/completions" + c + b" HTTP/1.1"),
        )
        yield (
            f"{letter!r} in a method",
            AMBIGUOUS,
            False,
            lambda r, c=letter: r._replace(line=b"PO" + c + b"ST /v1/chat/completions HTTP/1.1"),
        )
        yield (
            f"{letter!r} in a value",
            AMBIGUOUS if code == 0 else STRANGE,
            False,
            lambda r, c=letter: r.with_header(b"x-other", b"a" + c + b"b"),
        )
    for version in VERSIONS:
        yield (
            f"version {version!r}",
            AMBIGUOUS,
            False,
            lambda r, v=version: r._replace(line=b"POST /v1/chat/completions " + v),
        )
    for method in METHODS:
        yield (
            f"method {method!r}",
            STRANGE,
            False,
            lambda r, m=method: r._replace(line=m + b" /v1/chat/completions HTTP/1.1"),
        )
    for eol in (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\x00", b"\x0b\n"):
        yield f"lines end with {eol!r}", AMBIGUOUS, False, lambda r, e=eol: r._replace(eol=e)
        yield (
            f"a value ends with {eol!r}",
            AMBIGUOUS,
            False,
            lambda r, e=eol: r.with_header(b"x-other", b"1" + e + b"transfer-encoding: chunked"),
        )
    yield "no host", AMBIGUOUS, False, lambda r: r.without(b"host")
    yield "no length", STRANGE, False, lambda r: r.without(b"content-length")
    yield (
        "a line without colon",
        AMBIGUOUS,
        False,
        lambda r: r.bytes().replace(b"host: gateway", b"host: gateway\r\nnonsense"),
    )
    yield "an empty name", AMBIGUOUS, False, lambda r: r.with_header(b"", b"1")
