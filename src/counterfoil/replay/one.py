"""Run one recorded generation again: the same bytes, or changed ones, through the normal path.

A rerun is a call like any other (``gateway.internal``): admitted, planned, priced, recorded and chained, with
credentials resolved anew, because none was ever stored. It belongs to the team of the original and carries
``replay_of``. Whoever may not see the original's team finds nothing to run.

What a rerun may cost is a range. ``low`` is the input alone; ``high`` adds the most output the request allows, or,
where it names no limit, :data:`OUTPUT_FACTOR` times what the original gave. Without a price both are null: an unknown
is never 0, and a ceiling (``max_cost_nanos``) then refuses rather than guesses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType

from counterfoil.capture.body import Capture
from counterfoil.errors import CallerFault
from counterfoil.gateway import internal
from counterfoil.gateway.attribution import JUDGE_OF
from counterfoil.gateway.playback import HEADER as PLAYBACK_HEADER
from counterfoil.gateway.run import Gateway
from counterfoil.ledger.kept import Unavailable, captured
from counterfoil.ledger.query import LedgerReader, StoredRecord
from counterfoil.pricing.book import PriceBook
from counterfoil.record import codec
from counterfoil.record.charge import INCOMPLETE, CostState
from counterfoil.record.record import CaptureState, PlaybackMode, Record
from counterfoil.record.usage import Usage, UsageSource
from counterfoil.replay import diff, override
from counterfoil.replay.override import Overrides, Sendable
from counterfoil.replay.text import Said, said
from counterfoil.routing.plan import Routes, Target
from counterfoil.surfaces.base import Request, Surface
from counterfoil.tenancy.principal import Principal

RUNS_MAX: Final = 32
"""Reruns that one request may ask for; many are a bulk run's business."""
OUTPUT_FACTOR: Final = 4
"""How much longer than the original an answer without a limit is reckoned at most."""
CONTEXT_OUTPUT_MIN: Final = 1_024
"""Tokens of output reckoned at least, where neither the request nor the original gives a measure."""
BYTES_PER_TOKEN: Final = 3
"""Text is longer than that for a token, in the tokenizers in use."""
TOKENIZER_PERCENT: Final = 140
"""What another model's tokenizer makes of the same text at most."""
_LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class CannotReplay(CallerFault):
    """The bodies of a generation are not there; ``reason`` says why. Answered with 409."""

    def __init__(self, reason: Unavailable) -> None:
        super().__init__("conflict", f"This generation cannot be run again: {reason.value}.")
        self.reason = reason.value


class TooExpensive(CallerFault):
    """The estimate is above ``max_cost_nanos``, or there is none. Answered with 409; nothing was sent."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__("conflict", message, param="max_cost_nanos")
        self.reason = reason


class Wish(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a caller asks of one rerun. ``max_cost_nanos`` bounds all ``n`` runs together."""

    overrides: Overrides = override.NONE
    dry_run: bool = False
    max_cost_nanos: int | None = None
    n: int = 1


class Original(Struct, frozen=True):
    """A generation that can be run again: its record, its bodies and the request in them."""

    stored: StoredRecord
    record: Record
    capture: Capture
    request: Sendable
    surface: Surface


class Estimate(Struct, frozen=True):
    """What one run may cost, in nanos; null where the price is not known. ``reason`` says why it is not."""

    low_nanos: int | None
    high_nanos: int | None
    cost_state: CostState
    reason: str | None = None


class Plan(Struct, frozen=True):
    """What would be sent, to whom, and what it may cost."""

    request: Sendable
    model_id: str
    provider: str
    estimate: Estimate
    same_bytes: bool
    stream: bool = False


class Rerun(Struct, frozen=True):
    """One run that has ended: the bytes the client would have had, and the record's id."""

    request_id: str
    status: int
    answer: bytes
    retry_after: str | None = None


