"""Calls that the gateway makes to itself: a replay goes the same way as a client's call, with one end exchanged.

The story (``run``) sees an exchange like any other; only the answer lands in memory instead of on a socket. So a
replay is admitted, planned, priced, recorded and chained exactly as what it repeats, with credentials resolved anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from msgspec import Struct

from counterfoil.errors import CallerFault
from counterfoil.gateway.exchange import Exchange
from counterfoil.gateway.head import Head
from counterfoil.gateway.run import Gateway
from counterfoil.tenancy.principal import Principal


class Answer(Struct, frozen=True):
    """What a client would have received. ``headers`` has lower-case names; ``request_id`` finds the record."""

    status: int
    headers: dict[str, str]
    body: bytes
    request_id: str


class InternalExchange(Exchange):
    """An exchange whose client is this process. ``on_piece`` hears every piece of the body as it comes."""

    __slots__ = ("_fields", "_on_piece", "_pieces", "_status", "answered", "request_id")

    def __init__(
        self,
        gateway: Gateway,
        principal: Principal,
        target: str,
        headers: Mapping[bytes, bytes],
        body: bytes,
        on_piece: Callable[[bytes], None] | None = None,
        request_id: str | None = None,
    ) -> None:
        path, _, query = target.partition("?")
        surface = gateway.surface_of(path.encode())
        if surface is None:
            raise CallerFault("unsupported_endpoint", f"{path} is no endpoint that can be called again.")
        head = Head("POST", path, query, dict(headers), surface)
        super().__init__(None, head, time.time_ns() // 1_000_000, time.monotonic_ns())
        self.principal = principal
        self.request_id = request_id
        self.parts = [body]
        self.complete_body = True
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_piece = on_piece
        self._pieces: list[bytes] = []
        self._status = 0
        self._fields: list[bytes] = []

    def respond(self, status: int, fields: list[bytes], body: bytes) -> None:
        """A whole answer."""
        self.start(status, fields, len(body), body)
        self.finish()

    def start(self, status: int, fields: list[bytes], length: int | None, first: bytes) -> None:
        """The head and the first piece."""
        del length
        self.started = True
        self._status = status
        self._fields = fields
        if first:
            self.write(first)

    def write(self, data: bytes) -> None:
        """The next piece."""
        self._pieces.append(data)
        if self._on_piece is not None:
            self._on_piece(data)

    def end(self, data: bytes) -> None:
        """The last piece."""
        if self.response_complete:
            return
        if data:
            self.write(data)
        self.finish()

    def finish(self) -> None:
        """The answer is whole."""
        if not self.response_complete:
            self.response_complete = True
            if not self.answered.done():
                self.answered.set_result(None)

    def abort(self) -> None:
        """The answer broke in the middle; what came of it is the answer, and the record says what happened."""
        self.finish()

    def answer(self) -> Answer:
        """What was received."""
        lines = (line.decode("latin-1").partition(":") for field in self._fields for line in field.splitlines())
        headers = {name: value.strip() for name, _, value in lines}
        return Answer(self._status, headers, b"".join(self._pieces), headers.get("x-request-id", ""))


async def call(
    gateway: Gateway,
    principal: Principal,
    target: str,
    headers: Mapping[bytes, bytes],
    body: bytes,
    on_piece: Callable[[bytes], None] | None = None,
    request_id: str | None = None,
) -> Answer:
    """Call ``target`` (path and query) as ``principal`` and give the answer; its record is durable by then.

    ``request_id`` is the id the call gets, for who computes ids; no record may have it yet.

    Must run on the gateway's loop. A fault of the caller is an answer (400 and so on) with a record, as for any
    client; only a path that is no endpoint raises :class:`CallerFault`. Cancelling hangs up, as a client would.
    """
    exchange = InternalExchange(gateway, principal, target, headers, body, on_piece, request_id)
    over = gateway.run(exchange)
    try:
        await asyncio.shield(exchange.answered)
    except asyncio.CancelledError:
        exchange.client_gone()
        raise
    await over
    return exchange.answer()
