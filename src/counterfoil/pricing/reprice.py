"""Price a stored record again: under its own book, to prove its lines, or under another, to see what it would cost.

A record says everything a price depends on: each attempt's provider, model and usage, the moment it was admitted, the
service tier and model that were served, the team. So the lines follow from the record and the book alone, and under
the record's own book they must be the stored ones, bit for bit. Nothing is ever written back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import msgspec
from msgspec import UNSET, Struct, UnsetType

from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.charging import total
from counterfoil.pricing.fees import byok_fee
from counterfoil.record.charge import INCOMPLETE, NOTHING_SERVED, Charge, CostState, Line, LineState
from counterfoil.record.money import amount_nanos
from counterfoil.record.record import Attempt, Record
from counterfoil.record.times import recorded_ms
from counterfoil.record.usage import ABSENT, Usage


class Tried(Struct, frozen=True):
    """What a price depends on in an :class:`~counterfoil.record.record.Attempt`."""

    provider: str
    model: str
    usage: Usage | UnsetType = UNSET
    cost_nanos: int | UnsetType = UNSET
    native_model: str | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    key_source: str = ""
    region: str | UnsetType = UNSET
    provider_cost_nanos: int | UnsetType = UNSET


class Priced(Struct, frozen=True):
    """What a price, and a comparison of prices, depends on in a record: read from canonical bytes, passing the rest."""

    created_at: str
    team_id: str
    model_id: str
    cost_nanos: int
    cost_state: CostState
    pricing_lines: tuple[Line, ...] = ()
    attempts: tuple[Tried, ...] = ()
    native_model: str | None = None
    service_tier: str | None = None
    byok_fee: Charge | UnsetType = UNSET
    region: str | UnsetType = UNSET
    provider_cost_nanos: int | None = None


decode = msgspec.json.Decoder(Priced).decode
"""A record's canonical bytes as :class:`Priced`, in two thirds of the time that the whole record takes."""


def reprice(book: PriceBook, record: Record | Priced, at_ms: int | None = None) -> Charge:
    """What the call of ``record`` costs under ``book``: the sum over every attempt that was charged.

    ``at_ms`` is when the record was made, in Unix milliseconds, for whoever knows it already.
    """
    attempts = record.attempts
    if at_ms is None:
        at_ms = recorded_ms(record.created_at)
    if len(attempts) == 1 and attempts[0].cost_nanos is not UNSET:
        return _attempt(book, record, attempts[0], at_ms, final=True)
    charges = [
        _attempt(book, record, attempt, at_ms, final=attempt is attempts[-1])
        for attempt in attempts
        if attempt.cost_nanos is not UNSET
    ]
    return total(charges) if charges else NOTHING_SERVED


def refee(book: PriceBook, record: Record | Priced) -> Charge | UnsetType:
    """What the operator charges under ``book`` for the attempts of ``record`` that the team's own key paid for."""
    if not book.overlay.byok:
        return UNSET
    own = [attempt for attempt in record.attempts if attempt.key_source == "team" and attempt.cost_nanos is not UNSET]
    if not own:
        return UNSET
    at_ms = recorded_ms(record.created_at)
    paid = total([_attempt(book, record, attempt, at_ms, final=attempt is record.attempts[-1]) for attempt in own])
    last = own[-1]
    return byok_fee(book, paid, last.provider, last.model, record.team_id, at_ms)


def fee_holds(book: PriceBook, record: Record) -> bool:
    """Whether the operator's fee in ``record`` is what ``book`` gives; mostly there is none."""
    fee = record.byok_fee
    if fee is UNSET and not book.overlay.byok:
        return True
    return fee == refee(book, record)


def differences(book: PriceBook, record: Record) -> Iterator[str]:
    """What is wrong with the stored lines of ``record``, in words; nothing when they follow from ``book`` bit for bit.

    ``book`` must be the one the record names.
    """
    yield from arithmetic(record)
    if record.book is not None and record.book != book.digest:
        yield f"the record was priced with book {record.book}, not {book.digest}"
        return
    charge = reprice(book, record)
    if charge.lines != record.pricing_lines:
        yield from _line_differences(charge.lines, record.pricing_lines)
    if not fee_holds(book, record):
        yield "the operator's fee does not follow from the book"