class Replayer:
    """Runs recorded generations again. Lives on the gateway's loop; reads the ledger in threads."""

    def __init__(
        self,
        gateway: Gateway,
        reader: LedgerReader,
        routes: Routes,
        book: Callable[[], PriceBook],
        now_ms: Callable[[], int],
    ) -> None:
        self.gateway = gateway
        self.reader = reader
        self.routes = routes
        self._book = book
        self._now_ms = now_ms

    def original(self, team_id: str | None, any_id: str) -> Original | None:
        """The generation with this id in ``team_id`` (None: in any), None when there is none.

        Blocks on the ledger. Raises :class:`CannotReplay` when its bodies are not there.
        """
        stored = self.reader.find(team_id, any_id)
        if stored is None:
            return None
        capture = captured(self.reader, stored)
        if isinstance(capture, Unavailable):
            raise CannotReplay(capture)
        record = codec.decode(stored.data)
        path = record.endpoint.partition("?")[0]
        surface = self.gateway.surface_of(path.encode())
        if surface is None:
            raise CallerFault("conflict", f"{path} is no endpoint that can be called again.")
        request = Sendable(record.endpoint, capture.request_type, capture.request)
        return Original(stored, record, capture, request, surface)

    def plan(self, original: Original, wish: Wish) -> Plan:
        """What a rerun would do. Raises the caller's fault for overrides that do not fit or a model nobody serves."""
        record = original.record
        request = override.apply(original.request, original.surface, wish.overrides, record.model_id)
        path, _, query = request.target.partition("?")
        surface = self.gateway.surface_of(path.encode()) or original.surface
        headers = {b"content-type": request.content_type.encode("latin-1", "replace")}
        call = surface.peek(Request("POST", path, query, headers, request.body))
        targets = self.routes.plan(call.model, surface.name)
        target = targets[0]
        estimate = dearest([self._estimate(original, request, one) for one in targets])
        same = request.body == original.request.body and request.target == original.request.target
        return Plan(request, target.model_id, target.provider.name, estimate, same, call.stream)

    def check(self, plan: Plan, wish: Wish) -> None:
        """Raises :class:`TooExpensive` when the runs may cost more than the caller allows, or nobody knows."""
        if wish.max_cost_nanos is None:
            return
        high = plan.estimate.high_nanos
        if high is None:
            raise TooExpensive(f"The price of {plan.model_id} is not known, so no ceiling can be kept.", "unpriced")
        if high * wish.n > wish.max_cost_nanos:
            message = f"This may cost {high * wish.n} nanos, more than max_cost_nanos allows."
            raise TooExpensive(message, "above_max_cost")

    async def run(
        self,
        principal: Principal,
        original: Original,
        plan: Plan,
        on_piece: Callable[[bytes], None] | None = None,
        request_id: str | None = None,
    ) -> Rerun:
        """Run it once, as ``principal`` of the original's team; the new record is durable on return.

        ``request_id`` is for bulk runs, whose ids are computed.
        """
        if not principal.sees(original.stored.team_id):
            raise CallerFault("not_found")
        headers = {
            b"content-type": plan.request.content_type.encode("latin-1", "replace"),
            b"x-counterfoil-replay-of": original.stored.id.encode(),
            PLAYBACK_HEADER: PlaybackMode.OFF.value.encode(),
            **dict(original.capture.request_fields),
        }
        if original.record.app_id is not None:
            headers[b"x-app-id"] = original.record.app_id.encode()
        if original.record.session_id is not None:
            headers[b"x-session-id"] = original.record.session_id.encode()
        request = plan.request
        answer = await internal.call(
            self.gateway, principal, request.target, headers, request.body, on_piece, request_id
        )
        return Rerun(answer.request_id, answer.status, answer.body, answer.headers.get("retry-after"))

    async def call(self, principal: Principal, request: Sendable, request_id: str, judged: str) -> Rerun:
        """Make the call of a judge of ``judged``'s answer; its record is durable on return."""
        headers = {b"content-type": request.content_type.encode(), PLAYBACK_HEADER: b"off", JUDGE_OF: judged.encode()}
        answer = await internal.call(
            self.gateway, principal, request.target, headers, request.body, request_id=request_id
        )
        return Rerun(answer.request_id, answer.status, answer.body)

    async def runs(self, principal: Principal, original: Original, plan: Plan, wish: Wish) -> list[Rerun]:
        """Run it ``wish.n`` times, one after the other, so that a ceiling on the cost is checked before each.

        Stops early when what was spent and the next estimate together pass the ceiling.
        """
        done: list[Rerun] = []
        spent = 0
        for _ in range(wish.n):
            ceiling, high = wish.max_cost_nanos, plan.estimate.high_nanos
            if ceiling is not None and (high is None or spent + high > ceiling):
                break
            done.append(await self.run(principal, original, plan))
            stored = await asyncio.to_thread(self.reader.find, original.stored.team_id, done[-1].request_id)
            if stored is not None:
                spent += codec.decode(stored.data).cost_nanos
        return done

    def difference(self, a: StoredRecord, b: StoredRecord) -> diff.Difference:
        """The difference between two records and, where they are there, their answers. Blocks on the ledger."""
        return diff.compare(codec.decode(a.data), codec.decode(b.data), self.said(a), self.said(b))

    def said(self, stored: StoredRecord) -> Said | None:
        """What an answer says, None when its body is not there."""
        capture = self.reader.capture(stored) if stored.capture_state is CaptureState.STORED else None
        return None if capture is None else said(capture)

    def _estimate(self, original: Original, request: Sendable, target: Target) -> Estimate:
        record, usage = original.record, original.record.usage
        prompt = usage.prompt_tokens + max(0, len(request.body) - len(original.request.body)) // BYTES_PER_TOKEN
        if usage.source is UsageSource.ABSENT or not usage.prompt_tokens:
            prompt = len(request.body) // BYTES_PER_TOKEN
        elif target.model_id != record.model_id:
            prompt = prompt * TOKENIZER_PERCENT // 100
        output = output_limit(request) or max(usage.completion_tokens * OUTPUT_FACTOR, CONTEXT_OUTPUT_MIN)
        return self.estimate(record.team_id, target.provider.name, target.model, prompt, output, usage.meters)

    def estimate(
        self,
        team_id: str,
        provider: str,
        model: str,
        prompt: int,
        output: int,
        meters: dict[str, int] | UnsetType = UNSET,
    ) -> Estimate:
        """What a call may cost: its input alone, and with ``output`` tokens of output."""
        now = self._now_ms()

        def price(completion: int) -> tuple[int, CostState, str | None]:
            asked = Usage(prompt, completion, prompt + completion, meters=meters, source=UsageSource.ESTIMATED)
            charge = self._book().price(provider, model, asked, now, team_id=team_id)
            return charge.nanos, charge.state, charge.reason

        low, _, _ = price(0)
        high, state, reason = price(output)
        if state in INCOMPLETE:
            return Estimate(None, None, state, reason)
        return Estimate(low, max(low, high), CostState.ESTIMATED if state is CostState.EXACT else state, reason)


def dearest(estimates: list[Estimate]) -> Estimate:
    """The first of ``estimates``, its upper end the highest of all: a route may fall back on any of its targets."""
    highs = [one.high_nanos for one in estimates]
    unknown = next((one for one in estimates if one.high_nanos is None), None)
    if unknown is not None:
        return unknown
    return msgspec.structs.replace(estimates[0], high_nanos=max(high for high in highs if high is not None))


def output_limit(request: Sendable) -> int | None:
    """The most output tokens that a JSON request allows, None where it names no limit."""
    try:
        value: Any = msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    members = cast("dict[str, Any]", value)
    config = members.get("generationConfig")
    if isinstance(config, dict):
        members = members | {"max_tokens": cast("dict[str, Any]", config).get("maxOutputTokens")}
    limits = [members.get(name) for name in _LIMITS]
    found = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    choices = members.get("n")
    return max(found) * (choices if isinstance(choices, int) and choices > 0 else 1) if found else None
