"""The one call behind an idempotency key, and the clients that wait for its answer.

A call with a key belongs to the key and not to a connection: it runs to its end whoever leaves, because whoever left
may come back for the answer. So the story (``run``) gets a :class:`KeyedExchange`, whose client is this process, and
what it is told to send goes on to those who are there:

- the *owner*, the client that came first, gets exactly what it would have had without a key, as it comes;
- a *follower*, who came with the same key and request while the call was under way, gets what there is so far and
  then the rest as it comes, but for the *last*, which waits for the follower's own record: what the story lets go when
  the call's record is durable, in one piece with the end of the answer or in several before it.

What has been sent is held for later followers up to a bound. Beyond it nobody may join any more, and from then on the
slowest client sets the pace, as it does for any other call; below it a slow client costs no more than the bound.
"""

from __future__ import annotations

import asyncio

from counterfoil.gateway.exchange import Exchange
from counterfoil.gateway.lines import id_lines, repeat_lines
from counterfoil.record.record import Idempotency

RETRY_OF = b"x-counterfoil-retry-of: %b\r\n"
_OF_THE_FIRST = (
    b"x-request-id:",
    b"request-id:",
    b"x-generation-id:",
    b"x-cost-nanos:",
    b"x-cost-state:",
    b"server-timing:",
)


class KeyedExchange(Exchange):
    """The exchange of the one call. ``over`` is done when its answer is out, or broken (then its result is False)."""

    __slots__ = (
        "_bound",
        "_kept",
        "_paused",
        "_released",
        "_retry_of",
        "clients",
        "cut",
        "fields",
        "fingerprint",
        "first_id",
        "held_bytes",
        "idempotency",
        "last",
        "length",
        "over",
        "overflowed",
        "pieces",
        "request_id",
        "slow",
        "status",
        "whole",
    )

    def __init__(
        self,
        first: Exchange,
        body: bytes,
        fingerprint: bytes,
        request_id: str,
        idempotency: Idempotency,
        *,
        bound: int,
        kept: bool,
    ) -> None:
        """The call that ``first`` asks for. ``kept`` says whether its answer will be there for repeats."""
        super().__init__(
            None,
            first.head,
            first.arrived_ms,
            first.arrived_ns,
        )
        self.principal = first.principal
        self.parts = [body]
        self.complete_body = True
        self.fingerprint = fingerprint
        self.request_id = request_id
        self.first_id = request_id
        self.idempotency = idempotency
        self._retry_of = idempotency.retry_of
        self.over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.clients: set[Client] = set()
        self.slow: set[Client] = set()
        self.status = 0
        self.fields: list[bytes] = []
        self.length: int | None = None
        self.pieces: list[bytes] = []
        self.last = b""
        self.held_bytes = 0
        self.overflowed = False
        self.cut = False  # more came behind the end of the answer than is held for followers
        self.whole = False  # the answer came in one piece: it is ``last``
        self._bound = bound
        self._kept = kept
        self._paused = False
        self._released = False

    # From the story.

    def respond(self, status: int, fields: list[bytes], body: bytes) -> None:
        """A whole answer."""
        self._head(status, fields, len(body))
        self.whole = True
        self.last = body
        for client in list(self.clients):
            client.on_respond(body)
        self._close(True)

    def start(self, status: int, fields: list[bytes], length: int | None, first: bytes) -> None:
        """The head and the first piece."""
        self._head(status, fields, length)
        now, last = (b"", first) if self._released else (first, b"")
        for client in list(self.clients):
            client.on_start(now)
        self._hold(now)
        if last:
            self._write_last(last)

    def write(self, data: bytes) -> None:
        """The next piece."""
        if self._released:
            self._write_last(data)
            return
        for client in list(self.clients):
            client.on_piece(data)
        self._hold(data)

    def release(self) -> None:
        """What is written from now on is the followers' last."""
        self._released = True

    def end(self, data: bytes) -> None:
        """The last piece."""
        if self.response_complete:
            return
        self.last += data
        for client in list(self.clients):
            client.on_end(data)
        self._close(True)

    def finish(self) -> None:
        """The answer is out."""
        self._close(True)

    def abort(self) -> None:
        """The answer broke; or it is held up by clients that do not read, and then it is they who are cut off."""
        if self._paused:
            for client in list(self.slow):
                client.exchange.abort()
            return
        self.break_off()

    def break_off(self) -> None:
        """Nothing more comes."""
        for client in list(self.clients):
            client.on_broken()
        self._close(False)

    # From the clients.

    def leave(self, client: Client) -> None:
        """``client`` is gone. An answer that is not kept, and that nobody waits for, is a call like any other."""
        self.clients.discard(client)
        self.slow.discard(client)
        self._pace()
        if not self.clients and not self._kept and not self.response_complete:
            self.client_gone()

    def hear(self, client: Client, *, slow: bool) -> None:
        """``client`` reads slowly, or reads again."""
        (self.slow.add if slow else self.slow.discard)(client)
        self._pace()

    def _head(self, status: int, fields: list[bytes], length: int | None) -> None:
        self.started = True
        if self._retry_of is not None:
            fields = [*fields, RETRY_OF % self._retry_of.encode()]
        self.status, self.fields, self.length = status, fields, length

    def _write_last(self, data: bytes) -> None:
        for client in list(self.clients):
            client.on_last(data)
        self.cut = self.cut or len(self.last) + len(data) > self._bound
        if not self.cut:
            self.last += data

    def _hold(self, data: bytes) -> None:
        self.held_bytes += len(data)
        if self.overflowed:
            return
        if self.held_bytes > self._bound:
            self.overflowed = True
            self.pieces = []
            self._pace()
        elif data:
            self.pieces.append(data)

    def _pace(self) -> None:
        pause = self.overflowed and bool(self.slow)
        if pause != self._paused and self.listener is not None and not self.response_complete:
            self._paused = pause
            (self.listener.on_client_slow if pause else self.listener.on_client_ready)()

    def _close(self, good: bool) -> None:  # noqa: FBT001  # the outcome itself
        self.response_complete = True
        if not self.over.done():
            self.over.set_result(good)


