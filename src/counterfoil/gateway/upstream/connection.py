"""One HTTP/1.1 connection to a provider, and the exchange it carries.

Callbacks move the bytes. A connection carries one exchange at a time; whoever carries on with the answer is its
*receiver* (:class:`Receiver`), told about the head, each piece of the body, the end, or the failure, in that order and
each at most once. Everything the parser reports during one ``data_received`` is handed over after the parser returned,
so a receiver may close the connection from any of its methods, and several small chunks cost one call.

What decides whether a connection may be used again: the answer ended by its own framing, the provider did not ask to
close, our request left the socket completely, and nothing came after the end.

A stream's frame usually comes as one read that holds one whole chunk. When the parser stands between two chunks, such a
read is a size line, so many bytes and a line end, which three comparisons can tell; the parser is left where it stands,
because that is also where it would stand had it read the chunk. Anything else goes to the parser.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import Callable
from typing import Any, Protocol, cast

import httptools

from counterfoil.errors import Fault, UpstreamFault

HEAD_BYTES_MAX = 256 * 1024
"""A provider's head may be this large; more is a fault, not a buffer."""

REQUEST_BUFFER_BYTES = 256 * 1024
"""How much of a request is handed to the socket at once. A longer body follows piece by piece, one in each turn of the
loop and as the socket takes it: so the loop reads in between, and an answer that comes before the body was sent (413,
then a reset) is nearly always seen before the reset is; and TLS never encrypts tens of megabytes in one go while
everything else waits."""


_JOINED_BYTES_MAX = 16 * 1024
"""A body up to this is joined to its head; a longer one is handed to the socket where it lies."""

_SIZE_LINE = re.compile(rb"[0-9A-Fa-f]{1,7}")
_SIZE_LINE_END_MAX = 9
_SIZES_MAX = 4096
_sizes: dict[bytes, int] = {}
"""What the plain size lines of chunks say: frames of one stream are of few sizes. Bounded by _SIZES_MAX."""

_FRAMING = (b"content-length", b"transfer-encoding")


