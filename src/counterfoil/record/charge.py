"""What a generation cost, line by line, so that anyone can recompute every nano offline."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import UNSET, Struct, UnsetType


class LineState(StrEnum):
    """How a line came by its rate."""

    PRICED = "priced"
    FALLBACK = "fallback"
    UNPRICED = "unpriced"
    PROVIDER_REPORTED = "provider_reported"


class CostState(StrEnum):
    """What the sum of the lines is worth: the whole truth, part of it, an estimate, or nothing known."""

    EXACT = "exact"
    ESTIMATED = "estimated"
    PARTIAL = "partial"
    UNKNOWN = "unknown"
    FREE = "free"
    SUPPRESSED = "suppressed"
    PLAYBACK = "playback"


INCOMPLETE: Final = frozenset({CostState.UNKNOWN, CostState.PARTIAL})
"""The states of a cost that is not known, or not all of it."""


class Line(Struct, frozen=True, gc=False):
    """One meter's charge: ``quantity`` × ``unit_price_nanos`` ÷ ``unit_size``, rounded half-even once.

    ``rule_id`` names the rule inside the price book whose content hash is ``book``. An ``unpriced`` line has amount 0
    and an empty rule. ``reason`` says why a line is a fallback or unpriced.
    """

    meter: str
    quantity: int
    unit_size: int
    unit_price_nanos: int
    amount_nanos: int
    rule_id: str
    book: str
    state: LineState
    reason: str | UnsetType = UNSET


class Charge(Struct, frozen=True, gc=False):
    """The lines and their integer sum. ``nanos == sum(line.amount_nanos for line in lines)``, always."""

    lines: tuple[Line, ...] = ()
    nanos: int = 0
    state: CostState = CostState.UNKNOWN
    reason: str | None = None


NOTHING_SERVED = Charge((), 0, CostState.FREE, "no provider served this call")

PLAYED = Charge((), 0, CostState.PLAYBACK, "a recording answered; no provider was called")
