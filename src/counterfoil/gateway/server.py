"""The server side of the hot path: uvicorn's httptools protocol, with the inference routes served on the transport.

uvicorn stays the host (TLS, signals, keep-alive, the ASGI control plane). This class steps in once per request, when
the head is complete: a path that belongs to a surface becomes an :class:`~counterfoil.gateway.exchange.Exchange` and
never sees ASGI; everything else goes on as uvicorn made it.

Rules of the house:

- The key is checked as soon as the head is there, so a stranger cannot make us hold a body.
- A refused request is answered at once, even while its body is still arriving; the rest of the body is then read and
  dropped for as long as it keeps coming, within bounds, because closing with unread data would reset the connection and
  lose the answer (nginx calls it a lingering close, and has the same two times).
- Nothing here owns a timer per request. Every wait has a deadline, and one sweep a fifth of a second looks at them all.
- Requests of one connection are answered in their order; a second one waits for its turn.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools
from msgspec import Struct
from uvicorn.config import Config as UvicornConfig
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from counterfoil.errors import CallerFault, Fault, GatewayFault
from counterfoil.gateway.exchange import Exchange
from counterfoil.gateway.head import Head
from counterfoil.surfaces import registry
from counterfoil.surfaces.families import UNKNOWN
from counterfoil.tenancy.keys import KEY_HEADERS, KeyKind
from counterfoil.wire.http1 import CONTINUE, STATUS_LINES

if TYPE_CHECKING:
    from counterfoil.gateway.run import Gateway

LINGER_SECONDS = 5.0
"""How long the rest of a refused body may pause while it is read and dropped, before the connection closes."""

LINGER_SECONDS_MAX = 30.0
"""How long it is read in all: a client that sends a large file all the same reads our answer when it has done so."""

LINGER_SECONDS_STRANGER = 2.0
"""How long after what was no request at all."""

LINGER_BYTES_MAX = 64 * 1024 * 1024

_ONCE = frozenset(
    {
        b"idempotency-key",
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"authorization",
        b"content-type",
        *KEY_HEADERS,
    }
)
"""Headers whose second appearance makes a request ambiguous: two readers could each believe another one."""


_LENGTH_LINE = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,7})(?=\r\n)")
_LENGTH_DIGITS_MAX = 7


class Form(Struct, frozen=True):
    """A request as its connection last wrote one: all of its head before and after the digits of its length.

    Most requests of a connection differ in nothing but the body. One whose head comes in one read needs no parser: the
    one that read the first stands between two requests, and will stand there again when the body has come.
    """

    head: Head
    before: bytes
    after: bytes


class ServerProtocol(HttpToolsProtocol):
    """A client's connection. ``gateway`` is bound when the protocol factory is made."""

    parser: Any  # None once the connection is lost, which uvicorn's own annotation leaves out
    cycle: Any  # uvicorn's RequestResponseCycle, or an Exchange of ours; None before the first request
    pipeline: Any

    # uvicorn's attributes are as many as instances may share the names of; with ours each would hold them all itself.
    __slots__ = (
        "deadline",
        "form",
        "gateway",
        "head_known",
        "head_said",
        "head_size",
        "hot",
        "in_head",
        "in_message",
        "length",
        "limits",
        "linger_until",
        "lingering",
        "owed",
        "peer",
        "unreadable",
    )

    def __init__(
        self,
        config: UvicornConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        gateway: Gateway,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.gateway = gateway
        self.limits = gateway.limits
        self.deadline = 0.0  # loop time; 0 means none
        self.head_size = 0
        self.in_head = False
        self.lingering = 0  # bytes dropped, and one, once nothing is read for its own sake any more
        self.linger_until = 0.0
        self.unreadable: Fault | None = None  # what came behind a request that is still being answered
        self.peer = ""
        self.hot: Exchange | None = None  # the exchange whose body is arriving
        self.length: bytes | None = None  # the content-length of the request whose head is arriving
        self.head_said: tuple[bytes, bytes, str, list[tuple[bytes, bytes]]] | None = None
        self.head_known: Head | None = None  # what follows from `head_said`
        self.in_message = False  # the parser has begun a request and not ended it
        self.owed = 0  # bytes of a body that are still to come, past the parser
        self.form: Form | None = None

    # The connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self.peer = self.client[0] if self.client else ""
        self.deadline = self.loop.time() + self.limits.header_seconds
        if not self.gateway.connection_opened(self):
            self._refuse_connection()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gateway.connection_closed(self)
        cycle = self.cycle
        hot = self.hot
        if hot is not None and not hot.complete_body and hot.fault is None:
            # The body never came whole. Somebody may still be there to read why (a half-closed socket is not).
            hot.disconnected = True
            hot.fault = CallerFault("incomplete_body")
            self._launch(hot)
        waiting = [entry for entry, _ in self.pipeline if isinstance(entry, Exchange)]
        if isinstance(cycle, Exchange):
            waiting.append(cycle)
        for exchange in waiting:
            if not exchange.response_complete:
                exchange.connection_closed()
        super().connection_lost(exc)
        # It and its last request know each other, and only the cyclic collector, which runs seldom, would find them.
        self.hot = self.cycle = None
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            self._drop(len(data))
            return
        if self.owed:
            self._more(data)
            return
        begins = False  # whether the first byte of a request is the first here
        if self.in_head:
            self.head_size += len(data)
        elif self.hot is None and (self.cycle is None or self.cycle.response_complete):
            self._unset_keepalive_if_required()
            begins = not self.in_message
            if begins and self.form is not None and self._fits(self.form, data):
                return
            self.head_size = len(data)
            self.deadline = self.loop.time() + self.limits.header_seconds
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._reject(CallerFault("invalid_http", "This server speaks HTTP/1.1 only."))
        except httptools.HttpParserError:
            if self.hot is None:
                self._reject(CallerFault("invalid_http"))
            elif self.hot.fault is None:  # its body is what cannot be read: there is a key, so there is a record
                self._refuse(self.hot, CallerFault("invalid_http", "The framing of the request body is invalid."))
        else:
            if self.in_head and self.head_size > self.limits.header_bytes:
                self._reject(CallerFault("headers_too_large"))
            elif begins and self.head_known is not None:
                self._learn_form(data)

    def eof_received(self) -> bool | None:  # pyright: ignore[reportIncompatibleMethodOverride]  # as asyncio has it
        """A client that stops in the middle of its body may still read why that does not work."""
        if self.hot is None or self.hot.fault is not None:
            return None
        self._refuse(self.hot, CallerFault("incomplete_body"))
        return True

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        # What uvicorn does here costs more than a parse; it is done only for a request that goes on to ASGI.
        self.url = b""
        self.headers = []
        self.length = None
        self.hot = None
        self.in_head = True
        self.in_message = True

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length" and self.length is None:
            self.length = value
        else:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.in_head = False
        parser = self.parser
        said = (self.url, parser.get_method(), parser.get_http_version(), self.headers)
        fault = None
        if said == self.head_said and self.head_known is not None:
            head = self.head_known
        else:
            headers = dict(self.headers)
            fault = self._head_fault(headers)
            head = self._read_head(headers, fault)
            if head is None:
                self._hand_to_asgi(headers)
                return
            if fault is None:
                self.head_said, self.head_known = said, head
        exchange = Exchange(self, head, time.time_ns() // 1_000_000, time.monotonic_ns())
        exchange.http10 = said[2] == "1.0"
        exchange.keep_alive = parser.should_keep_alive() and not self.gateway.stopping
        self._open(exchange, fault)

    # A request like the one before.

    def _learn_form(self, data: bytes) -> None:
        """Keep the form of the request in ``data`` when the next one can be told by it."""
        exchange, head = self.cycle, self.head_known
        if (
            not isinstance(exchange, Exchange)
            or head is None
            or exchange.head is not head
            or (self.form is not None and self.form.head is head)
            or exchange.http10
            or not exchange.keep_alive
            or head.expects
            or self.pipeline
            or self.in_head
            or not data.startswith(b"POST %b " % self.url)
        ):
            return
        body_at = len(data) - exchange.body_size
        found = _LENGTH_LINE.search(data, 0, body_at)
        if found is not None and (int(found[1]) == exchange.body_size) is exchange.complete_body:
            after = data[found.end(1) : body_at]
            if after.find(b"\r\n\r\n") == len(after) - 4:
                self.form = Form(head, data[: found.start(1)], after)

    def _fits(self, form: Form, data: bytes) -> bool:
        """Take ``data`` when it is one request, or its beginning, with the head of the last but for its length."""
        before, after = form.before, form.after
        if not data.startswith(before):
            return False
        start = len(before)
        end = data.find(b"\r\n", start, start + _LENGTH_DIGITS_MAX + 2)
        length = data[start:end] if end > 0 else b""
        body_at = end + len(after)
        owed = int(length) - (len(data) - body_at) if length.isdigit() else -1
        if owed < 0 or not data.startswith(after, end):
            return False
        gateway = self.gateway
        exchange = Exchange(self, form.head, time.time_ns() // 1_000_000, time.monotonic_ns())
        exchange.keep_alive = not gateway.stopping
        self.cycle = exchange
        self.length = length
        if owed:
            self._await_rest(exchange, memoryview(data)[body_at:], owed)
            return True
        exchange.parts = [data[body_at:]]
        exchange.body_size = len(data) - body_at
        exchange.complete_body = exchange.launched = True
        self.deadline = 0.0
        exchange.fault = self._refusal(exchange)
        gateway.begin(exchange)
        return True

    def _await_rest(self, exchange: Exchange, start: memoryview, owed: int) -> None:
        """Take up a request of which ``start`` has come and ``owed`` bytes have not."""
        self.hot = exchange
        self.owed = owed
        fault = self._refusal(exchange)
        if fault is not None:
            self._refuse(exchange, fault)
            return
        exchange.parts = [start] if start else []
        exchange.body_size = len(start)
        self.deadline = self.loop.time() + self.limits.body_seconds

    def _more(self, data: bytes) -> None:
        """More of a body that comes past the parser, and perhaps of what is behind it."""
        exchange, owed = self.hot, self.owed
        piece = data if len(data) <= owed else data[:owed]
        self.owed = owed - len(piece)
        if exchange is not None and exchange.fault is None:
            exchange.parts.append(piece)
            exchange.body_size += len(piece)
        if exchange is not None and not self.owed:
            self.hot = None
            self.deadline = 0.0
            exchange.complete_body = True
            if exchange.fault is None:
                exchange.launched = True
                self.gateway.begin(exchange)
        if len(data) > owed and not self.transport.is_closing():
            self.data_received(data[owed:])

    def _read_head(self, headers: dict[bytes, bytes], fault: Fault | None) -> Head | None:
        """The head of a request that is ours; None for one that goes on to ASGI."""
        raw_path, _, query = self.url.partition(b"?")
        method = self.parser.get_method()
        surface = self.gateway.surface_of(raw_path) if fault is None or headers else None
        if surface is None:
            if fault is None:
                return None
            surface = self.gateway.fallback_surface
        elif surface.name == UNKNOWN:
            surface = registry.as_client(surface, headers)
        path = raw_path.decode("latin-1")
        path = unquote(path) if "%" in path else path
        return Head(method.decode("ascii"), path, query.decode("latin-1"), headers, surface)

    def _hand_to_asgi(self, headers: dict[bytes, bytes]) -> None:
        """Let uvicorn have this request, as if it had seen it from the beginning."""
        url, fields = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers += fields  # the list that uvicorn's scope refers to
        if self.length is not None:
            self.headers.append((b"content-length", self.length))
        self.expect_100_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        self.deadline = 0.0  # one that waits for its turn is not read on, so its body cannot be late yet
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        exchange = self.hot
        if exchange is None:
            if isinstance(self.cycle, Exchange):
                return  # the rest of a request that was refused
            super().on_body(body)
            return
        if exchange.fault is not None:
            return
        exchange.body_size += len(body)
        if exchange.body_size > self.limits.body_bytes:
            self._refuse(exchange, CallerFault("payload_too_large", self._too_large()))
            return
        exchange.parts.append(body)

    def on_message_complete(self) -> None:
        self.in_message = False
        exchange = self.hot
        if exchange is None:
            if not isinstance(self.cycle, Exchange):
                self.deadline = 0.0
                super().on_message_complete()
            return
        self.hot = None
        exchange.complete_body = True
        self.deadline = 0.0
        if exchange.fault is None:
            self._launch(exchange)

    # uvicorn's other hooks.

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Start what waited in the pipeline: ours goes to the gateway, the rest to ASGI."""
        if not isinstance(cycle, Exchange):
            self.deadline = self.loop.time() + self.limits.body_seconds if cycle.more_body else 0.0
            super()._start_asgi_task(cycle, app)
            return
        cycle.turn = True
        if cycle.complete_body or cycle.fault is not None:
            self._launch(cycle)

    def shutdown(self) -> None:
        """Finish what is under way, then close; uvicorn calls this once when the server stops."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        super().pause_writing()
        if isinstance(self.cycle, Exchange) and self.cycle.listener is not None:
            self.cycle.listener.on_client_slow()

    def resume_writing(self) -> None:
        super().resume_writing()
        if isinstance(self.cycle, Exchange) and self.cycle.listener is not None:
            self.cycle.listener.on_client_ready()

    # Ours.

    def on_exchange_complete(self, exchange: Exchange) -> None:
        """``exchange`` has been answered: next request, keep-alive, or goodbye."""
        if exchange is self.hot:
            self.hot = None
        if not exchange.complete_body:
            self._linger()
            return
        if not exchange.keep_alive or self.gateway.stopping:
            self.transport.close()
            return
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.unreadable is not None and not self.pipeline:
            self._reject(self.unreadable)
        elif self.pipeline:
            self.flow.resume_reading()
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self.deadline = self.loop.time() + self.limits.keep_alive_seconds

    def check(self, now: float) -> None:
        """Called by the sweep: act on a deadline that has passed (``now`` in loop time)."""
        if not self.deadline or now < self.deadline:
            return
        self.deadline = 0.0
        if self.hot is not None and not self.lingering:
            self._refuse(self.hot, CallerFault("request_timeout"))
        elif not self.lingering and ((self.in_head and self.head_size) or self._waits_for_body()):
            self._reject(CallerFault("request_timeout"))
        else:
            self.transport.close()

    def _waits_for_body(self) -> bool:
        """Whether the application waits for the rest of a body and has not answered yet."""
        cycle = self.cycle
        return (
            cycle is not None
            and not isinstance(cycle, Exchange)
            and bool(cycle.more_body)
            and not cycle.response_started
        )

    def _open(self, exchange: Exchange, fault: Fault | None) -> None:
        """Take up a request whose head is complete, and perhaps at ``fault``."""
        earlier = self.cycle
        self.cycle = exchange
        self.hot = exchange
        if earlier is not None and not earlier.response_complete:
            exchange.turn = False
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, None))
        if fault is None:
            fault = self._refusal(exchange)
        elif exchange.surface is not self.gateway.fallback_surface:
            self._identify(exchange)
        if fault is not None:
            self._refuse(exchange, fault)
            return
        self.deadline = self.loop.time() + self.limits.body_seconds
        if exchange.head.expects and exchange.turn:
            self.transport.write(CONTINUE)

    def _refusal(self, exchange: Exchange) -> Fault | None:
        """Why this request is refused before its body is read, if it is. The key is checked first."""
        try:
            exchange.principal = self.gateway.authenticate(exchange.head.key)
        except Fault as fault:
            return fault
        if exchange.principal.kind is not KeyKind.INFERENCE:
            return CallerFault("forbidden", "A management key cannot call models; use an inference key (cf_sk_…).")
        if exchange.head.method != "POST":
            if exchange.surface.name == UNKNOWN:
                return registry.refusal(exchange.head.path)
            return CallerFault("method_not_allowed", headers=(("allow", "POST"),))
        headers = exchange.headers
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            return CallerFault("unsupported_encoding")
        if self.length is not None and int(self.length) > self.limits.body_bytes:
            return CallerFault("payload_too_large", self._too_large())
        return None

    def _identify(self, exchange: Exchange) -> None:
        """Find out whose call a refused head is, for its record; nobody's when it sends a key twice."""
        names = [name for name, _ in self.headers]
        if any(names.count(name) > 1 for name in (b"authorization", *KEY_HEADERS)):
            return
        try:
            principal = self.gateway.authenticate(exchange.head.key)
        except Fault:
            return
        if principal.kind is KeyKind.INFERENCE:
            exchange.principal = principal

    def _head_fault(self, headers: dict[bytes, bytes]) -> Fault | None:
        """What makes a head unacceptable although llhttp parsed it."""
        if self.head_size > self.limits.header_bytes and self._head_bytes() > self.limits.header_bytes:
            return CallerFault("headers_too_large")  # it came in one piece, perhaps with its body
        if len(headers) != len(self.headers) or b"content-length" in headers:
            names = [name for name, _ in self.headers]
            names += [b"content-length"] if self.length is not None else []
            twice = next((name for name in _ONCE if names.count(name) > 1), None)
            if twice is not None:
                return CallerFault("invalid_http", f"The header {twice.decode()} appears twice.")
        if self.url[:1] != b"/":
            return CallerFault("invalid_http", "The request target must be a path: this server is no proxy.")
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            return CallerFault("invalid_http", "This server speaks HTTP/1.1 only.")
        if b"host" not in headers and version == "1.1":
            return CallerFault("invalid_http", "An HTTP/1.1 request needs a Host header.")
        if b"transfer-encoding" in headers and (
            self.length is not None or headers[b"transfer-encoding"].lower() != b"chunked"
        ):
            return CallerFault("invalid_http", "The framing of the request body is ambiguous.")
        return None

    def _head_bytes(self) -> int:
        """About how large the head was that has just been read."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self, exchange: Exchange, fault: Fault) -> None:
        """Answer ``exchange`` with ``fault``; what is left of its body is dropped."""
        exchange.fault = fault
        exchange.parts.clear()
        if fault.short_code in ("invalid_http", "request_timeout"):
            exchange.keep_alive = False
        self._launch(exchange)

    def _launch(self, exchange: Exchange) -> None:
        """Let the story begin, in the loop's next turn: the parser is still at work."""
        if exchange.turn and not exchange.launched:
            exchange.launched = True
            self.loop.call_soon(self.gateway.begin, exchange)

    def _reject(self, fault: Fault) -> None:
        """Answer bytes that are no request, and close. There is no key yet, so there is no record."""
        self.hot = None
        cycle = self.cycle
        if cycle is not None and not isinstance(cycle, Exchange) and cycle.more_body and not cycle.response_started:
            # Its body is what cannot be read. The application waits for more of it, and is told that none will come.
            cycle.disconnected = True
            cycle.message_event.set()
        elif cycle is not None and not cycle.response_complete:
            # Earlier requests were good and are answered first; their answers must not be cut into.
            self.unreadable = fault
            self.flow.pause_reading()
            if not isinstance(cycle, Exchange):
                cycle.keep_alive = False
            return
        self.gateway.counters.rejected += 1
        if not self.transport.is_closing():
            media_type, body = self.gateway.fallback_surface.render_error(fault, "")
            self._write_closing(fault.status, media_type, body)

    def _refuse_connection(self) -> None:
        self.lingering = 1
        media_type, body = self.gateway.fallback_surface.render_error(GatewayFault("too_many_connections"), "")
        self._write_closing(503, media_type, body)

    def _write_closing(self, status: int, media_type: str, body: bytes) -> None:
        self.transport.write(
            b"%bcontent-type: %b\r\ncache-control: no-store\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (STATUS_LINES[status], media_type.encode(), len(body), body)
        )
        self._linger(LINGER_SECONDS_STRANGER)

    def _linger(self, seconds_max: float = LINGER_SECONDS_MAX) -> None:
        """Read and drop while more comes, then close: the answer must not be lost to a reset."""
        now = self.loop.time()
        self.lingering = 1
        self.linger_until = now + seconds_max
        self.deadline = min(now + LINGER_SECONDS, self.linger_until)
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()

    def _drop(self, size: int) -> None:
        """Take note that so much more of a refused body was dropped."""
        self.lingering += size
        self.deadline = min(self.loop.time() + LINGER_SECONDS, self.linger_until)
        if self.lingering > LINGER_BYTES_MAX:
            self.transport.close()

    def _too_large(self) -> str:
        return f"The request body is larger than the {self.limits.body_bytes} bytes this gateway accepts."
