"""One attempt's answer on its way to the client: callbacks that move bytes.

A relay takes one of three ways, chosen by the head of the answer:

- *stream* (an event stream): each piece goes to the client as it comes, past the meter, which keeps the terminal frame
  back and withholds what only we asked for. The head leaves together with the first piece, so a provider that breaks
  before it can still be replaced.
- *held* (everything else of reasonable size, every error): kept whole until the record is durable.
- *passing* (audio, and answers too large to hold): each piece leaves when the next one comes, so the last one is
  always here to wait for the commit.

:attr:`Relay.done` resolves exactly once, when the attempt is over in the eyes of the record: the terminal frame or the
end of the answer is here, or it failed, or the client left and policy says not to wait. Then the story settles, and
:meth:`Relay.release` lets the rest go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from counterfoil.errors import CallerFault, Fault, UpstreamFault
from counterfoil.gateway.exchange import Exchange
from counterfoil.gateway.inflate import Inflater
from counterfoil.gateway.steps import Signal
from counterfoil.gateway.upstream.connection import Receiver
from counterfoil.providers.provider import Provider
from counterfoil.surfaces.base import Call, Meter, Reading
from counterfoil.wire.http1 import HOP_BY_HOP

SECOND_NS = 1_000_000_000
TERMINAL_GRACE_SECONDS = 0.005
"""How long the end of the HTTP body may lag behind the terminal frame before the record is settled without it."""

TRAILING_GRACE_NS = 2 * SECOND_NS
"""How long a provider may keep a finished stream open before the client's answer is ended without it."""

TRAILING_PIECES_MAX = 64
"""Pieces, of at most 256 KiB, that are held behind the end marker until the record is durable. A provider that has more
to say after the end is hung up on."""

_DROPPED = HOP_BY_HOP | {
    b"content-length",
    b"content-encoding",
    b"set-cookie",
    b"alt-svc",
    b"strict-transport-security",
}
PLAYBACK_OF = b":playback-of"
"""The field in which a player names the generation it plays: no header of a provider can have a colon in its name."""

_RENAMED = {
    PLAYBACK_OF: b"x-counterfoil-playback-of",
    b"x-counterfoil-playback-of": b"x-upstream-playback-of",
    b"x-request-id": b"x-upstream-request-id",
    b"request-id": b"x-upstream-request-id",
    b"x-generation-id": b"x-upstream-generation-id",  # other gateways, this one among them, name theirs alike
    b"x-cost-nanos": b"x-upstream-cost-nanos",
    b"x-cost-state": b"x-upstream-cost-state",
    b"server-timing": b"x-upstream-server-timing",
    b"idempotent-replayed": b"x-upstream-idempotent-replayed",
    b"x-counterfoil-repeat-of": b"x-upstream-repeat-of",
    b"x-counterfoil-retry-of": b"x-upstream-retry-of",
}
_NAMES_MAX = 2048
_names: dict[bytes, tuple[bytes, bytes]] = {}
"""What each header name seen means to us (itself in lower case, or nothing), and the beginning of its line for the
client (empty when it is dropped). Bounded by _NAMES_MAX."""

_TELLING = frozenset({b"content-type", b"content-length", b"content-encoding"})


class Sender(Protocol):
    """What answers a relay: a connection to a provider, or the player of a recording."""

    def send(self, receiver: Receiver, head: bytes, body: bytes) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def detach(self) -> None: ...


class Way(Enum):
    """How the answer travels."""

    STREAM = 1
    HELD = 2
    PASSING = 3


def _meaning(name: bytes) -> tuple[bytes, bytes]:
    """The entry of ``_names`` for a name seen for the first time."""
    lower = name.lower()
    start = b"" if lower in _DROPPED else _RENAMED.get(lower, lower) + b": "
    meaning = lower if lower in _TELLING else b"", start
    if len(_names) < _NAMES_MAX:
        _names[name] = meaning
    return meaning


def _no_lines(_: int) -> list[bytes]:
    return []


