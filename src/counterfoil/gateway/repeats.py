"""Idempotency keys: the same key and request give one call to a provider, and the same answer to whoever repeats it.

A request with ``Idempotency-Key`` comes here before its story begins. Its *scope* (team, API key, endpoint and the
key's text) is looked up among the calls under way in this worker, then claimed in the table that all workers share:

::

    under way here                    follow it: what it has sent so far, then the rest as it comes
    claimed, request differs          409 idempotency_conflict
    claimed, no record yet            another worker has it: wait for its record
    claimed, record: answered         the recorded answer again, byte for byte, from the ledger's bodies
                                      (409 idempotency_unavailable when they were not kept, or are gone)
    claimed, record: not served       the claim is taken over, the call runs: nothing was bought before
    claimed, record: end unknown      the same, and header and record say which call may have been paid for already
    not claimed                       the call runs (``keyed``)

Every repeat has a record of its own, which names the first and costs nothing; it keeps no bodies, the first has them.

*Not served* is what no provider took: refused by us, never sent, or answered with an error's status. Such an outcome is
not pinned, because the clients that send keys retry exactly these. *End unknown* is what was sent and has no whole
answer: reset, timeout, broken stream, a crash. Refusing it for the key's lifetime would keep at most one bill a key and
turn every crash into an outage for the client that did everything right; so it runs again and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from counterfoil.capture import policy
from counterfoil.capture.body import Capture
from counterfoil.errors import CallerFault, Fault, GatewayFault, UpstreamFault
from counterfoil.gateway.draft import Draft, record_of
from counterfoil.gateway.exchange import Exchange
from counterfoil.gateway.keyed import Client, Follower, KeyedExchange
from counterfoil.gateway.lines import id_lines, repeat_lines
from counterfoil.gateway.run import IDEMPOTENCY_KEY, Gateway
from counterfoil.ledger.claims import Claims, Held
from counterfoil.ledger.ledger import Ledger
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.settlement import NO_SLOT, Settlement
from counterfoil.record import codec
from counterfoil.record.record import CapturePolicy, Idempotency, Record, strictest
from counterfoil.surfaces.base import Call, Reading, Surface
from counterfoil.wire.multipart import boundary_of

POLL_SECONDS: Final = (0.02, 0.5)
"""How often a call of another worker is looked for: at first, and at last."""

KEY_LENGTH_MAX: Final = 255
_KEY = re.compile(rb"[!-~]{1,255}\Z")
_NO_RETRY: Final = (("x-should-retry", "false"),)
"""What the official SDKs of OpenAI and Anthropic look at before they repeat a 409 by themselves."""

_COST_REASON: Final = "a repeat by idempotency key; the cost is in the record of the first call"
_CAPTURE_HEADER: Final = policy.HEADER.encode()

T = TypeVar("T")


class Outcome(Enum):
    """What a record says of the call that a key stands for."""

    ANSWERED = 1
    NOT_SERVED = 2
    UNKNOWN = 3


class Wish(Struct, frozen=True):
    """A request with a key."""

    key: str
    scope: bytes
    fingerprint: bytes
    body: bytes


class Repeats:
    """The idempotency keys of one worker. Lives on the gateway's loop; table and ledger are read in a thread."""

    def __init__(
        self,
        gateway: Gateway,
        ledger: Ledger,
        reader: LedgerReader,
        claims: Claims,
        now_ms: Callable[[], int],
        wait_seconds: float,
    ) -> None:
        self._gateway = gateway
        self._ledger = ledger
        self._reader = reader
        self._claims = claims
        self._now_ms = now_ms
        self._wait_seconds = wait_seconds
        self._under_way: dict[bytes, KeyedExchange] = {}
        self._claiming: dict[bytes, asyncio.Future[None]] = {}
        self._serving = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: asyncio.Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "idempotency")

    def begin(self, exchange: Exchange) -> asyncio.Task[None]:
        """Serve a request that has an idempotency key, to its last byte."""
        task = asyncio.get_running_loop().create_task(self.serve(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def serve(self, exchange: Exchange) -> None:
        """As :meth:`begin`, in the caller's task."""
        key = exchange.headers[IDEMPOTENCY_KEY]
        if exchange.principal is None or exchange.fault is not None:
            await self._gateway.story(exchange)
            return
        self._serving += 1
        try:
            await self._serve(exchange, key)
        except Fault as fault:
            exchange.listener = None
            exchange.fault = fault
            await self._gateway.story(exchange)
        finally:
            self._serving -= 1
            if self._idle is not None and not self._serving and not self._idle.done():
                self._idle.set_result(None)

    async def close(self) -> None:
        """Wait for what is being served, then close the table. The ledger must still be open."""
        if self._serving:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
        await self._in_thread(self._claims.close)
        self._thread.shutdown()

    # The story of a key.

    async def _serve(self, exchange: Exchange, key: bytes) -> None:
        wish = _wish(exchange, key)
        draft = self._gateway.draft_of(exchange)
        if draft is None:
            raise CallerFault("forbidden")
        asked = exchange.headers.get(_CAPTURE_HEADER)
        if asked is not None:
            draft.policy = strictest(draft.policy, policy.from_header(asked))
        waited = False
        deadline = time.monotonic() + self._wait_seconds
        pause, pause_max = POLL_SECONDS
        while True:
            keyed = self._under_way.get(wish.scope)
            if keyed is not None and not keyed.overflowed:
                _same(wish, keyed.fingerprint, keyed.first_id)
                await self._follow(exchange, draft, wish, keyed)
                return
            claiming = self._claiming.get(wish.scope)
            if claiming is not None:
                await asyncio.wait((claiming,))
                continue
            held = await self._claim(exchange, draft, wish)
            if isinstance(held, KeyedExchange):
                await self._lead(draft, wish, held)
                return
            _same(wish, held.fingerprint, held.request_id)
            record = await self._in_thread(self._record, held.request_id)
            if record is not None:
                if await self._ended(exchange, draft, wish, held, record, waited=waited):
                    return
                continue
            if exchange.disconnected:
                raise CallerFault("client_disconnected")
            if self._gateway.stopping:
                raise GatewayFault("shutting_down")
            if time.monotonic() > deadline:
                raise CallerFault("idempotency_in_progress")
            waited = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, pause_max)

    async def _ended(
        self, exchange: Exchange, draft: Draft, wish: Wish, held: Held, record: Record, *, waited: bool
    ) -> bool:
        """Serve a key whose call has ended; False when somebody else took it over meanwhile."""
        outcome = outcome_of(record)
        if outcome is Outcome.ANSWERED:
            await self._repeat(exchange, draft, wish, record)
            return True
        if waited:  # this request was there while that call ran: its end is the answer to both
            await self._repeat_fault(exchange, draft, wish, record)
            return True
        taken = await self._in_thread(
            self._claims.take_over, wish.scope, held.request_id, draft.request_id, self._now_ms()
        )
        if taken:
            retry_of = held.request_id if outcome is Outcome.UNKNOWN else None
            await self._lead(draft, wish, self._begin(exchange, draft, wish, retry_of))
        return taken

    async def _claim(self, exchange: Exchange, draft: Draft, wish: Wish) -> Held | KeyedExchange:
        """Claim the key: who has it, or the call that may begin. Who comes meanwhile in this worker waits for that."""
        claiming: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._claiming[wish.scope] = claiming
        try:
            now_ms = self._now_ms()
            held = await self._in_thread(self._claims.claim, wish.scope, wish.fingerprint, draft.request_id, now_ms)
            return held or self._begin(exchange, draft, wish, None)
        finally:
            del self._claiming[wish.scope]
            claiming.set_result(None)

    def _begin(self, exchange: Exchange, draft: Draft, wish: Wish, retry_of: str | None) -> KeyedExchange:
        """The one call, ready to run and to be followed; ``exchange`` is its owner."""
        keyed = KeyedExchange(
            exchange,
            wish.body,
            wish.fingerprint,
            draft.request_id,
            Idempotency(key=wish.key, retry_of=retry_of),
            bound=self._gateway.limits.answer_bytes_held,
            kept=draft.policy is CapturePolicy.FULL,
        )
        self._under_way[wish.scope] = keyed
        Client(exchange, keyed)
        return keyed

    async def _lead(self, draft: Draft, wish: Wish, keyed: KeyedExchange) -> None:
        """Run the one call."""
        try:
            await self._gateway.story(keyed)
            if not keyed.disconnected:
                await keyed.over  # the end of the body may come after the record
        finally:
            del self._under_way[wish.scope]
            if not keyed.response_complete:
                keyed.break_off()
        if keyed.listener is None and await self._in_thread(self._record, draft.request_id) is None:
            await self._in_thread(self._claims.release, wish.scope, draft.request_id)

    async def _follow(self, exchange: Exchange, draft: Draft, wish: Wish, keyed: KeyedExchange) -> None:
        """Be a further client of a call under way."""
        follower = Follower(exchange, keyed, draft.request_id)
        await asyncio.wait((keyed.over, follower.gone), return_when=asyncio.FIRST_COMPLETED)
        keyed.clients.discard(follower)
        exchange.listener = None
        if exchange.disconnected:
            await self._settle(exchange, draft, wish, keyed.first_id, None, CallerFault("client_disconnected"))
            return
        first = await self._in_thread(self._record, keyed.first_id)
        fault = _fault_in(first) if first is not None else GatewayFault("ledger_unavailable")
        unrecorded = await self._settle(exchange, draft, wish, keyed.first_id, first, fault, status=keyed.status)
        if unrecorded is None:
            follower.finish()
        elif exchange.started:
            exchange.end(exchange.surface.render_stream_error(unrecorded, draft.request_id))
        else:
            self._gateway.answer_fault(exchange, unrecorded, draft.request_id, [])

    async def _repeat(self, exchange: Exchange, draft: Draft, wish: Wish, first: Record) -> None:
        """Give the recorded answer again."""
        capture = await self._in_thread(self._capture, first.request_id)
        if capture is None:
            message = f"The answer was given, to {first.request_id}, and its body is not kept (any more)."
            raise CallerFault("idempotency_unavailable", message, headers=_NO_RETRY)
        body = await self._in_thread(_delivered, exchange.surface, _call_of(exchange, wish), capture)
        unrecorded = await self._settle(
            exchange, draft, wish, first.request_id, first, None, status=capture.response_status
        )
        if unrecorded is not None:
            self._gateway.answer_fault(exchange, unrecorded, draft.request_id, [])
            return
        content_type = b"content-type: %b\r\n" % capture.response_type.encode()
        fields = [content_type, id_lines(draft.request_id), repeat_lines(first.request_id)]
        exchange.respond(capture.response_status, fields, body)

    async def _repeat_fault(self, exchange: Exchange, draft: Draft, wish: Wish, first: Record) -> None:
        """Give the error again that ended a call in another worker: its code and status, in words of ours."""
        fault = _fault_in(first) or GatewayFault("internal")
        unrecorded = await self._settle(exchange, draft, wish, first.request_id, first, fault)
        lines = [] if unrecorded is not None else [repeat_lines(first.request_id)]
        self._gateway.answer_fault(exchange, unrecorded or fault, draft.request_id, lines)

    async def _settle(
        self,
        exchange: Exchange,
        draft: Draft,
        wish: Wish,
        first_id: str,
        first: Record | None,
        fault: Fault | None,
        *,
        status: int | None = None,
    ) -> Fault | None:
        """Make the record of a repeat durable; give the fault that prevents it."""
        draft.call = _call_of(exchange, wish)
        draft.idempotency = Idempotency(key=wish.key, repeat_of=first_id)
        draft.endpoint = draft.call.endpoint
        if status is None:
            status = fault.status if fault is not None else 200
        reading, now_ns = Reading(complete=False), time.monotonic_ns()
        record = record_of(draft, status=status, fault=fault, relay=None, reading=reading, now_ns=now_ns)
        model_id = first.model_id if first is not None else record.model_id
        record = msgspec.structs.replace(record, model_id=model_id, cost_reason=_COST_REASON)
        counters = self._gateway.counters
        counters.admitted += 1
        try:
            await self._ledger.settle(Settlement(NO_SLOT, record, draft.policy, None, draft.arrived_ms))
        except GatewayFault as unavailable:
            counters.refused += 1
            return unavailable
        return None

    # In the thread.

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _record(self, request_id: str) -> Record | None:
        stored = self._reader.find(None, request_id)
        return None if stored is None else codec.decode(stored.data)

    def _capture(self, request_id: str) -> Capture | None:
        stored = self._reader.find(None, request_id)
        return None if stored is None else self._reader.capture(stored)


def outcome_of(record: Record) -> Outcome:
    """Whether the call of ``record`` was answered, was not served, or ended nobody knows how."""
    if record.success:
        return Outcome.ANSWERED
    if record.error_code in ("gateway:interrupted", "gateway:internal"):
        return Outcome.UNKNOWN
    sent = (attempt.status_code for attempt in record.attempts if attempt.latency_ms is not None)
    return Outcome.UNKNOWN if any(status is None or status < 300 for status in sent) else Outcome.NOT_SERVED


def _wish(exchange: Exchange, key: bytes) -> Wish:
    """Raises :class:`CallerFault` ``invalid_field`` for a text that is no key."""
    body = exchange.body()
    exchange.parts = [body]
    if not _KEY.match(key):
        message = f"An Idempotency-Key is 1 to {KEY_LENGTH_MAX} visible ASCII characters without spaces."
        raise CallerFault("invalid_field", message, param="Idempotency-Key")
    principal = exchange.principal
    whose = (principal.team_id, principal.key_id) if principal is not None else ("", "")
    scope = "\0".join((*whose, exchange.path, exchange.head.query, key.decode("ascii")))
    return Wish(
        key.decode("ascii"), hashlib.sha256(scope.encode()).digest(), fingerprint_of(exchange.headers, body), body
    )


def fingerprint_of(headers: dict[bytes, bytes], body: bytes) -> bytes:
    """SHA-256 of a request. A form's boundary is drawn anew for every try and says nothing, so it is left out."""
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    if content_type.lower().startswith("multipart/"):
        with contextlib.suppress(CallerFault):  # without a boundary it is no form, and refused as such
            body = body.replace(b"--" + boundary_of(content_type), b"--")
    return hashlib.sha256(body).digest()


def _same(wish: Wish, fingerprint: bytes, first_id: str) -> None:
    if wish.fingerprint != fingerprint:
        message = f"This idempotency key was used with a different request, {first_id}."
        raise CallerFault("idempotency_conflict", message, headers=_NO_RETRY)


def _call_of(exchange: Exchange, wish: Wish) -> Call:
    """The call, once more: these bytes were one when the first came with them."""
    return exchange.surface.peek(exchange.head.request(wish.body))


def _delivered(surface: Surface, call: Call, capture: Capture) -> bytes:
    """The bytes that the first client had: a recorded stream passes the meter again, which withholds what it did."""
    if isinstance(capture.response, bytes):
        return capture.response
    meter = surface.meter(call)
    sent: list[bytes] = []
    trailing: list[bytes] = []
    for chunk in capture.response:
        if meter.terminal:
            trailing.append(chunk)
        else:
            sent.append(meter.push(chunk))
    return b"".join((*sent, meter.end(), *trailing))


def _fault_in(record: Record) -> Fault | None:
    """The fault that a record tells of."""
    if record.error_code is None:
        return None
    branch, _, code = record.error_code.partition(":")
    kind = {"user": CallerFault, "upstream": UpstreamFault}.get(branch, GatewayFault)
    status = record.status_code if record.status_code >= 400 else None
    return kind(code if code in kind.kinds else "error", record.error_message, status=status)
