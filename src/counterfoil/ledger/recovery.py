"""The record of a call whose process died before it could write one. Pure.

What is known is what the intent says: who asked, for which model, of whom. Whether the provider answered, and what it
charged, nobody can say any more; so usage is absent, the cost unknown, and the times are zero rather than invented.
"""

from __future__ import annotations

from counterfoil.errors import GatewayFault
from counterfoil.ledger.settlement import NO_SLOT, Intent, Settlement
from counterfoil.record.charge import CostState
from counterfoil.record.links import linked
from counterfoil.record.record import CapturePolicy, CaptureState, Record
from counterfoil.record.times import timestamp


def interrupted(intent: Intent, now_ms: int) -> Settlement:
    """The settlement of a call found open at ``now_ms`` (Unix milliseconds)."""
    fault = GatewayFault("interrupted")
    record = Record(
        created_at=timestamp(intent.created_at_ms),
        request_id=intent.request_id,
        team_id=intent.team_id,
        app_id=intent.app_id,
        key_id=intent.key_id,
        endpoint=intent.endpoint,
        model_id=intent.model_id,
        provider=intent.provider,
        native_response_id=None,
        stream=intent.stream,
        byok=intent.byok,
        status_code=fault.status,
        success=False,
        error_code=fault.code,
        error_message=f"{fault.message} Its record was made {max(0, now_ms - intent.created_at_ms)} ms after it began.",
        latency_ms=0.0,
        generation_ms=0.0,
        throughput=None,
        cost_nanos=0,
        cost_state=CostState.UNKNOWN,
        cost_reason="the gateway stopped before the answer was read",
        requested_model=intent.requested_model,
    )
    record = record if intent.link is None else linked(record, intent.link)
    return Settlement(NO_SLOT, record, CapturePolicy.FULL, None, intent.created_at_ms, CaptureState.INTERRUPTED)
