"""A record read only as far as checking it needs: every field with its type, its usage and lines as the bytes they are.

Usage and lines stand in a record twice, for the record and for the attempt that answered, in the same bytes; reading
them once takes half of the time that :func:`counterfoil.record.codec.decode` takes. The fields are those of
:class:`~counterfoil.record.record.Record` and :class:`~counterfoil.record.record.Attempt`.

What is passed over is not looked at: a member that comes twice, or under a name nobody knows, could hold anything. So
what was read is a record only when it is written as the very bytes it was read from (:func:`is_written_as`); and
whoever relies on a part left as bytes checks that part.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from counterfoil.record.charge import Charge, CostState
from counterfoil.record.record import CaptureInfo, Idempotency
from counterfoil.record.usage import Usage

NOTHING = Raw()
"""A part that is not there."""


class ScannedAttempt(Struct, frozen=True, kw_only=True, gc=False):
    """An :class:`~counterfoil.record.record.Attempt`, its usage and lines unread."""

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
    usage: Raw = NOTHING
    pricing_lines: Raw = NOTHING
    cost_nanos: int | UnsetType = UNSET
    native_model: str | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    region: str | UnsetType = UNSET
    provider_cost_nanos: int | UnsetType = UNSET


class ScannedRecord(Struct, frozen=True, kw_only=True, gc=False):
    """A :class:`~counterfoil.record.record.Record` with its ``capture``, usage and lines unread."""

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
    usage: Raw = NOTHING
    cost_nanos: int
    currency: str = ""
    pricing_lines: Raw = NOTHING
    cost_state: CostState
    cost_reason: str | None = None
    attempts: tuple[ScannedAttempt, ...] = ()
    finish_reason: str | None = None
    gateway_ms: float | None = None
    requested_model: str | None = None
    native_model: str | None = None
    service_tier: str | None = None
    provider_cost_nanos: int | None = None
    replay_of: str | None = None
    session_id: str | None = None
    end_user: str | None = None
    tags: dict[str, Any] | UnsetType = UNSET
    bytes_delivered: int | UnsetType = UNSET
    book: str | None = None
    schema: int = 0
    playback_of: str | UnsetType = UNSET
    idempotency: Idempotency | UnsetType = UNSET
    byok_fee: Charge | UnsetType = UNSET
    region: str | UnsetType = UNSET
    judge_of: str | UnsetType = UNSET
    capture: CaptureInfo


scan = msgspec.json.Decoder(ScannedRecord).decode
"""Canonical bytes as a :class:`ScannedRecord`. Raises :class:`msgspec.MsgspecError` where they are no record."""

_encode = msgspec.json.Encoder(order=None).encode


def is_written_as(record: ScannedRecord, data: bytes) -> bool:
    """Whether ``data`` are the canonical bytes of ``record``: nothing is in them twice, unknown or spelt otherwise."""
    return _encode(record) == data


usage_of = msgspec.json.Decoder(Usage).decode
"""The usage in its bytes. Raises :class:`msgspec.MsgspecError`."""