class Client:
    """One client of a keyed exchange. This one is the owner, who gets everything as it is."""

    def __init__(self, exchange: Exchange, keyed: KeyedExchange) -> None:
        self.exchange = exchange
        self.keyed = keyed
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        keyed.clients.add(self)
        exchange.listener = self
        if exchange.disconnected:
            self.on_client_gone()

    # The answer.

    def on_respond(self, body: bytes) -> None:
        self.exchange.respond(self.keyed.status, self.keyed.fields, body)

    def on_start(self, first: bytes) -> None:
        self.exchange.start(self.keyed.status, self.keyed.fields, self.keyed.length, first)

    def on_piece(self, data: bytes) -> None:
        self.exchange.write(data)

    def on_last(self, data: bytes) -> None:
        self.exchange.write(data)

    def on_end(self, data: bytes) -> None:
        self.exchange.end(data)

    def on_broken(self) -> None:
        self.exchange.abort()

    # The connection (``exchange.Listener``).

    def on_client_gone(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)
        self.keyed.leave(self)

    def on_client_slow(self) -> None:
        self.keyed.hear(self, slow=True)

    def on_client_ready(self) -> None:
        self.keyed.hear(self, slow=False)


class Follower(Client):
    """A client that came later with the same request. What is last of the answer waits for :meth:`finish`."""

    def __init__(self, exchange: Exchange, keyed: KeyedExchange, request_id: str) -> None:
        self._request_id = request_id
        super().__init__(exchange, keyed)
        if keyed.started and not keyed.whole:
            self.on_start(b"".join(keyed.pieces))

    def on_respond(self, body: bytes) -> None:
        del body

    def on_start(self, first: bytes) -> None:
        self.exchange.start(self.keyed.status, self._fields(), self.keyed.length, first)

    def on_last(self, data: bytes) -> None:
        del data

    def on_end(self, data: bytes) -> None:
        del data

    def on_broken(self) -> None:
        return

    def finish(self) -> None:
        """The record is durable: the rest of the answer, and its end."""
        if not self.keyed.over.result() or self.keyed.cut:
            self.exchange.abort()
        elif self.keyed.whole:
            self.exchange.respond(self.keyed.status, self._fields(), self.keyed.last)
        else:
            self.exchange.end(self.keyed.last)

    def _fields(self) -> list[bytes]:
        lines = b"".join(self.keyed.fields).splitlines(keepends=True)
        kept = [line for line in lines if not line.lower().startswith(_OF_THE_FIRST)]
        return [*kept, id_lines(self._request_id), repeat_lines(self.keyed.first_id)]