def arithmetic(record: Record) -> Iterator[str]:
    """What does not add up in ``record`` on its own, without any book: each line's amount, and their sum."""
    summed = 0
    for number, line in enumerate(record.pricing_lines, 1):
        summed += line.amount_nanos
        if line.amount_nanos != amount_nanos(line.quantity, line.unit_size, line.unit_price_nanos):
            yield f"line {number} ({line.meter}): {line.amount_nanos} is not quantity × price ÷ unit size"
    if summed != record.cost_nanos:
        yield f"the lines add up to {summed}, not {record.cost_nanos}"
    fee = record.byok_fee
    if fee is not UNSET and fee.nanos != sum(line.amount_nanos for line in fee.lines):
        yield f"the lines of the operator's fee do not add up to {fee.nanos}"


def _line_differences(ours: tuple[Line, ...], stored: tuple[Line, ...]) -> Iterator[str]:
    if len(ours) != len(stored):
        yield f"the book gives {len(ours)} lines, the record has {len(stored)}"
        return
    for number, (one, other) in enumerate(zip(ours, stored, strict=True), 1):
        for name in Line.__struct_fields__:
            if getattr(one, name) != getattr(other, name):
                theirs, mine = getattr(other, name), getattr(one, name)
                yield f"line {number} ({other.meter}): {name} is {theirs}, the book gives {mine}"


def _attempt(book: PriceBook, record: Record | Priced, attempt: Attempt | Tried, at_ms: int, *, final: bool) -> Charge:
    """What one attempt costs under ``book``. ``final``: it is the record's last one."""
    return book.price(
        attempt.provider,
        attempt.model,
        ABSENT if attempt.usage is UNSET else attempt.usage,
        at_ms,
        service_tier=record.service_tier if final else attempt.service_tier or None,
        team_id=record.team_id,
        native_model=record.native_model if final else attempt.native_model or None,
        region=(record.region if final else attempt.region) or None,
        provider_cost_nanos=_or_none(record.provider_cost_nanos if final else attempt.provider_cost_nanos),
    )


def _or_none(value: int | UnsetType | None) -> int | None:
    return None if value is UNSET else value


class Sums(Struct):
    """Two sums over the same records: what was charged, and what it would have been.

    The ``unpriced`` counts are of records (by meter: of lines) whose cost is not wholly known on that side; by meter,
    ``records`` counts charged lines. The fees are the operator's for calls with a team's own key; they are in no other
    sum.
    """

    records: int = 0
    charged_nanos: int = 0
    repriced_nanos: int = 0
    charged_unpriced: int = 0
    repriced_unpriced: int = 0
    charged_fee_nanos: int = 0
    repriced_fee_nanos: int = 0

    @property
    def difference_nanos(self) -> int:
        """Positive where the other book is dearer."""
        return self.repriced_nanos - self.charged_nanos


class Comparison:
    """What many records would have cost under another book, by model, team and meter."""

    def __init__(self) -> None:
        self.all = Sums()
        self.by_model: defaultdict[str, Sums] = defaultdict(Sums)
        self.by_team: defaultdict[str, Sums] = defaultdict(Sums)
        self.by_meter: defaultdict[str, Sums] = defaultdict(Sums)

    def add(self, record: Record | Priced, charge: Charge, fee: Charge | UnsetType = UNSET) -> None:
        """Count ``record``, which would cost ``charge``, with ``fee`` for the operator."""
        charged_fee = 0 if record.byok_fee is UNSET else record.byok_fee.nanos
        would_fee = 0 if fee is UNSET else fee.nanos
        known, would = record.cost_state not in INCOMPLETE, charge.state not in INCOMPLETE
        for sums in (
            self.all,
            self.by_model[record.model_id],
            self.by_team[record.team_id],
        ):
            sums.records += 1
            sums.charged_nanos += record.cost_nanos
            sums.repriced_nanos += charge.nanos
            if not (known and would):
                sums.charged_unpriced += not known
                sums.repriced_unpriced += not would
            if charged_fee or would_fee:
                sums.charged_fee_nanos += charged_fee
                sums.repriced_fee_nanos += would_fee
        for line in record.pricing_lines:
            sums = self.by_meter[line.meter]
            sums.records += 1
            sums.charged_nanos += line.amount_nanos
            if line.state is LineState.UNPRICED:
                sums.charged_unpriced += 1
        for line in charge.lines:
            sums = self.by_meter[line.meter]
            sums.repriced_nanos += line.amount_nanos
            if line.state is LineState.UNPRICED:
                sums.repriced_unpriced += 1