class Relay:
    """Receives one answer (see ``upstream.connection.Receiver``) and listens to its client (``exchange.Listener``)."""

    __slots__ = (
        "_capture_max",
        "_connection",
        "_ended",
        "_endings",
        "_flows",
        "_held_max",
        "_inflater",
        "_left_ns",
        "_length",
        "_lines",
        "_loop",
        "_paused_ns",
        "_reading",
        "_released",
        "_rest",
        "_sent",
        "_tail",
        "_trailing",
        "begun",
        "call",
        "chunks",
        "content_type",
        "dispatched_ns",
        "done",
        "end_ns",
        "exchange",
        "fault",
        "fields",
        "finish_ns",
        "first_byte_ns",
        "first_lines",
        "keeps",
        "last_ns",
        "left_after",
        "media_type",
        "meter",
        "offsets_us",
        "output_ns",
        "provider",
        "size",
        "status",
        "too_large",
        "way",
    )

    def __init__(
        self,
        exchange: Exchange,
        call: Call,
        provider: Provider,
        loop: asyncio.AbstractEventLoop,
        *,
        keeps: bool,
        held_max: int,
        capture_max: int,
    ) -> None:
        self.exchange = exchange
        self.call = call
        self.meter: Meter = exchange.surface.meter(call)
        self.provider = provider
        self.done = Signal()
        self._loop = loop
        self.keeps = keeps
        self._held_max = held_max
        self._capture_max = capture_max
        self.way = Way.HELD
        self.status = 0
        self.fields: list[tuple[bytes, bytes]] = []
        self._lines: list[bytes] = []  # the provider's header lines that the client gets
        self.first_lines: Callable[[int], list[bytes]] = _no_lines  # ours; given the ns until the first byte
        self.content_type = b""  # in lower case
        self.media_type = b""  # as it came
        self.chunks: list[bytes] = []
        self.offsets_us: list[int] = []
        self.begun = False
        self._left_ns = 0  # when its client left an answer that is read to its end
        self._sent = 0
        self.left_after: int | None = None  # bytes of the body that a client which left had been sent
        self.too_large = False
        self.fault: Fault | None = None
        self.dispatched_ns = 0
        self.first_byte_ns = 0
        self.output_ns = 0
        self.last_ns = 0
        self.end_ns = 0  # of the answer
        self.finish_ns = 0  # of its output, where the protocol says so before the answer ends
        self._endings = 0
        self._connection: Sender | None = None
        self._inflater: Inflater | None = None
        self._length: int | None = None
        self.size = 0
        self._tail = b""
        self._rest = b""
        self._trailing: list[bytes] = []
        self._reading: Reading | None = None
        self._ended = False
        self._flows = False  # in the middle of a stream
        self._released = False
        self._paused_ns = 0

    def dispatch(self, connection: Sender, head: bytes, body: bytes, now_ns: int) -> None:
        """Send the request; from here on the answer, or its failure, arrives by callback."""
        self._connection = connection
        self.dispatched_ns = self.last_ns = now_ns
        self.exchange.listener = self
        connection.send(self, head, body)

    # The answer, from the connection.

    def on_head(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.fields = fields
        coding = b""
        lines, names = self._lines, _names
        for name, value in fields:
            telling, start = names.get(name) or _meaning(name)
            if start:
                lines.append(b"%b%b\r\n" % (start, value))
            if telling:
                if telling == b"content-type":
                    self.media_type = value
                    self.content_type = value.lower()
                elif telling == b"content-length":
                    self._length = int(value) if value.isdigit() else None
                else:
                    coding = value.strip().lower()
        if coding and coding != b"identity":
            self._length = None
            try:
                self._inflater = Inflater(coding)
            except Fault as fault:
                self._give_up(fault)
                return
        self.way = self._choose(status)

    def on_body(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.last_ns = now
        if self._flows:
            self._on_flow(data, now)
            return
        if not self.first_byte_ns:
            self.first_byte_ns = now
        if self._inflater is not None:
            try:
                data = self._inflater.feed(data)
            except Fault as fault:
                self._give_up(fault)
                return
            if not data:
                return
        if self.way is Way.STREAM:
            self._on_frames(data, now)
        else:
            self._on_piece(data)

    def on_end(self) -> None:
        self._ended = True
        if self._released:
            self.exchange.end(b"")
        elif not self.done.happened:
            cut = self._inflater is not None and not self._inflater.whole
            self._resolve(UpstreamFault("truncated") if cut else None)

    def on_fault(self, fault: Fault) -> None:
        self._ended = True
        if self._released:
            self.exchange.end(b"")
        elif self.way is Way.STREAM and self.meter.terminal:
            self._resolve(None)  # the answer was whole; only its connection was not
        else:
            self._resolve(fault)

    # The client, from the exchange.

    def on_client_gone(self) -> None:
        self.left_after = self._sent
        connection = self._connection
        if self.done.happened:
            if self._released and connection is not None and not self._ended:
                connection.detach()
            return
        if self.provider.drains and self.dispatched_ns:
            self._left_ns = time.monotonic_ns()
            if self._paused_ns:
                self.on_client_ready()
            return
        if connection is not None:
            connection.detach()
        self._resolve(CallerFault("client_disconnected"))

    def on_client_slow(self) -> None:
        if self._connection is not None and not self._ended:
            self._paused_ns = time.monotonic_ns()
            self._connection.pause()

    def on_client_ready(self) -> None:
        if self._connection is not None and not self._ended:
            self._paused_ns = 0
            self.last_ns = time.monotonic_ns()
            self._connection.resume()

    @property
    def over(self) -> bool:
        """Whether nothing will happen to this answer any more."""
        return self.done.happened and (self._ended or self.exchange.disconnected or self.exchange.response_complete)

    # Time, from the sweep.

    def check(self, now_ns: int) -> None:
        """Act on a deadline that has passed."""
        if self._ended or not self.dispatched_ns:
            return
        if self._released:
            if now_ns - self.end_ns > TRAILING_GRACE_NS:
                self._detach()
                self.exchange.end(b"")
            return
        if self.done.happened:
            return
        timeouts = self.provider.timeouts
        if self._left_ns and now_ns - self._left_ns > self.provider.drain_seconds * SECOND_NS:
            self._give_up(CallerFault("client_disconnected"))
        elif self._paused_ns:
            if now_ns - self._paused_ns > timeouts.idle_seconds * SECOND_NS:
                self.exchange.abort()
        elif now_ns - self.dispatched_ns > timeouts.total_seconds * SECOND_NS:
            self._give_up(UpstreamFault("timeout", "The provider's answer took longer than allowed."))
        elif not self.first_byte_ns:
            if now_ns - self.dispatched_ns > timeouts.first_byte_seconds * SECOND_NS:
                self._give_up(UpstreamFault("timeout"))
        elif now_ns - self.last_ns > timeouts.idle_seconds * SECOND_NS:
            self._give_up(UpstreamFault("idle_timeout"))

    # The end, from the story.

    def reading(self) -> Reading:
        """What the meter knows once :attr:`done` is; a held or passed answer is shown to it here, once."""
        if self._reading is None:
            if self.way is Way.STREAM:
                self._rest = self.meter.end()
            elif self.status:
                self.meter.whole(self.status, self.body())
            self._reading = self.meter.reading()
        return self._reading

    def body(self) -> bytes:
        """The whole body of a held or passed answer, as far as it was kept."""
        if len(self.chunks) > 1:
            self.chunks = [b"".join(self.chunks)]
        return self.chunks[0] if self.chunks else b""

    def release(self, lines: list[bytes]) -> None:
        """The record is durable: let the rest of a good answer go. ``lines`` are ours, for a head not yet written."""
        exchange = self.exchange
        if exchange.disconnected:
            if not self._ended:
                self._detach()
            return
        if self.way is Way.HELD:
            exchange.respond(self.status, self._lines + lines, self.body())
            return
        rest = self._tail if self.way is Way.PASSING else b"".join((self._rest, *self._trailing))
        if self._ended:
            if self.begun:
                exchange.end(rest)
            else:
                exchange.respond(self.status, self._lines + lines, rest)
            return
        self._released = True
        exchange.release()
        if rest:
            self._send(rest)

    def break_off(self, frame: bytes) -> None:
        """The attempt failed after the answer began: an error frame ends a stream, nothing honest ends other bodies."""
        if self.way is Way.STREAM:
            self.exchange.end(frame)
        else:
            self.exchange.abort()

    # Inside.

    def _choose(self, status: int) -> Way:
        if status >= 300 or (self.content_type == b"application/json" and not self.call.stream):
            return Way.HELD
        if self.exchange.surface.streams(self.call, self.content_type.decode("latin-1")):
            return Way.STREAM
        if self.content_type.startswith(b"audio/"):
            return Way.PASSING
        return Way.HELD

    def _on_frames(self, data: bytes, now: int) -> None:
        if self._released:
            self._send(data)
            return
        if self.keeps:
            self._keep(data)
            self.offsets_us.append((now - self.dispatched_ns) // 1000)
        meter = self.meter
        if meter.terminal or self.done.happened:
            self._trailing.append(data)
            if len(self._trailing) == TRAILING_PIECES_MAX:
                self._give_up(None)
            return
        out = meter.push(data)
        if not self.output_ns and meter.output_seen:
            self.output_ns = now
        if out:
            self._send(out)
        if meter.endings != self._endings:
            self._on_ending(now)
        if not meter.terminal:
            self._flows = self._inflater is None and self.begun and self.output_ns != 0

    def _on_flow(self, data: bytes, now: int) -> None:
        """A piece from the middle of a stream: what :meth:`_on_frames` does when nothing is left to find out."""
        if self.keeps and not self.too_large:
            self.size = size = self.size + len(data)
            if size > self._capture_max:
                self._drop()
            else:
                self.chunks.append(data)
                self.offsets_us.append((now - self.dispatched_ns) // 1000)
        meter = self.meter
        out = meter.push(data)
        if out:
            self._sent += len(out)
            self.exchange.write(out)
        if meter.endings != self._endings:
            self._on_ending(now)

    def _on_ending(self, now: int) -> None:
        """A finish reason has come, the terminal frame, or both."""
        meter = self.meter
        seen, self._endings = self._endings, meter.endings
        if not meter.terminal:
            self.finish_ns = now
            return
        if meter.endings > seen + 1:
            self.finish_ns = now
        self._on_terminal(now)

    def _on_terminal(self, now: int) -> None:
        """The terminal frame is here and kept back."""
        self._flows = False
        self.end_ns = now
        self._loop.call_later(TERMINAL_GRACE_SECONDS, self._settle_without_the_end)

    def _on_piece(self, data: bytes) -> None:
        if self.way is Way.HELD:
            self.chunks.append(data)
            self.size += len(data)
            if self.size > self._held_max:
                if self.status >= 300:
                    self.chunks = []
                    self._give_up(UpstreamFault("response_too_large", "The provider's error has no end in sight."))
                    return
                self.way = Way.PASSING
                self._tail = self.chunks[-1]
                self._send(b"".join(self.chunks[:-1]))
            return
        self._keep(data)
        if self._tail:
            self._send(self._tail)
        self._tail = data

    def _keep(self, data: bytes) -> None:
        """Keep ``data`` for the meter and the capture, within the capture's bound."""
        if self.too_large:
            return
        self.size += len(data)
        if self.size > self._capture_max:
            self._drop()
        else:
            self.chunks.append(data)

    def _drop(self) -> None:
        """The answer is too large to keep; of a stream without end not even the times of its pieces are."""
        self.too_large = True
        self.keeps = False
        self.chunks = []
        self.offsets_us = []

    def _send(self, data: bytes) -> None:
        self._sent += len(data)
        if self.begun:
            self.exchange.write(data)
            return
        self.begun = True
        length = self._length if self.way is Way.PASSING else None
        lines = [*self._lines, *self.first_lines(self.first_byte_ns - self.dispatched_ns)]
        self.exchange.start(self.status, lines, length, data)

    def _settle_without_the_end(self) -> None:
        if not self.done.happened:
            self._resolve(None)

    def _give_up(self, fault: Fault | None) -> None:
        """Hang up on the provider; with what there is the answer has failed, or is whole."""
        self._detach()
        self._resolve(fault)

    def _detach(self) -> None:
        self._ended = True
        if self._connection is not None:
            self._connection.detach()

    def _resolve(self, fault: Fault | None) -> None:
        if self.done.happened:
            return
        if self.exchange.disconnected and (fault is None or fault.branch == "upstream"):
            # Whatever the provider did to an answer that nobody waited for any more: the client left first.
            after = None if fault is None else f"The client left; reading on for the usage, {fault.code}."
            fault = CallerFault("client_disconnected", after)
        self.fault = fault
        self._flows = False
        if not self.end_ns:
            self.end_ns = time.monotonic_ns()
        self.done.set_result(None)
