"""How much of many records' cost is known: how many are not, and which meters have no price.

Whatever adds up or lists records says this beside them, so that a cost that is not known never passes for none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

from counterfoil.record.charge import INCOMPLETE, Charge, CostState, Line, LineState
from counterfoil.record.usage import TOTALS

NO_USAGE: Final = "usage"
"""Stands for the meter of a record whose usage, not whose price, is what is missing."""
METERS_MAX: Final = 100
"""Meters named in one answer. A provider may name tools as it likes; those that miss most often come first."""
_TEAM: Final = "team"


def unpriced(state: CostState, lines: Sequence[Line], uncounted: Sequence[str] | UnsetType = UNSET) -> str | None:
    """The meters of one record without a price, or whose number nobody told, a line each; None when none is missing.

    ``uncounted`` is what the usage says is not reported (:attr:`~counterfoil.record.usage.Usage.estimated`).
    """
    if state not in INCOMPLETE:
        return None
    names = {line.meter for line in lines if line.state is LineState.UNPRICED}
    names.update(name for name in uncounted or () if name not in TOTALS)
    return "\n".join(sorted(names)) or NO_USAGE


class Paid(Protocol):
    """What tells who paid an attempt, and how much."""

    @property
    def key_source(self) -> str: ...

    @property
    def cost_nanos(self) -> int | UnsetType: ...


def paid_nanos(byok: bool, cost_nanos: int, attempts: Sequence[Paid]) -> int | None:  # noqa: FBT001  a record's fields
    """What of a record's cost the team's own key paid; None where that key was not used.

    A call may change keys from one attempt to the next, so its cost may be paid in part by either.
    """
    if len(attempts) < 2:
        return cost_nanos if byok else None
    own = [attempt.cost_nanos or 0 for attempt in attempts if attempt.key_source == _TEAM]
    return sum(own) if own else None


class Coverage(Struct):
    """Records counted by what is known of their cost. ``meters`` counts records by a meter they could not price."""

    records: int = 0
    unknown: int = 0
    partial: int = 0
    estimated: int = 0
    meters: dict[str, int] = {}  # msgspec makes a new one for each

    def add(self, state: str, missing: str | None, records: int = 1) -> None:
        """Count ``records`` of one state that lack the same meters (as :func:`unpriced` names them)."""
        self.records += records
        if state == CostState.UNKNOWN:
            self.unknown += records
        elif state == CostState.PARTIAL:
            self.partial += records
        elif state == CostState.ESTIMATED:
            self.estimated += records
        for name in missing.split("\n") if missing else ():
            self.meters[name] = self.meters.get(name, 0) + records

    def answer(self) -> dict[str, Any]:
        """As it is answered: the meters with the most records first."""
        names = sorted(self.meters, key=lambda name: (-self.meters[name], name))[:METERS_MAX]
        return {
            "records": self.records,
            "unknown_cost": self.unknown,
            "partial_cost": self.partial,
            "estimated_cost": self.estimated,
            "unpriced_meters": {name: self.meters[name] for name in names},
        }


class _Used(Struct, frozen=True):
    estimated: tuple[str, ...] | UnsetType = UNSET


class _Tried(Struct, frozen=True):
    key_source: str
    cost_nanos: int | UnsetType = UNSET


class _Priced(Struct):
    """What is read of a record to add it up."""

    cost_nanos: int
    cost_state: CostState
    byok: bool
    provider_cost_nanos: int | None = None
    pricing_lines: tuple[Line, ...] = ()
    byok_fee: Charge | UnsetType = UNSET
    usage: _Used = _Used()
    attempts: tuple[_Tried, ...] = ()


_decode = msgspec.json.Decoder(_Priced).decode


class Sums:
    """The cost of records as they pass, from their canonical bytes: what an export or a page adds up to."""

    def __init__(self) -> None:
        self._coverage = Coverage()
        self._cost_nanos = 0
        self._byok = ByokSums()
        self._reported = ReportedSums()

    def add(self, data: bytes) -> None:
        """Count one record. ``data`` is it as it is stored or as it is served."""
        priced = _decode(data)
        self._cost_nanos += priced.cost_nanos
        missing = unpriced(priced.cost_state, priced.pricing_lines, priced.usage.estimated)
        self._coverage.add(priced.cost_state, missing)
        said = priced.provider_cost_nanos
        if said is not None:
            self._reported.add(priced.cost_state, 1, priced.cost_nanos, said)
        paid, fee = paid_nanos(priced.byok, priced.cost_nanos, priced.attempts), priced.byok_fee
        if paid is not None:
            charged = (None, None) if fee is UNSET else (fee.nanos, fee.state)
            self._byok.add(priced.cost_state, 1, paid, *charged)

    def answer(self) -> dict[str, Any]:
        """``cost_nanos``, ``byok``, ``provider_reported`` and ``coverage``."""
        return {
            "cost_nanos": self._cost_nanos,
            "byok": msgspec.to_builtins(self._byok),
            "provider_reported": self._reported.answer(),
            "coverage": self._coverage.answer(),
        }


class ReportedSums(Struct):
    """Costs that a provider gave a figure for, and ours for the same records.

    Where ours is not wholly known the figures cannot be compared; such records are only counted (``incomparable``).
    """

    records: int = 0
    cost_nanos: int = 0
    provider_cost_nanos: int = 0
    incomparable: int = 0

    def add(self, state: str, records: int, cost_nanos: int, provider_cost_nanos: int) -> None:
        """Count ``records`` of one cost state with these sums."""
        if state in INCOMPLETE or state == CostState.SUPPRESSED:
            self.incomparable += records
            return
        self.records += records
        self.cost_nanos += cost_nanos
        self.provider_cost_nanos += provider_cost_nanos

    def answer(self) -> dict[str, int]:
        """As it is answered, with the drift: the providers' figure less ours."""
        return {
            "records": self.records,
            "cost_nanos": self.cost_nanos,
            "provider_cost_nanos": self.provider_cost_nanos,
            "drift_nanos": self.provider_cost_nanos - self.cost_nanos,
            "incomparable": self.incomparable,
        }


class ByokSums(Struct):
    """The part that teams paid with keys of their own, and what the operator charges for it.

    ``cost_nanos`` is inside the whole sum's, without what the operator's key paid of the same calls; ``fee_nanos`` is
    in no other sum. ``unknown_cost`` and ``unknown_fee`` count records whose cost or fee is not wholly known.
    """

    records: int = 0
    cost_nanos: int = 0
    unknown_cost: int = 0
    estimated_cost: int = 0
    fee_nanos: int = 0
    unknown_fee: int = 0
    estimated_fee: int = 0

    def add(self, state: str, records: int, cost_nanos: int, fee_nanos: int | None, fee_state: str | None) -> None:
        """Count ``records`` of one cost state with these sums; ``fee_state`` is None where no fee is charged."""
        self.records += records
        self.cost_nanos += cost_nanos
        if state in INCOMPLETE:
            self.unknown_cost += records
        elif state == CostState.ESTIMATED:
            self.estimated_cost += records
        self.fee_nanos += fee_nanos or 0
        if fee_state in INCOMPLETE:
            self.unknown_fee += records
        elif fee_state == CostState.ESTIMATED:
            self.estimated_fee += records
