"""The bodies of a record as of now, or why there are none: alike for whoever reads it and whoever runs it again."""

from __future__ import annotations

from enum import StrEnum

from counterfoil.capture.body import Capture
from counterfoil.ledger.query import LedgerReader, StoredRecord
from counterfoil.record import codec
from counterfoil.record.record import CapturePolicy, CaptureState


class Unavailable(StrEnum):
    """Why a request cannot be replayed."""

    NOT_CAPTURED = "not_captured"
    POLICY = "policy"
    TOO_LARGE = "too_large"
    INTERRUPTED = "interrupted"
    EXPIRED = "expired"
    ERASED = "erased"
    NOT_AN_OBJECT = "not_an_object"
    UNREADABLE = "unreadable"
    FORBIDDEN = "forbidden"


def captured(reader: LedgerReader, stored: StoredRecord) -> Capture | Unavailable:
    """The bodies of ``stored``, or why there are none."""
    return unkept(stored) or reader.capture(stored) or Unavailable.UNREADABLE


def unkept(stored: StoredRecord) -> Unavailable | None:
    """Why the bodies of ``stored`` are not in the ledger; None when they are."""
    if stored.capture_state is CaptureState.STORED:
        return None
    return why_not(codec.capture_of(stored.data).policy, stored.capture_state)


def why_not(policy: CapturePolicy, state: CaptureState) -> Unavailable | None:
    """The reason that capture alone gives, or None when the bodies are stored."""
    if state is CaptureState.STORED:
        return None
    if state is CaptureState.NOT_CAPTURED and policy is not CapturePolicy.FULL:
        return Unavailable.POLICY
    return Unavailable(state.value)
