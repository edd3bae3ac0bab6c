"""A record in the making: what is known of a call so far, and how it becomes a record.

One :class:`Draft` accompanies a call from admission to settlement. Every exit of the story, good or bad, ends in
:func:`record_of` with what the draft then knows; fields nobody learned keep the values the contract gives for "not
known" (``"unknown"``, ``"none"``, null).

Times: ``latency_ms`` runs from the dispatch of the final attempt to its first output, ``generation_ms`` to the end of
its output, so the first never exceeds the second. With no output both end at the error or the end; with nothing
dispatched both are admission to answer. Of a played recording they say how it was played, so it has no throughput.
"""

from __future__ import annotations

import time

import msgspec
from msgspec import UNSET, UnsetType

from counterfoil.errors import Fault
from counterfoil.gateway.relay import Relay, Way
from counterfoil.ledger.settlement import Intent
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.charging import total
from counterfoil.pricing.fees import byok_fee
from counterfoil.record.charge import NOTHING_SERVED, Charge
from counterfoil.record.links import linked
from counterfoil.record.record import Attempt, CapturePolicy, Idempotency, PlaybackMode, Record
from counterfoil.record.times import timestamp
from counterfoil.record.usage import UsageSource, served_instead
from counterfoil.routing.plan import Target
from counterfoil.surfaces.base import Call, Reading

CLIENT_LEFT = 499
MESSAGE_LENGTH_MAX = 500
_NS_PER_MS = 1_000_000


def milliseconds(ns: int) -> float:
    """Nanoseconds as milliseconds, to the whole microsecond below; never negative."""
    return ns // 1000 / 1000 if ns > 0 else 0.0


class Draft:
    """What is known of one call. Only the story writes to it."""

    __slots__ = (
        "app_id",
        "arrived_ms",
        "arrived_ns",
        "attempts",
        "book",
        "byok",
        "call",
        "charges",
        "endpoint",
        "fee",
        "idempotency",
        "intent_ns",
        "kept",
        "key_id",
        "link",
        "paid",
        "playback",
        "playback_of",
        "policy",
        "request_id",
        "session_id",
        "slot",
        "target",
        "team_id",
    )

    def __init__(
        self, request_id: str, team_id: str, key_id: str, endpoint: str, arrived_ms: int, arrived_ns: int
    ) -> None:
        self.request_id = request_id
        self.team_id = team_id
        self.key_id = key_id
        self.endpoint = endpoint
        self.arrived_ms = arrived_ms
        self.arrived_ns = arrived_ns
        self.app_id: str | None = None
        self.session_id: str | None = None
        self.link: str | None = None  # to the generation that this call reruns or judges
        self.idempotency: Idempotency | UnsetType = UNSET
        self.policy = CapturePolicy.FULL
        self.kept: tuple[tuple[bytes, bytes], ...] = ()  # headers that are captured with the body
        self.playback: PlaybackMode | None = None  # whether a recording may answer
        self.playback_of: str | None = None  # the generation whose recorded answer is played
        self.call: Call | None = None
        self.target: Target | None = None
        self.byok = False
        self.slot = -1  # the intent's place in the journal; -1 while nothing was dispatched
        self.intent_ns = 0
        self.attempts: list[Attempt] = []
        self.book: str | None = None  # the price book in force, once something was served
        self.charges: list[Charge] = []  # one for each attempt that consumed something
        self.paid: list[Charge] = []  # those of them that the team's own provider key paid
        self.fee: Charge | UnsetType = UNSET  # what the operator charges for these

    def charged(self, charge: Charge, book: PriceBook, target: Target) -> Charge:
        """Give ``charge``, an attempt's, after adding the operator's fee when the team's own key paid it."""
        if self.byok:
            self.paid.append(charge)
            where = target.provider.name, target.model, self.team_id, self.arrived_ms
            self.fee = byok_fee(book, total(self.paid), *where)
        return charge

    def times(self, relay: Relay | None, now_ns: int) -> tuple[float, float]:
        """``latency_ms`` and ``generation_ms`` of the final attempt (or of the refusal)."""
        if relay is None or not relay.dispatched_ns:
            waited = milliseconds(now_ns - self.arrived_ns)
            return waited, waited
        end = relay.finish_ns or relay.end_ns or now_ns
        first = relay.output_ns if relay.way is Way.STREAM else relay.first_byte_ns
        if not first or first > end:
            first = end
        return milliseconds(first - relay.dispatched_ns), milliseconds(end - relay.dispatched_ns)


def throughput(reading: Reading, generation_ms: float) -> float | None:
    """Output tokens per second; null when there was no output, no known usage or no measurable time."""
    tokens = reading.usage.completion_tokens
    if not reading.has_output or not tokens or reading.usage.source is UsageSource.ABSENT or generation_ms <= 0:
        return None
    return round(tokens / (generation_ms / 1000), 3)


def intent_of(draft: Draft, call: Call, target: Target) -> Intent:
    """What the journal keeps of a call that is about to be dispatched to ``target``."""
    return Intent(
        request_id=draft.request_id,
        created_at_ms=draft.arrived_ms,
        team_id=draft.team_id,
        app_id=draft.app_id,
        key_id=draft.key_id,
        endpoint=draft.endpoint,
        model_id=target.model_id,
        requested_model=call.model,
        provider=target.provider.name,
        stream=call.stream,
        byok=draft.byok,
        link=draft.link,
    )


