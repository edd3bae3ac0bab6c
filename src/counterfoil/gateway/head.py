"""The head of a request, and all that follows from it alone.

A client's connection says nearly the same head with every request; only the length of the body differs. So everything
that can be read out of a head is read once, and a connection keeps its last :class:`Head` for as long as the header
lines stay equal, byte for byte. What depends on anything else (the key's state, the body, the time) is no part of it.
"""

from __future__ import annotations

from counterfoil.capture import policy
from counterfoil.gateway.attribution import FORWARDED, app_of, kept_of, link_of, session_of
from counterfoil.providers.provider import Provider
from counterfoil.surfaces.base import Request, Surface
from counterfoil.tenancy.keys import from_headers

_CAPTURE = policy.HEADER.encode()


class Head:
    """``headers`` holds the first value of each name, in lower case, less ``content-length``; nobody changes it.

    ``app`` is what the headers say of the application, ``session`` of the session, ``link`` of the generation that
    is run again or judged; ``kept`` are the lines that are captured, ``capture`` what ``x-counterfoil-capture`` says.
    """

    __slots__ = (
        "_lines",
        "_lines_for",
        "app",
        "capture",
        "expects",
        "headers",
        "kept",
        "key",
        "link",
        "method",
        "path",
        "query",
        "session",
        "surface",
    )

    def __init__(self, method: str, path: str, query: str, headers: dict[bytes, bytes], surface: Surface) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.surface = surface
        self.key = from_headers(headers)
        self.app = app_of(headers)
        self.session = session_of(headers)
        self.link = link_of(headers)
        self.kept = kept_of(headers)
        self.capture = headers.get(_CAPTURE)
        self.expects = headers.get(b"expect", b"").lower() == b"100-continue"
        self._lines_for: tuple[Provider, bytes, str, str] | None = None
        self._lines = b""

    def request(self, body: bytes) -> Request:
        """The request that consists of this head and ``body``."""
        return Request(self.method, self.path, self.query, self.headers, body)

    def lines_for(self, provider: Provider, credential: bytes, path: str, content_type: str) -> bytes:
        """The head to send to ``provider``, up to the length of the body (which ends it)."""
        wanted = (provider, credential, path, content_type)
        known = self._lines_for
        if known is None or known[0] is not provider or known[1:] != wanted[1:]:
            self._lines_for = wanted
            self._lines = b"".join(
                (
                    provider.request_line,
                    path.encode(),
                    b" HTTP/1.1\r\n",
                    provider.host_line,
                    credential,
                    b"accept-encoding: identity\r\n",
                    *_forwarded(self.headers, provider.fields),
                    b"content-type: ",
                    content_type.encode(),
                    b"\r\ncontent-length: ",
                )
            )
        return self._lines


def _forwarded(headers: dict[bytes, bytes], fields: tuple[tuple[bytes, bytes], ...]) -> list[bytes]:
    """The client's header lines that travel on, and the provider's own where the client said nothing."""
    lines = [b"%b: %b\r\n" % (name, value) for name, value in headers.items() if name in FORWARDED]
    for name, value in fields:
        if name not in FORWARDED or name not in headers:
            lines.append(b"%b: %b\r\n" % (name, value))
    return lines
