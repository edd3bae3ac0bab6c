"""The record of one generation: the contract's 24 fields, and the further ones.

Two things a reader sees are not in these bytes, because they may change while the record may not: whether the request
can be replayed (``replay_supported``, ``replay_request``), which depends on the body still being there and on who
asks, and ``chain``, the record's place in its writer's hash chain, which is computed over these bytes.
``codec`` makes the canonical bytes; ``ledger`` adds the rest when it reads.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from counterfoil.record.charge import Charge, CostState, Line
from counterfoil.record.money import CURRENCY
from counterfoil.record.usage import ABSENT, Usage

SCHEMA_VERSION = 1


class CapturePolicy(StrEnum):
    """How much of a call is kept. The strictest of the default's, the team's, the key's and the request's wins."""

    FULL = "full"
    METADATA = "metadata"
    OFF = "off"


def strictest(*policies: CapturePolicy | str | None) -> CapturePolicy:
    """The policy that keeps least; None has no say, and with nobody saying anything the bodies are kept in full."""
    for policy in (CapturePolicy.OFF, CapturePolicy.METADATA):
        if policy in policies:
            return policy
    return CapturePolicy.FULL


class PlaybackMode(StrEnum):
    """Whether a recording may answer: it must, it does when there is one, or never."""

    STRICT = "strict"
    PREFER = "prefer"
    OFF = "off"


class CaptureState(StrEnum):
    """What became of the bodies of a call."""

    STORED = "stored"
    NOT_CAPTURED = "not_captured"
    TOO_LARGE = "too_large"
    INTERRUPTED = "interrupted"
    EXPIRED = "expired"
    ERASED = "erased"


class Attempt(Struct, frozen=True, kw_only=True, gc=False):
    """One try at one provider. ``number`` counts from 1 in the order the tries were made; times are milliseconds.

    ``key_source`` is ``operator``, ``team`` (BYOK) or ``none``. ``error_code`` is null for the try that answered.
    What a price depends on (``native_model``, ``service_tier``, ``region``, ``provider_cost_nanos``) stands here for
    tries before the final one; its own is in the record.
    """

    number: int
    provider: str
    model: str
    key_source: str
    status_code: int | None
    error_code: str | None
    error_message: str | None = None
    latency_ms: float | None
    generation_ms: float | None
    native_response_id: str | None = None
    usage: Usage | UnsetType = UNSET
    pricing_lines: tuple[Line, ...] | UnsetType = UNSET
    cost_nanos: int | UnsetType = UNSET
    native_model: str | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    region: str | UnsetType = UNSET
    provider_cost_nanos: int | UnsetType = UNSET


class Idempotency(Struct, frozen=True, kw_only=True, gc=False):
    """What an idempotency key did for a call. ``key`` is null where the capture policy keeps no details.

    ``repeat_of`` is the generation whose answer was given again; ``retry_of`` the one before that ended nobody knows
    how, so that both may have been paid for.
    """

    key: str | None
    repeat_of: str | None = None
    retry_of: str | None = None


class Record(Struct, frozen=True, kw_only=True, gc=False):
    """Everything known about one generation when it was settled. Field order is the canonical order: append only."""

    created_at: str
    request_id: str
    team_id: str
    app_id: str | None
    key_id: str
    endpoint: str
    model_id: str
    provider: str
    native_response_id: str | None
    stream: bool
    byok: bool
    status_code: int
    success: bool
    error_code: str | None
    error_message: str | None
    latency_ms: float
    generation_ms: float
    throughput: float | None
    usage: Usage = ABSENT
    cost_nanos: int
    currency: str = CURRENCY
    pricing_lines: tuple[Line, ...] = ()
    # Beyond the contract's 24.
    cost_state: CostState
    cost_reason: str | None = None
    attempts: tuple[Attempt, ...] = ()
    finish_reason: str | None = None
    gateway_ms: float | None = None
    requested_model: str | None = None
    native_model: str | None = None
    service_tier: str | None = None
    provider_cost_nanos: int | None = None
    replay_of: str | None = None
    session_id: str | None = None
    end_user: str | None = None
    tags: dict[str, Any] = {}
    bytes_delivered: int | UnsetType = UNSET
    book: str | None = None
    schema: int = SCHEMA_VERSION
    playback_of: str | UnsetType = UNSET
    idempotency: Idempotency | UnsetType = UNSET
    byok_fee: Charge | UnsetType = UNSET
    region: str | UnsetType = UNSET
    judge_of: str | UnsetType = UNSET


class CaptureInfo(Struct, frozen=True, kw_only=True, gc=False):
    """What was kept of the bodies when the record was written. ``digest`` commits to them and tells nothing of them.

    ``retention_days`` counts from ``created_at``: bodies that are missing before then were erased or tampered with.
    """

    policy: CapturePolicy
    state: CaptureState
    bytes: int = 0
    digest: str | None = None
    retention_days: int | None = None


class Chain(Struct, frozen=True):
    """A record's place in its writer's chain: ``digest`` is SHA-256 over the one before and the canonical bytes."""

    writer: str
    sequence: int
    digest: str
