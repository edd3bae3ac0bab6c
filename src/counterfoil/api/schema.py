"""The schema of a record as ``GET /v1/generations`` gives it, for ``/openapi.json`` and for the reference pages.

Types come from the structs that make the record, so they cannot drift; what a type cannot say, the meaning of each
field, is written here once. A test holds that every field of every struct is described.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from counterfoil.api import content
from counterfoil.record.charge import Charge, Line
from counterfoil.record.record import Attempt, CaptureInfo, CaptureState, Chain, Idempotency, Record
from counterfoil.record.usage import Usage

REF: Final = "#/components/schemas/{name}"


class CaptureNow(CaptureInfo, frozen=True, kw_only=True):
    """What was kept of the bodies, with their state at the time of reading."""

    recorded_state: CaptureState | UnsetType = UNSET


class GenerationRecord(Record, frozen=True, kw_only=True):
    """The record of one generation, as its team reads it."""

    capture: CaptureNow
    chain: Chain
    replay_supported: bool
    replay_request: dict[str, Any] | UnsetType = UNSET
    replay_unavailable_reason: str | UnsetType = UNSET


CONTRACT: Final = (
    "created_at",
    "request_id",
    "team_id",
    "app_id",
    "endpoint",
    "model_id",
    "provider",
    "native_response_id",
    "stream",
    "byok",
    "status_code",
    "success",
    "error_code",
    "error_message",
    "latency_ms",
    "generation_ms",
    "usage",
    "cost_nanos",
    "currency",
    "pricing_lines",
    "key_id",
    "throughput",
    "replay_supported",
    "replay_request",
)
"""The 24 fields of the contract, in its order."""

MEANINGS: Final[dict[str, dict[str, str]]] = {
    "GenerationRecord": {
        "created_at": "When the request arrived (admission), UTC with milliseconds; not when the record was written.",
        "request_id": "The id of this generation: gen_ and 26 characters of time-ordered base32. Also in the answer's "
        "headers x-request-id, request-id and x-generation-id.",
        "team_id": "The team the key belongs to.",
        "app_id": "The application the call is attributed to: the key's, or X-App-Id, or HTTP-Referer and X-Title.",
        "key_id": "The public part of the key that made the call.",
        "endpoint": "The path to resubmit replay_request to, such as /v1/chat/completions.",
        "model_id": "The model as billed, provider/model; unknown when the body named none that could be read.",
        "provider": "The provider of the final attempt; none when no provider was tried.",
        "native_response_id": "The provider's own id of its answer. The record can be looked up by it too.",
        "stream": "Whether the client asked for a streamed answer.",
        "byok": "Whether the final attempt used the team's own provider key.",
        "status_code": "The HTTP status the client got; 499 when the client left first.",
        "success": "False exactly when error_code is set.",
        "error_code": "Whose fault and which: user:…, upstream:… or gateway:…. The list is in the error reference.",
        "error_message": "What went wrong, in words that hold no prompt and no credential.",
        "latency_ms": "Milliseconds from the dispatch of the final attempt to the first generated output. Without any "
        "output: to the error or the end. When nothing was dispatched: from admission to the answer.",
        "generation_ms": "Milliseconds from the dispatch of the final attempt to the end of the output, with the same "
        "fallbacks; never less than latency_ms.",
        "throughput": "completion_tokens per second of generation_ms; null when there was no output or its usage is "
        "not known.",
        "usage": "What the generation consumed, in one convention for every provider.",
        "cost_nanos": "The sum of the lines, in billionths of a dollar. cost_state says what that sum is worth.",
        "currency": "Always USD.",
        "pricing_lines": "One line per meter; their amounts add up to cost_nanos.",
        "cost_state": "exact, estimated, partial (some meters have no known price), unknown (none has), free, "
        "suppressed or playback (a recording answered). An unknown cost is never to be read as zero.",
        "cost_reason": "Why cost_state is not exact, when there is more to say.",
        "attempts": "Every try at a provider, in the order they were made.",
        "finish_reason": "Why the output ended, in the provider's word.",
        "gateway_ms": "Milliseconds this gateway spent besides waiting for the provider.",
        "requested_model": "The model as the client wrote it, before aliases.",
        "native_model": "The model as the provider named it in its answer.",
        "service_tier": "The service tier the provider says it served.",
        "provider_cost_nanos": "The cost the provider itself reported, beside ours.",
        "replay_of": "The record that this call reran.",
        "session_id": "The session the client named.",
        "end_user": "The end user the client named.",
        "tags": "Further labels the client gave; empty when it gave none.",
        "bytes_delivered": "Bytes of the answer's body that were sent to a client that left before its end.",
        "book": "The content hash of the price book the lines were made with.",
        "schema": "The number of this record's format.",
        "playback_of": "The record whose recorded answer was played; present only when a recording answered.",
        "idempotency": "What an idempotency key did for this call; absent without one.",
        "byok_fee": "What the operator charges for a call that the team's own provider key paid: an amount beside "
        "cost_nanos, never inside it. Absent where no rule charges a fee.",
        "judge_of": "The record whose answer this call judged; present only in a judge's call.",
        "region": "Where the provider says it served the call, when its price may depend on it.",
        "capture": "What was kept of the bodies.",
        "chain": "The record's place in its writer's hash chain.",
        "replay_supported": "True exactly when replay_request is present: a non-empty object this reader may see.",
        "replay_request": "The client's request body, byte for byte as it arrived. Posting it to endpoint reruns it. "
        "Present only when replay_supported.",
        "replay_unavailable_reason": "Present only when not replay_supported: not_captured, policy, too_large, "
        "interrupted, expired, erased, not_an_object, unreadable or forbidden.",
    },
    "Usage": {
        "prompt_tokens": "All input: cached reads, cache writes and the provider's own tool prompts included.",
        "completion_tokens": "All output: reasoning included.",
        "total_tokens": "Input and output together.",
        "prompt_tokens_details": "Parts of prompt_tokens: cached_tokens, cache_write_tokens (of which "
        "cache_write_5m_tokens and cache_write_1h_tokens), text_tokens, audio_tokens, image_tokens, video_tokens, "
        "tool_tokens.",
        "completion_tokens_details": "Parts of completion_tokens: reasoning_tokens, text_tokens, audio_tokens, "
        "image_tokens, video_tokens, accepted_prediction_tokens, rejected_prediction_tokens.",
        "meters": "What is billed beside tokens: requests, images, characters, pages, web_searches, input_audio_ms, "
        "output_audio_ms and others.",
        "source": "reported by the provider, estimated by us, partial, or absent.",
        "estimated": "What the provider did not report: totals that are our estimate, meters that are the least.",
    },
    "Idempotency": {
        "key": "The client's key; null where the capture policy keeps no details.",
        "repeat_of": "The generation whose answer was given again. This call cost nothing and reached no provider.",
        "retry_of": "The generation before this one with the same key, which ended nobody knows how: both may have "
        "been paid for.",
    },
    "Line": {
        "meter": "What was counted.",
        "quantity": "How many units were counted.",
        "unit_size": "The number of units that unit_price_nanos buys.",
        "unit_price_nanos": "The price of unit_size units, in billionths of a dollar.",
        "amount_nanos": "quantity × unit_price_nanos ÷ unit_size, rounded once, half to even.",
        "rule_id": "The rule of the price book that gave the price; empty when unpriced.",
        "book": "The content hash of that price book.",
        "state": "priced, fallback (a neighbouring rule), unpriced (amount 0, price not known) or provider_reported.",
        "reason": "Why the line is a fallback or unpriced.",
    },
    "Charge": {
        "lines": "One line per part of the fee; their amounts add up to nanos.",
        "nanos": "The fee, in billionths of a dollar.",
        "state": "What the fee is worth, in the words of cost_state: a share of an unknown cost is unknown.",
        "reason": "Why state is not exact.",
    },
    "Attempt": {
        "number": "Counts from 1 in the order of the tries.",
        "provider": "The provider tried.",
        "model": "The model asked of it.",
        "key_source": "operator, team (its own provider key) or none.",
        "status_code": "The provider's HTTP status; null when it sent none.",
        "error_code": "Null for the try that answered.",
        "error_message": "What went wrong, in safe words.",
        "latency_ms": "Milliseconds from dispatch to first output; null when none came.",
        "generation_ms": "Milliseconds from dispatch to the end; null when it did not end.",
        "native_response_id": "The provider's own id of its answer.",
        "usage": "What this try consumed, when it is known and not the record's own.",
        "pricing_lines": "What this try cost, line by line.",
        "cost_nanos": "The sum of this try's lines.",
        "native_model": "The model it says it served, when this try failed; otherwise the record has it.",
        "service_tier": "The tier it says it served in, when this try failed; otherwise the record has it.",
        "region": "Where it says it served, when this try failed; otherwise the record has it.",
        "provider_cost_nanos": "What it says this try cost, when it failed; otherwise the record has it.",
    },
    "CaptureNow": {
        "policy": "full, metadata or off: the strictest of the default's, the team's, the key's and the request's.",
        "state": "What became of the bodies, as of now: stored, not_captured, too_large, interrupted, expired or "
        "erased.",
        "bytes": "The size of the bodies as they were written, compressed and sealed; what repeats an earlier call of "
        "the same key takes next to nothing.",
        "digest": "Commits to the bodies without telling anything of their text: SHA-256 over the sealed bodies, or "
        "HMAC-SHA-256 under a key of the folder over what they hold where they were packed against an earlier call's.",
        "retention_days": "How long the bodies are kept, counted from created_at; null when none were.",
        "recorded_state": "The state when the record was written; present only when it differs from state.",
    },
    "Chain": {
        "writer": "The writer whose chain this is.",
        "sequence": "The record's number in that chain.",
        "digest": "SHA-256 over the previous record's digest and this record's canonical bytes.",
    },
}
_STRUCTS: Final[dict[str, type[Struct]]] = {
    "GenerationRecord": GenerationRecord,
    "Usage": Usage,
    "Idempotency": Idempotency,
    "Line": Line,
    "Charge": Charge,
    "Attempt": Attempt,
    "CaptureNow": CaptureNow,
    "Chain": Chain,
}


def components() -> dict[str, Any]:
    """JSON Schemas by name, for ``components.schemas`` of the OpenAPI document. Every field is described."""
    _, schemas = msgspec.json.schema_components([GenerationRecord], ref_template=REF)
    for name, struct in _STRUCTS.items():
        _describe(schemas[name], struct, MEANINGS[name])
    schemas["GenerationRecord"]["properties"]["created_at"]["format"] = "date-time"
    schemas["Content"] = content.SCHEMA
    return schemas


def _describe(schema: dict[str, Any], struct: type[Struct], meanings: dict[str, str]) -> None:
    """Add meanings; call required what every answer holds (a default is still written, an unset field is not)."""
    schema["description"] = (struct.__doc__ or "").split("\n", 1)[0]
    for field, meaning in meanings.items():
        prop = schema["properties"][field]
        prop.pop("default", None)
        schema["properties"][field] = (
            {"allOf": [prop], "description": meaning} if "$ref" in prop else {**prop, "description": meaning}
        )
    schema["required"] = [field.name for field in msgspec.structs.fields(struct) if field.default is not UNSET]
