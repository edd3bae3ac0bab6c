"""Our own lines in the head of an answer."""

from __future__ import annotations

from typing import Final

from counterfoil.gateway.draft import Draft
from counterfoil.gateway.relay import Relay
from counterfoil.record.record import Record

_REPEAT_LINES: Final = (
    b"idempotent-replayed: true\r\nx-counterfoil-repeat-of: %b\r\nx-cost-nanos: 0\r\nx-cost-state: free\r\n"
)
_LIMIT_FIELDS: Final = (b"retry-after", b"x-ratelimit-", b"anthropic-ratelimit-")


def first_lines(draft: Draft, dispatched_ns: int, waited_ns: int) -> list[bytes]:
    """Our lines in the head of a stream, which leaves before the end is known."""
    before, ledger = (dispatched_ns - draft.arrived_ns) / 1e6, draft.intent_ns / 1e6
    timing = b"server-timing: gw;dur=%.3f, upstream;dur=%.3f, ledger;dur=%.3f\r\n" % (before, waited_ns / 1e6, ledger)
    return [id_lines(draft.request_id), timing]


def id_lines(request_id: str) -> bytes:
    """The call's id under the names that clients and SDKs look for it."""
    encoded = request_id.encode()
    return b"x-request-id: %b\r\nrequest-id: %b\r\nx-generation-id: %b\r\n" % (encoded, encoded, encoded)


def repeat_lines(first_id: str) -> bytes:
    """Whose answer a repeat of an idempotency key is, and that it costs nothing."""
    return _REPEAT_LINES % first_id.encode()


def limit_lines(relay: Relay) -> list[bytes]:
    """The provider's word on when to come again, for an error that we put into words ourselves."""
    return [b"%b: %b\r\n" % field for field in relay.fields if field[0].lower().startswith(_LIMIT_FIELDS)]


def last_lines(draft: Draft, record: Record, waited_ns: int) -> list[bytes]:
    """Our lines in the head of an answer that was held until its record was durable."""
    return [
        id_lines(draft.request_id),
        cost_lines(draft, record, record.gateway_ms or 0.0, record.generation_ms, waited_ns),
    ]


def refusal_lines(draft: Draft, record: Record, waited_ns: int) -> list[bytes]:
    """Our lines, besides the id, in the head of an error of ours that came without any provider's answer."""
    upstream_ms = sum(attempt.generation_ms or 0.0 for attempt in record.attempts)
    gateway_ms = max(0.0, record.generation_ms - upstream_ms)
    return [cost_lines(draft, record, gateway_ms, upstream_ms, waited_ns)]


def cost_lines(draft: Draft, record: Record, gateway_ms: float, upstream_ms: float, waited_ns: int) -> bytes:
    """What a settled call cost, and where its time went; ``waited_ns`` is the wait for the commit."""
    timing = gateway_ms, upstream_ms, (draft.intent_ns + waited_ns) / 1e6
    return (
        b"x-cost-nanos: %d\r\nx-cost-state: %b\r\nserver-timing: gw;dur=%.3f, upstream;dur=%.3f, ledger;dur=%.3f\r\n"
        % (record.cost_nanos, record.cost_state.encode(), *timing)
    )