def attempt_of(
    draft: Draft,
    target: Target,
    relay: Relay | None = None,
    fault: Fault | None = None,
    reading: Reading | None = None,
    charge: Charge | None = None,
) -> Attempt:
    """The attempt at ``target`` that just ended, numbered after the ones before it.

    A first attempt that answered has no lines of its own: the record's are its, and are not written twice.
    """
    dispatched = relay is not None and relay.dispatched_ns
    latency_ms, generation_ms = draft.times(relay, time.monotonic_ns()) if dispatched else (None, None)
    consumed = reading is not None and reading.usage.source is not UsageSource.ABSENT
    return Attempt(
        number=len(draft.attempts) + 1,
        provider=target.provider.name,
        model=target.model,
        key_source="team" if draft.byok else "operator" if target.provider.credential else "none",
        status_code=relay.status or None if relay is not None else None,
        error_code=fault.code if fault is not None else None,
        error_message=fault.message[:MESSAGE_LENGTH_MAX] if fault is not None else None,
        latency_ms=latency_ms,
        generation_ms=generation_ms,
        native_response_id=reading.native_response_id if reading is not None else None,
        usage=reading.usage if reading is not None and consumed else UNSET,
        pricing_lines=charge.lines if charge is not None and (draft.attempts or fault is not None) else UNSET,
        cost_nanos=charge.nanos if charge is not None else UNSET,
        native_model=(reading.native_model or UNSET) if reading is not None and fault is not None else UNSET,
        service_tier=(reading.service_tier or UNSET) if reading is not None and fault is not None else UNSET,
        region=(reading.region or UNSET) if reading is not None and fault is not None else UNSET,
        provider_cost_nanos=_said(reading) if reading is not None and fault is not None else UNSET,
    )


def record_of(
    draft: Draft,
    *,
    status: int,
    fault: Fault | None,
    relay: Relay | None,
    reading: Reading,
    now_ns: int,
) -> Record:
    """The record of a call that ended now."""
    charge = total(draft.charges) if draft.charges else NOTHING_SERVED
    final = draft.attempts[-1] if draft.attempts and relay is not None else None
    if final is None or final.latency_ms is None or final.generation_ms is None:
        latency_ms, generation_ms = draft.times(relay, now_ns)
    else:
        latency_ms, generation_ms = final.latency_ms, final.generation_ms
    call, target = draft.call, draft.target
    details = draft.policy is not CapturePolicy.OFF
    record = Record(
        created_at=timestamp(draft.arrived_ms),
        request_id=draft.request_id,
        team_id=draft.team_id,
        app_id=draft.app_id,
        key_id=draft.key_id,
        endpoint=draft.endpoint,
        model_id=_billed_as(target, reading) if target is not None else (call and call.model) or "unknown",
        provider=draft.attempts[-1].provider if draft.attempts else "none",
        native_response_id=reading.native_response_id,
        stream=call.stream if call is not None else False,
        byok=draft.byok,
        status_code=status,
        success=fault is None,
        error_code=fault.code if fault is not None else None,
        error_message=fault.message[:MESSAGE_LENGTH_MAX] if fault is not None else None,
        latency_ms=latency_ms,
        generation_ms=generation_ms,
        throughput=throughput(reading, generation_ms) if draft.playback_of is None else None,
        usage=reading.usage,
        cost_nanos=charge.nanos,
        pricing_lines=charge.lines,
        cost_state=charge.state,
        cost_reason=charge.reason,
        attempts=tuple(draft.attempts),
        finish_reason=reading.finish_reason,
        gateway_ms=milliseconds(now_ns - draft.arrived_ns - _upstream_ns(draft, relay, now_ns)) if relay else None,
        requested_model=(call and call.model) or None,
        native_model=reading.native_model,
        service_tier=reading.service_tier,
        provider_cost_nanos=reading.provider_cost_nanos if draft.playback_of is None else None,
        session_id=draft.session_id if details else None,
        end_user=call.end_user if call is not None and details else None,
        tags=call.tags if call is not None and call.tags and details else {},
        bytes_delivered=_left_after(status, relay),
        book=draft.book,
        playback_of=draft.playback_of or UNSET,
        idempotency=draft.idempotency if details else _without_key(draft.idempotency),
        byok_fee=draft.fee,
        region=reading.region or UNSET,
    )
    return record if draft.link is None else linked(record, draft.link)


def _billed_as(target: Target, reading: Reading) -> str:
    """The target's name, or that of the model whose prices its provider charges instead."""
    meters = reading.usage.meters
    served = served_instead(meters) if meters else None
    return target.model_id if served is None else f"{target.provider.name}/{served}"


def _said(reading: Reading) -> int | UnsetType:
    return UNSET if reading.provider_cost_nanos is None else reading.provider_cost_nanos


def _upstream_ns(draft: Draft, relay: Relay, now_ns: int) -> int:
    """The time spent on providers: on the final attempt, and on those before it that were dispatched."""
    earlier = sum(attempt.generation_ms or 0.0 for attempt in draft.attempts[:-1]) if len(draft.attempts) > 1 else 0.0
    final_ns = (relay.end_ns or now_ns) - relay.dispatched_ns if relay.dispatched_ns else 0
    return final_ns + int(earlier * _NS_PER_MS)


def _left_after(status: int, relay: Relay | None) -> int | UnsetType:
    """The bytes of the body that a client which left had been sent."""
    if status != CLIENT_LEFT or relay is None or relay.left_after is None:
        return UNSET
    return relay.left_after


def _without_key(idempotency: Idempotency | UnsetType) -> Idempotency | UnsetType:
    """For a policy that keeps no details: what the key did, and not the key, which is the client's own text."""
    return idempotency if idempotency is UNSET else msgspec.structs.replace(idempotency, key=None)