class Receiver(Protocol):
    """Who an answer is for."""

    def on_head(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """The head of the final answer (never 1xx). Field names are as the provider spelled them."""

    def on_body(self, data: bytes) -> None:
        """The next piece of the body, transfer coding removed, never empty."""

    def on_end(self) -> None:
        """The answer is complete by its own framing (or by the end of the connection where it has none)."""

    def on_fault(self, fault: Fault) -> None:
        """The exchange is over without a complete answer."""


class UpstreamConnection(asyncio.Protocol):
    """A connection from its making to its loss. ``on_idle`` and ``on_lost`` tell the pool."""

    __slots__ = (
        "_between_chunks",
        "_choked",
        "_chunk_ended",
        "_complete",
        "_fields",
        "_head_bytes",
        "_head_ready",
        "_head_told",
        "_on_idle",
        "_on_lost",
        "_parser",
        "_parts",
        "_paused",
        "_persistent",
        "_receiver",
        "_unsent",
        "closed",
        "idle_since",
        "keep_alive_seconds",
        "transport",
        "used",
    )

    def __init__(
        self, on_idle: Callable[[UpstreamConnection], None], on_lost: Callable[[UpstreamConnection], None]
    ) -> None:
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._parser: Any = httptools.HttpResponseParser(self)  # None once the connection is lost
        self._receiver: Receiver | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._head_ready = False
        self._head_told = False
        self._head_bytes = 0
        self._chunk_ended = False
        self._between_chunks = False
        self._complete = False
        self._paused = False
        self._persistent = False
        self._unsent: memoryview | None = None
        self._choked = False
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.used = False
        self.idle_since = 0.0
        self.keep_alive_seconds: float | None = None

    # The exchange.

    def send(self, receiver: Receiver, head: bytes, body: bytes) -> None:
        """Begin an exchange. The connection must be idle and open."""
        self._receiver = receiver
        self._head_ready = False
        self._head_told = False
        self._head_bytes = 0
        self._chunk_ended = False
        self._between_chunks = False
        self._complete = False
        self._fields = []
        self._parts = []
        self.used = True
        transport = self.transport
        if transport is None:
            raise AssertionError("a connection is sent on before it is made")
        if len(body) <= _JOINED_BYTES_MAX:
            transport.write(head + body)
        elif len(body) <= REQUEST_BUFFER_BYTES:
            transport.writelines((head, body))
        else:
            self._unsent = memoryview(body)
            self._send_more(head)

    def detach(self) -> None:
        """Forget the receiver and close: nobody wants the rest of this answer."""
        self._receiver = None
        self.abort()

    def abort(self) -> None:
        """Close at once, dropping what was not sent."""
        if not self.closed:
            self.closed = True
            if self.transport is not None:
                self.transport.abort()

    def pause(self) -> None:
        """Stop reading from the provider until :meth:`resume`: the client is slower."""
        if not self.closed and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self.closed and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's transports are not registered as such

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            self.abort()  # an answer nobody asked for: this connection cannot be trusted with the next request
            return
        if self._between_chunks:
            at = data.find(b"\r\n", 1, _SIZE_LINE_END_MAX)
            if at > 0:
                line = data[:at]
                size = _sizes.get(line) or _chunk_size(line)
                if size and size == len(data) - at - 4 and data.endswith(b"\r\n"):
                    receiver.on_body(data[at + 2 : -2])
                    return
        elif not self._head_ready:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._hand_over(receiver)
            self._fail(UpstreamFault("invalid_response"), error)
            return
        if not self._head_ready:
            if self._head_bytes > HEAD_BYTES_MAX:
                self._fail(UpstreamFault("response_too_large"))
            return
        self._between_chunks = self._chunk_ended and not self._complete and data.endswith(b"\r\n")
        self._hand_over(receiver)
        if self._complete and self._receiver is receiver:
            self._finish(receiver)

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        self._send_more()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._on_lost(self)  # first: whoever hears of the fault may want a new connection at once
        receiver = self._receiver
        if receiver is not None and exc is not None and not self._paused:
            self._read_the_rest(receiver)
            receiver = self._receiver
        if receiver is not None:
            if self._head_ready and exc is None and self._until_eof():
                self._receiver = None
                receiver.on_end()
            else:
                self._fail(UpstreamFault("truncated" if self._head_ready else "connection_reset"), exc)
        self._parser = None  # they know each other, and only the cyclic collector would find them

    def _read_the_rest(self, receiver: Receiver) -> None:
        """Read what the socket still had for us when a write of ours failed.

        A provider that refuses a long request says so and resets the connection. When it is our write that meets the
        reset first, the answer stands in the socket's buffer all the same (on Linux).
        """
        transport = self.transport
        if transport is None or transport.get_extra_info("ssl_object") is not None:
            return
        try:
            descriptor = transport.get_extra_info("socket").fileno()
            while self._receiver is receiver and (data := os.read(descriptor, REQUEST_BUFFER_BYTES)):
                self.data_received(data)
        except OSError:  # there is nothing more, or no socket any more
            pass

    # httptools' callbacks. An exception here would be wrapped by the parser, so they only take notes.

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._complete:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            self._fields = []
            return
        self._head_ready = True

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_chunk_header(self) -> None:
        self._chunk_ended = False

    def on_chunk_complete(self) -> None:
        self._chunk_ended = True

    def on_message_complete(self) -> None:
        if self._head_ready:
            self._complete = True
            self._persistent = self._parser.should_keep_alive()  # the parser forgets it when this returns

    # A long body.

    def _send_more(self, head: bytes = b"") -> None:
        """``head`` and the next piece, and the one after it in the loop's next turn unless the socket has enough."""
        unsent = self._unsent
        if unsent is None or self._choked or self.closed:
            return
        cast("asyncio.Transport", self.transport).writelines((head, unsent[:REQUEST_BUFFER_BYTES]))
        self._unsent = unsent[REQUEST_BUFFER_BYTES:] if len(unsent) > REQUEST_BUFFER_BYTES else None
        if self._unsent is not None and not self._choked:
            asyncio.get_running_loop().call_soon(self._send_more)

    # Handing over.

    def _hand_over(self, receiver: Receiver) -> None:
        if not self._head_ready:
            return
        if not self._head_told:
            self._head_told = True
            if self.keep_alive_seconds is None:
                self.keep_alive_seconds = _keep_alive_of(self._fields)
            receiver.on_head(self._parser.get_status_code(), self._fields)
        parts = self._parts
        if parts and self._receiver is receiver:
            self._parts = []
            receiver.on_body(parts[0] if len(parts) == 1 else b"".join(parts))

    def _until_eof(self) -> bool:
        """Whether the body ends with the connection: nothing else says where it does."""
        framed = any(name.lower() in _FRAMING for name, _ in self._fields)
        return not framed and self._parser.get_status_code() not in (204, 304)

    def _finish(self, receiver: Receiver) -> None:
        self._receiver = None
        transport = self.transport
        reusable = (
            not self.closed
            and transport is not None
            and self._persistent
            and not self._parts
            and self._unsent is None
            and transport.get_write_buffer_size() == 0
        )
        if self._paused:  # the end came with the piece that was too much for the client; the next one is not slow
            self.resume()
        receiver.on_end()
        if reusable and not self.closed:
            if self._paused:  # by the client of the answer that just ended; the next one's must not wait for it
                self.resume()
            self._on_idle(self)
        else:
            self.abort()

    def _fail(self, fault: Fault, cause: BaseException | None = None) -> None:
        receiver, self._receiver = self._receiver, None
        fault.__cause__ = cause
        self.abort()
        if receiver is not None:
            receiver.on_fault(fault)


def _chunk_size(line: bytes) -> int:
    """The size that a chunk's first line gives when it gives nothing else; 0 leaves the line to the parser."""
    if not _SIZE_LINE.fullmatch(line):
        return 0
    size = int(line, 16)
    if len(_sizes) < _SIZES_MAX:
        _sizes[line] = size
    return size


def _keep_alive_of(fields: list[tuple[bytes, bytes]]) -> float:
    """How many seconds the provider keeps an idle connection, by its first answer: ``Keep-Alive: timeout=5, max=100``.

    Infinite when it does not say.
    """
    for name, value in fields:
        if len(name) == 10 and name.lower() == b"keep-alive":
            for part in value.lower().split(b","):
                key, _, number = part.strip().partition(b"=")
                if key == b"timeout" and number.isdigit():
                    return float(number)
    return math.inf
