"""One request and its response on a client's connection, as the gateway sees it.

The narrow interface between the story (``run``) and the server: everything about the request is known when the story
starts, and the answer leaves through five methods. :class:`Exchange` is the real one, on a uvicorn transport; tests
script the gateway through a real server, so there is no second implementation to drift.

An exchange outlives its connection: after the client has left, writes go nowhere and the story still ends in a record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import UNSET, UnsetType

from counterfoil.errors import Fault
from counterfoil.gateway.head import Head
from counterfoil.record.record import Idempotency
from counterfoil.tenancy.principal import Principal
from counterfoil.wire.http1 import CRLF, LAST_CHUNK, STATUS_LINES

if TYPE_CHECKING:
    from counterfoil.gateway.server import ServerProtocol


class Listener(Protocol):
    """Who must hear about the client while an answer passes."""

    def on_client_gone(self) -> None: ...

    def on_client_slow(self) -> None: ...

    def on_client_ready(self) -> None: ...


class Exchange:
    """A request, complete or refused (``fault``), and the way back. Also plays uvicorn's *cycle* for its protocol."""

    # What only the calls behind an idempotency key have (``keyed``), and the id of bulk reruns; for others nobody's.
    request_id: str | None = None
    idempotency: Idempotency | UnsetType = UNSET

    __slots__ = (
        "_chunked",
        "_protocol",
        "arrived_ms",
        "arrived_ns",
        "body_size",
        "complete_body",
        "deadline",
        "disconnected",
        "fault",
        "head",
        "headers",
        "http10",
        "keep_alive",
        "launched",
        "listener",
        "message_event",
        "parts",
        "path",
        "principal",
        "response_complete",
        "started",
        "surface",
        "turn",
    )

    def __init__(
        self,
        protocol: Any,
        head: Head,
        arrived_ms: int,
        arrived_ns: int,
    ) -> None:
        self._protocol: ServerProtocol = protocol  # None only where every method that uses it is overridden
        self._chunked = False
        self.head = head
        self.path = head.path
        self.headers = head.headers
        self.surface = head.surface
        self.arrived_ms = arrived_ms
        self.arrived_ns = arrived_ns
        self.principal: Principal | None = None
        self.fault: Fault | None = None
        self.parts: list[bytes | memoryview] = []
        self.body_size = 0
        self.complete_body = False
        self.turn = True  # False while an earlier request of the same connection is being answered
        self.deadline = 0.0
        self.listener: Listener | None = None
        self.launched = False
        self.http10 = False
        # What uvicorn's protocol asks of its cycle.
        self.keep_alive = True
        self.disconnected = False
        self.started = False
        self.response_complete = False
        self.message_event: _Deaf = _DEAF

    def body(self) -> bytes:
        """The whole request body; call once, it is handed over."""
        parts, self.parts = self.parts, []
        return b"".join(parts)  # of one piece, that piece

    # The answer.

    def respond(self, status: int, fields: list[bytes], body: bytes) -> None:
        """A whole answer in one write. ``fields`` are complete header lines."""
        if self.disconnected:
            return
        self.started = True
        if self._protocol.access_log:
            self._log(status)
        self._write(
            b"".join(
                (STATUS_LINES[status], *fields, b"content-length: %d\r\n" % len(body), self._closing(), CRLF, body)
            )
        )
        self.finish()

    def start(self, status: int, fields: list[bytes], length: int | None, first: bytes) -> None:
        """The head of an answer that goes on, and its first piece (perhaps empty), in one write.

        ``length`` is the body's length where it is known; otherwise the body is chunked, or ends with the connection
        for an HTTP/1.0 client.
        """
        if self.disconnected:
            return
        self.started = True
        if self._protocol.access_log:
            self._log(status)
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif self.http10:
            framing = b""
            self.keep_alive = False
        else:
            framing = b"transfer-encoding: chunked\r\n"
            self._chunked = True
        if first and self._chunked:
            first = b"%x\r\n%b\r\n" % (len(first), first)
        self._write(b"".join((STATUS_LINES[status], *fields, framing, self._closing(), CRLF, first)))

    def write(self, data: bytes) -> None:
        """The next piece of the body; ``data`` must not be empty."""
        if not self.disconnected:  # as `_write`, which is one call more for every frame of every stream
            self._protocol.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def release(self) -> None:
        """The record is durable, and the end not here yet: whatever is written from now on was waiting for that."""

    def end(self, data: bytes) -> None:
        """The last piece of the body (perhaps empty) and the end of the answer, in one write."""
        if self.disconnected or self.response_complete:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else LAST_CHUNK
        if data:
            self._write(data)
        self.finish()

    def finish(self) -> None:
        """The answer is out: hand the connection back."""
        if not self.response_complete:
            self.response_complete = True
            self._protocol.on_exchange_complete(self)

    def abort(self) -> None:
        """Break the connection: the client must not take what it has for a whole answer."""
        if not self.disconnected:
            self._protocol.transport.abort()

    # The client.

    def connection_closed(self) -> None:
        """The client has closed its connection."""
        if not self.started and self._protocol.access_log:
            self._log(499)
        self.client_gone()

    def client_gone(self) -> None:
        """The connection is lost."""
        self.disconnected = True
        if self.listener is not None:
            self.listener.on_client_gone()

    def _log(self, status: int) -> None:
        """A line of the access log, as uvicorn writes it for the control plane.

        The path is the surface's, and so never a text of the client's, which may be anything.
        """
        host, port = self._protocol.client or ("", 0)
        path, version = self.surface.path or "(unknown)", "1.0" if self.http10 else "1.1"
        self._protocol.access_logger.info(
            '%s - "%s %s HTTP/%s" %d', f"{host}:{port}", self.head.method, path, version, status
        )

    def _closing(self) -> bytes:
        if not self.complete_body:
            self.keep_alive = False
        if self.keep_alive:
            return b"connection: keep-alive\r\n" if self.http10 else b""
        return b"connection: close\r\n"

    def _write(self, data: bytes) -> None:
        self._protocol.transport.write(data)


class _Deaf:
    """Stands where uvicorn keeps an event that nobody of ours waits for."""

    set: Callable[[], None] = staticmethod(lambda: None)


_DEAF = _Deaf()
