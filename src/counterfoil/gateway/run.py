"""The story of a call, from a complete request to a durable record. Read :meth:`Gateway.run` first.

::

    admit     key, surface, model, plan of targets            faults here are the caller's
    intend    a note in the journal, before anything is sent   from here on the call has a record, whatever dies
    attempt   one target after the other, until one answers    each try is noted
    settle    usage → lines → record → durable                 every exit comes through here
    release   the held answer, or the terminal frame           the client's last byte

The coroutine waits for three things only: a new connection when none is pooled, the end of an attempt, and the commit.
Bytes move by callback in between (``relay``). No exit skips the settlement: faults are values, and an exception that
nobody expected still becomes a record, in :meth:`Gateway._broke`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from counterfoil.capture import policy
from counterfoil.config.model import Limits
from counterfoil.errors import CallerFault, Fault, GatewayFault
from counterfoil.gateway.attribution import SESSION_ID_LENGTH_MAX
from counterfoil.gateway.draft import Draft, attempt_of, intent_of, record_of
from counterfoil.gateway.estimate import Estimator
from counterfoil.gateway.exchange import Exchange
from counterfoil.gateway.lines import first_lines, id_lines, last_lines, limit_lines, refusal_lines
from counterfoil.gateway.outcome import captured, client_status, fault_in, unreadable
from counterfoil.gateway.parts import Bookkeeper, Doorkeeper
from counterfoil.gateway.playback import HEADER as PLAYBACK_HEADER
from counterfoil.gateway.playback import PLAYER, Playback, missed, mode_of
from counterfoil.gateway.relay import Relay
from counterfoil.gateway.server import ServerProtocol
from counterfoil.gateway.steps import Signal, follow
from counterfoil.gateway.upstream.connection import UpstreamConnection
from counterfoil.gateway.upstream.guard import Guard
from counterfoil.gateway.upstream.pool import Pool
from counterfoil.ledger.settlement import NO_SLOT, Settlement
from counterfoil.pricing.book import PriceBook
from counterfoil.providers.addresses import TeamAddresses
from counterfoil.providers.provider import Provider, TeamProviders
from counterfoil.record.charge import PLAYED, Charge
from counterfoil.record.ids import IdSource
from counterfoil.record.record import CapturePolicy, CaptureState, Record, strictest
from counterfoil.record.usage import UsageSource
from counterfoil.routing.plan import Routes, Target
from counterfoil.surfaces.base import Call, Reading, Surface
from counterfoil.tenancy.names import ALL_TEAMS
from counterfoil.tenancy.principal import KeyRefused

if TYPE_CHECKING:
    from counterfoil.gateway.repeats import Repeats

SWEEP_SECONDS = 0.2
"""How often deadlines are looked at: the precision of every timeout, and far below any that makes sense."""

IDEMPOTENCY_KEY: Final = b"idempotency-key"

_UNSEEN: Any = object()
_NOTHING_READ = Reading(complete=False)

PATHS_MAX = 4096
"""Paths whose surface is remembered. Gemini's hold the model's name, so they come from clients: bounded."""


class Counters(Struct):
    """What this worker counted since it started. Calls that were admitted are recorded, refused or in flight.

    ``refused`` counts calls whose record the ledger could not take; the ``unrecorded`` and ``rejected`` were never
    admitted.
    """

    admitted: int = 0
    refused: int = 0
    unrecorded: int = 0  # no valid key: answered, not recorded
    rejected: int = 0  # bytes that were no request
    crashed: int = 0


class Parts(Struct, frozen=True):
    """What the gateway is made of. ``surface_of`` finds a surface by path; ``is_control`` knows the ASGI routes."""

    ledger: Bookkeeper
    directory: Doorkeeper
    routes: Routes
    book: Callable[[], PriceBook]
    ids: IdSource
    limits: Limits
    capture_default: CapturePolicy
    capture_bytes_max: int
    find_surface: Callable[[str], Surface | None]
    unknown_surface: Callable[[str], Surface]
    is_control: Callable[[str], bool]
    team_addresses: TeamAddresses = TeamAddresses()
    team_ca_file: str | None = None
    playback: Playback | None = None
    estimator: Estimator | None = None


class Gateway:
    """One worker's hot path. Lives on its event loop; nothing here is called from another thread."""

    def __init__(self, parts: Parts, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = parts.limits
        self.fallback_surface = parts.unknown_surface("/")
        self.authenticate = parts.directory.authenticate
        self.counters = Counters()
        self.stopping = False
        self.repeats: Repeats | None = None
        self.pool = Pool(loop, loop.time, Guard(parts.team_addresses, loop.getaddrinfo))
        self._parts = parts
        self._loop = loop
        self._relays: set[Relay] = set()
        self._running: dict[Exchange, Draft] = {}
        self._connections: set[ServerProtocol] = set()
        self._per_client: dict[str, int] = {}
        self._paths: dict[bytes, Surface | None] = {}
        self._at_team_address = TeamProviders(parts.team_ca_file).at
        self._sweeper: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None  # while stopping: resolves when the last story ends

    # The story.

    def begin(self, exchange: Exchange) -> None:
        """Serve one request, from admission to its last byte."""
        if IDEMPOTENCY_KEY in exchange.headers and self.repeats is not None:
            self.repeats.begin(exchange)
        else:
            follow(self._story(exchange))

    def run(self, exchange: Exchange) -> asyncio.Future[None]:
        """As :meth:`begin`; done when the story has ended."""
        if IDEMPOTENCY_KEY in exchange.headers and self.repeats is not None:
            return self.repeats.begin(exchange)
        return self.story(exchange)

    def story(self, exchange: Exchange) -> asyncio.Future[None]:
        """Serve one request, whatever its key stands for; done at its end."""
        over: asyncio.Future[None] = self._loop.create_future()
        follow(self._story(exchange), over)
        return over

    async def _story(self, exchange: Exchange) -> None:
        draft = self.draft_of(exchange)
        if draft is None:
            self._turn_away(exchange)
            return
        self._running[exchange] = draft
        self.counters.admitted += 1
        ended = False
        try:
            try:
                call, plan = self._admit(exchange, draft)
                relay = await (self._attempt if plan else self._play)(exchange, draft, call, plan)
            except Fault as fault:
                await self._settle_refusal(exchange, draft, fault)
            else:
                await self._settle_answer(exchange, draft, relay)
            ended = True
        finally:
            del self._running[exchange]
            if not ended:
                self._broke(exchange, draft)
            if self._idle is not None and not self._running and not self._idle.done():
                self._idle.set_result(None)

    def _broke(self, exchange: Exchange, draft: Draft) -> None:
        """A story ended in an exception of ours: record it, answer it, and let the exception go on to the log."""
        self.counters.crashed += 1
        fault = GatewayFault("internal")
        if isinstance(exchange.listener, Relay):
            exchange.listener.on_client_gone()
        record = self._refusal_record(exchange, draft, fault)
        self._durable(self._settlement(draft, record, None))  # waited for by nobody: the ledger logs what fails
        if exchange.started:
            exchange.abort()
        else:
            self.answer_fault(exchange, fault, draft.request_id, [])

    def _admit(self, exchange: Exchange, draft: Draft) -> tuple[Call, tuple[Target, ...]]:
        """What is asked, and who may serve it: nobody (yet) when a recording may answer.

        Raises the caller's fault, or ours when we are full.
        """
        if exchange.fault is not None:
            raise exchange.fault
        head = exchange.head
        if head.capture is not None:
            draft.policy = strictest(draft.policy, policy.from_header(head.capture))
        surface = exchange.surface
        request = head.request(exchange.body())
        try:
            call = surface.peek(request)
        except CallerFault:
            draft.call = surface.refused(request)
            draft.endpoint = draft.call.endpoint
            raise
        draft.call = call
        draft.endpoint = call.endpoint
        draft.session_id = head.session if call.session_id is None else call.session_id[:SESSION_ID_LENGTH_MAX]
        principal = exchange.principal
        if PLAYBACK_HEADER in exchange.headers or (principal is not None and principal.playback is not None):
            draft.playback = mode_of(principal, exchange.headers)
        plan = self._plan(draft, call, surface) if draft.playback is None else ()
        if len(self._running) > self.limits.in_flight:
            raise GatewayFault("overloaded")
        if self.stopping:
            raise GatewayFault("shutting_down")
        return call, plan

    def _plan(self, draft: Draft, call: Call, surface: Surface) -> tuple[Target, ...]:
        plan = self._parts.routes.plan(call.model, surface.name)
        draft.target = plan[0]
        return plan

    async def _play(self, exchange: Exchange, draft: Draft, call: Call, plan: tuple[Target, ...]) -> Relay:
        """Let a recording answer; the provider, when there is none and the caller only prefers one."""
        playback, principal, mode = self._parts.playback, exchange.principal, draft.playback
        if playback is None or principal is None or mode is None:
            raise missed(None)
        recording = await playback.find(principal, draft.session_id, exchange.headers, call, mode)
        if exchange.disconnected:
            raise CallerFault("client_disconnected")
        if recording is None:
            return await self._attempt(exchange, draft, call, self._plan(draft, call, exchange.surface))
        relay = self._relay(exchange, draft, call, PLAYER)
        player = playback.player(recording, exchange.headers)
        draft.target = Target(PLAYER, recording.model_id.partition("/")[2], recording.model_id)
        draft.playback_of = recording.generation_id
        draft.charges.append(PLAYED)
        now = time.monotonic_ns()
        relay.first_lines = partial(first_lines, draft, now)
        self._relays.add(relay)
        relay.dispatch(player, b"", b"", now)
        await relay.done
        return relay

    async def _attempt(self, exchange: Exchange, draft: Draft, call: Call, plan: tuple[Target, ...]) -> Relay:
        """Try the targets in turn; give the relay of the one that answered, or of the last that failed.

        Raises the last fault when no target was ever reached.
        """
        last = plan[-1]
        for target in plan:
            draft.target = target
            try:
                relay = await self._try(exchange, draft, call, target)
            except GatewayFault:
                raise  # it is we who cannot: no provider was tried, and none will do
            except Fault as fault:
                draft.attempts.append(attempt_of(draft, target, fault=fault))
                if target is last or not fault.retryable or exchange.disconnected:
                    raise
                continue
            if self._parts.estimator is not None and self._parts.estimator.wanted(call, relay):
                await self._parts.estimator.complete(call, target.model, relay)
            fault = fault_in(relay)
            self._note_attempt(draft, target, relay, fault)
            if fault is None or target is last or not fault.retryable or relay.begun or exchange.disconnected:
                return relay
            self._forget(relay)
        raise AssertionError("a plan is never empty")

    async def _try(self, exchange: Exchange, draft: Draft, call: Call, target: Target) -> Relay:
        """One attempt at one target, to its end. Raises a fault only when nothing was sent."""
        provider, credential = target.provider, target.provider.credential
        own = exchange.principal.provider_key(provider.name) if exchange.principal is not None else None
        draft.byok = own is not None
        if own is not None:
            credential = provider.credential_of(own.secret)
            if own.base_url is not None:
                provider = self._at_team_address(provider, own.base_url)
        outgoing = exchange.surface.prepare(call, target.model)
        lines = exchange.head.lines_for(provider, credential, outgoing.path, outgoing.content_type)
        connection = self.pool.take(provider) or await self._connect(provider)
        if exchange.disconnected:
            connection.abort()
            raise CallerFault("client_disconnected")
        relay = self._relay(exchange, draft, call, provider)
        if draft.slot == NO_SLOT:
            self._intend(draft, call, target)
        now = time.monotonic_ns()
        relay.first_lines = partial(first_lines, draft, now)
        self._relays.add(relay)
        relay.dispatch(connection, b"%b%d\r\n\r\n" % (lines, len(outgoing.body)), outgoing.body, now)
        await relay.done
        return relay

    def _connect(self, provider: Provider) -> asyncio.Future[UpstreamConnection]:
        """A new connection. In a task of its own: it has a time limit, and a story is no task."""
        return self._loop.create_task(self.pool.connect(provider))

    def _relay(self, exchange: Exchange, draft: Draft, call: Call, provider: Provider) -> Relay:
        return Relay(
            exchange,
            call,
            provider,
            self._loop,
            keeps=draft.policy is CapturePolicy.FULL,
            held_max=self.limits.answer_bytes_held,
            capture_max=self._parts.capture_bytes_max,
        )

    def _intend(self, draft: Draft, call: Call, target: Target) -> None:
        """Write the intent. Raises :class:`GatewayFault` when the ledger cannot take this call."""
        began = time.monotonic_ns()
        draft.slot = self._parts.ledger.admit(intent_of(draft, call, target))
        draft.intent_ns = time.monotonic_ns() - began

    # Settling.

    async def _settle_answer(self, exchange: Exchange, draft: Draft, relay: Relay) -> None:
        """Record an attempt that was dispatched, then let its answer (or its error) go."""
        fault = fault_in(relay)
        now = time.monotonic_ns()
        status = client_status(relay, fault)
        record = record_of(draft, status=status, fault=fault, relay=relay, reading=relay.reading(), now_ns=now)
        try:
            await self._durable(self._settlement(draft, record, relay))
        except GatewayFault as unavailable:
            fault = unavailable
            self.counters.refused += 1
        self._finish(exchange, draft, relay, record, fault, time.monotonic_ns() - now)
        if relay.over:
            self._forget(relay)

    def _finish(
        self, exchange: Exchange, draft: Draft, relay: Relay, record: Record, fault: Fault | None, waited_ns: int
    ) -> None:
        """The record is durable (or ``fault`` says it is not): the client's last bytes."""
        lines = last_lines(draft, record, waited_ns)
        if fault is None or exchange.disconnected:
            relay.release(lines)
        elif relay.fault is None and fault.branch != "gateway" and not unreadable(relay):
            relay.release(lines)  # the provider's own error, in the provider's own words
        elif relay.begun:
            relay.break_off(exchange.surface.render_stream_error(fault, draft.request_id))
        else:
            told = lines[1:] if fault.branch != "gateway" else []  # of a call without a record nothing is told
            self.answer_fault(exchange, fault, draft.request_id, [*limit_lines(relay), *told])

    async def _settle_refusal(self, exchange: Exchange, draft: Draft, fault: Fault) -> None:
        """Record a call that no provider answered, then say so. Without a ledger the answer is all there is."""
        record = self._refusal_record(exchange, draft, fault)
        lines: list[bytes] = []
        began = time.monotonic_ns()
        try:
            await self._durable(self._settlement(draft, record, None))
        except GatewayFault as unavailable:
            fault = unavailable
            self.counters.refused += 1
        else:
            lines = refusal_lines(draft, record, time.monotonic_ns() - began)
        self.answer_fault(exchange, fault, draft.request_id, lines)

    def _refusal_record(self, exchange: Exchange, draft: Draft, fault: Fault) -> Record:
        status = 499 if exchange.disconnected else fault.status
        now = time.monotonic_ns()
        return record_of(draft, status=status, fault=fault, relay=None, reading=_NOTHING_READ, now_ns=now)

    def _durable(self, settlement: Settlement) -> Signal:
        """Hand ``settlement`` to the ledger; the signal happens when it is durable, or fails."""
        signal = Signal()
        self._parts.ledger.put(settlement, signal)
        return signal

    def _settlement(self, draft: Draft, record: Record, relay: Relay | None) -> Settlement:
        """What the ledger is handed. Bodies too large to keep are left out whole: half a body replays nothing."""
        capture, state = None, CaptureState.NOT_CAPTURED
        call = draft.call
        if draft.policy is CapturePolicy.FULL and call is not None:
            room = self._parts.capture_bytes_max
            if len(call.body) > room or (relay is not None and (relay.too_large or relay.size > room)):
                state = CaptureState.TOO_LARGE
            else:
                capture = captured(call, relay, draft.kept)
        return Settlement(draft.slot, record, draft.policy, capture, draft.arrived_ms, state)

    def _charge(self, draft: Draft, target: Target, reading: Reading) -> Charge:
        book = self._parts.book()
        draft.book = book.digest
        charge = book.price(
            target.provider.name,
            target.model,
            reading.usage,
            draft.arrived_ms,
            service_tier=reading.service_tier,
            team_id=draft.team_id,
            native_model=reading.native_model,
            region=reading.region,
            provider_cost_nanos=reading.provider_cost_nanos,
        )
        return draft.charged(charge, book, target)

    def _note_attempt(self, draft: Draft, target: Target, relay: Relay, fault: Fault | None) -> None:
        """Add an ended attempt and what it cost. A provider that refused without usage charged nothing.

        One that fell silent, or broke off an answer, may have charged: that cost is unknown and not nothing.
        """
        reading = relay.reading()
        charge = None
        if relay.status < 300 or reading.usage.source is not UsageSource.ABSENT:
            charge = self._charge(draft, target, reading)
            draft.charges.append(charge)
        draft.attempts.append(attempt_of(draft, target, relay, fault, reading, charge))

    # Answers without a provider.

    def _turn_away(self, exchange: Exchange) -> None:
        """No key that is known here: an answer, no record."""
        self.counters.unrecorded += 1
        fault = exchange.fault or CallerFault("unauthorized")
        self.answer_fault(exchange, fault, self._parts.ids.next(), [])

    def answer_fault(self, exchange: Exchange, fault: Fault, request_id: str, lines: list[bytes]) -> None:
        """Answer with ``fault`` in the shape of the exchange's protocol, with our ``lines`` in its head."""
        media_type, body = exchange.surface.render_error(fault, request_id)
        fields = [b"content-type: %b\r\ncache-control: no-store\r\n" % media_type.encode(), *lines]
        if request_id:
            fields.append(id_lines(request_id))
        fields += [b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in fault.headers]
        status = fault.status if fault.status != 499 else 400
        exchange.respond(status, fields, body)

    # What the server asks.

    def surface_of(self, path: bytes) -> Surface | None:
        """The surface that serves ``path``; None for the control plane's. What is neither's is a call astray."""
        known = self._paths.get(path, _UNSEEN)
        if known is _UNSEEN:
            # Some clients write Gemini's colon so.
            text = path.decode("latin-1").replace("%3A", ":").replace("%3a", ":")
            known = self._parts.find_surface(text)
            ours = text.startswith("/v1") or self._parts.find_surface(f"/v1{text}") is not None
            if known is None and ours and not self._parts.is_control(text):
                known = self._parts.unknown_surface(text)
            if len(self._paths) < PATHS_MAX:
                self._paths[path] = known
        return known

    def connection_opened(self, protocol: ServerProtocol) -> bool:
        """Count a connection; False when it is one too many."""
        self._connections.add(protocol)
        mine = self._per_client.get(protocol.peer, 0) + 1
        self._per_client[protocol.peer] = mine
        return len(self._connections) <= self.limits.connections and mine <= self.limits.connections_per_client

    def connection_closed(self, protocol: ServerProtocol) -> None:
        """Forget a connection."""
        self._connections.discard(protocol)
        mine = self._per_client.get(protocol.peer, 1) - 1
        if mine:
            self._per_client[protocol.peer] = mine
        else:
            self._per_client.pop(protocol.peer, None)

    # Time and ending.

    def start(self) -> None:
        """Begin the sweep of deadlines."""
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    async def stop(self, seconds: float) -> None:
        """Let what is under way end for at most ``seconds``, then break it off; every call is settled on return."""
        self.stopping = True
        if self._running:
            self._idle = self._loop.create_future()
            await asyncio.wait((self._idle,), timeout=seconds)
            for relay in list(self._relays):
                relay.on_fault(GatewayFault("interrupted"))
            if self._running:
                await self._idle
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.pool.close()

    def _sweep(self) -> None:
        now_ns = time.monotonic_ns()
        for relay in list(self._relays):
            relay.check(now_ns)
            if relay.over:
                self._forget(relay)
        now = self._loop.time()
        for protocol in list(self._connections):
            protocol.check(now)
        self.pool.sweep(60.0)
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _forget(self, relay: Relay) -> None:
        """Nothing will happen to this answer any more.

        It and its exchange know each other. That circle is broken here; the cyclic collector would have to find it, at
        a tenth of the cost of a call.
        """
        self._relays.discard(relay)
        if relay.exchange.listener is relay:
            relay.exchange.listener = None

    @property
    def in_flight(self) -> int:
        """Calls whose story has not ended."""
        return len(self._running)

    # For the repeats of a key too.

    def draft_of(self, exchange: Exchange) -> Draft | None:
        """The beginning of a record, or None when nobody known asks (an expired or revoked key is known)."""
        principal, fault = exchange.principal, exchange.fault
        if principal is not None:
            team_id, key_id = principal.team_id, principal.key_id
        elif isinstance(fault, KeyRefused) and fault.team_id is not None and fault.key_id is not None:
            team_id, key_id = fault.team_id, fault.key_id
        else:
            return None
        if team_id == ALL_TEAMS:
            return None
        request_id = exchange.request_id or self._parts.ids.next()
        draft = Draft(request_id, team_id, key_id, exchange.path, exchange.arrived_ms, exchange.arrived_ns)
        draft.idempotency = exchange.idempotency
        head = exchange.head
        draft.policy = self._parts.capture_default
        if principal is not None:
            draft.app_id = principal.app_id or head.app
            if principal.capture is not CapturePolicy.FULL:
                draft.policy = strictest(draft.policy, principal.capture)
        draft.link = head.link
        draft.kept = head.kept
        return draft
